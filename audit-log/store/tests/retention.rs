//! Pruning: what remains is proven as before, the log says what went, and nothing goes that a hold,
//! a missing checkpoint or an open call speaks for. Both verifiers judge every case alike.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod common;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
    time::Duration,
};

use bytes::Bytes;
use common::{Lab, copy_dir, event, matrix, open_machine, tenant, verify_both};
use provost_audit_core::{
    Checkpoint, Hash, LogId, PRUNE_EVENT, PruneNote, PrunedSegment, SEGMENT_LEAVES, verify_inclusion,
};
use provost_audit_store::{
    AuditLogConfig, CheckpointKey, Command, HeldCheckpoint, HoldOrder, LeafSource, PruneOrder, Query, Reply,
    RetentionCommand, RetentionError, RetentionReply, SharedMachine, TakeLeaf, build_indexes, open, query, show,
};
use provost_audit_verify::{LeafHashes, LogLayout, LogReader, State};
use provost_control_raft::{AppliedState, Machine};
use provost_types::{AuditSink, Body, KeptBody, KeyId, Phase, SealedBytes, Subject, What, Who};

const FIRST: &str = "tenants/acme/segments/00000000000000000000";

struct Made {
    dir: tempfile::TempDir,
    /// The record of the prune.
    record: u64,
    /// Entries so far.
    entries: u64,
}

/// One full segment and 4,966 records; the last says that the segment is to go, and is signed.
static MADE: LazyLock<Made> = LazyLock::new(|| made(|_| {}));

/// Such a log; `first` writes to it before anything else does.
fn made(first: impl FnOnce(&mut Lab)) -> Made {
    let dir = tempfile::tempdir().unwrap();
    let mut lab = Lab::open(dir.path());
    let acme = tenant("acme");
    first(&mut lab);
    lab.calls(&acme, 35_250);
    lab.checkpoint();
    let audit = dir.path().join("audit");
    let hashes = LeafHashes::open(LogLayout::new(audit.join("tenants/acme"))).unwrap();
    let root = hashes.root(0..SEGMENT_LEAVES).unwrap();
    let segment = fs::read(audit.join(format!("{FIRST}.seg"))).unwrap();
    let chain = provost_audit_core::SegmentFooter::decode(&segment[segment.len() - 80..]).unwrap().chain_out;
    let note = PruneNote { to: SEGMENT_LEAVES, root, chain, policy: "keep 400d for *".to_owned() };
    let mut prune = event(&acme, Phase::Event, 900_000, common::START_NS + 1);
    let subject = Subject { event: PRUNE_EVENT.to_owned(), objects: note.objects(), detail: String::new() };
    prune.what = What { subject: Some(subject), ..What::default() };
    let entry = lab.writer.entry(&[prune]);
    let Reply::Appended(places) = lab.apply(entry) else { panic!("not appended") };
    lab.calls(&acme, 3);
    lab.checkpoint();
    lab.machine.persist().unwrap();
    let entries = lab.entries.len() as u64;
    drop(lab);
    build_indexes(&audit).unwrap();
    Made { dir, record: places[0].1, entries }
}

/// A copy of that log, with its key.
fn copy() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    copy_dir(MADE.dir.path(), dir.path());
    let audit = dir.path().join("audit");
    (dir, audit)
}

fn order() -> PruneOrder {
    let times = (common::START_NS, common::START_NS + 100_000_000_000);
    PruneOrder { log: tenant("acme"), to: SEGMENT_LEAVES, record: MADE.record, times }
}

fn ask(machine: &mut provost_audit_store::AuditMachine, index: u64, command: RetentionCommand) -> RetentionReply {
    let reply = machine.apply(index, &Command::Retention(command).encode().into()).unwrap();
    match Reply::decode(&reply).unwrap() {
        Reply::Retention(reply) => reply,
        other => panic!("{other:?}"),
    }
}

/// A copy whose first segment was pruned by the machine.
fn pruned() -> (tempfile::TempDir, PathBuf) {
    let (dir, audit) = copy();
    let key = CheckpointKey::open(&dir.path().join("keys/audit-checkpoint.key")).unwrap();
    let mut machine = open_machine(dir.path(), &key);
    assert_eq!(ask(&mut machine, MADE.entries, RetentionCommand::Prune(order())), RetentionReply::Done);
    drop(machine);
    (dir, audit)
}

fn there(audit: &Path, kind: &str) -> bool {
    audit.join(format!("{FIRST}.{kind}")).exists()
}

