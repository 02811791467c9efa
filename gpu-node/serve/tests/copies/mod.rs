//! Declared models that a node lacks come from nodes that have them, over a real connection.

mod scripted;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use provost_gpu_serve::{BlobPeer, BlobService, GpuCallers, GpuNode, ModelState, ModelStore};
use provost_types::{BoxFuture, FileDigest};
use provost_wire::gpu::model_blobs_client::ModelBlobsClient;
use provost_wire::gpu::{DescribeBlobRequest, FetchBlobRequest};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Extensions, Status};

use crate::common::{Models, chat, collect};
use crate::declared::{standing, stands, state};
use crate::start_with;
use scripted::{Does, Scripted};

/// A node with a store of its own.
struct Place {
    node: Arc<GpuNode>,
    store: ModelStore,
    data: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let data = tempfile::tempdir().unwrap();
        let node = start_with(&Models::new(&[]), |config| config.store_dir = Some(ModelStore::root_of(data.path())));
        Self { node, store: ModelStore::of_data_dir(data.path()), data }
    }

    /// Puts a model into the store.
    fn import(&self) -> FileDigest {
        self.store.import(&tiny(), "tiny").unwrap().manifest.digest
    }

    fn declare(&self, digest: FileDigest) {
        self.node.declare(&state(&[("m", format!(r#"{{"source":{{"blob":"{digest}"}}}}"#))]));
    }

    /// Copies from these, and leaves so many bytes free.
    fn copies_from(&self, peers: Vec<BlobPeer>, reserve: u64) -> Copying {
        let (peers, told) = watch::channel(peers);
        Copying { peers, task: tokio::spawn(self.node.fetch_models(told, reserve)) }
    }

    /// Waits until the model stands so, and its reason holds this.
    async fn says(&self, what: &str) {
        for _ in 0..3_000 {
            if standing(&self.node, "m").await.reason.contains(what) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{:?} does not say {what}", standing(&self.node, "m").await);
    }

    /// What is left of copies that are not whole.
    fn arriving(&self) -> usize {
        let arriving = self.data.path().join("models/arriving");
        std::fs::read_dir(arriving).map_or(0, |entries| entries.count())
    }
}

/// What copies; it ends with the value.
struct Copying {
    peers: watch::Sender<Vec<BlobPeer>>,
    task: JoinHandle<()>,
}

impl Drop for Copying {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Lets everybody in, or nobody.
struct Door(bool);

impl GpuCallers for Door {
    fn admit<'a>(&'a self, _: &'a Extensions) -> BoxFuture<'a, Result<(), Status>> {
        let admitted = if self.0 { Ok(()) } else { Err(Status::permission_denied("PV-TEST: not you")) };
        Box::pin(std::future::ready(admitted))
    }
}

fn tiny() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../infer/tests/fixtures/tiny-chat")
}

/// The way to a node's service.
async fn serve(node: &Arc<GpuNode>, is_open: bool) -> Channel {
    listen(Server::builder().add_service(BlobService::new(node.clone(), Arc::new(Door(is_open))).server())).await
}

async fn listen(server: tonic::transport::server::Router) -> Channel {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy()
}

fn peer(name: &str, channel: &Channel) -> BlobPeer {
    BlobPeer { name: name.to_owned(), channel: channel.clone() }
}

#[tokio::test]
async fn a_declared_model_comes_from_a_node_that_has_it_and_is_used() {
    let (one, other) = (Place::new(), Place::new());
    let digest = one.import();
    one.declare(digest);
    other.declare(digest);
    assert_eq!(standing(&other.node, "m").await.state, ModelState::Missing);
    // Who does not run, or has nothing, is passed over.
    let (nobody, empty) = (Endpoint::from_static("http://127.0.0.1:1").connect_lazy(), Place::new());
    let (empty, has) = (serve(&empty.node, true).await, serve(&one.node, true).await);
    let _copying = other.copies_from(vec![peer("nobody", &nobody), peer("empty", &empty), peer("one", &has)], 0);
    stands(&other.node, "m", ModelState::Absent).await;
    assert_eq!(standing(&other.node, "m").await.digest, Some(digest));
    collect(&other.node, chat("m", "hello", 4)).await.unwrap();
    assert_eq!(other.store.list().unwrap(), one.store.list().unwrap());
}

#[tokio::test]
async fn what_has_come_is_not_asked_for_again() {
    let (source, other) = (Place::new(), Place::new());
    let digest = source.import();
    other.declare(digest);
    let script = Scripted::new(&source.store, digest, Does::StopsInTheMiddle);
    let way = listen(Server::builder().add_service(script.server())).await;
    let copying = other.copies_from(vec![peer("slow", &way)], 0);
    // It stands still, and then ends.
    stands(&other.node, "m", ModelState::Copying).await;
    script.waits().await;
    let copy = standing(&other.node, "m").await.copy.unwrap();
    assert!(copy.from == "slow" && copy.bytes > 0 && copy.bytes < copy.of, "{copy:?}");
    script.goes_on();
    other.says("PV-MODEL-COPY").await;
    // The next try, as after a start of the node, goes on where the first one ended.
    drop(copying);
    let _copying = other.copies_from(vec![peer("slow", &way)], 0);
    stands(&other.node, "m", ModelState::Absent).await;
    let asked = script.asked("model.safetensors");
    assert_eq!(asked.first(), Some(&0), "{asked:?}");
    assert!(asked.len() == 2 && asked[1] > 0, "{asked:?}");
    collect(&other.node, chat("m", "hello", 4)).await.unwrap();
}

#[tokio::test]
async fn what_is_not_the_digests_is_not_kept_and_its_sender_not_asked_again() {
    let (source, other) = (Place::new(), Place::new());
    let digest = source.import();
    source.declare(digest);
    other.declare(digest);
    let script = Scripted::new(&source.store, digest, Does::Changes("tokenizer.json"));
    let bad = listen(Server::builder().add_service(script.server())).await;
    let copying = other.copies_from(vec![peer("bad", &bad)], 0);
    other.says("tokenizer.json is not what the digest says").await;
    assert!(other.store.list().unwrap().is_empty());
    let good = serve(&source.node, true).await;
    copying.peers.send_replace(vec![peer("bad", &bad), peer("good", &good)]);
    stands(&other.node, "m", ModelState::Absent).await;
    assert_eq!(script.asked("tokenizer.json"), [0]);
    collect(&other.node, chat("m", "hello", 4)).await.unwrap();
}

#[tokio::test]
async fn only_what_is_declared_is_offered_and_only_to_those_who_may_ask() {
    let (one, other) = (Place::new(), Place::new());
    let digest = one.import();
    other.declare(digest);
    let way = serve(&one.node, true).await;
    let _copying = other.copies_from(vec![peer("one", &way)], 0);
    other.says("no other GPU node").await;
    let mut client = ModelBlobsClient::new(way.clone());
    let describe = || DescribeBlobRequest { digest: digest.to_string() };
    let fetch = |path: &str, offset| FetchBlobRequest { digest: digest.to_string(), path: path.to_owned(), offset };
    assert!(client.describe(describe()).await.unwrap().into_inner().manifest.is_empty());
    assert_eq!(client.fetch(fetch("config.json", 0)).await.unwrap_err().code(), Code::NotFound);

    one.declare(digest);
    assert!(!client.describe(describe()).await.unwrap().into_inner().manifest.is_empty());
    for path in ["manifest.json", "../../store.lock", "/etc/hostname", ""] {
        assert_eq!(client.fetch(fetch(path, 0)).await.unwrap_err().code(), Code::NotFound, "{path}");
    }
    assert_eq!(client.fetch(fetch("config.json", 1 << 40)).await.unwrap_err().code(), Code::OutOfRange);
    let wrong = DescribeBlobRequest { digest: "sha256:7".to_owned() };
    assert_eq!(client.describe(wrong).await.unwrap_err().code(), Code::InvalidArgument);

    let mut client = ModelBlobsClient::new(serve(&one.node, false).await);
    let refused =
        [client.describe(describe()).await.unwrap_err(), client.fetch(fetch("config.json", 0)).await.unwrap_err()];
    assert!(refused.iter().all(|status| status.code() == Code::PermissionDenied), "{refused:?}");
}

#[tokio::test]
async fn a_copy_leaves_free_what_is_to_stay_free() {
    let (one, other) = (Place::new(), Place::new());
    let digest = one.import();
    one.declare(digest);
    other.declare(digest);
    let way = serve(&one.node, true).await;
    let _copying = other.copies_from(vec![peer("one", &way)], u64::MAX);
    other.says("PV-MODEL-STORE-FULL").await;
    assert_eq!(standing(&other.node, "m").await.state, ModelState::Missing);
}

#[tokio::test]
async fn what_is_declared_no_more_is_not_copied_on() {
    let (source, other) = (Place::new(), Place::new());
    let digest = source.import();
    other.declare(digest);
    let script = Scripted::new(&source.store, digest, Does::StopsInTheMiddle);
    let way = listen(Server::builder().add_service(script.server())).await;
    let _copying = other.copies_from(vec![peer("slow", &way)], 0);
    script.waits().await;
    assert_eq!(other.arriving(), 1);
    other.node.declare(&state(&[]));
    crate::common::until("the rest has gone", || other.arriving() == 0).await;
    assert!(other.store.list().unwrap().is_empty());
}
