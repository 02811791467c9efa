//! An auditor with a witness of its own: what it proves, what it refuses, and what survives.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    files::copy,
    harness::{Dev, START_LIMIT, binary, text},
};

/// Patience with what takes a few seconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a node waits for a witness.
const WITNESS_LIMIT: Duration = Duration::from_secs(5);

struct Witness {
    child: Child,
    key: String,
    url: String,
}

impl Witness {
    fn key(state: &Path, name: &str) -> String {
        let made = provost(&["audit", "witness", "key", "--name", name, "--state", state.to_str().unwrap()]);
        assert!(made.status.success(), "{}", text(&made));
        String::from_utf8(made.stdout).unwrap().trim().to_owned()
    }

    fn command(state: &Path, policy: &Path) -> Command {
        let mut command = Command::new(binary("provost"));
        command.args(["audit", "witness", "serve", "--listen", "127.0.0.1:0", "--state"]).arg(state);
        command.arg("--policy").arg(policy).stdin(Stdio::null());
        command
    }

    fn start(state: &Path, policy: &Path) -> Self {
        let mut child = Self::command(state, policy).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut line = || lines.next().expect("the witness starts").unwrap();
        let (key, url) = (line(), line());
        Self { child, key, url }
    }

    /// Status, content type and body of the answer.
    fn post(&self, body: String) -> (u16, String, String) {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client = reqwest::Client::builder().no_proxy().build().unwrap();
            let url = format!("{}/add-checkpoint", self.url);
            let answer = client.post(url).body(body).timeout(START_LIMIT).send().await.unwrap();
            let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
            (answer.status().as_u16(), kind, answer.text().await.unwrap())
        })
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn provost(args: &[&str]) -> Output {
    Command::new(binary("provost")).args(args).stdin(Stdio::null()).output().unwrap()
}

/// Starts a node once, so that it has a log and a key; gives the log's vkey.
fn first_start(data: &Path) -> String {
    let mut dev = Dev::start_in(data, None, &[]);
    assert!(dev.cli(&["call", "echo.echo", "--arg", "text=x"]).status.code().is_some());
    assert!(dev.terminate().1, "{}", dev.stderr());
    fs::read_to_string(data.join("audit/cluster/audit.pub")).unwrap().trim().to_owned()
}

/// The verifier's exit code and what it said.
fn verify(dir: &Path, policy: &Path, more: &[&str]) -> (i32, String) {
    let mut args = vec!["audit", "verify", dir.to_str().unwrap(), "--witness-policy", policy.to_str().unwrap()];
    args.extend(more);
    let output = provost(&args);
    (output.status.code().unwrap(), text(&output))
}

