//! Calls of a guest before a real node: each stage has its say, and each call is in the log.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::SystemTime,
};

use parking_lot::Mutex;
use provost_data_pipeline::Credential;
use provost_data_tools::{Limits, SecretSource, Toolbox, ToolboxDeps};
use provost_types::{
    AuditEvent, AuditReceipt, AuditSink, AuditUnavailable, BoxStream, CallStatus, ChatEvent, ChatRequest, EmbedRequest,
    EmbedResponse, Inference, InferenceError, InferenceErrorKind, Metadata, ModelInfo, Name, Phase, PrincipalRef,
    Resource, Revision, Snapshot, Spec,
};
use secrecy::SecretString;

use super::*;
use crate::node::{Compiled, NodePorts};

/// The caller's own call.
const ROOT: CallId = CallId(7);
const CARD: &str = "4111 1111 1111 1111";

/// Keeps records; has no secrets and no models.
#[derive(Default)]
struct World {
    records: Mutex<Vec<AuditEvent>>,
}

impl World {
    fn taken(&self) -> Vec<AuditEvent> {
        std::mem::take(&mut *self.records.lock())
    }
}

impl AuditSink for World {
    fn record(&self, event: AuditEvent) -> BoxFuture<'_, Result<AuditReceipt, AuditUnavailable>> {
        let mut records = self.records.lock();
        records.push(event);
        let index = records.len() as u64;
        Box::pin(std::future::ready(Ok(AuditReceipt { log: "t".into(), index, leaf_hash: [0; 32] })))
    }
}

impl SecretSource for World {
    fn secret(&self, _: &Name, _: &Name) -> Option<SecretString> {
        None
    }
}

fn no_model() -> InferenceError {
    InferenceError { kind: InferenceErrorKind::Failed, message: "no".into(), retry_after_ms: None }
}

impl Inference for World {
    fn models(&self) -> Vec<ModelInfo> {
        Vec::new()
    }
    fn embed(&self, _: EmbedRequest) -> BoxFuture<'_, Result<EmbedResponse, InferenceError>> {
        Box::pin(std::future::ready(Err(no_model())))
    }
    fn chat(
        &self,
        _: ChatRequest,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Result<ChatEvent, InferenceError>>, InferenceError>> {
        Box::pin(std::future::ready(Err(no_model())))
    }
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// Ann may use every tool there is, but a policy, a quota, a switch and a guard stand before some.
fn snapshot() -> Arc<Snapshot> {
    let mut all = Snapshot { revision: Revision(3), ..Snapshot::default() };
    let mut add = |tenant: Option<&str>, own: &str, spec: serde_json::Value| {
        let spec: Spec = serde_json::from_value(spec).unwrap();
        let metadata = Metadata { name: name(own), tenant: tenant.map(name), labels: BTreeMap::new() };
        let resource = Resource { metadata, spec, created: Revision(1), modified: Revision(1) };
        all.resources.insert(resource.key(), Arc::new(resource));
    };
    let acme = Some("acme");
    add(None, "acme", json!({ "Tenant": {} }));
    add(acme, "ann", json!({ "Principal": {} }));
    add(acme, "all", json!({ "Role": { "rules": [{ "tools": ["*"] }] } }));
    add(acme, "ann-all", json!({ "RoleBinding": { "role": "all", "principals": ["ann"] } }));
    for plugin in ["crm", "paid", "stopped", "cards", "other"] {
        add(acme, plugin, json!({ "Plugin": { "source": { "builtin": { "name": "echo" } } } }));
    }
    let cedar = r#"forbid(principal, action, resource)
        when { context.args.hasTag("text") && context.args.getTag("text") == "secret" };"#;
    add(acme, "no-secrets", json!({ "Policy": { "cedar": cedar } }));
    let quota = json!({ "limit": 1, "unit": "calls", "window": "hour", "tools": ["paid.*"] });
    add(acme, "paid-quota", json!({ "Quota": quota }));
    add(acme, "halt", json!({ "KillSwitch": { "plugin": "stopped", "reason": "leaks" } }));
    let rules = json!([{ "kinds": ["card"], "action": "mask" }]);
    add(acme, "short", json!({ "ToolAlias": { "targets": [{ "tool": "crm.echo" }] } }));
    add(acme, "foreign", json!({ "ToolAlias": { "targets": [{ "tool": "other.echo" }] } }));
    let until = json!({ "until": "2020-01-01T00:00:00Z" });
    let retired = json!({ "targets": [{ "tool": "other.echo" }], "deprecated": until });
    add(acme, "retired", json!({ "ToolAlias": retired }));
    add(acme, "mask", json!({ "Guard": { "tools": ["cards.*"], "directions": ["results"], "rules": rules } }));
    Arc::new(all)
}

fn setup() -> (Arc<Node>, Arc<World>) {
    let world = Arc::new(World::default());
    let deps = ToolboxDeps {
        siblings: None,
        connections: None,
        packages: None,
        launcher: None,
        secrets: world.clone(),
        inference: world.clone(),
        data_dir: std::env::temp_dir(),
        limits: Limits::default(),
    };
    let anonymous = Some(PrincipalRef { tenant: name("acme"), name: name("ann") });
    let ports = NodePorts { audit: world.clone(), toolbox: Toolbox::new(deps), inference: world.clone(), anonymous };
    let node = Arc::new(Node::new(ports, Compiled::new(snapshot()).unwrap()));
    node.lets_guests_call();
    (node, world)
}

/// The call of ann's whose guest asks.
fn outer(credential: Credential) -> Request {
    Request {
        call_id: ROOT,
        arrived_ns: 1,
        credential,
        // A plugin's own route: full names are understood all the same.
        route: Route::Plugin(name("text")),
        operation: Operation::CallTool("ask".to_owned()),
        params: RawJson::EMPTY_OBJECT,
        client: ClientFacts {
            protocol_version: ProtocolVersion::LATEST,
            info: Some(RawJson::from(json!({ "name": "agent", "version": "1" }))),
            capabilities: RawJson::from(json!({ "elicitation": {} })),
            session: None,
            address: Some("192.0.2.7".to_owned()),
            transport: "ws",
        },
        trace: TraceFacts {
            request_id: Some("9".to_owned()),
            traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned()),
            tracestate: None,
            workflow: Some("talk".to_owned()),
        },
        sound: None,
        within: None,
    }
}

