//! A node on a temporary folder, and an audit log that remembers or refuses.
#![allow(clippy::unwrap_used, clippy::expect_used, dead_code)]

use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use provost_control_api::{Caller, ControlConfig, ControlNode, NoAdmission, SourceFile};
use provost_types::{AuditEvent, AuditReceipt, AuditSink, AuditUnavailable, BoxFuture, Name};

#[derive(Default)]
pub struct Recorder {
    pub events: Mutex<Vec<AuditEvent>>,
    pub refuse: AtomicBool,
}

impl Recorder {
    /// `event status` of each record, and forgets them.
    pub fn take(&self) -> Vec<String> {
        let events = std::mem::take(&mut *self.events.lock().unwrap());
        let line = |e: AuditEvent| format!("{} {:?} {:?}", e.what.subject.unwrap().event, e.status, e.tenant);
        events.into_iter().map(line).collect()
    }
}

impl Recorder {
    /// The same, once the records of all changes so far are here.
    pub async fn taken(&self, node: &ControlNode) -> Vec<String> {
        node.wait_recorded(Duration::from_secs(60)).await;
        self.take()
    }
}

impl AuditSink for Recorder {
    fn record(&self, event: AuditEvent) -> BoxFuture<'_, Result<AuditReceipt, AuditUnavailable>> {
        Box::pin(async move {
            if self.refuse.load(Ordering::Relaxed) {
                return Err(AuditUnavailable("the disk is full".into()));
            }
            let mut events = self.events.lock().unwrap();
            events.push(event);
            let index = events.len() as u64;
            Ok(AuditReceipt { log: "test".into(), index, leaf_hash: [0; 32] })
        })
    }
}

pub async fn open(dir: &Path) -> (ControlNode, Arc<Recorder>) {
    let recorder = Arc::new(Recorder::default());
    let config = ControlConfig::new(dir, "test", "node-1");
    let node = ControlNode::open(config, Arc::new(NoAdmission), recorder.clone()).await.unwrap();
    (node, recorder)
}

pub fn admin() -> Caller {
    Caller::internal("root")
}

pub fn file(path: &str, text: &str) -> SourceFile {
    SourceFile { path: path.into(), text: text.into() }
}

pub fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// A tenant with an administrator, a reader and a role.
pub const ACME: &str = "\
apiVersion: provost/v1
kind: Tenant
metadata: {name: acme}
spec: {displayName: Acme}
---
apiVersion: provost/v1
kind: Principal
metadata: {name: ann, tenant: acme}
spec: {type: user, admin: true}
---
apiVersion: provost/v1
kind: Principal
metadata: {name: bob, tenant: acme}
---
apiVersion: provost/v1
kind: Role
metadata: {name: reader, tenant: acme}
spec:
  rules:
    - tools: ['sql.*']
";