#[test]
fn what_remains_is_proven_and_the_log_says_what_went() {
    let (dir, audit) = pruned();
    assert!(there(&audit, "pruned"));
    assert!(!there(&audit, "seg") && !there(&audit, "leaf") && !there(&audit, "idx"));
    let anchor = MADE.dir.path().join("audit/checkpoint");
    let report = verify_both(&audit, Some(&anchor));
    assert_eq!(report.exit_code(), 0, "{report}");
    let acme = report.logs.iter().find(|log| log.origin == "provost/acme").unwrap();
    assert_eq!(acme.retention.state, State::Proven);
    assert!(acme.retention.text.contains("records 0 to 65536 were pruned (keep 400d for *)"), "{report}");

    // Proofs of what remains; queries; a plain word for what went.
    let acme = tenant("acme");
    for index in [SEGMENT_LEAVES, MADE.record] {
        let shown = show(&audit, &acme, index).unwrap();
        let checkpoint = Checkpoint::parse_unchecked(&shown.checkpoint.unwrap()).unwrap();
        let leaf = &shown.found.leaf_hash;
        assert_eq!(verify_inclusion(leaf, index, checkpoint.size, &shown.proof, &checkpoint.root), Ok(()));
    }
    let gone = show(&audit, &acme, 5).unwrap_err().to_string();
    assert!(gone.contains("PV-AUDIT-PRUNED") && gone.contains("65536"), "{gone}");
    let all = query(&audit, Query::default()).unwrap().map(Result::unwrap);
    assert_eq!(all.map(|found| found.index).next(), Some(SEGMENT_LEAVES));

    // The node goes on: opens, appends, and both verifiers agree still.
    let key = CheckpointKey::open(&dir.path().join("keys/audit-checkpoint.key")).unwrap();
    let mut machine = open_machine(dir.path(), &key);
    let hold = RetentionCommand::Release(acme, "none".to_owned());
    assert_eq!(ask(&mut machine, MADE.entries + 1, hold), RetentionReply::NoHold);
    drop(machine);
    assert_eq!(verify_both(&audit, Some(&anchor)).exit_code(), 0);
}

/// Another replica's records, by its directory.
struct DirSource(PathBuf);

impl DirSource {
    fn layout(&self, log: &LogId) -> LogLayout {
        LogLayout::new(self.0.join(log.folder()))
    }
}

impl LeafSource for DirSource {
    fn leaves(&self, log: &LogId, from: u64, to: u64, take: TakeLeaf<'_>) -> io::Result<()> {
        let mut reader = LogReader::from_segment(self.layout(log), from - from % SEGMENT_LEAVES);
        while let Some(chunk) = reader.next().map_err(io::Error::other)? {
            chunk.iter().filter(|(index, _)| (from..to).contains(index)).try_for_each(|(_, leaf)| take(leaf, None))?;
        }
        Ok(())
    }

    fn checkpoints(&self, log: &LogId) -> io::Result<Vec<u8>> {
        fs::read(self.layout(log).dir.join("checkpoints"))
    }

    fn keys(&self, _: Option<u64>) -> io::Result<zeroize::Zeroizing<Vec<u8>>> {
        Err(io::Error::other("nothing was sealed"))
    }

    fn pruned(&self, log: &LogId, to: u64) -> io::Result<Vec<u8>> {
        let firsts = self.layout(log).list_pruned()?.into_iter().filter(|first| *first < to);
        let parts: io::Result<Vec<Vec<u8>>> = firsts.map(|first| fs::read(self.layout(log).pruned(first))).collect();
        Ok(parts?.concat())
    }
}

fn shared(machine: provost_audit_store::AuditMachine) -> SharedMachine {
    SharedMachine(Arc::new(parking_lot::Mutex::new(machine)))
}

