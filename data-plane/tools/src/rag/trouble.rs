//! What becomes of an index that cannot be written, or is damaged.
//!
//! Invariants: vectors that were made are not made again because they could not be kept: those of the document in hand
//! stay in memory, those of the ones before are in the index; the longer it goes on, the rarer it is tried; an index is
//! thrown away only if SQLite calls it damaged.

use std::{collections::BTreeMap, time::Duration};

use super::{
    RagError,
    service::Rag,
    store::{self, Document},
};

/// The longest pause between two looks at the folder while the index cannot be written.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// Vectors of a document that are not in the index yet.
pub(super) struct Made {
    path: String,
    digest: String,
    /// What they were made by.
    model: String,
    vectors: Vec<Vec<f32>>,
}

/// How long to wait for the next look, after so many in a row that the index refused.
pub(super) fn pause_after(pause: Duration, refusals: u32) -> Duration {
    let longer = pause.saturating_mul(1_u32.checked_shl(refusals).unwrap_or(u32::MAX));
    longer.min(MAX_PAUSE.max(pause))
}

impl Rag {
    /// Takes back the vectors of a document that could not be kept, if it is the same still.
    pub(super) fn take_made(&self, document: &Document, model: &str) -> Option<Vec<Vec<f32>>> {
        let made = self.made.lock().take()?;
        let is_same = made.path == document.path && made.digest == document.digest && made.model == model;
        is_same.then_some(made.vectors)
    }

    /// Keeps vectors of a document that the index does not take now. One document at a time.
    pub(super) fn keep_made(&self, document: &Document, model: String, vectors: Vec<Vec<f32>>) {
        let (path, digest) = (document.path.clone(), document.digest.clone());
        *self.made.lock() = Some(Made { path, digest, model, vectors });
    }

    /// Has the next look at the folder make the index again, if that is what the failure says.
    pub(super) fn notice(&self, cause: &RagError) {
        if matches!(cause, RagError::Damaged(_)) {
            self.standing.lock().is_damaged = true;
        }
    }

