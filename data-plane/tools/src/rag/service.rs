//! A plugin of documents.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use provost_data_pipeline::{ClientLink, Execution, Operation, Usage};
use provost_mcp::{RawJson, RawObject, RpcError};
use provost_types::{Inference, Name, RagPlugin};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{
    Indexes, RagError, answer,
    chunk::Size,
    folder::Folder,
    globs::Globs,
    ingest,
    store::{self, Store},
    trouble::{Made, pause_after},
    vectors::Vectors,
};
use crate::{Definitions, ExecuteRequest, UpstreamError};

/// Changes when indexes are made in another way, so that old ones are not used.
const FORMAT: u32 = 1;
/// Results of one search if the document does not say.
const DEFAULT_MAX_RESULTS: u32 = 20;
/// The share of a piece that its successor begins with, if the document does not say.
const DEFAULT_OVERLAP_SHARE: u32 = 5;

/// How far the index is.
#[derive(Clone, Debug, Default)]
pub(super) struct Standing {
    /// All files were looked at once.
    pub(super) is_complete: bool,
    /// Documents that wait to be read.
    pub(super) pending: usize,
    /// Why it does not go on.
    pub(super) trouble: Option<RagError>,
    /// Files that are not documents, and why.
    pub(super) left_out: Vec<String>,
    /// Documents of the index.
    pub(super) documents: usize,
    /// Those that cannot be read.
    pub(super) failed: usize,
    /// When a look at the folder last ended well, Unix seconds.
    pub(super) looked_s: u64,
    /// Looks that did not.
    pub(super) failures: u64,
    /// Somebody found the index damaged: the next look makes it again.
    pub(super) is_damaged: bool,
}

/// A plugin of documents.
pub(crate) struct Rag {
    pub(super) tenant: Name,
    pub(super) name: Name,
    pub(super) model: String,
    pub(super) size: Size,
    pub(super) max_results: usize,
    pub(super) folder: Folder,
    pub(super) globs: Globs,
    pub(super) inference: Arc<dyn Inference>,
    pub(super) turns: Arc<Semaphore>,
    pub(super) vectors: Vectors,
    pub(super) standing: Mutex<Standing>,
    pub(super) stop: CancellationToken,
    pub(super) index: PathBuf,
    /// Open once somebody needs it; not while a damaged one is thrown away.
    pub(super) store: tokio::sync::Mutex<Option<Store>>,
    /// What could not be kept.
    pub(super) made: Mutex<Option<Made>>,
    tools: Definitions,
}

/// What a tool gives.
pub(super) struct Outcome {
    pub(super) result: Value,
    pub(super) usage: Usage,
}

impl Rag {
    /// Makes it, and begins to read the folder, again after each `pause`. Needs a runtime.
    pub(crate) fn start(
        (tenant, name): (&Name, &Name),
        spec: &RagPlugin,
        inference: &Arc<dyn Inference>,
        indexes: &Indexes,
        pause: Duration,
    ) -> Arc<Self> {
        let words = spec.chunk.words;
        let overlap = spec.chunk.overlap.unwrap_or(words / DEFAULT_OVERLAP_SHARE);
        let max_results = match spec.max_results {
            0 => DEFAULT_MAX_RESULTS,
            given => given,
        } as usize;
        let rag = Arc::new(Self {
            tenant: tenant.clone(),
            name: name.clone(),
            model: spec.model.clone(),
            size: Size { words: words as usize, overlap: overlap as usize },
            max_results,
            folder: Folder::new(&indexes.data_dir, tenant, &spec.folder),
            globs: Globs::new(&spec.include),
            inference: inference.clone(),
            turns: indexes.turns.clone(),
            vectors: Vectors::default(),
            standing: Mutex::default(),
            stop: CancellationToken::new(),
            index: indexes.file(tenant, name, &settings_of(spec)),
            store: tokio::sync::Mutex::default(),
            made: Mutex::default(),
            tools: answer::tools(&spec.folder, max_results),
        });
        tokio::spawn(keep_up(Arc::downgrade(&rag), rag.stop.clone(), pause));
        rag
    }

    pub(crate) fn tools(&self) -> Definitions {
        self.tools.clone()
    }