/// A new replica, and one that has a part of what was pruned, take a snapshot.
#[test]
fn a_replica_that_missed_a_prune_takes_what_stays() {
    let (dir, audit) = pruned();
    let key = CheckpointKey::open(&dir.path().join("keys/audit-checkpoint.key")).unwrap();
    let leads = shared(open_machine(dir.path(), &key));
    let mut manifest = Vec::new();
    leads.snapshot().unwrap()(&mut manifest).unwrap();
    let heads = leads.0.lock().heads();

    for has in [0, 40_000] {
        let new = tempfile::tempdir().unwrap();
        copy_dir(&dir.path().join("keys"), &new.path().join("keys"));
        if has > 0 {
            let mut lab = Lab::open(new.path());
            lab.calls(&tenant("acme"), has / 2);
            lab.machine.persist().unwrap();
        }
        // Meanwhile somebody spoils what is taken: nothing of it is used, and the next start goes on.
        let spoilt = tempfile::tempdir().unwrap();
        copy_dir(&audit, spoilt.path());
        let stub = spoilt.path().join(format!("{FIRST}.pruned"));
        let mut forged = PrunedSegment::decode(&fs::read(&stub).unwrap()).unwrap();
        forged.footer.root.0[3] ^= 1;
        fs::write(&stub, forged.encode()).unwrap();
        let source = DirSource(spoilt.path().to_owned());
        let mut replica = shared(open_machine(new.path(), &key).with_source(Arc::new(source)));
        let before = replica.0.lock().heads();
        let refused = replica.install(AppliedState::from_bytes(vec![7]), &mut manifest.as_slice()).unwrap_err();
        assert!(refused.to_string().contains("PV-AUDIT-BEHIND"), "{refused}");
        drop(replica);

        let source = DirSource(audit.clone());
        let mut replica = shared(open_machine(new.path(), &key).with_source(Arc::new(source)));
        assert_eq!(replica.0.lock().heads(), before, "the old state stands");
        replica.install(AppliedState::from_bytes(vec![7]), &mut manifest.as_slice()).unwrap();
        assert_eq!(replica.0.lock().heads(), heads);
        drop(replica);
        let own = new.path().join("audit");
        let same = |name: &str| assert_eq!(fs::read(own.join(name)).unwrap(), fs::read(audit.join(name)).unwrap());
        same(&format!("{FIRST}.pruned"));
        same("tenants/acme/checkpoint");
        assert!(!there(&own, "seg") && !there(&own, "leaf"), "with {has} records before");
        assert_eq!(verify_both(&own, Some(&audit.join("checkpoint"))).exit_code(), 0, "with {has} records before");
        assert_eq!(open_machine(new.path(), &key).heads(), heads, "a restart finds it durable");
    }
}

/// One record with a sealed body.
fn sealed(lab: &mut Lab, call: u128) {
    let body = Bytes::from(format!("sealed {call}"));
    let kept = KeptBody::Sealed(SealedBytes { sha256: Hash::of(&body).0, bytes: body });
    let mut denied = event(&tenant("acme"), Phase::Denied, call, common::START_NS);
    denied.body = Some(Body { commit: [1; 32], key: KeyId([2; 16]), len: 1, redaction: None, kept });
    let entry = lab.writer.entry(&[denied]);
    assert!(matches!(lab.apply(entry), Reply::Appended(_)));
}

/// The last body of a log is among what is pruned: the node starts again, and keeps later bodies.
#[test]
fn the_last_body_may_be_pruned() {
    let made = made(|lab| sealed(lab, 800_000));
    let (dir, audit) = (made.dir.path(), made.dir.path().join("audit"));
    let key = CheckpointKey::open(&dir.join("keys/audit-checkpoint.key")).unwrap();
    assert!(there(&audit, "body"));
    let mut machine = open_machine(dir, &key);
    let prune = PruneOrder { record: made.record, ..order() };
    assert_eq!(ask(&mut machine, made.entries, RetentionCommand::Prune(prune)), RetentionReply::Done);
    let heads = machine.heads();
    drop(machine);
    assert!(there(&audit, "pruned") && !there(&audit, "body"));
    for start in 0..2 {
        let machine = open_machine(dir, &key);
        assert_eq!(machine.heads(), heads, "start {start}");
    }
    assert_eq!(verify_both(&audit, None).exit_code(), 2);

    // The next body begins a file of the segment that is kept.
    let mut lab = Lab::open(dir);
    lab.entries = vec![Bytes::new(); made.entries as usize + 1];
    (lab.writer.name, lab.calls) = ("node-2".to_owned(), 1_000_000);
    sealed(&mut lab, 800_001);
    lab.machine.persist().unwrap();
    drop(lab);
    assert!(audit.join("tenants/acme/segments/00000000000000065536.body").exists());
    drop(open_machine(dir, &key));
    let report = verify_both(&audit, None);
    assert_eq!(report.exit_code(), 2, "{report}");
    fs::remove_file(audit.join("tenants/acme/segments/00000000000000065536.body")).unwrap();
    assert_eq!(verify_both(&audit, None).exit_code(), 4, "that body is one of the log's");
}

