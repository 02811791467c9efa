//! What people get out of the audit log: queries with proofs, a live tail, exports, holds.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::harness::{Dev, binary, root, text};

const LIMIT: Duration = Duration::from_secs(60);
/// How long a tail may be behind before another call is made for it.
const PAUSE: Duration = Duration::from_secs(2);

fn lines(output: &std::process::Output) -> Vec<Value> {
    String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn good(output: std::process::Output) -> std::process::Output {
    assert!(output.status.success(), "{}", text(&output));
    output
}

fn call(dev: &Dev) {
    good(dev.cli(&["call", "sql.query", "--arg", "sql=SELECT count(*) AS n FROM customers"]));
}

/// A `tail --follow` and its lines.
struct Tail {
    child: Child,
    lines: mpsc::Receiver<Value>,
}

impl Tail {
    fn start(dev: &Dev, more: &[&str]) -> Self {
        let mut child = Command::new(binary("provost"))
            .args(["audit", "tail", "--follow", "--json", "--tenant", "acme"])
            .args(more)
            .env("PROVOST_DATA_DIR", &dev.data)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if send.send(serde_json::from_str(&line).unwrap()).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    fn next(&self) -> Value {
        self.lines.recv_timeout(LIMIT).expect("no line came")
    }

    /// Calls until it tells of a whole call; nothing else says that it looks already. It may begin between
    /// the two records of a call.
    fn next_call(&self, dev: &Dev) -> (Value, Value) {
        let began = Instant::now();
        loop {
            call(dev);
            while let Ok(line) = self.lines.recv_timeout(PAUSE) {
                if line["record"]["phase"] == "intent" {
                    return (line, self.next());
                }
            }
            assert!(began.elapsed() < LIMIT, "a tail does not see the next calls");
        }
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn records_are_found_with_proofs_followed_live_and_exported() {
    let mut dev = Dev::start(None, &[]);
    call(&dev);
    let found = lines(&good(dev.cli(&["audit", "query", "--tenant", "acme", "--tool", "sql.query", "--json"])));
    let id = found[0]["record"]["call_id"].as_str().unwrap().to_owned();
    let of_call = lines(&good(dev.cli(&["audit", "query", "--call", &id, "--json"])));
    assert_eq!(of_call.len(), 2, "intent and outcome of one call");
    assert_eq!(lines(&good(dev.cli(&["audit", "query", "--workflow", "none", "--json"]))).len(), 0);
    let refused = dev.cli(&["audit", "query", "--call", "xyz"]);
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));

    let shown = good(dev.cli(&["audit", "show", "0", "--tenant", "acme", "--json"]));
    assert_eq!(serde_json::from_slice::<Value>(&shown.stdout).unwrap()["index"], 0);

    // A tail sees the next call; another one goes on where it stopped.
    let tail = Tail::start(&dev, &["-n", "0"]);
    let (intent, outcome) = tail.next_call(&dev);
    assert_eq!(
        (&outcome["record"]["phase"], &outcome["record"]["call_id"]),
        (&"outcome".into(), &intent["record"]["call_id"])
    );
    assert_ne!(intent["record"]["call_id"].as_str(), Some(id.as_str()), "it begins with what is new");
    drop(tail);
    call(&dev);
    let next = outcome["index"].as_u64().unwrap() + 1;
    let resumed = Tail::start(&dev, &["--from", &format!("acme:{next}")]);
    assert_eq!(resumed.next()["index"].as_u64(), Some(next));
    assert_eq!(resumed.next()["index"].as_u64(), Some(next + 1));
    drop(resumed);

    // Holds: refused without a reason, placed, listed, recorded, removed.
    let no_reason = dev.cli(&["audit", "hold", "add", "case-7", "--tenant", "acme", "--reason", " "]);
    assert!(text(&no_reason).contains("PV-AUDIT-RETENTION"), "{}", text(&no_reason));
    good(dev.cli(&["audit", "hold", "add", "case-7", "--tenant", "acme", "--principal", "ana", "--reason", "case 7"]));
    let holds: Value = serde_json::from_slice(&good(dev.cli(&["audit", "hold", "list", "--json"])).stdout).unwrap();
    assert_eq!((&holds[0]["hold"], &holds[0]["reason"]), (&"case-7".into(), &"case 7".into()));
    let young = good(dev.cli(&["audit", "prune", "--tenant", "acme", "--keep", "400d", "--dry-run"]));
    assert!(text(&young).contains("nothing is old enough"), "{}", text(&young));
    good(dev.cli(&["audit", "hold", "remove", "case-7", "--tenant", "acme", "--reason", "closed"]));
    let again = dev.cli(&["audit", "hold", "remove", "case-7", "--tenant", "acme", "--reason", "closed"]);
    assert!(text(&again).contains("PV-AUDIT-NO-HOLD"), "{}", text(&again));
    for event in ["hold.add", "hold.remove"] {
        let records = lines(&good(dev.cli(&["audit", "query", "--event", event, "--json"])));
        assert_eq!((records.len(), &records[0]["record"]["principal"]), (1, &"admin".into()), "{event}");
    }

    // Stopped, everything is signed: each result has its proof, and a copy is as good.
    assert!(dev.terminate().1);
    let copy = dev.data.join("copy");
    good(Command::new("cp").arg("-r").arg(dev.data.join("audit")).arg(&copy).output().unwrap());
    let copy = copy.to_str().unwrap();
    for dir in [dev.data.join("audit").to_str().unwrap(), copy] {
        let proven = lines(&good(dev.cli(&["audit", "query", "--dir", dir, "--call", &id, "--with-proofs"])));
        for result in &proven {
            assert!(result["inclusion"]["checkpoint"].as_str().unwrap().starts_with("dev/acme\n"), "{result}");
            assert!(!result["inclusion"]["path"].as_array().unwrap().is_empty());
        }
        assert_eq!(proven.len(), 2);
    }
    good(dev.cli(&["audit", "index", copy]));
    good(dev.cli(&["audit", "index", copy, "--check"]));

    let all = lines(&good(dev.cli(&["audit", "query", "--dir", copy, "--limit", "100000", "--json"]))).len();
    for format in ["jsonl", "ocsf", "parquet"] {
        let path = dev.data.join(format);
        good(dev.cli(&["audit", "export", "--dir", copy, "--format", format, "-o", path.to_str().unwrap()]));
        let bytes = std::fs::read(&path).unwrap();
        match format {
            "parquet" => {
                let read = Command::new(root().join("tests/parquet/read.sh")).arg(&path).output().unwrap();
                assert_eq!(String::from_utf8_lossy(&read.stdout).trim(), all.to_string(), "{}", text(&read));
            }
            _ => assert_eq!(bytes.iter().filter(|b| **b == b'\n').count(), all, "{format}"),
        }
    }
    let mut query = Command::new(binary("provost"));
    query.args(["audit", "query", "--json", "--dir", copy]).stdout(Stdio::piped());
    let mut left = query.spawn().unwrap();
    drop(left.stdout.take());
    assert!(left.wait().unwrap().success(), "a reader that leaves early is no failure");
    let nowhere = dev.cli(&["audit", "export", "--dir", copy, "--format", "ocsf", "-o", "/nowhere/x"]);
    assert!(text(&nowhere).contains("PV-AUDIT-EXPORT"), "{}", text(&nowhere));
}
