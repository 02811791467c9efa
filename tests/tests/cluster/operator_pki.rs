//! A cluster whose certificates come from its operator: made, joined, reloaded, and closed to whoever
//! has a certificate but was not taken in.

use std::{
    fs::Permissions,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use provost_wire::{
    node::{StandingRequest, identity_client::IdentityClient},
    tls::{Expect, Identity, Role, channel, encode_pem},
};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use time::OffsetDateTime;
use tonic::Status;

use crate::{
    certificates::{Shown, look, look_config},
    servers::{LIMIT, Site, good, until, until_subscribed, write},
};

/// An operator's authority.
struct Pki {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Pki {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "An operator");
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let pem = encode_pem("CERTIFICATE", params.self_signed(&key).unwrap().der());
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Writes `cert.pem`, `key.pem` and `ca.pem` for a node.
    fn issue(&self, dir: &Path, spiffe: &str, days: i64) -> PathBuf {
        let mut params = CertificateParams::default();
        let now = OffsetDateTime::now_utc();
        params.not_before = now - time::Duration::days(30);
        params.not_after = now + time::Duration::days(days);
        params.subject_alt_names = vec![SanType::URI(spiffe.try_into().unwrap())];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = encode_pem("CERTIFICATE", params.signed_by(&key, &self.issuer).unwrap().der());
        std::fs::create_dir_all(dir).unwrap();
        // The key first and the certificate last: a reader in between meets a pair that does not fit.
        let key_file = dir.join("key.pem");
        std::fs::write(&key_file, encode_pem("PRIVATE KEY", key.serialized_der())).unwrap();
        std::fs::set_permissions(&key_file, Permissions::from_mode(0o640)).unwrap();
        std::fs::write(dir.join("ca.pem"), &self.pem).unwrap();
        std::fs::write(dir.join("cert.pem"), certificate).unwrap();
        dir.to_owned()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operators_certificates_make_a_cluster_that_nodes_join_and_that_reloads_them() {
    let (pki, mut site) = (Pki::new(), Site::new());
    let folder = site.path().join("pki");
    let tls = |name: &str| folder.join(name);
    let cp_1_tls = pki.issue(&tls("cp-1"), "spiffe://ops/control-plane.audit-log/cp-1", 1);
    let cp_2_tls = pki.issue(&tls("cp-2"), "spiffe://ops/control-plane/cp-2", 1);
    let dp_1_tls = pki.issue(&tls("dp-1"), "spiffe://ops/data-plane/dp-1", 1);
    let never = pki.issue(&tls("dp-9"), "spiffe://ops/data-plane/dp-9", 1);

    // `tls.dir` of the file says the same.
    let cp_1 = site.plan("cp-1", &["control-plane", "audit-log"], &[], Some(&cp_1_tls));
    let join = ["cp-2=control-plane", "dp-1=data-plane", "dp-2=data-plane,audit-log"];
    let wrong = site.init(&cp_1, "other", &join, &[]);
    assert!(!wrong.status.success() && String::from_utf8_lossy(&wrong.stderr).contains("PV-TLS-NAME"), "{wrong:?}");
    let made = site.init(&cp_1, "ops", &join, &["--tls-dir", cp_1_tls.to_str().unwrap()]);
    good(&made);
    assert_eq!(std::fs::read_to_string(cp_1.data().join("ca.pem")).unwrap(), pki.pem);
    let _cp_1 = cp_1.start();
    let admin = site.admin(&cp_1).await;
    write(&admin, "first").await.unwrap();

    // The same number after a restart of the whole node, and no second use of the token.
    let cp_2 = site.plan("cp-2", &["control-plane"], &[cp_1.peer], Some(&cp_2_tls));
    site.give_token(&cp_2, "cp-2");
    let running = cp_2.start();
    let voters = |count: usize| {
        move |s: &provost_wire::admin::ClusterStatusResponse| {
            s.members.iter().filter(|m| m.membership == "voter").count() == count
        }
    };
    until(&admin, "cp-2 votes", voters(2)).await;
    drop(running);
    let _cp_2 = cp_2.start();
    let second = site.admin(&cp_2).await;
    // Its records go to another node, as those of cp-2 do.
    let dp_1 = site.plan("dp-1", &["data-plane"], &[cp_1.peer, cp_2.peer], Some(&dp_1_tls));
    site.give_token(&dp_1, "dp-1");
    let dp_1_running = dp_1.start();
    until_subscribed(&[&admin, &second], "dp-1").await;
    write(&second, "second").await.unwrap();

    // A certificate alone is no membership, and a token is for one name.
    let stranger = Arc::new(Identity::load_operator(&never).unwrap());
    let refused = ask(&stranger, &cp_1.peer.to_string()).await.unwrap_err();
    assert!(refused.message().contains("PV-TLS-MEMBER"), "{refused}");
    for (name, spiffe, code) in [
        ("dp-2", "spiffe://ops/data-plane.audit-log/dp-3", "PV-SERVER-NODE"),
        ("dp-2", "spiffe://ops/gpu-node/dp-2", "PV-SERVER-ROLES"),
        ("dp-2", "spiffe://ops/data-plane.gpu-node.audit-log/dp-2", "PV-TLS-NAME"),
        ("dp-2", "spiffe://ops/data-plane+audit-log/dp-2", "PV-TLS-NAME"),
    ] {
        let files = pki.issue(&tls("dp-2"), spiffe, 1);
        let plan = site.plan(name, &["data-plane", "audit-log"], &[cp_1.peer], Some(&files));
        site.give_token(&plan, name);
        let _ = std::fs::remove_file(plan.dir.join("log"));
        let said = plan.refusal();
        assert!(said.contains(code), "{spiffe}: {said}");
    }
    let ended = pki.issue(&tls("dp-2"), "spiffe://ops/data-plane.audit-log/dp-2", -1);
    let plan = site.plan("dp-2", &["data-plane", "audit-log"], &[cp_1.peer], Some(&ended));
    assert!(plan.refusal().contains("PV-TLS-EXPIRED"), "{}", plan.log());

    // New files are taken over; what runs goes on.
    let config = look_config(&pki.pem);
    let before: Shown = look(&config, "cp-1", cp_1.peer).await;
    pki.issue(&cp_1_tls, "spiffe://ops/control-plane.audit-log/cp-1", 2);
    let began = Instant::now();
    let mut writes = 0;
    loop {
        writes += 1;
        write(&second, &format!("during-{writes}")).await.unwrap();
        let now = look(&config, "cp-1", cp_1.peer).await;
        if now.hash != before.hash {
            assert!(now.certified.not_after > before.certified.not_after);
            break;
        }
        assert!(began.elapsed() < LIMIT, "the new certificate is not used: {}", cp_1.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("operator: the new certificate was in use after {:?}; {writes} writes meanwhile", began.elapsed());
    // A wrong one is not.
    pki.issue(&cp_1_tls, "spiffe://ops/control-plane/cp-7", 3);
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(look(&config, "cp-1", cp_1.peer).await.certified.name.id(), "cp-1");
    write(&second, "after").await.unwrap();

    // A node that lost its disk must not come back under its number, whatever its certificate says.
    drop(dp_1_running);
    std::fs::remove_dir_all(dp_1.data()).unwrap();
    assert!(dp_1.refusal().contains("PV-JOIN-USED"), "{}", dp_1.log());

    // Who is removed is out although its certificate holds.
    let dp = Arc::new(Identity::load_operator(&dp_1_tls).unwrap());
    ask(&dp, &cp_1.peer.to_string()).await.unwrap();
    admin.clone().remove_node(provost_wire::admin::RemoveNodeRequest { node: "dp-1".to_owned() }).await.unwrap();
    let refused = ask(&dp, &cp_1.peer.to_string()).await.unwrap_err();
    assert!(refused.message().contains("PV-TLS-MEMBER"), "{refused}");
}

/// A question that only members may ask.
async fn ask(identity: &Arc<Identity>, address: &str) -> Result<(), Status> {
    let channel = channel(identity.clone(), address, Expect::role(Role::ControlPlane)).unwrap();
    let request = StandingRequest { name: identity.name().to_string(), serial_node_id: 0 };
    IdentityClient::new(channel).standing(request).await.map(drop)
}
