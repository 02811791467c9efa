//! All plugins of all tenants, kept in step with the snapshot.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::PathBuf,
    sync::Arc,
};

use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderName, HeaderValue};
use parking_lot::Mutex;
use provost_types::{
    BuiltinPlugin, ClientSecretIn, EgressSpec, FileDigest, GrpcPlugin, HostPattern, HttpPlugin, Inference, Instances,
    Kind, Name, OpenApiPlugin, PluginSource, PluginSpec, PrincipalRef, Resource, ResourceKey, Revision, SealedSecret,
    SecretRef, Snapshot, Spec, StdioPlugin, UpstreamAuth, WasmPlugin, WasmSource,
};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use crate::{
    Limits, PackagePort, Plugin, Pressure, UpstreamError, Walls,
    builtin::Builtin,
    component::{Component, Credential, Door, Engines, Origin, PackageOrigin, Parts, Publishers},
    connections::{Connections, OwnConnection},
    egress::{EgressClient, EgressRule},
    grpc::{self, Grpc},
    oauth::{AuthorityTold, Authorizer, ClientIdentity, For, SigningKey},
    openapi::{self, Filter, OpenApi, Reach},
    plugin::Identity,
    rag::{Indexes, Rag},
    redact::Redactor,
    secrets::{SECRET_OPEN, secrets_of},
    siblings::{Kin, PluginId, Siblings},
    upstream::{EndpointView, Endpoints, HttpTarget, McpUpstream, StdioTarget, Walled},
};

/// Opened secrets of a tenant.
pub trait SecretSource: Send + Sync {
    /// The secret's value; `None` if there is none under this name, or it has no value yet.
    fn secret(&self, tenant: &Name, name: &Name) -> Option<SecretString>;

    /// The tokens of a connection, as they were sealed in the resource of this name; `None`: they do not open.
    fn tokens(&self, _tenant: &Name, _connection: &Name, _sealed: &SealedSecret) -> Option<SecretString> {
        None
    }
}

/// What plugins need of the node.
pub struct ToolboxDeps {
    /// For headers, environments and settings.
    pub secrets: Arc<dyn SecretSource>,
    /// For the `inference` built-in.
    pub inference: Arc<dyn Inference>,
    /// The node's data directory: where relative `sqlite:` paths begin.
    pub data_dir: PathBuf,
    /// Bounds.
    pub limits: Limits,
    /// The other nodes that run the same plugins; `None`: there are none.
    pub siblings: Option<Arc<dyn Siblings>>,
    /// What users consented to; `None`: plugins that need it do not run.
    pub connections: Option<Arc<Connections>>,
    /// The program whose `main` begins with [`crate::launch_if_asked`]; `None`: plugins that need walls do not run.
    pub launcher: Option<PathBuf>,
    /// The control plane's packages; `None`: plugins of packages do not run.
    pub packages: Option<Arc<dyn PackagePort>>,
}

/// By tenant, then by name: a call looks some up several times, and makes no key for it.
type Plugins = HashMap<Name, BTreeMap<Name, Running>>;

#[derive(Clone)]
struct Running {
    /// What it was made of.
    resource: Arc<Resource>,
    /// SHA-256 of the spec: a document in it may be large, and is hashed once.
    spec_hash: [u8; 32],
    /// Changes when the spec does, or a secret that it uses, or whom its tenant trusts if it is of a package.
    fingerprint: [u8; 32],
    plugin: Arc<Plugin>,
}

impl Running {
    /// Whether it is the plugin of this document still, for sure: nothing needs to be compared then.
    fn is_of(&self, resource: &Arc<Resource>, spec: &PluginSpec) -> bool {
        Arc::ptr_eq(&self.resource, resource) && secrets_of(spec).is_empty() && package_of(spec).is_none()
    }
}

