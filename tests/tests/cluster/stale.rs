//! A data-plane node that is cut off from the control plane uses its grants for as long as it may, and
//! no longer. The audit log is on a node of its own: without it nothing would be called at any age.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    harness::{modern, post, text},
    processes::{Fleet, SOON, provost},
    restore::{RESOURCES, apply},
};

/// Seconds; an election and a slow machine fit into it.
const MAX_AGE: &str = "10";
/// Until the denials begin, at the latest.
const DENIAL_LIMIT: Duration = Duration::from_secs(60);

fn ask(fleet: &Fleet, token: &str, method: &str, params: Value) -> String {
    post(&fleet.servers["dp-1"].mcp(), token, &modern(method, params)).1.to_string()
}

fn call(fleet: &Fleet, token: &str) -> Result<(), String> {
    let answer = ask(fleet, token, "tools/call", json!({ "name": "echo.echo", "arguments": { "text": "x" } }));
    if answer.contains("PV-") || answer.contains("\"error\"") { Err(answer) } else { Ok(()) }
}

#[test]
fn grants_that_nobody_confirms_end_and_come_back_with_the_control_plane() {
    let mut fleet = Fleet::new("stale");
    fleet.add("cp-1", "control-plane");
    fleet.add("au-1", "audit-log");
    fleet.add("dp-1", "data-plane");
    fleet.init("cp-1");
    fleet.start("cp-1");
    fleet.start("au-1");
    fleet.get("dp-1").start(&[("PROVOST_GRANTS_MAX_AGE_SECONDS", MAX_AGE)]);
    fleet.until("dp-1 is a member", |f| f.knows("cp-1", "dp-1"));
    apply(&fleet, "cp-1", "resources.yaml", RESOURCES);
    let token = fleet.ok("cp-1", &["token", "create", "--principal", "bot"]).trim().to_owned();
    fleet.until("calls are taken", |f| {
        std::net::TcpStream::connect(f.servers["dp-1"].http).is_ok() && call(f, &token).is_ok()
    });

    fleet.get("cp-1").signal(Signal::STOP);
    call(&fleet, &token).expect("a node that has just lost its control plane denies nothing");
    let cut_off = Instant::now();
    let denial = loop {
        if let Err(denial) = call(&fleet, &token) {
            break denial;
        }
        assert!(cut_off.elapsed() < DENIAL_LIMIT, "grants outlive their maximum age");
        std::thread::sleep(Duration::from_millis(200));
    };
    println!("stale: denied {:?} after the cut", cut_off.elapsed());
    assert!(denial.contains("PV-NODE-STALE") && denial.contains("grants hold for 10 s"), "{denial}");
    let tools = ask(&fleet, &token, "tools/list", json!({}));
    assert!(tools.contains("echo.echo"), "what needs no grant is served at any age: {tools}");
    let audit = fleet.servers["au-1"].data().join("audit");
    let recorded = provost().args(["audit", "query", "--status", "denied", "--json", "--dir"]).arg(audit).output();
    let recorded = text(&recorded.unwrap());
    assert!(recorded.contains("PV-NODE-STALE"), "the denial is not in the audit log: {recorded}");

    fleet.get("cp-1").signal(Signal::CONT);
    let back = Instant::now();
    while let Err(denial) = call(&fleet, &token) {
        assert!(denial.contains("PV-NODE-STALE"), "{denial}");
        assert!(back.elapsed() < SOON, "the control plane is back and calls are still denied");
        std::thread::sleep(Duration::from_millis(100));
    }
}
