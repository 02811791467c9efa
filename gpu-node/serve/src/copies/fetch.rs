//! One model, from whichever node has it.
//!
//! Nodes are asked who has it; one after the other sends what is missing, file by file. What one has sent stays when the
//! next one goes on, or this node is started again.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use provost_types::FileDigest;
use provost_wire::gpu::model_blobs_client::ModelBlobsClient;
use provost_wire::gpu::{BlobPiece, DescribeBlobRequest, FetchBlobRequest};
use tokio::time::timeout;
use tonic::{Code, Status, transport::Channel};

use super::{BlobPeer, Copies, Failed, ModelCopy};
use crate::store::{Arriving, Manifest, ModelStore, StoreError, StoredFile};

/// A node says so soon whether it has a model.
const DESCRIBE_LIMIT: Duration = Duration::from_secs(5);
/// The longest wait for more of a file.
const PIECE_LIMIT: Duration = Duration::from_secs(30);
/// Fewer bytes of a file in so long as one piece may take, and another node is asked.
const LEAST_BYTES: u64 = 64 << 10;
/// Most characters of why one node did not send a model.
const MOST_SAID_CHARS: usize = 300;
/// The disk is looked at each time that so many bytes were written.
const LOOK_AT_DISK_BYTES: u64 = 64 << 20;
/// Whole models wait so long for an import to end, each time; so often.
const NAME_AGAIN_AFTER: Duration = Duration::from_secs(1);
const NAME_TRIES: usize = 600;

/// Where models go, and how much room stays.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) store: ModelStore,
    pub(super) copies: Arc<Copies>,
    /// Bytes of the disk that stay free.
    pub(super) reserve_bytes: u64,
}

/// Why one node did not send a model.
enum Ended {
    /// It did not go on: why. Another one may.
    Lost(String),
    /// What it sends is something else.
    Wrong(String),
    /// It cannot be kept, whoever sends it.
    Store(StoreError),
}

impl From<StoreError> for Ended {
    fn from(cause: StoreError) -> Self {
        Self::Store(cause)
    }
}

impl Target {
    /// Brings a model into the store.
    pub(super) async fn fetch(self, digest: FileDigest, peers: Vec<BlobPeer>) -> Result<(), Failed> {
        let mut problems = Vec::new();
        for (peer, manifest) in self.holders(digest, peers).await {
            let ended = match Manifest::of_other(digest, &manifest) {
                Ok(manifest) => self.copy_of_peer(&peer, manifest).await,
                Err(cause) => Err(Ended::Wrong(cause)),
            };
            match ended {
                Ok(()) => return Ok(()),
                Err(Ended::Store(cause)) => return Err(Failed::Store(cause)),
                Err(Ended::Lost(cause)) => problems.push(format!("{}: {}", peer.name, plainly(&cause))),
                Err(Ended::Wrong(cause)) => {
                    let cause = plainly(&cause);
                    tracing::warn!(node = peer.name, %digest, cause, "a node sends what is not the model");
                    self.copies.mistrust(digest, &peer.name);
                    problems.push(format!("{}: {cause}", peer.name));
                }
            }
        }
        match problems.is_empty() {
            true => Err(Failed::Nobody),
            false => Err(Failed::Peers(problems.join("; "))),
        }
    }

    /// The nodes that say that they have it, with what they say of it; each time another one first, so that not all nodes
    /// ask the same.
    async fn holders(&self, digest: FileDigest, peers: Vec<BlobPeer>) -> Vec<(BlobPeer, Vec<u8>)> {
        let trusted = peers.into_iter().filter(|peer| self.copies.is_trusted(digest, &peer.name));
        let asked = trusted.map(|peer| async move {
            let mut client = ModelBlobsClient::new(peer.channel.clone());
            let question = DescribeBlobRequest { digest: digest.to_string() };
            match timeout(DESCRIBE_LIMIT, client.describe(question)).await {
                Ok(Ok(answer)) => Some((peer, answer.into_inner().manifest.to_vec())),
                Ok(Err(status)) => {
                    tracing::debug!(node = peer.name, %status, "the node does not say which models it has");
                    None
                }
                Err(_) => None,
            }
        });
        let answers = join_all(asked).await;
        let mut holders: Vec<_> = answers.into_iter().flatten().filter(|(_, manifest)| !manifest.is_empty()).collect();
        if !holders.is_empty() {
            let by = RandomState::new().build_hasher().finish() % holders.len() as u64;
            holders.rotate_left(usize::try_from(by).unwrap_or_default());
        }
        holders
    }

