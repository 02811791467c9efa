//! From a record back to the question that policy was asked.

use std::{collections::HashMap, net::IpAddr};

use bytes::Bytes;
use provost_audit_core::Record;
use provost_audit_store::{BodyError, BodyState};
use provost_data_policy::{AccessRequest, Facts, Unknown};
use provost_data_serve::node::Question;
use provost_data_tools::names;
use provost_mcp::{JsonLimits, RawJson, RawObject};
use provost_types::{Action, Decision, Effect, Name, Phase};

use super::states::Judges;

/// What stands in place of what redaction took out of a body.
const REDACTED: &[u8] = b"[redacted]";
/// The end of a text that the log cut.
const CUT: char = '…';

/// How records begin to say that a caller came with a token of an identity provider.
const BY_TOKEN: &str = "jwt:";

/// Why a recorded call cannot be decided; the words are part of the output.
pub type Why = &'static str;

/// A recorded call that policy had a say in.
#[derive(Debug)]
pub struct Recorded {
    pub principal: Name,
    pub action: Action,
    pub plugin: Option<String>,
    pub target: String,
    pub transport: String,
    pub address: Option<IpAddr>,
    /// The record does not say the address, because it says a pseudonym instead of a name.
    pub address_hidden: bool,
    pub time_ns: u64,
    /// What policy said then; `None`: the record does not say.
    pub decided: Option<Effect>,
}

/// The arguments of a call, as far as they are known.
#[derive(Debug, PartialEq, Eq)]
pub enum Arguments {
    /// These, as they came; `None`: it had none.
    Known(Option<String>),
    Unknown(Why),
}

/// The action that a method asks for; `None`: policy is not asked.
fn action(method: &str, target: &str) -> Option<Action> {
    Some(match method {
        "tools/call" => Action::CallTool,
        "prompts/get" => Action::GetPrompt,
        "resources/read" | "resources/subscribe" | "resources/unsubscribe" => Action::ReadResource,
        // A prompt's name has no colon, a URI has.
        "completion/complete" if target.contains(':') => Action::ReadResource,
        "completion/complete" => Action::GetPrompt,
        "inference/chat" | "inference/embed" | "inference/transcribe" => Action::UseModel,
        _ => return None,
    })
}

impl Recorded {
    /// Reads a record; `None`: not a call, or none that policy is asked about. `names`: whom pseudonyms
    /// stand for.
    pub fn read(
        record: &Record<'_>,
        names: &HashMap<String, String>,
        is_plugin: impl Fn(&str) -> bool,
    ) -> Option<Result<Self, Why>> {
        if !matches!(record.phase, Phase::Intent | Phase::Denied) {
            return None;
        }
        let target = record.called()?;
        let action = action(record.method.as_deref()?, target)?;
        let principal = record.principal.as_deref()?;
        Some(Self::of(record, (principal, target, action), names, is_plugin))
    }

    fn of(
        record: &Record<'_>,
        (principal, target, action): (&str, &str, Action),
        names: &HashMap<String, String>,
        is_plugin: impl Fn(&str) -> bool,
    ) -> Result<Self, Why> {
        // What their tokens gave them is not in the log.
        if record.authenticated_by.as_deref().is_some_and(|by| by.starts_with(BY_TOKEN)) {
            return Err("token");
        }
        let known = names.get(principal);
        if known.is_none() && is_pseudonym(principal) {
            return Err("unknown_principal");
        }
        let name = known.map_or(principal, String::as_str);
        let principal = Name::new(name).map_err(|_| "unknown_principal")?;
        if target.ends_with(CUT) {
            return Err("cut");
        }
        // A guard may have changed the URI itself before it was recorded.
        if action == Action::ReadResource && is_altered(record) {
            return Err("altered");
        }
        let (plugin, target) = match (record.plugin.as_deref(), action) {
            // As it was asked for, in records of earlier versions; policy is asked by its upstream's URI.
            (Some(plugin), Action::ReadResource) => {
                let merged = names::split_uri(target).filter(|(own, _)| *own == plugin);
                (Some(plugin.to_owned()), merged.map_or(target, |(_, uri)| uri))
            }
            (Some(plugin), _) => (Some(plugin.to_owned()), target),
            (None, Action::UseModel) => (None, target),
            // Refused before it was known whose it is: by its name.
            (None, Action::ReadResource) => {
                let (plugin, uri) = names::split_uri(target).ok_or("no_plugin")?;
                (Some(plugin.to_owned()), uri)
            }
            (None, _) => (Some(names::split(target, is_plugin).ok_or("no_plugin")?.0.to_owned()), target),
        };
        let decided = match (record.phase, record.error_type.as_deref()) {
            (Phase::Intent, _) => Some(Effect::Allow),
            (_, Some("PV-POLICY-DENIED")) => Some(Effect::Deny),
            _ => None,
        };
        Ok(Self {
            principal,
            action,
            plugin,
            target: target.to_owned(),
            transport: record.transport.as_deref().unwrap_or_default().to_owned(),
            address: record.client_address.as_deref().and_then(address),
            address_hidden: known.is_some() && record.client_address.is_none(),
            time_ns: record.time_ns,
            decided,
        })
    }

