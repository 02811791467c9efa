//! Cosignatures, policies, the witness's decision and proof files: tables over a toy signature.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use proptest::prelude::*;
use provost_audit_core::{
    AddCheckpoint, Checkpoint, CosignerKey, Frontier, Hash, NoteSigner, NoteVerifier, Refusal, SignedNote,
    TlogConsistency, TlogProof, TreeHead, VerifierKey, WitnessPolicy, consistency_proof, inclusion_proof, leaf_hash,
    root_of,
};

/// Not a signature scheme: a hash under the public key, enough to test what is signed by whom.
struct Toy(u8);

impl Toy {
    fn of(key: &[u8; 32], message: &[u8]) -> [u8; 64] {
        let mut out = [0; 64];
        out[..32].copy_from_slice(&Hash::of(&[key, message].concat()).0);
        out
    }
}

impl NoteSigner for Toy {
    fn public_key(&self) -> [u8; 32] {
        [self.0; 32]
    }
    fn sign(&self, message: &[u8]) -> [u8; 64] {
        Self::of(&[self.0; 32], message)
    }
}

impl NoteVerifier for Toy {
    fn verify(&self, key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
        &Self::of(key, message) == signature
    }
}

const ANY: Toy = Toy(0);
const ORIGIN: &str = "provost/_cluster";

fn leaves(n: u64) -> Vec<Hash> {
    (0..n).map(|i| leaf_hash(&i.to_be_bytes())).collect()
}

fn root(n: u64) -> Hash {
    root_of(&leaves(n))
}

fn note_of(origin: &str, size: u64, root: Hash, key: u8) -> String {
    Checkpoint { origin: origin.to_owned(), size, root, chain: Hash::ZERO, time_ns: 1 }.sign(&Toy(key))
}

fn note(size: u64) -> String {
    note_of(ORIGIN, size, root(size), 1)
}

fn log_key(key: u8) -> VerifierKey {
    VerifierKey { name: ORIGIN.to_owned(), public_key: [key; 32] }
}

fn cosigner(name: &str, key: u8) -> CosignerKey {
    CosignerKey { name: name.to_owned(), public_key: [key; 32] }
}

fn cosigned(note: &str, by: &[(&str, u8)]) -> String {
    let text = SignedNote::parse(note).unwrap().text;
    by.iter()
        .fold(note.to_owned(), |note, (name, key)| note + &CosignerKey::cosign(name, text, 1_700_000_000, &Toy(*key)))
}

#[test]
fn the_specifications_example_is_read() {
    // c2sp.org/tlog-cosignature: a log's and a witness's line on one checkpoint.
    let text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n\
        \u{2014} example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n\
        \u{2014} witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n";
    let note = SignedNote::parse(text).unwrap();
    let head = TreeHead::parse_text(note.text).unwrap();
    assert_eq!((head.origin.as_str(), head.size), ("example.com/behind-the-sofa", 20_852_163));
    let lines: Vec<_> = note.signatures().map(|(name, _, signature)| (name, signature.len())).collect();
    assert_eq!(lines, [("example.com/behind-the-sofa", 64), ("witness.example.com/w1", 72)]);
    let (_, _, signature) = note.signatures().nth(1).unwrap();
    assert_eq!(signature[..8], 1_679_315_147u64.to_be_bytes(), "the time of the example");
    // An unknown witness's line is passed over, never a failure.
    assert_eq!(cosigner("witness.example.com/w1", 9).cosigned(&note, &ANY), Ok(None));
}

#[test]
fn notes_keep_to_signed_note() {
    let good = note(3);
    for (what, bad) in [
        ("a tab", good.replacen("chain ", "chain\t", 1)),
        ("carriage returns", good.replace('\n', "\r\n")),
        ("no last line end", good.trim_end().to_owned()),
        ("no signature", good.split("\n\n").next().unwrap().to_owned() + "\n\n"),
    ] {
        assert!(SignedNote::parse(&bad).is_err(), "{what}");
    }
    let empty_line = good.replacen("\nchain ", "\n\nchain ", 1);
    assert!(SignedNote::parse(&empty_line).is_ok(), "a note's text may hold an empty line");
    assert!(Checkpoint::parse_unchecked(&empty_line).is_err(), "a checkpoint's may not");
}

