//! A server that forwards its audit log to a syslog receiver over TLS, and says so in its metrics.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Read},
    net::TcpListener,
    process::Command,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use provost_wire::tls::encode_pem;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::{
    harness::{binary, text},
    servers::{LIMIT, Plan, Site, good, write},
};

type Seen = Arc<Mutex<BTreeSet<(String, u64)>>>;

/// Reads octet-counted messages until the sender has ended, then closes; connection after connection.
fn receive(listener: &TcpListener, config: &Arc<rustls::ServerConfig>, seen: &Seen) {
    for stream in listener.incoming().map_while(Result::ok) {
        let session = rustls::ServerConnection::new(config.clone()).unwrap();
        let mut stream = BufReader::new(rustls::StreamOwned::new(session, stream));
        loop {
            let mut count = Vec::new();
            if stream.read_until(b' ', &mut count).unwrap_or(0) == 0 {
                break;
            }
            let count: usize = String::from_utf8(count).unwrap().trim().parse().unwrap();
            let mut message = vec![0; count];
            stream.read_exact(&mut message).unwrap();
            let message = String::from_utf8(message).unwrap();
            let of =
                |key: &str| message.split(&format!("{key}=\"")).nth(1).unwrap().split('"').next().unwrap().to_owned();
            seen.lock().unwrap().insert((of("log"), of("index").parse().unwrap()));
        }
        stream.get_mut().conn.send_close_notify();
        let _ = std::io::Write::flush(stream.get_mut());
    }
}

fn with(plan: &Plan, more: &str) {
    let config = fs::read_to_string(&plan.config).unwrap();
    fs::write(&plan.config, config + more).unwrap();
}

fn print_config(plan: &Plan) -> std::process::Output {
    Command::new(binary("provost")).args(["server", "--print-config", "--config"]).arg(&plan.config).output().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_reach_a_syslog_receiver_over_tls() {
    let mut site = Site::new();
    let cp_1 = site.plan("cp-1", &["control-plane", "audit-log"], &[], None);

    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let ca = site.path().join("siem.pem");
    fs::write(&ca, encode_pem("CERTIFICATE", certificate.der())).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from(certificate.der().to_vec())],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = Seen::default();
    let (config, taken) = (Arc::new(config), seen.clone());
    std::thread::spawn(move || receive(&listener, &config, &taken));

    // Wrong keys are said, right ones shown.
    let before = fs::read_to_string(&cp_1.config).unwrap();
    with(
        &cp_1,
        "[[audit.forward]]\nname = \"siem\"\nkind = \"mail\"\n[[audit.retention]]\ntenant = \"*\"\nkeep = \"1h\"\n",
    );
    let refused = text(&print_config(&cp_1));
    assert!(refused.contains("PV-CONFIG-INVALID") && refused.contains("audit.forward has a wrong entry"), "{refused}");
    assert!(refused.contains("audit.retention keeps `*`"), "{refused}");
    fs::write(&cp_1.config, before).unwrap();
    with(
        &cp_1,
        &format!(
            "[[audit.forward]]\nname = \"siem\"\nkind = \"syslog\"\naddress = \"localhost:{port}\"\ntls_ca = {ca:?}\n\
             [[audit.retention]]\ntenant = \"*\"\nkeep = \"400d\"\n"
        ),
    );
    let shown = text(&print_config(&cp_1));
    assert!(shown.contains("[[audit.forward]]") && shown.contains("keep = \"400d\""), "{shown}");

    good(&site.init(&cp_1, "prod", &[], &[]));
    let _running = cp_1.start();
    let admin = site.admin(&cp_1).await;
    write(&admin, "acme").await.unwrap();
    write(&admin, "other").await.unwrap();
    let began = Instant::now();
    let metrics = loop {
        let metrics = metrics(&cp_1).await;
        let sent = value(&metrics, "provost_audit_forward_sent_total{forward=\"siem\"}");
        if sent >= 3.0 && value(&metrics, "provost_audit_forward_lag_records{forward=\"siem\"}") == 0.0 {
            break metrics;
        }
        assert!(began.elapsed() < LIMIT, "{metrics}\n{}", cp_1.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert!(metrics.contains("provost_audit_forward_failures_total{forward=\"siem\"} 0"), "{metrics}");
    let seen = seen.lock().unwrap().clone();
    let cluster: Vec<u64> = seen.iter().filter(|(log, _)| log == "prod/_cluster").map(|(_, index)| *index).collect();
    assert_eq!(cluster, (0..cluster.len() as u64).collect::<Vec<_>>(), "without gaps: {seen:?}");
    assert!(cp_1.data().join("audit-forward/siem.cursor").exists());
}

async fn metrics(plan: &Plan) -> String {
    let config = fs::read_to_string(&plan.config).unwrap();
    let address = config.split("metrics = \"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let answer = reqwest::get(format!("http://{address}/metrics")).await;
    match answer {
        Ok(answer) => answer.text().await.unwrap_or_default(),
        Err(_) => String::new(),
    }
}

fn value(metrics: &str, name: &str) -> f64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.trim().parse().ok()).unwrap_or(-1.0)
}
