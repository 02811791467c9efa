//! Why one call is, was or would be decided as it is.

use std::collections::HashMap;

use bytes::Bytes;
use prost::Message;
use provost_audit_core::Record;
use provost_control_api::Caller;
use provost_data_policy::{AccessRequest, Explanation, Facts, Unknown};
use provost_data_serve::node::{Judge, Question};
use provost_data_tools::names;
use provost_mcp::{JsonFault, JsonLimits, RawJson};
use provost_types::{Action, Decision, Name, PrincipalRef, Snapshot};
use provost_wire::admin::{Failure, NoteReadRequest, NoteReadResponse, ShowBodyRequest, ShowBodyResponse, WhyRequest};
use serde::{Deserialize, Serialize};
use tonic::{Code, Status};

use super::{
    page::{action, word},
    recorded::{Arguments, Recorded, address, arguments_in, is_pseudonym, omitted},
};
use crate::{
    audit_admin::{AuditAccess, Question as AuditQuestion, now_ns},
    audit_caller::invalid,
};

/// The answer, as JSON; the command line makes sentences of it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    pub tenant: String,
    pub principal: String,
    pub action: String,
    pub target: String,
    /// Nanoseconds since 1970: as of when the call was decided.
    pub at_ns: u64,
    /// The revision that was asked.
    pub revision: u64,
    /// For a recorded call: what was decided then, under which revision.
    pub recorded: Option<Then>,
    /// What of a recorded call is not known; then the decision may have been another.
    pub unknown: Option<String>,
    /// Of the tool, or of whatever was named.
    pub explanation: Explanation,
    /// A tool behind which stands a model: the model must be permitted too.
    pub model: Option<Explanation>,
    /// Both together.
    pub decision: Decision,
}

/// What a record says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Then {
    pub index: u64,
    pub phase: provost_types::Phase,
    pub revision: u64,
    pub policies: Vec<String>,
    pub error: Option<String>,
    pub reason: Option<String>,
}

/// A call to be explained.
struct Call {
    principal: Name,
    action: Action,
    plugin: Option<String>,
    target: String,
    transport: String,
    address: Option<std::net::IpAddr>,
    arguments: Option<String>,
    at_ns: u64,
    recorded: Option<Then>,
    unknown: Option<&'static str>,
    what: Unknown,
}

/// Explains a call under `state`. A recorded one is read through a node of the audit log, and that it was
/// read is recorded.
pub async fn explain(
    audit: &AuditAccess,
    caller: &Caller,
    asked: WhyRequest,
    state: Snapshot,
) -> Result<Answer, Status> {
    let tenant = Name::new(&asked.tenant).map_err(|e| invalid("PV-CLI-TENANT", e, "name a tenant"))?;
    let compiled = tokio::task::spawn_blocking(move || Judge::new(&state).map(|judge| (judge, state.revision)));
    let compiled = compiled.await.map_err(|e| Status::internal(e.to_string()))?;
    let (judge, revision) = compiled.map_err(|problems| {
        let text = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        Failure::new("PV-SIM-STATES", text, "do all nodes run the same version?").into_status(Code::FailedPrecondition)
    })?;
    let call = match asked.record {
        Some(index) => recorded(audit, caller, &tenant, index, &judge).await?,
        None => described(&asked, &tenant, &judge)?,
    };
    let explained = tokio::task::spawn_blocking(move || tell(&judge, tenant, revision.0, call)).await;
    explained.map_err(|e| Status::internal(e.to_string()))
}

fn tell(judge: &Judge, tenant: Name, revision: u64, call: Call) -> Answer {
    let facts = Facts {
        arguments: call.arguments.as_deref(),
        sql: None,
        transport: &call.transport,
        client_address: call.address,
    };
    let access = AccessRequest {
        token: None,
        tenant: &tenant,
        principal: &call.principal,
        action: call.action,
        plugin: call.plugin.as_deref(),
        target: &call.target,
        facts: &facts,
    };
    let question = Question { access, unknown: call.what, at_ns: call.at_ns };
    let (explanation, model) = judge.explain(&question);
    let certain = judge.decide(&question);
    let decision = certain.clone().unwrap_or_else(|| match &model {
        Some(model) if explanation.decision.is_allow() => model.decision.clone(),
        _ => explanation.decision.clone(),
    });
    Answer {
        tenant: tenant.to_string(),
        principal: call.principal.to_string(),
        action: word(call.action),
        target: call.target.clone(),
        at_ns: call.at_ns,
        revision,
        recorded: call.recorded,
        unknown: call.unknown.filter(|_| certain.is_none()).map(str::to_owned),
        explanation,
        model,
        decision,
    }
}