    /// Asks both states; `None` for one that cannot say.
    pub fn decide(&self, tenant: &Name, judges: &Judges, arguments: Option<&Option<String>>) -> [Option<Decision>; 2] {
        let facts = Facts {
            arguments: arguments.and_then(|a| a.as_deref()),
            sql: None,
            transport: &self.transport,
            client_address: self.address,
        };
        let access = AccessRequest {
            token: None,
            tenant,
            principal: &self.principal,
            action: self.action,
            plugin: self.plugin.as_deref(),
            target: &self.target,
            facts: &facts,
        };
        let unknown = Unknown { arguments: arguments.is_none(), address: self.address_hidden };
        let question = Question { access, unknown, at_ns: self.time_ns };
        [judges.before.decide(&question), judges.after.decide(&question)]
    }
}

/// The arguments in the body of a record.
pub fn arguments(record: &Record<'_>, opened: Result<BodyState, BodyError>) -> Arguments {
    match opened {
        Ok(BodyState::Opened(body)) => arguments_in(record, &body),
        Ok(BodyState::Erased(_)) => Arguments::Unknown("erased"),
        Ok(BodyState::Omitted(why)) => Arguments::Unknown(omitted(&why)),
        Ok(BodyState::None) => Arguments::Unknown("no_body"),
        Err(BodyError::NoKey(_)) => Arguments::Unknown("no_key"),
        Err(_) => Arguments::Unknown("damaged"),
    }
}

/// Why there is no body, by the word of the record.
pub fn omitted(why: &str) -> Why {
    if why == "too_long" { "too_long" } else { "not_kept" }
}

/// The arguments in an opened body, if they are those that policy saw.
pub fn arguments_in(record: &Record<'_>, body: &[u8]) -> Arguments {
    let redacted = record.redaction.is_some() && body.windows(REDACTED.len()).any(|part| part == REDACTED);
    if is_altered(record) || redacted {
        return Arguments::Unknown("altered");
    }
    let params = RawJson::check(Bytes::copy_from_slice(body), &JsonLimits::REQUEST);
    match params.and_then(|params| RawObject::parse(&params)) {
        Ok(params) => Arguments::Known(params.get("arguments").map(|raw| raw.as_str().to_owned())),
        Err(_) => Arguments::Unknown("damaged"),
    }
}

/// Whether a guard changed what was asked before it was kept: policy saw it as it came.
fn is_altered(record: &Record<'_>) -> bool {
    record.guards.iter().any(|found| !found.contains(":report="))
}

