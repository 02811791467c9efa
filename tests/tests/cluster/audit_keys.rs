//! The checkpoint key of three replicas changes: the new one is on a majority of disks before it signs, so that
//! it outlives the node that made it.

use std::path::PathBuf;

use crate::{
    audit_scene::{Agent, DATA, KEEPERS, audit_dir, leader, scene, verify_equal},
    harness::text,
    processes::{Fleet, provost},
};

fn key_file(fleet: &Fleet, name: &str) -> PathBuf {
    fleet.servers[name].data().join("keys/audit-checkpoint.key")
}

/// The key that a replica signs with, or that waits there: the bytes of these files.
fn keys_on(fleet: &Fleet, name: &str) -> Vec<Vec<u8>> {
    let file = key_file(fleet, name);
    ["key", "key.offered"].iter().filter_map(|ending| std::fs::read(file.with_extension(ending)).ok()).collect()
}

/// Orders a new key on the leader's machine; its vkey.
fn rotate(fleet: &Fleet, leads: &str) -> String {
    let mut command = provost();
    let output = command.args(["audit", "rotate-key", "--data-dir"]).arg(fleet.servers[leads].data()).output().unwrap();
    assert!(output.status.success() && text(&output).contains("the new key signs"), "{}", text(&output));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn vkey(fleet: &Fleet, name: &str) -> String {
    std::fs::read_to_string(audit_dir(fleet, name).join("cluster/audit.pub")).unwrap().trim().to_owned()
}

/// Records that the newest checkpoint of the tenant covers on a replica.
fn signed(fleet: &Fleet, name: &str) -> u64 {
    let note = std::fs::read_to_string(audit_dir(fleet, name).join("tenants/acme/checkpoint")).unwrap_or_default();
    note.lines().nth(1).and_then(|size| size.parse().ok()).unwrap_or_default()
}

/// Whoever begins with this key comes to the one that signs now.
fn verify_from(fleet: &Fleet, name: &str, key: &str) {
    let mut command = provost();
    let output = command.args(["audit", "verify", "--key", key]).arg(audit_dir(fleet, name)).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{name}, from {key}: {}", text(&output));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_new_key_outlives_the_leader_that_made_it() {
    let (mut fleet, token) = tokio::task::block_in_place(|| scene("audit-rotate"));
    let agent = Agent::new(&fleet, token);
    agent.ready().await;
    let first = leader(&fleet).await;
    agent.answered(10).await;
    let others: Vec<&str> = KEEPERS.into_iter().filter(|name| *name != first).collect();
    tokio::task::block_in_place(|| {
        fleet.until("every replica has the key", |f| KEEPERS.iter().all(|name| key_file(f, name).exists()));
        fleet.until("the tenant's log is signed", |f| KEEPERS.iter().all(|name| signed(f, name) > 0));
    });
    let old = vkey(&fleet, first);

    // Answered and dead: its disk may be lost as well.
    let new = tokio::task::block_in_place(|| rotate(&fleet, first));
    fleet.get(first).kill();
    assert_ne!(old, new);
    let made = std::fs::read(key_file(&fleet, first)).unwrap();
    let holders = others.iter().filter(|name| keys_on(&fleet, name).contains(&made)).count();
    assert!(holders > 0, "only the leader that died has the key that signs");
    let lost = fleet.path("lost-disk");
    std::fs::rename(fleet.servers[first].data(), &lost).unwrap();

    // The others go on under the new key.
    let before = others.iter().map(|name| signed(&fleet, name)).max().unwrap();
    agent.answered(10).await;
    tokio::task::block_in_place(|| {
        fleet.until("the survivors sign", |f| others.iter().all(|name| signed(f, name) > before));
        for name in &others {
            assert_eq!(std::fs::read(key_file(&fleet, name)).unwrap(), made, "{name} signs with another key");
            assert_eq!(vkey(&fleet, name), new);
            for key in [&old, &new] {
                verify_from(&fleet, name, key);
            }
        }
    });

    // It comes back with its disk; the next key is made while another replica is away, and found there later.
    std::fs::rename(&lost, fleet.servers[first].data()).unwrap();
    fleet.start(first);
    let second = leader(&fleet).await;
    let away = KEEPERS.into_iter().find(|name| *name != second).unwrap();
    agent.answered(5).await;
    fleet.get(away).kill();
    let third = tokio::task::block_in_place(|| rotate(&fleet, second));
    agent.answered(5).await;
    fleet.start(away);
    leader(&fleet).await;
    let made = std::fs::read(key_file(&fleet, second)).unwrap();
    tokio::task::block_in_place(|| {
        fleet.until("the one that was away has the key", |f| std::fs::read(key_file(f, away)).unwrap() == made);
        for name in DATA {
            assert!(fleet.get(name).terminate().1.success(), "{name} did not end well");
        }
        verify_equal(&fleet, &KEEPERS);
        let list = |name: &str| std::fs::read_to_string(audit_dir(&fleet, name).join("cluster/keys")).unwrap();
        fleet.until("the lists of keys are one", |_| KEEPERS.iter().all(|name| list(name) == list(second)));
        assert_eq!(list(second).lines().count(), 3, "{}", list(second));
        for name in KEEPERS {
            assert_eq!(keys_on(&fleet, name), std::slice::from_ref(&made), "{name} keeps other keys");
            assert!(!key_file(&fleet, name).with_extension("key.next").exists(), "{name}: a key waits");
            for key in [&old, &new, &third] {
                verify_from(&fleet, name, key);
            }
        }
    });
}