    /// Throws a damaged index away. It is made again from the files.
    pub(super) async fn throw_away(&self) {
        let (plugin, tenant) = (&self.name, &self.tenant);
        tracing::warn!(%plugin, %tenant, "an index of documents is damaged, and is made again");
        let mut open = self.store.lock().await;
        if let Some(store) = open.take() {
            // Waits for those who read it.
            store.close().await;
        }
        store::remove(&self.index);
        self.vectors.replace(BTreeMap::new());
        self.standing.lock().is_complete = false;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{
        fs,
        path::Path,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
    };

    use provost_types::{
        BoxFuture, BoxStream, ChatEvent, ChatRequest, EmbedRequest, EmbedResponse, Inference, InferenceError,
        InferenceErrorKind, ModelInfo, ModelKind, Name, RagPlugin, TokenUsage,
    };

    use super::*;
    use crate::rag::{Indexes, ingest::pass};

    /// Counts the texts that it embeds.
    #[derive(Default)]
    struct Counting(AtomicUsize);

    impl Inference for Counting {
        fn models(&self) -> Vec<ModelInfo> {
            vec![ModelInfo {
                name: "words".to_owned(),
                kind: ModelKind::Embedding,
                architecture: "test".to_owned(),
                context_tokens: 100,
                dimensions: 2,
                created: 1,
            }]
        }

        fn is_seen_by(&self, _: &str, tenant: &str) -> bool {
            tenant == "acme"
        }

        fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<EmbedResponse, InferenceError>> {
            // A model may be there for some tenants only, and each has its share of it.
            assert_eq!(request.tenant, "acme");
            self.0.fetch_add(request.inputs.len(), Ordering::Relaxed);
            let vectors = request.inputs.iter().map(|_| vec![0.6, 0.8]).collect();
            Box::pin(std::future::ready(Ok(EmbedResponse { vectors, usage: TokenUsage::default() })))
        }

        fn chat(
            &self,
            _: ChatRequest,
        ) -> BoxFuture<'_, Result<BoxStream<'static, Result<ChatEvent, InferenceError>>, InferenceError>> {
            let kind = InferenceErrorKind::ModelNotFound;
            let refused = InferenceError { kind, message: "no".to_owned(), retry_after_ms: None };
            Box::pin(std::future::ready(Err(refused)))
        }
    }

    /// A corpus of two documents that were not looked at yet, and what embeds it.
    async fn corpus(dir: &Path) -> (Arc<Rag>, Arc<Counting>) {
        let folder = dir.join("corpora/acme/handbook");
        fs::create_dir_all(&folder).unwrap();
        let model = Arc::new(Counting::default());
        let inference: Arc<dyn Inference> = model.clone();
        let spec: RagPlugin = serde_json::from_str(r#"{"folder":"handbook","model":"words"}"#).unwrap();
        let (tenant, name) = (Name::new("acme").unwrap(), Name::new("docs").unwrap());
        // It looks once by itself, at nothing.
        let hour = Duration::from_secs(3_600);
        let rag = Rag::start((&tenant, &name), &spec, &inference, &Indexes::new(dir), hour);
        for _ in 0..12_000 {
            if rag.standing.lock().is_complete {
                fs::write(folder.join("a.md"), "# One\n\nA text.\n").unwrap();
                fs::write(folder.join("b.md"), "# Two\n\nAnother text.\n").unwrap();
                return (rag, model);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("it did not look at the folder in a minute");
    }

    #[tokio::test]
    async fn what_was_embedded_is_not_embedded_again_while_the_index_takes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (rag, model) = corpus(dir.path()).await;
        let store = rag.store().await.unwrap();
        store
            .run("CREATE TRIGGER full BEFORE INSERT ON documents BEGIN SELECT RAISE(ABORT, 'full'); END")
            .await
            .unwrap();
        assert!(pass(&rag).await, "the index refuses");
        let embedded = model.0.load(Ordering::Relaxed);
        assert!(embedded > 0);
        for _ in 0..3 {
            assert!(pass(&rag).await);
        }
        assert_eq!(model.0.load(Ordering::Relaxed), embedded, "the model was asked again");
        assert_eq!((rag.view().documents, rag.view().failures), (0, 4));
        store.run("DROP TRIGGER full").await.unwrap();
        assert!(!pass(&rag).await);
        let view = rag.view();
        assert_eq!((view.documents, view.failed, view.pending), (2, 0, 0));
        assert_eq!(view.pieces, model.0.load(Ordering::Relaxed) as u64, "each piece once");
        assert!(view.looked_s > 0);
    }

    #[tokio::test]
    async fn a_damaged_index_is_made_again_while_the_plugin_runs() {
        let dir = tempfile::tempdir().unwrap();
        let (rag, model) = corpus(dir.path()).await;
        assert!(!pass(&rag).await);
        let embedded = model.0.load(Ordering::Relaxed);
        rag.notice(&RagError::Index("the disk is full".to_owned()));
        assert!(!pass(&rag).await);
        assert_eq!(model.0.load(Ordering::Relaxed), embedded, "only damage makes it go");
        rag.notice(&RagError::Damaged("a page is broken".to_owned()));
        assert!(!pass(&rag).await);
        assert_eq!(model.0.load(Ordering::Relaxed), 2 * embedded);
        let store = rag.store().await.unwrap();
        assert!(store.text("a.md").await.unwrap().is_some());
        assert_eq!((rag.view().documents, rag.view().pieces), (2, embedded as u64));
    }

    #[test]
    fn pauses_grow_to_a_bound_and_are_never_shorter_than_they_were() {
        let (second, long) = (Duration::from_secs(1), Duration::from_secs(600));
        for (pause, refusals, expect) in [
            (second, 0, second),
            (second, 1, Duration::from_secs(2)),
            (second, 5, Duration::from_secs(32)),
            (second, 6, MAX_PAUSE),
            (second, u32::MAX, MAX_PAUSE),
            (long, 3, long),
        ] {
            assert_eq!(pause_after(pause, refusals), expect, "{pause:?} {refusals}");
        }
    }
}
