//! The conditions that query, export and tail share.

use clap::Args;
use provost_audit_store::Query;
use provost_types::{CallId, CallStatus};
use serde_json::Value;

use super::place::{log_id, parse_moment};

#[derive(Args)]
pub struct Filter {
    /// Only this tenant's log; `cluster` is the cluster's own.
    #[arg(long)]
    tenant: Option<String>,
    /// Only this principal's.
    #[arg(long)]
    principal: Option<String>,
    /// Only this tool, prompt, resource or model.
    #[arg(long)]
    tool: Option<String>,
    /// Only calls that ended so: ok, tool_error, rpc_error, timeout, cancelled, denied,
    /// input_required, unknown.
    #[arg(long, value_parser = parse_status)]
    status: Option<CallStatus>,
    /// Only this workflow or conversation.
    #[arg(long)]
    workflow: Option<String>,
    /// Only this call: 32 hexadecimal digits.
    #[arg(long, value_name = "CALL_ID", value_parser = parse_call)]
    call: Option<CallId>,
    /// Only events of this kind: apply, delete, rollback, secret.set, token.create, log.start, …
    #[arg(long)]
    event: Option<String>,
    /// From this time: RFC 3339, or how long ago (`15m`, `24h`).
    #[arg(long, value_parser = parse_moment)]
    since: Option<u64>,
    /// Up to this time, likewise.
    #[arg(long, value_parser = parse_moment)]
    until: Option<u64>,
}

impl Filter {
    /// The tenant that was named.
    pub fn tenant(&self) -> Option<&str> {
        self.tenant.as_deref()
    }

    /// The principal that was named.
    pub fn principal(&self) -> Option<&str> {
        self.principal.as_deref()
    }

    /// What is asked for, as the record of the read says it.
    pub fn text(&self) -> String {
        let parts = [("principal", &self.principal), ("tool", &self.tool), ("event", &self.event)];
        let parts = parts.iter().filter_map(|(name, value)| Some(format!("{name}={}", value.as_deref()?)));
        parts.collect::<Vec<_>>().join(" ")
    }

    /// As a query without a limit.
    pub fn query(&self) -> anyhow::Result<Query> {
        Ok(Query {
            log: self.tenant.as_deref().map(log_id).transpose()?,
            principal: self.principal.clone(),
            tool: self.tool.clone(),
            status: self.status,
            workflow: self.workflow.clone(),
            call: self.call,
            event: self.event.clone(),
            since_ns: self.since,
            until_ns: self.until,
            limit: None,
            no_index: false,
        })
    }
}

fn parse_call(text: &str) -> Result<CallId, String> {
    text.parse().map_err(|_| "a call id has 32 hexadecimal digits".to_owned())
}

fn parse_status(text: &str) -> Result<CallStatus, String> {
    serde_json::from_value(Value::from(text))
        .map_err(|_| "use ok, tool_error, rpc_error, timeout, cancelled, denied, input_required or unknown".to_owned())
}
