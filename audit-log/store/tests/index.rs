//! Queries by index: they give what a full read gives, read less, and an index that lies is found.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod common;

use std::{
    fs,
    path::Path,
    sync::{LazyLock, atomic::Ordering},
};

use common::{Lab, event, tenant};
use provost_audit_core::{Checkpoint, Hash, SegmentIndex, leaf_hash, verify_inclusion};
use provost_audit_store::{Command, Follower, Found, Prover, Query, Reply, build_indexes, query, show};
use provost_audit_verify::{LogLayout, check_indexes};
use provost_types::{CallId, CallStatus, Phase};

/// One full segment and a bit, with a rare principal, a rare tool, workflow and status in it.
fn make(dir: &Path) {
    let mut lab = Lab::open(dir);
    let acme = tenant("acme");
    lab.calls(&acme, 10_000);
    let (mut intent, mut outcome) = (event(&acme, Phase::Intent, 900_001, 1), event(&acme, Phase::Outcome, 900_001, 2));
    for event in [&mut intent, &mut outcome] {
        event.time_ns += common::START_NS;
        event.who.principal = "rare".to_owned();
        event.what.target = Some("rare.tool".to_owned());
        event.why.workflow = Some("w \"1\"".to_owned());
    }
    outcome.status = Some(CallStatus::Timeout);
    let entry = lab.writer.entry(&[intent, outcome]);
    lab.apply(entry);
    lab.calls(&acme, 23_000);
    lab.checkpoint();
    // Dropping it waits until everything is on disk.
    lab.machine.persist().unwrap();
}

/// A copy of that log: it takes long to make.
fn log(dir: &Path) {
    static MADE: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path());
        dir
    });
    common::copy_dir(MADE.path(), dir);
}

fn run(audit: &Path, wanted: &Query) -> (Vec<Found>, u64, u64) {
    let results = query(audit, wanted.clone()).unwrap();
    let stats = results.stats();
    let found = results.map(Result::unwrap).collect();
    let of = |n: &std::sync::atomic::AtomicU64| n.load(Ordering::Relaxed);
    (found, of(&stats.blocks_read), of(&stats.without_index))
}