/// Whether a record's principal is a pseudonym.
pub fn is_pseudonym(text: &str) -> bool {
    let digits = text.strip_prefix("p-").filter(|digits| digits.len() == 32);
    digits.is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// An address with or without a port.
pub fn address(text: &str) -> Option<IpAddr> {
    text.parse().ok().or_else(|| text.parse::<std::net::SocketAddr>().ok().map(|a| a.ip()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn record(more: Value) -> Record<'static> {
        let mut leaf = json!({
            "call_id": "0".repeat(32), "epoch": 1, "phase": "intent", "principal": "ana", "plugin": "sql",
            "mcp.method.name": "tools/call", "gen_ai.tool.name": "sql.query", "network.transport": "ws",
            "client.address": "10.0.0.7:4711", "seq": 1, "tenant": "acme", "time_ns": "7", "v": 1,
            "writer_id": "n", "writer_prev": "0".repeat(64),
        });
        for (key, value) in more.as_object().unwrap() {
            leaf[key] = value.clone();
        }
        Record::decode(leaf.to_string().as_bytes()).unwrap()
    }

    fn read(more: Value) -> Option<Result<Recorded, Why>> {
        let names = HashMap::from([(format!("p-{}", "1".repeat(32)), "sue".to_owned())]);
        Recorded::read(&record(more), &names, |plugin| plugin == "sql")
    }

    #[test]
    fn a_call_is_asked_about_as_it_was_made() {
        let call = read(json!({})).unwrap().unwrap();
        assert_eq!(
            (call.principal.as_str(), call.action, call.target.as_str()),
            ("ana", Action::CallTool, "sql.query")
        );
        assert_eq!((call.plugin.as_deref(), call.transport.as_str(), call.time_ns), (Some("sql"), "ws", 7));
        assert_eq!((call.address, call.address_hidden), (Some([10, 0, 0, 7].into()), false));
        assert_eq!(call.decided, Some(Effect::Allow));
        for (error, decided) in [("PV-POLICY-DENIED", Some(Effect::Deny)), ("PV-QUOTA-EXCEEDED", None)] {
            let call = read(json!({ "phase": "denied", "error.type": error })).unwrap().unwrap();
            assert_eq!(call.decided, decided, "{error}");
        }
    }

    #[test]
    fn a_resource_is_asked_about_by_its_upstreams_uri() {
        for (plugin, target, expect) in [
            (json!("up"), "test://a", ("up", "test://a")),
            (json!("up"), "provost:up:test://a", ("up", "test://a")),
            (json!("up"), "provost:other:test://a", ("up", "provost:other:test://a")),
            (Value::Null, "provost:up:test://a", ("up", "test://a")),
        ] {
            let more = json!({ "mcp.method.name": "resources/read", "gen_ai.tool.name": null, "plugin": plugin,
                "mcp.resource.uri": target });
            let call = read(more.clone()).unwrap().unwrap();
            assert_eq!((call.plugin.as_deref().unwrap(), call.target.as_str()), expect, "{more}");
        }
    }

    #[test]
    fn what_policy_is_not_asked_about_is_no_call() {
        for more in [
            json!({ "phase": "outcome" }),
            json!({ "phase": "event" }),
            json!({ "mcp.method.name": "tools/list" }),
            json!({ "mcp.method.name": "tasks/get" }),
            json!({ "gen_ai.tool.name": null }),
            json!({ "principal": null }),
        ] {
            assert!(read(more.clone()).is_none(), "{more}");
        }
    }

    #[test]
    fn what_is_not_known_is_not_guessed() {
        let hidden = json!({ "principal": format!("p-{}", "1".repeat(32)), "client.address": null });
        let call = read(hidden).unwrap().unwrap();
        assert_eq!((call.principal.as_str(), call.address_hidden), ("sue", true));
        for (more, why) in [
            (json!({ "principal": format!("p-{}", "2".repeat(32)) }), "unknown_principal"),
            (json!({ "authenticated_by": "jwt:corp" }), "token"),
            (json!({ "gen_ai.tool.name": "sql.que…" }), "cut"),
            (json!({ "plugin": null, "gen_ai.tool.name": "nothing.x" }), "no_plugin"),
            (json!({ "mcp.method.name": "resources/read", "guards": ["card:mask=1"] }), "altered"),
            (json!({ "mcp.method.name": "resources/read", "plugin": null }), "no_plugin"),
        ] {
            assert_eq!(read(more.clone()).unwrap().unwrap_err(), why, "{more}");
        }
        assert_eq!(read(json!({ "plugin": null })).unwrap().unwrap().plugin.as_deref(), Some("sql"));
    }

    #[test]
    fn arguments_are_taken_only_as_they_came() {
        let body = br#"{"name":"sql.query","arguments":{"sql":"x"}}"#;
        let known = Arguments::Known(Some(r#"{"sql":"x"}"#.to_owned()));
        let hash = json!("0".repeat(64));
        for (more, body, expect) in [
            (json!({}), &body[..], known),
            (json!({}), b"{}", Arguments::Known(None)),
            (json!({}), b"{", Arguments::Unknown("damaged")),
            (json!({ "guards": ["card:report=1"] }), b"{}", Arguments::Known(None)),
            (json!({ "guards": ["card:report=1", "email:mask=2"] }), b"{}", Arguments::Unknown("altered")),
            (json!({ "redaction.policy": hash }), b"{}", Arguments::Known(None)),
            (json!({ "redaction.policy": hash }), br#"{"arguments":"[redacted]"}"#, Arguments::Unknown("altered")),
        ] {
            assert_eq!(arguments_in(&record(more.clone()), body), expect, "{more}");
        }
        assert_eq!(arguments(&record(json!({})), Ok(BodyState::Erased(1))), Arguments::Unknown("erased"));
        assert_eq!(arguments(&record(json!({})), Ok(BodyState::None)), Arguments::Unknown("no_body"));
        assert_eq!(arguments(&record(json!({})), Err(BodyError::NoKey(1))), Arguments::Unknown("no_key"));
    }
}