/// A call as somebody describes it.
fn described(asked: &WhyRequest, tenant: &Name, judge: &Judge) -> Result<Call, Status> {
    let refuse = |text: String, hint: &str| invalid("PV-WHY-CALL", text, hint);
    let principal = Name::new(&asked.principal).map_err(|e| refuse(e.to_string(), "name a principal"))?;
    let action = action(&asked.action).ok_or_else(|| refuse(format!("`{}` is no action", asked.action), ""))?;
    let mut target = asked.target.clone();
    let at_ns = if asked.at_ns == 0 { now_ns() } else { asked.at_ns };
    let plugin = match action {
        Action::UseModel => None,
        // Policy knows it by its upstream's URI.
        Action::ReadResource => match names::split_uri(&asked.target) {
            Some((plugin, uri)) if judge.has_plugin(tenant, plugin) => {
                target = uri.to_owned();
                Some(plugin.to_owned())
            }
            _ => None,
        },
        Action::CallTool | Action::GetPrompt => {
            let plugin_of = |full: &str| {
                names::split(full, |name| judge.has_plugin(tenant, name)).map(|(plugin, _)| plugin.to_owned())
            };
            let mut found = plugin_of(&target);
            if found.is_none() && action == Action::CallTool {
                let caller = PrincipalRef { tenant: tenant.clone(), name: principal.clone() };
                match judge.behind_alias(&caller, &target, at_ns) {
                    // Policy knows the tool that stands behind it for this caller.
                    Some(Ok(tool)) => {
                        found = plugin_of(&tool);
                        target = tool;
                    }
                    Some(Err(retired)) => return Err(refuse(retired, "no policy is asked about a call of it")),
                    None => {}
                }
            }
            let hint = "write it as lists show it, `plugin.name`; `provost get Plugin` lists the plugins";
            let text = || format!("no plugin of tenant {tenant} serves `{}`", asked.target);
            Some(found.ok_or_else(|| refuse(text(), hint))?)
        }
    };
    let arguments = match asked.arguments.as_str() {
        "" => None,
        text => {
            // As a node reads them: what it would not take, such as a member named twice, no policy is asked about.
            let hint = "write one object with each name once: {\"name\": …}";
            let read = RawJson::check(Bytes::copy_from_slice(text.as_bytes()), &JsonLimits::REQUEST);
            let object = read.and_then(|raw| if raw.is_object() { Ok(raw) } else { Err(JsonFault::NotAnObject) });
            let object = object.map_err(|e| refuse(format!("the arguments are refused: {e}"), hint))?;
            Some(object.as_str().to_owned())
        }
    };
    let peer = match asked.address.as_str() {
        "" => None,
        text => Some(address(text).ok_or_else(|| refuse(format!("`{text}` is no address"), "write 10.0.0.7"))?),
    };
    Ok(Call {
        principal,
        action,
        plugin,
        target,
        transport: asked.transport.clone(),
        address: peer,
        arguments,
        at_ns,
        recorded: None,
        unknown: None,
        what: Unknown::default(),
    })
}

/// A call from its record.
async fn recorded(
    audit: &AuditAccess,
    caller: &Caller,
    tenant: &Name,
    index: u64,
    judge: &Judge,
) -> Result<Call, Status> {
    let internal = |e: prost::DecodeError| Status::internal(e.to_string());
    let question = ShowBodyRequest { tenant: tenant.to_string(), index };
    let answer = audit.ask(caller.clone(), AuditQuestion::ShowBody(question)).await?;
    let shown = ShowBodyResponse::decode(answer.as_slice()).map_err(internal)?;
    let record = Record::decode(shown.record.as_bytes()).map_err(|e| Status::data_loss(e.to_string()))?;
    let mut names = HashMap::new();
    if record.principal.as_deref().is_some_and(is_pseudonym) {
        let (command, filter) = ("show".to_owned(), format!("record={index}"));
        let question = NoteReadRequest { command, tenant: tenant.to_string(), filter };
        let answer = audit.ask(caller.clone(), AuditQuestion::NoteRead(question)).await?;
        let known = NoteReadResponse::decode(answer.as_slice()).map_err(internal)?.identities;
        names.extend(known.into_iter().map(|known| (known.pseudonym, known.name)));
    }
    let refuse = |text: String| invalid("PV-WHY-RECORD", text, "give the index of a call's intent or denial");
    let call = Recorded::read(&record, &names, |name| judge.has_plugin(tenant, name))
        .ok_or_else(|| refuse(format!("record {index} of {tenant} is not a call that policy decides on")))?
        .map_err(|why| refuse(format!("record {index} of {tenant} does not say enough of the call: {why}")))?;
    let arguments = match shown.state.as_str() {
        "opened" => arguments_in(&record, &shown.body),
        "erased" => Arguments::Unknown("erased"),
        "omitted" => Arguments::Unknown(omitted(&shown.detail)),
        _ => Arguments::Unknown("no_body"),
    };
    let (arguments, hidden) = match arguments {
        Arguments::Known(known) => (known, None),
        Arguments::Unknown(why) => (None, Some(why)),
    };
    let what = Unknown { arguments: hidden.is_some(), address: call.address_hidden };
    Ok(Call {
        principal: call.principal,
        action: call.action,
        plugin: call.plugin,
        target: call.target,
        transport: call.transport,
        address: call.address,
        arguments,
        at_ns: call.time_ns,
        recorded: Some(Then {
            index,
            phase: record.phase,
            revision: record.revision,
            policies: record.policies.iter().map(ToString::to_string).collect(),
            error: record.error_type.as_deref().map(str::to_owned),
            reason: record.reason.as_deref().map(str::to_owned),
        }),
        unknown: hidden.or(call.address_hidden.then_some("no_address")),
        what,
    })
}
