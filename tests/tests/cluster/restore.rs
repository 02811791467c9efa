//! The runbook of docs/cluster.md, section "Backup and restore", from beginning to end: a cluster at
//! work is backed up, lost, and restored under a new name. The commands are those of the runbook.

use std::{
    fs,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::json;

use crate::{
    harness::{modern, post, text},
    operators::three,
    processes::{Fleet, provost},
};

/// A key pair made for this test alone.
const RECIPIENT: &str = "age1q7uv2sjgw6r20qcps40ukmfld29fz8xh7xvr4x6ymjwu6g5rn53sctennr";
const IDENTITY: &str = "AGE-SECRET-KEY-1QUYQJZSTPSXSURCSZYFPX9Q4ZCT3SXG6RVWP68SLYQSJYGEYY5NQ23P5FC";
/// Calls that the quota allows in a day, and those made before the backup.
const LIMIT: u32 = 40;
const BEFORE: u32 = 30;

pub const RESOURCES: &str = "apiVersion: provost/v1\nkind: Tenant\nmetadata: { name: acme }\n---\n\
    apiVersion: provost/v1\nkind: Principal\nmetadata: { name: bot, tenant: acme }\nspec: { type: agent }\n---\n\
    apiVersion: provost/v1\nkind: Role\nmetadata: { name: all, tenant: acme }\nspec: { rules: [{ tools: ['*'] }] }\n\
    ---\napiVersion: provost/v1\nkind: RoleBinding\nmetadata: { name: all, tenant: acme }\n\
    spec: { role: all, principals: [bot] }\n---\n\
    apiVersion: provost/v1\nkind: Plugin\nmetadata: { name: echo, tenant: acme }\n\
    spec: { source: { builtin: { name: echo } } }\n";

/// Applies documents at a node.
pub fn apply(fleet: &Fleet, node: &str, name: &str, documents: &str) {
    let file = fleet.path(name);
    fs::write(&file, documents).unwrap();
    fleet.ok(node, &["apply", "-f", file.to_str().unwrap(), "-m", name]);
}

/// Sets a secret, its value from stdin.
fn set_secret(fleet: &Fleet, node: &str, name: &str, value: &str) {
    use std::io::Write;
    let mut child = provost()
        .args(["secret", "set", name])
        .env("PROVOST_ADMIN", fleet.servers[node].admin.to_string())
        .env("PROVOST_ADMIN_TOKEN", &fleet.admin_token)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(value.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

/// Calls until one is refused, at most `most` times; how many succeeded, and the refusal.
fn call(url: &str, token: &str, most: u32) -> (u32, String) {
    let body = modern("tools/call", json!({ "name": "echo.echo", "arguments": { "text": "x" } }));
    for done in 0..most {
        let (_, answer) = post(url, token, &body);
        if answer["result"]["isError"] == true || answer["result"]["content"].is_null() {
            return (done, answer.to_string());
        }
    }
    (most, String::new())
}

#[test]
fn a_lost_cluster_comes_back_from_its_backup_under_a_new_name() {
    let mut fleet = three("prod", "");
    apply(&fleet, "cp-2", "resources.yaml", RESOURCES);
    let quota = format!(
        "apiVersion: provost/v1\nkind: Quota\nmetadata: {{ name: daily, tenant: acme }}\n\
         spec: {{ limit: {LIMIT}, unit: calls, window: day }}\n"
    );
    apply(&fleet, "cp-1", "quota.yaml", &quota);
    set_secret(&fleet, "cp-3", "api", "hunter2");
    let agent = fleet.ok("cp-1", &["token", "create", "--principal", "bot"]).trim().to_owned();
    let old_admin = fleet.admin_token.clone();
    let unused = fleet.ok("cp-1", &["cluster", "join-token", "--node", "dp-9", "--role", "data-plane,audit-log"]);
    let mcp = fleet.get("dp-1").mcp();
    // The node has them once the push has come.
    fleet.until("calls are taken", |_| call(&mcp, &agent, 1).0 == 1);
    assert_eq!(call(&mcp, &agent, BEFORE - 1).0, BEFORE - 1);

    // Writes go on while backups are made.
    let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let writer = {
        let (stop, written, file) = (stop.clone(), written.clone(), fleet.path("writes.yaml"));
        let (admin, token) = (fleet.servers["cp-2"].admin.to_string(), fleet.admin_token.clone());
        std::thread::spawn(move || {
            while !stop.load(Ordering::SeqCst) {
                let n = written.load(Ordering::SeqCst);
                fs::write(&file, format!("apiVersion: provost/v1\nkind: Tenant\nmetadata: {{ name: w-{n} }}\n"))
                    .unwrap();
                let mut command = provost();
                command.args(["apply", "-f", file.to_str().unwrap()]).env("PROVOST_ADMIN", &admin);
                let output = command.env("PROVOST_ADMIN_TOKEN", &token).output().unwrap();
                assert!(output.status.success(), "{}", text(&output));
                written.fetch_add(1, Ordering::SeqCst);
            }
        })
    };
    fleet.until("writes are made", |_| written.load(Ordering::SeqCst) >= 2);
    let (plain, sealed, key) = (fleet.path("monday.pvb"), fleet.path("monday.pvb.age"), fleet.path("key.txt"));
    let (plain, sealed) = (plain.to_str().unwrap().to_owned(), sealed.to_str().unwrap().to_owned());
    fs::write(&key, IDENTITY).unwrap();
    let key = key.to_str().unwrap().to_owned();
    let before = written.load(Ordering::SeqCst);
    fleet.ok("cp-2", &["cluster", "backup", &plain]);
    fleet.ok("cp-3", &["cluster", "backup", &sealed, "--age-recipient", RECIPIENT]);
    stop.store(true, Ordering::SeqCst);
    writer.join().unwrap();
    fleet.ok("cp-1", &["cluster", "backup", "--verify", &plain]);
    fleet.ok("cp-1", &["cluster", "backup", "--verify", &sealed, "--age-identity", &key]);
    let mut bytes = fs::read(&plain).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let damaged = fleet.path("damaged.pvb");
    fs::write(&damaged, bytes).unwrap();
    let damaged = damaged.to_str().unwrap().to_owned();
    fleet.refused("cp-1", &["cluster", "backup", "--verify", &damaged], "PV-BACKUP-DAMAGED");

    // Everything is gone but the backup, the key of the backup and the key that wraps secrets.
    for name in ["cp-1", "cp-2", "cp-3", "dp-1"] {
        fleet.get(name).kill();
    }
    let old_member = fleet.servers.remove("cp-2").unwrap();
    fleet.servers.retain(|name, _| name == "none");
    fleet.cluster = "prod-2".to_owned();

    fleet.add("new-1", "control-plane");
    let data = fleet.get("new-1").data();
    let (data, address) = (data.to_str().unwrap().to_owned(), fleet.get("new-1").peer.to_string());
    let restore = ["cluster", "restore", &damaged, "--data-dir", &data, "--cluster", "prod-2", "--address", &address];
    fleet.refused("new-1", &restore, "PV-BACKUP-DAMAGED");
    let mut restore = restore.to_vec();
    restore[2] = &sealed;
    restore.extend(["--age-identity", &key]);
    let said = fleet.ok("new-1", &restore);
    assert!(said.contains("cluster prod-2"), "{said}");
    // A second node is to follow, and a node for the audit log, without which nothing can be changed.
    fleet.add("new-2", "control-plane");
    fleet.add("dp-2", "data-plane+audit-log");
    fleet.init("new-1");
    for name in ["new-1", "dp-2", "new-2"] {
        fleet.start(name);
    }
    fleet.agreed(&["new-1", "new-2"]);
    assert!(fleet.id("new-1", "new-1") > 4, "an id of the old cluster was given again");

    // Resources and history are there, up to the backup at least.
    for n in 0..before {
        fleet.ok("new-2", &["get", "Tenant", &format!("w-{n}")]);
    }
    let history = fleet.ok("new-1", &["history", "--limit", "1000"]);
    assert!(history.contains("quota.yaml") && history.contains("resources.yaml"), "{history}");
    // Secrets open with the wrapping key: each is opened and sealed again.
    let rotated = fleet.ok("new-1", &["cluster", "rotate-keys"]);
    assert!(rotated.contains("1 secrets were sealed again"), "{rotated}");
    // Tokens of agents are resources; the quota counts what was used before.
    let mcp = fleet.get("dp-2").mcp();
    let (more, refusal) = call(&mcp, &agent, LIMIT);
    assert!(BEFORE + more <= LIMIT && refusal.contains("PV-QUOTA-EXCEEDED"), "{more} more calls, then {refusal}");

    // Nothing of the old cluster's people and nodes works.
    let new_admin = std::mem::replace(&mut fleet.admin_token, old_admin);
    fleet.refused("new-1", &["cluster", "status"], "PV-ADMIN-BAD-TOKEN");
    fleet.admin_token = new_admin;
    fleet.add("dp-9", "data-plane+audit-log");
    fleet.give_token("dp-9", unused.lines().next().unwrap());
    fleet.start("dp-9");
    // An old member with its data, told of the new cluster's nodes.
    let others = format!("control_plane = [\"{address}\"]\n");
    let config = fs::read_to_string(old_member.config()).unwrap();
    let config: String = config
        .lines()
        .map(|l| if l.starts_with("control_plane") { others.clone() } else { format!("{l}\n") })
        .collect();
    fs::write(old_member.config(), config).unwrap();
    fleet.servers.insert("cp-2".to_owned(), old_member);
    fleet.start("cp-2");
    fleet.until("the old token is refused", |f| f.servers["dp-9"].log().contains("PV-TLS-PEER"));
    std::thread::sleep(Duration::from_secs(3));
    let status = fleet.status("new-1").unwrap();
    let members = status["members"].as_array().unwrap();
    let mut names: Vec<&str> = members.iter().filter_map(|m| m["name"].as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["dp-2", "new-1", "new-2"], "{status}");
    assert!(fleet.status("cp-2").is_none(), "the old member answers to the new cluster's administrator");
}
