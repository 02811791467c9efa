//! Membership as operators change it: `provost server` processes and the command line, as
//! docs/cluster.md says.

use crate::processes::{Fleet, SOON, wipe};

/// Three voters that keep the audit log too, and a data-plane node, all joined.
pub fn three(cluster: &str, more: &str) -> Fleet {
    let mut fleet = Fleet::new(cluster);
    fleet.more.push_str(more);
    for name in ["cp-1", "cp-2", "cp-3"] {
        fleet.add(name, "control-plane+audit-log");
    }
    fleet.add("dp-1", "data-plane");
    fleet.init("cp-1");
    for name in ["cp-1", "dp-1", "cp-2", "cp-3"] {
        fleet.start(name);
    }
    fleet.agreed(&["cp-1", "cp-2", "cp-3"]);
    fleet.until_audit_voters("cp-1", 3);
    fleet
}

#[test]
fn a_cluster_grows_to_five_and_loses_a_follower_and_the_leader() {
    let mut fleet = three("grow", "");
    let dp = fleet.status("cp-2").unwrap();
    let dp = dp["members"].as_array().unwrap().iter().find(|m| m["name"] == "dp-1").unwrap().clone();
    assert_eq!(dp["membership"], "", "a node without the role votes: {dp}");

    // Any node takes the command, follower or leader.
    fleet.join("cp-2", "cp-4", "control-plane");
    fleet.join("cp-3", "cp-5", "control-plane");
    let five = ["cp-1", "cp-2", "cp-3", "cp-4", "cp-5"];
    fleet.agreed(&five);
    for to in ["cp-4", "cp-5"] {
        fleet.ok("cp-1", &["cluster", "transfer-leader", to]);
        assert_eq!(fleet.agreed(&five), to);
    }
    fleet.refused("cp-1", &["cluster", "transfer-leader", "dp-1"], "PV-RAFT-MEMBERSHIP");

    // A follower goes, and then refuses to serve, now and when it is started again.
    fleet.ok("cp-3", &["cluster", "remove", "cp-2"]);
    assert!(!fleet.get("cp-2").ended(SOON).success());
    assert!(fleet.get("cp-2").log().contains("PV-CLUSTER-REMOVED"));
    fleet.start("cp-2");
    assert!(!fleet.get("cp-2").ended(SOON).success());
    assert_eq!(fleet.agreed(&["cp-1", "cp-3", "cp-4", "cp-5"]), "cp-5");

    // The leader removes itself.
    fleet.ok("cp-5", &["cluster", "remove", "cp-5"]);
    assert!(!fleet.get("cp-5").ended(SOON).success());
    assert!(fleet.get("cp-5").log().contains("PV-CLUSTER-REMOVED"));
    fleet.agreed(&["cp-1", "cp-3", "cp-4"]);
    fleet.refused("cp-1", &["cluster", "remove", "cp-5"], "PV-CLUSTER-NO-NODE");
    // A data-plane node that was removed serves no more either.
    fleet.ok("cp-4", &["cluster", "remove", "dp-1"]);
    assert!(!fleet.get("dp-1").ended(SOON).success());
    assert!(fleet.get("dp-1").log().contains("PV-CLUSTER-REMOVED"));
    // Two replicas of the audit log are left. One may go, and then no other: without an audit log
    // nothing could be changed, not even to add one.
    fleet.until("the audit log is left", |f| f.cli("cp-4", &["cluster", "remove", "cp-3"]).status.success());
    assert!(!fleet.get("cp-3").ended(SOON).success());
    fleet.agreed(&["cp-1", "cp-4"]);
    fleet.refused("cp-4", &["cluster", "remove", "cp-1"], "PV-CLUSTER-LAST");
    fleet.join("cp-1", "au-2", "audit-log");
    fleet.until("au-2 keeps the log, and cp-1 can go", |f| {
        f.cli("cp-4", &["cluster", "remove", "cp-1"]).status.success()
    });
    assert!(!fleet.get("cp-1").ended(SOON).success());
}

