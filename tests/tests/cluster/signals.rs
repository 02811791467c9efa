//! How processes end: SIGTERM lets calls in flight finish, SIGKILL loses nothing acknowledged.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use rustix::process::Signal;
use serde_json::json;

use crate::{
    harness::{Process, STOP_LIMIT, modern, post, text, upstream_yaml},
    operators::three,
    processes::{Fleet, SOON, provost},
    restore::apply,
};

/// How long the call in flight takes.
const CALL_MS: u64 = 2_500;

/// One process with every role.
fn alone(cluster: &str) -> Fleet {
    let mut fleet = Fleet::new(cluster);
    fleet.add("one", "control-plane+audit-log+data-plane+gpu-node");
    fleet.init("one");
    fleet.start("one");
    fleet.agreed(&["one"]);
    fleet
}

fn slow(url: String, token: String) -> std::thread::JoinHandle<serde_json::Value> {
    let body = modern("tools/call", json!({ "name": "up.slow", "arguments": { "ms": CALL_MS } }));
    std::thread::spawn(move || post(&url, &token, &body).1)
}

/// An agent's token, once the data-plane node takes its calls.
fn agent(fleet: &Fleet, admin: &str, data: &str) -> String {
    let token = fleet.ok(admin, &["token", "create", "--principal", "bot"]).trim().to_owned();
    let body = modern("tools/call", json!({ "name": "up.slow", "arguments": { "ms": 1 } }));
    fleet.until("calls are taken", |f| post(&f.servers[data].mcp(), &token, &body).1["result"]["content"].is_array());
    token
}

/// How many calls the upstream has begun.
fn begun(mcp: &str, token: &str) -> u64 {
    let body = modern("tools/call", json!({ "name": "up.count_begun", "arguments": {} }));
    let answer = post(mcp, token, &body).1;
    answer["result"]["content"][0]["text"].as_str().unwrap().parse().unwrap()
}

fn verify(fleet: &Fleet, node: &str) {
    let dir = fleet.servers[node].data().join("audit");
    let output = provost().args(["audit", "verify", dir.to_str().unwrap()]).output().unwrap();
    // 2: consistent, and nobody else has its checkpoints.
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
}

#[test]
fn sigterm_of_a_process_with_all_roles_finishes_its_calls() {
    let up = Process::everything("modern");
    let mut fleet = alone("term");
    apply(&fleet, "one", "up.yaml", &upstream_yaml(&up.url));
    let token = agent(&fleet, "one", "one");
    let mcp = fleet.get("one").mcp();
    let before = begun(&mcp, &token);
    let calls: Vec<_> = (0..4).map(|_| slow(mcp.clone(), token.clone())).collect();
    fleet.until("the calls are in flight", |_| begun(&mcp, &token) == before + 4);
    let (took, status) = fleet.get("one").terminate();
    assert!(status.success() && took < STOP_LIMIT, "{status} after {took:?}");
    for call in calls {
        let answer = call.join().unwrap();
        assert!(answer["result"]["content"].is_array(), "a call in flight was cut off: {answer}");
    }
    verify(&fleet, "one");
    // The audit log was flushed: nothing is left to recover, no call is unknown.
    fleet.start("one");
    fleet.agreed(&["one"]);
    let dir = fleet.servers["one"].data().join("audit");
    let unknown = provost().args(["audit", "query", "--status", "unknown", "--json", "--dir"]).arg(dir).output();
    let unknown = unknown.unwrap();
    assert!(unknown.status.success() && unknown.stdout.is_empty(), "{}", text(&unknown));
}

#[test]
fn sigterm_of_each_role_ends_in_order_and_in_time() {
    let mut fleet = three("each", "");
    for name in ["cp-2", "cp-1", "dp-1", "cp-3"] {
        let (took, status) = fleet.get(name).terminate();
        assert!(status.success() && took < STOP_LIMIT, "{name}: {status} after {took:?}");
    }
}

#[test]
fn sigkill_of_a_process_with_all_roles_loses_no_acknowledged_write() {
    let mut fleet = alone("kill");
    for round in 0..3 {
        let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::<Mutex<Vec<String>>>::default());
        let writer = {
            let (stop, acknowledged) = (stop.clone(), acknowledged.clone());
            let (admin, token) = (fleet.servers["one"].admin.to_string(), fleet.admin_token.clone());
            let file = fleet.path("write.yaml");
            std::thread::spawn(move || {
                for n in 0.. {
                    let name = format!("w-{round}-{n}");
                    let document = format!("apiVersion: provost/v1\nkind: Tenant\nmetadata: {{ name: {name} }}\n");
                    std::fs::write(&file, document).unwrap();
                    let mut command = provost();
                    command.args(["apply", "-f", file.to_str().unwrap()]).env("PROVOST_ADMIN", &admin);
                    let done = command.env("PROVOST_ADMIN_TOKEN", &token).output().unwrap().status.success();
                    if done {
                        acknowledged.lock().unwrap().push(name);
                    }
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                }
            })
        };
        fleet.until("writes are made", |_| acknowledged.lock().unwrap().len() >= 3);
        fleet.get("one").signal(Signal::KILL);
        fleet.get("one").ended(SOON);
        stop.store(true, Ordering::SeqCst);
        writer.join().unwrap();
        fleet.start("one");
        fleet.agreed(&["one"]);
        for name in acknowledged.lock().unwrap().iter() {
            fleet.ok("one", &["get", "Tenant", name]);
        }
    }
    assert!(fleet.get("one").terminate().1.success());
    verify(&fleet, "one");
}
