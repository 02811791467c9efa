//! After an erasure nobody can read: tried with everything that is on a node's disk.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    collections::{BTreeSet, HashSet},
    fs,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use provost_audit_core::{LogId, Place as RecordPlace, encode_record, leaf_hash};
use provost_sealed::{BodyKey, Keep, Place, keep};
use provost_types::{
    AuditEvent, AuditSink, CallId, Impact, KeptBody, KeyId, Month, Name, Phase, Pseudonym, Revision, SubjectKey, What,
    Who, Why,
};

use crate::{
    Append, AppendRecord, AuditLog, AuditLogConfig, AuditMachine, BodyState, Command, EraseError, EraseOrder,
    KeyCommand, KeyReply, Query, Reply, SubjectPaths, adopt_keys,
    entry::KEYS_KIND,
    query,
    subject_entry::Erasure,
    subject_keys::propose,
    subject_secret::{KEY_BYTES, Secret},
    subject_state::{Found, Lookup},
};

const NOVEMBER: u64 = 1_795_000_000_000_000_000;
const CANARY: &str = "canary-4111-1111-1111-1111";

fn acme() -> LogId {
    LogId(Name::new("acme").ok())
}

fn month() -> Month {
    Month::of_ns(NOVEMBER)
}

fn event(subject: &str, call: u128, key: &SubjectKey, body: &[u8]) -> AuditEvent {
    let place = Place { tenant: "acme", subject, month: month(), call_id: CallId(call), phase: Phase::Denied };
    AuditEvent {
        phase: Phase::Denied,
        call_id: CallId(call),
        tenant: acme().0,
        time_ns: NOVEMBER,
        who: Who { principal: subject.to_owned(), ..Who::default() },
        what: What { method: "tools/call".to_owned(), ..What::default() },
        why: Why::default(),
        decision: None,
        policies: Vec::new(),
        revision: Revision(1),
        status: None,
        error: None,
        reason: None,
        body: Some(keep(key, &place, body, None, Keep::Sealed).unwrap()),
        impact: Impact::default(),
    }
}

/// A replica without Raft: the entries stand in a file, which is its Raft log.
struct Replica {
    dir: PathBuf,
    machine: Option<AuditMachine>,
    entries: Vec<Bytes>,
}

impl Replica {
    fn open(dir: &Path, entries: &[Bytes]) -> Self {
        let machine = AuditMachine::open(&dir.join("audit"), "provost", [7; 32]).unwrap();
        let mut replica = Self { dir: dir.to_owned(), machine: Some(machine), entries: entries.to_vec() };
        let applied = replica.machine().last_applied().map_or(0, |i| i as usize + 1);
        for (index, entry) in entries.iter().enumerate().skip(applied) {
            replica.machine().apply(index as u64, entry).unwrap();
        }
        replica
    }

    fn machine(&mut self) -> &mut AuditMachine {
        self.machine.as_mut().unwrap()
    }

    fn apply(&mut self, command: &Command) -> Reply {
        let entry = Bytes::from(command.encode());
        let index = self.entries.len() as u64;
        self.entries.push(entry.clone());
        // The Raft log is durable before an entry is applied.
        let mut raft = Vec::new();
        for entry in &self.entries {
            raft.extend_from_slice(&(entry.len() as u32).to_le_bytes());
            raft.extend_from_slice(entry);
        }
        fs::write(self.dir.join("raft"), raft).unwrap();
        Reply::decode(&self.machine().apply(index, &entry).unwrap()).unwrap()
    }

    fn keys(&mut self, command: KeyCommand) -> KeyReply {
        match self.apply(&Command::Keys(command)) {
            Reply::Keys(reply) => reply,
            other => panic!("{other:?}"),
        }
    }

    fn key(&mut self, subject: &str) -> SubjectKey {
        self.machine().keys.begin().unwrap();
        loop {
            let command = match self.machine().keys.state.find(&acme(), subject, month()) {
                Found::Key(key) => return key,
                Found::NotHere => panic!("not here"),
                Found::Absent(None) => self.machine().keys.state.propose_pseudonyms(&acme()),
                Found::Absent(Some(slot)) => self.machine().keys.state.propose_key(slot, subject),
            };
            self.keys(command.unwrap());
        }
    }

