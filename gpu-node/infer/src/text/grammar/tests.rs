//! Grammars that are kept.

use super::*;

#[test]
fn a_schema_is_compiled_once_for_a_tenant_and_each_answer_begins_anew() {
    let json = include_bytes!("../../../tests/fixtures/tiny-chat/tokenizer.json");
    let tokenizer = Tokenizer::from_bytes(json).unwrap();
    let grammars = Grammars::of(&tokenizer, &TokenBytes::of(&tokenizer), &[255]).unwrap();
    let schema = r#"{ "enum": ["a", "b"] }"#;
    let first_tokens = |grammar: &mut Grammar| -> Vec<usize> {
        let mut logits = vec![0.0; 256];
        grammar.mask(&mut logits).unwrap();
        (0..256).filter(|token| logits[*token] == 0.0).collect()
    };
    let mut one = grammars.of_schema("acme", schema).unwrap();
    assert_eq!(first_tokens(&mut one), [usize::from(b'"')]);
    assert!(!one.take(u32::from(b'"')).unwrap());
    let mut two = grammars.of_schema("acme", schema).unwrap();
    assert_eq!(first_tokens(&mut two), [usize::from(b'"')]);
    assert_eq!(first_tokens(&mut one), [usize::from(b'a'), usize::from(b'b')]);
    assert_eq!(grammars.cache().len(), 1);
    grammars.of_schema("other", schema).unwrap();
    assert_eq!(grammars.cache().len(), 2);
    assert!(grammars.of_schema("acme", r#"{ "type": "nonsense" }"#).is_err());
    assert_eq!(grammars.cache().len(), 2);
}