#[test]
fn a_cosignature_is_bound_to_key_name_text_and_protocol() {
    let key = cosigner("w/1", 7);
    assert_eq!(CosignerKey::parse(&key.to_text()), Ok(key.clone()));
    assert!(VerifierKey::parse(&key.to_text()).is_err(), "a witness's key is no log's");
    assert!(CosignerKey::parse(&log_key(7).to_text()).is_err(), "and a log's is no witness's");
    let one_secret_two_protocols = VerifierKey { name: "w/1".to_owned(), public_key: [7; 32] };
    assert_ne!(key.id(), one_secret_two_protocols.id());

    let good = cosigned(&note(5), &[("w/1", 7)]);
    let judge = |note: &str| cosigner("w/1", 7).cosigned(&SignedNote::parse(note).unwrap(), &ANY);
    assert_eq!(judge(&good), Ok(Some(1_700_000_000)));
    assert_eq!(judge(&note(5)), Ok(None));
    assert_eq!(judge(&cosigned(&note(5), &[("w/2", 7)])), Ok(None), "another name is another key");
    assert!(judge(&good.replacen("\n5\n", "\n6\n", 1)).is_err(), "another text");
    // The note's own signature, by the same secret, under the cosigner's name and id.
    let text = SignedNote::parse(&good).unwrap().text.to_owned();
    let plain = VerifierKey::signature_line("w/1", &text, &Toy(7));
    assert_eq!(judge(&format!("{}{plain}", note(5))), Ok(None), "a plain signature has another id");
    let signature = Toy(7).sign(text.as_bytes());
    let crossed = relabel(&[&1_700_000_000u64.to_be_bytes()[..], &signature].concat());
    assert!(judge(&format!("{}{crossed}", note(5))).is_err(), "a plain signature as a cosignature");
    assert!(judge(&format!("{}{}", note(5), relabel(&signature))).is_err(), "and without a time");
    let huge =
        [&u64::MAX.to_be_bytes()[..], &Toy(7).sign(format!("cosignature/v1\ntime {}\n{text}", u64::MAX).as_bytes())];
    assert!(judge(&format!("{}{}", note(5), relabel(&huge.concat()))).is_err(), "a time beyond 2^63");
    // And the other way: a cosignature is no signature of the log.
    assert!(SignedNote::parse(&good).unwrap().check(&one_secret_two_protocols, &ANY).is_err());
}

/// A line with the name and key id of `w/1`, around any bytes.
fn relabel(signature: &[u8]) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let blob = [&cosigner("w/1", 7).id()[..], signature].concat();
    format!("\u{2014} w/1 {}\n", STANDARD.encode(blob))
}

fn policy(rules: &str) -> Result<WitnessPolicy, String> {
    let mut text = format!("# the auditor's\nlog {} https://log.example\n\n", log_key(1).to_text());
    for (n, name) in (11u8..).zip(["a", "b", "c", "d"]) {
        text += &format!("witness {name}\t{} https://{name}.example\n", cosigner(&format!("w/{name}"), n).to_text());
    }
    WitnessPolicy::parse(&format!("{text}{rules}")).map_err(|e| e.to_string())
}

#[test]
fn a_quorum_counts_distinct_witnesses() {
    let two = "group two 2 a b c\n";
    for (rules, by, enough) in [
        ("quorum a\n", "a", true),
        ("quorum a\n", "b", false),
        ("quorum a\n", "", false),
        ("group g any a b\nquorum g\n", "b", true),
        ("group g all a b\nquorum g\n", "b", false),
        ("group g all a b\nquorum g\n", "bba", true),
        (&format!("{two}quorum two\n"), "aaa", false),
        (&format!("{two}quorum two\n"), "ac", true),
        (&format!("{two}group both all two d\nquorum both\n"), "abc", false),
        (&format!("{two}group both all two d\nquorum both\n"), "dab", true),
        ("quorum none\n", "abcd", false),
    ] {
        let policy = policy(rules).unwrap();
        let lines: Vec<(String, u8)> = by.chars().map(|c| (format!("w/{c}"), 11 + (c as u8 - b'a'))).collect();
        let lines: Vec<(&str, u8)> = lines.iter().map(|(name, key)| (name.as_str(), *key)).collect();
        let note = cosigned(&note(9), &lines);
        let found = policy.cosigned(&SignedNote::parse(&note).unwrap(), &ANY).unwrap();
        assert_eq!(found.enough, enough, "{rules} {by}");
        let distinct: std::collections::BTreeSet<char> = by.chars().collect();
        assert_eq!(found.by.len(), distinct.len(), "{rules} {by}");
    }
}