    fn record(&mut self, event: &AuditEvent, seq: u64, prev: provost_audit_core::Hash) -> provost_audit_core::Hash {
        let place = RecordPlace { writer_id: "n", epoch: 1, seq, prev };
        let leaf = Bytes::from(encode_record(event, &place).unwrap());
        let KeptBody::Sealed(sealed) = &event.body.as_ref().unwrap().kept else { panic!("not kept") };
        let hash = leaf_hash(&leaf);
        let records = vec![AppendRecord { log: acme(), leaf, body: Some(sealed.bytes.clone()) }];
        let append = Append { writer: "n".to_owned(), epoch: 1, batch: seq - 1, records };
        assert!(matches!(self.apply(&Command::Append(append)), Reply::Appended(_)));
        hash
    }

    fn erase(&mut self, id: u128, subject: &str) -> Vec<KeyId> {
        let subject = self.machine().keys.state.pseudonym(&acme(), subject).unwrap();
        match self.keys(KeyCommand::Erase(erasure(id, subject))) {
            KeyReply::Erased(keys) => keys,
            other => panic!("{other:?}"),
        }
    }

    /// Everything durable, and the process gone.
    fn stop(mut self) -> Vec<Bytes> {
        self.machine().persist().unwrap();
        self.machine = None;
        self.entries
    }
}

fn erasure(id: u128, subject: Pseudonym) -> Erasure {
    let by = ("admin".to_owned(), "admin_token".to_owned(), None);
    Erasure { id, log: acme(), subject, before: None, reason: "asked to".to_owned(), by, time_ns: NOVEMBER }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

/// What somebody can do who has every byte of a node's disk, knows the formats, and knows of the
/// body everything but what it says: each run of 32 bytes is tried as each kind of key, and what
/// opens with one is searched as well.
fn try_to_read(dir: &Path, sealed: &[u8], commit: &[u8; 32], call: u128, subject: &str) -> Option<Vec<u8>> {
    let place = Place { tenant: "acme", subject, month: month(), call_id: CallId(call), phase: Phase::Denied };
    let contents: Vec<Vec<u8>> = files(dir).iter().map(|path| fs::read(path).unwrap()).collect();
    let store = fs::read(SubjectPaths::below(dir).keys).unwrap();
    let entries = wrapped(&fs::read(dir.join("raft")).unwrap());
    let mut tried: HashSet<[u8; KEY_BYTES]> = HashSet::new();
    let mut open: Vec<Vec<u8>> = contents;
    while let Some(bytes) = open.pop() {
        for window in bytes.windows(KEY_BYTES) {
            let candidate: [u8; KEY_BYTES] = window.try_into().unwrap();
            // Keys are random: runs of few different bytes are none.
            if window.iter().collect::<BTreeSet<_>>().len() < 12 || !tried.insert(candidate) {
                continue;
            }
            let own = BodyKey::new(&SubjectKey::new(KeyId([0; 16]), Pseudonym([0; 16]), candidate), &place);
            if let Ok(body) = own.open(sealed, commit) {
                return Some(body.to_vec());
            }
            let mut key = Secret::from_slice(&candidate).unwrap();
            if let Some(plain) = key.open(b"PVKEYS\0\x01", &store[8..]) {
                open.push(plain.to_vec());
            }
            // As a log key, and as what follows from it.
            for _ in 0..3 {
                let found = entries.iter().filter_map(|(context, wrapped)| key.open(context, wrapped));
                open.extend(found.map(|plain| plain.to_vec()));
                key = key.derive(b"provost audit next log key 1\n");
            }
        }
    }
    None
}

/// Contexts and wrapped keys of a Raft log.
fn wrapped(raft: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some(len) = raft.get(at..at + 4) {
        let len = u32::from_le_bytes(len.try_into().unwrap()) as usize;
        let entry = &raft[at + 4..at + 4 + len];
        at += 4 + len;
        if entry[1] == KEYS_KIND
            && let Ok(Command::Keys(KeyCommand::Make { slot, id, generation, wrapped })) =
                Command::decode(&Bytes::copy_from_slice(entry))
        {
            found.push((crate::subject_state::slot_context(&slot, id, generation), wrapped));
        }
    }
    found
}

fn sealed_of(event: &AuditEvent) -> (Vec<u8>, [u8; 32]) {
    let body = event.body.as_ref().unwrap();
    let KeptBody::Sealed(sealed) = &body.kept else { panic!("not kept") };
    (sealed.bytes.to_vec(), body.commit)
}

#[test]
fn nothing_on_any_replicas_disk_opens_what_was_erased() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut one = Replica::open(first.path(), &[]);
    one.machine().keys.begin().unwrap();
    let exported = one.machine().keys.plain().unwrap();
    adopt_keys(SubjectPaths::below(second.path()), &exported).unwrap();
    assert!(adopt_keys(SubjectPaths::below(second.path()), &exported).is_err(), "keys are never replaced");

    let (ana, sue) = (one.key("ana"), one.key("sue"));
    assert_ne!(ana.id, sue.id);
    let of_ana = event("ana", 1, &ana, CANARY.as_bytes());
    let of_sue = event("sue", 2, &sue, b"sue's own");
    let hash = one.record(&of_ana, 1, provost_audit_core::Hash::ZERO);
    one.record(&of_sue, 2, hash);
    let entries = one.stop();
    let (sealed, commit) = sealed_of(&of_ana);
    let mut two = Replica::open(second.path(), &[]);
    for entry in &entries {
        two.apply(&Command::decode(entry).unwrap());
    }
    two.stop();
    for dir in [first.path(), second.path()] {
        let read = try_to_read(dir, &sealed, &commit, 1, "ana");
        assert_eq!(read.as_deref(), Some(CANARY.as_bytes()), "before the erasure the disk opens it");
    }

    for dir in [first.path(), second.path()] {
        let mut replica = Replica::open(dir, &entries);
        let gone = replica.erase(77, "ana");
        assert_eq!(gone, [ana.id]);
        assert!(matches!(replica.machine().keys.state.lookup(ana.id), Lookup::Erased(NOVEMBER)));
        assert!(matches!(replica.machine().keys.state.lookup(sue.id), Lookup::Here(_, name) if name == "sue"));
        assert_eq!(replica.erase(77, "ana"), gone, "an order that is repeated is answered again");
        assert_eq!(replica.erase(78, "ana"), [], "and there is nothing more to erase");
        // Durable already: the process dies without another persist.
        drop(replica.machine.take());
        assert_eq!(try_to_read(dir, &sealed, &commit, 1, "ana"), None, "something on disk opens it");
        let names = crate::stored_identities(SubjectPaths::below(dir)).unwrap();
        let names: Vec<&str> = names.iter().map(|known| known.name.as_str()).collect();
        assert_eq!(names, ["sue"], "nor is it known any more whose pseudonym it was");
        let (sealed, commit) = sealed_of(&of_sue);
        let read = try_to_read(dir, &sealed, &commit, 2, "sue");
        assert_eq!(read.as_deref(), Some(b"sue's own".as_slice()), "what was not erased stays");
    }
}

