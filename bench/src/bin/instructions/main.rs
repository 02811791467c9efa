//! Runs one hot path so many times: `instructions PATH TIMES`. Without arguments it lists the paths.
//!
//! For counting what a path costs in instructions, which no other load on the machine changes: `scripts/check_instructions.py`
//! runs it under callgrind twice, with different TIMES, and divides the difference. So what is made once, before the first
//! turn, does not count. Inputs are those of the benches.
#![allow(clippy::print_stdout, reason = "the list of paths is its result")]
#![allow(clippy::expect_used, reason = "it stops at the first surprise")]

/// The one that `provost` runs with.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

use std::{hint::black_box, process::ExitCode};

use provost_audit_core::{Hash, Place, encode_record, leaf_hash};
use provost_bench::{NOW_NS, QuotaNode, call_bytes, event, name, quota_call, snapshot};
use provost_data_guards::{Action as GuardAction, Guard, Rules};
use provost_data_policy::{AccessRequest, Facts, PolicyEngine, quota::Held};
use provost_mcp::{Envelope, JsonLimits};
use provost_types::{Action, QuotaPer};

/// Runs a path so many times.
type Path = fn(u64);

const PATHS: [(&str, Path); 5] = [
    ("envelope-parse", parse),
    ("policy-decide", decide),
    ("quota-decide", quota),
    ("guard-scan-clean", scan),
    ("audit-encode-hash", record),
];

/// 4 KiB, about what a tool answers.
const ROWS: usize = 64;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.is_empty() {
        PATHS.iter().for_each(|(path, _)| println!("{path}"));
        return ExitCode::SUCCESS;
    }
    let wanted = |(path, run): &(&str, Path)| (args.first().map(String::as_str) == Some(*path)).then_some(*run);
    let (run, times) = (PATHS.iter().find_map(wanted), args.get(1).and_then(|times| times.parse().ok()));
    match (run, times) {
        (Some(run), Some(times)) => {
            run(times);
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("usage: instructions PATH TIMES; without arguments: the paths");
            ExitCode::from(2)
        }
    }
}

/// The first thing that happens to every call.
fn parse(times: u64) {
    let call = call_bytes();
    for _ in 0..times {
        let envelope = Envelope::parse(black_box(call.clone()), &JsonLimits::REQUEST).expect("a message");
        black_box(envelope);
    }
}

/// Ten roles, and five written policies that look at arguments.
fn decide(times: u64) {
    let engine = PolicyEngine::compile(&snapshot(10, 5)).expect("a sound snapshot");
    let (tenant, principal) = (name("acme"), name("ana"));
    let facts = Facts { transport: "http", ..Facts::default() };
    let request = AccessRequest {
        token: None,
        tenant: &tenant,
        principal: &principal,
        action: Action::CallTool,
        plugin: Some("sql"),
        target: "sql.query",
        facts: &facts,
    };
    assert!(engine.decide(&request, NOW_NS).is_allow());
    for _ in 0..times {
        black_box(engine.decide(black_box(&request), NOW_NS));
    }
}

/// One quota and one price. The call does not begin: its unit goes back.
fn quota(times: u64) {
    let (tenant, principal) = (name("acme"), name("ana"));
    let call = quota_call(&tenant, &principal);
    let node = QuotaNode::new(1, QuotaPer::Tenant);
    node.supply(&call);
    assert_eq!(node.take(&call).map(|held| held.len()), Some(1));
    for _ in 0..times {
        let held: Vec<Held> = node.take(black_box(&call)).expect("units");
        black_box(held);
    }
}

/// A result in which nothing is found.
fn scan(times: u64) {
    let guard = Guard::new(Rules::all(GuardAction::Mask));
    let row = r#"{"id":17,"name":"coffee, whole beans","city":"Lisbon","open":true},"#;
    let text = row.repeat(ROWS);
    assert!(guard.inspect(text.as_bytes()).counts.is_empty());
    for _ in 0..times {
        black_box(guard.inspect(black_box(text.as_bytes())));
    }
}

/// The outcome of a call as it goes into the log.
fn record(times: u64) {
    let event = event(1);
    let place = Place { writer_id: "node-1", epoch: 1, seq: 1, prev: Hash([3; 32]) };
    for _ in 0..times {
        let leaf = encode_record(black_box(&event), &place).expect("a record");
        black_box(leaf_hash(&leaf));
    }
}
