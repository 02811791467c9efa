//! An audit node and a control plane on different machines: the copy of the checkpoints travels over
//! mutual TLS, and outlives a rollback of the audit node's storage.

use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use provost_wire::{
    AdminConnection,
    admin::AuditCheckpointsRequest,
    node::{AuditCheckpoint, HoldRequest, audit_checkpoints_client::AuditCheckpointsClient},
    tls::{Expect, Identity, Role, channel},
};
use tonic::Code;

use crate::{
    files::copy,
    servers::{Plan, Site, good, until_subscribed, write},
};

/// Patience with a copy that is made every few seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether a record in the tail of a log says this.
fn holds(log: &Path, text: &str) -> bool {
    let files = fs::read_dir(log).unwrap().map(|entry| entry.unwrap().path());
    let mut tails = files.filter(|path| path.extension().is_some_and(|raw| raw == "raw"));
    tails.any(|path| String::from_utf8_lossy(&fs::read(path).unwrap()).contains(text))
}

/// The size of the cluster log's checkpoint that the control plane holds; 0: none.
async fn held(admin: &AdminConnection) -> u64 {
    let notes = admin.clone().audit_checkpoints(AuditCheckpointsRequest {}).await.unwrap().into_inner().notes;
    let of_cluster = notes.iter().find(|note| note.starts_with("prod/_cluster\n"));
    of_cluster.map_or(0, |note| note.lines().nth(1).unwrap().parse().unwrap())
}

async fn until_held(admin: &AdminConnection, more_than: u64, plan: &Plan) -> u64 {
    let began = Instant::now();
    loop {
        let size = held(admin).await;
        if size > more_than {
            return size;
        }
        assert!(began.elapsed() < PATIENCE, "{size} records are held; {}", plan.log());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Waits until the node says this; what it said before `since` bytes does not count.
async fn until_said(plan: &Plan, since: usize, text: &str) {
    let began = Instant::now();
    while !plan.log().get(since..).unwrap_or_default().contains(text) {
        assert!(began.elapsed() < PATIENCE, "it does not say `{text}`: {}", plan.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_audit_node_that_was_rolled_back_is_found_by_the_control_planes_copy() {
    let mut site = Site::new();
    let cp_1 = site.plan("cp-1", &["control-plane"], &[], None);
    good(&site.init(&cp_1, "prod", &["dp-1=data-plane+audit-log"], &[]));
    let control = cp_1.start();
    let admin = site.admin(&cp_1).await;
    let dp_1 = site.plan("dp-1", &["data-plane", "audit-log"], &[cp_1.peer], None);
    site.give_token(&dp_1, "dp-1");
    let running = dp_1.start();
    until_subscribed(&[&admin], "dp-1").await;
    write(&admin, "first").await.unwrap();
    let first = until_held(&admin, 0, &dp_1).await;

    // Only an audit node may propose; not even the control plane's own certificate will do.
    let of_control = Arc::new(Identity::load(&cp_1.data().join("identity")).unwrap());
    let expect = Expect::role(Role::ControlPlane);
    let stranger = channel(of_control, &cp_1.peer.to_string(), expect.clone()).unwrap();
    let refused = AuditCheckpointsClient::new(stranger).hold(HoldRequest::default()).await.unwrap_err();
    assert!(matches!(refused.code(), Code::PermissionDenied | Code::Unauthenticated), "{refused}");
    let of_audit = Arc::new(Identity::load(&dp_1.data().join("identity")).unwrap());
    let mut node = AuditCheckpointsClient::new(channel(of_audit, &cp_1.peer.to_string(), expect).unwrap());
    let mine = node.held(provost_wire::node::HeldRequest {}).await.unwrap().into_inner().checkpoints;
    let newest = mine.into_iter().find(|c| c.log.starts_with("prod/_cluster+")).unwrap();
    for wrong in [
        AuditCheckpoint { size: newest.size - 1, ..newest.clone() },
        AuditCheckpoint { root: "0".repeat(64), ..newest },
    ] {
        let refused = node.hold(HoldRequest { checkpoints: vec![wrong] }).await.unwrap_err();
        assert!(refused.message().contains("PV-AUDIT-ROLLED-BACK"), "{refused}");
    }

    drop(running);
    let old = dp_1.dir.join("old");
    for part in ["audit", "audit-raft"] {
        copy(&dp_1.data().join(part), &old.join(part));
    }
    let running = dp_1.start();
    until_subscribed(&[&admin], "dp-1").await;
    for n in 0..5 {
        write(&admin, &format!("later-{n}")).await.unwrap();
    }
    until_held(&admin, first + 5, &dp_1).await;
    drop(running);
    for part in ["audit", "audit-raft"] {
        fs::remove_dir_all(dp_1.data().join(part)).unwrap();
        copy(&old.join(part), &dp_1.data().join(part));
    }
    let said = dp_1.refusal();
    assert!(said.contains("PV-AUDIT-ROLLED-BACK") && said.contains("the control plane holds"), "{said}");

    // While nobody can be asked it starts, says so, and records nothing once there is an answer.
    drop(control);
    let since = dp_1.log().len();
    let _running = dp_1.start();
    until_said(&dp_1, since, "without having been compared").await;
    let _control = cp_1.start();
    until_said(&dp_1, since, "PV-AUDIT-ROLLED-BACK").await;
    // A change is made without the log, which owes its record: it gets none here.
    let admin = site.admin(&cp_1).await;
    write(&admin, "never").await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let log = dp_1.data().join("audit/cluster");
    assert!(holds(&log, "first"), "records are found by what they say");
    assert!(!holds(&log, "never"), "a change is recorded in a log that was rolled back");
}