#[test]
fn policies_that_would_mislead_are_refused() {
    let one_key_twice = format!("witness e {}\nquorum e\n", cosigner("w/other-name", 11).to_text());
    for (rules, what) in [
        ("", "no `quorum` line"),
        ("quorum a\nquorum b\n", "not two"),
        ("quorum nobody\n", "not defined"),
        ("group g 0 a\nquorum g\n", "cannot be"),
        ("group g 3 a b\nquorum g\n", "cannot be"),
        ("group g 2 a a\nquorum g\n", "already"),
        ("group g any a\ngroup h any a\nquorum h\n", "already"),
        ("group g any later\nquorum g\n", "not defined"),
        ("group none any a\nquorum none\n", "taken"),
        ("group a any b\nquorum a\n", "taken"),
        ("witness x provost/_cluster+00000000+AQ==\nquorum x\n", "algorithm is another"),
        ("witnes x\n", "write `log"),
        ("quorum\u{1}a\n", "control character"),
        (&one_key_twice, "with this key"),
        (&format!("log {}\nquorum a\n", log_key(1).to_text()), "already"),
    ] {
        let refused = policy(rules).expect_err(rules);
        assert!(refused.contains(what), "{rules}: {refused}");
    }
    assert!(WitnessPolicy::parse("log x+y+z\nquorum none\n").is_err());
    assert!(policy("  \t quorum \t a  ").is_ok(), "white space and a missing last line end");
}

#[test]
fn a_witness_decides() {
    let head = |size| TreeHead { origin: ORIGIN.to_owned(), size, root: root(size) };
    let proof = |old, new| consistency_proof(old, new, &mut source(new)).unwrap();
    let request = |old_size, proof: Vec<Hash>, note: String| AddCheckpoint { old_size, proof, note };
    let other = |size| note_of(ORIGIN, size, Hash([9; 32]), 1);
    let held = head(10);
    type Case<'a> = (&'a str, Option<&'a TreeHead>, AddCheckpoint, Result<u64, u16>);
    let cases: Vec<Case<'_>> = vec![
        ("the first", None, request(0, vec![], note(10)), Ok(10)),
        ("the first, with a proof", None, request(0, vec![Hash::ZERO], note(10)), Err(422)),
        ("the first, from elsewhere", None, request(4, proof(4, 10), note(10)), Err(409)),
        ("growth", Some(&held), request(10, proof(10, 25), note(25)), Ok(25)),
        ("growth without proof", Some(&held), request(10, vec![], note(25)), Err(422)),
        ("growth with another's proof", Some(&held), request(10, proof(11, 25), note(25)), Err(422)),
        ("a fork", Some(&held), request(10, proof(10, 25), other(25)), Err(422)),
        ("the same", Some(&held), request(10, vec![], note(10)), Ok(10)),
        ("another root at the same size", Some(&held), request(10, vec![], other(10)), Err(409)),
        ("back", Some(&held), request(4, vec![], note(4)), Err(409)),
        ("an old size from before", Some(&held), request(4, proof(4, 25), note(25)), Err(409)),
        ("above the checkpoint", Some(&held), request(30, vec![], note(25)), Err(400)),
        ("another key", Some(&held), request(10, proof(10, 25), note_of(ORIGIN, 25, root(25), 2)), Err(403)),
        ("a changed size", Some(&held), request(10, proof(10, 25), note(25).replacen("\n25\n", "\n26\n", 1)), Err(403)),
        ("no note", Some(&held), request(10, vec![], "x\n\ny\n".to_owned()), Err(400)),
    ];
    for (what, held, request, expect) in cases {
        let read = AddCheckpoint::parse(request.to_text().as_bytes()).unwrap();
        assert_eq!(read, request, "{what}");
        let decided = read.check(&[log_key(1)], held, &ANY).map(|(head, _)| head.size).map_err(|r| r.status());
        assert_eq!(decided, expect, "{what}");
    }
    let unknown = request(0, vec![], note(3));
    assert_eq!(unknown.check(&[], None, &ANY), Err(Refusal::UnknownLog(ORIGIN.to_owned())));
    for bad in ["", "old\n\nx", "old -1\n\nx", "old 01\n\nx", "old 1\nAA==\n\nx", "old 1", "new 1\n\nx", "old 1 \n\nx"]
    {
        assert_eq!(AddCheckpoint::parse(bad.as_bytes()).unwrap_err().status(), 400, "{bad:?}");
    }
    let many = request(1, vec![Hash::ZERO; 64], note(3)).to_text();
    assert_eq!(AddCheckpoint::parse(many.as_bytes()).unwrap_err().status(), 400);
}

