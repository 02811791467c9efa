//! Somebody who has every byte of a node's disk.

use std::{
    collections::{BTreeSet, HashSet},
    fs,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use provost_sealed::{BodyKey, Place};
use provost_types::{CallId, KeyId, Phase, Pseudonym, SubjectKey};

use super::month;
use crate::{
    Command, KeyCommand, SubjectPaths,
    entry::KEYS_KIND,
    subject_secret::{KEY_BYTES, Secret},
    subject_state::slot_context,
};

pub(super) fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

/// What somebody can do who has every byte of a node's disk, knows the formats, and knows of the
/// body everything but what it says: each run of 32 bytes is tried as each kind of key, and what
/// opens with one is searched as well.
pub(super) fn try_to_read(dir: &Path, sealed: &[u8], commit: &[u8; 32], call: u128, subject: &str) -> Option<Vec<u8>> {
    let place = Place { tenant: "acme", subject, month: month(), call_id: CallId(call), phase: Phase::Denied };
    let contents: Vec<Vec<u8>> = files(dir).iter().map(|path| fs::read(path).unwrap()).collect();
    let store = fs::read(SubjectPaths::below(dir).keys).unwrap();
    let entries = wrapped(&fs::read(dir.join("raft")).unwrap());
    let mut tried: HashSet<[u8; KEY_BYTES]> = HashSet::new();
    let mut open: Vec<Vec<u8>> = contents;
    while let Some(bytes) = open.pop() {
        for window in bytes.windows(KEY_BYTES) {
            let candidate: [u8; KEY_BYTES] = window.try_into().unwrap();
            // Keys are random: runs of few different bytes are none.
            if window.iter().collect::<BTreeSet<_>>().len() < 12 || !tried.insert(candidate) {
                continue;
            }
            let own = BodyKey::new(&SubjectKey::new(KeyId([0; 16]), Pseudonym([0; 16]), candidate), &place);
            if let Ok(body) = own.open(sealed, commit) {
                return Some(body.to_vec());
            }
            let mut key = Secret::from_slice(&candidate).unwrap();
            if let Some(plain) = key.open(b"PVKEYS\0\x01", &store[8..]) {
                open.push(plain.to_vec());
            }
            // As a log key, and as what follows from it.
            for _ in 0..3 {
                let found = entries.iter().filter_map(|(context, wrapped)| key.open(context, wrapped));
                open.extend(found.map(|plain| plain.to_vec()));
                key = key.derive(b"provost audit next log key 1\n");
            }
        }
    }
    None
}

/// Contexts and wrapped keys of a Raft log.
fn wrapped(raft: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some(len) = raft.get(at..at + 4) {
        let len = u32::from_le_bytes(len.try_into().unwrap()) as usize;
        let entry = &raft[at + 4..at + 4 + len];
        at += 4 + len;
        if entry[1] == KEYS_KIND
            && let Ok(Command::Keys(KeyCommand::Make { slot, id, generation, wrapped })) =
                Command::decode(&Bytes::copy_from_slice(entry))
        {
            found.push((slot_context(&slot, id, generation), wrapped));
        }
    }
    found
}
