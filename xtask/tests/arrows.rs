//! The architecture's arrows hold in this workspace, and the check can fail.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use xtask::{Crate, Graph, PURE, built_packages, check, check_banned, impure_touches};

fn workspace() -> Graph {
    Graph::read(Path::new(&std::env::var_os("CARGO_MANIFEST_DIR").unwrap())).unwrap()
}

#[test]
fn no_forbidden_arrow_in_the_workspace() {
    let broken = check(&workspace());
    assert!(broken.is_empty(), "forbidden arrows:\n{}", broken.join("\n"));
}

#[test]
fn no_banned_package_is_compiled() {
    let broken = check_banned(&built_packages(Path::new(&std::env::var_os("CARGO_MANIFEST_DIR").unwrap())).unwrap());
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn pure_crates_name_no_clock_file_or_socket() {
    let touches = impure_touches(&workspace()).unwrap();
    assert!(touches.is_empty(), "{touches:#?}");
}

/// A small workspace in order: the pure crates, one crate a plane, the binary.
fn orderly() -> Graph {
    let mut members = BTreeMap::new();
    let homes = ["proto", "proto", "control-plane", "audit-log", "data-plane", "data-plane", "data-plane", "gpu-node"];
    for (name, home) in PURE.iter().zip(homes) {
        let folder = format!("{home}/{name}");
        members.insert((*name).to_owned(), Crate { folder, ..Crate::default() });
    }
    for (name, folder) in [
        ("provost-control-raft", "control-plane/raft"),
        ("provost-audit-store", "audit-log/store"),
        ("provost-data-serve", "data-plane/serve"),
        ("provost", "server"),
        ("provost-client", "client"),
    ] {
        members.insert(name.to_owned(), Crate { folder: folder.to_owned(), ..Crate::default() });
    }
    Graph { members, ..Graph::default() }
}

fn with_arrow(from: &str, to: &str) -> Vec<String> {
    let mut graph = orderly();
    graph.members.get_mut(from).unwrap().direct.insert(to.to_owned());
    check(&graph)
}

#[test]
fn each_rule_trips() {
    assert_eq!(check(&orderly()), Vec::<String>::new());
    let allowed = [
        ("provost-audit-store", "provost-control-raft"),
        ("provost-data-serve", "provost-types"),
        ("provost-data-serve", "provost-data-policy"),
        ("provost", "provost-data-serve"),
        ("provost", "provost-client"),
        ("provost-client", "provost-types"),
        ("provost-control-raft", "openraft"),
    ];
    for (from, to) in allowed {
        assert_eq!(with_arrow(from, to), Vec::<String>::new(), "{from} -> {to}");
    }
    let forbidden = [
        ("provost-data-serve", "provost-control-raft"),
        ("provost-control-raft", "provost-audit-store"),
        ("provost-types", "provost-data-policy"),
        ("provost-data-serve", "provost"),
        ("provost-data-serve", "provost-client"),
        ("provost-client", "provost-data-serve"),
        ("provost-types", "provost-client"),
        ("provost-data-serve", "rocksdb"),
        ("provost-audit-store", "openraft"),
    ];
    for (from, to) in forbidden {
        let broken = with_arrow(from, to);
        assert_eq!(broken.len(), 1, "{from} -> {to}: {broken:?}");
        assert!(broken[0].starts_with(&format!("{from} -> {to}: ")), "{broken:?}");
    }
}

#[test]
fn an_indirect_runtime_in_a_pure_crate_trips() {
    let mut graph = orderly();
    let policy = graph.members.get_mut("provost-data-policy").unwrap();
    policy.reachable.insert("tokio".into(), "provost-data-policy -> innocent -> tokio".into());
    assert_eq!(check(&graph), ["provost-data-policy must stay pure, but: provost-data-policy -> innocent -> tokio"]);
}

#[test]
fn a_runtime_in_the_offline_verifier_trips() {
    let mut graph = orderly();
    let mut verifier = Crate { folder: "audit-log/verify".into(), ..Crate::default() };
    verifier.reachable.insert("tokio".into(), "provost-audit-verify -> innocent -> tokio".into());
    graph.members.insert("provost-audit-verify".into(), verifier);
    let broken = check(&graph);
    assert_eq!(broken.len(), 1, "{broken:?}");
    assert!(broken[0].contains("must verify offline"), "{broken:?}");
}

#[test]
fn an_unknown_folder_and_a_banned_package_trip() {
    let mut graph = orderly();
    graph.members.insert("provost-new".into(), Crate { folder: "new-plane/x".into(), ..Crate::default() });
    assert_eq!(check(&graph).len(), 1);
    assert_eq!(check_banned(&BTreeSet::from(["ring".to_owned()])).len(), 1);
}
