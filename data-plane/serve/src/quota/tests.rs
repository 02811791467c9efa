//! The gate before a real node, with a ledger that does as it is told.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures::StreamExt;
use parking_lot::Mutex;
use provost_data_pipeline::{
    Answer, AskError, Call, ClientFacts, ClientLink, Credential, Operation, Rejection, RejectionKind, Reply, Request,
    Reservation, Route, TraceFacts, Usage, drive,
};
use provost_data_policy::quota::{QuotaCall, QuotaIndex};
use provost_data_tools::{Limits, SecretSource, Toolbox, ToolboxDeps};
use provost_mcp::{ProtocolVersion, RawJson, RawObject};
use provost_types::{
    AuditEvent, AuditReceipt, AuditSink, AuditUnavailable, BoxFuture, BoxStream, CallId, ChatEvent, ChatRequest,
    EmbedRequest, EmbedResponse, Inference, InferenceError, InferenceErrorKind, Metadata, ModelInfo, ModelKind, Name,
    Phase, PluginSource, PriceSpec, PrincipalRef, PrincipalSpec, QuotaPer, QuotaSpec, QuotaUnit, QuotaWindow, Resource,
    Revision, RoleBindingSpec, RoleRule, RoleSpec, Snapshot, Spec, TenantSpec, TokenUsage,
};
use provost_wire::node::{LeaseGrant, LeaseRequest, LeaseResponse};
use secrecy::SecretString;
use serde_json::json;

use super::{LeasePort, LeaseUnavailable, Quotas};
use crate::node::{Compiled, Node, NodePorts};

const HOUR_MS: u64 = 3_600_000;
/// Asked for so many tokens, the model never ends.
const ENDLESS: u32 = 77;
/// A generation with this bound fails after its first word.
const BROKEN: u32 = 78;
/// One with this bound never begins.
const QUEUED: u32 = 79;
/// What a test waits for something that must come.
const SOON: Duration = Duration::from_secs(60);

/// Gives what is wanted until nothing is left.
#[derive(Default)]
struct Ledger {
    left: HashMap<String, u64>,
    /// The account of each lease, from lease 1.
    leases: Vec<String>,
    limit: u64,
    requests: Vec<LeaseRequest>,
    answers: HashMap<u64, LeaseResponse>,
    is_down: bool,
    is_fenced: bool,
}

#[derive(Clone, Default)]
struct Port(Arc<Mutex<Ledger>>);

impl Port {
    fn with(limit: u64) -> Self {
        let port = Self::default();
        port.0.lock().limit = limit;
        port
    }

    fn left(&self, account: &str) -> u64 {
        let ledger = self.0.lock();
        ledger.left.get(account).copied().unwrap_or(ledger.limit)
    }
}

fn now_ns() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap()
}

impl LeasePort for Port {
    fn exchange(&self, request: LeaseRequest) -> BoxFuture<'_, Result<LeaseResponse, LeaseUnavailable>> {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(2)).await;
            let mut ledger = self.0.lock();
            if ledger.is_down {
                return Err(LeaseUnavailable("cut off".into()));
            }
            if ledger.is_fenced {
                return Ok(LeaseResponse { grants: Vec::new(), fenced: true });
            }
            if let Some(answer) = ledger.answers.get(&request.seq) {
                return Ok(answer.clone());
            }
            let limit = ledger.limit;
            for report in &request.reports {
                let account = ledger.leases[report.lease as usize - 1].clone();
                *ledger.left.get_mut(&account).unwrap() += report.returned;
            }
            let grants = request.wants.iter().map(|want| {
                let known = ledger.leases.iter().position(|account| *account == want.account);
                let lease = known.unwrap_or(ledger.leases.len()) as u64 + 1;
                if known.is_none() {
                    ledger.leases.push(want.account.clone());
                }
                let left = ledger.left.entry(want.account.clone()).or_insert(limit);
                let units = want.units.max(4).min(*left);
                *left -= units;
                LeaseGrant {
                    account: want.account.clone(),
                    lease,
                    units,
                    remaining: *left,
                    limit,
                    window_end_ns: now_ns() + HOUR_MS * 1_000_000,
                    ttl_ms: HOUR_MS,
                    rate_milli: units * 1_000,
                    burst: 1,
                }
            });
            let answer = LeaseResponse { grants: grants.collect(), fenced: false };
            ledger.answers.insert(request.seq, answer.clone());
            ledger.requests.push(request);
            Ok(answer)
        })
    }
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn add(snapshot: &mut Snapshot, tenant: Option<&str>, own: &str, spec: Spec) {
    let metadata = Metadata { name: name(own), tenant: tenant.map(name), labels: BTreeMap::new() };
    let resource = Resource { metadata, spec, created: Revision(1), modified: Revision(1) };
    snapshot.resources.insert(resource.key(), Arc::new(resource));
}

