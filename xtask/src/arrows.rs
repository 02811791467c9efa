//! Which crate may depend on which.
//!
//! Invariants checked here, in the order of [`check`]:
//! 1. planes never import each other; they meet in `proto/` and in the binary; a leaf imports `proto/` only, and
//!    only the binary and what exercises it import a leaf;
//! 2. a pure crate reaches no runtime, storage, network, tensor or randomness crate;
//! 3. an engine (openraft, RocksDB, candle, sqlx, wasmtime) has the owners named here and no others;
//! 4. the offline verifier reaches no runtime and no network: an auditor runs it on a copy;
//! 5. nothing depends on the binary, the tests, the benches or this crate;
//! 6. every member is listed under a known folder, so that a new plane cannot escape the rules.
//!
//! An exception is an entry in [`ALLOWED_CROSSINGS`] with its reason; there is no other way out.

use std::collections::BTreeSet;

use crate::graph::Graph;

/// Folders whose crates form one plane each.
const PLANES: [&str; 4] = ["control-plane", "audit-log", "data-plane", "gpu-node"];

/// The shared vocabulary: every plane may use it, it uses no plane.
const VOCABULARY: &str = "proto";

/// Members that compose or exercise the others: they may import anything, nothing imports them.
const COMPOSERS: [&str; 4] = ["server", "bench", "tests", "xtask"];

/// Members that know the vocabulary only; composers may use them, planes may not.
const LEAVES: [&str; 1] = ["client"];

/// (from, to, why). The only arrows that cross a plane border.
const ALLOWED_CROSSINGS: [(&str, &str, &str); 1] =
    [("provost-audit-store", "provost-control-raft", "the consensus crate is generic over its state machine")];

/// Crates that decide and never act: same facts, same answer, on any machine.
pub const PURE: [&str; 8] = [
    "provost-types",
    "provost-mcp",
    "provost-control-state",
    "provost-audit-core",
    "provost-data-policy",
    "provost-data-guards",
    "provost-data-pipeline",
    "provost-gpu-vram",
];

/// What a pure crate must not reach over normal dependencies, however indirectly.
const ACTING: [&str; 20] = [
    "tokio",
    "mio",
    "socket2",
    "async-std",
    "smol",
    "rayon",
    "rocksdb",
    "openraft",
    "sqlx",
    "hyper",
    "reqwest",
    "tonic",
    "axum",
    "rustls",
    "aws-lc-rs",
    "candle-core",
    "rand",
    "getrandom",
    "fastrand",
    "tempfile",
];

/// The offline verifier, and what it must not reach however indirectly: no runtime, no network, no
/// storage engine. (It reads files and starts threads, so it is not pure.)
const VERIFIER: (&str, [&str; 10]) = (
    "provost-audit-verify",
    ["tokio", "mio", "socket2", "async-std", "smol", "openraft", "rocksdb", "hyper", "reqwest", "tonic"],
);

/// (engine, its owners). Direct dependencies only: that is where code can name the engine.
const ENGINES: [(&str, &[&str]); 13] = [
    ("openraft", &["provost-control-raft"]),
    ("rocksdb", &["provost-control-raft", "provost-control-api"]),
    ("candle-core", &["provost-gpu-infer"]),
    ("candle-nn", &["provost-gpu-infer"]),
    ("cudarc", &["provost-gpu-infer"]),
    ("llguidance", &["provost-gpu-infer"]),
    ("symphonia", &["provost-gpu-infer"]),
    ("multer", &["provost-data-serve"]),
    ("sqlx", &["provost-data-tools"]),
    ("lopdf", &["provost-data-tools"]),
    ("cedar-policy", &["provost-data-policy"]),
    ("wasmtime", &["provost-data-wasm"]),
    ("rmcp", &["provost-tests"]),
];

/// Packages that must not be compiled at all: one crypto provider (aws-lc-rs), no system OpenSSL.
pub const BANNED: [&str; 3] = ["ring", "openssl", "openssl-sys"];

/// Every broken rule as one line, empty when the workspace is in order.
pub fn check(graph: &Graph) -> Vec<String> {
    let mut broken = Vec::new();
    for (name, krate) in &graph.members {
        let Some(home) = home_of(&krate.folder) else {
            broken.push(format!("{name}: folder {} belongs to no plane (see xtask/src/arrows.rs)", krate.folder));
            continue;
        };
        for (other, target) in krate.direct.iter().filter_map(|d| graph.members.get(d).map(|c| (d, c))) {
            if let Some(why) = crossing(home, &target.folder)
                && !ALLOWED_CROSSINGS.iter().any(|(from, to, _)| from == name && to == other)
            {
                broken.push(format!("{name} -> {other}: {why}"));
            }
        }
        broken.extend(engine_misuse(name, &krate.direct));
        if PURE.contains(&name.as_str()) {
            let acting = ACTING.iter().filter_map(|a| krate.reachable.get(*a));
            broken.extend(acting.map(|path| format!("{name} must stay pure, but: {path}")));
        }
        if name == VERIFIER.0 {
            let reached = VERIFIER.1.iter().filter_map(|a| krate.reachable.get(*a));
            broken.extend(reached.map(|path| format!("{name} must verify offline, without a runtime, but: {path}")));
        }
    }
    broken.extend(PURE.iter().filter(|p| !graph.members.contains_key(**p)).map(|p| format!("{p}: no such member")));
    broken
}

/// Packages of [`BANNED`] among those a build compiles.
pub fn check_banned(built: &BTreeSet<String>) -> Vec<String> {
    let found = BANNED.iter().filter(|b| built.contains(**b));
    found.map(|b| format!("{b} is compiled: find the path with `cargo tree --workspace -i {b}`")).collect()
}

/// The top folder a member belongs to, if the rules know it.
fn home_of(folder: &str) -> Option<&str> {
    let top = folder.split('/').next().unwrap_or(folder);
    (top == VOCABULARY || PLANES.contains(&top) || COMPOSERS.contains(&top) || LEAVES.contains(&top)).then_some(top)
}

/// Why an arrow from a crate in `home` to one in `folder` is forbidden, or `None` when it is fine.
fn crossing(home: &str, folder: &str) -> Option<&'static str> {
    let target = home_of(folder)?;
    if COMPOSERS.contains(&target) {
        return (home != target).then_some("nothing imports the binary, tests, benches or chores");
    }
    if COMPOSERS.contains(&home) || target == VOCABULARY || home == target {
        return None;
    }
    if home == VOCABULARY {
        return Some("the shared vocabulary imports no plane");
    }
    Some("planes meet in proto/ and in server/, never directly")
}

fn engine_misuse(name: &str, direct: &BTreeSet<String>) -> Vec<String> {
    ENGINES
        .iter()
        .filter(|(engine, owners)| direct.contains(*engine) && !owners.contains(&name))
        .map(|(engine, owners)| format!("{name} -> {engine}: only {} may use it", owners.join(", ")))
        .collect()
}
