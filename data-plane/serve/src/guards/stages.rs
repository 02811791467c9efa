//! The stages of a node.

use std::{borrow::Cow, sync::Arc};

use provost_data_guards::{Guard, GuardCall, GuardIndex, GuardTarget, HoldsRole, JsonInspection, Vault};
use provost_data_pipeline::{
    Call, CallGuard, Caller, GuardedParams, Operation, RecordGuard, Rejection, RejectionKind, Request, Target,
    Validated,
};
use provost_mcp::{RawJson, RawObject};
use provost_types::GuardDirection;
use provost_wire::guard::{Direction, Part};

use super::{
    counts::{GuardCounts, written},
    external::{About, ExternalClients, Outside},
    layouts,
    watch::{Watch, Ways},
};

/// What tokens are made with and for whom they are opened.
#[derive(Clone)]
pub(crate) struct Revealing<'a> {
    /// `None`: the tenant has none.
    pub(crate) vault: Option<Arc<dyn Vault>>,
    pub(crate) holds: HoldsRole<'a>,
}

/// What external guards are asked with.
pub(crate) struct Asking<'a> {
    pub(crate) clients: &'a Arc<ExternalClients>,
    /// What stands for who calls. Asked only where a guard is elsewhere.
    pub(crate) principal: &'a dyn Fn() -> String,
}

/// Guards parameters that are about to be sent on, and sets up what watches the call.
pub(crate) async fn guard_in(
    counts: &Arc<GuardCounts>,
    request: &Request,
    ways: Ways,
) -> Result<GuardedParams, Rejection> {
    if ways.is_empty() {
        return Ok(GuardedParams::untouched(request.params.clone()));
    }
    let inspection = inspect(ways.arguments.as_deref(), request, ways.vault.as_deref());
    if let Some(blocked) = inspection.blocked {
        // Counted where it is recorded.
        return Err(Rejection::new(
            RejectionKind::Guarded,
            "PV-GUARD-BLOCKED",
            format!(
                "the call holds a value of kind {}, which a guard lets nobody send here; remove it, and call again",
                blocked.kind
            ),
        ));
    }
    let mut tally = inspection.tally.clone();
    let mut guarded = guarded(request, inspection);
    guarded.records = recorded(ways.arguments.as_ref());
    if let (Some(outside), Some(layout)) = (&ways.outside_arguments, layouts::params(&request.operation)) {
        // In a box: to ask others is a large future, and most guards ask nobody.
        let checked = Box::pin(outside.check(Part::Params, &guarded.params, layout)).await;
        if let Some(stop) = checked.stop {
            counts.add(&checked.tally);
            return Err(stop.rejection(false).withholding(written(&checked.tally)));
        }
        if let Some(changed) = checked.changed {
            // What was changed elsewhere is not opened.
            (guarded.params, guarded.sent) = (changed, None);
        }
        tally.merge(&checked.tally);
        guarded.found = written(&tally);
    }
    counts.add(&tally);
    let watch = Watch::new(&request.operation, ways, counts.clone());
    guarded.guard = watch.map(|watch| -> Arc<dyn CallGuard> { Arc::new(watch) });
    Ok(guarded)
}

/// The guards that cover a call, and what external ones are told of it.
pub(crate) fn ways(
    index: &GuardIndex,
    call: &Call<Validated>,
    model: Option<&str>,
    revealing: Revealing<'_>,
    asking: &Asking<'_>,
) -> Ways {
    let (request, caller) = (call.request(), call.caller());
    if !index.has_any(&caller.principal.tenant) {
        return Ways::default();
    }
    let target = target(&request.operation, Some(call.target()), model);
    let inside = |direction| covering(index, caller, target, direction, revealing.holds);
    let covered = GuardCall { tenant: &caller.principal.tenant, principal: &caller.principal.name, target };
    let (outside_arguments, outside_results) =
        (index.external(&covered, GuardDirection::Arguments), index.external(&covered, GuardDirection::Results));
    let is_told = !outside_arguments.is_empty() || !outside_results.is_empty();
    let about = is_told.then(|| {
        Arc::new(About {
            tenant: caller.principal.tenant.clone(),
            principal: (asking.principal)(),
            method: request.operation.method().to_owned(),
            target: call.target().full.clone(),
            call_id: request.call_id.to_string(),
        })
    });
    let outside = |guards, direction| Outside::new(guards, asking.clients, about.as_ref()?, direction);
    Ways {
        arguments: inside(GuardDirection::Arguments),
        results: inside(GuardDirection::Results),
        outside_arguments: outside(outside_arguments, Direction::Arguments),
        outside_results: outside(outside_results, Direction::Results),
        vault: revealing.vault,
    }
}

