//! The limit stage: what a call counts as under quotas.
//!
//! Counted are calls of tools, prompts, resources and models; lists, completions, subscriptions
//! and the polling of tasks are not. A question to the client inside one call (legacy eras) is part
//! of it; an answer by a call of its own (MRTR) counts as a call.

use provost_data_pipeline::{Admitted, Call, Operation, Rejection, Reservation};
use provost_data_policy::quota::QuotaCall;
use provost_mcp::{RawJson, RawObject};

use super::{compiled::Compiled, models, plane::Node};
use crate::quota::no_client;

/// Tokens that a chat template adds to what the caller wrote, at most.
const TEMPLATE_TOKENS: u64 = 256;
/// Tokens of an answer by the `inference` built-in's `chat` where the caller names no bound.
const TOOL_MAX_TOKENS: u64 = 256;
/// Hexadecimal digits that stand for a conversation in an account's name.
const WORKFLOW_DIGITS: usize = 32;

/// Takes units of the quotas that cover the call.
pub(super) async fn reserve(node: &Node, compiled: &Compiled, call: &Call<Admitted>) -> Result<Reservation, Rejection> {
    let principal = &call.caller().principal;
    if !compiled.quotas.has_any(&principal.tenant) {
        return Ok(Reservation::default());
    }
    let Some(facts) = CallFacts::of(compiled, call) else { return Ok(Reservation::default()) };
    let quota_call = QuotaCall {
        tenant: &principal.tenant,
        principal: &principal.name,
        tool: facts.tool,
        model: facts.model.as_deref(),
        workflow: &facts.workflow,
        tokens: facts.tokens,
        // Until models have prices.
        cost_micro: 0,
    };
    match &node.quotas {
        Some(quotas) => quotas.reserve(&compiled.quotas, &quota_call).await,
        None if compiled.quotas.matching(&quota_call).any(|q| q.units(&quota_call) > 0) => {
            Err(no_client(principal.tenant.as_str()))
        }
        None => Ok(Reservation::default()),
    }
}

/// What quotas look at.
struct CallFacts<'a> {
    tool: Option<&'a str>,
    model: Option<String>,
    workflow: String,
    tokens: u64,
}

impl<'a> CallFacts<'a> {
    /// `None`: the operation is not counted.
    fn of(compiled: &Compiled, call: &'a Call<Admitted>) -> Option<Self> {
        let (request, target) = (call.request(), call.target());
        let mut facts = Self { tool: None, model: None, workflow: workflow(call), tokens: 0 };
        match &request.operation {
            Operation::CallTool(_) => {
                facts.tool = Some(&target.full);
                let tenant = &call.caller().principal.tenant;
                if target.plugin.as_ref().is_some_and(|plugin| compiled.is_inference(tenant, plugin)) {
                    let arguments = RawObject::parse(&request.params).ok().and_then(|p| p.get("arguments"));
                    let arguments = arguments.as_ref().and_then(|a| RawObject::parse(a).ok()).unwrap_or_default();
                    facts.model = arguments.get_text("model");
                    facts.tokens = match &*target.local {
                        "chat" => worst_case(&request.params, &arguments, &["maxTokens"], TOOL_MAX_TOKENS),
                        "embed" => read_at_most(&request.params),
                        _ => 0,
                    };
                }
            }
            Operation::Chat(_) => {
                facts.model = Some(target.full.clone());
                let body = RawObject::parse(&request.params).unwrap_or_default();
                // The first that is given holds, as in the request to the model.
                let bounds = ["max_completion_tokens", "max_tokens"];
                facts.tokens = worst_case(&request.params, &body, &bounds, u64::from(models::DEFAULT_MAX_TOKENS));
            }
            Operation::Embed(_) => {
                facts.model = Some(target.full.clone());
                facts.tokens = read_at_most(&request.params);
            }
            Operation::GetPrompt(_) | Operation::ReadResource(_) => {}
            _ => return None,
        }
        Some(facts)
    }
}

/// A conversation's id is the client's own text, of any length.
fn workflow(call: &Call<Admitted>) -> String {
    match call.request().trace.workflow.as_deref() {
        None | Some("") => String::new(),
        Some(id) => {
            let mut digits = blake3::hash(id.as_bytes()).to_hex().to_string();
            digits.truncate(WORKFLOW_DIGITS);
            digits
        }
    }
}

/// A token stands for at least one byte of the text, and the text is part of the parameters.
fn read_at_most(params: &RawJson) -> u64 {
    TEMPLATE_TOKENS.saturating_add(params.as_bytes().len() as u64)
}

/// Tokens read and made, at most.
fn worst_case(params: &RawJson, object: &RawObject, bounds: &[&str], default: u64) -> u64 {
    let bound = bounds.iter().find_map(|name| object.get(name)?.parse::<u64>().ok());
    read_at_most(params).saturating_add(bound.unwrap_or(default))
}
