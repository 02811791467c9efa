//! Any one change of a valid directory either changes nothing that is vouched for, or is found.

use std::{
    fs,
    path::{Path, PathBuf},
};

use proptest::prelude::*;
use provost_audit_verify::{Exit, LogReader, VerifyOptions, list_logs, verify};

use crate::{common::copy_dir, scene::scene};

#[derive(Clone, Debug)]
enum Mutation {
    Flip { bit: u8 },
    Cut,
    Insert { bytes: Vec<u8> },
    Delete { len: usize },
    Swap { len: usize, with: usize },
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let bytes = proptest::collection::vec(any::<u8>(), 1..60);
    prop_oneof![
        4 => (0u8..8).prop_map(|bit| Mutation::Flip { bit }),
        1 => Just(Mutation::Cut),
        1 => bytes.prop_map(|bytes| Mutation::Insert { bytes }),
        1 => (1usize..3_000).prop_map(|len| Mutation::Delete { len }),
        1 => (1usize..2_000, any::<usize>()).prop_map(|(len, with)| Mutation::Swap { len, with }),
    ]
}

fn mutate(bytes: &mut Vec<u8>, at: usize, mutation: &Mutation) {
    let at = at % bytes.len();
    match mutation {
        Mutation::Flip { bit } => bytes[at] ^= 1 << bit,
        Mutation::Cut => bytes.truncate(at),
        Mutation::Insert { bytes: more } => drop(bytes.splice(at..at, more.iter().copied())),
        Mutation::Delete { len } => drop(bytes.drain(at..(at + len).min(bytes.len()))),
        Mutation::Swap { len, with } => {
            let (a, b) = (at, with % bytes.len());
            for n in 0..*len {
                if a.max(b) + n < bytes.len() {
                    bytes.swap(a + n, b + n);
                }
            }
        }
    }
}

fn files(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, into) } else { into.push(path) }
    }
}

/// Everything that a verification vouches for: each log's records up to its last good checkpoint.
fn vouched(dir: &Path, sizes: &[(String, u64)]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for log in list_logs(dir).unwrap() {
        let Some((_, size)) = sizes.iter().find(|(origin, _)| *origin == log.origin("provost")) else { continue };
        let mut reader = LogReader::new(provost_audit_verify::LogLayout::new(dir.join(log.folder())));
        while let Some(chunk) = reader.next().unwrap() {
            all.extend(chunk.iter().filter(|(index, _)| index < size).map(|(_, leaf)| leaf.to_vec()));
        }
    }
    all
}

#[test]
fn any_one_change_is_harmless_or_found() {
    let scene = scene();
    // The newest checkpoints, kept elsewhere: what is signed is all there is to lose.
    let anchor = scene.dir.path().join("newest");
    fs::copy(scene.audit().join("checkpoint"), &anchor).unwrap();
    let options = VerifyOptions { against: Some(anchor), ..VerifyOptions::default() };
    let honest = verify(&scene.audit(), &options).unwrap();
    assert_eq!(honest.exit, Exit::Proven, "{honest}");
    let sizes: Vec<(String, u64)> = honest.logs.iter().map(|l| (l.origin.clone(), l.signed)).collect();
    let records = vouched(&scene.audit(), &sizes);
    assert_eq!(records.len(), 4 + 20 + 680);
    let mut all = Vec::new();
    files(&scene.audit(), &mut all);
    all.sort();
    let case = scene.dir.path().join("case");
    copy_dir(&scene.audit(), &case);
    let config = ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(file in any::<proptest::sample::Index>(), at in any::<usize>(), change in mutation())| {
        let original = file.get(&all);
        let target = case.join(original.strip_prefix(scene.audit()).unwrap());
        let mut bytes = fs::read(original).unwrap();
        if !bytes.is_empty() {
            mutate(&mut bytes, at, &change);
        }
        fs::write(&target, &bytes).unwrap();
        let report = verify(&case, &options).unwrap();
        let kept = (report.exit == Exit::Proven).then(|| vouched(&case, &sizes));
        fs::copy(original, &target).unwrap();
        if let Some(kept) = kept {
            prop_assert!(kept == records, "{} at {at}: {change:?} was passed over\n{report}", target.display());
        } else {
            prop_assert_ne!(report.exit, Exit::Unanchored, "the anchor covers every log\n{}", report);
            let place = crate::common::place_of(&report, &case);
            prop_assert!(place.is_some(), "found and not placed: {}\n{}", target.display(), report);
        }
    });
}