fn quota(unit: QuotaUnit, limit: u64) -> QuotaSpec {
    let window = (unit != QuotaUnit::Concurrent).then_some(QuotaWindow::Hour);
    QuotaSpec { limit, unit, per: QuotaPer::Tenant, window, principals: BTreeSet::new(), tools: BTreeSet::new() }
}

/// Ann may do everything with the echo plugin and the model.
fn snapshot(quotas: &[(&str, QuotaSpec)]) -> Arc<Snapshot> {
    let mut all = Snapshot { revision: Revision(3), ..Snapshot::default() };
    add(&mut all, None, "acme", Spec::Tenant(TenantSpec::default()));
    add(&mut all, Some("acme"), "ann", Spec::Principal(PrincipalSpec::default()));
    let any = || BTreeSet::from(["*".to_owned()]);
    let rule = RoleRule { tools: any(), prompts: any(), resources: any(), models: any() };
    add(&mut all, Some("acme"), "all", Spec::Role(RoleSpec { description: String::new(), rules: vec![rule] }));
    let binding = RoleBindingSpec { role: name("all"), principals: [name("ann")].into(), expires: None };
    add(&mut all, Some("acme"), "ann-all", Spec::RoleBinding(binding));
    let builtin = provost_types::BuiltinPlugin { name: "echo".into(), config: BTreeMap::new() };
    let plugin = provost_types::PluginSpec {
        description: String::new(),
        source: PluginSource::Builtin(builtin),
        timeout_ms: 0,
        max_concurrency: 0,
        resilience: None,
        definitions: None,
        reloads: 0,
    };
    add(&mut all, Some("acme"), "echo", Spec::Plugin(plugin));
    let price = PriceSpec {
        currency: "EUR".into(),
        tools: BTreeSet::from(["echo.*".to_owned()]),
        models: BTreeSet::from(["tiny".to_owned()]),
        per_call_micro: 100,
        per_million_input_tokens_micro: 3_000_000,
        per_million_output_tokens_micro: 9_000_000,
    };
    add(&mut all, Some("acme"), "prices", Spec::Price(price));
    for (own, spec) in quotas {
        add(&mut all, Some("acme"), own, Spec::Quota(spec.clone()));
    }
    Arc::new(all)
}

#[derive(Default)]
struct World {
    records: Mutex<Vec<AuditEvent>>,
    /// Chats without end that the model was asked for.
    endless: AtomicU64,
}

