//! The official Python SDK, connected as a client of the legacy era, hears of plugins that come, change and go.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use provost_package::SigningKey;
use serde_json::Value;

use crate::{
    harness::{Dev, START_LIMIT, root, until},
    packages::{package_of, publisher, put, run, well},
    wasm::{base, component},
};

/// How long the client may take to be there: the first time its SDK is installed.
const INSTALL_LIMIT: Duration = Duration::from_secs(300);

/// Before its stream is heard of by the node, a change may pass the client by; then there is another.
const PAUSE: Duration = Duration::from_secs(2);

/// A client that says what tools it sees: once at first, and again whenever it is told that they changed.
struct Listener {
    child: Child,
    said: Receiver<Value>,
}

impl Listener {
    fn start(dev: &Dev) -> Self {
        let mut child = Command::new("bash")
            .arg(root().join("tests/clients/run.sh"))
            .arg("hear")
            .env("URL", dev.mcp())
            .env("TOKEN", dev.token())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (told, said) = channel();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let _ = told.send(serde_json::from_str(&line).unwrap_or(Value::String(line)));
            }
        });
        Self { child, said }
    }

    /// The tools that it saw when it was told next, if that was in time.
    fn next(&self, limit: Duration) -> Option<BTreeSet<String>> {
        let said = self.said.recv_timeout(limit).ok()?;
        let tools = said["tools"].as_array().unwrap_or_else(|| panic!("the client said {said}"));
        Some(tools.iter().map(|tool| tool.as_str().unwrap().to_owned()).collect())
    }

    /// Waits until it was told and saw exactly these tools of the plugin `text`.
    fn hears_of(&self, expect: &[&str]) {
        let expect: BTreeSet<String> = expect.iter().map(|tool| format!("text.{tool}")).collect();
        let (began, mut seen) = (Instant::now(), None);
        while let Some(left) = START_LIMIT.checked_sub(began.elapsed()) {
            let Some(tools) = self.next(left) else { break };
            let of_text: BTreeSet<String> = tools.into_iter().filter(|tool| tool.starts_with("text.")).collect();
            if of_text == expect {
                return;
            }
            seen = Some(of_text);
        }
        panic!("the client was not told of {expect:?}; it last saw {seen:?}");
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // It ends when its stdin does, and the script with it.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Changes something else until the client was told once: from then on the node knows its stream.
fn until_heard(dev: &Dev, client: &Listener) {
    let began = Instant::now();
    while began.elapsed() < START_LIMIT {
        for verb in ["quarantine", "approve"] {
            until(|| run(dev, &["plugin", verb, "clock", "--reason", "INC-9"]).0.then_some(()));
            if client.next(PAUSE).is_some() {
                return;
            }
        }
    }
    panic!("the client heard nothing");
}

#[test]
fn python_sdk_hears_of_plugins_that_come_change_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let key = SigningKey::generate().unwrap();
    let clock = "---\napiVersion: provost/v1\nkind: Plugin\nmetadata: { name: clock, tenant: acme }\n\
                 spec: { source: { builtin: { name: time } } }\n";
    let yaml = base() + &publisher(&key) + clock;
    let dev = Dev::start_in(&dir.path().join("data"), Some(&yaml), &[]);
    let other = fs::read(root().join("data-plane/wasm/tests/guests/library.wasm")).unwrap();
    let [first, second] = [(1, component()), (2, other)].map(|(n, component)| {
        let package = package_of(component, n, Some(&key));
        put(dir.path(), &format!("{n}.package"), package.bytes())
    });

    let client = Listener::start(&dev);
    let said = client.said.recv_timeout(INSTALL_LIMIT).unwrap();
    let version = said["version"].as_str().unwrap_or_else(|| panic!("the client said {said}"));
    assert!(version < "2026", "{version} is not of the legacy era");
    assert!(said["tools"].to_string().contains("clock.now") && !said.to_string().contains("text."), "{said}");
    until_heard(&dev, &client);

    // Each is one change, made once: what the client sees when it has been told is the new list.
    well(&dev, &["plugin", "install", &first]);
    client.hears_of(&["count", "diff", "slug"]);
    well(&dev, &["plugin", "install", &second]);
    client.hears_of(&["ping"]);
    well(&dev, &["plugin", "rollback", "text", "--reason", "INC-1"]);
    client.hears_of(&["count", "diff", "slug"]);
    well(&dev, &["delete", "Plugin", "text"]);
    client.hears_of(&[]);
}
