//! A node that was off for longer than its certificate lives: it says so, serves what it has, comes back
//! when the control plane does, and stays out once it was removed.

use std::time::{Duration, Instant, SystemTime};

use provost_wire::{admin::RemoveNodeRequest, tls::Identity};

use crate::servers::{LIMIT, Plan, Site, good, until_subscribed, write};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_plane_node_says_that_its_certificate_has_ended_and_comes_back_unless_it_was_removed() {
    let mut site = Site::new();
    let mut cp_1 = site.plan("cp-1", &["control-plane", "audit-log"], &[], None);
    cp_1.env.push(("PROVOST_CERTIFICATE_TTL_SECONDS", "30".to_owned()));
    good(&site.init(&cp_1, "prod", &["dp-1=data-plane"], &[]));
    let running = cp_1.start();
    let admin = site.admin(&cp_1).await;
    let dp_1 = site.plan("dp-1", &["data-plane"], &[cp_1.peer], None);
    site.give_token(&dp_1, "dp-1");
    let node = dp_1.start();
    until_subscribed(&[&admin], "dp-1").await;
    // On the disk there is a state to serve from.
    write(&admin, "kept").await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    drop(node);
    drop(running);

    ended(&dp_1).await;
    let node = dp_1.start();
    logged(&dp_1, "PV-TLS-EXPIRED").await;
    // Nobody can give it a new one, and it serves all the same.
    logged_after(&dp_1, "PV-TLS-EXPIRED", "ready").await;
    let running = cp_1.start();
    let admin = site.admin(&cp_1).await;
    until_subscribed(&[&admin], "dp-1").await;
    drop(node);

    admin.clone().remove_node(RemoveNodeRequest { node: "dp-1".to_owned() }).await.unwrap();
    ended(&dp_1).await;
    std::fs::remove_file(dp_1.dir.join("log")).unwrap();
    let said = dp_1.refusal();
    assert!(said.contains("PV-TLS-EXPIRED") && said.contains("removed"), "{said}");
    assert!(said.contains("provost cluster remove"), "it does not say what to do: {said}");
    drop(running);
}

/// Waits until the certificate on a node's disk has ended.
async fn ended(plan: &Plan) {
    let expires = Identity::load(&plan.data().join("identity")).unwrap().expires();
    let left = expires.duration_since(SystemTime::now()).unwrap_or_default();
    tokio::time::sleep(left + Duration::from_secs(1)).await;
}

async fn logged(plan: &Plan, text: &str) {
    logged_after(plan, "", text).await;
}

/// Waits until a node has logged `text`, after it had logged `first`.
async fn logged_after(plan: &Plan, first: &str, text: &str) {
    let began = Instant::now();
    while !plan.log().split_once(first).is_some_and(|(_, rest)| rest.contains(text)) {
        assert!(began.elapsed() < LIMIT, "{} does not log {text}: {}", plan.name, plan.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
