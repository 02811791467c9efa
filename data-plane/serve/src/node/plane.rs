//! The stages of a call, answered by this node.

use std::{
    net::IpAddr,
    sync::{Arc, OnceLock, Weak},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use futures::future::join_all;
use provost_data_guards::Vault;
use provost_data_pipeline::{
    Admitted, Authenticated, Authorization, Call, Caller, ClientLink, Credential, Execution, GuardedParams, Hold,
    Intended, Limited, Operation, Plane, Received, Rejection, RejectionKind, Reply, Request, Reservation, Resolved,
    Route, Target, Validated,
};
use provost_data_policy::{AccessRequest, Facts, KillSwitches, SqlFacts};
use provost_data_tools::{EndpointView, ExecuteRequest, OtherTools, Pressure, Toolbox, Walls};
use provost_mcp::{RawJson, RawObject, RpcError};
use provost_types::{
    AuditEvent, AuditReceipt, AuditSink, AuditUnavailable, Decision, Effect, Inference, Name, PrincipalRef, Revision,
    Snapshot,
};
use tokio::sync::watch;

use super::{
    access, aliases,
    coming::Coming,
    compiled::Compiled,
    consent,
    counts::Counts,
    listening, lists,
    load::{self, Load},
    nested, switches,
    tasks::{CallHandles, TaskHandles, TaskLink},
};
use crate::{
    SealKeys,
    bodies::BodyKeeper,
    connect::Tickets,
    definitions::DefinitionKeeper,
    guards::{self, Asking, ExternalClients, GuardCounts, Revealing, TenantVault},
    push::{StalenessLimits, StalenessReader},
    quota::Quotas,
};

/// Rounds of questions to one legacy client within one call: an upstream that never has enough
/// is cut off.
const MAX_INPUT_ROUNDS: usize = 32;
/// The longest a call may run whatever its plugin allows.
const MAX_CALL_TIME: Duration = Duration::from_secs(3_600);
/// The longest wait for upstreams to take a log level.
const LOG_LEVEL_TIME: Duration = Duration::from_secs(2);

/// What the node is composed of.
pub struct NodePorts {
    /// Where records go.
    pub audit: Arc<dyn AuditSink>,
    /// Plugins.
    pub toolbox: Arc<Toolbox>,
    /// Models.
    pub inference: Arc<dyn Inference>,
    /// Whether, and as whom, calls without a token are served.
    pub anonymous: Option<PrincipalRef>,
}

/// One data-plane node.
pub struct Node {
    current: ArcSwap<Compiled>,
    /// The switches that are on now, for calls that run.
    pub(super) switches: watch::Sender<Arc<KillSwitches>>,
    audit: Arc<dyn AuditSink>,
    pub(super) toolbox: Arc<Toolbox>,
    pub(super) inference: Arc<dyn Inference>,
    anonymous: Option<Arc<Caller>>,
    counts: Counts,
    guard_counts: Arc<GuardCounts>,
    pub(super) definitions: DefinitionKeeper,
    pub(super) quotas: Option<Arc<Quotas>>,
    pub(super) staleness: Option<(StalenessReader, StalenessLimits)>,
    bodies: Option<BodyKeeper>,
    load: Arc<Load>,
    external_guards: Arc<ExternalClients>,
    /// What tokens of guards are sealed with; without, values are masked.
    token_keys: OnceLock<Arc<SealKeys>>,
    /// A state that is being made ready.
    pub(super) coming: Coming,
    /// Under which agents know the node: the audiences of tokens, each without `/mcp`.
    addresses: OnceLock<Vec<String>>,
    pub(super) tasks: TaskHandles,
    /// Addresses that lead users to a consent; set with the keys.
    pub(super) tickets: OnceLock<Tickets>,
    /// What calls of guests are driven by; unset: they make none.
    itself: OnceLock<Weak<Node>>,
}

impl Node {
    /// A node that runs `first` until told otherwise.
    pub fn new(ports: NodePorts, first: Compiled) -> Self {
        let NodePorts { audit, toolbox, inference, anonymous } = ports;
        toolbox.reconcile(&first.snapshot);
        first.tokens.warm();
        let anonymous = anonymous.map(|principal| {
            Arc::new(Caller { principal, authenticated_by: "anonymous".to_owned(), token: None, subject: None })
        });
        let switches = watch::Sender::new(first.switches.clone());
        let current = ArcSwap::from_pointee(first);
        let external_guards = Arc::new(ExternalClients::new(toolbox.clone()));
        Self {
            current,
            switches,
            audit,
            toolbox,
            inference,
            anonymous,
            counts: Counts::default(),
            guard_counts: Arc::default(),
            definitions: DefinitionKeeper::alone(),
            quotas: None,
            staleness: None,
            bodies: None,
            load: Arc::default(),
            external_guards,
            token_keys: OnceLock::new(),
            coming: Coming::default(),
            addresses: OnceLock::new(),
            tasks: TaskHandles::default(),
            tickets: OnceLock::new(),
            itself: OnceLock::new(),
        }
    }

    /// Lets the guests of plugins call other tools, as far as documents and policy do; the first telling counts.
    pub fn lets_guests_call(self: &Arc<Self>) {
        let _ = self.itself.set(Arc::downgrade(self));
    }

    /// What calls of guests are driven by.
    pub(super) fn itself(&self) -> Option<Weak<Node>> {
        self.itself.get().cloned()
    }

    /// Tells the addresses that agents know the node by (`https://mcp.example.com`); the first telling counts.
    /// Tokens for them are taken where a provider names no audience; without any, none is.
    pub fn known_as(&self, addresses: &[String]) {
        let bare = addresses.iter().map(|address| address.trim_end_matches('/').to_owned()).collect();
        let _ = self.addresses.set(bare);
    }

    /// Tells the keys under which clients and texts carry things for all nodes; the first telling counts. A node that is
    /// told none gives handles of tasks that are good at it alone, and masks what guards would tokenise.
    pub fn seals_with(&self, keys: &Arc<SealKeys>) {
        let _ = self.token_keys.set(keys.clone());
        self.tasks.keyed(keys);
        let _ = self.tickets.set(Tickets::new(keys));
    }

    /// The address that users are sent to.
    pub(super) fn first_address(&self) -> Option<&str> {
        self.addresses.get()?.first().map(String::as_str)
    }

    /// With keys to keep bodies under; a node without records calls and nothing of their bodies.
    #[must_use]
    pub fn with_bodies(mut self, bodies: BodyKeeper) -> Self {
        self.bodies = Some(bodies);
        self
    }

    /// With a keeper that reports tool definitions; a node without pins what it sees by itself.
    #[must_use]
    pub fn with_definitions(mut self, definitions: DefinitionKeeper) -> Self {
        self.definitions = definitions;
        self
    }

    /// With leases of quotas; a node without denies what a quota covers.
    #[must_use]
    pub fn with_quotas(mut self, quotas: Arc<Quotas>) -> Self {
        self.quotas = Some(quotas);
        self
    }

    /// For a node whose control plane is elsewhere: from some age of its state on, grants may have
    /// been taken away since, and calls that need one are denied.
    #[must_use]
    pub fn with_staleness(mut self, reader: StalenessReader, limits: StalenessLimits) -> Self {
        self.staleness = Some((reader, limits));
        self
    }

    /// Replaces the state at once for every call that arrives from now on.
    pub fn activate(&self, next: Compiled) {
        let switches = next.switches.clone();
        let before = self.compiled();
        self.definitions.retain(&next.pins);
        self.toolbox.reconcile(&next.snapshot);
        next.tokens.warm();
        let next = Arc::new(next);
        self.current.store(next.clone());
        self.definitions.repinned(&before.pins, &next.pins);
        // After the state: a call that is admitted under the one before is stopped by this.
        self.switches.send_if_modified(|now| {
            let changed = **now != *switches;
            *now = switches;
            changed
        });
    }

    /// Whether this very state is active: its resources, not its revision alone.
    pub fn runs(&self, snapshot: &Snapshot) -> bool {
        let now = self.compiled();
        let now = &now.snapshot;
        now.revision == snapshot.revision && now.resources.diff(&snapshot.resources).next().is_none()
    }

    /// The revision that calls run under now.
    pub fn active_revision(&self) -> Revision {
        self.current.load().revision()
    }

    /// Whether the token authenticates somebody now.
    pub fn knows_token(&self, token: &str) -> bool {
        self.current.load().keys.authenticate(token, self.now_ns()).is_ok()
    }

    /// Calls since the start by how they ended.
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        self.counts.read()
    }

    /// Values that guards found since the start: kind, action, how many.
    pub fn guard_counts(&self) -> Vec<(&'static str, &'static str, u64)> {
        self.guard_counts.read()
    }

    /// Of the calls that were denied since the start, those that a full node refused: they say nothing of its policy.
    /// Ask before [`Node::counts`].
    pub fn shed(&self) -> u64 {
        self.counts.shed()
    }

    /// The calls that run now, and the bound on them.
    pub fn load(&self) -> &Load {
        &self.load
    }

    /// How plugins stand towards their upstreams: tenant, plugin, state.
    pub fn pressures(&self) -> Vec<(Name, Name, Pressure)> {
        self.toolbox.pressures()
    }

    /// The endpoints of plugins that have several: tenant, plugin, state of each.
    pub fn endpoints(&self) -> Vec<(Name, Name, Vec<EndpointView>)> {
        self.toolbox.endpoints()
    }

    /// The walls around the processes of plugins: tenant, plugin, walls.
    pub fn walls(&self) -> Vec<(Name, Name, Walls)> {
        self.toolbox.walls()
    }

    /// The state that calls run under now: the next one is compiled from it.
    pub fn compiled(&self) -> Arc<Compiled> {
        self.current.load_full()
    }

    /// Who the credential says that calls.
    pub(super) fn caller(
        &self,
        compiled: &Compiled,
        credential: &Credential,
        route: &Route,
    ) -> Result<Arc<Caller>, Rejection> {
        match (credential, &self.anonymous) {
            (Credential::Bearer(token), _) if compiled.is_of_provider(token) => {
                let now_s = self.now_ns() / 1_000_000_000;
                let addresses = self.addresses.get().map(Vec::as_slice).unwrap_or_default();
                compiled.tokens.authenticate(token, route, &compiled.snapshot, addresses, now_s)
            }
            (Credential::Bearer(token), _) => compiled.keys.authenticate(token, self.now_ns()),
            (Credential::Certificate(certificate), _) => {
                compiled.certificates.authenticate(certificate, self.now_ns() / 1_000_000_000)
            }
            (Credential::Anonymous, Some(caller)) => Ok(caller.clone()),
            (Credential::Anonymous, None) => Err(compiled.tokens.challenge(Rejection::new(
                RejectionKind::Unauthenticated,
                "PV-AUTH-MISSING",
                "no bearer token was sent; `provost token create` makes one",
            ))),
        }
    }

    /// What the tenant's tokens are made with, if its guards make any.
    fn vault(&self, compiled: &Compiled, tenant: &Name) -> Option<Arc<dyn Vault>> {
        let keys = self.token_keys.get().filter(|_| compiled.guards.tokenises(tenant))?;
        Some(Arc::new(TenantVault::new(keys.clone(), tenant.clone())))
    }

    /// Whether the caller may see the object in lists.
    pub(super) fn may_see(
        &self,
        compiled: &Compiled,
        caller: &Caller,
        target: (provost_types::Action, Option<&str>, &str),
    ) -> bool {
        let (action, plugin, full) = target;
        let PrincipalRef { tenant, name } = &caller.principal;
        let (token, facts) = (caller.token.as_deref(), Facts::default());
        let access = AccessRequest { tenant, principal: name, token, action, plugin, target: full, facts: &facts };
        compiled.engine.may_see_object(&access, self.now_ns())
    }

    /// What a SQL text in the arguments does, where the plugin is a database.
    fn sql_facts(&self, call: &Call<Resolved>) -> Option<SqlFacts> {
        let target = call.target();
        let Operation::CallTool(_) = &call.request().operation else { return None };
        let name = target.plugin.as_ref()?;
        let plugin = self.toolbox.plugin(&call.caller().principal.tenant, name.as_str())?;
        let arguments = arguments(&call.request().params)?.parse().ok()?;
        // A text that cannot be parsed has no facts; the plugin refuses it, and so does a policy
        // that asks for them.
        plugin.sql()?.facts(&target.local, &arguments).ok()?
    }

    /// Whether the arguments of a tool fit its schema.
    fn check_arguments(&self, tenant: &Name, target: &Target, request: &Request) -> Result<(), Rejection> {
        let Operation::CallTool(_) = &request.operation else { return Ok(()) };
        let Some(plugin) = target.plugin.as_ref().and_then(|p| self.toolbox.plugin(tenant, p.as_str())) else {
            return Ok(());
        };
        let arguments = arguments(&request.params).unwrap_or(RawJson::EMPTY_OBJECT);
        plugin.validate(&target.local, &arguments).map_err(|problem| {
            Rejection::new(
                RejectionKind::Invalid,
                "PV-ARGS-SCHEMA",
                format!("the arguments of {} do not fit its schema: {problem}", target.full),
            )
        })
    }

    pub(super) async fn run(
        &self,
        compiled: &Arc<Compiled>,
        call: &Call<Intended>,
        link: &dyn ClientLink,
    ) -> Execution {
        if call.request().within.as_ref().is_some_and(|within| nested::is_over(within, link)) {
            return Execution::cancelled();
        }
        let operation = &call.request().operation;
        if lists::is_list(operation) {
            return lists::answer(self, compiled, call).await;
        }
        if matches!(operation, Operation::Listen) {
            return listening::listen(self, compiled, call, link).await;
        }
        if matches!(operation, Operation::SetLogLevel) {
            return self.set_log_level(compiled, call, link).await;
        }
        let target = call.target();
        let tenant = &call.caller().principal.tenant;
        let plugin = target.plugin.as_ref().and_then(|name| self.toolbox.plugin(tenant, name.as_str()));
        match plugin {
            Some(plugin) => self.run_on(&plugin, call, link).await,
            None => super::models::run(self, call, link).await,
        }
    }

    /// Tells the upstreams of the route. The front end filters by the level too, so one that cannot
    /// be told in time costs nothing but messages.
    async fn set_log_level(&self, compiled: &Arc<Compiled>, call: &Call<Intended>, link: &dyn ClientLink) -> Execution {
        let tenant = &call.caller().principal.tenant;
        let mut plugins = lists::plugins(self, compiled, tenant, &call.request().route);
        plugins.retain(|(name, _)| !compiled.switches.stops_plugin(tenant, name.as_str()));
        let request = ExecuteRequest {
            deadline: Instant::now() + LOG_LEVEL_TIME,
            ..execute_request(call, Operation::SetLogLevel, call.params().clone())
        };
        join_all(plugins.iter().map(|(_, plugin)| plugin.execute(&request, link))).await;
        Execution::result(RawJson::EMPTY_OBJECT, false)
    }

    /// Runs on one plugin, whose guest, if it has one, may call other tools meanwhile.
    async fn run_on(
        &self,
        plugin: &provost_data_tools::Plugin,
        call: &Call<Intended>,
        link: &dyn ClientLink,
    ) -> Execution {
        let Some(nest) = plugin.has_guest().then(|| self.nest(call)).flatten() else {
            return self.rounds(plugin, call, link, None).await;
        };
        let other_tools: Arc<dyn OtherTools> = nest.clone();
        let execution = self.rounds(plugin, call, link, Some(&other_tools)).await;
        nest.end().await;
        execution
    }

    /// A legacy client is asked for input while its call waits; any other gets the MRTR result and comes back with a
    /// call of its own.
    async fn rounds(
        &self,
        plugin: &provost_data_tools::Plugin,
        call: &Call<Intended>,
        link: &dyn ClientLink,
        other_tools: Option<&Arc<dyn OtherTools>>,
    ) -> Execution {
        let operation = local_operation(&call.request().operation, &call.target().local);
        let mut request = execute_request(call, operation, call.params().clone());
        request.other_tools = other_tools;
        let handles = CallHandles::of(&self.tasks, call, plugin.name());
        let link = &TaskLink { link, handles: &handles };
        if consent::needs_consent(&call.request().operation)
            && let Some(ended) = self.consent_first(plugin, call, &mut request.params).await
        {
            return ended;
        }
        for _ in 0..MAX_INPUT_ROUNDS {
            let execution = plugin.execute(&request, link).await;
            let execution = self.consent_again(plugin, call, &request.params, execution);
            let Reply::InputRequired(body) = &execution.reply else { return handles.own(execution) };
            match ask(link, call.params(), body).await {
                None => return execution,
                Some(Ok(next)) => request.params = next,
                Some(Err(refused)) => return *refused,
            }
            // Each round has its own time: people take longer than machines.
            request.deadline = latest_end(call);
        }
        Execution::error(RpcError::with_code(
            RpcError::UPSTREAM_FAILED,
            "PV-UPSTREAM-INPUT-ROUNDS",
            format!("the upstream asked for input more than {MAX_INPUT_ROUNDS} times in one call"),
        ))
    }
}

