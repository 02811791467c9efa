//! The inputs of what is measured within this process: a caller, a state, a record.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::SystemTime,
};

use provost_types::{
    AuditEvent, Body, CallId, CallStatus, Effect, Impact, KeptBody, KeyId, Metadata, Name, NameError, Phase,
    PolicyMode, PolicySpec, PrincipalSpec, QuotaPer, QuotaSpec, QuotaUnit, QuotaWindow, Resource, Revision,
    RoleBindingSpec, RoleRule, RoleSpec, Snapshot, Spec, TenantSpec, What, Who, Why,
};

/// The time of decisions, nanoseconds since 1970.
pub const NOW_NS: u64 = 1_795_219_200_000_000_000;
/// The tenant of the inputs.
pub const TENANT: &str = "acme";
/// Its caller.
pub const PRINCIPAL: &str = "ana";
/// What she calls.
pub const TOOL: &str = "sql.query";
/// More units than a measurement takes.
pub const UNITS: u64 = 1 << 40;

/// A tenant whose caller may call [`TOOL`] by one role of eleven, under so many policies that look at arguments.
pub fn snapshot(policies: usize) -> Result<Snapshot, NameError> {
    let mut snapshot = Snapshot { revision: Revision(7), ..Snapshot::default() };
    add(&mut snapshot, None, TENANT, Spec::Tenant(TenantSpec::default()))?;
    add(&mut snapshot, Some(TENANT), PRINCIPAL, Spec::Principal(PrincipalSpec::default()))?;
    grant(&mut snapshot, "analyst", TOOL)?;
    for n in 0..10 {
        grant(&mut snapshot, &format!("role-{n}"), &format!("plugin-{n}.*"))?;
    }
    for n in 0..policies {
        let cedar = format!(
            "forbid(principal, action == Provost::Action::\"CallTool\", resource == \
             Provost::Tool::\"plugin-{n}.drop\") when {{ context.args.hasTag(\"sql\") && \
             context.args.getTag(\"sql\") like \"*DROP*\" }};"
        );
        let spec = PolicySpec { description: String::new(), cedar, mode: PolicyMode::Enforce };
        add(&mut snapshot, Some(TENANT), &format!("policy-{n}"), Spec::Policy(spec))?;
    }
    Ok(snapshot)
}

/// The same with one quota of the tenant's calls.
pub fn snapshot_with_quota() -> Result<Snapshot, NameError> {
    let mut snapshot = snapshot(0)?;
    let spec = QuotaSpec {
        limit: UNITS,
        unit: QuotaUnit::Calls,
        per: QuotaPer::Tenant,
        window: Some(QuotaWindow::Month),
        principals: BTreeSet::new(),
        tools: ["sql.*".to_owned()].into(),
    };
    add(&mut snapshot, Some(TENANT), "calls", Spec::Quota(spec))?;
    Ok(snapshot)
}

fn grant(snapshot: &mut Snapshot, role: &str, tool: &str) -> Result<(), NameError> {
    let rules = vec![RoleRule { tools: [tool.to_owned()].into(), ..RoleRule::default() }];
    let binding = RoleBindingSpec { role: Name::new(role)?, principals: [Name::new(PRINCIPAL)?].into(), expires: None };
    add(snapshot, Some(TENANT), role, Spec::Role(RoleSpec { description: String::new(), rules }))?;
    add(snapshot, Some(TENANT), role, Spec::RoleBinding(binding))
}

fn add(snapshot: &mut Snapshot, tenant: Option<&str>, name: &str, spec: Spec) -> Result<(), NameError> {
    let tenant = tenant.map(Name::new).transpose()?;
    let metadata = Metadata { name: Name::new(name)?, tenant, labels: BTreeMap::new() };
    let resource = Resource { metadata, spec, created: Revision(1), modified: Revision(1) };
    snapshot.resources.insert(resource.key(), Arc::new(resource));
    Ok(())
}

/// A record of a call, as it is handed to the audit log: its intent or its outcome.
pub fn event(call: u64, phase: Phase) -> Result<AuditEvent, NameError> {
    let is_over = phase == Phase::Outcome;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Ok(AuditEvent {
        phase,
        call_id: CallId(u128::from(call)),
        tenant: Some(Name::new(TENANT)?),
        time_ns: now.map_or(NOW_NS, |since| u64::try_from(since.as_nanos()).unwrap_or(NOW_NS)),
        who: Who {
            principal: PRINCIPAL.to_owned(),
            agent: Some("agent/1.0".to_owned()),
            client_address: Some("127.0.0.1:50000".to_owned()),
            authenticated_by: "api_key:ana-1".to_owned(),
        },
        what: What {
            method: "tools/call".to_owned(),
            target: Some(TOOL.to_owned()),
            plugin: Some("sql".to_owned()),
            plugin_digest: Some("ab".repeat(32)),
            request_id: Some("42".to_owned()),
            protocol_version: Some("2026-07-28".to_owned()),
            transport: "http".to_owned(),
            secrets: Vec::new(),
            subject: None,
        },
        why: Why { attempt: 1, ..Why::default() },
        decision: Some(Effect::Allow),
        policies: vec!["role:analyst".to_owned()],
        revision: Revision(7),
        status: is_over.then_some(CallStatus::Ok),
        error: None,
        reason: None,
        guards: Vec::new(),
        body: Some(Body {
            commit: [7; 32],
            key: KeyId([7; 16]),
            len: 900,
            redaction: None,
            kept: KeptBody::CommitmentOnly,
        }),
        impact: match is_over {
            true => Impact { bytes_in: 60, bytes_out: 900, rows: 20, duration_us: 850, ..Impact::default() },
            false => Impact { bytes_in: 60, ..Impact::default() },
        },
    })
}
