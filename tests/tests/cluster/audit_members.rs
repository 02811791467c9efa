//! Who may append to the audit log of a node that has no member list: members, and nobody who was one.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use provost_wire::{
    admin::RemoveNodeRequest,
    node::{RecordRequest, audit_client::AuditClient},
    tls::{Expect, Identity, Role, channel},
};
use tonic::{Code, Status};

use crate::servers::{Site, good, until, until_subscribed, write};

/// A removed node may record for so long: how often its membership is asked for, and some.
const REMOVAL_LIMIT: Duration = Duration::from_secs(15);

/// A node without a member list learns of a removal by asking.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_voter_can_append_nothing_to_an_audit_log_with_its_old_certificate() {
    let mut site = Site::new();
    let cp_1 = site.plan("cp-1", &["control-plane"], &[], None);
    good(&site.init(&cp_1, "prod", &["cp-2=control-plane", "dp-1=data-plane+audit-log"], &[]));
    let _cp_1 = cp_1.start();
    let admin = site.admin(&cp_1).await;
    let dp_1 = site.plan("dp-1", &["data-plane", "audit-log"], &[cp_1.peer], None);
    site.give_token(&dp_1, "dp-1");
    let _dp_1 = dp_1.start();
    until_subscribed(&[&admin], "dp-1").await;
    let cp_2 = site.plan("cp-2", &["control-plane"], &[cp_1.peer], None);
    site.give_token(&cp_2, "cp-2");
    let running = cp_2.start();
    until(&admin, "cp-2 votes", |s| s.members.iter().any(|m| m.name == "cp-2" && m.membership == "voter")).await;
    drop(running);

    // Whoever has the files of cp-2 can connect; what it says is no event, so nothing is recorded.
    let stolen = Arc::new(Identity::load(&cp_2.data().join("identity")).unwrap());
    let address = dp_1.peer.to_string();
    let let_in = record(&stolen, &address).await;
    assert!(let_in.code() == Code::InvalidArgument && let_in.message().contains("PV-AUDIT-EVENT"), "{let_in}");
    let of_data_plane = Arc::new(Identity::load(&dp_1.data().join("identity")).unwrap());
    let refused = record(&of_data_plane, &address).await;
    assert!(refused.message().contains("PV-AUDIT-PEER"), "a data plane recorded elsewhere: {refused}");

    // Two voters and one is off: the group cannot lose it without it.
    let running = cp_2.start();
    until(&admin, "cp-2 is back", |s| s.confirmed).await;
    admin.clone().remove_node(RemoveNodeRequest { node: "cp-2".to_owned() }).await.unwrap();
    drop(running);
    let began = Instant::now();
    loop {
        let refused = record(&stolen, &address).await;
        if refused.message().contains("PV-TLS-MEMBER") {
            break;
        }
        assert!(began.elapsed() < REMOVAL_LIMIT, "a removed node is let in: {refused}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    write(&admin, "still-recorded").await.unwrap();
}

/// A record that is none, and how it is refused.
async fn record(identity: &Arc<Identity>, address: &str) -> Status {
    let channel = channel(identity.clone(), address, Expect::role(Role::AuditLog)).unwrap();
    let request = RecordRequest { events: vec![b"no event".to_vec().into()] };
    AuditClient::new(channel).record(request).await.map(drop).unwrap_err()
}