/// When a call that begins now ends at the latest: a plugin's not after that of the plugin.
fn latest_end(call: &Call<Intended>) -> Instant {
    let latest = Instant::now() + MAX_CALL_TIME;
    call.request().within.as_ref().map_or(latest, |within| latest.min(within.deadline))
}

/// The call as a plugin takes it.
pub(super) fn execute_request(call: &Call<Intended>, operation: Operation, params: RawJson) -> ExecuteRequest<'_> {
    ExecuteRequest {
        operation,
        params,
        client: &call.request().client,
        principal: &call.caller().principal,
        subject: call.caller().subject.as_ref(),
        deadline: latest_end(call),
        revision: call.decision().revision,
        call_id: call.request().call_id,
        other_tools: None,
    }
}

/// The operation in the plugin's own names.
fn local_operation(operation: &Operation, local: &str) -> Operation {
    let local = local.to_owned();
    match operation {
        Operation::CallTool(_) => Operation::CallTool(local),
        Operation::GetPrompt(_) => Operation::GetPrompt(local),
        Operation::ReadResource(_) => Operation::ReadResource(local),
        Operation::Subscribe(_) => Operation::Subscribe(local),
        Operation::Unsubscribe(_) => Operation::Unsubscribe(local),
        Operation::Complete { is_prompt, .. } => Operation::Complete { is_prompt: *is_prompt, target: local },
        Operation::Task { method, .. } => Operation::Task { method: method.clone(), task: local },
        other => other.clone(),
    }
}

