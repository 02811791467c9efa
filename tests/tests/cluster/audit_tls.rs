//! An auditor on another machine copies the logs of an audit node over TLS, and verifies the copy.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
    time::{Duration, Instant},
};

use provost_wire::tls::encode_pem;
use rcgen::{CertificateParams, KeyPair};
use serde_json::Value;

use crate::{
    harness::{binary, text},
    ports::free_ports,
    servers::{LIMIT, Site, good, write},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_auditor_copies_the_logs_over_tls_and_proves_them() {
    let mut site = Site::new();
    let cp_1 = site.plan("cp-1", &["control-plane", "audit-log"], &[], None);
    let ([tiles], readers) = (free_ports(), site.path().join("readers"));
    // Every address of the machine: on loopback alone it would be plain.
    let more = format!("[audit]\nlisten = \"0.0.0.0:{}\"\nreaders = {readers:?}\n", tiles.port());
    let config = fs::read_to_string(&cp_1.config).unwrap();
    fs::write(&cp_1.config, config + &more).unwrap();
    let made =
        Command::new(binary("provost")).args(["audit", "reader-token", "--log", "*", "--json"]).output().unwrap();
    let made: Value = serde_json::from_slice(&made.stdout).unwrap();
    fs::write(&readers, made["line"].as_str().unwrap()).unwrap();

    good(&site.init(&cp_1, "prod", &[], &[]));
    let _running = cp_1.start();
    let admin = site.admin(&cp_1).await;
    write(&admin, "acme").await.unwrap();
    let (signed, kept) = (cp_1.data().join("audit/checkpoint"), site.path().join("kept"));
    let began = Instant::now();
    while !fs::read_to_string(&signed).is_ok_and(|notes| notes.contains("prod/_cluster\n")) {
        assert!(began.elapsed() < LIMIT, "nothing is signed: {}", cp_1.log());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    fs::copy(&signed, &kept).unwrap();

    let verify = |ca: &Path| -> Output {
        let mut verify = Command::new(binary("provost"));
        verify.args(["audit", "verify", "--tenant", "cluster", "--url", &format!("https://{tiles}"), "--against"]);
        verify.arg(&kept).arg("--ca").arg(ca).env("PROVOST_AUDIT_TOKEN", made["token"].as_str().unwrap());
        verify.output().unwrap()
    };
    let proven = verify(&cp_1.data().join("identity/bundle.pem"));
    assert_eq!(proven.status.code(), Some(0), "{}\n{}", text(&proven), cp_1.log());

    let key = KeyPair::generate().unwrap();
    let other = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let ca = site.path().join("other.pem");
    fs::write(&ca, encode_pem("CERTIFICATE", other.der())).unwrap();
    let refused = verify(&ca);
    assert!(refused.status.code() == Some(5) && text(&refused).contains("PV-AUDIT-COPY"), "{}", text(&refused));
}