/// The running plugins.
pub struct Toolbox {
    deps: ToolboxDeps,
    plugins: ArcSwap<Plugins>,
    /// One reconciliation at a time.
    reconciling: Mutex<()>,
    engines: Engines,
    indexes: Indexes,
    /// Counts what changed of the plugins, or of what serves in their names.
    changes: watch::Sender<u64>,
}

impl Toolbox {
    /// A toolbox without plugins.
    pub fn new(deps: ToolboxDeps) -> Arc<Self> {
        let (engines, indexes) = (Engines::new(&deps.data_dir), Indexes::new(&deps.data_dir));
        let (plugins, changes) = (ArcSwap::from_pointee(Plugins::new()), watch::Sender::new(0));
        Arc::new(Self { deps, plugins, reconciling: Mutex::new(()), engines, indexes, changes })
    }

    /// Starts, keeps, replaces and stops plugins so that they are the snapshot's. Connects to
    /// nothing: that happens at a plugin's first use. Must be called within a tokio runtime.
    pub fn reconcile(&self, snapshot: &Snapshot) {
        let _one = self.reconciling.lock();
        if let Some(connections) = &self.deps.connections {
            connections.renew(snapshot);
        }
        let old = self.plugins.load_full();
        let mut new = Plugins::new();
        for resource in snapshot.of_kind(Kind::Plugin) {
            let (Some(tenant), Spec::Plugin(spec)) = (&resource.metadata.tenant, &resource.spec) else {
                continue;
            };
            let name = &resource.metadata.name;
            let before = old.get(tenant).and_then(|plugins| plugins.get(name));
            let running = match before {
                Some(running) if running.is_of(resource, spec) => running.clone(),
                _ => {
                    let same = before.filter(|running| Arc::ptr_eq(&running.resource, resource));
                    let spec_hash = same.map_or_else(|| Sha256::digest(spec_bytes(spec)).into(), |r| r.spec_hash);
                    let fingerprint = fingerprint(snapshot, tenant, spec, &spec_hash);
                    let kept = before.filter(|running| running.fingerprint == fingerprint);
                    let plugin = kept.map(|running| running.plugin.clone());
                    let replaced = before.map(|running| &running.plugin);
                    let plugin =
                        plugin.unwrap_or_else(|| Arc::new(self.start(snapshot, tenant, resource, spec, replaced)));
                    Running { resource: resource.clone(), spec_hash, fingerprint, plugin }
                }
            };
            new.entry(tenant.clone()).or_default().insert(name.clone(), running);
        }
        let new = Arc::new(new);
        self.plugins.store(new.clone());
        for (tenant, plugins) in old.iter() {
            let now = new.get(tenant);
            for (name, running) in plugins {
                let now = now.and_then(|plugins| plugins.get(name));
                if now.is_none_or(|now| !Arc::ptr_eq(&now.plugin, &running.plugin)) {
                    running.plugin.retire();
                }
            }
        }
        self.sweep(snapshot);
        let plugins_of =
            |all: &Plugins| all.values().flat_map(BTreeMap::values).map(|r| Arc::as_ptr(&r.plugin)).collect();
        let (old, new): (BTreeSet<_>, BTreeSet<_>) = (plugins_of(&old), plugins_of(&new));
        if old != new {
            self.changes.send_modify(|n| *n += 1);
            self.prune_packages(snapshot);
        }
    }