/// Asks the client, if it can be asked, and makes the parameters of the next round.
async fn ask(
    link: &dyn ClientLink,
    params: &RawJson,
    input_required: &RawJson,
) -> Option<Result<RawJson, Box<Execution>>> {
    let body = RawObject::parse(input_required).ok()?;
    let requests = body.get("inputRequests").unwrap_or(RawJson::EMPTY_OBJECT);
    let answering = link.ask(&requests)?;
    let responses = match answering.await {
        Ok(responses) => responses,
        Err(cause) => {
            let error = RpcError::with_code(
                RpcError::INTERNAL,
                "PV-CLIENT-INPUT",
                format!("{cause}, and the upstream cannot go on without"),
            );
            return Some(Err(Box::new(Execution::error(error))));
        }
    };
    let mut next = RawObject::parse(params).ok()?;
    next.set("inputResponses", responses);
    match body.get("requestState") {
        Some(state) => next.set("requestState", state),
        None => drop(next.remove("requestState")),
    }
    Some(Ok(next.finish()))
}

/// The `arguments` object of a `tools/call`.
fn arguments(params: &RawJson) -> Option<RawJson> {
    RawObject::parse(params).ok()?.get("arguments")
}

impl Plane for Node {
    type Snapshot = Compiled;

    fn snapshot(&self) -> Arc<Compiled> {
        self.current.load_full()
    }