#[test]
fn an_erasure_that_a_crash_interrupts_is_carried_out_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::open(dir.path(), &[]);
    let ana = replica.key("ana");
    let subject = replica.machine().keys.state.pseudonym(&acme(), "ana").unwrap();
    let mut entries = replica.stop();
    // The order is durable in the Raft log, and the process died before it was applied.
    entries.push(Bytes::from(Command::Keys(KeyCommand::Erase(erasure(5, subject))).encode()));
    for start in 0..3 {
        let mut replica = Replica::open(dir.path(), &entries);
        let state = &replica.machine().keys.state;
        assert!(matches!(state.lookup(ana.id), Lookup::Erased(_)), "start {start}");
        assert_eq!((state.generation, state.pending.len()), (1, 1), "start {start}: once only, and to be recorded");
        // Dies again, with the machine's own state as it was before.
        drop(replica.machine.take());
    }
    // A new key for the same subject and month, under the new log key.
    let mut replica = Replica::open(dir.path(), &entries);
    let again = replica.key("ana");
    assert_ne!(again.id, ana.id);
    // One that was wrapped before the erasure and comes after it is not taken.
    let Found::Absent(Some(slot)) = replica.machine().keys.state.find(&acme(), "sue", month()) else { panic!() };
    let stale = KeyCommand::Make { slot, id: KeyId([1; 16]), generation: 0, wrapped: vec![0; 80] };
    assert_eq!(replica.keys(stale), KeyReply::Stale { generation: 1 });
}

