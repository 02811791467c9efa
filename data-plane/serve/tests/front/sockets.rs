//! What only shows on real connections: clients that leave, clients that do not read, shutdown.

use std::time::Duration;

use provost_data_serve::{Doors, PlainRule};
use provost_types::{CallStatus, Phase};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;

use crate::world::{World, modern_request};

pub struct Served {
    pub world: World,
    pub address: std::net::SocketAddr,
    shutdown: CancellationToken,
    done: tokio::task::JoinHandle<std::io::Result<()>>,
}

async fn serve() -> Served {
    serve_world(World::new()).await
}

pub async fn serve_world(world: World) -> Served {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    serve_doors(world, Doors { tcp, udp: None, tls: None, plain: PlainRule::Served })
}

pub fn serve_doors(world: World, doors: Doors) -> Served {
    let address = doors.tcp.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let (front, token) = (world.front.clone(), shutdown.clone());
    let done = tokio::spawn(async move { front.serve_doors(doors, token).await });
    Served { world, address, shutdown, done }
}

fn bytes_of(tool: &str) -> String {
    let (headers, body) = modern_request("tools/call", json!({ "name": tool, "arguments": {} }));
    let mut head = format!(
        "POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         accept: application/json, text/event-stream\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    format!("{head}\r\n{body}")
}

impl Served {
    async fn send(&self, tool: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes_of(tool).as_bytes()).await.unwrap();
        stream
    }

    pub async fn wait_for(&self, phase: Phase, tool: &str) -> provost_types::AuditEvent {
        for _ in 0..1_000 {
            if let Some(event) = self.world.plane.recorded(phase, tool).pop() {
                return event;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no {phase:?} of {tool} was recorded");
    }

    /// Asks for the end, and does not wait for it.
    pub fn begin_stop(&self) {
        self.shutdown.cancel();
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(Duration::from_secs(20), self.done).await.unwrap().unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_modern_client_that_leaves_has_cancelled() {
    let served = serve().await;
    let stream = served.send("wait").await;
    served.wait_for(Phase::Intent, "wait").await;
    drop(stream);
    let outcome = served.wait_for(Phase::Outcome, "wait").await;
    assert_eq!(outcome.status, Some(CallStatus::Cancelled));
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_never_costs_the_outcome() {
    let served = serve().await;
    let stream = served.send("gate").await;
    served.wait_for(Phase::Intent, "gate").await;
    drop(stream);
    // The tool does not listen for cancellation: it ends in its own time, and that is recorded.
    while served.world.plane.recorded(Phase::Outcome, "gate").is_empty() {
        let _ = served.world.plane.changes.send("go");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let outcome = served.wait_for(Phase::Outcome, "gate").await;
    assert_eq!(outcome.status, Some(CallStatus::Ok));
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_loses_its_stream() {
    let served = serve().await;
    let mut stream = served.send("flood").await;
    served.wait_for(Phase::Outcome, "flood").await;
    // 200 events of 64 KiB were said; far less is kept.
    let mut got = Vec::new();
    let reading = stream.read_to_end(&mut got);
    let _ = tokio::time::timeout(Duration::from_secs(2), reading).await;
    assert!(got.len() < 12 * 1024 * 1024, "{} bytes", got.len());
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_lets_calls_end() {
    let served = serve().await;
    let mut stream = served.send("gate").await;
    served.wait_for(Phase::Intent, "gate").await;
    served.shutdown.cancel();
    let plane = served.world.plane.clone();
    let opener = tokio::spawn(async move {
        while plane.recorded(Phase::Outcome, "gate").is_empty() {
            let _ = plane.changes.send("go");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let mut text = String::new();
    let reading = stream.read_to_string(&mut text);
    tokio::time::timeout(Duration::from_secs(20), reading).await.unwrap().unwrap();
    assert!(text.contains("through"), "{text}");
    opener.await.unwrap();
    served.stop().await;
}

/// Reads one answer, head and body.
async fn answer(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    let mut buffer = [0; 4096];
    loop {
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut buffer)).await.unwrap().unwrap();
        text.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
        let whole = text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            length.is_some_and(|length| length.parse() == Ok(body.len()))
        });
        if whole || read == 0 {
            return text;
        }
    }
}

#[tokio::test]
async fn a_node_that_goes_says_so_before_it_closes_anything() {
    let served = serve_world(World::leaving(4_000)).await;
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let mut busy = served.send("echo").await;
    let before = answer(&mut busy).await;
    assert!(before.starts_with("HTTP/1.1 200") && !before.contains("connection: close"), "{before}");
    let mut idle = TcpStream::connect(served.address).await.unwrap();
    served.shutdown.cancel();
    loop {
        let mut probe = TcpStream::connect(served.address).await.unwrap();
        probe.write_all(get("/readyz").as_bytes()).await.unwrap();
        if answer(&mut probe).await.starts_with("HTTP/1.1 503") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    // The connection of before takes one more request, and is then closed with its answer.
    busy.write_all(bytes_of("echo").as_bytes()).await.unwrap();
    let last = answer(&mut busy).await;
    assert!(last.starts_with("HTTP/1.1 200") && last.contains("connection: close"), "{last}");
    assert_eq!(busy.read(&mut [0; 16]).await.unwrap(), 0);
    // Who has not heard is still served, and told.
    let mut late = served.send("echo").await;
    let told = answer(&mut late).await;
    assert!(told.starts_with("HTTP/1.1 200") && told.contains("connection: close"), "{told}");
    // One that was opened and not used yet can be used.
    idle.write_all(get("/readyz").as_bytes()).await.unwrap();
    let ready = answer(&mut idle).await;
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("connection: close"), "{ready}");

    let address = served.address;
    served.stop().await;
    assert!(TcpStream::connect(address).await.is_err(), "the port is closed at last");
}
