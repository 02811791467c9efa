//! Who may write to the audit log of a node that has no member list: members, each under its own name,
//! and nobody who was one.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use provost_wire::{
    admin::RemoveNodeRequest,
    audit::{KeyRequest, OfferKeyRequest, WriterRequest, audit_log_client::AuditLogClient},
    tls::{Expect, Identity, Role, channel},
};
use tonic::{Status, transport::Channel};

use crate::servers::{Site, good, until, until_subscribed, write};

/// A removed node may record for so long: how often its membership is asked for, and some.
const REMOVAL_LIMIT: Duration = Duration::from_secs(15);

/// A node without a member list learns of a removal by asking.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_members_write_each_under_its_own_name_and_the_key_is_for_audit_nodes() {
    let mut site = Site::new();
    let cp_1 = site.plan("cp-1", &["control-plane"], &[], None);
    good(&site.init(&cp_1, "prod", &["cp-2=control-plane", "dp-1=data-plane", "au-1=audit-log"], &[]));
    let _cp_1 = cp_1.start();
    let admin = site.admin(&cp_1).await;
    let au_1 = site.plan("au-1", &["audit-log"], &[cp_1.peer], None);
    let dp_1 = site.plan("dp-1", &["data-plane"], &[cp_1.peer], None);
    let cp_2 = site.plan("cp-2", &["control-plane"], &[cp_1.peer], None);
    site.give_token(&au_1, "au-1");
    site.give_token(&dp_1, "dp-1");
    site.give_token(&cp_2, "cp-2");
    let _au_1 = au_1.start();
    until(&admin, "au-1 is a member", |s| s.members.iter().any(|m| m.name == "au-1")).await;
    let _dp_1 = dp_1.start();
    until_subscribed(&[&admin], "dp-1").await;
    let running = cp_2.start();
    until(&admin, "cp-2 votes", |s| s.members.iter().any(|m| m.name == "cp-2" && m.membership == "voter")).await;
    drop(running);

    // Whoever has the files of cp-2 can connect, as cp-2 and as nobody else.
    let stolen = Arc::new(Identity::load(&cp_2.data().join("identity")).unwrap());
    let address = au_1.peer.to_string();
    assert!(stands(&stolen, &address, "cp-2").await.unwrap() >= 1, "cp-2 has not written");
    let of_data_plane = Arc::new(Identity::load(&dp_1.data().join("identity")).unwrap());
    assert!(stands(&of_data_plane, &address, "dp-1").await.unwrap() >= 1, "dp-1 has not written");
    for (identity, name) in [(&of_data_plane, "cp-2"), (&stolen, "dp-1"), (&stolen, "2")] {
        let refused = stands(identity, &address, name).await.unwrap_err();
        assert!(refused.message().contains("PV-AUDIT-PEER"), "wrote as {name}: {refused}");
    }
    for identity in [&of_data_plane, &stolen] {
        let refused = client(identity, &address).key(KeyRequest {}).await.map(drop).unwrap_err();
        assert!(refused.message().contains("PV-AUDIT-PEER"), "the key went to no audit node: {refused}");
        let offered = client(identity, &address).offer_key(OfferKeyRequest::default()).await.map(drop).unwrap_err();
        assert!(offered.message().contains("PV-AUDIT-PEER"), "a key came from no audit node: {offered}");
    }

    // Two voters and one is off: the group cannot lose it without it.
    let running = cp_2.start();
    until(&admin, "cp-2 is back", |s| s.confirmed).await;
    admin.clone().remove_node(RemoveNodeRequest { node: "cp-2".to_owned() }).await.unwrap();
    drop(running);
    let began = Instant::now();
    loop {
        match stands(&stolen, &address, "cp-2").await {
            Err(refused) if refused.message().contains("PV-TLS-MEMBER") => break,
            other => assert!(began.elapsed() < REMOVAL_LIMIT, "a removed node is let in: {other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    write(&admin, "still-recorded").await.unwrap();
}

fn client(identity: &Arc<Identity>, address: &str) -> AuditLogClient<Channel> {
    AuditLogClient::new(channel(identity.clone(), address, Expect::role(Role::AuditLog)).unwrap())
}

/// The last epoch of a writer, asked as this node.
async fn stands(identity: &Arc<Identity>, address: &str, writer: &str) -> Result<u64, Status> {
    let request = WriterRequest { writer: writer.to_owned() };
    client(identity, address).writer(request).await.map(|answer| answer.into_inner().epoch)
}