    /// Ends the reading of the folder; calls still work.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// The index, opened at its first use.
    pub(super) async fn store(&self) -> Result<Store, RagError> {
        let mut open = self.store.lock().await;
        if let Some(store) = &*open {
            return Ok(store.clone());
        }
        let store = self.open().await?;
        *open = Some(store.clone());
        Ok(store)
    }

    async fn open(&self) -> Result<Store, RagError> {
        let index = self.index.clone();
        let others = move || ingest::remove_others(&index);
        let _ = tokio::task::spawn_blocking(others).await;
        let mut store = Store::open(&self.index).await?;
        let segments = match store.segments().await {
            Ok(segments) => segments,
            Err(cause @ RagError::Damaged(_)) => {
                tracing::warn!(%cause, plugin = %self.name, tenant = %self.tenant, "an index of documents is made again");
                store.close().await;
                store::remove(&self.index);
                store = Store::open(&self.index).await?;
                BTreeMap::new()
            }
            Err(cause) => {
                store.close().await;
                return Err(cause);
            }
        };
        self.vectors.replace(segments);
        Ok(store)
    }

    pub(crate) async fn execute(
        &self,
        request: &ExecuteRequest<'_>,
        link: &dyn ClientLink,
    ) -> Result<Execution, UpstreamError> {
        let Operation::CallTool(tool) = &request.operation else {
            return Err(UpstreamError::Unsupported(request.operation.method().to_owned()));
        };
        if self.tools.named(tool).is_none() {
            let message = format!("there is no tool `{tool}`");
            return Err(UpstreamError::Rpc(RpcError::new(RpcError::INVALID_PARAMS, message)));
        }
        let arguments = arguments(&request.params)?;
        let deadline: tokio::time::Instant = request.deadline.into();
        let called = Box::pin(self.call(tool, arguments));
        let done = tokio::select! {
            biased;
            () = link.cancelled() => return Ok(Execution::cancelled()),
            done = tokio::time::timeout_at(deadline, called) => done.map_err(|_| UpstreamError::Deadline)?,
        };
        let (outcome, is_error) = match done {
            Ok(outcome) => (outcome, false),
            Err(cause) => {
                self.notice(&cause);
                let result = json!({"content": [{"type": "text", "text": cause.to_string()}], "isError": true});
                (Outcome { result, usage: Usage::default() }, true)
            }
        };
        let mut execution = Execution::result(RawJson::from(outcome.result), is_error);
        execution.usage = outcome.usage;
        Ok(execution)
    }

    async fn call(&self, tool: &str, arguments: Map<String, Value>) -> Result<Outcome, RagError> {
        match tool {
            "search" => self.search(read(arguments)?).await,
            "documents" => self.documents(read(arguments)?).await,
            _ => self.read(read(arguments)?).await,
        }
    }
}

/// Reads the folder again and again, as long as somebody has the plugin.
async fn keep_up(rag: Weak<Rag>, stop: CancellationToken, pause: Duration) {
    let mut refusals = 0_u32;
    while let Some(rag) = rag.upgrade() {
        let is_refused = Box::pin(ingest::pass(&rag)).await;
        drop(rag);
        refusals = if is_refused { refusals.saturating_add(1) } else { 0 };
        tokio::select! {
            () = tokio::time::sleep(pause_after(pause, refusals)) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// What an index depends on, as a name.
fn settings_of(spec: &RagPlugin) -> String {
    // Plain data with text keys, which always serialises.
    let settings = serde_json::to_vec(&(FORMAT, &spec.folder, &spec.model, &spec.chunk)).unwrap_or_default();
    let digest = hex::encode(Sha256::digest(settings));
    digest.get(..16).unwrap_or(&digest).to_owned()
}

fn arguments(params: &RawJson) -> Result<Map<String, Value>, UpstreamError> {
    let given = RawObject::parse(params)?.get("arguments");
    given.map_or(Ok(Map::new()), |raw| {
        raw.parse().map_err(|_| {
            let message = "`arguments` must be an object";
            UpstreamError::Rpc(RpcError::new(RpcError::INVALID_PARAMS, message))
        })
    })
}

fn read<T: serde::de::DeserializeOwned>(arguments: Map<String, Value>) -> Result<T, RagError> {
    serde_json::from_value(Value::Object(arguments)).map_err(|cause| RagError::Arguments(cause.to_string()))
}