#[test]
fn what_a_witness_cosigned_is_proven_and_what_contradicts_it_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let (data, at) = (dir.path().join("data"), |name: &str| dir.path().join(name));
    let log_key = first_start(&data);
    copy(&data.join("audit"), &at("old"));

    let w1 = Witness::key(&at("w1"), "witness.example/w1");
    let w2 = Witness::key(&at("w2"), "witness.example/w2");
    let write = |name: &str, rule: &str| {
        let text = format!("log {log_key}\nwitness w1 {w1}\nwitness w2 {w2}\n{rule}\n");
        fs::write(at(name), text).unwrap();
        at(name)
    };
    let one = write("one", "quorum w1");
    let both = write("both", "group all-of-them all w1 w2\nquorum all-of-them");
    let witness = Witness::start(&at("w1"), &one);
    assert_eq!(witness.key, w1);
    // The second one takes connections and never says a word.
    let hung = TcpListener::bind("127.0.0.1:0").unwrap();
    let addresses = format!("{w1} {}, {w2} http://{}", witness.url, hung.local_addr().unwrap());

    let mut dev = Dev::start_env(&data, None, &[], &[("PROVOST_AUDIT_WITNESSES", &addresses)]);
    let audit = data.join("audit");
    let (mut receipt, mut took) = (None, Vec::new());
    for _ in 0..5 {
        let began = Instant::now();
        let call = dev.cli(&["call", "sql.query", "--show-meta", "--arg", "sql=SELECT count(*) AS n FROM customers"]);
        assert!(call.status.success(), "{}", text(&call));
        took.push(began.elapsed());
        receipt = Some(call.stdout);
    }
    took.sort();
    // Most of them: a busy machine may hold up some.
    assert!(took[took.len() / 2] < WITNESS_LIMIT, "a hung witness slows calls: {took:?}");
    crate::matrix::row("hung witness", "calls go on; the other witness cosigns", "0", "-");
    fs::write(at("receipt"), receipt.unwrap()).unwrap();
    let began = Instant::now();
    let report = loop {
        let (code, said) = verify(&audit, &one, &["--receipt", at("receipt").to_str().unwrap()]);
        let cosigned = fs::read_to_string(audit.join("cluster/checkpoint.cosigned")).unwrap_or_default();
        if code == 0 && cosigned.contains("\u{2014} witness.example/w1 ") {
            break said;
        }
        assert!(began.elapsed() < PATIENCE, "exit code {code}\n{said}\n{}", dev.stderr());
        std::thread::sleep(Duration::from_millis(300));
    };
    assert!(report.contains("PROVEN") && report.contains("the cluster's log notes"), "{report}");
    assert!(report.contains("the record is there"), "{report}");
    assert!(dev.terminate().1, "{}", dev.stderr());
    let tenant = fs::read_dir(audit.join("tenants")).unwrap().next().unwrap().unwrap().file_name();

    // The same files in other hands.
    let attack = |name: &str, change: &dyn Fn(&Path)| -> PathBuf {
        let copied = at(name);
        copy(&audit, &copied);
        change(&copied);
        copied
    };
    let (code, said) = verify(&audit, &both, &[]);
    assert_eq!(code, 2, "one of two is too few: {said}");
    assert!(said.contains("by fewer witnesses than the policy asks for (w1)"), "{said}");

    let cosigned = |dir: &Path| dir.join("cluster/checkpoint.cosigned");
    let note = fs::read_to_string(cosigned(&audit)).unwrap();
    let line = note.lines().find(|line| line.contains("witness.example/w1")).unwrap().to_owned();
    let twice = attack("twice", &|dir| fs::write(cosigned(dir), format!("{note}{line}\n")).unwrap());
    assert_eq!(verify(&twice, &one, &[]).0, 0);
    assert_eq!(verify(&twice, &both, &[]).0, 2, "a witness that spoke twice is one witness");

    let stripped = attack("stripped", &|dir| fs::write(cosigned(dir), note.replace(&format!("{line}\n"), "")).unwrap());
    let (code, said) = verify(&stripped, &one, &[]);
    assert_eq!(code, 2, "{said}");

    let forged = attack("forged", &|dir| {
        let (head, tail) = line.split_at(line.len() - 10);
        let other = if tail.starts_with('A') { "B" } else { "A" };
        fs::write(cosigned(dir), note.replace(&line, &format!("{head}{other}{}", &tail[1..]))).unwrap();
    });
    let (code, said) = verify(&forged, &one, &[]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("a cosignature is forged") && said.contains("checkpoint.cosigned"), "{said}");

    let deleted = attack("deleted", &|dir| fs::remove_dir_all(dir.join("tenants").join(&tenant)).unwrap());
    let (code, said) = verify(&deleted, &one, &[]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("it was deleted") && said.contains(tenant.to_str().unwrap()), "{said}");

    // The tenant's log as it was, under the cluster's log as it is.
    let rolled_back = attack("rolled-back", &|dir| {
        let folder = dir.join("tenants").join(&tenant);
        fs::remove_dir_all(&folder).unwrap();
        copy(&at("old/tenants").join(&tenant), &folder);
        fs::remove_file(dir.join("checkpoint")).unwrap();
    });
    let (code, said) = verify(&rolled_back, &one, &[]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("the end was cut off, or storage was rolled back"), "{said}");

    // All of storage as it was: what the witness keeps shows it.
    let kept = fs::read_dir(at("w1/logs")).unwrap().next().unwrap().unwrap().path();
    let (code, said) = verify(&at("old"), &one, &["--against", kept.to_str().unwrap()]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("the anchor covers"), "{said}");

    // A caller's receipt against logs that lack the record.
    let mut value: Value = serde_json::from_slice(&fs::read(at("receipt")).unwrap()).unwrap();
    let held = value["_meta"]["io.provost/audit"].take();
    for (name, index, hash) in [
        ("other", held["index"].clone(), "ab".repeat(32)),
        ("beyond", Value::from(1_000_000), held["leafHash"].as_str().unwrap().to_owned()),
    ] {
        let wrong = serde_json::json!({ "log": held["log"], "index": index, "leafHash": hash });
        fs::write(at(name), wrong.to_string()).unwrap();
        let (code, said) = verify(&audit, &one, &["--receipt", at(name).to_str().unwrap()]);
        assert_eq!(code, 1, "{said}");
        assert!(said.contains("the promised one was"), "{said}");
    }
    crate::matrix::row(
        "caller's receipt absent",
        "the promised record is not there",
        "1",
        "the receipt's log and index",
    );

    // Proof files, checked with nothing but the log's key.
    let tenant_key = fs::read_to_string(audit.join("tenants").join(&tenant).join("audit.pub")).unwrap();
    let index = held["index"].to_string();
    let dir_args = ["--dir", audit.to_str().unwrap(), "--tenant", tenant.to_str().unwrap()];
    let proof = provost(&[&["audit", "prove", &index][..], &dir_args].concat());
    assert!(proof.status.success(), "{}", text(&proof));
    fs::write(at("proof"), &proof.stdout).unwrap();
    let check = |receipt: &str| {
        let (file, receipt) = (at("proof"), at(receipt));
        let args = ["audit", "check-proof", file.to_str().unwrap(), "--key", tenant_key.trim(), "--receipt"];
        provost(&[&args[..], &[receipt.to_str().unwrap()]].concat()).status.code()
    };
    assert_eq!((check("receipt"), check("other"), check("beyond")), (Some(0), Some(1), Some(1)));
}