    async fn copy_of_peer(&self, peer: &BlobPeer, manifest: Manifest) -> Result<(), Ended> {
        let (digest, store) = (manifest.digest, self.store.clone());
        let (arriving, free) = aside(move || {
            let arriving = store.arrive(manifest)?;
            Ok((arriving, store.free_bytes()?))
        })
        .await?;
        let arriving = Arc::new(arriving);
        let of = arriving.manifest().bytes();
        let copy = ModelCopy { bytes: arriving.bytes(), of, from: peer.name.clone() };
        self.copies.begin(digest, copy, free, self.reserve_bytes, self.store.root())?;
        tracing::info!(node = peer.name, %digest, bytes = of, "a model is copied");
        let mut client = ModelBlobsClient::new(peer.channel.clone());
        let mut since_looked = 0;
        for file in &arriving.manifest().files {
            self.one_file(&mut client, &arriving, file, &mut since_looked).await?;
        }
        self.name(arriving).await
    }

    /// What is missing of one file.
    async fn one_file(
        &self,
        client: &mut ModelBlobsClient<Channel>,
        arriving: &Arc<Arriving>,
        file: &StoredFile,
        since_looked: &mut u64,
    ) -> Result<(), Ended> {
        let digest = arriving.manifest().digest;
        let (of, wanted) = (arriving.clone(), file.clone());
        let (part, mut at) = aside(move || of.open(&wanted)).await?;
        let part = Arc::new(part);
        if at < file.bytes {
            let question = FetchBlobRequest { digest: digest.to_string(), path: file.path.clone(), offset: at };
            let answer = timeout(PIECE_LIMIT, client.fetch(question)).await.map_err(|_| silent())?;
            let mut pieces = answer.map_err(|status| lost(&status))?.into_inner();
            let (mut since, mut came) = (Instant::now(), 0);
            while at < file.bytes {
                let more = timeout(PIECE_LIMIT, pieces.message()).await.map_err(|_| silent())?;
                let Some(BlobPiece { data }) = more.map_err(|status| lost(&status))? else {
                    return Err(Ended::Lost(format!("{} ended too early", file.path)));
                };
                let bytes = data.len() as u64;
                if bytes == 0 || bytes > file.bytes - at {
                    return Err(Ended::Wrong(format!("{} does not have its length", file.path)));
                }
                let (to, offset) = (part.clone(), at);
                aside(move || to.write_at(&data, offset)).await?;
                at += bytes;
                came += bytes;
                if since.elapsed() >= PIECE_LIMIT {
                    if came < LEAST_BYTES && at < file.bytes {
                        return Err(Ended::Lost(format!("{} comes too slowly", file.path)));
                    }
                    (since, came) = (Instant::now(), 0);
                }
                self.copies.add(digest, bytes);
                *since_looked += bytes;
                if *since_looked >= LOOK_AT_DISK_BYTES {
                    *since_looked = 0;
                    self.check_room(file.bytes - at).await?;
                }
            }
        }
        let (of, wanted) = (arriving.clone(), file.clone());
        match aside(move || of.is_right(&part, &wanted)).await? {
            true => Ok(()),
            false => Err(Ended::Wrong(format!("{} is not what the digest says", file.path))),
        }
    }

    /// Others write to the disk, too.
    async fn check_room(&self, bytes: u64) -> Result<(), StoreError> {
        let store = self.store.clone();
        let free = aside(move || store.free_bytes()).await?;
        if free >= self.reserve_bytes {
            return Ok(());
        }
        let place = self.store.root().display().to_string();
        Err(StoreError::NoRoom { bytes, free, reserve: self.reserve_bytes, place })
    }

    /// Gives a whole model its name, once nothing is imported.
    async fn name(&self, arriving: Arc<Arriving>) -> Result<(), Ended> {
        let mut tries = 0;
        loop {
            let whole = arriving.clone();
            match aside(move || whole.finish()).await {
                Err(StoreError::Busy { .. }) if tries < NAME_TRIES => tokio::time::sleep(NAME_AGAIN_AFTER).await,
                ended => return ended.map_err(Ended::Store),
            }
            tries += 1;
        }
    }
}

/// Reads or writes on a thread for that.
async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|cause| Err(StoreError::Io { place: "the store".to_owned(), cause: cause.to_string() }))
}

/// A cause may hold what another node says: it comes to logs and to terminals.
fn plainly(cause: &str) -> String {
    cause.chars().filter(|c| !c.is_control()).take(MOST_SAID_CHARS).collect()
}

fn silent() -> Ended {
    Ended::Lost(format!("nothing came for {} seconds", PIECE_LIMIT.as_secs()))
}

fn lost(status: &Status) -> Ended {
    let cause = match status.code() {
        Code::Unavailable => format!("it does not answer ({})", status.message()),
        // Who reads all of it has the code already.
        _ => status.message().trim_start_matches("PV-MODEL-COPY: ").to_owned(),
    };
    Ended::Lost(cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_node_says_is_short_and_moves_no_cursor() {
        let Ended::Lost(cause) = lost(&Status::data_loss("PV-MODEL-COPY: a\u{1b}[2Jb\n".repeat(100))) else {
            panic!("a refusal is no end of all copies");
        };
        let said = plainly(&cause);
        assert!(said.starts_with("a[2Jb") && said.chars().count() == MOST_SAID_CHARS, "{said}");
        assert!(!said.chars().any(char::is_control), "{said:?}");
    }
}
