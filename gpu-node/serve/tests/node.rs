//! The node through its port: real models, real threads, bounded memory.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod adapters;
mod common;
mod copies;
mod declared;
mod memory;
mod service;
mod speech;
mod tuning;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Models, chat, collect, embed, sampled, until};
use futures::StreamExt;
use provost_gpu_serve::{GpuConfig, GpuNode, RefusedFor};
use provost_types::{
    ChatEvent, ChatRequest, ChatTools, FinishReason, FunctionTool, Inference, InferenceErrorKind, ModelKind, ToolChoice,
};

fn start(models: &Models) -> Arc<GpuNode> {
    start_with(models, |_| {})
}

fn start_with(models: &Models, change: impl FnOnce(&mut GpuConfig)) -> Arc<GpuNode> {
    let mut config = GpuConfig { models_dir: Some(models.path()), threads: 2, ..GpuConfig::default() };
    change(&mut config);
    GpuNode::start(config).unwrap()
}

#[tokio::test]
async fn models_are_listed_without_being_loaded() {
    let models = Models::new(&["tiny-qwen3", "tiny-chat", "tiny-bert", "broken"]);
    std::fs::remove_file(models.path().join("broken/tokenizer.json")).unwrap();
    let node = start(&models);
    let listed: Vec<_> = node.models().into_iter().map(|m| (m.name, m.kind, m.architecture, m.dimensions)).collect();
    assert_eq!(
        listed,
        [
            ("tiny-bert".to_owned(), ModelKind::Embedding, "bert".to_owned(), 32),
            ("tiny-chat".to_owned(), ModelKind::Chat, "llama".to_owned(), 0),
            ("tiny-qwen3".to_owned(), ModelKind::Chat, "qwen3".to_owned(), 0),
        ]
    );
    assert_eq!(node.usage().weights, 0);
    // A model that cannot be used says why when it is asked for.
    let error = collect(&node, chat("broken", "hi", 4)).await.unwrap_err();
    assert!(error.message.contains("has no tokenizer"), "{error}");
}

#[tokio::test]
async fn a_chat_streams_and_ends_with_its_usage() {
    let models = Models::new(&["tiny-chat"]);
    let node = start(&models);
    let mut stream = node.chat(sampled("tiny-chat", 1, 40)).await.unwrap();
    let mut deltas = 0;
    let mut end = None;
    while let Some(event) = stream.next().await {
        assert!(end.is_none(), "nothing follows the end");
        match event.unwrap() {
            ChatEvent::Delta(text) => {
                assert!(!text.is_empty());
                deltas += 1;
            }
            ChatEvent::Silent => {}
            ChatEvent::Tokens(_) | ChatEvent::Calls(_) => panic!("nobody asked for them"),
            ChatEvent::End { reason, usage } => end = Some((reason, usage)),
        }
    }
    let (reason, usage) = end.unwrap();
    assert!(deltas > 3);
    assert!(usage.prompt > 0 && usage.completion > 3 && usage.completion <= 40);
    assert!(reason == FinishReason::Stop || usage.completion == 40);
    until("the cache is given back", || node.kv_usage().held == 0).await;
    assert!(node.usage().weights > 400_000);
}

#[tokio::test]
async fn many_at_once_answer_as_each_alone() {
    let models = Models::new(&["tiny-chat", "tiny-qwen3"]);
    let node = start(&models);
    let requests: Vec<ChatRequest> =
        (0..10).map(|seed| sampled(["tiny-chat", "tiny-qwen3"][seed as usize % 2], seed, 24)).collect();
    let mut alone = Vec::new();
    for request in &requests {
        alone.push(collect(&node, request.clone()).await.unwrap().0);
    }
    let together = futures::future::join_all(requests.into_iter().map(|r| collect(&node, r))).await;
    let together: Vec<String> = together.into_iter().map(|answer| answer.unwrap().0).collect();
    assert_eq!(together, alone);
    until("all caches are given back", || node.kv_usage().held == 0).await;
}

