//! Black-box tests: they start the real binary and talk to it as its users do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

mod attacks;
mod audit_held;
mod audit_privacy;
mod audit_read;
mod audit_tiles;
mod audit_witness;
mod author;
mod bad_input;
mod bridge;
mod bridge_process;
mod cli_transports;
mod clients;
mod conformance;
mod conformance_npm;
mod connections;
mod coverage;
mod crash;
mod endpoints;
mod files;
mod governance;
mod grpc;
mod guard_external;
mod guard_tokens;
mod guards;
mod harness;
mod hostile;
mod identity;
mod identity_attacks;
mod idp;
mod inference;
#[cfg(target_os = "linux")]
mod isolation;
mod kill_switch;
#[path = "../../../audit-log/store/tests/common/matrix.rs"]
mod matrix;
mod nested;
mod openapi;
mod packages;
mod quic;
mod quic_client;
mod quickstart;
mod quotas;
mod rag;
mod resilience;
mod resources;
mod scenarios;
mod shipped;
mod simulate;
mod suite;
mod upstreams;
mod wasm;
mod websocket;
mod websocket_bad;
mod websocket_calls;
mod ws_client;
