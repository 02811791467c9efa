//! What is read of a node from outside: counts, load, and how its plugins stand.

use provost_data_pipeline::{Ended, Reply};
use provost_data_tools::{CorpusView, EndpointView, Pressure, Walls};
use provost_types::Name;

use super::{load::Load, plane::Node};
use crate::observe::{Durations, NearLimit, Requests, TenantUse, TracingCounts, code_of};

impl Node {
    /// A call is over.
    pub(super) fn observe(&self, ended: &Ended<'_>) {
        self.meters.ended(ended);
        if let Some(tracing) = self.tracing.get() {
            tracing.ended(ended);
        }
        if tracing::enabled!(target: "provost_call", tracing::Level::DEBUG) {
            log(ended);
        }
    }

    /// How long calls took since the start.
    pub fn durations(&self) -> Durations {
        self.meters.durations()
    }

    /// Calls since the start: method, transport, how many.
    pub fn requests(&self) -> Requests {
        self.meters.requests()
    }

    /// Refusals since the start: why, how many.
    pub fn refusals(&self) -> Vec<(&'static str, u64)> {
        self.meters.refusals()
    }

    /// Errors and refusals since the start: stable code, how many.
    pub fn errors(&self) -> Vec<(String, u64)> {
        self.meters.errors()
    }

    /// Refusals since the start by the quota that was used up (`TENANT/QUOTA`).
    pub fn limit_hits(&self) -> Vec<(String, u64)> {
        self.meters.limit_hits()
    }

    /// Quotas that calls of the last minute found near their limit.
    pub fn near_limits(&self) -> Vec<NearLimit> {
        self.meters.near_limits()
    }

    /// What tenants' calls used since the start.
    pub fn tenant_use(&self) -> Vec<(String, TenantUse)> {
        self.meters.tenants()
    }

    /// What was told of calls for their traces; `None`: they are not traced.
    pub fn tracing_counts(&self) -> Option<TracingCounts> {
        self.tracing.get().map(|tracing| tracing.counts())
    }

    /// Calls since the start by how they ended.
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        self.counts.read()
    }

    /// Values that guards found since the start: kind, action, how many.
    pub fn guard_counts(&self) -> Vec<(&'static str, &'static str, u64)> {
        self.guard_counts.read()
    }

    /// Of the calls that were denied since the start, those that a full node refused: they say nothing of its policy.
    /// Ask before [`Node::counts`].
    pub fn shed(&self) -> u64 {
        self.counts.shed()
    }

    /// The calls that run now, and the bound on them.
    pub fn load(&self) -> &Load {
        &self.load
    }

    /// How plugins stand towards their upstreams: tenant, plugin, state.
    pub fn pressures(&self) -> Vec<(Name, Name, Pressure)> {
        self.toolbox.pressures()
    }

    /// The endpoints of plugins that have several: tenant, plugin, state of each.
    pub fn endpoints(&self) -> Vec<(Name, Name, Vec<EndpointView>)> {
        self.toolbox.endpoints()
    }

    /// How plugins of documents stand: tenant, plugin, corpus.
    pub fn corpora(&self) -> Vec<(Name, Name, CorpusView)> {
        self.toolbox.corpora()
    }

    /// The walls around the processes of plugins: tenant, plugin, walls.
    pub fn walls(&self) -> Vec<(Name, Name, Walls)> {
        self.toolbox.walls()
    }
}

/// One line for a call that is over. Its ids are in the span around it.
fn log(ended: &Ended<'_>) {
    let (outcome, code) = match &ended.answer.outcome {
        Ok(Reply::Result { is_error: false, .. }) => ("ok", String::new()),
        Ok(Reply::Result { is_error: true, .. }) => ("tool_error", String::new()),
        Ok(Reply::InputRequired(_)) => ("input_required", String::new()),
        Ok(Reply::Error(error)) => ("error", code_of(error).unwrap_or_else(|| error.code.to_string())),
        Err(rejection) => ("refused", rejection.code.to_owned()),
    };
    let request = ended.request;
    let target = ended.target.filter(|_| !ended.is_target_hidden);
    let arrived = request.arrived_ns;
    tracing::debug!(
        target: "provost_call",
        method = request.operation.method(),
        tenant = ended.caller.map(|caller| caller.principal.tenant.as_str()).unwrap_or_default(),
        plugin = target.and_then(|target| target.plugin.as_ref()).map(Name::as_str).unwrap_or_default(),
        transport = request.client.transport,
        outcome,
        code,
        duration_us = ended.marks.last(arrived).saturating_sub(arrived) / 1_000,
        "call ended"
    );
}