#[test]
fn a_witness_refuses_as_the_specification_says_and_forgets_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (data, at) = (dir.path().join("data"), |name: &str| dir.path().join(name));
    let log_key = first_start(&data);
    first_start(&data);
    let notes: Vec<String> = {
        let text = fs::read_to_string(data.join("audit/cluster/checkpoints")).unwrap();
        // Text, blank line, signature, blank line.
        let parts: Vec<&str> = text.trim_end().split("\n\n").collect();
        parts.chunks(2).map(|note| format!("{}\n\n{}\n", note[0], note[1])).collect()
    };
    let size = |note: &str| note.lines().nth(1).unwrap().parse::<u64>().unwrap();
    let (first, last) = (&notes[0], notes.last().unwrap());
    assert!(size(first) < size(last), "two checkpoints of different sizes");
    let key = Witness::key(&at("w"), "witness.example/w");
    fs::write(at("policy"), format!("# one log\nlog {log_key}\nwitness w {key}\nquorum w\n")).unwrap();
    let mut witness = Witness::start(&at("w"), &at("policy"));
    let ask =
        |witness: &Witness, old: u64, proof: &str, note: &str| witness.post(format!("old {old}\n{proof}\n{note}"));

    assert_eq!(ask(&witness, 0, "", &first.replace("dev/_cluster", "dev/_other")).0, 404);
    assert_eq!(ask(&witness, 0, "", &first.replacen("\nchain ", "\nchain A", 1)).0, 403);
    assert_eq!(ask(&witness, size(first) + 1, "", first).0, 400);
    assert_eq!(witness.post("old 01\n\n".to_owned()).0, 400);
    assert_eq!(witness.post("x".repeat(100_000)).0, 400);
    assert_eq!(ask(&witness, 1, "", first).0, 409, "it has cosigned nothing yet");
    let (status, _, line) = ask(&witness, 0, "", first);
    assert!(status == 200 && line.starts_with("\u{2014} witness.example/w "), "{status} {line}");
    let conflict = (409, "text/x.tlog.size".to_owned(), format!("{}\n", size(first)));
    assert_eq!(ask(&witness, 0, "", last), conflict);

    let sizes = [size(first).to_string(), size(last).to_string()];
    let prove =
        ["audit", "prove", "--tenant", "cluster", "--dir", data.join("audit").to_str().unwrap(), "--consistency"]
            .map(str::to_owned);
    let args: Vec<&str> = prove.iter().chain(&sizes).map(String::as_str).collect();
    let proof = provost(&args);
    assert!(proof.status.success(), "{}", text(&proof));
    let proof = String::from_utf8(proof.stdout).unwrap();
    let lines: String = proof.split("\n\n").next().unwrap().lines().skip(3).map(|l| format!("{l}\n")).collect();
    assert_eq!(ask(&witness, size(first), "", last).0, 422, "no proof");
    let wrong = format!("{}\n", "A".repeat(43) + "=");
    assert_eq!(ask(&witness, size(first), &wrong, last).0, 422, "a wrong proof");
    assert_eq!(ask(&witness, size(first), &lines, last).0, 200);
    assert_eq!(ask(&witness, size(last), "", last).0, 200, "the same again is no contradiction");

    // Killed, it knows what it cosigned; without that it does not start at all.
    witness.child.kill().unwrap();
    witness.child.wait().unwrap();
    let witness = Witness::start(&at("w"), &at("policy"));
    assert_eq!(ask(&witness, size(first), &lines, last).2, format!("{}\n", size(last)));
    let second = Witness::command(&at("w"), &at("policy")).output().unwrap();
    assert!(!second.status.success(), "two processes on one state");
    drop(witness);
    fs::rename(at("w/logs"), at("w/gone")).unwrap();
    let forgetful = Witness::command(&at("w"), &at("policy")).output().unwrap();
    assert!(!forgetful.status.success() && text(&forgetful).contains("PV-WITNESS-STATE"), "{}", text(&forgetful));
}
