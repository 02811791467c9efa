//! Proof files, made from the log's files and checked by ours and by a Python program of its own.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{fs, path::Path, process::Command};

use common::{Lab, tenant};
use provost_audit_core::{Checkpoint, Hash, TlogConsistency, TlogProof, TreeHead, VerifierKey, leaf_hash, node_hash};
use provost_audit_verify::{
    Ed25519, Exit, LogLayout, LogReader, Receipt, VerifyOptions, prove_consistency, prove_inclusion, verify,
};
use tempfile::tempdir;

fn python(file: &Path, key: &VerifierKey, rest: &[String]) -> bool {
    let script = Path::new(&std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("../../tests/tlog_proof.py");
    let mut command = Command::new("python3");
    // No compiled files beside the sources.
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    let output = command.arg(script).arg(file).arg(key.to_text()).args(rest).output().unwrap();
    match output.status.code() {
        Some(0) => true,
        Some(1) => false,
        _ => panic!("{}", String::from_utf8_lossy(&output.stderr)),
    }
}

#[test]
fn proofs_hold_for_two_readers_and_for_nothing_else() {
    let dir = tempdir().unwrap();
    let mut lab = Lab::open(dir.path());
    let acme = tenant("acme");
    let mut heads: Vec<TreeHead> = Vec::new();
    for calls in [1, 63, 64, 72, 100] {
        lab.calls(&acme, calls);
        lab.checkpoint();
        let head = lab.machine.heads().remove(0);
        heads.push(TreeHead { origin: "provost/acme".to_owned(), size: head.size, root: head.root });
    }
    lab.calls(&acme, 2);
    let key = lab.key.verifier_key("provost/acme");
    drop(lab.machine);
    let layout = LogLayout::new(dir.path().join("audit/tenants/acme"));
    let mut leaves: Vec<Hash> = Vec::new();
    let mut reader = LogReader::new(layout.clone());
    while let Some(chunk) = reader.next().unwrap() {
        leaves.extend(chunk.iter().map(|(_, leaf)| leaf_hash(leaf)));
    }
    let newest = heads.last().unwrap().clone();
    assert_eq!((newest.size, leaves.len()), (600, 604));
    let file = dir.path().join("proof");

    // A receipt that names an inner node of the tree names no record.
    let inner = Receipt { log: "provost/acme".to_owned(), index: 0, leaf_hash: node_hash(&leaves[0], &leaves[1]) };
    let options = VerifyOptions { receipts: vec![inner], ..VerifyOptions::default() };
    let report = verify(&dir.path().join("audit"), &options).unwrap();
    assert_eq!(report.exit, Exit::Tampered, "{report}");
    common::matrix::row("receipt: an inner node as a leaf", "the promised record is not there", "1", "record 0");

    for (index, size) in
        [(0, None), (1, Some(2)), (127, Some(128)), (255, Some(256)), (256, None), (399, Some(400)), (599, None)]
    {
        let proof = prove_inclusion(&layout, index, size).unwrap();
        let read = TlogProof::parse(&proof.to_text()).unwrap();
        let (leaf, other) = (leaves[index as usize], leaves[index as usize ^ 1]);
        assert_eq!(read.check(&leaf, &key, &Ed25519).unwrap().size, size.unwrap_or(600));
        assert!(read.check(&other, &key, &Ed25519).is_err());
        fs::write(&file, proof.to_text()).unwrap();
        assert!(python(&file, &key, &[leaf.to_string()]), "{index} of {size:?}");
        assert!(!python(&file, &key, &[other.to_string()]), "{index} of {size:?}");
    }
    for (index, size) in [(600, None), (2, Some(2)), (0, Some(3))] {
        let refused = prove_inclusion(&layout, index, size).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(refused.contains("PV-AUDIT-PROOF"), "{index} of {size:?}: {refused}");
    }

    for (n, old) in heads.iter().enumerate() {
        for new in &heads[n..] {
            let proof = prove_consistency(&layout, old.size, Some(new.size)).unwrap();
            let read = TlogConsistency::parse(&proof.to_text()).unwrap();
            assert_eq!(read.check(old, &key, &Ed25519).unwrap(), *new);
            let forged = TreeHead { root: newest.root, ..old.clone() };
            fs::write(&file, proof.to_text()).unwrap();
            let args = |head: &TreeHead| [head.size.to_string(), head.root.to_string()];
            assert!(python(&file, &key, &args(old)), "{} to {}", old.size, new.size);
            if old.size < newest.size {
                assert!(read.check(&forged, &key, &Ed25519).is_err());
                assert!(!python(&file, &key, &args(&forged)), "{} to {}", old.size, new.size);
            }
        }
    }
    assert!(prove_consistency(&layout, 5, Some(7)).is_err(), "nobody signed 7 records");

    // One changed byte of the checkpoint in the file, and nobody accepts it.
    let proof = prove_inclusion(&layout, 3, None).unwrap();
    let changed = TlogProof { checkpoint: proof.checkpoint.replacen("\n600\n", "\n601\n", 1), ..proof };
    assert!(changed.check(&leaves[3], &key, &Ed25519).is_err());
    fs::write(&file, changed.to_text()).unwrap();
    assert!(!python(&file, &key, &[leaves[3].to_string()]));
    assert!(Checkpoint::parse_unchecked(&changed.checkpoint).is_ok(), "it is the signature that fails");
}
