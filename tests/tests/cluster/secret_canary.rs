//! A secret goes in by standard input, is sealed, pushed, opened where a plugin needs it, backed up
//! and restored; its value is nowhere in the clear but in the request to the upstream it is for.
//!
//! Looked at: every file of the run (Raft logs, states, snapshots, audit segments, the pushed state,
//! what every process logged at the finest level), the backup and what is restored from it, and the
//! arguments of every process of the run. The value is random, so that compression leaves it as it
//! is: RocksDB's blocks and checkpoints are searched as they lie.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    cluster::Cluster,
    harness::{binary, children, modern, text},
};

/// How long the plugin may take to ask its upstream.
const ASK_LIMIT: Duration = Duration::from_secs(60);
/// Everything that logs says all it can.
const LOG: (&str, &str) = ("PROVOST_LOG", "trace");
const SECRET: &str = "canary";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secrets_value_is_nowhere_but_in_the_request_it_is_for() {
    let Some(mut cluster) = Cluster::start_env(&[LOG]).await else { return };
    let canary = canary();
    let upstream = Upstream::listen(canary.clone());
    let (data, outside) = (cluster.place.data.clone(), tempfile::tempdir().unwrap());

    // Written, but not ended: while the command waits for more, everybody can see its arguments.
    let mut set = spawn(&data, &["secret", "set", SECRET], Stdio::piped());
    let mut stdin = set.stdin.take().unwrap();
    stdin.write_all(canary.as_bytes()).unwrap();
    stdin.flush().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let mut arguments = vec![command_line(set.id())];
    drop(stdin);
    good(set.wait_with_output().unwrap());

    let plugin = format!(
        "apiVersion: provost/v1\nkind: Plugin\nmetadata: {{ name: up, tenant: acme }}\n\
         spec:\n  source:\n    mcp-http:\n      url: 'http://{}/mcp'\n      secretHeaders: {{ x-key: {{ secret: {SECRET} }} }}\n",
        upstream.address
    );
    let file = outside.path().join("plugin.yaml");
    std::fs::write(&file, plugin).unwrap();
    good(run(&data, &["apply", "-f", file.to_str().unwrap()]));
    let began = Instant::now();
    while !upstream.was_asked() {
        assert!(began.elapsed() < ASK_LIMIT, "the plugin never sent its secret");
        list_tools(&cluster).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    good(run(&data, &["cluster", "rotate-keys"]));
    for looking in [["get", "Secret"], ["history", "--json"], ["get", "Plugin"]] {
        let shown = run(&data, &looking);
        assert!(!holds(text(&shown).as_bytes(), &canary), "`provost {looking:?}` shows it");
        good(shown);
    }

    let backup = outside.path().join("backup.pvb");
    good(run(&data, &["cluster", "backup", backup.to_str().unwrap()]));
    let restored = outside.path().join("restored");
    good(run(
        &data,
        &[
            "cluster",
            "restore",
            backup.to_str().unwrap(),
            "--data-dir",
            restored.to_str().unwrap(),
            "--cluster",
            "second",
            "--address",
            "127.0.0.1:1",
        ],
    ));

    let parent = cluster.dev.child.id();
    let processes: Vec<u32> = std::iter::once(parent).chain(children(parent)).collect();
    assert!(processes.len() > 3, "three voters and their parent: {processes:?}");
    arguments.extend(processes.into_iter().map(command_line));
    for line in &arguments {
        assert!(!line.is_empty() && !holds(line, &canary), "an argument holds it");
    }

    // With everything stopped, what was only in memory has been written too.
    let root = data.parent().unwrap().to_owned();
    assert!(cluster.dev.terminate().1, "`provost dev` did not end well");
    let mut files = 0;
    for dir in [root.as_path(), outside.path()] {
        let (searched, found) = search(dir, &canary);
        assert!(found.is_empty(), "these hold the secret in the clear: {found:?}");
        files += searched;
    }
    println!("canary: {files} files and {} command lines searched", arguments.len());
    let (_, finest) = search(&root, "TRACE");
    assert!(finest.len() > 3, "not every process logged at the finest level: {finest:?}");
    // The search itself finds what is there.
    let planted = outside.path().join("planted");
    std::fs::write(&planted, format!("x{canary}y")).unwrap();
    assert_eq!(search(outside.path(), &canary).1, [planted]);
    drop(cluster);
}

fn canary() -> String {
    let random = std::fs::File::open("/dev/urandom").and_then(|mut file| {
        let mut bytes = [0_u8; 24];
        file.read_exact(&mut bytes).map(|()| bytes)
    });
    random.unwrap().iter().map(|b| char::from(b'A' + b % 26)).collect()
}

/// The value as it is, or as a program may have written it by mistake.
fn forms(canary: &str) -> Vec<Vec<u8>> {
    let bytes = canary.as_bytes();
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    let list: Vec<String> = bytes.iter().map(u8::to_string).collect();
    let mut forms = vec![bytes.to_vec(), hex.to_uppercase().into_bytes(), hex.into_bytes()];
    // As a list of numbers: how Rust prints bytes.
    forms.push(list.join(", ").into_bytes());
    forms.push(list.join(",").into_bytes());
    forms.extend((0..3).map(|skip| base64(&bytes[skip..bytes.len() - (bytes.len() - skip) % 3])));
    forms
}

/// Of whole groups of three bytes.
fn base64(bytes: &[u8]) -> Vec<u8> {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |g: &[u8]| {
        let bits = g.iter().fold(0_usize, |bits, b| bits << 8 | usize::from(*b));
        [18, 12, 6, 0].map(|shift| LETTERS[bits >> shift & 63])
    };
    bytes.chunks_exact(3).flat_map(group).collect()
}

fn holds(bytes: &[u8], canary: &str) -> bool {
    forms(canary).iter().any(|form| contains(bytes, form))
}

/// Horspool's search: logs at the finest level are long.
fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    let length = wanted.len();
    let mut skips = [length; 256];
    for (i, byte) in wanted[..length - 1].iter().enumerate() {
        skips[usize::from(*byte)] = length - 1 - i;
    }
    let mut end = length;
    while end <= bytes.len() {
        if &bytes[end - length..end] == wanted {
            return true;
        }
        end += skips[usize::from(bytes[end - 1])];
    }
    false
}

