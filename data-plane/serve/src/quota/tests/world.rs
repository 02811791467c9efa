//! What a node needs beside its quotas: records, secrets, models, and who calls.

use super::*;

#[derive(Default)]
pub(super) struct World {
    pub(super) records: Mutex<Vec<AuditEvent>>,
    /// Chats without end that the model was asked for.
    pub(super) endless: AtomicU64,
}

impl World {
    /// Waits until there are more of them.
    pub(super) async fn more_than(&self, before: u64) {
        while self.endless.load(Ordering::SeqCst) <= before {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

impl AuditSink for World {
    fn record(&self, event: AuditEvent) -> BoxFuture<'_, Result<AuditReceipt, AuditUnavailable>> {
        let mut records = self.records.lock();
        records.push(event);
        let index = records.len() as u64;
        Box::pin(std::future::ready(Ok(AuditReceipt { log: "t".into(), index, leaf_hash: [0; 32] })))
    }
}

impl SecretSource for World {
    fn secret(&self, _: &Name, _: &Name) -> Option<SecretString> {
        None
    }
}

impl Inference for World {
    fn models(&self) -> Vec<ModelInfo> {
        let model = |name: &str| ModelInfo {
            name: name.into(),
            kind: ModelKind::Embedding,
            architecture: "bert".into(),
            context_tokens: 8,
            dimensions: 1,
            created: 0,
        };
        vec![model("tiny"), model("tuned")]
    }
    fn base_of(&self, model: &str) -> Option<String> {
        (model == "tuned").then(|| "tiny".to_owned())
    }
    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<EmbedResponse, InferenceError>> {
        if request.model == "tuned" {
            // As if a node had been lost.
            crate::gpus::again::note();
        }
        let usage = TokenUsage { prompt: 7, completion: 0 };
        Box::pin(std::future::ready(Ok(EmbedResponse { vectors: vec![vec![1.0]], usage })))
    }
    fn chat(
        &self,
        request: ChatRequest,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Result<ChatEvent, InferenceError>>, InferenceError>> {
        if request.max_tokens == ENDLESS {
            self.endless.fetch_add(1, Ordering::SeqCst);
            let said = futures::stream::iter([Ok(ChatEvent::Delta("abcde".into()))]);
            let endless: BoxStream<'static, _> = Box::pin(said.chain(futures::stream::pending()));
            return Box::pin(std::future::ready(Ok(endless)));
        }
        if request.max_tokens == QUEUED {
            self.endless.fetch_add(1, Ordering::SeqCst);
            return Box::pin(std::future::pending());
        }
        let error = InferenceError { kind: InferenceErrorKind::Failed, message: "no".into(), retry_after_ms: None };
        if request.max_tokens == BROKEN {
            let broken: BoxStream<'static, _> =
                Box::pin(futures::stream::iter([Ok(ChatEvent::Delta("abcde".into())), Err(error)]));
            return Box::pin(std::future::ready(Ok(broken)));
        }
        Box::pin(std::future::ready(Err(error)))
    }
}

/// A client that cancels when it is told to.
pub(super) struct CancelLink(pub(super) tokio::sync::Notify);
impl ClientLink for CancelLink {
    fn notify(&self, _: &str, _: RawJson) {}
    fn ask<'a>(&'a self, _: &'a RawJson) -> Option<BoxFuture<'a, Result<RawJson, AskError>>> {
        None
    }
    fn cancelled(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.0.notified())
    }
}

pub(super) struct NoLink;
impl ClientLink for NoLink {
    fn notify(&self, _: &str, _: RawJson) {}
    fn ask<'a>(&'a self, _: &'a RawJson) -> Option<BoxFuture<'a, Result<RawJson, AskError>>> {
        None
    }
    fn cancelled(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }
}
