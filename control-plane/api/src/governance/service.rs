//! The gRPC form. Callers were authenticated before, as for the admin service.

use provost_types::{Name, Resource, Spec};
use provost_wire::governance::{self as wire, governance_server::Governance};
use tonic::{Request, Response, Status};

use super::{
    OfConnections,
    kill_switch::{Selector, Switched, scope},
    pins::{Governed, ToolsOf},
};
use crate::{Caller, ControlError, ControlNode, ErrorKind, Scope};

/// Beside the admin service.
pub(crate) struct GovernanceService {
    pub(crate) node: ControlNode,
}

fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    request.extensions().get::<Caller>().cloned().ok_or_else(|| {
        let text = "the request was not authenticated";
        ControlError::new(ErrorKind::Unauthenticated, "PV-ADMIN-NO-TOKEN", text, "").into()
    })
}

fn name(text: &str) -> Result<Option<Name>, ControlError> {
    let invalid =
        |e: provost_types::NameError| ControlError::new(ErrorKind::Invalid, "PV-ADMIN-REQUEST", e.to_string(), "");
    if text.is_empty() { Ok(None) } else { Name::new(text).map(Some).map_err(invalid) }
}

fn selector(selector: Option<wire::Selector>) -> Result<Selector, ControlError> {
    let wire::Selector { tenant, plugin, tool, principal } = selector.unwrap_or_default();
    Ok(Selector {
        tenant: name(&tenant)?,
        plugin: name(&plugin)?,
        tool: Some(tool).filter(|tool| !tool.is_empty()),
        principal: name(&principal)?,
    })
}

fn switch(resource: &Resource) -> wire::KillSwitch {
    let text = |name: &Option<Name>| name.as_ref().map(ToString::to_string).unwrap_or_default();
    let Spec::KillSwitch(spec) = &resource.spec else { return wire::KillSwitch::default() };
    wire::KillSwitch {
        name: resource.metadata.name.to_string(),
        selector: Some(wire::Selector {
            tenant: text(&resource.metadata.tenant),
            plugin: text(&spec.plugin),
            tool: spec.tool.clone().unwrap_or_default(),
            principal: text(&spec.principal),
        }),
        scope: scope(resource),
        reason: spec.reason.clone(),
        by: spec.by.clone(),
        since: spec.since.clone(),
        by_cluster: spec.by_cluster,
    }
}

fn switched(done: &Switched) -> Response<wire::SwitchedResponse> {
    Response::new(wire::SwitchedResponse {
        revision: done.revision.0,
        changed: done.changed,
        switched: done.switched.iter().map(|r| switch(r)).collect(),
        active: done.active.iter().map(|r| switch(r)).collect(),
    })
}

fn tools_of(caller: &Caller, request: wire::GovernToolsRequest) -> Result<(ToolsOf, String), ControlError> {
    let wire::GovernToolsRequest { tenant, plugin, tool, reason } = request;
    let missing = |what: &str| ControlError::new(ErrorKind::Invalid, "PV-ADMIN-REQUEST", format!("which {what}?"), "");
    let own = match &caller.scope {
        Scope::Tenant(own) => Some(own.clone()),
        Scope::Cluster => None,
    };
    let tenant = name(&tenant)?.or(own).ok_or_else(|| missing("tenant"))?;
    let plugin = name(&plugin)?.ok_or_else(|| missing("plugin"))?;
    Ok((ToolsOf { tenant, plugin, tool: Some(tool).filter(|tool| !tool.is_empty()) }, reason))
}

fn governed(done: Governed) -> Response<wire::GovernedResponse> {
    Response::new(wire::GovernedResponse { revision: done.revision.0, tools: done.tools })
}

#[tonic::async_trait]
impl Governance for GovernanceService {
    async fn switch_on(
        &self,
        request: Request<wire::SwitchOnRequest>,
    ) -> Result<Response<wire::SwitchedResponse>, Status> {
        let caller = caller(&request)?;
        let wire::SwitchOnRequest { selector: wanted, everything, reason, force } = request.into_inner();
        let done = self.node.kill_switch_on(&caller, selector(wanted)?, (everything, force), &reason).await?;
        Ok(switched(&done))
    }

    async fn switch_off(
        &self,
        request: Request<wire::SwitchOffRequest>,
    ) -> Result<Response<wire::SwitchedResponse>, Status> {
        let caller = caller(&request)?;
        let wire::SwitchOffRequest { selector: wanted, all, reason } = request.into_inner();
        let wanted = selector(wanted)?;
        if all && !wanted.is_empty() {
            let text = "`all` and a selector contradict each other";
            return Err(ControlError::new(ErrorKind::Invalid, "PV-KILL-SELECTOR", text, "give one of them").into());
        }
        let done = self.node.kill_switch_off(&caller, (!all).then_some(wanted), &reason).await?;
        Ok(switched(&done))
    }

    async fn switches(
        &self,
        request: Request<wire::SwitchesRequest>,
    ) -> Result<Response<wire::SwitchedResponse>, Status> {
        let (revision, active) = self.node.kill_switches(&caller(&request)?).await?;
        Ok(switched(&Switched { revision, changed: false, switched: Vec::new(), active }))
    }

    async fn approve(
        &self,
        request: Request<wire::GovernToolsRequest>,
    ) -> Result<Response<wire::GovernedResponse>, Status> {
        let caller = caller(&request)?;
        let (of, reason) = tools_of(&caller, request.into_inner())?;
        Ok(governed(self.node.plugin_approve(&caller, &of, &reason).await?))
    }

    async fn quarantine(
        &self,
        request: Request<wire::GovernToolsRequest>,
    ) -> Result<Response<wire::GovernedResponse>, Status> {
        let caller = caller(&request)?;
        let (of, reason) = tools_of(&caller, request.into_inner())?;
        Ok(governed(self.node.plugin_quarantine(&caller, &of, &reason).await?))
    }

    async fn revoke_connections(
        &self,
        request: Request<wire::RevokeConnectionsRequest>,
    ) -> Result<Response<wire::RevokedConnectionsResponse>, Status> {
        let caller = caller(&request)?;
        let wire::RevokeConnectionsRequest { tenant, principal, plugin, reason } = request.into_inner();
        let of = OfConnections { tenant: name(&tenant)?, principal: name(&principal)?, plugin: name(&plugin)? };
        let done = self.node.revoke_connections(&caller, &of, &reason).await?;
        let revoked = done.connections.into_iter().map(|(tenant, principal, plugin)| wire::RevokedConnection {
            tenant: tenant.to_string(),
            principal: principal.to_string(),
            plugin: plugin.to_string(),
        });
        Ok(Response::new(wire::RevokedConnectionsResponse { revision: done.revision.0, revoked: revoked.collect() }))
    }
}
