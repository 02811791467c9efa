//! Files of stored models, for other GPU nodes of the cluster.
//!
//! Invariants: whoever asks is a member with the role gpu-node, by its certificate; only models that are declared here are
//! there for it, and of these only the files that their manifest names; a bounded number is sent at a time, each piece when the
//! other side takes it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, stream};
use provost_types::FileDigest;
use provost_wire::gpu::model_blobs_server::{ModelBlobs, ModelBlobsServer};
use provost_wire::gpu::{BlobPiece, DescribeBlobRequest, DescribeBlobResponse, FetchBlobRequest};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tonic::{Request, Response, Status};

use crate::node::GpuNode;
use crate::service::GpuCallers;
use crate::store::Manifest;

/// Files that are sent at a time, whoever takes them.
const MOST_SENDING: usize = 8;
/// The longest wait until the other side takes a piece; then it asks again, if it is still there.
const TAKE_LIMIT: Duration = Duration::from_secs(60);
/// Bytes of a piece.
const PIECE_BYTES: usize = 512 << 10;

/// See the module.
#[derive(Clone)]
pub struct BlobService {
    node: Arc<GpuNode>,
    callers: Arc<dyn GpuCallers>,
    places: Arc<Semaphore>,
}

impl BlobService {
    /// A service over the store of this node. `callers` lets in whom it is for: members with the role gpu-node.
    pub fn new(node: Arc<GpuNode>, callers: Arc<dyn GpuCallers>) -> Self {
        Self { node, callers, places: Arc::new(Semaphore::new(MOST_SENDING)) }
    }

    /// For the listener of the other nodes.
    pub fn server(&self) -> ModelBlobsServer<Self> {
        ModelBlobsServer::new(self.clone())
    }

    /// Place and manifest of a model that is declared and here.
    async fn offered(&self, digest: &str) -> Result<Option<(PathBuf, Manifest)>, Status> {
        let digest = digest.parse::<FileDigest>();
        let digest = digest.map_err(|cause| Status::invalid_argument(format!("PV-MODEL-COPY: {cause}")))?;
        let node = self.node.clone();
        let found = tokio::task::spawn_blocking(move || node.offered(digest)).await;
        let found = found.map_err(|cause| Status::internal(format!("PV-MODEL-COPY: {cause}")))?;
        found.map_err(|cause| unreadable(&cause.to_string()))
    }
}

type Pieces = Pin<Box<dyn Stream<Item = Result<BlobPiece, Status>> + Send>>;

#[tonic::async_trait]
impl ModelBlobs for BlobService {
    type FetchStream = Pieces;

    async fn describe(&self, request: Request<DescribeBlobRequest>) -> Result<Response<DescribeBlobResponse>, Status> {
        self.callers.admit(request.extensions()).await?;
        let manifest = match self.offered(&request.get_ref().digest).await? {
            Some((_, manifest)) => serde_json::to_vec(&manifest).map_err(|cause| unreadable(&cause.to_string()))?,
            None => Vec::new(),
        };
        Ok(Response::new(DescribeBlobResponse { manifest: manifest.into() }))
    }

    async fn fetch(&self, request: Request<FetchBlobRequest>) -> Result<Response<Self::FetchStream>, Status> {
        self.callers.admit(request.extensions()).await?;
        let FetchBlobRequest { digest, path, offset } = request.into_inner();
        let absent = || Status::not_found("PV-MODEL-COPY: the node does not have that file of that model");
        let (place, manifest) = self.offered(&digest).await?.ok_or_else(absent)?;
        let bytes = manifest.files.iter().find(|file| file.path == path).map(|file| file.bytes).ok_or_else(absent)?;
        if offset > bytes {
            return Err(Status::out_of_range(format!("PV-MODEL-COPY: {path} has {bytes} bytes")));
        }
        let busy = |_| Status::resource_exhausted(format!("PV-MODEL-COPY: it sends {MOST_SENDING} files already"));
        let sends = self.places.clone().try_acquire_owned().map_err(busy)?;
        let opened = tokio::task::spawn_blocking(move || open(place.join(path))).await;
        let file = opened.map_err(|cause| unreadable(&cause.to_string()))?.map_err(|cause| unreadable(&cause))?;
        let (pieces, taken) = mpsc::channel(1);
        let sending = Sending { file: Arc::new(file), at: offset, to: bytes, _sends: sends };
        tokio::spawn(sending.run(pieces));
        let pieces: Pieces =
            Box::pin(stream::unfold(taken, |mut taken| async move { taken.recv().await.map(|piece| (piece, taken)) }));
        Ok(Response::new(pieces))
    }
}

/// A file that is being sent.
struct Sending {
    file: Arc<File>,
    at: u64,
    to: u64,
    _sends: OwnedSemaphorePermit,
}

impl Sending {
    /// Sends to the end, or until nobody takes anything: who does not read has its place no longer than this.
    async fn run(mut self, pieces: mpsc::Sender<Result<BlobPiece, Status>>) {
        while self.at < self.to {
            let piece = self.next().await;
            let is_last = piece.is_err();
            let taken = tokio::time::timeout(TAKE_LIMIT, pieces.send(piece)).await;
            if is_last || !matches!(taken, Ok(Ok(()))) {
                return;
            }
        }
    }

    async fn next(&mut self) -> Result<BlobPiece, Status> {
        let length = usize::try_from(self.to - self.at).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
        let (file, at) = (self.file.clone(), self.at);
        let read = tokio::task::spawn_blocking(move || {
            let mut data = vec![0_u8; length];
            file.read_exact_at(&mut data, at).map(|()| data)
        });
        let data = read.await.unwrap_or_else(|cause| Err(std::io::Error::other(cause)));
        let data = data.map_err(|cause| unreadable(&cause.to_string()))?;
        self.at += data.len() as u64;
        Ok(BlobPiece { data: data.into() })
    }
}

/// Opens a stored file. A link is none: where it leads is not the model's.
fn open(path: PathBuf) -> Result<File, String> {
    match std::fs::symlink_metadata(&path) {
        Ok(facts) if facts.is_file() => File::open(&path).map_err(|cause| cause.to_string()),
        Ok(_) => Err("it is no file".to_owned()),
        Err(cause) => Err(cause.to_string()),
    }
}

fn unreadable(cause: &str) -> Status {
    Status::data_loss(format!("PV-MODEL-COPY: it cannot be read: {cause}"))
}