fn source(n: u64) -> impl FnMut(std::ops::Range<u64>) -> Result<Hash, provost_audit_core::ProofError> {
    let all = leaves(n);
    move |range| {
        let mut tree = Frontier::default();
        all[range.start as usize..range.end as usize].iter().for_each(|leaf| tree.append(*leaf));
        Ok(tree.root())
    }
}

#[test]
fn proof_files_hold_for_what_they_say_and_nothing_else() {
    let path = inclusion_proof(7, 20, &mut source(20)).unwrap();
    let proof = TlogProof { index: 7, path, checkpoint: note(20) };
    assert_eq!(TlogProof::parse(&proof.to_text()), Ok(proof.clone()));
    let with_extra = proof.to_text().replacen("\nindex", "\nextra AAAA\nindex", 1);
    assert_eq!(TlogProof::parse(&with_extra), Ok(proof.clone()));
    let leaf = leaf_hash(&7u64.to_be_bytes());
    assert_eq!(proof.check(&leaf, &log_key(1), &ANY).unwrap().size, 20);
    assert!(proof.check(&Hash::ZERO, &log_key(1), &ANY).is_err());
    assert!(proof.check(&leaf, &log_key(2), &ANY).is_err());
    let moved = TlogProof { index: 8, ..proof.clone() };
    assert!(moved.check(&leaf, &log_key(1), &ANY).is_err());

    let old = TreeHead { origin: ORIGIN.to_owned(), size: 9, root: root(9) };
    let path = consistency_proof(9, 20, &mut source(20)).unwrap();
    let proof = TlogConsistency { old_size: 9, old_root: root(9), path, checkpoint: note(20) };
    assert_eq!(TlogConsistency::parse(&proof.to_text()), Ok(proof.clone()));
    assert!(proof.check(&old, &log_key(1), &ANY).is_ok());
    assert!(proof.check(&TreeHead { root: root(8), ..old.clone() }, &log_key(1), &ANY).is_err());
    assert!(proof.check(&TreeHead { size: 8, ..old.clone() }, &log_key(1), &ANY).is_err());
    assert!(proof.check(&TreeHead { origin: "x".to_owned(), ..old }, &log_key(1), &ANY).is_err());
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300), old in any::<u64>()) {
        let text = String::from_utf8_lossy(&bytes);
        let _ = AddCheckpoint::parse(&bytes);
        let _ = AddCheckpoint::parse(format!("old {old}\n{text}").as_bytes());
        let _ = WitnessPolicy::parse(&text);
        let _ = TlogProof::parse(&format!("c2sp.org/tlog-proof@v1\n{text}"));
        let _ = TlogConsistency::parse(&format!("provost/tlog-consistency@v1\nold {old}\n{text}"));
        let _ = provost_audit_core::TileName::parse(&format!("tile/{text}"));
        let _ = CosignerKey::parse(&text);
    }

    #[test]
    fn a_changed_byte_never_cosigns(at in 0usize..400, bit in 0u8..8) {
        let mut bytes = cosigned(&note(5), &[("w/1", 7)]).into_bytes();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        let Ok(changed) = String::from_utf8(bytes) else { return Ok(()) };
        let Ok(parsed) = SignedNote::parse(&changed) else { return Ok(()) };
        // The log's own line is not the witness's business.
        let own = cosigned(&note(5), &[("w/1", 7)]);
        let before = SignedNote::parse(&own).unwrap().text.len() + 1;
        let log_line = before..note(5).len();
        if !log_line.contains(&at) {
            prop_assert!(!matches!(cosigner("w/1", 7).cosigned(&parsed, &ANY), Ok(Some(_))), "byte {at}");
        }
    }
}
