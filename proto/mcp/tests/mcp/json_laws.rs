//! Laws of the scanner, with `serde_json` as the oracle.

use bytes::Bytes;
use proptest::prelude::*;
use provost_mcp::{JsonFault, JsonLimits, RawJson, RawObject, array_items};

/// A JSON tree in which an object may have equal keys.
#[derive(Clone, Debug)]
enum Node {
    Word(&'static str),
    Number(String),
    Text(String),
    Array(Vec<Node>),
    Object(Vec<(String, Node)>),
}

fn node() -> impl Strategy<Value = Node> {
    let leaf = prop_oneof![
        prop::sample::select(vec!["true", "false", "null"]).prop_map(Node::Word),
        prop::sample::select(vec!["0", "-0", "1.50", "-12e+3", "1E9", "99999999999999999999"])
            .prop_map(|n| Node::Number(n.to_owned())),
        any::<String>().prop_map(Node::Text),
    ];
    leaf.prop_recursive(5, 64, 16, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Node::Array),
            prop::collection::vec(("[ab]|.{0,3}|k[0-9]{0,2}", inner), 0..16).prop_map(Node::Object),
        ]
    })
}

/// The tree without its second and later equal keys.
fn distinct(node: Node) -> Node {
    match node {
        Node::Array(items) => Node::Array(items.into_iter().map(distinct).collect()),
        Node::Object(members) => {
            let mut kept: Vec<(String, Node)> = Vec::new();
            for (key, value) in members {
                if kept.iter().all(|(k, _)| *k != key) {
                    kept.push((key, distinct(value)));
                }
            }
            Node::Object(kept)
        }
        leaf => leaf,
    }
}

fn object() -> impl Strategy<Value = Node> {
    prop::collection::vec(("[ab]|.{0,3}", node()), 0..16).prop_map(|members| distinct(Node::Object(members)))
}

/// Writes the tree; `dice` picks spaces and escapes.
fn write(node: &Node, dice: &mut u64, out: &mut String) {
    let mut roll = |n: u64| {
        *dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*dice >> 33) % n
    };
    let space = ["", " ", "\n", "\t"][roll(4) as usize];
    out.push_str(space);
    match node {
        Node::Word(w) => out.push_str(w),
        Node::Number(n) => out.push_str(n),
        Node::Text(t) => text(t, roll(2) == 0, out),
        Node::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write(item, dice, out);
            }
            out.push(']');
        }
        Node::Object(members) => {
            out.push('{');
            for (i, (key, value)) in members.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                text(key, i % 2 == 0, out);
                out.push(':');
                write(value, dice, out);
            }
            out.push('}');
        }
    }
    out.push_str(space);
}

fn text(text: &str, escape_all: bool, out: &mut String) {
    if !escape_all {
        out.push_str(&serde_json::to_string(text).unwrap());
        return;
    }
    out.push('"');
    for unit in text.encode_utf16() {
        out.push_str(&format!("\\u{unit:04x}"));
    }
    out.push('"');
}

fn has_equal_keys(node: &Node) -> bool {
    match node {
        Node::Array(items) => items.iter().any(has_equal_keys),
        Node::Object(members) => {
            let mut keys: Vec<&str> = members.iter().map(|(k, _)| k.as_str()).collect();
            keys.sort_unstable();
            keys.windows(2).any(|w| w[0] == w[1]) || members.iter().any(|(_, v)| has_equal_keys(v))
        }
        _ => false,
    }
}

fn check(text: &str) -> Result<RawJson, JsonFault> {
    RawJson::check(Bytes::copy_from_slice(text.as_bytes()), &JsonLimits::RESPONSE)
}

/// The same members and items at every level, by way of the parts.
fn parts_are(raw: &RawJson, value: &serde_json::Value) -> Result<(), TestCaseError> {
    match value {
        serde_json::Value::Object(members) => {
            let object = RawObject::parse(raw).unwrap();
            prop_assert_eq!(object.len(), members.len());
            for (key, value) in members {
                prop_assert_eq!(raw.member(key), object.get(key));
                parts_are(&object.get(key).unwrap(), value)?;
            }
        }
        serde_json::Value::Array(values) => {
            let items = array_items(raw).unwrap();
            prop_assert_eq!(items.len(), values.len());
            for (item, value) in items.iter().zip(values) {
                parts_are(item, value)?;
            }
        }
        leaf => prop_assert_eq!(&raw.parse::<serde_json::Value>().unwrap(), leaf),
    }
    Ok(())
}

proptest! {
    #[test]
    fn equal_keys_and_nothing_else_is_refused(tree in node(), mut dice in any::<u64>()) {
        let mut text = String::new();
        write(&tree, &mut dice, &mut text);
        match check(&text) {
            Ok(raw) => {
                prop_assert!(!has_equal_keys(&tree));
                prop_assert_eq!(raw.as_str(), text.trim_matches([' ', '\n', '\t']));
            }
            Err(JsonFault::DuplicateKey { .. }) => prop_assert!(has_equal_keys(&tree)),
            Err(other) => prop_assert!(false, "{other} for {text:?}"),
        }
    }

    #[test]
    fn broken_text_is_judged_as_serde_json_does(
        tree in node(),
        mut dice in any::<u64>(),
        at in any::<prop::sample::Index>(),
        with in prop::sample::select(b"{}[]\",:\\0e.-+u xt\n\x01".to_vec()),
    ) {
        let mut text = String::new();
        write(&tree, &mut dice, &mut text);
        let mut bytes = text.into_bytes();
        prop_assume!(!bytes.is_empty());
        let at = at.index(bytes.len());
        bytes[at] = with;
        let expected = serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).is_ok()
            && std::str::from_utf8(&bytes).is_ok();
        let got = RawJson::check(bytes.clone().into(), &JsonLimits::RESPONSE);
        let taken = matches!(got, Ok(_) | Err(JsonFault::DuplicateKey { .. }));
        // An object is left at its first pair of equal keys, before what follows is read.
        if !matches!(got, Err(JsonFault::DuplicateKey { .. })) {
            prop_assert_eq!(taken, expected, "{:?}: {:?}", String::from_utf8_lossy(&bytes), got);
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = RawJson::check(bytes.into(), &JsonLimits::RESPONSE);
    }

    #[test]
    fn the_parts_of_a_text_are_those_of_its_value(tree in object(), mut dice in any::<u64>()) {
        let mut text = String::new();
        write(&tree, &mut dice, &mut text);
        parts_are(&check(&text).unwrap(), &serde_json::from_str(&text).unwrap())?;
    }

    #[test]
    fn setting_a_member_changes_only_it(tree in object(), mut dice in any::<u64>(), key in "[ab]") {
        let mut text = String::new();
        write(&tree, &mut dice, &mut text);
        let before = RawObject::parse(&check(&text).unwrap()).unwrap();
        let mut after = before.clone();
        after.set(&key, RawJson::from_text("new"));
        let after = RawObject::parse(&check(after.finish().as_str()).unwrap()).unwrap();
        prop_assert_eq!(after.get_text(&key), Some("new".to_owned()));
        for (name, value) in before.iter().filter(|(name, _)| *name != key) {
            prop_assert_eq!(after.get(&name).unwrap(), value.clone());
        }
        prop_assert_eq!(after.len(), before.len() + usize::from(!before.has(&key)));
    }
}