fn nest(node: &Arc<Node>, request: Request) -> Nest {
    Nest::new(node.itself().unwrap(), Arc::new(request), "0123456789ab".to_owned())
}

fn wish(tool: &str, arguments: serde_json::Value) -> GuestCall {
    let granted = ["crm.*", "paid.*", "stopped.*", "cards.echo", "nowhere.*"];
    GuestCall {
        plugin: name("text"),
        tool: tool.to_owned(),
        arguments: RawJson::from(arguments),
        depth: 1,
        granted: Arc::new(granted.map(str::to_owned).into()),
        deadline: Instant::now() + Duration::from_secs(600),
        stop: CancellationToken::new(),
    }
}

/// What a guest is told, in one line: the variant and its text.
fn told(ended: Result<RawJson, NestedError>) -> String {
    match ended {
        Ok(result) => format!("ok {}", result.as_str()),
        Err(NestedError::Denied(why)) => format!("denied {why}"),
        Err(NestedError::InvalidParams(why)) => format!("invalid {why}"),
        Err(NestedError::Cancelled) => "cancelled".to_owned(),
        Err(NestedError::Failed(why)) => format!("failed {why}"),
    }
}

#[tokio::test]
async fn every_stage_decides_a_plugins_call_and_every_call_is_recorded_with_the_one_that_led_to_it() {
    let (node, world) = setup();
    let nest = nest(&node, outer(Credential::Anonymous));
    assert_eq!(nest.depth(), 0);
    let table = [
        ("crm.echo", "hello", "ok ", "hello", None),
        ("crm.echo", "secret", "denied PV-POLICY-DENIED", "no-secrets", Some("PV-POLICY-DENIED")),
        ("crm.gone", "hello", "denied PV-TOOL-UNKNOWN", "crm.gone", Some("PV-TOOL-UNKNOWN")),
        ("nowhere.echo", "hello", "denied PV-TOOL-UNKNOWN", "nowhere.echo", Some("PV-TOOL-UNKNOWN")),
        // Ann may call it; nobody let the plugin.
        ("other.echo", "hello", "denied PV-PLUGIN-GRANT", "source.wasm.tools", Some("PV-PLUGIN-GRANT")),
        // What it was not let call looks alike whether there is such a thing or not.
        ("other.gone", "hello", "denied PV-PLUGIN-GRANT", "source.wasm.tools", Some("PV-PLUGIN-GRANT")),
        ("absent.echo", "hello", "denied PV-PLUGIN-GRANT", "source.wasm.tools", Some("PV-PLUGIN-GRANT")),
        ("absent", "hello", "denied PV-PLUGIN-GRANT", "source.wasm.tools", Some("PV-PLUGIN-GRANT")),
        ("short", "hello", "ok ", "hello", None),
        ("foreign", "hello", "denied PV-PLUGIN-GRANT", "may not call foreign", Some("PV-PLUGIN-GRANT")),
        ("retired", "hello", "denied PV-PLUGIN-GRANT", "may not call retired", Some("PV-PLUGIN-GRANT")),
        ("paid.echo", "hello", "denied PV-QUOTA-UNREACHABLE", "", Some("PV-QUOTA-UNREACHABLE")),
        ("stopped.echo", "hello", "denied PV-KILL-SWITCH", "leaks", Some("PV-KILL-SWITCH")),
        ("cards.echo", CARD, "ok ", "1111", None),
    ];
    for (tool, text, begins, holds, refused) in table {
        let answer = told(nest.call(wish(tool, json!({ "text": text }))).await);
        assert!(answer.starts_with(begins) && answer.contains(holds), "{tool}: {answer}");
        assert!(!answer.contains(CARD), "{tool}: {answer}");
        let records = world.taken();
        let phases: Vec<Phase> = records.iter().map(|record| record.phase).collect();
        match refused {
            None => assert_eq!(phases, [Phase::Intent, Phase::Outcome], "{tool}"),
            Some(code) => {
                assert_eq!(phases, [Phase::Denied], "{tool}");
                assert_eq!(records[0].error.as_deref(), Some(code), "{tool}");
            }
        }
        for record in &records {
            assert_eq!(record.why.root_call, Some(ROOT), "{tool}");
            assert!(record.call_id != ROOT, "{tool} has a call of its own");
            assert_eq!((record.who.principal.as_str(), record.what.transport.as_str()), ("ann", "ws"), "{tool}");
            assert_eq!(record.who.agent.as_deref(), Some("plugin:text/0123456789ab"), "{tool}");
            assert_eq!(record.who.client_address.as_deref(), Some("192.0.2.7"), "{tool}");
            assert_eq!(record.why.workflow.as_deref(), Some("talk"), "{tool}");
            assert!(record.why.traceparent.is_some() && record.what.request_id.is_none(), "{tool}");
        }
    }
    // What does not fit the tool's schema is the guest's to correct.
    let answer = told(nest.call(wish("crm.echo", json!({ "text": 5 }))).await);
    assert!(answer.starts_with("invalid PV-ARGS-SCHEMA"), "{answer}");
    let records = world.taken();
    assert_eq!((records.len(), records[0].phase), (1, Phase::Denied));
}