impl World {
    /// Waits until there are more of them.
    async fn more_than(&self, before: u64) {
        while self.endless.load(Ordering::SeqCst) <= before {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
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

impl Inference for World {
    fn models(&self) -> Vec<ModelInfo> {
        vec![ModelInfo {
            name: "tiny".into(),
            kind: ModelKind::Embedding,
            architecture: "bert".into(),
            context_tokens: 8,
            dimensions: 1,
            created: 0,
        }]
    }
    fn embed(&self, _: EmbedRequest) -> BoxFuture<'_, Result<EmbedResponse, InferenceError>> {
        let usage = TokenUsage { prompt: 7, completion: 0 };
        Box::pin(std::future::ready(Ok(EmbedResponse { vectors: vec![vec![1.0]], usage })))
    }
    fn chat(
        &self,
        request: ChatRequest,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Result<ChatEvent, InferenceError>>, InferenceError>> {
        if request.max_tokens == ENDLESS {
            self.endless.fetch_add(1, Ordering::SeqCst);
            let said = futures::stream::iter([Ok(ChatEvent::Delta("abcde".into()))]);
            let endless: BoxStream<'static, _> = Box::pin(said.chain(futures::stream::pending()));
            return Box::pin(std::future::ready(Ok(endless)));
        }
        if request.max_tokens == QUEUED {
            self.endless.fetch_add(1, Ordering::SeqCst);
            return Box::pin(std::future::pending());
        }
        let error = InferenceError { kind: InferenceErrorKind::Failed, message: "no".into(), retry_after_ms: None };
        if request.max_tokens == BROKEN {
            let broken: BoxStream<'static, _> =
                Box::pin(futures::stream::iter([Ok(ChatEvent::Delta("abcde".into())), Err(error)]));
            return Box::pin(std::future::ready(Ok(broken)));
        }
        Box::pin(std::future::ready(Err(error)))
    }
}

/// A client that cancels when it is told to.
struct CancelLink(tokio::sync::Notify);
impl ClientLink for CancelLink {
    fn notify(&self, _: &str, _: RawJson) {}
    fn ask<'a>(&'a self, _: &'a RawJson) -> Option<BoxFuture<'a, Result<RawJson, AskError>>> {
        None
    }
    fn cancelled(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.0.notified())
    }
}

struct NoLink;
impl ClientLink for NoLink {
    fn notify(&self, _: &str, _: RawJson) {}
    fn ask<'a>(&'a self, _: &'a RawJson) -> Option<BoxFuture<'a, Result<RawJson, AskError>>> {
        None
    }
    fn cancelled(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }
}

struct Setup {
    node: Node,
    world: Arc<World>,
    quotas: Option<Arc<Quotas>>,
}

impl Setup {
    fn new(quotas: &[(&str, QuotaSpec)], port: Option<&Port>) -> Self {
        let world = Arc::new(World::default());
        let deps = ToolboxDeps {
            siblings: None,
            connections: None,
            packages: None,
            secrets: world.clone(),
            inference: world.clone(),
            data_dir: std::env::temp_dir(),
            limits: Limits::default(),
            launcher: None,
        };
        let anonymous = Some(PrincipalRef { tenant: name("acme"), name: name("ann") });
        let ports =
            NodePorts { audit: world.clone(), toolbox: Toolbox::new(deps), inference: world.clone(), anonymous };
        let node = Node::new(ports, Compiled::new(snapshot(quotas)).unwrap());
        let quotas = port.map(|port| Quotas::start(Arc::new(port.clone()), "dp-1", 1));
        let node = match &quotas {
            Some(quotas) => node.with_quotas(quotas.clone()),
            None => node,
        };
        Self { node, world, quotas }
    }

    async fn call(&self, operation: Operation, params: serde_json::Value) -> Answer {
        self.call_by(operation, params, &NoLink).await
    }

    async fn call_by(&self, operation: Operation, params: serde_json::Value, link: &dyn ClientLink) -> Answer {
        let request = Request {
            call_id: CallId(1),
            arrived_ns: now_ns(),
            credential: Credential::Anonymous,
            route: Route::Merged,
            operation,
            params: RawJson::from(params),
            client: ClientFacts {
                protocol_version: ProtocolVersion::LATEST,
                info: None,
                capabilities: RawJson::EMPTY_OBJECT,
                session: None,
                address: None,
                transport: "http",
            },
            trace: TraceFacts::default(),
            within: None,
        };
        Box::pin(drive(&self.node, Call::received(request), link)).await
    }

    async fn echo(&self) -> Result<Reply, Rejection> {
        let params = json!({"name": "echo.echo", "arguments": {"text": "x"}});
        self.call(Operation::CallTool("echo.echo".into()), params).await.outcome
    }
}

#[tokio::test]
async fn calls_are_admitted_up_to_the_limit_and_the_denial_says_why() {
    let port = Port::with(5);
    let setup = Setup::new(&[("hourly", quota(QuotaUnit::Calls, 5))], Some(&port));
    // Lists are not counted, and a call whose arguments are wrong gives its unit back.
    let list = setup.call(Operation::ListTools, json!({})).await;
    assert!(list.outcome.is_ok() && list.limits.is_empty());
    for _ in 0..7 {
        let params = json!({"name": "echo.echo", "arguments": {"text": 5}});
        let wrong = setup.call(Operation::CallTool("echo.echo".into()), params).await.outcome.unwrap_err();
        assert_eq!(wrong.code, "PV-ARGS-SCHEMA");
    }
    for _ in 0..5 {
        assert!(setup.echo().await.is_ok());
    }
    let denied = setup.echo().await.unwrap_err();
    assert_eq!((denied.kind, denied.code), (RejectionKind::Limited, "PV-QUOTA-EXCEEDED"));
    assert!(denied.error.message.starts_with("quota acme/hourly: 5 calls an hour are used up; it begins anew at "));
    let retry_ms = denied.retry_after_ms.unwrap();
    assert!((HOUR_MS - 60_000..=HOUR_MS).contains(&retry_ms), "{retry_ms}");
    let data = RawObject::parse(denied.error.data.as_ref().unwrap()).unwrap();
    assert_eq!(data.get_text("quota").as_deref(), Some("acme/hourly"));
    assert_eq!(data.get_text("kind").as_deref(), Some("consumable"));
    assert_eq!(data.get("remaining").unwrap().as_str(), "0");
    assert_eq!(data.get_text("code").as_deref(), Some("PV-QUOTA-EXCEEDED"));
    assert_eq!(data.get("limit").unwrap().as_str(), "5");
    assert_eq!(data.get("retryAfterMs").unwrap().as_str(), retry_ms.to_string());
    assert!(data.get_text("resetsAt").unwrap().ends_with('Z'));
    let records = setup.world.records.lock();
    let last = records.last().unwrap();
    assert_eq!((last.phase, last.error.as_deref()), (Phase::Denied, Some("PV-QUOTA-EXCEEDED")));
    // What is known to be used up is not asked for with every call.
    assert!(port.0.lock().requests.len() <= 4);
}

#[tokio::test]
async fn a_tenant_without_quotas_asks_nobody_and_a_node_without_leases_admits_nothing() {
    let port = Port::with(5);
    let setup = Setup::new(&[], Some(&port));
    assert!(setup.echo().await.is_ok());
    assert!(port.0.lock().requests.is_empty());
    let setup = Setup::new(&[("hourly", quota(QuotaUnit::Calls, 5))], None);
    let denied = setup.echo().await.unwrap_err();
    assert_eq!((denied.kind, denied.code), (RejectionKind::LimitUnknown, "PV-QUOTA-UNREACHABLE"));
    assert!(setup.call(Operation::ListTools, json!({})).await.outcome.is_ok());
}

#[tokio::test]
async fn cut_off_it_spends_what_it_has_and_then_denies_until_the_ledger_is_back() {
    let port = Port::with(100);
    let setup = Setup::new(&[("hourly", quota(QuotaUnit::Calls, 100))], Some(&port));
    assert!(setup.echo().await.is_ok());
    port.0.lock().is_down = true;
    let mut admitted = 1;
    let denied = loop {
        match setup.echo().await {
            Ok(_) => admitted += 1,
            Err(denied) => break denied,
        }
    };
    assert_eq!(admitted, 100 - port.left("acme/hourly"), "all that was leased, and nothing more");
    assert_eq!((denied.kind, denied.code), (RejectionKind::LimitUnknown, "PV-QUOTA-UNREACHABLE"));
    assert!(denied.retry_after_ms.is_some());
    port.0.lock().is_down = false;
    let mut tries = 0;
    while setup.echo().await.is_err() {
        tries += 1;
        assert!(tries < 10, "the ledger is back and nobody noticed");
    }
}

#[tokio::test]
async fn a_fenced_node_admits_nothing() {
    let port = Port::with(100);
    port.0.lock().is_fenced = true;
    let setup = Setup::new(&[("hourly", quota(QuotaUnit::Calls, 100))], Some(&port));
    let denied = setup.echo().await.unwrap_err();
    assert_eq!(denied.code, "PV-QUOTA-UNREACHABLE");
    assert!(denied.error.message.contains("this node's name"), "{}", denied.error.message);
    let mut fenced = setup.quotas.as_ref().unwrap().fenced();
    tokio::time::timeout(SOON, fenced.wait_for(|f| *f)).await.unwrap().unwrap();
}

#[tokio::test]
async fn what_is_left_goes_back_at_the_end() {
    let port = Port::with(100);
    let setup = Setup::new(&[("hourly", quota(QuotaUnit::Calls, 100))], Some(&port));
    for _ in 0..3 {
        setup.echo().await.unwrap();
    }
    setup.quotas.as_ref().unwrap().close().await;
    assert_eq!(port.left("acme/hourly"), 97);
    let settled: u64 = port.0.lock().requests.iter().flat_map(|r| &r.reports).map(|r| r.settled).sum();
    assert_eq!(settled, 3);
    assert!(port.0.lock().requests.last().unwrap().reports.last().unwrap().closed);
}

#[tokio::test]
async fn tokens_are_reserved_for_the_worst_case_and_settled_by_use() {
    let port = Port::with(1_000);
    let setup = Setup::new(&[("tokens", quota(QuotaUnit::Tokens, 1_000))], Some(&port));
    // Seven tokens each, though each reserves hundreds.
    for _ in 0..20 {
        let answer = setup.call(Operation::Embed("tiny".into()), json!({"model": "tiny", "input": "x"})).await;
        assert!(answer.outcome.is_ok(), "{:?}", answer.outcome);
        assert_eq!(answer.limits[0].unit, QuotaUnit::Tokens);
    }
    setup.quotas.as_ref().unwrap().close().await;
    assert_eq!(port.left("acme/tokens"), 1_000 - 20 * 7);
    // A chat could use more than is left; tools use no tokens.
    let setup = Setup::new(&[("tokens", quota(QuotaUnit::Tokens, 400))], Some(&Port::with(400)));
    let chat = json!({"model": "tiny", "messages": [], "max_tokens": 300});
    let denied = setup.call(Operation::Chat("tiny".into()), chat).await.outcome.unwrap_err();
    assert_eq!(denied.code, "PV-QUOTA-EXCEEDED");
    assert!(denied.error.message.contains("this call may use"), "{}", denied.error.message);
    assert_eq!(denied.retry_after_ms, None, "it never fits");
    assert!(setup.echo().await.is_ok());
    // This one could fit, and not now: what came for it goes back to where others may use it.
    let port = Port::with(1_000);
    let setup = Setup::new(&[("tokens", quota(QuotaUnit::Tokens, 1_000))], Some(&port));
    let chat = |bound: u64| json!({"model": "tiny", "messages": [], "max_tokens": bound});
    port.0.lock().left.insert("acme/tokens".into(), 400);
    let denied = setup.call(Operation::Chat("tiny".into()), chat(600)).await.outcome.unwrap_err();
    assert!(denied.error.message.contains("at most 400 are left"), "{}", denied.error.message);
    assert_eq!(port.left("acme/tokens"), 0);
    let back = async {
        while port.left("acme/tokens") == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, back).await.expect("nothing goes back");
    assert_eq!(port.left("acme/tokens"), 400);
}

async fn reserve(quotas: &Quotas, index: &QuotaIndex) -> Result<Reservation, Rejection> {
    let (tenant, principal) = (name("acme"), name("ann"));
    let call = QuotaCall {
        tenant: &tenant,
        principal: &principal,
        tool: Some("echo.echo"),
        model: None,
        workflow: "",
        tokens: 0,
        cost_micro: 0,
    };
    quotas.reserve(index, &call).await
}

#[tokio::test]
async fn slots_are_free_again_when_calls_end() {
    let quotas = Quotas::start(Arc::new(Port::with(2)), "dp-1", 1);
    let index = QuotaIndex::compile(&snapshot(&[("slots", quota(QuotaUnit::Concurrent, 2))]));
    let first = reserve(&quotas, &index).await.unwrap();
    let second = reserve(&quotas, &index).await.unwrap();
    let denied = reserve(&quotas, &index).await.unwrap_err();
    assert!(denied.error.message.contains("2 calls at once run already"), "{}", denied.error.message);
    first.0[0].begin();
    first.0[0].settle(&Usage::default());
    let third = reserve(&quotas, &index).await.unwrap();
    second.0[0].begin();
    drop((second, third));
    let _both = (reserve(&quotas, &index).await.unwrap(), reserve(&quotas, &index).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_calls_at_once_are_admitted_exactly_as_often_as_there_are_units() {
    let quotas = Quotas::start(Arc::new(Port::with(100)), "dp-1", 1);
    let two = [("hourly", quota(QuotaUnit::Calls, 100)), ("second", quota(QuotaUnit::Calls, 100))];
    let index = Arc::new(QuotaIndex::compile(&snapshot(&two)));
    let calls: Vec<_> = (0..500)
        .map(|_| {
            let (quotas, index) = (quotas.clone(), index.clone());
            tokio::spawn(async move {
                let Ok(reservation) = reserve(&quotas, &index).await else { return false };
                reservation.0.iter().for_each(|hold| hold.begin());
                reservation.0.iter().for_each(|hold| hold.settle(&Usage::default()));
                true
            })
        })
        .collect();
    let mut admitted = 0;
    for call in calls {
        admitted += u64::from(call.await.unwrap());
    }
    assert_eq!(admitted, 100);
}

#[tokio::test]
async fn money_is_reserved_for_the_worst_case_settled_by_use_and_recorded() {
    let port = Port::with(10_000);
    let setup = Setup::new(&[("money", quota(QuotaUnit::CostMicro, 10_000))], Some(&port));
    setup.echo().await.unwrap();
    // A call and seven tokens, though hundreds were reserved.
    let embed = setup.call(Operation::Embed("tiny".into()), json!({"model": "tiny", "input": "x"})).await;
    assert!(embed.outcome.is_ok(), "{:?}", embed.outcome);
    let costs = |setup: &Setup| -> Vec<u64> {
        let records = setup.world.records.lock();
        records.iter().filter(|r| r.phase == Phase::Outcome).map(|r| r.impact.cost_micro).collect()
    };
    assert_eq!(costs(&setup), [100, 100 + 7 * 3]);
    // What a model cannot do is not charged but for the call.
    let chat = json!({"model": "tiny", "messages": [], "max_tokens": 5});
    setup.call(Operation::Chat("tiny".into()), chat).await;
    assert_eq!(costs(&setup)[2], 100);
    setup.quotas.as_ref().unwrap().close().await;
    assert_eq!(port.left("acme/money"), 10_000 - 100 - 121 - 100);
    // Of what costs more than the quota ever has, none runs; what is used up is used up.
    let setup = Setup::new(&[("money", quota(QuotaUnit::CostMicro, 250))], Some(&Port::with(250)));
    let dear = setup.call(Operation::Embed("tiny".into()), json!({"model": "tiny", "input": "x"})).await;
    assert_eq!(dear.outcome.unwrap_err().retry_after_ms, None);
    setup.echo().await.unwrap();
    setup.echo().await.unwrap();
    let denied = setup.echo().await.unwrap_err();
    assert_eq!(denied.code, "PV-QUOTA-EXCEEDED");
    let said = "quota acme/money: this call may use 100, and of 250 millionths an hour at most 50 are left; it begins \
                anew at ";
    assert!(denied.error.message.starts_with(said), "{}", denied.error.message);
}

#[tokio::test]
async fn a_slot_is_free_again_after_a_call_that_fails_is_refused_later_or_is_cancelled() {
    let slots = quota(QuotaUnit::Concurrent, 1);
    let tokens = quota(QuotaUnit::Tokens, 10_000);
    let port = Port::with(10_000);
    port.0.lock().left.insert("acme/slots".into(), 1);
    let setup = Setup::new(&[("slots", slots), ("tokens", tokens)], Some(&port));
    let chat =
        |bound: u32| json!({"model": "tiny", "messages": [{"role": "user", "content": "x"}], "max_tokens": bound});
    let wrong = json!({"name": "echo.echo", "arguments": {"text": 5}});
    for round in 0..3 {
        setup.call(Operation::Chat("tiny".into()), chat(5)).await.outcome.unwrap();
        setup.call(Operation::CallTool("echo.echo".into()), wrong.clone()).await.outcome.unwrap_err();
        // While one runs, there is no slot for another.
        let link = CancelLink(tokio::sync::Notify::new());
        let endless = setup.call_by(Operation::Chat("tiny".into()), chat(ENDLESS), &link);
        let before = setup.world.endless.load(Ordering::SeqCst);
        let meanwhile = async {
            setup.world.more_than(before).await;
            let refused = setup.echo().await;
            link.0.notify_one();
            refused
        };
        let (cancelled, refused) = tokio::join!(endless, meanwhile);
        assert!(matches!(cancelled.outcome, Ok(Reply::Error(_))), "{:?}", cancelled.outcome);
        let refused = refused.unwrap_err();
        assert!(refused.error.message.contains("1 calls at once run already"), "{}", refused.error.message);
        let data = RawObject::parse(refused.error.data.as_ref().unwrap()).unwrap();
        assert_eq!(data.get_text("kind").as_deref(), Some("concurrency"));
        assert!(setup.echo().await.is_ok(), "round {round}: the slot came back");
        // A call whose task is lost gives its slot back too.
        let lost = setup.call_by(Operation::Chat("tiny".into()), chat(ENDLESS), &NoLink);
        tokio::select! {
            answer = lost => panic!("it has an end: {:?}", answer.outcome),
            () = setup.world.more_than(before + 1) => {}
        }
        assert!(setup.echo().await.is_ok(), "round {round}: the slot of a lost call came back");
    }
    // What was cancelled is charged by upper bounds, what was lost by all that it held; not nothing.
    setup.quotas.as_ref().unwrap().close().await;
    assert!(port.left("acme/tokens") < 10_000 - 3 * (256 + 5), "{}", port.left("acme/tokens"));
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_free_and_one_that_never_began_is() {
    let port = Port::with(10_000);
    let setup = Setup::new(&[("tokens", quota(QuotaUnit::Tokens, 10_000))], Some(&port));
    let chat =
        |bound: u32| json!({"model": "tiny", "messages": [{"role": "user", "content": "x"}], "max_tokens": bound});
    setup.call(Operation::Chat("tiny".into()), chat(5)).await.outcome.unwrap();
    let broken = setup.call(Operation::Chat("tiny".into()), chat(BROKEN)).await;
    assert!(matches!(broken.outcome, Ok(Reply::Error(_))), "{:?}", broken.outcome);
    setup.quotas.as_ref().unwrap().close().await;
    let charged = 10_000 - port.left("acme/tokens");
    assert!((256 + 5..2 * 256).contains(&charged), "{charged}");
}

#[tokio::test]
async fn who_goes_away_before_an_answer_began_leaves_the_queue_and_pays_nothing() {
    let port = Port::with(10_000);
    let setup = Setup::new(&[("tokens", quota(QuotaUnit::Tokens, 10_000))], Some(&port));
    let chat = json!({"model": "tiny", "messages": [{"role": "user", "content": "x"}], "max_tokens": QUEUED});
    let link = CancelLink(tokio::sync::Notify::new());
    let queued = setup.call_by(Operation::Chat("tiny".into()), chat, &link);
    let leaves = async {
        setup.world.more_than(0).await;
        link.0.notify_one();
    };
    let (left, ()) = tokio::join!(tokio::time::timeout(SOON, queued), leaves);
    assert!(matches!(left.unwrap().outcome, Ok(Reply::Error(_))));
    setup.quotas.as_ref().unwrap().close().await;
    assert_eq!(port.left("acme/tokens"), 10_000);
}
