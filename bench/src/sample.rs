//! The inputs.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use provost_types::{
    AuditEvent, CallId, Effect, Impact, Metadata, Name, Phase, PolicyMode, PolicySpec, PrincipalSpec, Resource,
    Revision, RoleBindingSpec, RoleRule, RoleSpec, Snapshot, Spec, TenantSpec, What, Who, Why,
};

/// A fixed time: 2026-11-21T00:00:00Z.
pub const NOW_NS: u64 = 1_795_219_200_000_000_000;

/// A tools/call of the modern era as an agent sends it, 340 bytes or so.
pub const CALL: &str = r#"{"jsonrpc":"2.0","id":42,"method":"tools/call","params":{"name":"sql.query","arguments":{"sql":"SELECT id, total FROM orders WHERE customer = 17 LIMIT 20"},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"agent","version":"1.0"},"io.modelcontextprotocol/clientCapabilities":{}}}}"#;

/// [`CALL`] as it comes from a socket.
pub fn call_bytes() -> Bytes {
    Bytes::from_static(CALL.as_bytes())
}

/// The answer to a tools/list of so many tools.
pub fn tools_list_bytes(tools: usize) -> Bytes {
    let tool = |i: usize| {
        serde_json::json!({ "name": format!("plugin.tool_{i}"), "description": "Looks something up and returns it.",
            "inputSchema": { "type": "object", "properties": { "query": { "type": "string" },
                "limit": { "type": "integer", "minimum": 1 } }, "required": ["query"] } })
    };
    let tools: Vec<_> = (0..tools).map(tool).collect();
    Bytes::from(serde_json::json!({ "jsonrpc": "2.0", "id": 1, "result": { "tools": tools } }).to_string())
}

/// A name that is known to be one.
#[expect(clippy::expect_used, reason = "the inputs are literals of this crate")]
pub fn name(text: &str) -> Name {
    Name::new(text).expect("a literal name")
}

/// Tenant `acme` with principal `ana`, who may call `sql.query` by a role, `roles` further roles of
/// hers, and `policies` written policies that look at arguments.
pub fn snapshot(roles: usize, policies: usize) -> Snapshot {
    let mut snapshot = Snapshot { revision: Revision(7), ..Snapshot::default() };
    add(&mut snapshot, None, "acme", Spec::Tenant(TenantSpec::default()));
    add(&mut snapshot, Some("acme"), "ana", Spec::Principal(PrincipalSpec::default()));
    grant(&mut snapshot, "analyst", "sql.query");
    for i in 0..roles {
        grant(&mut snapshot, &format!("role-{i}"), &format!("plugin-{i}.*"));
    }
    for i in 0..policies {
        let cedar = format!(
            r#"forbid(principal, action == Provost::Action::"CallTool", resource == Provost::Tool::"plugin-{i}.drop")
               when {{ context.args.hasTag("sql") && context.args.getTag("sql") like "*DROP*" }};"#
        );
        let spec = PolicySpec { description: String::new(), cedar, mode: PolicyMode::Enforce };
        add(&mut snapshot, Some("acme"), &format!("policy-{i}"), Spec::Policy(spec));
    }
    snapshot
}

fn grant(snapshot: &mut Snapshot, role: &str, tool: &str) {
    let rules = vec![RoleRule { tools: [tool.to_owned()].into(), ..RoleRule::default() }];
    let binding = RoleBindingSpec { role: name(role), principals: [name("ana")].into(), expires: None };
    add(snapshot, Some("acme"), role, Spec::Role(RoleSpec { description: String::new(), rules }));
    add(snapshot, Some("acme"), role, Spec::RoleBinding(binding));
}

fn add(snapshot: &mut Snapshot, tenant: Option<&str>, id: &str, spec: Spec) {
    let metadata = Metadata { name: name(id), tenant: tenant.map(name), labels: BTreeMap::new() };
    let resource = Resource { metadata, spec, created: Revision(1), modified: Revision(1) };
    snapshot.resources.insert(resource.key(), Arc::new(resource));
}

/// The outcome of [`CALL`] as it is handed to the audit log.
pub fn event(call: u128) -> AuditEvent {
    AuditEvent {
        phase: Phase::Outcome,
        call_id: CallId(call),
        tenant: Some(name("acme")),
        time_ns: NOW_NS,
        who: Who {
            principal: "ana".into(),
            agent: Some("agent/1.0".into()),
            client_address: Some("127.0.0.1:50000".into()),
            authenticated_by: "api_key:ana-1".into(),
        },
        what: What {
            method: "tools/call".into(),
            target: Some("sql.query".into()),
            plugin: Some("sql".into()),
            plugin_digest: Some("ab".repeat(32)),
            request_id: Some("42".into()),
            protocol_version: Some("2026-07-28".into()),
            transport: "http".into(),
            secrets: Vec::new(),
            subject: None,
        },
        why: Why { attempt: 1, ..Why::default() },
        decision: Some(Effect::Allow),
        policies: vec!["role:analyst".into()],
        revision: Revision(7),
        status: Some(provost_types::CallStatus::Ok),
        error: None,
        reason: None,
        guards: Vec::new(),
        body: Some(provost_types::Body {
            commit: [7; 32],
            key: provost_types::KeyId([7; 16]),
            len: 900,
            redaction: None,
            kept: provost_types::KeptBody::CommitmentOnly,
        }),
        impact: Impact { bytes_in: 60, bytes_out: 900, rows: 20, duration_us: 850, ..Impact::default() },
    }
}

#[cfg(test)]
mod tests {
    use provost_data_policy::{AccessRequest, Facts, PolicyEngine};
    use provost_types::Action;

    use super::*;

    #[test]
    fn the_sample_call_is_one_that_is_allowed_and_recorded() {
        let engine = PolicyEngine::compile(&snapshot(10, 10)).unwrap();
        let facts = Facts { transport: "http", ..Facts::default() };
        let (tenant, principal) = (name("acme"), name("ana"));
        let request = AccessRequest {
            token: None,
            tenant: &tenant,
            principal: &principal,
            action: Action::CallTool,
            plugin: Some("sql"),
            target: "sql.query",
            facts: &facts,
        };
        assert!(engine.decide(&request, NOW_NS).is_allow());
        let limits = provost_mcp::JsonLimits::REQUEST;
        assert!(provost_mcp::Envelope::parse(call_bytes(), &limits).is_ok());
    }
}