#[tokio::test]
async fn what_a_guard_masks_the_plugin_does_not_see() {
    let (node, world) = setup();
    let nest = nest(&node, outer(Credential::Anonymous));
    let answer = told(nest.call(wish("cards.echo", json!({ "text": format!("pay {CARD} now") }))).await);
    assert!(answer.contains("pay **** **** **** 1111 now"), "{answer}");
    let outcome = world.taken().pop().unwrap();
    assert_eq!((outcome.phase, outcome.guards), (Phase::Outcome, vec!["card:mask=1".to_owned()]));
}

#[tokio::test]
async fn a_credential_that_is_no_longer_good_calls_nothing_more() {
    let (node, world) = setup();
    let nest = nest(&node, outer(Credential::Bearer("pv_revoked_since".into())));
    let answer = told(nest.call(wish("crm.echo", json!({ "text": "hello" }))).await);
    assert!(answer.starts_with("denied PV-AUTH-"), "{answer}");
    let records = world.taken();
    assert_eq!((records.len(), records[0].phase, records[0].why.root_call), (1, Phase::Denied, Some(ROOT)));
}

#[tokio::test]
async fn a_plugin_below_a_plugin_names_the_first_call_and_its_depth() {
    let (node, world) = setup();
    let mut request = outer(Credential::Anonymous);
    let made = ChainCount::default();
    request.call_id = CallId(8);
    request.within = Some(Within {
        root: ROOT,
        plugin: name("above"),
        depth: 3,
        deadline: Instant::now(),
        granted: Arc::new(BTreeSet::new()),
        made: made.clone(),
    });
    let nest = nest(&node, request);
    assert_eq!(nest.depth(), 3);
    // Its own grants count, not those of the plugin above.
    assert!(nest.call(wish("crm.echo", json!({ "text": "hello" }))).await.is_ok());
    assert!(world.taken().iter().all(|record| record.why.root_call == Some(ROOT)));
    // However deep, what one call leads to is counted together.
    for _ in 1..MAX_CHAIN_CALLS {
        assert!(made.one_more());
    }
    for _ in 0..3 {
        let answer = told(nest.call(wish("crm.echo", json!({ "text": "hello" }))).await);
        assert!(answer.starts_with("denied PV-PLUGIN-CHAIN") && answer.contains("256 calls"), "{answer}");
    }
    // The first of them; a plugin that goes on asking fills no log.
    let records = world.taken();
    assert_eq!((records.len(), records[0].phase, records[0].why.root_call), (1, Phase::Denied, Some(ROOT)));
    assert_eq!(records[0].error.as_deref(), Some("PV-PLUGIN-CHAIN"));
}

