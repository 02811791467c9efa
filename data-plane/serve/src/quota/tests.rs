//! The gate before a real node, with a ledger that does as it is told.

mod limits;
mod settling;
mod slots;
mod world;

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
use world::{CancelLink, NoLink, World};

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
            sound: None,
            within: None,
        };
        Box::pin(drive(&self.node, Call::received(request), link)).await
    }

    async fn echo(&self) -> Result<Reply, Rejection> {
        let params = json!({"name": "echo.echo", "arguments": {"text": "x"}});
        self.call(Operation::CallTool("echo.echo".into()), params).await.outcome
    }
}
