//! Callers who have not let a plugin act in their names yet: they are led to where they can.
//!
//! - A modern client gets an input-required result with an elicitation of mode `url`, and calls again.
//! - A client of 2025-11-25 that can be sent to addresses gets error -32042 with it, and is told when it is done.
//! - Any other gets an error that says the address.
//!
//! Invariants: nothing is sent to the upstream meanwhile; the address says nothing that a client could not know; what
//! the upstream itself asked for in the call waits in the state that comes back.

use std::time::Duration;

use provost_data_pipeline::{Call, Execution, Intended, Operation, Reply};
use provost_data_tools::{AuthorityTold, Consent, OwnConnection, Plugin, UpstreamError};
use provost_mcp::{Era, JsonLimits, ProtocolVersion, RawJson, RawObject, RpcError, capability};
use provost_types::{BoxFuture, Name, PrincipalRef};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::plane::Node;
use crate::connect::{ConsentFailed, Consented, Consents, START, Ticket, Tickets};

/// How our own state begins; executors' never do.
const STATE: &str = "provost-connect:";
/// The one input that is asked for.
const INPUT: &str = "connect";
/// Who says that they have been there is waited for so long: the node may hear of it a moment later.
const SETTLE: Duration = Duration::from_secs(5);

/// What the upstream had the client bring back, in the call that is interrupted.
#[derive(Default, Serialize, Deserialize)]
struct Interrupted {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    state: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    responses: Option<String>,
}

/// How the client answered, and the params as they were before it was asked.
struct Returned {
    params: RawJson,
    accepts: bool,
}

/// `None`: the request does not come back from here.
fn returned(params: &RawJson) -> Option<Returned> {
    let mut object = RawObject::parse(params).ok()?;
    let state = object.get_text("requestState")?;
    let before: Interrupted = serde_json::from_str(state.strip_prefix(STATE)?).ok()?;
    let answer = object.get_object("inputResponses").and_then(|responses| responses.get_object(INPUT));
    let accepts = answer.and_then(|answer| answer.get_text("action")).as_deref() == Some("accept");
    object.remove("requestState");
    object.remove("inputResponses");
    if let Some(state) = &before.state {
        object.set_text("requestState", state);
    }
    // A guard may have written into it.
    let responses = before.responses.and_then(|text| RawJson::check(text.into(), &JsonLimits::REQUEST).ok());
    if let Some(responses) = responses {
        object.set("inputResponses", responses);
    }
    Some(Returned { params: object.finish(), accepts })
}

impl Node {
    /// Looks after the consent that a call needs. `Some`: it ends here. Takes out of the params what is ours.
    pub(super) async fn consent_first(
        &self,
        plugin: &Plugin,
        call: &Call<Intended>,
        params: &mut RawJson,
    ) -> Option<Execution> {
        let consent = plugin.consent()?;
        let principal = &call.caller().principal;
        let Some(back) = returned(params) else {
            let given = consent.is_given(principal, Duration::ZERO).await;
            return if given { None } else { Some(self.ask_consent(plugin, call, params)) };
        };
        *params = back.params;
        if !back.accepts {
            let text = format!("the caller did not go to where plugin `{}` could be connected", plugin.name());
            let error = RpcError::with_code(RpcError::UPSTREAM_FAILED, UpstreamError::CONSENT, text);
            return Some(Execution::error(error));
        }
        let given = consent.is_given(principal, SETTLE).await;
        if given { None } else { Some(self.ask_consent(plugin, call, params)) }
    }

    /// A consent that is over is asked for anew.
    pub(super) fn consent_again(
        &self,
        plugin: &Plugin,
        call: &Call<Intended>,
        params: &RawJson,
        execution: Execution,
    ) -> Execution {
        let is_over = match &execution.reply {
            Reply::Error(error) => error.stable_code().as_deref() == Some(UpstreamError::CONSENT),
            Reply::Result { .. } | Reply::InputRequired(_) => false,
        };
        if is_over && plugin.consent().is_some() { self.ask_consent(plugin, call, params) } else { execution }
    }