/// Searches every file below a folder: how many there were, and which hold it.
fn search(dir: &Path, canary: &str) -> (usize, Vec<PathBuf>) {
    let (mut open, mut files, mut found) = (vec![dir.to_owned()], 0, Vec::new());
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.is_file() {
            files += 1;
            if std::fs::read(&path).is_ok_and(|bytes| holds(&bytes, canary)) {
                found.push(path);
            }
        }
    }
    (files, found)
}

fn command_line(pid: u32) -> Vec<u8> {
    std::fs::read(format!("/proc/{pid}/cmdline")).unwrap()
}

fn spawn(data: &Path, args: &[&str], stdin: Stdio) -> Child {
    let mut command = Command::new(binary("provost"));
    command.args(args).env("PROVOST_DATA_DIR", data).env(LOG.0, LOG.1);
    command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn run(data: &Path, args: &[&str]) -> Output {
    spawn(data, args, Stdio::null()).wait_with_output().unwrap()
}

fn good(output: Output) {
    let shown = text(&output);
    let tail = &shown[shown.len().saturating_sub(2_000)..];
    assert!(output.status.success(), "{tail}");
}

async fn list_tools(cluster: &Cluster) {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let sent = client
        .post(&cluster.place.mcp)
        .bearer_auth(&cluster.place.token)
        .header("accept", "application/json, text/event-stream")
        .header("mcp-protocol-version", "2026-07-28")
        .header("mcp-method", "tools/list")
        .json(&modern("tools/list", json!({})))
        .timeout(ASK_LIMIT);
    let _ = sent.send().await;
}

/// Takes requests and answers none well; notes whether one had the value.
struct Upstream {
    address: SocketAddr,
    asked: Arc<Mutex<bool>>,
}

impl Upstream {
    fn listen(canary: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, asked) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(false)));
        let noted = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
                let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
                while let Ok(read @ 1..) = stream.read(&mut buffer) {
                    request.extend_from_slice(&buffer[..read]);
                    if request.windows(4).any(|w| w == b"\r\n\r\n") {
                        break;
                    }
                }
                if request.windows(canary.len()).any(|w| w == canary.as_bytes()) {
                    *noted.lock().unwrap() = true;
                }
                let _ = stream
                    .write_all(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            }
        });
        Self { address, asked }
    }

    fn was_asked(&self) -> bool {
        *self.asked.lock().unwrap()
    }
}

#[test]
fn every_form_of_a_value_is_found() {
    assert_eq!(base64(b"foobar"), b"Zm9vYmFy");
    let secret = "QWERTYUIOPASDFGHJKLZXCVB";
    for form in forms(secret) {
        let around = [b"before ".as_slice(), &form, b" after"].concat();
        assert!(holds(&around, secret));
        assert!(!holds(&around[1..form.len()], secret));
    }
}
