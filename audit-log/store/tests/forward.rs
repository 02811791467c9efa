//! Forwarding to real receivers over TCP: killed in the middle and started again, nothing is lost,
//! and what comes twice comes around the kill.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod common;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use common::{Lab, tenant};
use provost_audit_core::LogId;
use provost_audit_store::{ForwardConfig, ForwardTarget, Forwarder, OtlpTarget, SyslogTarget};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

const LIMIT: Duration = Duration::from_secs(180);

/// What arrived: log and index, in order.
type Arrived = Arc<Mutex<Vec<(String, u64)>>>;

/// A receiver that runs as a task; aborting it closes its sockets with whatever is unread in them.
struct Receiver {
    task: JoinHandle<()>,
}

impl Receiver {
    /// Takes `die_after` messages at most, then stops reading in the middle.
    fn start(listener: TcpListener, arrived: &Arrived, die_after: usize, otlp: bool) -> Self {
        let arrived = arrived.clone();
        let task = tokio::spawn(async move {
            let left = Arc::new(Mutex::new(die_after));
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let alive = if otlp {
                    take_otlp(stream, &arrived, &left).await
                } else {
                    take_syslog(stream, &arrived, &left).await
                };
                if !alive {
                    return;
                }
            }
        });
        Self { task }
    }
}

fn take_one(left: &Arc<Mutex<usize>>) -> bool {
    let mut left = left.lock().unwrap();
    *left = left.saturating_sub(1);
    *left > 0
}

/// Octet-counted messages until the sender has closed its side; then closes ours.
async fn take_syslog(stream: TcpStream, arrived: &Arrived, left: &Arc<Mutex<usize>>) -> bool {
    let mut stream = BufReader::new(stream);
    loop {
        let mut count = Vec::new();
        if stream.read_until(b' ', &mut count).await.unwrap_or(0) == 0 {
            return true;
        }
        let count: usize = String::from_utf8(count).unwrap().trim().parse().unwrap();
        let mut message = vec![0; count];
        stream.read_exact(&mut message).await.unwrap();
        let message = String::from_utf8(message).unwrap();
        assert!(message.starts_with("<110>1 2025-11-13T") && message.contains(" node-1 provost - "), "{message}");
        let place =
            |key: &str| message.split(&format!("{key}=\"")).nth(1).unwrap().split('"').next().unwrap().to_owned();
        arrived.lock().unwrap().push((place("log"), place("index").parse().unwrap()));
        let json = message.split_once("] ").unwrap().1;
        assert_eq!(serde_json::from_str::<serde_json::Value>(json).unwrap()["writer_id"], "node-1");
        if !take_one(left) {
            return false;
        }
    }
}

