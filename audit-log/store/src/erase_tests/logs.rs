//! Erasures in an open log, with its writer.

use std::{fs, path::Path, time::Duration};

use provost_types::{AuditSink, Name, Who};

use super::{CANARY, acme, disk::files, erasure, event, month};
use crate::{
    AuditLog, AuditLogConfig, BodyState, EraseError, EraseOrder, HoldOrder, KeyCommand, KeyReply, Query,
    RetentionError, SubjectPaths, adopt_keys, query, subject_keys::propose,
};

/// Patient: a busy machine's disk is slow at times.
fn config(dir: &Path, node: &str) -> AuditLogConfig {
    AuditLogConfig { deadline: Duration::from_secs(60), ..AuditLogConfig::new(dir, node) }
}

async fn started(dir: &Path) -> AuditLog {
    crate::open(config(dir, "n")).await.unwrap()
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

/// A hold by name or by the pseudonym that records show keeps the same bodies.
#[tokio::test(flavor = "multi_thread")]
async fn a_hold_by_name_or_by_pseudonym_blocks_an_erasure_by_either() {
    let dir = tempfile::tempdir().unwrap();
    let log = started(dir.path()).await;
    let tenant = Name::new("acme").unwrap();
    let retention = log.retention();
    let by = || Who { principal: "admin".to_owned(), ..Who::default() };
    let hold = |principal: &str| HoldOrder {
        id: "case-7".to_owned(),
        log: acme(),
        principal: Some(principal.to_owned()),
        since_ns: None,
        until_ns: None,
        reason: "case 7".to_owned(),
    };
    let sue = log.subject_keys().key(&tenant, "sue", month()).await.unwrap();
    log.record(event("sue", 1, &sue, b"{}")).await.unwrap();
    // Before anything is sealed for ana: what comes later is held too.
    let early = retention.hold(hold("ana"), by()).await.unwrap();
    assert!(!retention.knows(&early), "the name may be misspelt");
    let ana = log.subject_keys().key(&tenant, "ana", month()).await.unwrap();
    assert!(retention.knows(&early));
    let shown = ana.subject.to_string();
    let release = || retention.release(acme(), "case-7".to_owned(), "closed".to_owned(), by());
    for (held, erased) in [("ana", "ana"), ("ana", &shown), (&shown, "ana"), (&shown, &shown)] {
        retention.hold(hold(held), by()).await.unwrap();
        let refused = log.erase(order(erased, "asked to")).await.unwrap_err();
        assert!(matches!(&refused, EraseError::Held(why) if why.contains("case-7")), "{held}, {erased}: {refused}");
        assert!(retention.held(&acme(), "sue").is_none());
        release().await.unwrap();
    }
    let nobody = retention.hold(hold(&format!("p-{:032x}", 7)), by()).await.unwrap_err();
    assert!(matches!(&nobody, RetentionError::Refused(_)), "{nobody}");
    assert_eq!(log.erase(order(&shown, "asked to")).await.unwrap().keys, [ana.id]);
    log.close().await.unwrap();
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
    let recorded = Query { log: Some(acme()), ..Query::default() };
    assert!(query(log.dir(), recorded).unwrap().next().is_none(), "no record yet");
    log.close().await.unwrap();
    let log = started(dir.path()).await;
    assert_eq!(erase_records(&log).len(), 1);
    assert!(log.node().inner.checkpointer.machine.0.lock().keys.state.pending.is_empty());
    log.close().await.unwrap();
    let log = started(dir.path()).await;
    assert_eq!(erase_records(&log).len(), 1, "and not again");
    log.close().await.unwrap();
}

/// In a group one node makes the log key, and the others take it from there: two would each open
/// half of what is wrapped.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_joins_takes_keys_from_another_and_makes_none() {
    let (first, joins) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let tenant = Name::new("acme").unwrap();
    let began = started(first.path()).await;
    let config = AuditLogConfig { begins_keys: false, ..config(joins.path(), "m") };
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
