//! The limit stage: what a call counts as under quotas.
//!
//! Counted are calls of tools, prompts, resources and models; lists, completions, subscriptions
//! and the polling of tasks are not. A question to the client inside one call (legacy eras) is part
//! of it; an answer by a call of its own (MRTR) counts as a call.
//!
//! Tokens and money are reserved for the worst case: what can be read is bounded by the bytes of the
//! parameters, what can be made by the bound that the caller gives or the default.

mod shown;

use provost_data_pipeline::{Admitted, Call, Intended, Operation, Rejection, Request, Reservation, Target};
use provost_data_policy::{CallPrice, RunModel, quota::QuotaCall};
use provost_mcp::{RawJson, RawObject};
use provost_types::{Name, Sound};

use super::{compiled::Compiled, models, plane::Node, sound};
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
    let facts = CallFacts::of(node, compiled, &principal.tenant, call.request(), call.target());
    let Some(facts) = facts else { return Ok(Reservation::default()) };
    let price = compiled.prices.of(&principal.tenant, facts.tool, facts.model());
    let quota_call = QuotaCall {
        tenant: &principal.tenant,
        principal: &principal.name,
        tool: facts.tool,
        model: facts.model(),
        workflow: &facts.workflow,
        tokens: facts.tokens_in.saturating_add(facts.tokens_out),
        cost_micro: price.cost_micro(facts.tokens_in, facts.tokens_out),
    };
    match &node.quotas {
        Some(quotas) => quotas.reserve(&compiled.quotas, &quota_call).await,
        None if compiled.quotas.matching(&quota_call).any(|q| q.units(&quota_call) > 0) => {
            Err(no_client(principal.tenant.as_str()))
        }
        None => Ok(Reservation::default()),
    }
}

/// What a call that runs costs; nothing if it is not counted.
pub(super) fn price(node: &Node, compiled: &Compiled, call: &Call<Intended>) -> CallPrice {
    let tenant = &call.caller().principal.tenant;
    if !compiled.prices.has_any(tenant) {
        return CallPrice::default();
    }
    let facts = CallFacts::of(node, compiled, tenant, call.request(), call.target());
    facts.map(|f| compiled.prices.of(tenant, f.tool, f.model())).unwrap_or_default()
}

/// What quotas and prices look at.
struct CallFacts<'a> {
    tool: Option<&'a str>,
    model: Option<String>,
    /// What the model is an adapter over.
    base: Option<String>,
    workflow: String,
    /// Tokens that are read, at most.
    tokens_in: u64,
    /// Tokens that are made, at most.
    tokens_out: u64,
}

impl<'a> CallFacts<'a> {
    /// `None`: the operation is not counted.
    fn of(node: &Node, compiled: &Compiled, tenant: &Name, request: &'a Request, target: &'a Target) -> Option<Self> {
        let workflow = workflow(request);
        let mut facts = Self { tool: None, model: None, base: None, workflow, tokens_in: 0, tokens_out: 0 };
        let params = &request.params;
        match &request.operation {
            Operation::CallTool(_) => {
                facts.tool = Some(&target.full);
                if target.plugin.as_ref().is_some_and(|plugin| compiled.is_inference(tenant, plugin)) {
                    let arguments = RawObject::parse(params).ok().and_then(|p| p.get("arguments"));
                    let arguments = arguments.as_ref().and_then(|a| RawObject::parse(a).ok()).unwrap_or_default();
                    facts.model = arguments.get_text("model");
                    let makes = &*target.local == "chat";
                    if makes || &*target.local == "embed" {
                        facts.tokens_in = read_at_most(params);
                    }
                    if &*target.local == sound::TOOL {
                        (facts.tokens_in, facts.tokens_out) = heard_at_most(&sound::given(&arguments), &arguments);
                    }
                    if makes {
                        facts.tokens_in = facts.tokens_in.saturating_add(shown::bytes_of_tool(&arguments));
                        facts.tokens_out = made_at_most(&arguments, &["maxTokens"], TOOL_MAX_TOKENS);
                    }
                }
            }
            Operation::Chat(_) => {
                facts.model = Some(target.full.clone());
                let body = RawObject::parse(params).unwrap_or_default();
                // The first that is given holds, as in the request to the model.
                let bounds = ["max_completion_tokens", "max_tokens"];
                facts.tokens_in = read_at_most(params);
                facts.tokens_out = made_at_most(&body, &bounds, u64::from(models::default_max_tokens(&body)));
            }
            Operation::Embed(_) => {
                facts.model = Some(target.full.clone());
                facts.tokens_in = read_at_most(params);
            }
            Operation::Transcribe(_) => {
                facts.model = Some(target.full.clone());
                let (sound, fields) = (request.sound.clone().unwrap_or_default(), RawObject::parse(params));
                (facts.tokens_in, facts.tokens_out) = heard_at_most(&sound, &fields.unwrap_or_default());
            }
            Operation::GetPrompt(_) | Operation::ReadResource(_) => {}
            _ => return None,
        }
        facts.base = facts.model.as_deref().and_then(|model| node.inference.base_of(model));
        Some(facts)
    }

    fn model(&self) -> Option<RunModel<'_>> {
        self.model.as_deref().map(|name| RunModel { name, base: self.base.as_deref() })
    }
}

/// A conversation's id is the client's own text, of any length.
fn workflow(request: &Request) -> String {
    match request.trace.workflow.as_deref() {
        None | Some("") => String::new(),
        Some(id) => {
            let mut digits = blake3::hash(id.as_bytes()).to_hex().to_string();
            digits.truncate(WORKFLOW_DIGITS);
            digits
        }
    }
}

/// A token stands for at least one byte of the text, and the text is part of the parameters, or what tools and calls become.
pub(super) fn read_at_most(params: &RawJson) -> u64 {
    TEMPLATE_TOKENS.saturating_add(params.as_bytes().len() as u64).saturating_add(shown::bytes(params))
}

/// Tokens that are read of a recording and its fields, and made of it, at most.
pub(super) fn heard_at_most(sound: &Sound, fields: &RawObject) -> (u64, u64) {
    sound.tokens_at_most(fields.get_text("prompt").map_or(0, |prompt| prompt.len()))
}

/// The bound that the caller gives, under the first of these names that is there.
fn made_at_most(object: &RawObject, bounds: &[&str], default: u64) -> u64 {
    bounds.iter().find_map(|name| object.get(name)?.parse::<u64>().ok()).unwrap_or(default)
}
