//! The node, and the stages of a call answered by it; longer answers lie in files of their own.

use std::{
    sync::{Arc, OnceLock, Weak},
    time::{SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use provost_data_pipeline::{
    Admitted, Authenticated, Authorization, Call, Caller, ClientLink, Credential, Ended, Execution, GuardedParams,
    Hold, Intended, Limited, Operation, Plane, Received, Rejection, Request, Reservation, Resolved, Target, Validated,
};
use provost_data_policy::KillSwitches;
use provost_data_tools::Toolbox;
use provost_types::{
    AuditEvent, AuditReceipt, AuditSink, AuditUnavailable, Decision, Inference, PrincipalRef, Revision,
};
use tokio::sync::watch;

use super::{
    aliases, arguments, authorise,
    coming::Coming,
    compiled::Compiled,
    counts::Counts,
    guarding,
    load::{self, Load},
    nested, switches,
    tasks::TaskHandles,
};
use crate::{
    SealKeys,
    bodies::BodyKeeper,
    connect::Tickets,
    definitions::DefinitionKeeper,
    gpus::again::counted,
    guards::{ExternalClients, GuardCounts},
    observe::{Meters, Tracing},
    push::{StalenessLimits, StalenessReader},
    quota::Quotas,
};

/// One data-plane node.
pub struct Node {
    pub(super) current: ArcSwap<Compiled>,
    /// The switches that are on now, for calls that run.
    pub(super) switches: watch::Sender<Arc<KillSwitches>>,
    pub(super) audit: Arc<dyn AuditSink>,
    pub(super) toolbox: Arc<Toolbox>,
    pub(super) inference: Arc<dyn Inference>,
    pub(super) anonymous: Option<Arc<Caller>>,
    pub(super) counts: Counts,
    pub(super) guard_counts: Arc<GuardCounts>,
    pub(super) definitions: DefinitionKeeper,
    pub(super) quotas: Option<Arc<Quotas>>,
    pub(super) staleness: Option<(StalenessReader, StalenessLimits)>,
    pub(super) bodies: Option<BodyKeeper>,
    pub(super) load: Arc<Load>,
    pub(super) external_guards: Arc<ExternalClients>,
    /// What tokens of guards are sealed with; without, values are masked.
    pub(super) token_keys: OnceLock<Arc<SealKeys>>,
    /// A state that is being made ready.
    pub(super) coming: Coming,
    /// Under which agents know the node: the audiences of tokens, each without `/mcp`.
    pub(super) addresses: OnceLock<Vec<String>>,
    pub(super) tasks: TaskHandles,
    /// Addresses that lead users to a consent; set with the keys.
    pub(super) tickets: OnceLock<Tickets>,
    /// What calls of guests are driven by; unset: they make none.
    pub(super) itself: OnceLock<Weak<Node>>,
    pub(super) meters: Meters,
    /// Who is told of calls for their traces; unset: nobody.
    pub(super) tracing: OnceLock<Arc<Tracing>>,
}

impl Plane for Node {
    type Snapshot = Compiled;

    fn snapshot(&self) -> Arc<Compiled> {
        self.current.load_full()
    }

    fn revision(&self, snapshot: &Compiled) -> Revision {
        snapshot.revision()
    }

    fn now_ns(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    fn authenticate(&self, snapshot: &Compiled, call: &Call<Received>) -> Result<Arc<Caller>, Rejection> {
        self.caller(snapshot, &call.request().credential, &call.request().route)
    }

    async fn catch_up(&self, request: &Request) {
        self.wait_for_coming(request).await;
    }

    async fn prepare(&self, snapshot: &Arc<Compiled>, credential: &Credential) {
        if let Credential::Bearer(token) = credential
            && snapshot.is_of_provider(token)
        {
            Box::pin(snapshot.tokens.prepare(token)).await;
        }
    }

    fn authorization(&self) -> Authorization {
        self.current.load().tokens.authorization().clone()
    }

    fn scopes_needed(&self, snapshot: &Compiled, call: &Call<Resolved>) -> Vec<String> {
        super::step_up::scopes_needed(self, snapshot, call)
    }

    async fn resolve(&self, snapshot: &Arc<Compiled>, call: &Call<Authenticated>) -> Result<Target, Rejection> {
        super::target::resolve(self, snapshot, call).await
    }

    fn stop(&self, snapshot: &Compiled, call: &Call<Resolved>) -> Result<(), Rejection> {
        switches::check(&snapshot.switches, call)?;
        nested::check(call)?;
        self.check_definition(snapshot, call)
    }

    fn authorise(&self, snapshot: &Compiled, call: &Call<Resolved>) -> Decision {
        authorise::authorise(self, snapshot, call)
    }

    fn unreadable(&self, _: &Compiled, call: &Call<Resolved>) -> Result<(), Rejection> {
        arguments::unreadable(self, call)
    }

    async fn limit(&self, snapshot: &Compiled, call: &Call<Admitted>) -> Result<Reservation, Rejection> {
        // After policy: who may not do it anyway is told that, and not how the node stands.
        if call.target().action.is_some() {
            self.check_grants()?;
        }
        let priority = snapshot.priority(&call.caller().principal);
        let running = self.load.enter(&call.request().operation, priority)?;
        let mut reservation = super::limit::reserve(self, snapshot, call).await?;
        reservation.0.extend(running.map(|running| Box::new(running) as Box<dyn Hold>));
        Ok(reservation)
    }

    fn validate(&self, _: &Compiled, call: &Call<Limited>) -> Result<(), Rejection> {
        self.check_arguments(&call.caller().principal.tenant, call.target(), call.request())
    }

    async fn guard_in(&self, snapshot: &Compiled, call: &Call<Validated>) -> Result<GuardedParams, Rejection> {
        guarding::guard_in(self, snapshot, call).await
    }

    fn guard_refused(
        &self,
        snapshot: &Compiled,
        caller: &Caller,
        target: Option<&Target>,
        request: &Request,
    ) -> GuardedParams {
        guarding::guard_refused(self, snapshot, caller, target, request)
    }

    async fn execute(&self, snapshot: &Arc<Compiled>, call: &Call<Intended>, link: &dyn ClientLink) -> Execution {
        let mut execution = match runs_model(snapshot, call) {
            true => {
                let (mut execution, again) = counted(Box::pin(self.run_unless_stopped(snapshot, call, link))).await;
                execution.effort.attempts = execution.effort.attempts.saturating_add(again);
                execution
            }
            false => self.run_unless_stopped(snapshot, call, link).await,
        };
        aliases::warn(&snapshot.aliases, call, &mut execution, self.now_ns());
        let usage = &mut execution.usage;
        usage.cost_micro = super::limit::price(self, snapshot, call).cost_micro(usage.tokens_in, usage.tokens_out);
        execution
    }

    async fn record(&self, event: Box<AuditEvent>) -> Result<AuditReceipt, AuditUnavailable> {
        let (status, is_shed) = (event.status, event.error.as_deref() == Some(load::SHED));
        let receipt = self.audit.record_boxed(event).await?;
        if let Some(status) = status {
            self.counts.add(status);
        }
        if is_shed {
            self.counts.add_shed();
        }
        Ok(receipt)
    }

    async fn protect(
        &self,
        principal: &PrincipalRef,
        event: &mut AuditEvent,
        body: Option<&[u8]>,
    ) -> Result<(), AuditUnavailable> {
        match &self.bodies {
            Some(bodies) => bodies.protect(principal, event, body).await,
            None => Ok(()),
        }
    }

    fn ended(&self, ended: &Ended<'_>) {
        self.observe(ended);
    }
}

/// Whether a call asks a model, which GPU nodes may be asked for more than once.
fn runs_model(snapshot: &Compiled, call: &Call<Intended>) -> bool {
    match &call.request().operation {
        Operation::Chat(_) | Operation::Embed(_) | Operation::Transcribe(_) => true,
        Operation::CallTool(_) => {
            let plugin = call.target().plugin.as_ref();
            plugin.is_some_and(|plugin| snapshot.is_inference(&call.caller().principal.tenant, plugin))
        }
        _ => false,
    }
}
