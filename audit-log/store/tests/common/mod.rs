//! A machine with a key and a writer, driven entry by entry, without a Raft group.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

pub mod matrix;

use std::{collections::BTreeMap, fs, path::Path, process::Command as Process};

use bytes::Bytes;
use provost_audit_core::{Checkpoint, Hash, LogId, NoteSigner, Place, VerifierKey, encode_record, leaf_hash};
use provost_audit_store::{Append, AppendRecord, AuditMachine, CheckpointKey, Command, Head, Reply, Rotated};
use provost_audit_verify::{Report, VerifyOptions, verify};
use provost_types::{
    AuditEvent, Body, CallId, CallStatus, Effect, Impact, KeptBody, KeyId, Name, Phase, Revision, What, Who, Why,
};

pub const START_NS: u64 = 1_763_000_000_000_000_000;

pub fn tenant(name: &str) -> LogId {
    LogId(Some(Name::new(name).unwrap()))
}

pub fn event(log: &LogId, phase: Phase, call: u128, time_ns: u64) -> AuditEvent {
    AuditEvent {
        phase,
        call_id: CallId(call),
        tenant: log.0.clone(),
        time_ns,
        who: Who {
            principal: if call.is_multiple_of(2) { "ana".to_owned() } else { "sue".to_owned() },
            agent: Some("desk \"x\" 1.0".to_owned()),
            client_address: Some("10.0.0.7:5123".to_owned()),
            authenticated_by: "api_key:k1".to_owned(),
        },
        what: What {
            method: "tools/call".to_owned(),
            target: Some("sql.query".to_owned()),
            plugin: Some("sql".to_owned()),
            request_id: Some(call.to_string()),
            transport: "http".to_owned(),
            ..What::default()
        },
        why: Why { attempt: 1, ..Why::default() },
        decision: Some(Effect::Allow),
        policies: vec!["analysts/read".to_owned()],
        revision: Revision(7),
        status: (phase == Phase::Outcome).then_some(CallStatus::Ok),
        error: None,
        reason: None,
        guards: Vec::new(),
        body: Some(Body {
            commit: Hash::of(&call.to_le_bytes()).0,
            key: KeyId([7; 16]),
            len: 16,
            redaction: None,
            kept: KeptBody::CommitmentOnly,
        }),
        impact: Impact { bytes_out: 120, duration_us: 900, ..Impact::default() },
    }
}

/// A writer: numbers and links records as a node does.
pub struct Writer {
    pub name: String,
    pub epoch: u64,
    pub batch: u64,
    pub chains: BTreeMap<LogId, (u64, Hash)>,
}

impl Writer {
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), epoch: 1, batch: 0, chains: BTreeMap::new() }
    }

    pub fn entry(&mut self, events: &[AuditEvent]) -> Bytes {
        let records = events.iter().map(|event| self.record(event)).collect();
        let (writer, epoch, batch) = (self.name.clone(), self.epoch, self.batch);
        self.batch += 1;
        Bytes::from(Command::Append(Append { writer, epoch, batch, records }).encode())
    }

    fn record(&mut self, event: &AuditEvent) -> AppendRecord {
        let log = LogId(event.tenant.clone());
        let (seq, prev) = self.chains.entry(log.clone()).or_insert((0, Hash::ZERO));
        *seq += 1;
        let place = Place { writer_id: &self.name, epoch: self.epoch, seq: *seq, prev: *prev };
        let leaf = encode_record(event, &place).unwrap();
        *prev = leaf_hash(&leaf);
        let body = match event.body.as_ref().map(|body| &body.kept) {
            Some(KeptBody::Sealed(sealed)) => Some(sealed.bytes.clone()),
            _ => None,
        };
        AppendRecord { log, leaf: Bytes::from(leaf), body }
    }
}

pub struct Lab {
    pub machine: AuditMachine,
    pub key: CheckpointKey,
    pub writer: Writer,
    pub entries: Vec<Bytes>,
    pub calls: u128,
}

impl Lab {
    pub fn open(dir: &Path) -> Self {
        let key = CheckpointKey::open(&dir.join("keys/audit-checkpoint.key")).unwrap();
        let machine = open_machine(dir, &key);
        Self { machine, key, writer: Writer::new("node-1"), entries: Vec::new(), calls: 0 }
    }

    pub fn apply(&mut self, entry: Bytes) -> Reply {
        let index = self.entries.len() as u64;
        let reply = self.machine.apply(index, &entry).unwrap();
        self.entries.push(entry);
        Reply::decode(&reply).unwrap()
    }