/// A record with a value of another kind than its key says: the service takes none, but one may be there.
#[test]
fn readers_go_on_behind_a_record_that_does_not_fit() {
    let dir = tempfile::tempdir().unwrap();
    let mut lab = Lab::open(dir.path());
    let acme = tenant("acme");
    let mut odd = event(&acme, Phase::Denied, 900_001, common::START_NS);
    odd.who.principal = "rare".to_owned();
    let entry = lab.writer.entry(&[odd]);
    let Command::Append(mut append) = Command::decode(&entry).unwrap() else { panic!("not a batch") };
    let leaf = String::from_utf8(append.records[0].leaf.to_vec()).unwrap();
    let leaf = leaf.replacen(r#""attempt":1,"#, r#""attempt":"1","#, 1);
    append.records[0].leaf = leaf.clone().into();
    lab.writer.chains.insert(acme.clone(), (1, leaf_hash(leaf.as_bytes())));
    assert!(matches!(lab.apply(Command::Append(append).encode().into()), Reply::Appended(_)));
    lab.calls(&acme, 33_000);
    lab.checkpoint();
    lab.machine.persist().unwrap();
    drop(lab);

    let audit = dir.path().join("audit");
    let wanted = Query { log: Some(acme.clone()), principal: Some("rare".to_owned()), ..Query::default() };
    for indexed in [false, true] {
        let (found, _, without_index) = run(&audit, &wanted);
        assert_eq!((found.len(), without_index == 0), (1, indexed));
        assert_eq!((found[0].index, found[0].record.attempt), (0, 0), "with an index: {indexed}");
        assert_eq!(found[0].leaf, leaf, "its bytes are handed out as they are");
        assert_eq!(build_indexes(&audit).unwrap(), usize::from(!indexed));
    }
    let mut follower = Follower::new(&audit, vec![acme.clone()]);
    assert_eq!(follower.poll(3, usize::MAX).unwrap().len(), 3);
    assert_eq!(show(&audit, &acme, 0).unwrap().found.leaf, leaf);
}

#[test]
fn an_index_narrows_what_is_read_and_hides_nothing() {
    let dir = tempfile::tempdir().unwrap();
    log(dir.path());
    let audit = dir.path().join("audit");
    let layout = LogLayout::new(audit.join("tenants/acme"));
    assert_eq!(build_indexes(&audit).unwrap(), 1);
    assert_eq!(build_indexes(&audit).unwrap(), 0, "an index is made once");
    let size = fs::metadata(layout.index(0)).unwrap().len();
    println!("index of 65,536 records: {size} bytes");
    let checked = check_indexes(&layout).unwrap();
    assert_eq!((checked.good, checked.absent, checked.faults.len()), (1, 0, 0));

    let log = Some(tenant("acme"));
    let base = Query { log: log.clone(), ..Query::default() };
    let cases: [(&str, Query, usize, u64); 8] = [
        ("principal", Query { principal: Some("rare".to_owned()), ..base.clone() }, 2, 1),
        ("tool", Query { tool: Some("rare.tool".to_owned()), ..base.clone() }, 2, 1),
        ("workflow", Query { workflow: Some("w \"1\"".to_owned()), ..base.clone() }, 2, 1),
        ("status", Query { status: Some(CallStatus::Timeout), ..base.clone() }, 1, 1),
        ("call", Query { call: Some(CallId(5_000)), ..base.clone() }, 2, 1),
        ("absent", Query { principal: Some("nobody".to_owned()), ..base.clone() }, 0, 0),
        ("both", Query { principal: Some("rare".to_owned()), call: Some(CallId(1)), ..base.clone() }, 0, 0),
        ("newest", Query { limit: Some(3), ..base.clone() }, 3, 0),
    ];
    for (name, wanted, count, most) in cases {
        let (found, read, without) = run(&audit, &wanted);
        let (all, read_all, _) = run(&audit, &Query { no_index: true, ..wanted.clone() });
        assert_eq!(found, all, "{name}: the index changes the answer");
        assert_eq!(found.len(), count, "{name}");
        assert!(read <= most && without == 0, "{name}: {read} blocks were read");
        assert!(read_all >= read && (name == "newest" || read_all == 256), "{name}: {read_all} without index");
    }
}

#[test]
fn each_result_has_a_proof_that_holds_offline() {
    let dir = tempfile::tempdir().unwrap();
    log(dir.path());
    let audit = dir.path().join("audit");
    let prover = Prover::open(&audit, &tenant("acme")).unwrap().expect("a checkpoint");
    let checkpoint = Checkpoint::parse_unchecked(prover.checkpoint()).unwrap();
    let wanted = Query { principal: Some("rare".to_owned()), ..Query::default() };
    let (found, ..) = run(&audit, &wanted);
    assert_eq!(found.len(), 2);
    for found in found {
        let path = prover.inclusion(found.index).unwrap().unwrap();
        let check = |leaf: &Hash| verify_inclusion(leaf, found.index, checkpoint.size, &path, &checkpoint.root);
        assert_eq!(check(&found.leaf_hash), Ok(()));
        assert!(check(&Hash::ZERO).is_err());
    }
    assert_eq!(prover.inclusion(checkpoint.size).unwrap(), None);
}

#[test]
fn an_index_that_lies_is_placed_and_a_damaged_one_is_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    log(dir.path());
    let audit = dir.path().join("audit");
    let layout = LogLayout::new(audit.join("tenants/acme"));
    build_indexes(&audit).unwrap();
    let honest = fs::read(layout.index(0)).unwrap();
    let wanted = Query { principal: Some("rare".to_owned()), ..Query::default() };

    // A bit flips: the checksum tells, the query reads everything and misses nothing.
    let mut damaged = honest.clone();
    damaged[20_000] ^= 4;
    fs::write(layout.index(0), &damaged).unwrap();
    let (found, _, without) = run(&audit, &wanted);
    assert_eq!((found.len(), without), (2, 1));
    let faults = check_indexes(&layout).unwrap().faults;
    assert_eq!((faults.len(), faults[0].hidden), (1, None));

    // Somebody rewrites it, checksum and all, so that the rare principal's block is not named.
    let key = provost_audit_core::index_key(provost_audit_core::IndexField::Principal, "rare");
    let body = &honest[..honest.len() - 32];
    let at = body.windows(8).position(|w| w == key.to_le_bytes()).unwrap();
    let mut forged = body.to_vec();
    // Ascending order is kept: the last bit of the key's lowest byte changes.
    forged[at] ^= 1;
    let sum = Hash::of(&forged);
    forged.extend_from_slice(&sum.0);
    assert!(SegmentIndex::decode(forged.clone()).is_ok());
    fs::write(layout.index(0), &forged).unwrap();
    assert_eq!(run(&audit, &wanted).0.len(), 0, "an index is not trusted, but it is believed");
    assert_eq!(run(&audit, &Query { no_index: true, ..wanted }).0.len(), 2);
    let faults = check_indexes(&layout).unwrap().faults;
    assert_eq!(faults[0].hidden, Some(20_000), "{faults:?}");
    assert!(faults[0].file.ends_with("00000000000000000000.idx"));
    common::matrix::row("index hides a row", "`audit index --check` fails", "1", "record 20000 in the segment's .idx");
}
