//! Upstreams: merged names, stdio children that die, servers that misbehave.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{Dev, Process, binary, call_tool, children, modern, post, signal, until, upstream_yaml};

/// An HTTP server that misbehaves in one way.
pub struct Broken {
    port: u16,
    stop: Arc<AtomicBool>,
}

impl Broken {
    pub fn start(mode: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let stop = Arc::new(AtomicBool::new(false));
        if mode == "unreachable" {
            return Self { port, stop };
        }
        let flag = stop.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if flag.load(Ordering::SeqCst) {
                    return;
                }
                let flag = flag.clone();
                std::thread::spawn(move || misbehave(mode, stream.unwrap(), &flag));
            }
        });
        Self { port, stop }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/mcp", self.port)
    }
}

impl Drop for Broken {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn misbehave(mode: &str, mut stream: TcpStream, stop: &AtomicBool) {
    let mut buffer = [0u8; 65_536];
    let _ = stream.read(&mut buffer);
    match mode {
        "garbage" => {
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{{{{not js");
        }
        "die" => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: {\"jsonrpc\":");
        }
        _ => {
            while !stop.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }
}

fn tool_names(dev: &Dev, url: &str) -> Vec<String> {
    let (_, answer) = post(url, dev.token(), &modern("tools/list", json!({})));
    let tools = answer["result"]["tools"].as_array().unwrap_or_else(|| panic!("{answer}"));
    tools.iter().map(|t| t["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn several_upstreams_are_merged_under_their_names_and_one_alone_has_plain_names() {
    let (one, two) = (Process::everything("modern"), Process::everything("legacy"));
    let yaml = format!(
        "{}---\napiVersion: provost/v1\nkind: Plugin\nmetadata: {{ name: old, tenant: acme }}\n\
         spec: {{ source: {{ mcp-http: {{ url: '{}' }} }} }}\n",
        upstream_yaml(&one.url),
        two.url
    );
    let dev = Dev::start(Some(&yaml), &[]);
    let merged = tool_names(&dev, dev.mcp());
    assert!(merged.iter().any(|n| n == "up.test_simple_text"), "{merged:?}");
    assert!(merged.iter().any(|n| n == "old.test_simple_text"), "{merged:?}");
    let plain = tool_names(&dev, &format!("{}/up", dev.mcp()));
    assert!(plain.iter().any(|n| n == "test_simple_text"), "{plain:?}");
    for tool in ["up.test_simple_text", "old.test_simple_text"] {
        let answer = call_tool(&dev, tool, json!({}));
        assert!(answer["result"]["content"][0]["text"].is_string(), "{tool}: {answer}");
    }
    // An upstream that is gone does not take the others with it.
    drop(one);
    let answer = call_tool(&dev, "old.test_simple_text", json!({}));
    assert!(answer["result"]["content"][0]["text"].is_string(), "{answer}");
}

#[test]
fn a_stdio_upstream_that_is_killed_comes_back() {
    let yaml = upstream_yaml("http://127.0.0.1:9/mcp").replace(
        "mcp-http: { url: 'http://127.0.0.1:9/mcp' }",
        &format!(
            "mcp-stdio: {{ command: '{}', isolation: {{ required: false }} }}",
            binary("everything-rmcp").display()
        ),
    );
    let dev = Dev::start(Some(&yaml), &[]);
    let works = || {
        let answer = call_tool(&dev, "up.test_simple_text", json!({}));
        answer["result"]["content"][0]["text"].is_string()
    };
    assert!(works());
    let upstreams = children(dev.child.id());
    assert!(!upstreams.is_empty(), "no child to kill");
    upstreams.into_iter().for_each(|pid| signal(pid, Signal::KILL));
    let came_back = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(100));
        works()
    });
    assert!(came_back, "the child was not restarted: {}", dev.stderr());
}

#[test]
fn one_that_does_not_answer_keeps_no_other_waiting() {
    let (good, sick) = (Process::everything("modern"), Broken::start("hang"));
    let more = |url: &str| {
        format!(
            "---\napiVersion: provost/v1\nkind: Plugin\nmetadata: {{ name: sick, tenant: acme }}\n\
             spec: {{ source: {{ mcp-http: {{ url: '{url}' }} }} }}\n"
        )
    };
    let dev = Dev::start(Some(&(upstream_yaml(&good.url) + &more(&sick.url()))), &[]);
    for method in ["server/discover", "tools/list", "resources/list"] {
        let began = std::time::Instant::now();
        let (_, answer) = post(dev.mcp(), dev.token(), &modern(method, json!({})));
        // Its own bounds are 20 s each.
        assert!(began.elapsed() < Duration::from_secs(15), "{method} took {:?}", began.elapsed());
        assert!(answer["result"].is_object(), "{method}: {answer}");
    }
    let names = tool_names(&dev, dev.mcp());
    assert!(names.iter().any(|n| n == "up.test_simple_text"), "{names:?}");
    assert!(!names.iter().any(|n| n.starts_with("sick.")), "{names:?}");
}

#[test]
fn a_plugin_added_at_run_time_serves_without_a_restart() {
    let dev = Dev::start(Some(&upstream_yaml("http://127.0.0.1:9/mcp")), &[]);
    let server = Process::everything("modern");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("more.yaml");
    let yaml = format!(
        "apiVersion: provost/v1\nkind: Plugin\nmetadata: {{ name: more, tenant: acme }}\n\
         spec: {{ source: {{ mcp-http: {{ url: '{}' }} }} }}\n",
        server.url
    );
    std::fs::write(&path, yaml).unwrap();
    let applied = dev.cli(&["apply", "-f", path.to_str().unwrap()]);
    assert!(applied.status.success(), "{}", crate::harness::text(&applied));
    let call = || call_tool(&dev, "more.test_simple_text", json!({}));
    let is_unknown = |answer: &Value| answer["error"]["code"] == -32602;
    let answer = until(|| Some(call()).filter(|answer| !is_unknown(answer)));
    assert!(answer["result"]["content"][0]["text"].is_string(), "{answer}");
    let deleted = dev.cli(&["delete", "Plugin", "more"]);
    assert!(deleted.status.success());
    until(|| Some(call()).filter(is_unknown));
}