    /// `calls` whole calls (intent and outcome) in one log, in batches of at most 200 records.
    pub fn calls(&mut self, log: &LogId, calls: u64) {
        let mut left = calls;
        while left > 0 {
            let now = left.min(100);
            left -= now;
            let mut events = Vec::new();
            for _ in 0..now {
                self.calls += 1;
                let time = START_NS + self.calls as u64 * 1_000_000;
                events.push(event(log, Phase::Intent, self.calls, time));
                events.push(event(log, Phase::Outcome, self.calls, time + 500));
            }
            let entry = self.writer.entry(&events);
            assert!(matches!(self.apply(entry), Reply::Appended(_)));
        }
    }

    pub fn checkpoint(&mut self) {
        let Reply::Sealed(heads) = self.apply(Bytes::from(Command::Seal.encode())) else {
            panic!("not sealed");
        };
        let time_ns = START_NS + self.calls as u64 * 1_000_000;
        let notes: Vec<String> = heads
            .into_iter()
            .map(|h| {
                let origin = h.log.origin("provost");
                let checkpoint = Checkpoint { origin, size: h.size, root: h.root, chain: h.chain, time_ns };
                checkpoint.sign(&self.key)
            })
            .collect();
        let count = notes.len() as u32;
        let taken = self.apply(Bytes::from(Command::Signed(notes).encode()));
        assert_eq!(taken, Reply::Taken(count));
    }
}

impl Lab {
    /// Another key signs from now on.
    pub fn rotate(&mut self, next: CheckpointKey) {
        let Reply::Sealed(heads) = self.apply(Bytes::from(Command::SealAll.encode())) else {
            panic!("not sealed");
        };
        let note = |head: &Head| {
            let origin = head.log.origin("provost");
            let (size, root, chain) = (head.size, head.root, head.chain);
            let text = Checkpoint { origin: origin.clone(), size, root, chain, time_ns: START_NS }.to_text();
            let lines = [&self.key, &next].map(|key| VerifierKey::signature_line(&origin, &text, key));
            format!("{text}\n{}", lines.concat())
        };
        let notes: Vec<String> = heads.iter().map(note).collect();
        let (follows, public_key, count) = (self.key.public_key(), next.public_key(), notes.len() as u32);
        let rotated = Command::Rotated(Rotated { record: 1, follows, public_key, notes });
        assert_eq!(self.apply(Bytes::from(rotated.encode())), Reply::Taken(count));
        self.key = next;
    }
}

pub fn open_machine(dir: &Path, key: &CheckpointKey) -> AuditMachine {
    AuditMachine::open(&dir.join("audit"), "provost", key.public_key()).unwrap()
}

pub fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Where a verification first fails: index, file below the directory, offset.
pub type Spot = (u64, String, u64);

/// Verifies with the product and with the independent verifier; both must give one exit code and
/// one place.
pub fn verify_both(dir: &Path, against: Option<&Path>) -> Report {
    let options = VerifyOptions { against: against.map(Path::to_owned), ..Default::default() };
    let report = verify(dir, &options).unwrap();
    let (code, place, output) = python(dir, against);
    assert_eq!(code, i32::from(report.exit_code()), "the verifiers disagree\n{report}\npython: {output}");
    assert_eq!(place, place_of(&report, dir), "the verifiers disagree on the place\n{report}\npython: {output}");
    report
}

/// The place of the first failure that gives the report its exit code.
pub fn place_of(report: &Report, dir: &Path) -> Option<Spot> {
    let failed = report.logs.iter().find(|log| log.exit() == report.exit);
    if let Some(log) = failed {
        let failure = log.failure.as_ref().map(|f| (f.index, relative(&f.file, dir), f.offset));
        let violation = || log.violations.first().map(|v| (v.index, relative(&v.file, dir), v.offset));
        return failure.or_else(violation);
    }
    let missing = report.missing_logs.first()?;
    let folder = provost_audit_core::LogId::from_origin(missing)?.folder();
    Some((0, folder.display().to_string(), 0))
}

fn relative(file: &Path, dir: &Path) -> String {
    let below = file.strip_prefix(dir).ok();
    // What is not below the directory is the anchor.
    below.map_or_else(|| "anchor".to_owned(), |path| path.display().to_string())
}

fn python(dir: &Path, against: Option<&Path>) -> (i32, Option<Spot>, String) {
    let script = Path::new(&std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("../../tests/audit_verify.py");
    let mut python = Process::new("python3");
    python.arg(script).arg(dir);
    if let Some(anchor) = against {
        python.arg("--against").arg(anchor);
    }
    let output = python.output().expect("python3 runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}{errors}"));
    let logs = json["logs"].as_array().unwrap();
    let place = logs.iter().find(|log| log["exit"] == json["exit"] && !log["file"].is_null()).map(|log| {
        let file = Path::new(log["file"].as_str().unwrap());
        (log["index"].as_u64().unwrap(), relative(file, dir), log["offset"].as_u64().unwrap())
    });
    (output.status.code().unwrap(), place, text + &errors)
}