#[test]
fn a_log_without_its_keys_and_one_with_older_keys_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::open(dir.path(), &[]);
    replica.key("ana");
    let entries = replica.stop();
    let paths = SubjectPaths::below(dir.path());
    let older = (fs::read(&paths.keys).unwrap(), fs::read(&paths.kek).unwrap());
    let mut replica = Replica::open(dir.path(), &entries);
    replica.erase(9, "ana");
    replica.stop();
    let refused = || AuditMachine::open(&dir.path().join("audit"), "provost", [7; 32]).err().map(|e| e.code());
    let newer = (fs::read(&paths.keys).unwrap(), fs::read(&paths.kek).unwrap());
    fs::write(&paths.keys, &older.0).unwrap();
    assert_eq!(refused(), Some("PV-AUDIT-KEYS"), "an older key file under the new key");
    fs::write(&paths.kek, &older.1).unwrap();
    assert_eq!(refused(), Some("PV-AUDIT-KEYS"), "both older: destroyed keys do not come back");
    fs::remove_file(&paths.keys).unwrap();
    assert_eq!(refused(), Some("PV-AUDIT-KEYS"), "none");
    fs::write(&paths.keys, &newer.0).unwrap();
    fs::write(&paths.kek, &newer.1).unwrap();
    assert_eq!(refused(), None);
}

async fn started(dir: &Path) -> AuditLog {
    crate::open(AuditLogConfig::new(dir, "n")).await.unwrap()
}

fn order(subject: &str, reason: &str) -> EraseOrder {
    let by = Who { principal: "admin".to_owned(), authenticated_by: "admin_token".to_owned(), ..Who::default() };
    let tenant = Name::new("acme").unwrap();
    EraseOrder { tenant, subject: subject.to_owned(), before: None, reason: reason.to_owned(), by }
}

