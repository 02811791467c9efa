//! A world of small states, and a node that believes nothing it has not checked.

mod laws;
mod model;
mod scale;
mod staging;
mod streams;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use provost_control_state::{Draft, Event, SealingKey, State, Transaction};
use provost_types::{Metadata, Name, Resource, ResourceKey, Revision, RoleSpec, Spec, TenantSpec};
use provost_wire::node::{Ack, Hello, PushDown, PushUp, push_client::PushClient, push_down::Down, push_up::Up};
use serde_json::json;
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Streaming,
    transport::{Channel, Endpoint, Server, server::TcpIncoming},
};

use self::model::Model;
use super::{HubConfig, PushHub};
use crate::machine::Published;

/// What a test waits for something that must come.
const SOON: Duration = Duration::from_secs(60);

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn tenant(own: &str, text: &str) -> Draft {
    let metadata = Metadata { name: name(own), tenant: None, labels: BTreeMap::new() };
    Draft { metadata, spec: Spec::Tenant(TenantSpec { display_name: text.to_owned() }) }
}

fn role(own: &str, text: &str) -> Draft {
    let metadata = Metadata { name: name(own), tenant: Some(name("acme")), labels: BTreeMap::new() };
    Draft { metadata, spec: Spec::Role(RoleSpec { description: text.to_owned(), rules: vec![] }) }
}

fn transaction(puts: Vec<Draft>, deletes: Vec<ResourceKey>, key_term: Option<u64>) -> Transaction {
    Transaction {
        event: Event::Apply,
        time_ns: 0,
        author: "test".into(),
        message: String::new(),
        expect_revision: None,
        expect: Vec::new(),
        puts,
        deletes,
        sealing_key: key_term.map(|term| SealingKey { term, wrapped: format!("key{term}"), keeps: 0 }),
        authorship: None,
    }
}

/// The published state of a control-plane node, without a group behind it.
struct World {
    published: Arc<Published>,
    state: State,
    next: u64,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            published: Arc::new(Published {
                state: ArcSwap::from_pointee(State::default()),
                snapshots: tokio::sync::watch::Sender::new(Arc::default()),
                parts: crate::write_behind::PackageParts::none(),
            }),
            state: State::default(),
            next: 1,
        };
        world.put(vec![tenant("acme", "")]);
        world
    }

    /// Commits, unless it is rejected, and publishes; the revision that the state has then.
    fn commit(&mut self, transaction: &Transaction) -> u64 {
        drop(self.state.apply(Revision(self.next), transaction));
        self.next += 1;
        self.publish();
        self.state.revision().0
    }

    fn publish(&self) {
        self.published.state.store(Arc::new(self.state.clone()));
        self.published.snapshots.send_replace(Arc::new(self.state.snapshot()));
    }

    /// Publishes a state with these members.
    fn members(&mut self, members: &[(u64, &str)]) {
        let member = |(id, name): &(u64, &str)| (*id, json!({ "name": name, "roles": ["data-plane"], "joined": 1 }));
        let members: BTreeMap<_, _> = members.iter().map(member).collect();
        let cluster = serde_json::from_value(json!({ "members": members })).unwrap();
        let ledger = (**self.state.ledger()).clone();
        self.state = self.state.clone().with(cluster, ledger);
        self.publish();
    }

    fn put(&mut self, puts: Vec<Draft>) -> u64 {
        self.commit(&transaction(puts, vec![], None))
    }

    /// As a node must have it.
    fn documents(&self) -> BTreeMap<String, Resource> {
        self.state.resources().iter().map(|(k, r)| (k.to_string(), (**r).clone())).collect()
    }
}

/// A hub on a port. Who the caller is stands in the request's metadata.
struct Served {
    hub: PushHub,
    address: String,
    _server: JoinHandle<()>,
}

async fn serve(world: &World) -> Served {
    let config = HubConfig {
        authorise: Arc::new(|extensions| extensions.get::<(String, String)>().cloned()),
        confirmed_ns: Arc::new(|| 77),
    };
    let hub = PushHub::start(&world.published, config).unwrap();
    let service = hub.service();
    let named = tonic::service::interceptor::InterceptedService::new(service, |mut request: Request<()>| {
        let node = request.metadata().get("node").and_then(|n| n.to_str().ok()).map(str::to_owned);
        if let Some(node) = node {
            request.extensions_mut().insert((node, "data-plane".to_owned()));
        }
        Ok(request)
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let server =
        Server::builder().add_service(named).serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)));
    let server = tokio::spawn(async move { drop(server.await) });
    Served { hub, address, _server: server }
}

impl Served {
    /// Waits until the subscribers are as wanted.
    async fn until(&self, what: impl Fn(&[super::Subscriber]) -> bool) {
        let wait = async {
            while !what(&self.hub.subscribers()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(SOON, wait).await.is_err() {
            panic!("never came: {:?}", self.hub.subscribers());
        }
    }
}

/// A stream with its model.
struct TestNode {
    model: Model,
    up: mpsc::Sender<PushUp>,
    down: Streaming<PushDown>,
}

fn lock_times<T>(times: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    times.lock().unwrap()
}

async fn channel(address: &str) -> Channel {
    Endpoint::from_shared(address.to_owned()).unwrap().connect().await.unwrap()
}

fn up(up: Up) -> PushUp {
    PushUp { up: Some(up) }
}

impl TestNode {
    async fn connect(address: &str, node: &str, model: Model) -> Self {
        let hello = model.hello(node);
        Self::with_hello(address, node, model, hello).await
    }

    async fn with_hello(address: &str, node: &str, model: Model, hello: Hello) -> Self {
        let mut client = PushClient::new(channel(address).await);
        let (sender, receiver) = mpsc::channel(16);
        sender.send(up(Up::Hello(hello))).await.unwrap();
        let mut request = Request::new(ReceiverStream::new(receiver));
        request.metadata_mut().insert("node", node.parse().unwrap());
        let down = client.subscribe(request).await.unwrap().into_inner();
        Self { model, up: sender, down }
    }

    async fn message(&mut self) -> Option<PushDown> {
        tokio::time::timeout(SOON, self.down.message()).await.expect("nothing came").unwrap()
    }

    /// Reads until the model is at the revision or beyond it.
    async fn reach(&mut self, revision: u64) {
        while self.model.hash.is_empty() || self.model.revision < revision {
            let message = self.message().await.expect("the stream ended");
            self.model.take(message);
        }
    }

    async fn ack(&self) {
        let ack = Ack { revision: self.model.revision, hash: self.model.hash.clone() };
        self.up.send(up(Up::Ack(ack))).await.unwrap();
    }

    /// Says something from time to time, as nodes do: a test may take longer than the hub bears with silence.
    fn stays(&self) {
        let sender = self.up.clone();
        tokio::spawn(async move {
            while sender.send(up(Up::Health(provost_wire::node::Health::default()))).await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
    }

    /// The code of the refusal that ends the stream.
    async fn refused(&mut self) -> String {
        loop {
            match self.message().await.expect("the stream ended").down {
                Some(Down::Refused(refused)) => return refused.code,
                _ => continue,
            }
        }
    }
}