#[test]
fn a_wiped_voter_refuses_and_is_replaced_under_a_new_id() {
    let mut fleet = three("wiped", "");
    let old = fleet.id("cp-1", "cp-2");
    fleet.get("cp-2").kill();
    let data = fleet.get("cp-2").data();
    wipe(&data, "raft");
    fleet.start("cp-2");
    assert!(!fleet.get("cp-2").ended(SOON).success());
    assert!(fleet.get("cp-2").log().contains("PV-RAFT-WIPED"));
    // The whole disk: the token in its file was used.
    std::fs::remove_dir_all(&data).unwrap();
    fleet.start("cp-2");
    assert!(!fleet.get("cp-2").ended(SOON).success());
    assert!(fleet.get("cp-2").log().contains("PV-JOIN-USED"));
    // One of three is gone: the others must stay.
    let removed = fleet.refused("cp-1", &["cluster", "remove", "cp-3"], "PV-AUDIT-LEAVE");
    assert!(removed.contains("would remain"), "{removed}");

    // As docs/cluster.md says.
    fleet.ok("cp-1", &["cluster", "remove", "cp-2"]);
    std::fs::remove_dir_all(fleet.path("cp-2")).unwrap();
    fleet.join("cp-3", "cp-2", "control-plane+audit-log");
    fleet.agreed(&["cp-1", "cp-2", "cp-3"]);
    assert!(fleet.id("cp-1", "cp-2") > old);
    // Whoever led meanwhile did not write a line for each heartbeat that nobody answered.
    for name in ["cp-1", "cp-3"] {
        assert!(!fleet.servers[name].log().contains("HeartbeatWorker"), "{name} tells each heartbeat");
    }
}

#[test]
fn a_learner_is_promoted_by_hand_and_too_few_voters_are_never_left() {
    let mut fleet = Fleet::new("hand");
    fleet.more = "promote_after_ms = 3600000\n[membership]\nmin_voters = 3\n".to_owned();
    for name in ["cp-1", "cp-2", "cp-3"] {
        fleet.add(name, "control-plane");
    }
    fleet.add("dp-1", "data-plane+audit-log");
    fleet.init("cp-1");
    for name in ["cp-1", "dp-1", "cp-2", "cp-3"] {
        fleet.start(name);
    }
    fleet.until("two learners", |f| f.replicas("cp-1", "learner") == ["cp-2", "cp-3"]);
    for name in ["cp-2", "cp-3"] {
        // A learner that has just come is behind or not heard of yet.
        fleet.until("it is promoted", |f| f.cli("cp-1", &["cluster", "promote", name]).status.success());
    }
    fleet.agreed(&["cp-1", "cp-2", "cp-3"]);
    let said = fleet.refused("cp-2", &["cluster", "remove", "cp-3"], "PV-RAFT-MEMBERSHIP");
    assert!(said.contains("2 voters would remain and 3 must"), "{said}");
    fleet.refused("cp-2", &["cluster", "promote", "cp-9"], "PV-CLUSTER-NO-NODE");
    fleet.agreed(&["cp-1", "cp-2", "cp-3"]);
}

#[test]
fn a_voter_that_stays_dead_is_removed_while_enough_others_live() {
    let mut fleet = three("dead", "[membership]\nmin_voters = 3\nremove_dead_after_seconds = 4\n");
    fleet.join("cp-1", "cp-4", "control-plane");
    fleet.agreed(&["cp-1", "cp-2", "cp-3", "cp-4"]);
    fleet.get("cp-4").kill();
    fleet.agreed(&["cp-1", "cp-2", "cp-3"]);
    // The next one is not: three must remain.
    fleet.get("cp-3").kill();
    std::thread::sleep(std::time::Duration::from_secs(8));
    assert_eq!(fleet.replicas("cp-1", "voter"), ["cp-1", "cp-2", "cp-3"]);
    // It comes back as who it was; the one that was removed does not.
    fleet.start("cp-3");
    fleet.agreed(&["cp-1", "cp-2", "cp-3"]);
    fleet.start("cp-4");
    assert!(!fleet.get("cp-4").ended(SOON).success());
    assert!(fleet.get("cp-4").log().contains("PV-CLUSTER-REMOVED"));
}
