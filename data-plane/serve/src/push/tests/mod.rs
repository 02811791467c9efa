//! A control plane that says what a test wants.

mod client;
mod confirmed;
mod fail_static;
mod mirror;
mod stored;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use provost_types::{
    BoxFuture, BoxStream, Metadata, Name, Resource, ResourceKey, Revision, RoleSpec, Spec, TenantSpec,
};
use provost_wire::{
    node::{
        Bookmark, Delta, Hello, PushDown, PushUp, Whole,
        push_down::Down,
        push_server::{Push, PushServer},
        push_up::Up,
    },
    state_hash::{Element, Sum},
};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Channel, Endpoint, Server},
};

use super::{Dial, DialError, PushClient, PushConfig, Pushed, config::Timings};

/// What a test waits for something that must come.
const SOON: Duration = Duration::from_secs(60);

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn key(own: &str) -> ResourceKey {
    resource(own, "", 0).key()
}

/// `t-…` is a tenant, everything else a role.
fn resource(own: &str, text: &str, revision: u64) -> Resource {
    let (tenant, spec) = match own.starts_with("t-") {
        true => (None, Spec::Tenant(TenantSpec { display_name: text.to_owned() })),
        false => (Some(name("acme")), Spec::Role(RoleSpec { description: text.to_owned(), rules: vec![] })),
    };
    let metadata = Metadata { name: name(own), tenant, labels: BTreeMap::new() };
    Resource { metadata, spec, created: Revision(revision), modified: Revision(revision) }
}

/// A state as a control plane has it.
#[derive(Clone, Default)]
struct World {
    revision: u64,
    resources: BTreeMap<ResourceKey, Resource>,
    key_ring: BTreeMap<u64, String>,
}

impl World {
    fn new() -> Self {
        let mut world = Self::default();
        world.change(&[("t-acme", "Acme"), ("ann", "first")], &[]);
        world
    }

    fn hash(&self) -> [u8; 32] {
        let mut sum = Sum::default();
        self.resources.values().for_each(|r| sum.add(Element::of_document(&json(r))));
        self.key_ring.iter().for_each(|(term, wrapped)| sum.add(Element::of_key(*term, wrapped)));
        sum.hash(self.revision)
    }

    fn whole(&self) -> Whole {
        Whole {
            revision: self.revision,
            hash: self.hash().to_vec().into(),
            resources: self.resources.values().map(|r| json(r).into()).collect(),
            key_ring: self.key_ring.clone().into_iter().collect(),
            back_from: 0,
        }
    }

    /// The next revision, as what leads there.
    fn change(&mut self, puts: &[(&str, &str)], deletes: &[&str]) -> Delta {
        let from = self.revision;
        self.revision += 1;
        let mut delta = Delta { from, to: self.revision, ..Delta::default() };
        for (own, text) in puts {
            let new = resource(own, text, self.revision);
            self.resources.insert(new.key(), new);
        }
        for own in deletes {
            if self.resources.remove(&key(own)).is_some() {
                delta.deletes.push(key(own).to_string());
            }
        }
        let changed = self.resources.values().filter(|r| r.modified.0 == self.revision);
        delta.puts = changed.map(|r| json(r).into()).collect();
        delta.hash = self.hash().to_vec().into();
        delta
    }

    /// As a node has it.
    fn pushed(&self) -> Arc<Pushed> {
        super::mirror::Mirror::default().whole(self.whole()).unwrap().unwrap()
    }

    fn assert_is(&self, pushed: &Pushed) {
        let found: BTreeMap<_, _> = pushed.snapshot.resources.iter().map(|(k, r)| (k.clone(), (**r).clone())).collect();
        assert_eq!(found, self.resources);
        assert_eq!((pushed.snapshot.revision.0, pushed.hash), (self.revision, self.hash()));
        assert_eq!(*pushed.key_ring, self.key_ring);
    }
}

fn json(resource: &Resource) -> Vec<u8> {
    serde_json::to_vec(resource).unwrap()
}

/// One stream, spoken by the test.
struct Stream {
    hello: Hello,
    up: Streaming<PushUp>,
    down: mpsc::Sender<Result<PushDown, Status>>,
}

