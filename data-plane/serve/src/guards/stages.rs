//! The stages of a node.

use std::sync::Arc;

use provost_data_guards::{Guard, GuardCall, GuardIndex, GuardTarget, HoldsRole, JsonInspection, Vault};
use provost_data_pipeline::{
    Call, CallGuard, Caller, GuardedParams, Operation, Rejection, RejectionKind, Request, Target, Validated,
};
use provost_mcp::{RawJson, RawObject};
use provost_types::GuardDirection;

use super::{
    counts::{GuardCounts, written},
    layouts,
    watch::Watch,
};

/// What tokens are made with and for whom they are opened.
#[derive(Clone)]
pub(crate) struct Revealing<'a> {
    /// `None`: the tenant has none.
    pub(crate) vault: Option<Arc<dyn Vault>>,
    pub(crate) holds: HoldsRole<'a>,
}

/// Guards parameters that are about to be sent on, and sets up what watches the call.
pub(crate) fn guard_in(
    index: &GuardIndex,
    counts: &Arc<GuardCounts>,
    call: &Call<Validated>,
    model: Option<&str>,
    revealing: Revealing<'_>,
) -> Result<GuardedParams, Rejection> {
    let request = call.request();
    if !index.has_any(&call.caller().principal.tenant) {
        return Ok(GuardedParams::untouched(request.params.clone()));
    }
    let target = target(&request.operation, Some(call.target()), model);
    let arguments = covering(index, call.caller(), target, GuardDirection::Arguments, revealing.holds);
    let results = covering(index, call.caller(), target, GuardDirection::Results, revealing.holds);
    let inspection = inspect(arguments.as_deref(), request, revealing.vault.as_deref());
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
    counts.add(&inspection.tally);
    let mut guarded = guarded(request, inspection);
    if arguments.is_some() || results.is_some() {
        let watch = Watch::new(&request.operation, arguments, results, revealing.vault, counts.clone());
        guarded.guard = watch.map(|watch| -> Arc<dyn CallGuard> { Arc::new(watch) });
    }
    Ok(guarded)
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
    guarded(request, inspection)
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
        (Operation::Chat(_) | Operation::Embed(_), _, _) => GuardTarget::Model(&target.full),
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
        Operation::Chat(_) | Operation::Embed(_) => "model",
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
