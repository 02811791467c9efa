//! The columns of the Parquet file: name, type, and where a row's value comes from.
//!
//! The names are the record's keys with `_` for `.`. Adding a column at the end breaks no reader;
//! anything else does.

use provost_audit_core::{Record, status_word};
use provost_types::{Effect, Phase};

use super::log_name;
use crate::query::Found;

/// A value of one row.
pub(super) enum Cell {
    Text(Option<String>),
    Number(Option<i64>),
}

/// A column.
pub(super) struct Column {
    pub name: &'static str,
    /// As in Parquet's message syntax, without repetition and name.
    pub kind: Kind,
    pub optional: bool,
    pub get: fn(&Found) -> Cell,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    /// A JSON text: a list, or the record.
    Json,
    Number,
    /// Nanoseconds since 1970, UTC.
    Time,
}

const fn column(name: &'static str, kind: Kind, optional: bool, get: fn(&Found) -> Cell) -> Column {
    Column { name, kind, optional, get }
}

fn number(value: u64) -> Cell {
    Cell::Number(i64::try_from(value).ok())
}

/// A count that the record leaves out when it is zero.
fn count(value: u64) -> Cell {
    Cell::Number(i64::try_from(value).ok().filter(|n| *n > 0))
}

fn word(value: Option<&str>) -> Cell {
    Cell::Text(value.map(str::to_owned))
}

fn list(values: &[std::borrow::Cow<'_, str>]) -> Cell {
    Cell::Text((!values.is_empty()).then(|| serde_json::to_string(values).unwrap_or_default()))
}

pub(super) fn phase_word(phase: Phase) -> &'static str {
    match phase {
        Phase::Intent => "intent",
        Phase::Outcome => "outcome",
        Phase::Denied => "denied",
        Phase::Event => "event",
    }
}

fn decision(record: &Record<'_>) -> Cell {
    word(record.decision.map(|effect| match effect {
        Effect::Allow => "allow",
        Effect::Deny => "deny",
    }))
}

/// Every column, in the file's order.
pub(super) const COLUMNS: &[Column] = &[
    column("log", Kind::Text, false, |f| word(Some(log_name(&f.log)))),
    column("index", Kind::Number, false, |f| number(f.index)),
    column("leaf_hash", Kind::Text, false, |f| Cell::Text(Some(f.leaf_hash.to_string()))),
    column("time", Kind::Time, false, |f| number(f.record.time_ns)),
    column("phase", Kind::Text, false, |f| word(Some(phase_word(f.record.phase)))),
    column("call_id", Kind::Text, false, |f| Cell::Text(Some(f.record.call_id.to_string()))),
    column("writer_id", Kind::Text, false, |f| word(Some(&f.record.writer_id))),
    column("epoch", Kind::Number, false, |f| number(f.record.epoch)),
    column("seq", Kind::Number, false, |f| number(f.record.seq)),
    column("tenant", Kind::Text, true, |f| word(f.record.tenant.as_deref())),
    column("status", Kind::Text, true, |f| word(f.record.status.map(status_word))),
    column("decision", Kind::Text, true, |f| decision(&f.record)),
    column("policies", Kind::Json, true, |f| list(&f.record.policies)),
    column("policy_revision", Kind::Number, true, |f| count(f.record.revision)),
    column("principal", Kind::Text, true, |f| word(f.record.principal.as_deref())),
    column("authenticated_by", Kind::Text, true, |f| word(f.record.authenticated_by.as_deref())),
    column("agent", Kind::Text, true, |f| word(f.record.agent.as_deref())),
    column("client_address", Kind::Text, true, |f| word(f.record.client_address.as_deref())),
    column("mcp_method_name", Kind::Text, true, |f| word(f.record.method.as_deref())),
    column("mcp_protocol_version", Kind::Text, true, |f| word(f.record.protocol_version.as_deref())),
    column("jsonrpc_request_id", Kind::Text, true, |f| word(f.record.request_id.as_deref())),
    column("network_transport", Kind::Text, true, |f| word(f.record.transport.as_deref())),
    column("gen_ai_operation_name", Kind::Text, true, |f| word(f.record.operation.as_deref())),
    column("gen_ai_tool_name", Kind::Text, true, |f| word(f.record.tool.as_deref())),
    column("gen_ai_prompt_name", Kind::Text, true, |f| word(f.record.prompt.as_deref())),
    column("gen_ai_request_model", Kind::Text, true, |f| word(f.record.model.as_deref())),
    column("mcp_resource_uri", Kind::Text, true, |f| word(f.record.resource.as_deref())),
    column("target", Kind::Text, true, |f| word(f.record.target.as_deref())),
    column("plugin", Kind::Text, true, |f| word(f.record.plugin.as_deref())),
    column("plugin_digest", Kind::Text, true, |f| word(f.record.plugin_digest.as_deref())),
    column("workflow", Kind::Text, true, |f| word(f.record.workflow.as_deref())),
    column("traceparent", Kind::Text, true, |f| word(f.record.traceparent.as_deref())),
    column("root_call_id", Kind::Text, true, |f| Cell::Text(f.record.root_call_id.map(|id| id.to_string()))),
    column("attempt", Kind::Number, true, |f| count(f.record.attempt)),
    column("error_type", Kind::Text, true, |f| word(f.record.error_type.as_deref())),
    column("reason", Kind::Text, true, |f| word(f.record.reason.as_deref())),
    column("bytes_in", Kind::Number, true, |f| count(f.record.bytes_in)),
    column("bytes_out", Kind::Number, true, |f| count(f.record.bytes_out)),
    column("rows", Kind::Number, true, |f| count(f.record.rows)),
    column("gen_ai_usage_input_tokens", Kind::Number, true, |f| count(f.record.tokens_in)),
    column("gen_ai_usage_output_tokens", Kind::Number, true, |f| count(f.record.tokens_out)),
    column("cost_micro", Kind::Number, true, |f| count(f.record.cost_micro)),
    column("duration_us", Kind::Number, true, |f| count(f.record.duration_us)),
    column("event", Kind::Text, true, |f| word(f.record.event.as_deref())),
    column("event_objects", Kind::Json, true, |f| list(&f.record.event_objects)),
    column("event_detail", Kind::Text, true, |f| word(f.record.event_detail.as_deref())),
    column("record", Kind::Json, false, |f| Cell::Text(Some(f.leaf.clone()))),
    column("guards", Kind::Json, true, |f| list(&f.record.guards)),
];