impl Stream {
    async fn send(&self, down: Down) {
        self.down.send(Ok(PushDown { down: Some(down) })).await.unwrap();
    }

    /// The node may leave at any time.
    async fn bookmark(&self, revision: u64, time_ns: u64) {
        let down = Some(Down::Bookmark(Bookmark { revision, time_ns }));
        drop(self.down.send(Ok(PushDown { down })).await);
    }

    /// The next answer that is no report of health.
    async fn answer(&mut self) -> Up {
        loop {
            match self.message().await {
                Up::Health(_) => {}
                other => return other,
            }
        }
    }

    async fn message(&mut self) -> Up {
        let message = tokio::time::timeout(SOON, self.up.message()).await.expect("nothing was said");
        message.unwrap().expect("the node left").up.unwrap()
    }

    /// Waits until the node acknowledges the world.
    async fn acked(&mut self, world: &World) {
        loop {
            if let Up::Ack(ack) = self.answer().await
                && ack.revision == world.revision
            {
                assert_eq!(ack.hash[..], world.hash());
                return;
            }
        }
    }
}

struct Script(mpsc::UnboundedSender<Stream>);

#[tonic::async_trait]
impl Push for Script {
    type SubscribeStream = BoxStream<'static, Result<PushDown, Status>>;

    async fn subscribe(&self, request: Request<Streaming<PushUp>>) -> Result<Response<Self::SubscribeStream>, Status> {
        let mut up = request.into_inner();
        let Some(PushUp { up: Some(Up::Hello(hello)) }) = up.message().await? else {
            return Err(Status::invalid_argument("no hello"));
        };
        let (down, messages) = mpsc::channel(1_024);
        let stream = Stream { hello, up, down };
        self.0.send(stream).map_err(|_| Status::unavailable("the test ended"))?;
        Ok(Response::new(Box::pin(ReceiverStream::new(messages))))
    }
}

/// A control-plane node.
struct Fake {
    address: String,
    streams: mpsc::UnboundedReceiver<Stream>,
}

impl Fake {
    async fn start() -> Self {
        let (sender, streams) = mpsc::unbounded_channel();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let server = Server::builder().add_service(PushServer::new(Script(sender)));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Self { address, streams }
    }

    async fn stream(&mut self) -> Stream {
        tokio::time::timeout(SOON, self.streams.recv()).await.expect("nobody came").unwrap()
    }
}

/// Endpoints that a test can change.
#[derive(Clone, Default)]
struct Doors(Arc<Mutex<Vec<String>>>);

impl Doors {
    fn to(fakes: &[&Fake]) -> Self {
        Self(Arc::new(Mutex::new(fakes.iter().map(|f| f.address.clone()).collect())))
    }
}

impl Dial for Doors {
    fn endpoints(&self) -> Vec<String> {
        self.0.lock().clone()
    }

    fn dial<'a>(&'a self, endpoint: &'a str) -> BoxFuture<'a, Result<Channel, DialError>> {
        Box::pin(async move { Ok(Endpoint::from_shared(endpoint.to_owned())?.connect().await?) })
    }
}

/// Quick where it may be, patient where a slow machine would make a difference.
fn config() -> PushConfig {
    let ms = Duration::from_millis;
    let mut config = PushConfig::new("n1", "test", 7);
    config.timings = Timings {
        dial: SOON,
        silence: SOON,
        behind: ms(50),
        backoff: (ms(5), ms(40)),
        unreadable: ms(60),
        health: ms(100),
        plugins: ms(20),
        save_gap: ms(20),
        save_retry: ms(30),
        stamp: ms(20),
    };
    config
}

/// Waits until the newest state is at the revision.
async fn received(client: &PushClient, revision: u64) -> Arc<Pushed> {
    let mut states = client.pushed();
    let found = states.wait_for(|p| p.as_ref().is_some_and(|p| p.snapshot.revision.0 == revision));
    tokio::time::timeout(SOON, found).await.expect("the state never came").unwrap().clone().unwrap()
}

async fn saved(client: &PushClient, revision: u64) {
    let mut saved = client.saved();
    let found = saved.wait_for(|r| *r == Some(Revision(revision)));
    tokio::time::timeout(SOON, found).await.expect("the state was never written").unwrap();
}
