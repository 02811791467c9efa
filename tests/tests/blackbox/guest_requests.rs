//! Requests of a component's guest: where they may go, and what they carry without the guest seeing it.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    sync::{Arc, Mutex},
    thread,
};

use serde_json::{Value, json};

use crate::{
    harness::{Dev, call_tool, root, text, until},
    packages, wasm,
};

/// What the guest must never see.
const SECRET: &str = "door-canary-7f3a";

/// A service that answers with the head of the request: one that repeats credentials.
struct Service {
    port: u16,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Service {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let kept = heads.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let lines = BufReader::new(&stream).lines().map_while(Result::ok);
                let head: String = lines.take_while(|line| !line.is_empty()).map(|line| line + "\n").collect();
                let answer = answer(&head);
                kept.lock().unwrap().push(head);
                // Who asked may have gone.
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        Self { port, heads }
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

fn answer(head: &str) -> String {
    let (status, header) = match head.split_whitespace().nth(1).unwrap_or_default() {
        // It only says so: what matters is that nobody here can look into it.
        "/packed" => ("200 OK", "content-encoding: gzip\r\n"),
        "/away" => ("302 Found", "location: /plain\r\n"),
        _ => ("200 OK", ""),
    };
    let length = head.len();
    format!("HTTP/1.1 {status}\r\n{header}content-length: {length}\r\nconnection: close\r\n\r\n{head}")
}

fn said(answer: &Value) -> &str {
    answer["result"]["content"][0]["text"].as_str().unwrap_or_default()
}

#[test]
fn a_guest_names_a_credential_and_neither_sees_it_nor_sends_it_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let service = Service::start();
    let guest = fs::read(root().join("data-plane/wasm/tests/guests/hostile.wasm")).unwrap();
    let digest = wasm::put(&data, "hostile.wasm", &guest);
    let dev = Dev::start_in(&data, Some(&wasm::base()), &[]);
    let set = dev.cli_stdin(&["secret", "set", "door-key"], SECRET);
    assert!(set.status.success(), "{}", text(&set));
    let credential =
        |host: &str| format!("{{ header: x-key, value: {{ secret: door-key, prefix: 'Bearer ' }}, hosts: [{host}] }}");
    let yaml = format!(
        "apiVersion: provost/v1\nkind: Plugin\nmetadata: {{ name: hostile, tenant: acme }}\n\
         spec:\n  source:\n    wasm:\n      file: hostile.wasm\n      digest: '{digest}'\n      \
         egress: {{ allowHosts: [127.0.0.1] }}\n      credentials: {{ key: {}, elsewhere: {} }}\n",
        credential("127.0.0.1"),
        credential("other.example")
    );
    let file = packages::put(dir.path(), "plugin.yaml", yaml.as_bytes());
    packages::well(&dev, &["apply", "-f", &file]);
    until(|| call_tool(&dev, "hostile.flood", json!({ "n": 0 }))["error"].is_null().then_some(()));

    let fetch = |host: &str, path: &str, credential: Option<&str>| {
        let url = format!("http://{host}:{}{path}", service.port);
        let answer = call_tool(&dev, "hostile.fetch", json!({ "text": url, "credential": credential }));
        assert!(!answer.to_string().contains(SECRET), "{path}: {answer}");
        said(&answer).to_owned()
    };
    // The service gets it, and what it repeats of it does not come back.
    let told = fetch("127.0.0.1", "/plain", Some("key"));
    assert!(told.starts_with("200 GET /plain") && told.contains("x-key: Bearer "), "{told}");
    let heads = service.heads();
    assert!(heads[0].contains(&format!("x-key: Bearer {SECRET}\n")), "{heads:?}");
    assert!(heads[0].contains("accept-encoding: identity\n"), "{heads:?}");
    // Nor does an answer that cannot be looked through; one that cannot have it does.
    let told = fetch("127.0.0.1", "/packed", Some("key"));
    assert!(told.contains("Denied") && told.contains("encoded"), "{told}");
    assert!(fetch("127.0.0.1", "/packed", None).starts_with("200 GET /packed"));
    // It follows nobody.
    assert!(fetch("127.0.0.1", "/away", Some("key")).starts_with("302 GET /away"));
    let heads = service.heads();
    assert_eq!(heads.len(), 4, "{heads:?}");
    assert!(!heads[2].contains("x-key"), "nobody asked for it: {heads:?}");

    // None of these is sent.
    for (host, credential, expect) in [
        ("127.0.0.1", Some("elsewhere"), "is not for `127.0.0.1`"),
        ("127.0.0.1", Some("none"), "no credential `none`"),
        ("localhost", Some("key"), "allowHosts"),
        ("localhost", None, "allowHosts"),
    ] {
        let told = fetch(host, "/plain", credential);
        assert!(told.contains("Denied") && told.contains(expect), "{host} {credential:?}: {told}");
    }
    assert_eq!(service.heads().len(), 4, "{:?}", service.heads());
    // Records name the secret, and have no value.
    let records = text(&dev.cli(&["audit", "query", "--json", "--tool", "hostile.fetch", "--limit", "100"]));
    assert!(records.contains("\"secrets\":[\"door-key\"]") && !records.contains(SECRET), "{records}");
}