    fn ask_consent(&self, plugin: &Plugin, call: &Call<Intended>, params: &RawJson) -> Execution {
        match self.asked(plugin, call, params) {
            Ok(execution) => execution,
            Err(why) => {
                let text = format!("plugin `{}`: {why}", plugin.name());
                Execution::error(RpcError::with_code(RpcError::UPSTREAM_FAILED, UpstreamError::CONSENT, text))
            }
        }
    }

    fn asked(&self, plugin: &Plugin, call: &Call<Intended>, params: &RawJson) -> Result<Execution, String> {
        let (principal, client) = (&call.caller().principal, &call.request().client);
        let elicitation = Tickets::random().map_err(|cause| cause.to_string())?;
        let url = self.connect_url(plugin, call, &elicitation)?;
        let message = format!(
            "The plugin {} acts in its users' names. Open the page to connect an account for {}.",
            plugin.name(),
            principal.name
        );
        let elicited = json!({"mode": "url", "elicitationId": elicitation, "url": url, "message": message});
        let question = RawJson::from(elicited.clone());
        let can_be_sent = capability::may_ask(&client.capabilities, "elicitation/create", Some(&question));
        let method = call.request().operation.method();
        match client.protocol_version.era() {
            Era::Modern if can_be_sent && capability::may_require_input(method) => {
                let before = interrupted(params);
                let state = serde_json::to_string(&before).map_err(|cause| cause.to_string())?;
                let mut body = RawObject::new();
                body.set_text("resultType", "input_required");
                let requests = json!({INPUT: {"method": "elicitation/create", "params": elicited}});
                body.set("inputRequests", RawJson::from(requests));
                body.set_text("requestState", &format!("{STATE}{state}"));
                Ok(Execution::input_required(body.finish()))
            }
            Era::Legacy if can_be_sent && client.protocol_version >= ProtocolVersion::V2025_11_25 => {
                let data = json!({"code": UpstreamError::CONSENT, "elicitations": [elicited]});
                Ok(Execution::error(RpcError {
                    code: RpcError::URL_ELICITATION_REQUIRED,
                    message,
                    data: Some(RawJson::from(data)),
                }))
            }
            _ => {
                let data = json!({"code": UpstreamError::CONSENT, "url": url});
                Ok(Execution::error(RpcError {
                    code: RpcError::UPSTREAM_FAILED,
                    message: format!("{message} {url}"),
                    data: Some(RawJson::from(data)),
                }))
            }
        }
    }

    fn connect_url(&self, plugin: &Plugin, call: &Call<Intended>, elicitation: &str) -> Result<String, String> {
        let base = self.first_address().ok_or("no address of this node is known to its users; set public_url")?;
        let tickets = self.tickets.get().ok_or("this node leads nobody to a consent")?;
        let session = &call.request().client.session;
        let ticket = Ticket {
            principal: call.caller().principal.clone(),
            plugin: plugin.name().clone(),
            elicitation: elicitation.to_owned(),
            session: session.as_deref().map(str::to_owned),
            made_ns: provost_data_pipeline::Plane::now_ns(self),
        };
        let sealed = tickets.seal(&ticket).map_err(|cause| cause.to_string())?;
        Ok(format!("{base}{START}?ticket={sealed}"))
    }

    fn plugin_of(&self, principal: &PrincipalRef, plugin: &Name) -> Option<std::sync::Arc<Plugin>> {
        self.toolbox.plugin(&principal.tenant, plugin.as_str())
    }
}

fn interrupted(params: &RawJson) -> Interrupted {
    let Ok(object) = RawObject::parse(params) else { return Interrupted::default() };
    let responses = object.get("inputResponses").map(|responses| responses.as_str().to_owned());
    Interrupted { state: object.get_text("requestState"), responses }
}

fn with<'p>(plugin: &'p Option<std::sync::Arc<Plugin>>) -> Result<Consent<'p>, ConsentFailed> {
    let none = || ConsentFailed::new("PV-CONNECT-TICKET", "The plugin is not there any more.");
    plugin.as_ref().and_then(|plugin| plugin.consent()).ok_or_else(none)
}

fn failed(cause: &UpstreamError) -> ConsentFailed {
    ConsentFailed::new("PV-CONNECT-FAILED", cause.to_string())
}