#[tokio::test]
async fn a_long_chat_does_not_hold_up_embeddings_or_other_chats() {
    let models = Models::new(&["tiny-chat", "tiny-bert"]);
    let node = start(&models);
    let mut long = node.chat(endless("tiny-chat")).await.unwrap();
    long.next().await.unwrap().unwrap();
    let response = node.embed(embed("tiny-bert", &["some text", "more"])).await.unwrap();
    assert_eq!(response.vectors.len(), 2);
    assert_eq!(response.usage.prompt, "some textmore".len() as u64);
    let length: f32 = response.vectors[0].iter().map(|x| x * x).sum();
    assert!((length - 1.0).abs() < 1e-4);
    collect(&node, chat("tiny-chat", "short", 5)).await.unwrap();
    // The long one is still at it: its cache is still booked.
    assert!(node.kv_usage().held > 0);
    long.next().await.unwrap().unwrap();
}

#[tokio::test]
async fn dropping_a_stream_or_a_future_cancels_the_work() {
    let models = Models::new(&["tiny-chat", "tiny-bert"]);
    let node = start(&models);
    let mut stream = node.chat(endless("tiny-chat")).await.unwrap();
    stream.next().await.unwrap().unwrap();
    assert!(node.kv_usage().held > 0);
    let began = Instant::now();
    drop(stream);
    until("the cache is given back", || node.kv_usage().held == 0).await;
    assert!(began.elapsed() < Duration::from_secs(20));

    let texts: Vec<String> = (0..2000).map(|i| format!("{i} {}", "text ".repeat(50))).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let future = node.embed(embed("tiny-bert", &texts));
    assert!(tokio::time::timeout(Duration::from_millis(200), future).await.is_err());
    until("the job is given up", || node.usage().reserved == node.kv_usage().capacity).await;
    collect(&node, chat("tiny-chat", "still here", 3)).await.unwrap();
}

#[tokio::test]
async fn a_full_queue_says_when_to_try_again() {
    let models = Models::new(&["tiny-chat"]);
    let node = start_with(&models, |config| {
        config.queue_bound = 2;
        config.active_chats = 1;
    });
    let mut running = node.chat(endless("tiny-chat")).await.unwrap();
    running.next().await.unwrap().unwrap();
    let waiting = |node: &Arc<GpuNode>| {
        let node = Arc::clone(node);
        tokio::spawn(async move { collect(&node, chat("tiny-chat", "next", 3)).await })
    };
    let (first, second) = (waiting(&node), waiting(&node));
    // Both have taken their places once they have been polled.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let refused = futures::FutureExt::now_or_never(node.chat(chat("tiny-chat", "x", 1)))
        .expect("a full queue answers at once")
        .err()
        .unwrap();
    assert_eq!(refused.kind, InferenceErrorKind::Busy);
    assert!(refused.retry_after_ms.unwrap() > 0);
    drop(running);
    first.await.unwrap().unwrap();
    second.await.unwrap().unwrap();
}

#[tokio::test]
async fn requests_that_cannot_be_served_say_why() {
    let models = Models::new(&["tiny-chat", "tiny-bert"]);
    let node = start(&models);
    let check = |error: provost_types::InferenceError, kind, says: &str| {
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.message.contains(says), "{error}");
        assert!(error.message.starts_with("PV-"), "{error}");
    };
    let not_found = collect(&node, chat("nobody", "hi", 1)).await.unwrap_err();
    check(not_found, InferenceErrorKind::ModelNotFound, "`nobody`");
    let wrong = collect(&node, chat("tiny-bert", "hi", 1)).await.unwrap_err();
    check(wrong, InferenceErrorKind::InvalidRequest, "embedding model");
    let wrong = node.embed(embed("tiny-chat", &["hi"])).await.unwrap_err();
    check(wrong, InferenceErrorKind::InvalidRequest, "chat model");
    let empty = node.embed(embed("tiny-bert", &[])).await.unwrap_err();
    check(empty, InferenceErrorKind::InvalidRequest, "0 inputs");
    let long = node.embed(embed("tiny-bert", &[&"x".repeat(300)])).await.unwrap_err();
    check(long, InferenceErrorKind::InvalidRequest, "300 tokens");
    let none = collect(&node, chat("tiny-chat", "hi", 0)).await.unwrap_err();
    check(none, InferenceErrorKind::InvalidRequest, "max_tokens");
    until("failed requests give everything back", || node.usage().reserved == 0).await;
}