    /// Removes the packages that no plugin names any more, beside everything else.
    fn prune_packages(&self, snapshot: &Snapshot) {
        // A node that stops, or has no state that it could run, says nothing of what it will need.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if snapshot.resources.is_empty() {
            return;
        }
        let of = |resource: &Arc<Resource>| match &resource.spec {
            Spec::Plugin(spec) => package_of(spec),
            _ => None,
        };
        let wanted: BTreeSet<FileDigest> = snapshot.of_kind(Kind::Plugin).filter_map(of).collect();
        let files = self.engines.packages();
        runtime.spawn_blocking(move || files.prune(&wanted));
    }

    /// Removes indexes of documents whose plugin is gone. A node that stops has no plugins, and keeps them.
    fn sweep(&self, snapshot: &Snapshot) {
        let is_rag =
            |spec: &Spec| matches!(spec, Spec::Plugin(plugin) if matches!(plugin.source, PluginSource::Rag(_)));
        let plugins = snapshot.of_kind(Kind::Plugin);
        let kept = plugins.filter(|resource| is_rag(&resource.spec));
        let kept = kept.filter_map(|r| Some((r.metadata.tenant.clone()?, r.metadata.name.clone()))).collect();
        if snapshot.revision != Revision::default() {
            self.indexes.sweep(kept);
        }
    }

    /// Changes when a plugin comes, goes or is replaced, and when its next version begins to serve.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// A plugin.
    pub fn plugin(&self, tenant: &Name, name: &str) -> Option<Arc<Plugin>> {
        self.plugins.load().get(tenant)?.get(name).map(|r| r.plugin.clone())
    }

    /// A tenant's plugins, in order of name.
    pub fn plugins(&self, tenant: &Name) -> Vec<Arc<Plugin>> {
        let all = self.plugins.load();
        all.get(tenant).into_iter().flat_map(BTreeMap::values).map(|r| r.plugin.clone()).collect()
    }

    /// What a principal lets plugins do in their name, in order of plugin.
    pub fn connections_of(&self, principal: &PrincipalRef) -> Vec<OwnConnection> {
        self.deps.connections.as_ref().map(|connections| connections.of(principal)).unwrap_or_default()
    }

    /// Ends what a principal consented to in the flow that began then, here in any case; what the authorization
    /// server made of it. `None`: there is no such connection any more.
    pub async fn disconnect(
        &self,
        principal: &PrincipalRef,
        plugin: &Name,
        began_ns: u64,
    ) -> Result<Option<AuthorityTold>, UpstreamError> {
        if let Some(running) = self.plugin(&principal.tenant, plugin.as_str())
            && let Some(consent) = running.consent()
        {
            return consent.end(principal, began_ns).await;
        }
        // A plugin that acts in nobody's name any more: nobody knows the server that gave the tokens.
        let Some(connections) = &self.deps.connections else { return Ok(None) };
        let told = AuthorityTold::OtherServer;
        let ended = connections.forget(principal, plugin, began_ns, told.to_string()).await;
        let ended =
            ended.map_err(|cause| UpstreamError::Token(format!("the control plane does not end it: {cause}")))?;
        Ok(ended.then_some(told))
    }

    /// How every plugin stands towards its upstream, in order of tenant and name.
    pub fn pressures(&self) -> Vec<(Name, Name, Pressure)> {
        self.of_all(Plugin::pressure)
    }

    /// The endpoints of plugins that have several, in order of tenant and name.
    pub fn endpoints(&self) -> Vec<(Name, Name, Vec<EndpointView>)> {
        let mut views = self.of_all(Plugin::endpoints);
        views.retain(|(_, _, endpoints)| !endpoints.is_empty());
        views
    }

    /// The walls around the processes of plugins, in order of tenant and name.
    pub fn walls(&self) -> Vec<(Name, Name, Walls)> {
        let all = self.of_all(Plugin::walls).into_iter();
        all.filter_map(|(tenant, plugin, walls)| Some((tenant, plugin, walls?))).collect()
    }

    /// Something of every plugin, in order of tenant and name.
    fn of_all<T>(&self, of: impl Fn(&Plugin) -> T) -> Vec<(Name, Name, T)> {
        let all = self.plugins.load();
        let of = &of;
        let mut found: Vec<_> = all
            .iter()
            .flat_map(|(tenant, plugins)| {
                plugins.iter().map(move |(name, r)| (tenant.clone(), name.clone(), of(&r.plugin)))
            })
            .collect();
        found.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
        found
    }

    /// A client has ended its legacy session of this key: connections and processes that plugins have for it end.
    /// `tells`: upstreams are told of it, also for sessions that another node opened; one node of several does that.
    /// Nothing is waited for. Must be called within a tokio runtime.
    pub fn end_session(&self, session: &str, tells: bool) {
        for running in self.plugins.load().values().flat_map(BTreeMap::values) {
            running.plugin.end_session(session, tells);
        }
    }

    /// Stops every plugin; calls under way finish.
    pub fn stop(&self) {
        self.reconcile(&Snapshot::default());
    }

    fn start(
        &self,
        snapshot: &Snapshot,
        tenant: &Name,
        resource: &Resource,
        spec: &PluginSpec,
        before: Option<&Arc<Plugin>>,
    ) -> Plugin {
        let name = &resource.metadata.name;
        let id = || {
            let digests = (spec_digest(spec), recorded_digest(resource));
            Identity::new(tenant.clone(), name.clone(), digests, spec)
        };
        let started = match &spec.source {
            PluginSource::McpHttp(http) => self.http(tenant, name, spec, http).map(|u| Plugin::mcp(id(), u)),
            PluginSource::McpStdio(stdio) => self.stdio(tenant, name, spec, stdio).map(|u| Plugin::mcp(id(), u)),
            PluginSource::Builtin(builtin) => self.builtin(tenant, builtin).map(|b| Plugin::builtin(id(), b)),
            PluginSource::Wasm(wasm) => {
                let origin = self.origin(snapshot, tenant, wasm);
                let component =
                    origin.and_then(|origin| self.component((tenant, name), spec, (&**wasm, origin), before));
                component.map(|c| Plugin::component(id(), c, before))
            }
            PluginSource::OpenApi(api) => self.openapi(tenant, name, spec, api).map(|api| Plugin::openapi(id(), api)),
            PluginSource::Grpc(grpc) => self.grpc(tenant, name, spec, grpc).map(|grpc| Plugin::grpc(id(), grpc)),
            PluginSource::Rag(rag) => {
                let (deps, pause) = (&self.deps, self.deps.limits.corpus_pause);
                let rag = Rag::start((tenant, name), rag, &deps.inference, &self.indexes, pause);
                Ok(Plugin::rag(id(), rag))
            }
        };
        started.unwrap_or_else(|cause| Plugin::broken(id(), cause))
    }

    /// Its place among the nodes. With its callers' rights a plugin has none: their tokens stay on the node that took
    /// the call.
    fn kin(&self, tenant: &Name, name: &Name, spec: &PluginSpec) -> Option<Kin> {
        let nodes = self.deps.siblings.clone()?;
        let is_single = match &spec.source {
            PluginSource::McpHttp(http) => match http.auth.as_deref() {
                Some(UpstreamAuth::TokenExchange(_) | UpstreamAuth::PerUser(_)) => return None,
                _ => false,
            },
            PluginSource::McpStdio(stdio) => stdio.instances == Instances::One,
            PluginSource::Builtin(_)
            | PluginSource::OpenApi(_)
            | PluginSource::Grpc(_)
            | PluginSource::Wasm(_)
            | PluginSource::Rag(_) => false,
        };
        let plugin = PluginId { tenant: tenant.clone(), name: name.clone(), digest: spec_digest(spec) };
        Some(Kin { plugin, nodes, is_single })
    }

    fn http(
        &self,
        tenant: &Name,
        name: &Name,
        plugin: &PluginSpec,
        spec: &HttpPlugin,
    ) -> Result<Arc<McpUpstream>, UpstreamError> {
        let headers = self.headers(tenant, &spec.headers, &spec.secret_headers)?;
        let client = self.client(spec.egress.as_deref())?;
        let url = |text: &str| {
            let mut url = client.check(text)?;
            for (key, reference) in &spec.secret_query {
                url.add_query(key, self.secret(tenant, reference)?.expose_secret());
            }
            Ok::<_, UpstreamError>(url)
        };
        let first = url(&spec.url)?;
        let more = spec.more_urls.iter().map(|text| Ok((text.clone(), url(text)?)));
        let more: Vec<_> = more.collect::<Result<_, UpstreamError>>()?;
        let redactor = self.redactor(tenant, plugin);
        let auth = self.authorizer(spec.auth.as_deref(), (tenant, name, &spec.url), &client, &redactor)?;
        let target = HttpTarget::new(client.clone(), first, headers, redactor, &self.deps.limits);
        let target = match auth {
            Some(auth) => target.with_auth(auth),
            None => target,
        };
        let mut targets: Vec<(String, HttpTarget)> =
            more.into_iter().enumerate().map(|(i, (text, url))| (text, target.at(i + 1, url))).collect();
        targets.insert(0, (spec.url.clone(), target));
        let outliers = plugin.resilience.as_ref().and_then(|r| r.outliers.clone()).unwrap_or_default();
        let endpoints = Endpoints::new(tenant.clone(), name.clone(), targets, outliers);
        let kin = self.kin(tenant, name, plugin);
        Ok(McpUpstream::http(name.as_str(), endpoints, spec.era, &self.deps.limits, kin))
    }

    fn openapi(
        &self,
        tenant: &Name,
        name: &Name,
        plugin: &PluginSpec,
        spec: &OpenApiPlugin,
    ) -> Result<OpenApi, UpstreamError> {
        let headers = self.headers(tenant, &spec.headers, &spec.secret_headers)?;
        let client = self.client(spec.egress.as_deref())?;
        let server = spec.server_url().ok_or_else(|| UpstreamError::Config("it has no `server`".to_owned()))?;
        let redactor = self.redactor(tenant, plugin);
        let auth = self.authorizer(spec.auth.as_deref(), (tenant, name, server), &client, &redactor)?;
        let server = client.check(server)?;
        let mut query = Vec::new();
        for (key, reference) in &spec.secret_query {
            query.push((key.clone(), self.secret(tenant, reference)?));
        }
        let origin = match (&spec.document, &spec.document_url) {
            (Some(document), _) => openapi::Origin::Inline(document),
            (None, Some(url)) => openapi::Origin::Url(client.check(url)?),
            (None, None) => return Err(UpstreamError::Config("it has no `document`".to_owned())),
        };
        let filter = Filter { include: spec.include.clone(), exclude: spec.exclude.clone() };
        let reach = Reach { client, server, headers, query, auth, redactor };
        let flags = (spec.server.is_some(), spec.hide_output_schemas);
        OpenApi::new(name.as_str(), reach, origin, filter, flags, &self.deps.limits)
    }

    fn grpc(&self, tenant: &Name, name: &Name, plugin: &PluginSpec, spec: &GrpcPlugin) -> Result<Grpc, UpstreamError> {
        let headers = self.headers(tenant, &spec.headers, &spec.secret_headers)?;
        // Tokens come from servers that need not speak HTTP/2 without asking first.
        let others = self.client(spec.egress.as_deref())?;
        let redactor = self.redactor(tenant, plugin);
        let auth = self.authorizer(spec.auth.as_deref(), (tenant, name, &spec.url), &others, &redactor)?;
        let client = self.http2_client(spec.egress.as_deref(), None)?;
        let server = client.check(&spec.url)?;
        let line = grpc::Line::new(client, server, headers);
        let filter = grpc::Filter {
            services: spec.services.clone(),
            include: spec.include.clone(),
            exclude: spec.exclude.clone(),
            hide_output_schemas: spec.hide_output_schemas,
        };
        Grpc::new(name.as_str(), (line, auth, redactor), spec.descriptor.as_deref(), filter, &self.deps.limits)
    }

    /// The headers that a plugin gives to each of its requests.
    fn headers(
        &self,
        tenant: &Name,
        plain: &BTreeMap<String, String>,
        secret: &BTreeMap<String, SecretRef>,
    ) -> Result<HeaderMap, UpstreamError> {
        let mut headers = HeaderMap::new();
        for (key, text) in plain {
            headers.insert(header_name(key)?, header_value(key, text)?);
        }
        for (key, reference) in secret {
            let secret = self.secret(tenant, reference)?;
            let mut value = header_value(key, secret.expose_secret())?;
            value.set_sensitive(true);
            headers.insert(header_name(key)?, value);
        }
        Ok(headers)
    }

    /// What gives a plugin's access tokens, for this URL unless its document names another resource.
    fn authorizer(
        &self,
        auth: Option<&UpstreamAuth>,
        (tenant, plugin, url): (&Name, &Name, &str),
        client: &EgressClient,
        redactor: &Redactor,
    ) -> Result<Option<Arc<Authorizer>>, UpstreamError> {
        let Some(auth) = auth else { return Ok(None) };
        let identity = self.identity(tenant, auth)?;
        let of = For { tenant, plugin, url, connections: self.deps.connections.clone() };
        Ok(Some(Arc::new(Authorizer::new(auth, of, identity, client.clone(), redactor.clone())?)))
    }

    /// How the plugin proves who it is to an authorization server.
    fn identity(&self, tenant: &Name, auth: &UpstreamAuth) -> Result<ClientIdentity, UpstreamError> {
        let client = auth.client();
        let id = client.client_id.clone();
        match (&client.client_secret, &client.private_key_jwt) {
            (Some(secret), _) => {
                let secret = self.secret(tenant, secret)?;
                Ok(match client.client_secret_in {
                    ClientSecretIn::Header => ClientIdentity::Basic { id, secret },
                    ClientSecretIn::Body => ClientIdentity::Body { id, secret },
                })
            }
            (None, Some(jwt)) => {
                let pem = self.secret(tenant, &jwt.key)?;
                let key = SigningKey::new(pem.expose_secret(), jwt.algorithm, jwt.key_id.clone())?;
                Ok(ClientIdentity::Signed { id, key })
            }
            (None, None) if matches!(auth, UpstreamAuth::PerUser(_)) => Ok(ClientIdentity::Public { id }),
            (None, None) => Err(UpstreamError::Config("auth needs clientSecret or privateKeyJwt".to_owned())),
        }
    }

    /// The client that everything of one plugin is fetched with.
    fn client(&self, egress: Option<&EgressSpec>) -> Result<EgressClient, UpstreamError> {
        EgressClient::new(self.rule(egress)?).map_err(|cause| UpstreamError::Config(cause.to_string()))
    }

    /// A client for gRPC, which reaches what a document asks for within what the node allows.
    pub fn http2_client(
        &self,
        egress: Option<&EgressSpec>,
        certificate: Option<&SecretString>,
    ) -> Result<EgressClient, UpstreamError> {
        let client = EgressClient::http2(self.rule(egress)?, certificate);
        client.map_err(|cause| UpstreamError::Config(cause.to_string()))
    }

    fn rule(&self, egress: Option<&EgressSpec>) -> Result<EgressRule, UpstreamError> {
        Ok(match egress {
            Some(spec) => EgressRule::new(spec, &self.deps.limits.allow_private)?,
            None => EgressRule::public(),
        })
    }

    /// Finds what the plugin was given. Only values are looked for: a prefix such as `Bearer ` is no secret.
    fn redactor(&self, tenant: &Name, spec: &PluginSpec) -> Redactor {
        let names: BTreeSet<Name> = secrets_of(spec).into_iter().collect();
        let values: Vec<SecretString> =
            names.iter().filter_map(|name| self.deps.secrets.secret(tenant, name)).collect();
        Redactor::new(values.iter().map(ExposeSecret::expose_secret))
    }

    fn stdio(
        &self,
        tenant: &Name,
        name: &Name,
        plugin: &PluginSpec,
        spec: &StdioPlugin,
    ) -> Result<Arc<McpUpstream>, UpstreamError> {
        let mut secret_env = BTreeMap::new();
        for (key, reference) in &spec.secret_env {
            secret_env.insert(key.clone(), self.secret(tenant, reference)?);
        }
        let hidden = vec![self.deps.data_dir.clone()];
        let isolation = spec.isolation.as_deref();
        let walled = isolation.and_then(|spec| Walled::new(spec, self.deps.launcher.clone(), hidden));
        let target = StdioTarget {
            plugin: name.to_string(),
            command: spec.command.clone(),
            args: spec.args.clone(),
            env: spec.env.clone(),
            secret_env,
            cwd: spec.cwd.clone(),
            walled,
            redactor: self.redactor(tenant, plugin),
            max_bytes: self.deps.limits.max_answer_bytes,
        };
        let kin = self.kin(tenant, name, plugin);
        Ok(McpUpstream::stdio(name.as_str(), target, spec.era, &self.deps.limits, kin))
    }

    /// Where the component of a plugin comes from.
    fn origin(&self, snapshot: &Snapshot, tenant: &Name, spec: &WasmPlugin) -> Result<Origin, UpstreamError> {
        match spec.source() {
            Some(WasmSource::File { name, digest }) => Ok(Origin::File { path: self.engines.file(name), digest }),
            Some(WasmSource::Package(digest)) => Ok(Origin::Package(PackageOrigin {
                tenant: tenant.clone(),
                digest,
                publishers: publishers(snapshot, tenant),
                port: self.deps.packages.clone(),
                files: self.engines.packages(),
            })),
            None => {
                let text = "it names neither a `package` nor a `file` with its `digest`";
                Err(UpstreamError::Config(text.to_owned()))
            }
        }
    }

    fn component(
        &self,
        (tenant, name): (&Name, &Name),
        plugin: &PluginSpec,
        (spec, origin): (&WasmPlugin, Origin),
        before: Option<&Arc<Plugin>>,
    ) -> Result<Arc<Component>, UpstreamError> {
        let mut credentials = BTreeMap::new();
        for (alias, credential) in &spec.credentials {
            let header = header_name(&credential.header)?;
            let mut value = header_value(&credential.header, self.secret(tenant, &credential.value)?.expose_secret())?;
            value.set_sensitive(true);
            let hosts = credential.hosts.iter().map(|host| host.parse::<HostPattern>()).collect::<Result<_, _>>();
            let hosts = hosts.map_err(|cause| UpstreamError::Config(cause.to_string()))?;
            credentials.insert(alias.clone(), Credential { header, value, hosts });
        }
        let door = match spec.egress.as_deref().filter(|egress| !egress.allow_hosts.is_empty()) {
            Some(egress) => {
                let (client, redactor) = (self.client(Some(egress))?, self.redactor(tenant, plugin));
                Some(Door { client, credentials, redactor })
            }
            None => None,
        };
        let store = before.and_then(|before| before.as_component()).map(|c| c.store().clone()).unwrap_or_default();
        let changes = self.changes.clone();
        let changed = move || changes.send_modify(|n| *n += 1);
        Component::start(Parts { tenant, name, spec, origin, door, store }, &self.engines, changed)
    }

    fn builtin(&self, tenant: &Name, spec: &BuiltinPlugin) -> Result<Builtin, UpstreamError> {
        let mut config = BTreeMap::new();
        for (key, value) in &spec.config {
            config.insert(key.clone(), self.setting(tenant, key, value)?);
        }
        Builtin::new(&spec.name, &config, &self.deps.inference)
    }

    /// A built-in's setting: `${secret:NAME}` inside of it stands for a secret, and a relative
    /// `sqlite:` path begins at the data directory.
    fn setting(&self, tenant: &Name, key: &str, value: &str) -> Result<String, UpstreamError> {
        let mut out = String::new();
        let mut rest = value;
        while let Some((before, after)) = rest.split_once(SECRET_OPEN) {
            let Some((secret, tail)) = after.split_once('}') else { break };
            let secret =
                Name::new(secret).map_err(|cause| UpstreamError::Config(format!("setting `{key}`: {cause}")))?;
            let reference = SecretRef { secret, prefix: String::new() };
            out.push_str(before);
            out.push_str(self.secret(tenant, &reference)?.expose_secret());
            rest = tail;
        }
        out.push_str(rest);
        match out.strip_prefix("sqlite:") {
            Some(path) if key == "url" && !path.starts_with('/') && !path.starts_with(':') => {
                Ok(format!("sqlite:{}", self.deps.data_dir.join(path).display()))
            }
            _ => Ok(out),
        }
    }

    /// A tenant's secret as it is now, as a document names it. The error names it and holds no value.
    pub fn secret(&self, tenant: &Name, reference: &SecretRef) -> Result<SecretString, UpstreamError> {
        let found = self.deps.secrets.secret(tenant, &reference.secret).ok_or_else(|| {
            UpstreamError::Config(format!(
                "the secret `{0}` has no value; run `provost secret set {0}`",
                reference.secret
            ))
        })?;
        Ok(SecretString::from(format!("{}{}", reference.prefix, found.expose_secret())))
    }
}