fn erase_records(log: &AuditLog) -> Vec<Vec<String>> {
    let wanted = Query { log: Some(acme()), ..Query::default() };
    let found = query(log.dir(), wanted).unwrap().map(Result::unwrap);
    let erasures = found.filter(|f| f.record.event.as_deref() == Some("audit.erase"));
    erasures.map(|f| f.record.event_objects.iter().map(ToString::to_string).collect()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_open_until_they_are_erased_and_the_log_verifies_throughout() {
    let dir = tempfile::tempdir().unwrap();
    let log = started(dir.path()).await;
    let tenant = Name::new("acme").unwrap();
    let keys = log.subject_keys();
    let ana = keys.key(&tenant, "ana", month()).await.unwrap();
    let sue = keys.key(&tenant, "sue", month()).await.unwrap();
    assert_eq!(keys.key(&tenant, "ana", month()).await.unwrap().id, ana.id);
    assert_eq!(log.record(event("ana", 1, &ana, CANARY.as_bytes())).await.unwrap().index, 0);
    assert_eq!(log.record(event("sue", 2, &sue, b"{}")).await.unwrap().index, 1);
    let opened = |log: &AuditLog, index| log.node().open_body(&acme(), index).unwrap().body;
    let canary = BodyState::Opened(CANARY.as_bytes().to_vec().into());
    assert_eq!(opened(&log, 0), canary);
    log.close().await.unwrap();

    let log = started(dir.path()).await;
    assert_eq!(opened(&log, 0), canary, "after a restart");
    assert!(matches!(log.erase(order("ana", " ")).await, Err(EraseError::Reason)));
    log.node().add_hold_check(std::sync::Arc::new(|_, subject| (subject == "sue").then(|| "case 7".to_owned())));
    assert!(matches!(log.erase(order("sue", "asked to")).await, Err(EraseError::Held(_))));
    assert_eq!(log.erase(order("nobody", "asked to")).await.unwrap().keys, []);
    let generation = log.subject_keys().generation();
    let erased = log.erase(order("ana", "asked to")).await.unwrap();
    assert_eq!(erased.keys, [ana.id]);
    assert_eq!(log.subject_keys().generation(), generation + 1, "writers ask for their keys again");
    assert!(matches!(opened(&log, 0), BodyState::Erased(_)));
    assert!(matches!(opened(&log, 1), BodyState::Opened(_)));
    let names = [format!("subject:{}", erased.pseudonym.unwrap()), format!("key:{}", ana.id)];
    assert_eq!(erase_records(&log), [names.to_vec()]);
    log.close().await.unwrap();

    let report = provost_audit_verify::verify(&dir.path().join("audit"), &Default::default()).unwrap();
    assert_eq!(report.exit_code(), 2, "{report}");
    assert!(report.to_string().contains("2 sealed bodies, 1 of them erased"), "{report}");
    let mut all = Vec::new();
    for path in files(dir.path()) {
        let bytes = fs::read(&path).unwrap();
        for (what, needle) in [("the body", CANARY.as_bytes()), ("its key", ana.secret()), ("a key", sue.secret())] {
            if memchr::memmem::find(&bytes, needle).is_some() {
                all.push(format!("{what} stands in {}", path.display()));
            }
        }
    }
    assert_eq!(all, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_without_its_record_gets_it_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let log = started(dir.path()).await;
    let tenant = Name::new("acme").unwrap();
    log.subject_keys().key(&tenant, "ana", month()).await.unwrap();
    let inner = &log.node().inner.checkpointer;
    let subject = inner.machine.0.lock().keys.state.pseudonym(&acme(), "ana").unwrap();
    // The process dies between the order and its record.
    let reply = propose(&inner.group, KeyCommand::Erase(erasure(5, subject))).await.unwrap();
    assert!(matches!(reply, KeyReply::Erased(keys) if keys.len() == 1));
    assert!(query(log.dir(), Query { log: Some(acme()), ..Query::default() }).is_err(), "no record yet");
    log.close().await.unwrap();
    let log = started(dir.path()).await;
    assert_eq!(erase_records(&log).len(), 1);
    assert!(log.node().inner.checkpointer.machine.0.lock().keys.state.pending.is_empty());
    log.close().await.unwrap();
    let log = started(dir.path()).await;
    assert_eq!(erase_records(&log).len(), 1, "and not again");
    log.close().await.unwrap();
}

/// Bodies of a batch, cut off anywhere by a crash, are there again after the next start.
#[test]
fn torn_body_files_are_repaired() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::open(dir.path(), &[]);
    let ana = replica.key("ana");
    let mut prev = replica.record(&event("ana", 1, &ana, b"durable"), 1, provost_audit_core::Hash::ZERO);
    let entries = replica.stop();
    let mut replica = Replica::open(dir.path(), &entries);
    for n in 2..5 {
        prev = replica.record(&event("ana", u128::from(n), &ana, &[b'x'; 90]), n, prev);
    }
    let entries = replica.entries.clone();
    drop(replica.machine.take());
    let body = dir.path().join("audit/tenants/acme/segments/00000000000000000000.body");
    let whole = fs::read(&body).unwrap();
    let state = fs::read(dir.path().join("audit/state")).unwrap();
    let kept = 48 + 12 + b"durable".len() + provost_sealed::OVERHEAD;
    for len in kept..=whole.len() {
        fs::write(&body, &whole[..len]).unwrap();
        drop(Replica::open(dir.path(), &entries).machine.take());
        assert!(fs::read(&body).unwrap() == whole, "cut at {len}");
        fs::write(dir.path().join("audit/state"), &state).unwrap();
    }
    fs::write(&body, &whole[..kept - 1]).unwrap();
    let refused = AuditMachine::open(&dir.path().join("audit"), "provost", [7; 32]).err().map(|e| e.code());
    assert_eq!(refused, Some("PV-AUDIT-DIFFERS"), "what was durable is missing");
}

/// The principal in a name is not the principal in another tenant.
#[test]
fn pseudonyms_are_a_tenants_own() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::open(dir.path(), &[]);
    replica.key("ana");
    let other = LogId(Name::new("other").ok());
    let command = replica.machine().keys.state.propose_pseudonyms(&other).unwrap();
    assert_eq!(replica.keys(command), KeyReply::Done);
    let state = &replica.machine().keys.state;
    let of = |log: &LogId, who: &str| state.pseudonym(log, who).unwrap();
    assert_eq!(of(&acme(), "ana"), of(&acme(), "ana"));
    assert_ne!(of(&acme(), "ana"), of(&other, "ana"));
    assert_ne!(of(&acme(), "ana"), of(&acme(), "sue"));
}

/// In a group one node makes the log key, and the others take it from there: two would each open
/// half of what is wrapped.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_joins_takes_keys_from_another_and_makes_none() {
    let (first, joins) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let tenant = Name::new("acme").unwrap();
    let began = started(first.path()).await;
    let config = AuditLogConfig { begins_keys: false, ..AuditLogConfig::new(joins.path(), "m") };
    let log = crate::open(config.clone()).await.unwrap();
    let refused = log.subject_keys().key(&tenant, "ana", month()).await.unwrap_err();
    assert!(refused.0.contains("PV-AUDIT-KEYS"), "{refused}");
    let nothing = log.node().export_keys().unwrap();
    log.close().await.unwrap();
    assert!(adopt_keys(SubjectPaths::below(joins.path()), &nothing).is_err(), "no keys are no keys to adopt");
    adopt_keys(SubjectPaths::below(joins.path()), &began.node().export_keys().unwrap()).unwrap();
    let log = crate::open(config).await.unwrap();
    assert!(log.subject_keys().key(&tenant, "ana", month()).await.is_ok());
    log.close().await.unwrap();
    began.close().await.unwrap();
}