#[tokio::test]
async fn a_token_without_weights_is_its_own_requests_trouble() {
    let models = Models::new(&["tiny-chat", "tiny-bert"]);
    models.add_token("tiny-chat", "beyond");
    models.add_token("tiny-bert", "beyond");
    let node = start(&models);
    let (bad, good) =
        tokio::join!(collect(&node, chat("tiny-chat", "abeyond", 4)), collect(&node, chat("tiny-chat", "a", 4)));
    let bad = bad.unwrap_err();
    assert_eq!(bad.kind, InferenceErrorKind::InvalidRequest, "{bad}");
    assert!(bad.message.contains("token 256"), "{bad}");
    good.unwrap();
    let (bad, good) =
        tokio::join!(node.embed(embed("tiny-bert", &["a", "bbeyond"])), node.embed(embed("tiny-bert", &["a"])));
    assert_eq!(bad.unwrap_err().kind, InferenceErrorKind::InvalidRequest);
    good.unwrap();
}

#[tokio::test]
async fn two_models_take_turns_in_memory_for_one() {
    let models = Models::new(&["tiny-chat", "tiny-qwen3"]);
    let capacity = 700_000;
    let node = start_with(&models, |config| config.capacity_bytes = capacity);
    for round in 0..3 {
        for name in ["tiny-chat", "tiny-qwen3"] {
            // Among others what the KV cache of the other one holds has to go.
            collect(&node, sampled(name, round, 6)).await.unwrap();
            let usage = node.usage();
            assert!(usage.weights + usage.reserved <= capacity, "{usage:?}");
            assert!(usage.weights < 500_000, "one at a time: {usage:?}");
        }
    }
    // Both wanted at once: one waits for the other, neither fails.
    let both = ["tiny-chat", "tiny-qwen3", "tiny-chat", "tiny-qwen3"].map(|name| collect(&node, sampled(name, 1, 6)));
    for answer in futures::future::join_all(both).await {
        answer.unwrap();
    }
}

#[tokio::test]
async fn what_can_never_fit_is_refused_with_the_numbers() {
    let models = Models::new(&["tiny-chat"]);
    let node = start_with(&models, |config| config.capacity_bytes = 100_000);
    let error = collect(&node, chat("tiny-chat", "hi", 1)).await.unwrap_err();
    assert_eq!(error.kind, InferenceErrorKind::Failed);
    assert!(error.message.starts_with("PV-GPU-MEMORY"), "{error}");
    let refused = RefusedFor::ALL.into_iter().zip(node.counts().refused).find(|(_, count)| *count > 0);
    assert_eq!(refused, Some((RefusedFor::TooLarge, 1)));
    assert!(error.message.contains("the device has 100000"), "{error}");
    // The weights fit but the cache of a long answer beside them does not.
    let node = start_with(&models, |config| config.capacity_bytes = 900_000);
    let error = collect(&node, chat("tiny-chat", "hi", 4000)).await.unwrap_err();
    assert!(error.message.starts_with("PV-GPU-MEMORY"), "{error}");
    collect(&node, chat("tiny-chat", "hi", 10)).await.unwrap();
}

#[tokio::test]
async fn a_conversation_that_goes_on_is_not_read_again() {
    let models = Models::new(&["tiny-chat"]);
    let node = start(&models);
    let question = "a question with a long and winding beginning, ".repeat(20);
    let first = collect(&node, chat("tiny-chat", &question, 8)).await.unwrap();
    let kept = node.kv_usage();
    assert_eq!(kept.held, 0, "whoever hears of the end finds the blocks free");
    assert!(kept.idle > 0);
    let again = collect(&node, chat("tiny-chat", &question, 8)).await.unwrap();
    assert_eq!(first, again);
    assert!(node.kv_usage().idle < kept.idle * 3 / 2, "it used the blocks that it found: {:?}", node.kv_usage());
    let stranger = ChatRequest { tenant: "other".to_owned(), ..chat("tiny-chat", &question, 8) };
    assert_eq!(collect(&node, stranger).await.unwrap(), first);
    assert!(node.kv_usage().idle > kept.idle * 3 / 2, "another tenant shares nothing: {:?}", node.kv_usage());
}

