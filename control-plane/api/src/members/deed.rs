//! Changes of the cluster itself in the audit log: recorded before they are tried, and with their
//! outcome before they are answered, as changes of resources are.

use provost_control_state::Event;
use provost_types::{AuditEvent, Name, Subject};

use crate::{
    Caller, ControlError, ControlNode, ErrorKind, Scope,
    carrier::{UNRECORDABLE, UNRECORDABLE_HINT},
    record::{Outcome, Record},
};

/// What somebody is about to do to the cluster, or to what a tenant has beside its resources.
pub(crate) struct Deed {
    event: &'static str,
    objects: Vec<String>,
    detail: String,
    /// Afterwards nobody lets this node in any more, the audit log neither.
    is_last: bool,
    /// Whose log has the record; `None`: it goes by who does it.
    tenant: Option<Name>,
}

impl Deed {
    /// `event` such as `node.remove`; `objects` are what it concerns.
    pub(crate) fn new(event: &'static str, objects: Vec<String>, detail: impl Into<String>) -> Self {
        Self { event, objects, detail: detail.into(), is_last: false, tenant: None }
    }

    /// It is the last that this node does, if `so`: its outcome may be recorded no more. The attempt
    /// is in the log, and the change in the history.
    pub(crate) fn last(self, so: bool) -> Self {
        Self { is_last: so, ..self }
    }

    /// It concerns this tenant alone.
    pub(crate) fn of_tenant(self, tenant: &Name) -> Self {
        Self { tenant: Some(tenant.clone()), ..self }
    }

    fn describe(&self, mut event: AuditEvent) -> AuditEvent {
        event.what.method = format!("admin/{}", self.event);
        let (objects, detail) = (self.objects.clone(), self.detail.clone());
        event.what.subject = Some(Subject { event: self.event.to_owned(), objects, detail });
        if self.tenant.is_some() {
            event.tenant = self.tenant.clone();
        }
        event
    }
}

impl Caller {
    /// Refuses a tenant's administrator. `what` is what was asked for.
    pub(crate) fn needs_cluster(&self, what: &str) -> Result<(), ControlError> {
        let Scope::Tenant(own) = &self.scope else { return Ok(()) };
        let text = format!("{what}: {} administers tenant {own} only", self.name);
        Err(ControlError::new(ErrorKind::Forbidden, "PV-ADMIN-SCOPE", text, "ask a cluster administrator"))
    }
}

impl ControlNode {
    /// Does something with a record before and after. It runs in a task of its own: a caller that
    /// disconnects loses the answer, not the outcome's record. If the process ends in between, the
    /// log has an attempt without outcome.
    pub(crate) async fn recorded<T: Send + 'static>(
        &self,
        caller: &Caller,
        deed: Deed,
        act: impl Future<Output = Result<T, ControlError>> + Send + 'static,
    ) -> Result<T, ControlError> {
        let revision = self.inner.published.state.load().revision();
        // The record's own event names changes of resources; `describe` puts the deed in its place.
        let record = Record::new(caller, Event::Apply, &[], "", revision);
        let node = self.clone();
        let task = tokio::spawn(async move {
            node.record_of(deed.describe(record.attempt()), "nothing was done").await?;
            let result = act.await;
            let outcome = match &result {
                Ok(_) => Outcome::Changed(node.inner.published.state.load().revision()),
                Err(error) => Outcome::Failed(error),
            };
            let recorded = node.record_of(deed.describe(record.outcome(outcome)), "but it was done").await;
            match (&result, recorded) {
                (Ok(_), Err(unrecorded)) if !deed.is_last => Err(unrecorded),
                _ => result,
            }
        });
        task.await.map_err(ControlError::internal)?
    }

    /// Records that something was refused before it was tried. Nothing was done: that it cannot be recorded changes no
    /// answer.
    pub(crate) async fn record_refusal(&self, caller: &Caller, deed: Deed, error: &ControlError) {
        let revision = self.inner.published.state.load().revision();
        let record = Record::new(caller, Event::Apply, &[], "", revision);
        // It says so in the node's log.
        let _ = self.record_of(deed.describe(record.outcome(Outcome::Failed(error))), "nothing was done").await;
    }

    async fn record_of(&self, event: AuditEvent, so: &str) -> Result<(), ControlError> {
        let recorded = self.inner.audit.record(event).await;
        recorded.map(drop).map_err(|e| {
            tracing::error!(code = UNRECORDABLE, error = %e, "an administrative change could not be recorded");
            ControlError::new(ErrorKind::Unavailable, UNRECORDABLE, format!("{e}; {so}"), UNRECORDABLE_HINT)
        })
    }
}