fn header_name(key: &str) -> Result<HeaderName, UpstreamError> {
    HeaderName::from_bytes(key.as_bytes()).map_err(|_| UpstreamError::Config(format!("`{key}` is not a header name")))
}

fn header_value(key: &str, text: &str) -> Result<HeaderValue, UpstreamError> {
    // The value may be a secret: not shown.
    HeaderValue::from_str(text)
        .map_err(|_| UpstreamError::Config(format!("the value of header `{key}` cannot be sent")))
}

/// The package that a plugin runs.
fn package_of(spec: &PluginSpec) -> Option<FileDigest> {
    match &spec.source {
        PluginSource::Wasm(wasm) => wasm.package,
        _ => None,
    }
}

/// Whom a tenant trusts.
fn publishers(snapshot: &Snapshot, tenant: &Name) -> Publishers {
    let of = |resource: &Arc<Resource>| match &resource.spec {
        Spec::Publisher(spec) => Some((resource.metadata.name.clone(), spec.keys.iter().copied().collect())),
        _ => None,
    };
    snapshot.of_tenant(Kind::Publisher, tenant).filter_map(of).collect()
}

/// What the audit log names as `plugin_digest`, hexadecimal: the SHA-256 of the package that a plugin runs, else that of
/// its typed spec as JSON.
pub fn recorded_digest(resource: &Resource) -> Arc<str> {
    if let Spec::Plugin(spec) = &resource.spec
        && let Some(package) = package_of(spec)
    {
        return hex::encode(package.as_bytes()).into();
    }
    hex::encode(Sha256::digest(serde_json::to_vec(&resource.spec).unwrap_or_default())).into()
}