/// What may be recorded of the parameters of a refused call. Where it is not known what the call would
/// have touched, every guard of the caller's is taken to cover it.
pub(crate) fn guard_refused(
    index: &GuardIndex,
    counts: &GuardCounts,
    caller: &Caller,
    touched: Option<&Target>,
    request: &Request,
    model: Option<&str>,
    vault: Option<Arc<dyn Vault>>,
) -> GuardedParams {
    if !index.has_any(&caller.principal.tenant) {
        return GuardedParams::untouched(request.params.clone());
    }
    let target = target(&request.operation, touched, model);
    // Nothing is sent on, so nothing is given back.
    let guard = covering(index, caller, target, GuardDirection::Arguments, &|_| false);
    let inspection = inspect(guard.as_deref(), request, vault.as_deref());
    counts.add(&inspection.tally);
    let mut guarded = guarded(request, inspection);
    guarded.records = recorded(guard.as_ref());
    guarded
}

/// The guard of a call's arguments, for what its records say beside them.
#[derive(Debug)]
struct Recorded(Arc<Guard>);

impl RecordGuard for Recorded {
    fn clean(&self, text: &str) -> Option<String> {
        // Without a vault: nobody asks for it back out of a record.
        let inspection = self.0.inspect_json(&RawJson::from_text(text), &layouts::EXCHANGE);
        inspection.rewritten.and_then(|rewritten| rewritten.as_text().map(Cow::into_owned))
    }
}

fn recorded(guard: Option<&Arc<Guard>>) -> Option<Arc<dyn RecordGuard>> {
    guard.map(|guard| -> Arc<dyn RecordGuard> { Arc::new(Recorded(guard.clone())) })
}

fn covering(
    index: &GuardIndex,
    caller: &Caller,
    target: GuardTarget<'_>,
    direction: GuardDirection,
    holds: HoldsRole<'_>,
) -> Option<Arc<Guard>> {
    let principal = &caller.principal;
    let call = GuardCall { tenant: &principal.tenant, principal: &principal.name, target };
    index.of(&call, direction, holds).filter(|guard| !guard.is_empty())
}

fn target<'a>(operation: &'a Operation, target: Option<&'a Target>, model: Option<&'a str>) -> GuardTarget<'a> {
    let Some(target) = target else { return GuardTarget::Unknown };
    match (operation, &target.plugin, model) {
        (Operation::CallTool(_), _, Some(model)) => GuardTarget::ToolAndModel(&target.full, model),
        (Operation::CallTool(_), _, None) => GuardTarget::Tool(&target.full),
        (Operation::Chat(_) | Operation::Embed(_) | Operation::Transcribe(_), _, _) => GuardTarget::Model(&target.full),
        (Operation::Task { .. }, Some(plugin), _) => GuardTarget::ToolOf(plugin.as_str()),
        // All tasks, of whatever tools.
        (Operation::Task { .. }, None, _) => GuardTarget::Unknown,
        _ => GuardTarget::Other,
    }
}

fn inspect(guard: Option<&Guard>, request: &Request, vault: Option<&dyn Vault>) -> JsonInspection {
    match (guard, layouts::params(&request.operation)) {
        (Some(guard), Some(layout)) => guard.inspect_json_with(&request.params, layout, vault),
        _ => JsonInspection::default(),
    }
}

fn guarded(request: &Request, inspection: JsonInspection) -> GuardedParams {
    let JsonInspection { tally, rewritten, sent, .. } = inspection;
    let mut guarded = GuardedParams::untouched(request.params.clone());
    guarded.found = written(&tally);
    guarded.sent = sent;
    if let Some(rewritten) = rewritten {
        guarded.target = shown_target(&request.operation, &request.params, &rewritten);
        guarded.params = rewritten;
    }
    guarded
}

/// What to say that was called, if its name or URI was changed.
fn shown_target(operation: &Operation, before: &RawJson, after: &RawJson) -> Option<String> {
    let member = match operation {
        Operation::CallTool(_) | Operation::GetPrompt(_) => "name",
        Operation::ReadResource(_) | Operation::Subscribe(_) | Operation::Unsubscribe(_) => "uri",
        Operation::Chat(_) | Operation::Embed(_) | Operation::Transcribe(_) => "model",
        Operation::Task { .. } => "taskId",
        Operation::Complete { is_prompt, .. } => {
            let member = if *is_prompt { "name" } else { "uri" };
            let of = |params: &RawJson| RawObject::parse(params).ok()?.get_object("ref")?.get_text(member);
            return of(after).filter(|shown| of(before).as_ref() != Some(shown));
        }
        _ => return None,
    };
    let of = |params: &RawJson| RawObject::parse(params).ok()?.get_text(member);
    of(after).filter(|shown| of(before).as_ref() != Some(shown))
}