impl Consents for Node {
    fn began_ns(&self, principal: &PrincipalRef, plugin: &Name) -> Option<u64> {
        let plugin = self.plugin_of(principal, plugin)?;
        plugin.consent().map(|consent| consent.began_ns(principal))
    }

    fn authorization_url<'a>(
        &'a self,
        principal: &'a PrincipalRef,
        plugin: &'a Name,
        redirect: &'a str,
        (state, challenge): (&'a str, &'a str),
    ) -> BoxFuture<'a, Result<(String, Option<String>), ConsentFailed>> {
        Box::pin(async move {
            let plugin = self.plugin_of(principal, plugin);
            let sent = with(&plugin)?.authorization_url(redirect, state, challenge).await;
            sent.map_err(|cause| failed(&cause))
        })
    }

    fn check_issuer<'a>(
        &'a self,
        principal: &'a PrincipalRef,
        plugin: &'a Name,
        asked: Option<&'a str>,
        said: Option<&'a str>,
    ) -> BoxFuture<'a, Result<(), ConsentFailed>> {
        Box::pin(async move {
            let plugin = self.plugin_of(principal, plugin);
            with(&plugin)?.check_issuer(asked, said).await.map_err(|cause| failed(&cause))
        })
    }

    fn finish<'a>(&'a self, consented: Consented<'a>) -> BoxFuture<'a, Result<(), ConsentFailed>> {
        Box::pin(async move {
            let Consented { principal, plugin, code, verifier, redirect, began_ns } = consented;
            let plugin = self.plugin_of(principal, plugin);
            let consent = with(&plugin)?;
            let given = consent.given(principal, code, (verifier, redirect), began_ns).await;
            match given.map_err(|cause| failed(&cause))? {
                true => {
                    // So that who goes on at once finds it here.
                    consent.is_given(principal, SETTLE).await;
                    Ok(())
                }
                false => Err(ConsentFailed::new("PV-CONNECT-STATE", "This was answered already.")),
            }
        })
    }

    fn own(&self, principal: &PrincipalRef) -> Vec<OwnConnection> {
        self.toolbox.connections_of(principal)
    }

    fn end<'a>(
        &'a self,
        principal: &'a PrincipalRef,
        plugin: &'a Name,
        began_ns: u64,
    ) -> BoxFuture<'a, Result<Option<AuthorityTold>, ConsentFailed>> {
        Box::pin(async move {
            let ended = self.toolbox.disconnect(principal, plugin, began_ns).await;
            ended.map_err(|cause| failed(&cause))
        })
    }
}

/// Operations that act in the caller's name; lists are fetched for all.
pub(super) fn needs_consent(operation: &Operation) -> bool {
    matches!(
        operation,
        Operation::CallTool(_)
            | Operation::GetPrompt(_)
            | Operation::ReadResource(_)
            | Operation::Complete { .. }
            | Operation::Subscribe(_)
            | Operation::Task { .. }
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_was_interrupted_goes_on_as_it_was() {
        let plain = json!({"name": "t", "arguments": {"a": 1}});
        let mut asked = plain.clone();
        asked["requestState"] = json!("the upstream's");
        asked["inputResponses"] = json!({"q": {"action": "accept"}});
        for before in [plain, asked] {
            let state =
                format!("{STATE}{}", serde_json::to_string(&interrupted(&RawJson::from(before.clone()))).unwrap());
            for (action, accepts) in [("accept", true), ("decline", false), ("cancel", false)] {
                let mut back = before.clone();
                back["requestState"] = json!(state);
                back["inputResponses"] = json!({INPUT: {"action": action}});
                let back = returned(&RawJson::from(back)).unwrap();
                assert_eq!(back.accepts, accepts);
                assert_eq!(back.params.parse::<serde_json::Value>().unwrap(), before);
            }
            assert!(returned(&RawJson::from(before)).is_none(), "another's state");
        }
    }

    #[test]
    fn what_two_readers_would_read_in_two_ways_does_not_come_back() {
        let state = json!({"responses": r#"{"q":{"action":"accept"},"q":{"action":"decline"}}"#});
        let back = json!({"name": "t", "requestState": format!("{STATE}{state}")});
        let back = returned(&RawJson::from(back)).unwrap();
        assert_eq!(back.params.as_str(), r#"{"name":"t"}"#);
    }
}