#[tokio::test]
async fn many_streams_and_cancellations_leak_nothing() {
    let models = Models::new(&["tiny-chat"]);
    let node = start(&models);
    let node = &node;
    let requests = (0..64u64).map(|seed| async move {
        let asked = ChatRequest { tenant: format!("t{}", seed % 5), ..sampled("tiny-chat", seed, 30) };
        let mut stream = node.chat(asked).await.unwrap();
        let mut events = 0;
        while let Some(event) = stream.next().await {
            event.unwrap();
            events += 1;
            if seed % 3 == 0 && events == 1 + seed % 7 {
                break;
            }
        }
        events
    });
    let events = futures::future::join_all(requests).await;
    assert!(events.iter().all(|events| *events > 0));
    until("all blocks are free", || node.kv_usage().held == 0).await;
    assert_eq!(node.usage().reserved, node.kv_usage().capacity, "only the empty cache is booked");
}

#[tokio::test]
async fn a_seed_says_the_same_whatever_runs_beside_it() {
    let models = Models::new(&["tiny-chat"]);
    let node = start(&models);
    let alone = collect(&node, sampled("tiny-chat", 3, 40)).await.unwrap();
    let mut others = Vec::new();
    for seed in 0..8 {
        others.push(node.chat(sampled("tiny-chat", 100 + seed, 400)).await.unwrap());
    }
    assert_eq!(collect(&node, sampled("tiny-chat", 3, 40)).await.unwrap(), alone);
}

#[tokio::test]
async fn likelihoods_come_with_their_text() {
    let models = Models::new(&["tiny-chat"]);
    let node = start(&models);
    let asked = ChatRequest { logprobs: Some(2), ..sampled("tiny-chat", 3, 20) };
    let mut stream = node.chat(asked).await.unwrap();
    let (mut text, mut tokens) = (String::new(), Vec::new());
    while let Some(event) = stream.next().await {
        match event.unwrap() {
            ChatEvent::Delta(delta) => text.push_str(&delta),
            ChatEvent::Tokens(more) => tokens.extend(more),
            ChatEvent::Silent | ChatEvent::Calls(_) | ChatEvent::End { .. } => {}
        }
    }
    let bytes: Vec<u8> = tokens.iter().flat_map(|token| token.chosen.bytes.clone()).collect();
    assert_eq!(String::from_utf8_lossy(&bytes), text);
    assert!(tokens.iter().all(|token| token.top.len() == 2 && token.chosen.logprob <= 0.0));
}

#[tokio::test]
async fn calls_come_in_pieces_before_the_end() {
    let models = Models::new(&["tiny-chat"]);
    let node = start(&models);
    let parameters = serde_json::json!({
        "type": "object", "properties": { "n": { "enum": [1, 2, 3] } }, "required": ["n"], "additionalProperties": false,
    });
    let parameters = parameters.as_object().cloned();
    let function = FunctionTool { name: "count".to_owned(), description: None, parameters, strict: false };
    let tools = ChatTools { functions: vec![function], choice: ToolChoice::Required, parallel: false };
    let asked = ChatRequest { tools: Some(tools), ..sampled("tiny-chat", 3, 200) };
    let mut stream = node.chat(asked).await.unwrap();
    let (mut names, mut arguments, mut pieces, mut silent, mut end) = (Vec::new(), String::new(), 0, 0, None);
    while let Some(event) = stream.next().await {
        assert!(end.is_none(), "nothing follows the end");
        match event.unwrap() {
            ChatEvent::Calls(deltas) => {
                pieces += 1;
                for delta in deltas {
                    names.extend(delta.head.map(|head| head.name));
                    arguments.push_str(&delta.arguments);
                }
            }
            ChatEvent::Silent => silent += 1,
            ChatEvent::End { reason, usage } => end = Some((reason, usage.completion)),
            other => panic!("{other:?}"),
        }
    }
    let (reason, completion) = end.unwrap();
    assert_eq!((names, reason), (vec!["count".to_owned()], FinishReason::ToolCalls));
    // Before the first piece there is the head, and the last token comes with the end.
    assert!(silent > 10 && silent + pieces + 1 >= completion, "{silent}, {pieces} of {completion}");
    let value: serde_json::Value = serde_json::from_str(&arguments).unwrap();
    assert!((1..=3).contains(&value["n"].as_i64().unwrap()), "{arguments}");
    assert!(pieces > 3, "each token of the arguments is told");
    until("the cache is given back", || node.kv_usage().held == 0).await;
}

