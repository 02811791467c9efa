//! The whole log over a real Raft group: receipts, restart, orphans, queries.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{collections::HashSet, path::Path, time::Duration};

use common::{START_NS, event, tenant, verify_both};
use provost_audit_core::{Checkpoint, LogId, verify_inclusion};
use provost_audit_store::{AuditLog, AuditLogConfig, Query, open, query, show};
use provost_audit_verify::Exit;
use provost_types::{AuditSink, CallStatus, Phase};
use tempfile::tempdir;
use tokio::runtime::{Builder, Runtime};

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn config(dir: &Path) -> AuditLogConfig {
    let mut config = AuditLogConfig::new(dir, "node-1");
    config.deadline = Duration::from_secs(120);
    config
}

async fn call(log: &AuditLog, tenant: &LogId, id: u128, end: bool) -> u64 {
    let intent = event(tenant, Phase::Intent, id, START_NS + id as u64);
    let receipt = log.record(intent).await.unwrap();
    assert_eq!(receipt.log, tenant.origin("provost"));
    if end {
        log.record(event(tenant, Phase::Outcome, id, START_NS + id as u64)).await.unwrap();
    }
    receipt.index
}

/// The size of the second log; the status says nothing of any while the machine is busy.
async fn acme_size(log: &AuditLog) -> u64 {
    loop {
        if let Some(of_acme) = log.status().get(1) {
            return of_acme.size;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn records_survive_a_crash_and_orphans_end() {
    let dir = tempdir().unwrap();
    let acme = tenant("acme");
    let audit = dir.path().join("audit");

    // The runtime is dropped with calls open and nothing closed: a crash without the reboot.
    let first = runtime();
    first.block_on(async {
        let log = open(config(dir.path())).await.unwrap();
        assert_eq!(log.epoch(), 1);
        let calls = (0..400u128).map(|id| {
            let (log, acme) = (log.clone(), acme.clone());
            tokio::spawn(async move { call(&log, &acme, id, id % 100 != 0).await })
        });
        let mut indices = HashSet::new();
        for index in calls {
            assert!(indices.insert(index.await.unwrap()), "an index was given twice");
        }
        assert_eq!(acme_size(&log).await, 796);
    });
    first.shutdown_timeout(Duration::from_secs(60));

    let second = runtime();
    second.block_on(async {
        let log = open(config(dir.path())).await.unwrap();
        assert_eq!(log.epoch(), 2);
        let unknown = Query { status: Some(CallStatus::Unknown), ..Query::default() };
        let found: Vec<_> = query(log.dir(), unknown).unwrap().map(Result::unwrap).collect();
        assert_eq!(found.len(), 4, "each open call ended as unknown");
        assert!(found.iter().all(|f| f.record.epoch == 2 && f.record.called() == Some("sql.query")));
        assert_eq!(acme_size(&log).await, 800);

        log.checkpoint_now().await.unwrap();
        let shown = show(log.dir(), &acme, 17).unwrap();
        let checkpoint = Checkpoint::parse_unchecked(&shown.checkpoint.unwrap()).unwrap();
        let leaf = shown.found.leaf_hash;
        verify_inclusion(&leaf, 17, checkpoint.size, &shown.proof, &checkpoint.root).unwrap();
        assert!(show(log.dir(), &acme, 9_999).is_err());

        let newest = Query { principal: Some("sue".to_owned()), limit: Some(3), ..Query::default() };
        let found: Vec<_> = query(log.dir(), newest).unwrap().map(Result::unwrap).collect();
        assert_eq!(found.len(), 3);
        assert!(found.iter().all(|f| f.record.principal.as_deref() == Some("sue")));
        let none = Query { log: Some(tenant("nobody")), ..Query::default() };
        assert!(query(log.dir(), none).unwrap().next().is_none());
        log.close().await.unwrap();
        let late = event(&acme, Phase::Intent, 1, START_NS);
        assert!(log.record(late).await.is_err(), "closed");
    });
    drop(second);

    let report = verify_both(&audit, None);
    assert_eq!(report.exit, Exit::Unanchored, "{report}");
    assert!(report.logs.iter().all(|l| l.open_intents == 0 && l.beyond == 0), "{report}");
    let anchor = dir.path().join("kept");
    std::fs::copy(audit.join("checkpoint"), &anchor).unwrap();
    assert_eq!(verify_both(&audit, Some(&anchor)).exit, Exit::Proven);
    let case = "crash between intent, execution, outcome and answer";
    common::matrix::row(case, "holds; open calls ended as unknown", "0", "-");
}

#[test]
fn an_abandoned_intent_is_ended() {
    let dir = tempdir().unwrap();
    let acme = tenant("acme");
    runtime().block_on(async {
        let log = open(config(dir.path())).await.unwrap();
        for id in 0..50u128 {
            let record = log.record(event(&acme, Phase::Intent, id, START_NS));
            // The caller leaves at some moment while the batch is on its way.
            let _ = tokio::time::timeout(Duration::from_micros(id as u64 * 40), record).await;
        }
        log.close().await.unwrap();
    });
    let found = query(&dir.path().join("audit"), Query { log: Some(acme), ..Query::default() });
    let (mut given_up, mut intents) = (0, 0);
    for found in found.unwrap() {
        match found.unwrap().record {
            r if r.phase == Phase::Intent => intents += 1,
            r => {
                assert_eq!(r.status, Some(CallStatus::Cancelled));
                given_up += 1;
            }
        }
    }
    assert!(given_up <= intents);
}
