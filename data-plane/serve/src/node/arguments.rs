//! The arguments of a tool, and whether they fit its schema.

use provost_data_pipeline::{Call, Operation, Rejection, RejectionKind, Request, Resolved, Target};
use provost_mcp::RawJson;
use provost_types::Name;

use super::plane::Node;

impl Node {
    /// Whether the arguments of a tool fit its schema.
    pub(super) fn check_arguments(&self, tenant: &Name, target: &Target, request: &Request) -> Result<(), Rejection> {
        let Operation::CallTool(_) = &request.operation else { return Ok(()) };
        let Some(plugin) = self.serving(tenant, target) else { return Ok(()) };
        let arguments = arguments(&request.params).unwrap_or(RawJson::EMPTY_OBJECT);
        plugin.validate(&target.local, &arguments).map_err(|problem| {
            Rejection::new(
                RejectionKind::Invalid,
                "PV-ARGS-SCHEMA",
                format!("the arguments of {} do not fit its input schema: {}", target.full, problem.0),
            )
        })
    }
}

/// After a denial: whether the arguments of a tool whose policy reads the SQL in them fit its schema.
pub(super) fn unreadable(node: &Node, call: &Call<Resolved>) -> Result<(), Rejection> {
    let (tenant, target) = (&call.caller().principal.tenant, call.target());
    match node.serving(tenant, target).filter(|plugin| plugin.sql().is_some()) {
        Some(_) => node.check_arguments(tenant, target, call.request()),
        None => Ok(()),
    }
}

/// The `arguments` object of a `tools/call`.
pub(super) fn arguments(params: &RawJson) -> Option<RawJson> {
    params.member("arguments")
}