/// One HTTP/1.1 request after the other on a connection.
async fn take_otlp(stream: TcpStream, arrived: &Arrived, left: &Arc<Mutex<usize>>) -> bool {
    let mut stream = BufReader::new(stream);
    loop {
        let mut length = 0;
        let mut first = String::new();
        if stream.read_line(&mut first).await.unwrap_or(0) == 0 {
            return true;
        }
        assert!(first.starts_with("POST /v1/logs "), "{first}");
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await.unwrap();
            if line == "\r\n" {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        for record in body["resourceLogs"][0]["scopeLogs"][0]["logRecords"].as_array().unwrap() {
            let of = |key: &str| {
                let all = record["attributes"].as_array().unwrap();
                all.iter().find(|a| a["key"] == key).unwrap()["value"].clone()
            };
            let log = of("provost.audit.log")["stringValue"].as_str().unwrap().to_owned();
            let index = of("provost.audit.index")["intValue"].as_str().unwrap().parse().unwrap();
            assert_eq!(of("gen_ai.tool.name")["stringValue"], "sql.query");
            arrived.lock().unwrap().push((log, index));
            if !take_one(left) {
                // Taken, but the answer never leaves.
                return false;
            }
        }
        let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
}

fn forwarder(dir: &Path, target: &ForwardTarget) -> Forwarder {
    let config = ForwardConfig { name: "siem".to_owned(), target: target.clone(), logs: Vec::new(), from_now: false };
    Forwarder::open(config, &dir.join("audit"), &dir.join("audit-forward")).unwrap()
}

fn counts(arrived: &Arrived) -> BTreeMap<(String, u64), usize> {
    let mut counts = BTreeMap::new();
    arrived.lock().unwrap().iter().for_each(|place| *counts.entry(place.clone()).or_insert(0) += 1);
    counts
}

async fn until_all(arrived: &Arrived, wanted: usize) {
    let began = Instant::now();
    while counts(arrived).len() < wanted {
        assert!(began.elapsed() < LIMIT, "{} of {wanted} arrived", counts(arrived).len());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The receiver dies after 700 of 2,400 records, comes back; the forwarder dies, comes back.
async fn kill_and_restart(otlp: bool) {
    let dir = tempfile::tempdir().unwrap();
    let mut lab = Lab::open(dir.path());
    lab.calls(&tenant("acme"), 700);
    lab.calls(&LogId::CLUSTER, 300);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let target = match otlp {
        true => {
            let url = format!("http://{address}/v1/logs");
            ForwardTarget::Otlp(OtlpTarget { url, ca: None, authorization_file: None })
        }
        false => ForwardTarget::Syslog(SyslogTarget { address: address.to_string(), tls_ca: None }),
    };
    let arrived = Arrived::default();
    let receiver = Receiver::start(listener, &arrived, 700, otlp);
    let first = forwarder(dir.path(), &target);
    let handle = first.handle();
    let running = tokio::spawn(first.run());
    // It takes 700 and ends, its socket with it; nothing listens any more.
    receiver.task.await.unwrap();
    assert_eq!(arrived.lock().unwrap().len(), 700);
    let began = Instant::now();
    while handle.status().last_error.is_none() {
        assert!(began.elapsed() < LIMIT);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let status = handle.status();
    assert!(status.sent <= 700 && status.failures > 0, "{status:?}");

    // Records are kept all the same while it is away.
    let began = Instant::now();
    lab.calls(&tenant("acme"), 200);
    println!("400 records appended in {:?} while the receiver is dead", began.elapsed());

    // It comes back at the same address.
    let listener = loop {
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    let _receiver = Receiver::start(listener, &arrived, usize::MAX, otlp);
    until_all(&arrived, 2_400).await;
    let mut places = counts(&arrived);
    let twice = places.values().filter(|n| **n > 1).count();
    assert!(twice <= 512, "{twice} came twice: more than the batch in flight");
    println!("nothing lost; {twice} of 2400 records came twice");

    // The forwarder is killed between batches; another one goes on from the cursor.
    let began = Instant::now();
    while handle.status().positions.values().sum::<u64>() < 2_400 {
        assert!(began.elapsed() < LIMIT);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    running.abort();
    let _ = running.await;
    lab.calls(&tenant("acme"), 50);
    let before = arrived.lock().unwrap().len();
    tokio::spawn(forwarder(dir.path(), &target).run());
    until_all(&arrived, 2_500).await;
    assert_eq!(arrived.lock().unwrap().len() - before, 100, "the cursor was durable: nothing came again");

    // In order, each log for itself.
    places = counts(&arrived);
    for (log, size) in [("provost/acme", 1_900), ("provost/_cluster", 600)] {
        let all: Vec<u64> = places.keys().filter(|(l, _)| l == log).map(|(_, index)| *index).collect();
        assert_eq!(all, (0..size).collect::<Vec<_>>(), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn syslog_at_least_once() {
    kill_and_restart(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn otlp_at_least_once() {
    kill_and_restart(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_accepts_and_is_silent_has_taken_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut lab = Lab::open(dir.path());
    lab.calls(&tenant("acme"), 5);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let read_all = Arc::new(AtomicBool::new(false));
    let seen = read_all.clone();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        seen.store(true, Ordering::SeqCst);
        // Everything was read, and the connection stays open.
        std::future::pending::<()>().await;
    });
    let target = ForwardTarget::Syslog(SyslogTarget { address, tls_ca: None });
    let forwarder = forwarder(dir.path(), &target);
    let handle = forwarder.handle();
    tokio::spawn(forwarder.run());
    let began = Instant::now();
    while !read_all.load(Ordering::SeqCst) {
        assert!(began.elapsed() < LIMIT);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(handle.status().sent, 0);
    assert!(handle.status().positions.values().all(|next| *next == 0));
}
