//! Models that a state declares, and orders about them.

use std::sync::Arc;

use futures::StreamExt;
use provost_gpu_serve::{AdapterModel, GpuNode, ModelOrder, ModelStanding, ModelState, ModelStore, Removal};
use provost_types::{
    ChatEvent, ChatRequest, Inference, InferenceErrorKind, Metadata, Name, Resource, Revision, Snapshot,
};

use crate::adapters::write_adapter;
use crate::common::{Models, chat, collect, until};
use crate::{endless, start, start_with};

/// A state with these models, each with a spec in JSON.
pub fn state(models: &[(&str, String)]) -> Snapshot {
    let mut state = Snapshot::default();
    for (name, spec) in models {
        let metadata = Metadata { name: Name::new(name).unwrap(), tenant: None, labels: Default::default() };
        let spec = serde_json::from_str(&format!(r#"{{"Model":{spec}}}"#)).unwrap();
        let model = Resource { metadata, spec, created: Revision(1), modified: Revision(1) };
        state.resources.insert(model.key(), Arc::new(model));
    }
    state
}

fn at(models: &Models, name: &str, more: &str) -> String {
    let path = serde_json::to_string(&models.path().join(name)).unwrap();
    format!(r#"{{"source":{{"path":{path}}}{more}}}"#)
}

/// A request that runs for a while, and ends.
fn long(model: &str) -> ChatRequest {
    ChatRequest { max_tokens: 400, ..endless(model) }
}

pub async fn standing(node: &GpuNode, name: &str) -> ModelStanding {
    let all = node.standings().await;
    all.into_iter().find(|standing| standing.name == name).unwrap_or_else(|| panic!("no model {name}"))
}

/// Waits until a model stands so.
pub async fn stands(node: &GpuNode, name: &str, state: ModelState) {
    for _ in 0..3_000 {
        if standing(node, name).await.state == state {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("{:?} is not {state:?}", standing(node, name).await);
}

#[tokio::test]
async fn what_runs_goes_on_when_its_model_is_declared_no_more() {
    let (models, empty) = (Models::new(&["tiny-chat"]), Models::new(&[]));
    let node = start(&empty);
    node.declare(&state(&[("m", at(&models, "tiny-chat", ""))]));
    let mut stream = node.chat(long("m")).await.unwrap();
    let mut events = vec![stream.next().await.unwrap().unwrap()];
    assert_eq!(standing(&node, "m").await.leases, 1);
    node.declare(&state(&[]));
    assert!(node.models().is_empty());
    let refused = collect(&node, chat("m", "hello", 4)).await.unwrap_err();
    assert_eq!(refused.kind, InferenceErrorKind::ModelNotFound, "{refused}");
    while let Some(event) = stream.next().await {
        events.push(event.unwrap());
    }
    assert!(matches!(events.last(), Some(ChatEvent::End { .. })));
    until("its weights have gone", || node.usage().weights == 0).await;
}

#[tokio::test]
async fn orders_are_followed_and_refused() {
    let models = Models::new(&["tiny-chat"]);
    let node = start(&models);
    let order = |order| node.order("tiny-chat", order);
    assert_eq!(order(ModelOrder::Load).await.unwrap().state, ModelState::Ready);
    let mut stream = node.chat(long("tiny-chat")).await.unwrap();
    stream.next().await.unwrap().unwrap();
    let refused = order(ModelOrder::Unload { drain: false }).await.unwrap_err().to_string();
    assert!(refused.starts_with("PV-MODEL-IN-USE") && refused.contains("1 request uses"), "{refused}");
    // Those who use it come to their end.
    let (unloaded, events) = tokio::join!(order(ModelOrder::Unload { drain: true }), stream.collect::<Vec<_>>());
    assert_eq!(unloaded.unwrap().state, ModelState::Absent);
    assert!(matches!(events.last(), Some(Ok(ChatEvent::End { .. }))));
    // Whoever asks for it has it loaded again.
    collect(&node, chat("tiny-chat", "hello", 4)).await.unwrap();
    stands(&node, "tiny-chat", ModelState::Ready).await;
    assert!(order(ModelOrder::Pin).await.unwrap().pinned);
    let refused = order(ModelOrder::Unload { drain: true }).await.unwrap_err().to_string();
    assert!(refused.starts_with("PV-MODEL-PINNED"), "{refused}");
    assert!(!order(ModelOrder::Unpin).await.unwrap().pinned);
    assert_eq!(order(ModelOrder::Unload { drain: false }).await.unwrap().state, ModelState::Absent);
    assert_eq!(order(ModelOrder::Unload { drain: false }).await.unwrap().state, ModelState::Absent, "it is already");
    let refused = node.order("other", ModelOrder::Load).await.unwrap_err().to_string();
    assert!(refused.starts_with("PV-MODEL-NOT-FOUND"), "{refused}");
}

#[tokio::test]
async fn what_is_pinned_stays_while_others_come_and_go() {
    let models = Models::new(&["a"]);
    models.variant("tiny-chat", "b");
    models.variant("tiny-chat", "c");
    // Two of them with what their requests need; three do not fit, even alone.
    let node = start_with(&models, |config| {
        config.capacity_bytes = 1_250_000;
        config.residency_loads = 0;
    });
    node.declare(&state(&[("a", at(&models, "a", r#","pinned":true"#))]));
    stands(&node, "a", ModelState::Ready).await;
    for model in ["b", "c", "b", "c"] {
        collect(&node, chat(model, "hello", 2)).await.unwrap();
        assert_eq!(standing(&node, "a").await.state, ModelState::Ready);
    }
    assert_eq!(node.counts().reloads, 2, "the others made room for each other");
    // Some memory is left for others.
    assert_eq!(node.order("b", ModelOrder::Pin).await.unwrap().state, ModelState::Ready);
    let refused = node.order("c", ModelOrder::Pin).await.unwrap_err().to_string();
    assert!(refused.starts_with("PV-MODEL-PINNED") && refused.contains("`c`"), "{refused}");
    assert!(!standing(&node, "c").await.pinned);
    node.declare(&state(&[("a", at(&models, "a", ""))]));
    assert!(!standing(&node, "a").await.pinned);
}

#[tokio::test]
async fn a_stored_model_that_was_changed_is_not_loaded() {
    let (models, data) = (Models::new(&["tiny-chat"]), tempfile::tempdir().unwrap());
    let store = ModelStore::of_data_dir(data.path());
    let from = models.path().join("tiny-chat");
    let digest = store.import(&from, "tiny").unwrap().manifest.digest;
    let node = start_with(&Models::new(&[]), |config| config.store_dir = Some(ModelStore::root_of(data.path())));
    node.declare(&state(&[("m", format!(r#"{{"source":{{"blob":"{digest}"}}}}"#))]));
    assert_eq!(node.order("m", ModelOrder::Load).await.unwrap().digest, Some(digest));
    node.order("m", ModelOrder::Unload { drain: false }).await.unwrap();
    let file = store.place_of(digest).join("tokenizer.json");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{text} ")).unwrap();
    let refused = node.order("m", ModelOrder::Load).await.unwrap_err().to_string();
    assert!(refused.starts_with("PV-MODEL-DIGEST") && refused.contains("tokenizer.json"), "{refused}");
    let failed = collect(&node, chat("m", "hello", 2)).await.unwrap_err();
    assert!(failed.message.starts_with("PV-MODEL-DIGEST"), "{failed}");
    let found = standing(&node, "m").await;
    assert_eq!(found.state, ModelState::Failed, "{found:?}");
    assert!(found.reason.starts_with("PV-MODEL-DIGEST"), "{found:?}");
    assert!(!store.import(&from, "tiny").unwrap().was_there);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while let Err(refused) = node.order("m", ModelOrder::Load).await {
        assert!(std::time::Instant::now() < deadline, "{refused}");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    collect(&node, chat("m", "hello", 2)).await.unwrap();
}

#[tokio::test]
async fn files_stay_while_a_request_uses_them_whose_model_is_declared_no_more() {
    let (models, data) = (Models::new(&["tiny-chat"]), tempfile::tempdir().unwrap());
    let store = ModelStore::of_data_dir(data.path());
    let digest = store.import(&models.path().join("tiny-chat"), "tiny").unwrap().manifest.digest;
    let node = start_with(&Models::new(&[]), |config| config.store_dir = Some(ModelStore::root_of(data.path())));
    let remove = || node.remove_stored(Removal::Of("tiny".to_owned()), false);
    let refused = remove().await.unwrap_err().to_string();
    assert!(refused.starts_with("PV-MODEL-STORE-BUSY"), "nobody said what is declared: {refused}");
    node.declare(&state(&[("m", format!(r#"{{"source":{{"blob":"{digest}"}}}}"#))]));
    let refused = remove().await.unwrap_err().to_string();
    assert!(refused.starts_with("PV-MODEL-IN-USE") && refused.contains("`m`"), "{refused}");
    let mut stream = node.chat(endless("m")).await.unwrap();
    stream.next().await.unwrap().unwrap();
    node.declare(&state(&[]));
    let refused = remove().await.unwrap_err().to_string();
    assert!(refused.starts_with("PV-MODEL-IN-USE") && refused.contains("requests"), "{refused}");
    let kept = node.remove_stored(Removal::Unused, false).await.unwrap();
    assert!(kept.len() == 1 && kept[0].in_use && !kept[0].removed, "{kept:?}");
    drop(stream);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while let Err(refused) = remove().await {
        assert!(std::time::Instant::now() < deadline, "{refused}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(store.list().unwrap().is_empty());
}

#[tokio::test]
async fn tenants_and_context_are_as_declared() {
    let models = Models::new(&["tiny-chat"]);
    let node = start(&Models::new(&[]));
    node.declare(&state(&[("m", at(&models, "tiny-chat", r#","tenants":["umbra"],"contextTokens":64"#))]));
    assert!(node.models_of("acme").is_empty());
    assert_eq!(node.models_of("umbra").first().map(|model| model.context_tokens), Some(64));
    let refused = collect(&node, chat("m", "hello", 4)).await.unwrap_err();
    assert_eq!(refused.kind, InferenceErrorKind::ModelNotFound, "{refused}");
    let mut request = chat("m", "hello", 4_000);
    request.tenant = "umbra".to_owned();
    let (_, usage) = collect(&node, request.clone()).await.unwrap();
    assert!(usage.prompt + usage.completion <= 64, "{usage:?}");
    request.messages = vec![provost_types::ChatMessage::new("user", "long ".repeat(40))];
    let refused = collect(&node, request).await.unwrap_err();
    assert_eq!(refused.kind, InferenceErrorKind::InvalidRequest, "{refused}");
}

#[tokio::test]
async fn an_adapter_over_a_declared_model_is_there_for_the_same_tenants() {
    let (models, adapters) = (Models::new(&["tiny-chat"]), tempfile::tempdir().unwrap());
    write_adapter(&adapters.path().join("one"), 1, 2.0);
    let one = AdapterModel { base: "m".to_owned(), path: adapters.path().join("one") };
    let node = start_with(&Models::new(&[]), |config| config.adapters = [("one".to_owned(), one)].into());
    let seen_by = |tenant: &str| -> Vec<(String, u32)> {
        let seen = node.models_of(tenant).into_iter();
        seen.map(|model| (model.name, model.context_tokens)).collect()
    };
    assert!(seen_by("umbra").is_empty(), "there is no base");
    node.declare(&state(&[("m", at(&models, "tiny-chat", r#","tenants":["umbra"],"contextTokens":64"#))]));
    assert_eq!(seen_by("umbra"), [("m".to_owned(), 64), ("one".to_owned(), 64)]);
    assert!(seen_by("acme").is_empty());
    // Data planes, which know of no adapter, are told so.
    let told = node.report().unwrap().tenants;
    assert_eq!(told.keys().collect::<Vec<_>>(), ["m", "one"]);
    assert!(told.values().all(|tenants| tenants.iter().eq(["umbra"])), "{told:?}");
    // And what it is over: that says what it costs.
    let bases: Vec<(String, String)> = node.report().unwrap().bases.into_iter().collect();
    assert_eq!(bases, [("one".to_owned(), "m".to_owned())]);
    assert_eq!((node.base_of("one").as_deref(), node.base_of("m")), (Some("m"), None));
    let refused = collect(&node, chat("one", "hello", 4)).await.unwrap_err();
    assert_eq!(refused.kind, InferenceErrorKind::ModelNotFound, "{refused}");
    let mut request = chat("one", "hello", 4_000);
    request.tenant = "umbra".to_owned();
    let (_, usage) = collect(&node, request).await.unwrap();
    assert!(usage.prompt + usage.completion <= 64, "{usage:?}");
    // A model that is declared with the name of an adapter is served in its place.
    node.declare(&state(&[("one", at(&models, "tiny-chat", ""))]));
    assert!(standing(&node, "one").await.declared);
    assert_eq!((node.base_of("one"), node.report().unwrap().bases.len()), (None, 0));
    collect(&node, chat("one", "hello", 4)).await.unwrap();
}
