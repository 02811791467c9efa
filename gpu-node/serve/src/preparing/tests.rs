//! Reading requests that takes as long as a test wants.

use std::path::Path;
use std::sync::{Mutex, mpsc};

use futures::{FutureExt, Stream, StreamExt};
use provost_types::{ChatEvent, ChatRequest, Inference, InferenceError, InferenceErrorKind};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::*;
use crate::config::GpuConfig;
use crate::job::Asked;
use crate::node::GpuNode;
use crate::preparer;

/// Tokens that an answer makes while another request is being read.
const STEPS: usize = 50;
const AGES: Duration = Duration::from_secs(3_600);

/// A node that reads requests with a schema only when it is told to, one at each word.
struct Holding {
    node: Arc<GpuNode>,
    word: mpsc::Sender<()>,
    /// Tells of each that a thread has taken.
    taken: UnboundedReceiver<()>,
}

fn holding(deadline: Duration) -> Holding {
    let (word, held) = mpsc::channel();
    let (takes, taken) = unbounded_channel();
    let held = Mutex::new(held);
    let prepare = move |task: &Task| -> Result<Prepared, InferError> {
        if matches!(&task.asked, Asked::Chat(request) if request.schema.is_some()) {
            // A test that has ended holds nobody up.
            let _ = takes.send(());
            let _ = held.lock().unwrap().recv();
        }
        preparer::prepare(task)
    };
    let fixtures = Path::new(&std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("../infer/tests/fixtures");
    let config = GpuConfig { models_dir: Some(fixtures), threads: 2, ..GpuConfig::default() };
    let node = GpuNode::start_preparing(config, Arc::new(prepare), deadline).unwrap();
    Holding { node, word, taken }
}

fn asked(tenant: &str, max_tokens: u32) -> ChatRequest {
    ChatRequest::greedy(tenant, "tiny-chat", "go on", max_tokens)
}

fn slow(tenant: &str) -> ChatRequest {
    ChatRequest { schema: Some(r#"{"type": "boolean"}"#.to_owned()), ..asked(tenant, 40) }
}

/// The text of an answer to its end.
async fn text(mut events: impl Stream<Item = Result<ChatEvent, InferenceError>> + Unpin) -> String {
    let mut text = String::new();
    while let Some(event) = events.next().await {
        if let ChatEvent::Delta(more) = event.unwrap() {
            text.push_str(&more);
        }
    }
    text
}

#[tokio::test]
async fn answers_go_on_while_a_grammar_is_made() {
    let Holding { node, word, mut taken } = holding(AGES);
    // This model's most likely token is never its end.
    let mut stream = node.chat(asked("acme", 4_000)).await.unwrap();
    stream.next().await.unwrap().unwrap();
    let mut waits = node.chat(slow("acme"));
    assert!(futures::poll!(&mut waits).is_pending());
    taken.recv().await.unwrap();
    // What comes after what is there was made while the thread is at the grammar.
    while let Some(event) = stream.next().now_or_never() {
        event.unwrap().unwrap();
    }
    for _ in 0..STEPS {
        stream.next().await.unwrap().unwrap();
    }
    assert!(futures::poll!(&mut waits).is_pending());
    word.send(()).unwrap();
    let answer = text(waits.await.unwrap()).await;
    assert!(["true", "false"].contains(&answer.as_str()), "{answer}");
}

#[tokio::test]
async fn one_tenants_slow_requests_leave_a_thread_to_others() {
    let Holding { node, word, mut taken } = holding(AGES);
    let mut held = [node.chat(slow("acme")), node.chat(slow("acme"))];
    for waits in &mut held {
        assert!(futures::poll!(waits).is_pending());
    }
    taken.recv().await.unwrap();
    text(node.chat(asked("other", 4)).await.unwrap()).await;
    assert!(taken.try_recv().is_err(), "the second one waits for the first");
    for waits in held {
        word.send(()).unwrap();
        text(waits.await.unwrap()).await;
    }
}

#[tokio::test]
async fn what_takes_too_long_to_read_is_refused() {
    let Holding { node, word, .. } = holding(Duration::from_millis(100));
    let refused = node.chat(slow("acme")).await.err().unwrap();
    assert_eq!(refused.kind, InferenceErrorKind::InvalidRequest, "{refused}");
    assert!(refused.message.contains("could not be read within"), "{refused}");
    // Its thread is still at it; then it has others again, of the same tenant.
    word.send(()).unwrap();
    let served = async { while node.chat(asked("acme", 2)).await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(60), served).await.unwrap();
}

#[tokio::test]
async fn who_leaves_is_not_read() {
    let Holding { node, word, mut taken } = holding(AGES);
    let mut first = node.chat(slow("acme"));
    assert!(futures::poll!(&mut first).is_pending());
    taken.recv().await.unwrap();
    let mut second = node.chat(slow("acme"));
    assert!(futures::poll!(&mut second).is_pending());
    drop(second);
    word.send(()).unwrap();
    text(first.await.unwrap()).await;
    // No second word is needed.
    text(node.chat(asked("acme", 2)).await.unwrap()).await;
    assert!(taken.try_recv().is_err());
}
