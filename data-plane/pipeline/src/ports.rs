//! What the pipeline asks of the node that runs it.

use std::sync::Arc;

use provost_mcp::RawJson;
use provost_types::{AuditEvent, AuditReceipt, AuditUnavailable, BoxFuture, Decision, PrincipalRef, Revision};

use crate::{
    Admitted, Authenticated, Call, Caller, Credential, Ended, Execution, GuardedParams, Intended, LimitState, Limited,
    Received, Rejection, Request, Resolved, Target, Usage, Validated,
};

/// Units held for a call. A hold that is dropped before its call begins gives everything back, so
/// that every early return of the pipeline frees what it took. Dropped after that without being
/// settled, all of it counts as used: the call may have run.
pub trait Hold: std::fmt::Debug + Send + Sync {
    /// The call begins to run.
    fn begin(&self);

    /// Charges what the call used; at most what is held.
    fn settle(&self, usage: &Usage);

    /// What is left of the limits that the call counts in, for the answer.
    fn limits(&self) -> Vec<LimitState> {
        Vec::new()
    }
}

/// The holds of one call: none when no quota applies.
#[derive(Debug, Default)]
pub struct Reservation(pub Vec<Box<dyn Hold>>);

impl Reservation {
    pub(crate) fn begin(&self) {
        for hold in &self.0 {
            hold.begin();
        }
    }

    pub(crate) fn limits(&self) -> Vec<LimitState> {
        self.0.iter().flat_map(|hold| hold.limits()).collect()
    }

    pub(crate) fn settle(&self, usage: &Usage) {
        for hold in &self.0 {
            hold.settle(usage);
        }
    }
}

/// Why the client could not be asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// The client went away.
    #[error("the client went away while it was asked for input")]
    Gone,
    /// The client does not support what is asked.
    #[error("the client does not support {0}")]
    Unsupported(String),
    /// The client took too long.
    #[error("the client did not answer in time")]
    TimedOut,
    /// A guard lets the question or the answer not pass.
    #[error("PV-GUARD-BLOCKED: a guard lets no value of kind {0} pass in a question to the client or its answer")]
    Guarded(String),
}

/// The client's end of a running call.
pub trait ClientLink: Send + Sync {
    /// Sends a notification that belongs to this call (progress, log message, a subscription's
    /// events, a chunk of a streamed generation as `provost/chunk`). Never blocks; a client that
    /// does not keep up loses the stream, not the node its memory.
    fn notify(&self, method: &str, params: RawJson);

    /// For clients that can be asked during a call (legacy eras): takes `inputRequests` (an object
    /// of key → `{method, params}`) and returns `inputResponses` (an object of key → result).
    /// `None`: this client gets the MRTR result instead.
    fn ask<'a>(&'a self, input_requests: &'a RawJson) -> Option<BoxFuture<'a, Result<RawJson, AskError>>>;

    /// Resolves when the caller cancels or, where that means the same, disconnects.
    fn cancelled(&self) -> BoxFuture<'_, ()>;
}

/// Where tokens come from (RFC 9728).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Authorization {
    /// Issuers whose tokens are taken.
    pub servers: Vec<String>,
    /// Scopes that mean something here.
    pub scopes: Vec<String>,
}

/// The node: its snapshot and its decisions. Each method is one stage and gets the call in the
/// only form in which that stage may see it.
pub trait Plane: Send + Sync {
    /// The compiled state of one revision.
    type Snapshot: Send + Sync;

    /// The state that a call which arrives now runs under, to its end.
    fn snapshot(&self) -> Arc<Self::Snapshot>;
    /// Its revision.
    fn revision(&self, snapshot: &Self::Snapshot) -> Revision;
    /// Nanoseconds since the Unix epoch.
    fn now_ns(&self) -> u64;

    /// Before the snapshot is taken: waits, a bounded time, for a state that brings what the request names and the
    /// present one lacks, if such a state is being made ready.
    fn catch_up(&self, _request: &Request) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }
    /// Makes ready what `authenticate` needs and the node does not have yet, such as the keys of an
    /// issuer. Waits a bounded time, and never for a credential that can be decided on now.
    fn prepare(&self, _snapshot: &Arc<Self::Snapshot>, _credential: &Credential) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }
    /// What clients are told of where tokens come from.
    fn authorization(&self) -> Authorization {
        Authorization::default()
    }
    /// Who calls?
    fn authenticate(&self, snapshot: &Self::Snapshot, call: &Call<Received>) -> Result<Arc<Caller>, Rejection>;
    /// What does it touch? May wait for an upstream's list.
    fn resolve(
        &self,
        snapshot: &Arc<Self::Snapshot>,
        call: &Call<Authenticated>,
    ) -> impl Future<Output = Result<Target, Rejection>> + Send;
    /// Was it stopped? Asked before anything else is decided or spent.
    fn stop(&self, _: &Self::Snapshot, _: &Call<Resolved>) -> Result<(), Rejection> {
        Ok(())
    }
    /// May it?
    fn authorise(&self, snapshot: &Self::Snapshot, call: &Call<Resolved>) -> Decision;
    /// Asked after a denial: do the arguments not fit the schema of a tool whose policy reads facts that are made of
    /// them? Then that is what the caller is told. Nothing that was denied goes on by it.
    fn unreadable(&self, _snapshot: &Self::Snapshot, _call: &Call<Resolved>) -> Result<(), Rejection> {
        Ok(())
    }
    /// The scopes to ask for, by which a call that policy denied would be permitted; empty: there are
    /// none, or the caller has no scopes.
    fn scopes_needed(&self, _snapshot: &Self::Snapshot, _call: &Call<Resolved>) -> Vec<String> {
        Vec::new()
    }
    /// Is there enough left? May wait a bounded time for more.
    fn limit(
        &self,
        snapshot: &Self::Snapshot,
        call: &Call<Admitted>,
    ) -> impl Future<Output = Result<Reservation, Rejection>> + Send;
    /// Do the arguments fit the schema?
    fn validate(&self, snapshot: &Self::Snapshot, call: &Call<Limited>) -> Result<(), Rejection>;
    /// May these parameters go out? Returns them as they may, and what guards the call from then on.
    /// May wait a bounded time for guards that are elsewhere.
    fn guard_in(
        &self,
        snapshot: &Self::Snapshot,
        call: &Call<Validated>,
    ) -> impl Future<Output = Result<GuardedParams, Rejection>> + Send;
    /// The parameters of a call that was refused, at whatever stage, as they may be recorded.
    fn guard_refused(
        &self,
        snapshot: &Self::Snapshot,
        caller: &Caller,
        target: Option<&Target>,
        request: &Request,
    ) -> GuardedParams;
    /// Runs it, with credentials, deadline, breaker and caps.
    fn execute(
        &self,
        snapshot: &Arc<Self::Snapshot>,
        call: &Call<Intended>,
        link: &dyn ClientLink,
    ) -> impl Future<Output = Execution> + Send;
    /// Makes one record durable.
    fn record(&self, event: Box<AuditEvent>) -> impl Future<Output = Result<AuditReceipt, AuditUnavailable>> + Send;
    /// Makes an event of a known caller fit for the log: seals its body, and names the caller as the
    /// node is configured to. An event that cannot be is refused like one that cannot be written.
    fn protect(
        &self,
        principal: &PrincipalRef,
        event: &mut AuditEvent,
        body: Option<&[u8]>,
    ) -> impl Future<Output = Result<(), AuditUnavailable>> + Send;
    /// The call is over. Told once for each, after its last record; must neither wait nor take long.
    fn ended(&self, _: &Ended<'_>) {}
}
