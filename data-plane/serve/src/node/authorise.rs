//! What policy is asked: whether a call may be made, and whether its object is seen in lists.

use std::net::IpAddr;

use provost_data_pipeline::{Call, Caller, Operation, Plane, Resolved};
use provost_data_policy::{AccessRequest, Facts, SqlFacts};
use provost_mcp::RawJson;
use provost_types::{Decision, Effect, Name, PrincipalRef};

use super::{access, arguments::arguments, compiled::Compiled, plane::Node};

impl Node {
    /// Whether the caller may see the object in lists.
    pub(super) fn may_see(
        &self,
        compiled: &Compiled,
        caller: &Caller,
        target: (provost_types::Action, Option<&str>, &str),
    ) -> bool {
        let (action, plugin, full) = target;
        let PrincipalRef { tenant, name } = &caller.principal;
        let (token, facts) = (caller.token.as_deref(), Facts::default());
        let access = AccessRequest { tenant, principal: name, token, action, plugin, target: full, facts: &facts };
        compiled.engine.may_see_object(&access, self.now_ns())
    }

    /// What a SQL text in the arguments does, where the plugin is a database.
    fn sql_facts(&self, call: &Call<Resolved>) -> Option<SqlFacts> {
        let target = call.target();
        let Operation::CallTool(_) = &call.request().operation else { return None };
        let plugin = self.serving(&call.caller().principal.tenant, target)?;
        // Before the arguments are read: hardly any plugin is a database.
        let sql = plugin.sql()?;
        let arguments = arguments(&call.request().params)?.parse().ok()?;
        // A text that cannot be parsed has no facts; the plugin refuses it, and so does a policy
        // that asks for them.
        sql.facts(&target.local, &arguments).ok()?
    }
}

/// What policy says of the call.
pub(super) fn authorise(node: &Node, snapshot: &Compiled, call: &Call<Resolved>) -> Decision {
    let (request, target) = (call.request(), call.target());
    let Some(action) = target.action else {
        return Decision {
            effect: Effect::Allow,
            policies: Vec::new(),
            observed: Vec::new(),
            reason: "lists are filtered by what the caller may use".to_owned(),
            revision: snapshot.revision(),
        };
    };
    let arguments = arguments(&request.params);
    let sql = node.sql_facts(call);
    let facts = Facts {
        arguments: arguments.as_ref().map(RawJson::as_str),
        sql: sql.as_ref(),
        transport: request.client.transport,
        client_address: request.client.address.as_deref().and_then(address),
    };
    let PrincipalRef { tenant, name } = &call.caller().principal;
    let request = AccessRequest {
        tenant,
        principal: name,
        token: call.caller().token.as_deref(),
        action,
        plugin: target.plugin.as_ref().map(Name::as_str),
        target: &target.full,
        facts: &facts,
    };
    let is_inference = target.plugin.as_ref().is_some_and(|plugin| snapshot.is_inference(tenant, plugin));
    access::decide(&snapshot.engine, &request, is_inference, node.now_ns())
}

/// An address with or without a port.
fn address(text: &str) -> Option<IpAddr> {
    text.parse().ok().or_else(|| text.parse::<std::net::SocketAddr>().ok().map(|a| a.ip()))
}