#[tokio::test]
async fn nothing_is_begun_for_a_call_that_is_over() {
    let (node, world) = setup();
    let nest = nest(&node, outer(Credential::Anonymous));
    let stopped = wish("crm.echo", json!({ "text": "hello" }));
    stopped.stop.cancel();
    let late = GuestCall { deadline: Instant::now(), ..wish("crm.echo", json!({ "text": "hello" })) };
    for wish in [stopped, late] {
        assert_eq!(told(nest.call(wish).await), "cancelled");
        nest.end().await;
        let records = world.taken();
        let ends: Vec<_> = records.iter().map(|record| (record.phase, record.status)).collect();
        assert_eq!(ends, [(Phase::Intent, None), (Phase::Outcome, Some(CallStatus::Cancelled))]);
    }
}

#[tokio::test]
async fn a_call_that_nobody_waits_for_is_recorded_to_its_end() {
    let (node, world) = setup();
    let nest = nest(&node, outer(Credential::Anonymous));
    drop(nest.call(wish("crm.echo", json!({ "text": "hello" }))));
    let began = SystemTime::now();
    while world.records.lock().len() < 2 {
        assert!(began.elapsed().unwrap() < Duration::from_secs(60), "no outcome");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let outcome = world.taken().pop().unwrap();
    assert_eq!((outcome.phase, outcome.status), (Phase::Outcome, Some(CallStatus::Ok)));
}

#[test]
fn an_end_without_a_result_is_told_by_its_kind() {
    let answer = |outcome| Answer { outcome, receipt: None, limits: Vec::new() };
    let rejected = |kind| answer(Err(Rejection::new(kind, "PV-TEST", "told to")));
    let failed = |number, code| answer(Ok(Reply::Error(RpcError::with_code(number, code, "told to"))));
    for (answer, expect) in [
        (answer(Ok(Reply::InputRequired(RawJson::EMPTY_OBJECT))), "failed PV-PLUGIN-ASKED: crm.read"),
        (rejected(RejectionKind::Guarded), "denied PV-TEST: told to"),
        (rejected(RejectionKind::Limited), "denied PV-TEST: told to"),
        (rejected(RejectionKind::Unauthenticated), "denied PV-TEST: told to"),
        (rejected(RejectionKind::Invalid), "invalid PV-TEST: told to"),
        (rejected(RejectionKind::Overloaded), "failed PV-TEST: told to"),
        (rejected(RejectionKind::AuditUnavailable), "failed PV-TEST: told to"),
        (failed(RpcError::INTERNAL, "PV-CALL-CANCELLED"), "cancelled"),
        (failed(RpcError::POLICY_DENIED, "PV-KILL-SWITCH"), "denied PV-KILL-SWITCH: told to"),
        (failed(RpcError::INVALID_PARAMS, "PV-TEST"), "invalid PV-TEST: told to"),
        (failed(RpcError::UPSTREAM_FAILED, "PV-PLUGIN-DEPTH"), "failed PV-PLUGIN-DEPTH: told to"),
    ] {
        let said = told(result_of("crm.read", answer));
        assert!(said.starts_with(expect), "{said}: {expect}");
    }
}