#[test]
fn a_hold_and_a_young_checkpoint_forbid_it() {
    let (dir, audit) = copy();
    let key = CheckpointKey::open(&dir.path().join("keys/audit-checkpoint.key")).unwrap();
    let mut machine = open_machine(dir.path(), &key);
    let hold = provost_audit_store::Hold {
        id: "case-7".to_owned(),
        log: tenant("acme"),
        principal: Some("ana".to_owned()),
        subject: None,
        since_ns: 0,
        until_ns: u64::MAX,
        reason: "case 7".to_owned(),
        by: "admin".to_owned(),
        time_ns: 1,
    };
    let mut at = MADE.entries;
    let mut say = |command| {
        at += 1;
        ask(&mut machine, at, command)
    };
    assert_eq!(say(RetentionCommand::Hold(hold.clone())), RetentionReply::Done);
    assert_eq!(say(RetentionCommand::Prune(order())), RetentionReply::Held(hold));
    let unsigned = PruneOrder { record: MADE.record + 1_000, ..order() };
    assert_eq!(say(RetentionCommand::Release(tenant("acme"), "case-7".to_owned())), RetentionReply::Done);
    assert!(matches!(say(RetentionCommand::Prune(unsigned)), RetentionReply::Refused(_)));
    assert!(there(&audit, "seg") && !there(&audit, "pruned"));
    assert_eq!(say(RetentionCommand::Prune(order())), RetentionReply::Done);
    drop(machine);
    assert!(there(&audit, "pruned") && !there(&audit, "seg"));
}

#[test]
fn a_crash_at_any_step_is_finished_by_the_next_start() {
    let (_after_dir, after) = pruned();
    let key_of = |dir: &Path| CheckpointKey::open(&dir.join("keys/audit-checkpoint.key")).unwrap();
    let stub = format!("{FIRST}.pruned");

    // What stays is written, the state is the old one: nothing is lost, the entry comes again.
    let (dir, audit) = copy();
    fs::copy(after.join(&stub), audit.join(&stub)).unwrap();
    let mut machine = open_machine(dir.path(), &key_of(dir.path()));
    assert!(there(&audit, "seg"));
    assert_eq!(ask(&mut machine, MADE.entries, RetentionCommand::Prune(order())), RetentionReply::Done);
    drop(machine);
    assert!(!there(&audit, "seg") && there(&audit, "pruned"));

    // The state says that it is gone; some, or all, of the files are still there.
    for removed in [&[][..], &["seg"], &["seg", "leaf"], &["leaf"]] {
        let (dir, audit) = copy();
        fs::copy(after.join("state"), audit.join("state")).unwrap();
        fs::copy(after.join(&stub), audit.join(&stub)).unwrap();
        for kind in removed {
            fs::remove_file(audit.join(format!("{FIRST}.{kind}"))).unwrap();
        }
        drop(open_machine(dir.path(), &key_of(dir.path())));
        assert!(!there(&audit, "seg") && !there(&audit, "leaf") && !there(&audit, "idx"), "{removed:?}");
        assert_eq!(verify_both(&audit, None).exit_code(), 2, "{removed:?}");
    }
}

