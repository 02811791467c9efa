//! Black-box tests of a control plane of three voters: real processes, real signals, histories
//! checked for linearizability.
//!
//! Every test starts `provost dev --nodes 3` and hurts it. What clients saw is recorded and judged
//! afterwards by [`verdict`]; the judges themselves are tested beside their code. A binary whose
//! `dev --nodes` takes no 3 is skipped with one printed line.
//!
//! What operators do is tested on `provost server` processes ([`processes`]).
//! [`quota_flood`] adds five data-plane nodes, processes too, that join with tokens.
//!
//! [`cut_faults`] cuts the ways between three of them, and leaves the processes alone.
//! [`audit_faults`] keeps the audit log on nodes of its own and hurts those (`PROVOST_AUDIT_RATE`).
//!
//! `PROVOST_CLUSTER_SECONDS` makes the leader-kill test longer than its 20 seconds and, from 140 on, lets
//! certificates live for a minute instead of half of one; `PROVOST_QUOTA_LIMIT` and `PROVOST_QUOTA_RUNS`
//! make the quota floods larger and more; `PROVOST_AWAY_REVISIONS` lets nodes of [`away`] miss more changes;
//! `TMPDIR` chooses the disk.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

mod admin;
mod agent_tls;
mod any_node;
mod any_node_conformance;
mod any_node_faults;
mod any_node_scene;
mod audit_erasure;
mod audit_faults;
mod audit_forward;
mod audit_held;
mod audit_keys;
mod audit_members;
mod audit_pruning;
mod audit_scene;
mod audit_tls;
mod away;
mod balancer;
mod certificates;
mod cluster;
mod connections;
#[path = "../blackbox/connections/browser.rs"]
mod connections_browser;
#[path = "../blackbox/connections/world.rs"]
#[allow(dead_code, reason = "the other target uses the rest")]
mod connections_world;
mod cut_faults;
mod expired;
#[path = "../blackbox/files.rs"]
mod files;
mod fleet;
mod flood;
mod followers;
mod gpu_nodes;
#[path = "../blackbox/harness.rs"]
#[allow(dead_code, reason = "the other target uses the rest")]
mod harness;
mod history;
mod kill_switch;
mod killed;
mod leader_faults;
mod linearizable;
mod linearizable_tests;
#[path = "../../../audit-log/store/tests/common/matrix.rs"]
mod matrix;
mod minority;
mod operator_pki;
mod operators;
mod ports;
mod processes;
mod quota_flood;
mod restore;
mod revisions;
mod rolling;
mod rolling_clients;
mod rug_pull;
mod secret_canary;
mod server_process;
mod servers;
mod service_manager;
mod signals;
mod slips;
mod staged;
mod stale;
#[path = "../blackbox/suite.rs"]
mod suite;
mod tool_calls;
mod verdict;
mod wiped;
mod witness;
mod workload;