    fn revision(&self, snapshot: &Compiled) -> Revision {
        snapshot.revision()
    }

    fn now_ns(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    fn authenticate(&self, snapshot: &Compiled, call: &Call<Received>) -> Result<Arc<Caller>, Rejection> {
        self.caller(snapshot, &call.request().credential, &call.request().route)
    }

    async fn catch_up(&self, request: &Request) {
        self.wait_for_coming(request).await;
    }

    async fn prepare(&self, snapshot: &Arc<Compiled>, credential: &Credential) {
        if let Credential::Bearer(token) = credential
            && snapshot.is_of_provider(token)
        {
            Box::pin(snapshot.tokens.prepare(token)).await;
        }
    }

    fn authorization(&self) -> Authorization {
        self.current.load().tokens.authorization().clone()
    }

    fn scopes_needed(&self, snapshot: &Compiled, call: &Call<Resolved>) -> Vec<String> {
        super::step_up::scopes_needed(self, snapshot, call)
    }

    async fn resolve(&self, snapshot: &Arc<Compiled>, call: &Call<Authenticated>) -> Result<Target, Rejection> {
        super::target::resolve(self, snapshot, call).await
    }

    fn stop(&self, snapshot: &Compiled, call: &Call<Resolved>) -> Result<(), Rejection> {
        switches::check(&snapshot.switches, call)?;
        nested::check(call)?;
        self.check_definition(snapshot, call)
    }

    fn authorise(&self, snapshot: &Compiled, call: &Call<Resolved>) -> Decision {
        let (request, target) = (call.request(), call.target());
        let Some(action) = target.action else {
            return Decision {
                effect: Effect::Allow,
                policies: Vec::new(),
                observed: Vec::new(),
                reason: "lists are filtered by what the caller may use".to_owned(),
                revision: snapshot.revision(),
            };
        };
        let arguments = arguments(&request.params);
        let sql = self.sql_facts(call);
        let facts = Facts {
            arguments: arguments.as_ref().map(RawJson::as_str),
            sql: sql.as_ref(),
            transport: request.client.transport,
            client_address: request.client.address.as_deref().and_then(address),
        };
        let PrincipalRef { tenant, name } = &call.caller().principal;
        let request = AccessRequest {
            tenant,
            principal: name,
            token: call.caller().token.as_deref(),
            action,
            plugin: target.plugin.as_ref().map(Name::as_str),
            target: &target.full,
            facts: &facts,
        };
        let is_inference = target.plugin.as_ref().is_some_and(|plugin| snapshot.is_inference(tenant, plugin));
        access::decide(&snapshot.engine, &request, is_inference, self.now_ns())
    }

    fn unreadable(&self, _: &Compiled, call: &Call<Resolved>) -> Result<(), Rejection> {
        let (tenant, target) = (&call.caller().principal.tenant, call.target());
        let plugin = target.plugin.as_ref().and_then(|name| self.toolbox.plugin(tenant, name.as_str()));
        match plugin.filter(|plugin| plugin.sql().is_some()) {
            Some(_) => self.check_arguments(tenant, target, call.request()),
            None => Ok(()),
        }
    }

    async fn limit(&self, snapshot: &Compiled, call: &Call<Admitted>) -> Result<Reservation, Rejection> {
        // After policy: who may not do it anyway is told that, and not how the node stands.
        if call.target().action.is_some() {
            self.check_grants()?;
        }
        let priority = snapshot.priority(&call.caller().principal);
        let running = self.load.enter(&call.request().operation, priority)?;
        let mut reservation = super::limit::reserve(self, snapshot, call).await?;
        reservation.0.extend(running.map(|running| Box::new(running) as Box<dyn Hold>));
        Ok(reservation)
    }

    fn validate(&self, _: &Compiled, call: &Call<Limited>) -> Result<(), Rejection> {
        self.check_arguments(&call.caller().principal.tenant, call.target(), call.request())
    }

    async fn guard_in(&self, snapshot: &Compiled, call: &Call<Validated>) -> Result<GuardedParams, Rejection> {
        let caller = call.caller();
        let model = model_of(snapshot, caller, call.target(), call.request());
        let PrincipalRef { tenant, name } = &caller.principal;
        let (token, now_ns) = (caller.token.as_deref(), self.now_ns());
        let holds = |role: &Name| snapshot.engine.holds_role(tenant, name, token, role, now_ns);
        let revealing = Revealing { vault: self.vault(snapshot, tenant), holds: &holds };
        let principal =
            self.token_keys.get().map(|keys| guards::pseudonym(keys, &caller.principal)).unwrap_or_default();
        let asking = Asking { clients: &self.external_guards, principal };
        let ways = guards::ways(&snapshot.guards, call, model.as_deref(), revealing, &asking);
        guards::guard_in(&self.guard_counts, call, ways).await
    }

    fn guard_refused(
        &self,
        snapshot: &Compiled,
        caller: &Caller,
        target: Option<&Target>,
        request: &Request,
    ) -> GuardedParams {
        let model = target.and_then(|target| model_of(snapshot, caller, target, request));
        let vault = self.vault(snapshot, &caller.principal.tenant);
        guards::guard_refused(&snapshot.guards, &self.guard_counts, caller, target, request, model.as_deref(), vault)
    }

    async fn execute(&self, snapshot: &Arc<Compiled>, call: &Call<Intended>, link: &dyn ClientLink) -> Execution {
        let mut execution = self.run_unless_stopped(snapshot, call, link).await;
        aliases::warn(&snapshot.aliases, call, &mut execution, self.now_ns());
        let usage = &mut execution.usage;
        usage.cost_micro = super::limit::price(snapshot, call).cost_micro(usage.tokens_in, usage.tokens_out);
        execution
    }

    async fn record(&self, event: AuditEvent) -> Result<AuditReceipt, AuditUnavailable> {
        let (status, is_shed) = (event.status, event.error.as_deref() == Some(load::SHED));
        let receipt = self.audit.record(event).await?;
        if let Some(status) = status {
            self.counts.add(status);
        }
        if is_shed {
            self.counts.add_shed();
        }
        Ok(receipt)
    }

    async fn protect(
        &self,
        principal: &PrincipalRef,
        event: &mut AuditEvent,
        body: Option<&[u8]>,
    ) -> Result<(), AuditUnavailable> {
        match &self.bodies {
            Some(bodies) => bodies.protect(principal, event, body).await,
            None => Ok(()),
        }
    }
}

/// The `model` that a tool of the `inference` built-in is asked to run.
fn model_argument(arguments: &RawJson) -> Option<String> {
    RawObject::parse(arguments).ok()?.get_text("model")
}

/// The model behind a tool, where a guard may ask for it.
fn model_of(snapshot: &Compiled, caller: &Caller, target: &Target, request: &Request) -> Option<String> {
    let tenant = &caller.principal.tenant;
    let plugin = target.plugin.as_ref()?;
    if !snapshot.guards.has_any(tenant) || !snapshot.is_inference(tenant, plugin) {
        return None;
    }
    model_argument(&arguments(&request.params)?)
}

/// An address with or without a port.
fn address(text: &str) -> Option<IpAddr> {
    text.parse().ok().or_else(|| text.parse::<std::net::SocketAddr>().ok().map(|a| a.ip()))
}
