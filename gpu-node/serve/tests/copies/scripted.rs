//! A node that has a model, and does something to it on the way.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use futures::{Stream, StreamExt, stream};
use provost_gpu_serve::ModelStore;
use provost_types::FileDigest;
use provost_wire::gpu::model_blobs_server::{ModelBlobs, ModelBlobsServer};
use provost_wire::gpu::{BlobPiece, DescribeBlobRequest, DescribeBlobResponse, FetchBlobRequest};
use tokio::sync::Notify;
use tonic::{Request, Response, Status};

/// Bytes of a piece.
const PIECE_BYTES: usize = 64 << 10;

/// What it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Does {
    /// The first time that it is asked for the weights it sends half of them, waits, and breaks off.
    StopsInTheMiddle,
    /// It changes a byte of this file.
    Changes(&'static str),
}

#[derive(Clone)]
pub struct Scripted {
    store: ModelStore,
    digest: FileDigest,
    does: Does,
    asked: Arc<Mutex<Vec<(String, u64)>>>,
    has_stopped: Arc<AtomicBool>,
    waiting: Arc<Notify>,
    on: Arc<Notify>,
}

impl Scripted {
    pub fn new(store: &ModelStore, digest: FileDigest, does: Does) -> Self {
        let (waiting, on) = (Arc::default(), Arc::default());
        let (asked, has_stopped) = (Arc::default(), Arc::default());
        Self { store: store.clone(), digest, does, asked, has_stopped, waiting, on }
    }

    pub fn server(&self) -> ModelBlobsServer<Self> {
        ModelBlobsServer::new(self.clone())
    }

    /// From where on a file was asked for, each time.
    pub fn asked(&self, path: &str) -> Vec<u64> {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|(of, _)| of == path).map(|(_, offset)| *offset).collect()
    }

    /// Waits until it has sent half, and waits.
    pub async fn waits(&self) {
        tokio::time::timeout(std::time::Duration::from_secs(60), self.waiting.notified()).await.expect("it waits");
    }

    /// Lets it break off.
    pub fn goes_on(&self) {
        self.on.notify_one();
    }
}

#[tonic::async_trait]
impl ModelBlobs for Scripted {
    type FetchStream = Pin<Box<dyn Stream<Item = Result<BlobPiece, Status>> + Send>>;

    async fn describe(&self, _: Request<DescribeBlobRequest>) -> Result<Response<DescribeBlobResponse>, Status> {
        let manifest = std::fs::read(self.store.place_of(self.digest).join("manifest.json")).unwrap();
        Ok(Response::new(DescribeBlobResponse { manifest: manifest.into() }))
    }

    async fn fetch(&self, request: Request<FetchBlobRequest>) -> Result<Response<Self::FetchStream>, Status> {
        let FetchBlobRequest { path, offset, .. } = request.into_inner();
        self.asked.lock().unwrap().push((path.clone(), offset));
        let mut bytes = std::fs::read(self.store.place_of(self.digest).join(&path)).unwrap();
        if matches!(self.does, Does::Changes(file) if file == path) {
            bytes[0] ^= 1;
        }
        let from = usize::try_from(offset).unwrap();
        let is_to_stop = self.does == Does::StopsInTheMiddle && path == "model.safetensors";
        let stops = is_to_stop && !self.has_stopped.swap(true, Ordering::SeqCst);
        let to = if stops { bytes.len() / 2 } else { bytes.len() };
        let piece = |bytes: &[u8]| Ok(BlobPiece { data: bytes.to_vec().into() });
        let pieces: Vec<Result<BlobPiece, Status>> = bytes[from..to].chunks(PIECE_BYTES).map(piece).collect();
        let (waiting, on) = (self.waiting.clone(), self.on.clone());
        let end = stream::iter(stops.then_some(())).then(move |()| {
            let (waiting, on) = (waiting.clone(), on.clone());
            async move {
                waiting.notify_one();
                on.notified().await;
                Err(Status::unavailable("it breaks off"))
            }
        });
        let all: Self::FetchStream = Box::pin(stream::iter(pieces).chain(end));
        Ok(Response::new(all))
    }
}