/// SHA-256 of a plugin's spec as JSON, hexadecimal: how nodes know that they run the same.
pub fn spec_digest(spec: &PluginSpec) -> Arc<str> {
    hex::encode(Sha256::digest(spec_bytes(spec))).into()
}

fn spec_bytes(spec: &PluginSpec) -> Vec<u8> {
    // A spec is plain data with text keys, which always serialises.
    serde_json::to_vec(spec).unwrap_or_default()
}

/// The spec, the versions of the secrets that it uses, and of a package the keys that may have signed it.
fn fingerprint(snapshot: &Snapshot, tenant: &Name, spec: &PluginSpec, spec_hash: &[u8; 32]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(spec_hash);
    for secret in secrets_of(spec) {
        let key = ResourceKey { kind: Kind::Secret, tenant: Some(tenant.clone()), name: secret };
        let version = match snapshot.get(&key).map(|r| &r.spec) {
            Some(Spec::Secret(secret)) => secret.sealed.as_ref().map_or(0, |s| s.version),
            _ => 0,
        };
        hash.update(version.to_be_bytes());
    }
    if package_of(spec).is_some() {
        for (publisher, keys) in publishers(snapshot, tenant) {
            hash.update(publisher.as_str());
            keys.iter().for_each(|key| hash.update(key.as_bytes()));
        }
    }
    hash.finalize().into()
}
