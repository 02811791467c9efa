//! What is refused before it is proposed, and what is not.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use provost_audit_core::{Hash, Place, encode_record, leaf_hash};
use provost_types::{Name, Subject, Who};

use super::{handed_in::OWN_EVENTS, *};
use crate::{Append, AppendRecord, AuditLog as OpenLog, AuditLogConfig, Reply, own_events::event_of};

/// Everybody is node n2, which may or may not keep the log.
#[derive(Default)]
struct Peers {
    keeps_the_log: AtomicBool,
}

impl AuditCallers for Peers {
    fn writer<'a>(&'a self, _: &'a Extensions) -> BoxFuture<'a, Result<String, Status>> {
        Box::pin(std::future::ready(Ok("n2".to_owned())))
    }
    fn control<'a>(&'a self, _: &'a Extensions) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(std::future::ready(Ok(())))
    }
    fn replica<'a>(&'a self, _: &'a Extensions) -> BoxFuture<'a, Result<(), Status>> {
        let refused = Status::permission_denied("PV-AUDIT-PEER: n2 is no audit-log node");
        let answer = if self.keeps_the_log.load(Ordering::SeqCst) { Ok(()) } else { Err(refused) };
        Box::pin(std::future::ready(answer))
    }
}

/// A log, its service, and a writer n2 on another node.
struct Remote {
    log: OpenLog,
    peers: Arc<Peers>,
    service: AuditService,
    batch: u64,
    prev: Hash,
    _dir: tempfile::TempDir,
}

impl Remote {
    async fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = AuditLogConfig { deadline: Duration::from_secs(60), ..AuditLogConfig::new(dir.path(), "n1") };
        let log = crate::open(config).await.unwrap();
        let peers = Arc::<Peers>::default();
        let node = Arc::new(OnceLock::from(log.node().clone()));
        let service = AuditService { node, callers: peers.clone() };
        Self { log, peers, service, batch: 0, prev: Hash::ZERO, _dir: dir }
    }

    /// The record that would be n2's next, of this event.
    fn leaf(&self, event: &str) -> Vec<u8> {
        let subject =
            Subject { event: event.to_owned(), objects: vec!["provost/ghost".to_owned()], ..Subject::default() };
        let place = Place { writer_id: "n2", epoch: 1, seq: self.batch + 1, prev: self.prev };
        encode_record(&event_of(Name::new("acme").ok(), subject, Who::default()), &place).unwrap()
    }

    /// Sends a record as n2's next batch.
    async fn send(&mut self, leaf: Vec<u8>) -> Result<Reply, Status> {
        let (writer, hash) = ("n2".to_owned(), leaf_hash(&leaf));
        let log = provost_audit_core::LogId(Name::new("acme").ok());
        let records = vec![AppendRecord { log, leaf: leaf.into(), body: None }];
        let append = Append { writer, epoch: 1, batch: self.batch, records };
        let command = Command::Append(append).encode().into();
        let answer = self.service.append(Request::new(AppendRequest { command })).await?;
        let reply = Reply::decode(&answer.into_inner().reply).unwrap();
        if matches!(reply, Reply::Appended(_)) {
            (self.batch, self.prev) = (self.batch + 1, hash);
        }
        Ok(reply)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_nodes_that_keep_the_log_write_its_own_events() {
    let mut remote = Remote::open().await;
    for event in OWN_EVENTS {
        let refused = remote.send(remote.leaf(event)).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::PermissionDenied, "{event}");
        assert!(refused.message().contains("PV-AUDIT-PEER") && refused.message().contains(event), "{refused}");
    }
    // What every node records of itself is not among them, nor is a call.
    for event in ["log.start", "apply"] {
        assert!(matches!(remote.send(remote.leaf(event)).await, Ok(Reply::Appended(_))), "{event}");
    }
    // Nothing of what was refused is there: the writer goes on behind what was taken.
    remote.peers.keeps_the_log.store(true, Ordering::SeqCst);
    for event in OWN_EVENTS {
        let sent = remote.send(remote.leaf(event)).await;
        assert!(matches!(&sent, Ok(Reply::Appended(places)) if places[0].1 == remote.batch - 1), "{event}: {sent:?}");
    }
    remote.log.close().await.unwrap();
}

/// A value of another kind than its key says: no reader of the log could go on behind it.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_no_reader_could_read_is_refused() {
    let mut remote = Remote::open().await;
    let good = String::from_utf8(remote.leaf("apply")).unwrap();
    for (from, to) in [
        (r#"["provost/ghost"]"#, "7"),
        (r#"["provost/ghost"]"#, r#""provost/ghost""#),
        (r#","tenant""#, r#","status":"x","tenant""#),
        (r#"{"call_id""#, r#"{"attempt":"1","call_id""#),
    ] {
        let leaf = good.replacen(from, to, 1);
        assert_ne!(leaf, good, "{to}");
        // The machine alone would take it.
        provost_audit_core::RecordView::read(leaf.as_bytes()).unwrap();
        let sent = remote.send(leaf.into_bytes()).await.unwrap();
        assert!(matches!(&sent, Reply::Invalid(why) if why.contains("record 0")), "{to}: {sent:?}");
    }
    // The writer's next good one takes the place.
    assert!(matches!(remote.send(good.into_bytes()).await, Ok(Reply::Appended(_))));
    remote.log.close().await.unwrap();
}
