//! Certificates by which agents know data-plane nodes.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use provost_wire::tls::{HostName, Identity, Role, certificates, read_certificate};
use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::aws_lc_rs::default_provider,
    pki_types::{ServerName, UnixTime},
};

use super::world::{World, start};
use crate::identity::{AgentCertificate, HeldCertificate, LocalRenewer};

const LIFE: Duration = Duration::from_secs(3_600);

fn names(names: &[&str]) -> Vec<HostName> {
    names.iter().map(|n| n.parse().unwrap()).collect()
}

async fn node(world: &World, name: &str, role: Role) -> Arc<Identity> {
    Arc::new(Identity::new(&world.join(name, role).await.material).unwrap())
}

/// Whether a client that trusts the CAs takes it for this host.
fn is_taken(held: &HeldCertificate, host: &str) -> bool {
    let mut roots = RootCertStore::empty();
    for ca in certificates("test", &held.material.bundle).unwrap() {
        roots.add(ca).unwrap();
    }
    let provider = Arc::new(default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
    let chain = certificates("test", &held.material.certificate).unwrap();
    let host = ServerName::try_from(host.to_owned()).unwrap();
    verifier.verify_server_cert(&chain[0], &chain[1..], &host, &[], UnixTime::now()).is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_certified_for_its_own_names_and_nothing_between_nodes() {
    let world = start(LIFE).await;
    let identity = node(&world, "dp-1", Role::DataPlane).await;
    let dir = tempfile::tempdir().unwrap();
    let wanted = names(&["mcp.example.com", "192.0.2.1"]);
    let of = |wanted: &[HostName]| {
        AgentCertificate::new(dir.path().join("agent-tls"), wanted.to_vec(), Arc::new(world.renewer(&identity)))
    };
    assert!(of(&wanted).kept().is_none());
    let held = of(&wanted).renew().await.unwrap();
    assert!(is_taken(&held, "mcp.example.com") && is_taken(&held, "192.0.2.1"));
    assert!(!is_taken(&held, "dp-1") && !is_taken(&held, "edge.example.com"));
    let left = held.ends().duration_since(SystemTime::now()).unwrap();
    assert!(left <= LIFE && left > LIFE / 2, "{left:?}");
    let due = held.renewal_in(SystemTime::now());
    assert!(due <= LIFE * 2 / 3 && due > LIFE / 2, "{due:?}");
    // Another node would not take it: it names none.
    let leaf = &certificates("test", &held.material.certificate).unwrap()[0];
    assert_eq!(read_certificate(leaf).unwrap_err().code(), "PV-TLS-NAME");
    assert!(Identity::new(&held.material).is_err());

    // It is kept, and used by a start with the same names only.
    assert_eq!(of(&wanted).kept().unwrap().material.certificate, held.material.certificate);
    assert!(of(&wanted[..1]).kept().is_none());
    let again = of(&wanted).renew().await.unwrap();
    assert_ne!(*again.material.key, *held.material.key);

    for (wanted, code) in [
        (&["mcp.example.com", "edge.example.com"][..], "PV-TLS-AGENT-NAMES"),
        (&["example.com"], "PV-TLS-AGENT-NAMES"),
        (&[], "PV-TLS-AGENT-NAMES"),
    ] {
        assert_eq!(of(&names(wanted)).renew().await.unwrap_err().code(), code, "{wanted:?}");
    }
    assert_eq!(of(&wanted).kept().unwrap().material.certificate, again.material.certificate, "as it was");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_serves_no_agents_or_is_no_member_gets_none() {
    let world = start(LIFE).await;
    let dir = tempfile::tempdir().unwrap();
    let wanted = || names(&["mcp.example.com"]);
    let gpu = node(&world, "dp-gpu", Role::GpuNode).await;
    let asked = AgentCertificate::new(dir.path().to_owned(), wanted(), Arc::new(world.renewer(&gpu)));
    assert_eq!(asked.renew().await.unwrap_err().code(), "PV-TLS-ROLE");
    let edge = node(&world, "edge-1", Role::DataPlane).await;
    let asked = AgentCertificate::new(dir.path().to_owned(), wanted(), Arc::new(world.renewer(&edge)));
    assert_eq!(asked.renew().await.unwrap_err().code(), "PV-TLS-AGENT-NAMES");
    let local = LocalRenewer::new(world.server.clone(), world.certifier.clone());
    let asked = AgentCertificate::new(dir.path().to_owned(), wanted(), Arc::new(local));
    assert_eq!(asked.renew().await.unwrap_err().code(), "PV-TLS-ROLE");

    let joined = world.join("dp-2", Role::DataPlane).await;
    let removed = Arc::new(Identity::new(&joined.material).unwrap());
    let asked = AgentCertificate::new(dir.path().to_owned(), wanted(), Arc::new(world.renewer(&removed)));
    asked.renew().await.unwrap();
    world.remove(joined.node_id).await;
    // Its connection is ended, and the next one is not let in: who refuses first depends on the moment.
    let refused = asked.renew().await.unwrap_err();
    assert!(["PV-TLS-MEMBER", "PV-ADMIN-RPC"].contains(&refused.code()), "{refused}");
}