#[test]
fn what_nobody_recorded_is_not_retention() {
    let anchor = MADE.dir.path().join("audit/checkpoint");
    let stub = |audit: &Path| audit.join(format!("{FIRST}.pruned"));
    let remove = |audit: &Path| {
        for kind in ["seg", "leaf", "idx"] {
            fs::remove_file(audit.join(format!("{FIRST}.{kind}"))).unwrap();
        }
    };
    let retention = |audit: &Path| {
        let report = verify_both(audit, Some(&anchor));
        let acme = report.logs.iter().find(|log| log.origin == "provost/acme").unwrap();
        (report.exit_code(), acme.retention.clone(), acme.failure.clone())
    };

    // A segment is gone and nothing stands for it: input is missing.
    let (_a, audit) = copy();
    remove(&audit);
    assert_eq!(retention(&audit).0, 4);
    matrix::row("segment removed without a prune record", "RETENTION incomplete", "4", "record 0");

    // Somebody wrote what would stay, for records that no record lets go.
    let (_b, good) = pruned();
    let honest = PrunedSegment::decode(&fs::read(stub(&good)).unwrap()).unwrap();
    for (record, why) in [
        (SEGMENT_LEAVES + 7, "is no log.prune record"),
        (u64::MAX, "no signed record"),
        (MADE.record + 1_000_000, "no signed record"),
    ] {
        let forged = PrunedSegment { record, ..honest.clone() };
        fs::write(stub(&good), forged.encode()).unwrap();
        let (exit, verdict, _) = retention(&good);
        assert_eq!((exit, verdict.state), (1, State::Failed), "{record}: {}", verdict.text);
        assert!(verdict.text.contains(why), "{}", verdict.text);
    }
    matrix::row("forged prune record", "RETENTION failed", "1", "the segment's .pruned file");
    // Another root, with a checksum that holds: the tree does not lead to what is signed.
    let mut forged = honest.clone();
    forged.footer.root.0[0] ^= 1;
    fs::write(stub(&good), forged.encode()).unwrap();
    assert_eq!(retention(&good).0, 1);
    let mut forged = honest.clone();
    forged.footer.chain_out.0[0] ^= 1;
    fs::write(stub(&good), forged.encode()).unwrap();
    assert_eq!(retention(&good).0, 1);
    let mut forged = honest.clone();
    forged.header.chain_in.0[0] ^= 1;
    fs::write(stub(&good), forged.encode()).unwrap();
    assert_eq!(retention(&good).0, 1);
    // A flipped bit is placed.
    let mut bytes = honest.encode();
    bytes[100] ^= 1;
    fs::write(stub(&good), &bytes).unwrap();
    let (exit, _, failure) = retention(&good);
    assert_eq!(exit, 1);
    assert!(failure.unwrap().file.ends_with(format!("{FIRST}.pruned")));
    fs::write(stub(&good), honest.encode()).unwrap();
    assert_eq!(retention(&good).0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn holds_are_recorded_and_a_young_log_is_not_pruned() {
    let dir = tempfile::tempdir().unwrap();
    let config = AuditLogConfig { deadline: Duration::from_secs(60), ..AuditLogConfig::new(dir.path(), "node-1") };
    let log = open(config.clone()).await.unwrap();
    let retention = log.retention();
    let by = Who { principal: "admin".to_owned(), ..Who::default() };
    let order = |id: &str, reason: &str| HoldOrder {
        id: id.to_owned(),
        log: LogId::CLUSTER,
        principal: None,
        since_ns: None,
        until_ns: None,
        reason: reason.to_owned(),
    };
    let no_reason = retention.hold(order("a", " "), by.clone()).await.unwrap_err();
    assert!(matches!(no_reason, RetentionError::Refused(_)), "{no_reason}");
    let nowhere = HoldOrder { log: tenant("nobody"), ..order("a", "case 7") };
    assert!(matches!(retention.hold(nowhere, by.clone()).await, Err(RetentionError::Refused(_))));
    retention.hold(order("a", "case 7"), by.clone()).await.unwrap();
    assert_eq!(retention.holds().len(), 1);
    assert!(retention.held(&LogId::CLUSTER, "ana").unwrap().contains("case 7"));
    assert_eq!(retention.held(&tenant("acme"), "ana"), None);

    let whole = retention.prune(&LogId::CLUSTER, Duration::from_secs(1), "keep 1s", by.clone(), false).await;
    assert!(matches!(whole, Err(RetentionError::Refused(why)) if why.contains("kept whole")));
    let acme = tenant("acme");
    log.record(event(&acme, Phase::Denied, 1, common::START_NS)).await.unwrap();
    let report = retention.prune(&acme, Duration::from_secs(1), "keep 1s", by.clone(), false).await.unwrap();
    assert_eq!((report.from, report.to, report.record), (0, 0, None));
    let rule: provost_audit_store::KeepRule = Arc::new(|_| Some((Duration::from_secs(1), "keep 1s".to_owned())));
    retention.apply_rules(&rule).await;

    // Holds survive a restart, and their records say who and why.
    log.close().await.unwrap();
    drop((retention, log));
    let log = open(config).await.unwrap();
    let retention = log.retention();
    assert_eq!(retention.holds()[0].reason, "case 7");
    let none = retention.release(LogId::CLUSTER, "b".to_owned(), "x".to_owned(), by.clone()).await.unwrap_err();
    assert!(none.to_string().contains("PV-AUDIT-NO-HOLD"), "{none}");
    retention.release(LogId::CLUSTER, "a".to_owned(), "closed".to_owned(), by).await.unwrap();
    assert!(retention.holds().is_empty());
    let of = |event: &str| {
        let wanted = Query { event: Some(event.to_owned()), ..Query::default() };
        query(log.dir(), wanted).unwrap().map(Result::unwrap).collect::<Vec<_>>()
    };
    let (added, removed) = (of("hold.add"), of("hold.remove"));
    assert_eq!((added.len(), removed.len(), of("log.prune").len()), (1, 1, 0));
    assert_eq!(added[0].record.principal.as_deref(), Some("admin"));
    assert_eq!(added[0].record.event_detail.as_deref(), Some("case 7"));
    log.close().await.unwrap();
}

/// The whole way: records through the group, a hold, the prune by a rule, a restart.
#[tokio::test(flavor = "multi_thread")]
async fn a_rule_prunes_through_the_group_and_the_log_goes_on() {
    const CALLS: u128 = 35_000;
    let dir = tempfile::tempdir().unwrap();
    let config = AuditLogConfig { deadline: Duration::from_secs(60), ..AuditLogConfig::new(dir.path(), "node-1") };
    let log = open(config.clone()).await.unwrap();
    let acme = tenant("acme");
    let began = std::time::Instant::now();
    for first in (0..CALLS).step_by(500) {
        for phase in [Phase::Intent, Phase::Outcome] {
            let records = (first..first + 500).map(|n| log.record(event(&acme, phase, n, common::START_NS + n as u64)));
            futures::future::try_join_all(records).await.unwrap();
        }
    }
    println!("70,000 records through the group in {:?}", began.elapsed());
    log.checkpoint_now().await.unwrap();
    let anchor = dir.path().join("kept");
    fs::copy(log.dir().join("checkpoint"), &anchor).unwrap();

    let retention = log.retention();
    let by = Who { principal: "admin".to_owned(), ..Who::default() };
    let day = Duration::from_secs(86_400);
    let looked = retention.prune(&acme, day, "look", by.clone(), true).await.unwrap();
    assert_eq!((looked.from, looked.to, looked.record), (0, SEGMENT_LEAVES, None));
    let hold = HoldOrder {
        id: "case-7".to_owned(),
        log: acme.clone(),
        principal: Some("ana".to_owned()),
        since_ns: None,
        until_ns: None,
        reason: "case 7".to_owned(),
    };
    retention.hold(hold, by.clone()).await.unwrap();
    let held = retention.prune(&acme, day, "x", by.clone(), false).await.unwrap_err();
    assert!(matches!(held, RetentionError::Held { .. }), "{held}");
    let segment = log.dir().join(format!("{FIRST}.seg"));
    assert!(segment.exists());
    retention.release(acme.clone(), "case-7".to_owned(), "closed".to_owned(), by).await.unwrap();

    retention.apply_rules(&only_acme()).await;
    // The files go behind the persisted state; closing waits for that.
    log.close().await.unwrap();
    drop((retention, log));
    assert!(!segment.exists());
    let audit = dir.path().join("audit");
    let report = verify_both(&audit, Some(&anchor));
    assert_eq!(report.exit_code(), 0, "{report}");
    let pruned = query(&audit, Query { event: Some("log.prune".to_owned()), ..Query::default() }).unwrap();
    let pruned: Vec<_> = pruned.map(Result::unwrap).collect();
    assert_eq!(pruned.len(), 1, "what was held or only looked at is not recorded as pruned");
    assert_eq!(PruneNote::of(&pruned[0].record).unwrap().to, SEGMENT_LEAVES);
    assert!(pruned[0].index >= SEGMENT_LEAVES);

    let log = open(config).await.unwrap();
    // A checkpoint held elsewhere that ends among what was pruned cannot be compared, and is no alarm.
    let held = |size| HeldCheckpoint { log: acme.origin("provost"), size, root: Hash([7; 32]) };
    log.node().compare_with_held(&[held(SEGMENT_LEAVES - 1)]).unwrap();
    for size in [SEGMENT_LEAVES, SEGMENT_LEAVES + 1, 1 << 30] {
        assert!(log.node().compare_with_held(&[held(size)]).is_err(), "{size}");
    }
    log.record(event(&acme, Phase::Denied, 900_000, common::START_NS)).await.unwrap();
    // Nothing more is old enough: the newest segment stays.
    log.retention().apply_rules(&only_acme()).await;
    log.close().await.unwrap();
    assert_eq!(verify_both(&audit, Some(&anchor)).exit_code(), 0);
}

/// A rule for one tenant.
fn only_acme() -> provost_audit_store::KeepRule {
    Arc::new(|log| (*log == tenant("acme")).then(|| (Duration::from_secs(86_400), "keep 1d".to_owned())))
}