/// One tenant floods a node that runs one answer at a time; another one asks last, for the same model or for another.
#[tokio::test]
async fn a_tenant_that_asks_much_does_not_hold_up_another() {
    for model in ["tiny-chat", "tiny-qwen3"] {
        let models = Models::new(&["tiny-chat", "tiny-qwen3"]);
        let node = start_with(&models, |config| config.active_chats = 1);
        collect(&node, chat("tiny-qwen3", "hello", 1)).await.unwrap();
        let ended = std::sync::Mutex::new(Vec::new());
        let ask = |tenant: &'static str, model: &'static str, tokens: u32| {
            let (node, ended) = (&node, &ended);
            async move {
                let asked = ChatRequest { tenant: tenant.to_owned(), ..chat(model, "hello", tokens) };
                collect(node, asked).await.unwrap();
                ended.lock().unwrap().push(tenant);
            }
        };
        let flood = futures::future::join_all((0..16).map(|_| ask("flood", "tiny-chat", 300)));
        let late = async {
            until("the flood is under way", || !ended.lock().unwrap().is_empty()).await;
            ask("late", model, 10).await;
        };
        futures::join!(flood, late);
        let ended = ended.into_inner().unwrap();
        let place = ended.iter().position(|tenant| *tenant == "late").unwrap();
        assert!(place < 8, "the late one was {place} in {ended:?}");
    }
}

#[tokio::test]
async fn two_names_of_the_same_content_hold_one_copy() {
    let models = Models::new(&["tiny-chat"]);
    models.copy("tiny-chat", "twin");
    let node = start(&models);
    let first = collect(&node, chat("tiny-chat", "hi", 8)).await.unwrap();
    let once = node.usage().weights;
    let second = collect(&node, chat("twin", "hi", 8)).await.unwrap();
    assert_eq!(first, second);
    assert_eq!(node.usage().weights, once);
}

#[tokio::test]
async fn models_that_appear_change_or_leave_are_noticed() {
    let models = Models::new(&["tiny-chat"]);
    let node = start(&models);
    collect(&node, chat("tiny-chat", "hi", 2)).await.unwrap();
    models.add("tiny-bert");
    until("the new model is listed", || node.models().len() == 2).await;
    node.embed(embed("tiny-bert", &["hello"])).await.unwrap();

    // The template changes: the model is read again, its weights are the same ones.
    let before = node.usage().weights;
    let path = models.path().join("tiny-chat/chat_template.jinja");
    std::fs::write(path, "{{ raise_exception('closed for today') }}").unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    let error = loop {
        match collect(&node, chat("tiny-chat", "hi", 2)).await {
            Err(error) => break error,
            Ok(_) => assert!(Instant::now() < deadline, "the change is never noticed"),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    assert!(error.message.contains("closed for today"), "{error}");
    assert_eq!(node.usage().weights, before);

    std::fs::remove_dir_all(models.path().join("tiny-bert")).unwrap();
    until("the model is gone", || node.models().len() == 1).await;
}

#[tokio::test]
async fn without_a_directory_there_are_no_models() {
    let node = GpuNode::start(GpuConfig::default()).unwrap();
    assert!(node.models().is_empty());
    let missing = GpuConfig { models_dir: Some("/nonexistent/models".into()), ..GpuConfig::default() };
    assert!(GpuNode::start(missing).unwrap().models().is_empty());
}

#[tokio::test]
async fn dropping_the_node_ends_what_runs() {
    let models = Models::new(&["tiny-chat"]);
    let node = start(&models);
    let mut stream = node.chat(endless("tiny-chat")).await.unwrap();
    stream.next().await.unwrap().unwrap();
    drop(node);
    let mut last = None;
    while let Some(event) = stream.next().await {
        last = Some(event);
    }
    assert_eq!(last.unwrap().unwrap_err().kind, InferenceErrorKind::Busy);
}

/// A chat that goes on for long: greedy, and this model's most likely token is never its end.
fn endless(model: &str) -> ChatRequest {
    chat(model, "go on", 4000)
}
