//! Erasures as entries that replicas apply, with crashes between.

use std::fs;

use bytes::Bytes;
use provost_audit_core::{Hash, LogId};
use provost_types::{KeyId, Name};

use super::{CANARY, NOVEMBER, acme, disk::try_to_read, erasure, event, month, replica::Replica, sealed_of};
use crate::{
    AuditMachine, Command, Hold, KeyCommand, KeyReply, RetentionCommand, SubjectPaths, adopt_keys,
    subject_state::{Found, Lookup},
};

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
    let hash = one.record(&of_ana, 1, Hash::ZERO);
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

/// The hold is committed after the erasure looked for holds and before its order: the order does nothing,
/// on any replica, however often it starts.
#[test]
fn a_hold_that_comes_before_the_order_wins() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::open(dir.path(), &[]);
    let (ana, sue) = (replica.key("ana"), replica.key("sue"));
    let held = Hold {
        id: "case-7".to_owned(),
        log: acme(),
        principal: Some("ana".to_owned()),
        subject: Some(ana.subject),
        since_ns: 0,
        until_ns: u64::MAX,
        reason: "case 7".to_owned(),
        by: "admin".to_owned(),
        time_ns: NOVEMBER,
    };
    replica.apply(&Command::Retention(RetentionCommand::Hold(held.clone())));
    let order = |id, subject| KeyCommand::Erase(erasure(id, subject));
    assert_eq!(replica.keys(order(5, ana.subject)), KeyReply::Held(held));
    assert_eq!(replica.keys(order(6, sue.subject)), KeyReply::Erased(vec![sue.id]), "of others they go");
    let entries = replica.entries.clone();
    drop(replica.machine.take());
    for start in 0..2 {
        let mut replica = Replica::open(dir.path(), &entries);
        let state = &replica.machine().keys.state;
        assert!(matches!(state.lookup(ana.id), Lookup::Here(_, name) if name == "ana"), "start {start}");
        assert!(matches!(state.lookup(sue.id), Lookup::Erased(_)), "start {start}");
        assert_eq!(state.pending.keys().collect::<Vec<_>>(), [&6], "what was refused is not to be recorded");
        replica.stop();
    }
    let mut replica = Replica::open(dir.path(), &entries);
    replica.apply(&Command::Retention(RetentionCommand::Release(acme(), "case-7".to_owned())));
    assert_eq!(replica.erase(7, "ana"), [ana.id]);
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

/// Bodies of a batch, cut off anywhere by a crash, are there again after the next start.
#[test]
fn torn_body_files_are_repaired() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::open(dir.path(), &[]);
    let ana = replica.key("ana");
    let mut prev = replica.record(&event("ana", 1, &ana, b"durable"), 1, Hash::ZERO);
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
