//! What a plugin is asked to do.

use std::{sync::Arc, time::Instant};

use provost_data_pipeline::{ClientFacts, Operation, SubjectToken};
use provost_mcp::RawJson;
use provost_types::{CallId, PrincipalRef, Revision};

use crate::OtherTools;

/// One operation for one plugin.
#[derive(Clone, Debug)]
pub struct ExecuteRequest<'a> {
    /// What to do, with the plugin's own names (no prefixes).
    pub operation: Operation,
    /// The params as the client sent them. Names inside are replaced by the operation's; for a
    /// retry `requestState` is the plugin's own and `inputResponses` the answers.
    pub params: RawJson,
    /// The client.
    pub client: &'a ClientFacts,
    /// Who calls.
    pub principal: &'a PrincipalRef,
    /// The token that they came with, where it may be exchanged for one of the upstream's.
    pub subject: Option<&'a SubjectToken>,
    /// When to give up; the plugin's own timeout may come earlier.
    pub deadline: Instant,
    /// The revision of the policy that admitted it.
    pub revision: Revision,
    /// For logs.
    pub call_id: CallId,
    /// How a guest's own calls are made; `None`: it may make none.
    pub other_tools: Option<&'a Arc<dyn OtherTools>>,
}
