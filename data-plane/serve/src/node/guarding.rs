//! Guards at the arguments of a call, with what the node lends them: keys, clients, counts.

use std::sync::Arc;

use provost_data_guards::Vault;
use provost_data_pipeline::{Call, Caller, GuardedParams, Plane, Rejection, Request, Target, Validated};
use provost_mcp::{RawJson, RawObject};
use provost_types::{Name, PrincipalRef};

use super::{arguments::arguments, compiled::Compiled, plane::Node, sound::Silent};
use crate::guards::{self, Asking, Revealing, TenantVault, Ways};

impl Node {
    /// What the tenant's tokens are made with, if its guards make any.
    fn vault(&self, compiled: &Compiled, tenant: &Name) -> Option<Arc<dyn Vault>> {
        let keys = self.token_keys.get().filter(|_| compiled.guards.tokenises(tenant))?;
        Some(Arc::new(TenantVault::new(keys.clone(), tenant.clone())))
    }
}

/// The arguments as guards let them through.
pub(super) async fn guard_in(
    node: &Node,
    snapshot: &Compiled,
    call: &Call<Validated>,
) -> Result<GuardedParams, Rejection> {
    let ways = ways(node, snapshot, call);
    match Silent::of(snapshot, call.caller(), call.target(), call.request()) {
        Some(silent) => {
            let guarded = guards::guard_in(&node.guard_counts, &silent.request, ways).await?;
            Ok(silent.heard(guarded))
        }
        None => guards::guard_in(&node.guard_counts, call.request(), ways).await,
    }
}

/// What covers a call, each way.
fn ways(node: &Node, snapshot: &Compiled, call: &Call<Validated>) -> Ways {
    let caller = call.caller();
    let PrincipalRef { tenant, name } = &caller.principal;
    if !snapshot.guards.has_any(tenant) {
        return Ways::default();
    }
    let model = model_of(snapshot, caller, call.target(), call.request());
    let (token, now_ns) = (caller.token.as_deref(), node.now_ns());
    let holds = |role: &Name| snapshot.engine.holds_role(tenant, name, token, role, now_ns);
    let revealing = Revealing { vault: node.vault(snapshot, tenant), holds: &holds };
    let keys = node.token_keys.get();
    let principal = || keys.map(|keys| guards::pseudonym(keys, &caller.principal)).unwrap_or_default();
    let asking = Asking { clients: &node.external_guards, principal: &principal };
    guards::ways(&snapshot.guards, call, model.as_deref(), revealing, &asking)
}

/// The arguments of a refused call, as its record may have them.
pub(super) fn guard_refused(
    node: &Node,
    snapshot: &Compiled,
    caller: &Caller,
    target: Option<&Target>,
    request: &Request,
) -> GuardedParams {
    let model = target.and_then(|target| model_of(snapshot, caller, target, request));
    let vault = node.vault(snapshot, &caller.principal.tenant);
    let guard = |request: &Request| {
        guards::guard_refused(&snapshot.guards, &node.guard_counts, caller, target, request, model.as_deref(), vault)
    };
    let silent = match target {
        Some(target) => Silent::of(snapshot, caller, target, request),
        None => Silent::of_unknown(snapshot, caller, request),
    };
    match silent {
        Some(silent) => {
            let guarded = guard(&silent.request);
            silent.heard(guarded)
        }
        None => guard(request),
    }
}

/// The `model` that a tool of the `inference` built-in is asked to run.
fn model_argument(arguments: &RawJson) -> Option<String> {
    RawObject::parse(arguments).ok()?.get_text("model")
}

/// The model behind a tool, where a guard may ask for it.
fn model_of(snapshot: &Compiled, caller: &Caller, target: &Target, request: &Request) -> Option<String> {
    let tenant = &caller.principal.tenant;
    let plugin = target.plugin.as_ref()?;
    if !snapshot.guards.has_any(tenant) || !snapshot.is_inference(tenant, plugin) {
        return None;
    }
    model_argument(&arguments(&request.params)?)
}
