//! A bit flipped in every field of a record, of the tail and of the key file.

use std::fs;

use crate::{
    case::{Case, found, missing, try_all},
    scene::{Scene, TAIL, acme, flip, overwrite, rewrite_block, scene},
};

/// Every key of the record that is attacked: an outcome.
const RECORD_FIELDS: [&str; 26] = [
    "agent",
    "attempt",
    "authenticated_by",
    "body.sha256",
    "bytes_out",
    "call_id",
    "client.address",
    "decision",
    "duration_us",
    "epoch",
    "gen_ai.operation.name",
    "gen_ai.tool.name",
    "jsonrpc.request.id",
    "mcp.method.name",
    "network.transport",
    "phase",
    "plugin",
    "policies",
    "policy.revision",
    "principal",
    "seq",
    "status",
    "tenant",
    "time_ns",
    "v",
    "writer_id",
];
const TARGET: usize = 601;

/// Offset of the last byte of `field`'s value within the record.
fn value_end(leaf: &str, field: &str) -> usize {
    let key = format!("\"{field}\":");
    let start = leaf.find(&key).unwrap_or_else(|| panic!("{field} is not in {leaf}")) + key.len();
    let rest = &leaf[start..];
    let next_key = rest.find(",\"").map_or(rest.len() - 1, |end| end);
    // Before a closing quote or bracket.
    start + rest[..next_key].trim_end_matches(['"', ']']).len() - 1
}

fn tail_records(scene: &Scene) -> Vec<Case<'_>> {
    let leaf = String::from_utf8(crate::scene::leaves(&scene.audit())[TARGET].clone()).unwrap();
    let keys: serde_json::Value = serde_json::from_str(&leaf).unwrap();
    let mut expected: Vec<&str> = keys.as_object().unwrap().keys().map(String::as_str).collect();
    expected.retain(|key| *key != "writer_prev");
    assert_eq!(RECORD_FIELDS.to_vec(), expected, "the list of fields is not the record's");
    let names = RECORD_FIELDS.iter().chain(["writer_prev"].iter());
    let case = |field: &&'static str| {
        let at = scene.frames[TARGET] + 36 + value_end(&leaf, field) as u64;
        let name: &'static str = Box::leak(format!("record field: {field}").into_boxed_str());
        found(name, "INTEGRITY", scene.tail(TARGET as u64), move |d| flip(&acme(d).tail(0), at))
    };
    names.map(case).collect()
}

#[test]
fn every_field_of_a_record() {
    let scene = scene();
    try_all(&scene, &tail_records(&scene));
}

#[test]
fn every_field_of_tail_and_key() {
    let scene = scene();
    let s = &scene;
    let tail_file = |index: u64, at: u64| (index, TAIL.to_owned(), at);
    let key = |index: u64| (index, "tenants/acme/audit.pub".to_owned(), 0);
    let tail = move |at: u64| move |d: &std::path::Path| flip(&acme(d).tail(0), at);
    let frame = s.frames[600];
    let key_text = fs::read_to_string(s.audit().join("tenants/acme/audit.pub")).unwrap();
    let plus = key_text.find('+').unwrap() as u64;
    let key_file = move |at: u64| move |d: &std::path::Path| flip(&acme(d).dir.join("audit.pub"), at);
    try_all(
        s,
        &[
            found("tail header: mark", "INTEGRITY", tail_file(512, 0), tail(0)),
            found("tail header: first index", "INTEGRITY", tail_file(512, 0), tail(9)),
            found("tail header: chain", "INTEGRITY", tail_file(0, 0), tail(20)),
            found("tail record: length", "INTEGRITY", s.tail(600), tail(frame)),
            found("tail record: stored hash", "INTEGRITY", s.tail(600), tail(frame + 8)),
            found("tail record: last byte", "INTEGRITY", s.tail(600), tail(s.frames[601] - 1)),
            found("tail record: absurd length", "INTEGRITY", s.tail(600), move |d| {
                overwrite(&acme(d).tail(0), frame, &u32::MAX.to_le_bytes());
            }),
            found("key file: name", "AUTHENTICITY", key(0), key_file(plus - 1)),
            found("key file: key id", "AUTHENTICITY", key(0), key_file(plus + 2)),
            found("key file: key", "AUTHENTICITY", key(0), key_file(plus + 30)),
            found("key file: that of another tenant", "AUTHENTICITY", key(0), |d| {
                fs::copy(d.join("tenants/beta/audit.pub"), acme(d).dir.join("audit.pub")).unwrap();
            }),
            missing("key file: removed", "INTEGRITY", key(0), |d| {
                fs::remove_file(acme(d).dir.join("audit.pub")).unwrap();
            }),
            found("record in a block edited, its stored hash left", "INTEGRITY", s.seg(300, s.block_two), |d| {
                rewrite_block(d, s, false, |n, leaf| {
                    let text = String::from_utf8(leaf.to_vec()).unwrap();
                    if n == 44 { text.replace("sql.query", "sql.other").into_bytes() } else { leaf.to_vec() }
                });
            }),
            found("stored leaf hash", "INTEGRITY", s.seg(300, s.block_two), |d| {
                flip(&acme(d).leaf_hashes(0), 300 * 32 + 3);
            }),
        ],
    );
}
