//! Who is asked, and what callers are told when nobody can be.

use super::*;

#[tokio::test]
async fn who_holds_the_weights_is_asked() {
    let (a, b, nodes) = two().await;
    for _ in 0..3 {
        assert_eq!(collect(&nodes).await, hi());
    }
    assert_eq!((a.asked(), b.asked()), (3, 0));
    assert_eq!(counts(&nodes, "a").answered, 3);
    assert_eq!(nodes.models().len(), 1, "a model that two nodes have is listed once");
}

#[tokio::test]
async fn refusals_of_nodes_become_that_of_the_one_with_a_place_soonest() {
    let (a, b, nodes) = two().await;
    let busy = InferenceErrorKind::Busy;
    a.chats.lock().push_back(vec![refused(busy, Some(3_000))]);
    b.chats.lock().push_back(vec![refused(busy, Some(5_000))]);
    let error = collect(&nodes).await.remove(0).unwrap_err();
    assert_eq!((error.kind, error.retry_after_ms), (busy, Some(3_000)));
    assert_eq!((a.asked(), b.asked()), (1, 1));
    assert_eq!((counts(&nodes, "a").refused, nodes.counts().tried_again), (1, 0));
    // What is wrong with the request is wrong everywhere.
    a.chats.lock().push_back(vec![refused(InferenceErrorKind::InvalidRequest, None)]);
    let error = collect(&nodes).await.remove(0).unwrap_err();
    assert_eq!(error.kind, InferenceErrorKind::InvalidRequest);
    assert_eq!((a.asked(), b.asked()), (2, 1));
}

#[tokio::test]
async fn full_nodes_are_not_asked_and_their_reports_say_when_to_come_again() {
    let full = |ms| GpuReport { waiting: 64, running: 16, retry_after_ms: ms, ..report(ModelState::Resident) };
    let (a, at_a) = start("a", full(9_000)).await;
    let (b, at_b) = start("b", full(4_000)).await;
    let nodes = GpuNodes::new("dp-1", None);
    nodes.set(vec![at_a, at_b]);
    tokio::time::timeout(SOON, nodes.settled()).await.unwrap();
    let error = collect(&nodes).await.remove(0).unwrap_err();
    assert_eq!((error.kind, error.retry_after_ms), (InferenceErrorKind::Busy, Some(4_000)));
    assert_eq!((a.asked(), b.asked(), nodes.counts().full), (0, 0, 1));
}

#[tokio::test]
async fn a_model_that_cannot_be_asked_just_now_is_not_unknown() {
    let (a, at_a) = start("a", GpuReport { draining: true, ..report(ModelState::Resident) }).await;
    let nodes = GpuNodes::new("dp-1", None);
    nodes.set(vec![at_a]);
    tokio::time::timeout(SOON, nodes.settled()).await.unwrap();
    let error = collect(&nodes).await.remove(0).unwrap_err();
    assert!(error.message.starts_with("PV-GPU-UNREACHED") && error.retry_after_ms.is_some(), "{error}");
    assert_eq!((a.asked(), nodes.models().len(), nodes.counts().unreached), (0, 1, 1));
    let error = nodes.chat(ask("other")).await.err().unwrap();
    assert_eq!(error.kind, InferenceErrorKind::ModelNotFound);
}

#[tokio::test]
async fn who_lets_go_of_an_answer_has_cancelled_it_there() {
    let (a, _b, nodes) = two().await;
    a.hangs.store(true, SeqCst);
    let events = nodes.chat(ask("m")).await.unwrap();
    assert!(!a.was_left.load(SeqCst));
    drop(events);
    assert!(nodes.0.seats().iter().all(|seat| seat.sent() == 0), "what has ended takes no place");
    let left = async {
        while !a.was_left.load(SeqCst) {
            tokio::time::sleep(SETTLE_LOOK).await;
        }
    };
    tokio::time::timeout(SOON, left).await.expect("the node hears of it");
}

/// The node of this process.
struct Here;

impl Inference for Here {
    fn models(&self) -> Vec<ModelInfo> {
        report(ModelState::Resident).models.into_iter().map(|model| model.info).collect()
    }

    fn is_seen_by(&self, model: &str, tenant: &str) -> bool {
        (model, tenant) != ("m", "umbra")
    }

    fn embed(&self, _: EmbedRequest) -> BoxFuture<'_, Result<EmbedResponse, InferenceError>> {
        Box::pin(async { Ok(EmbedResponse { vectors: vec![], usage: TokenUsage::default() }) })
    }

    fn chat(
        &self,
        _: ChatRequest,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Result<ChatEvent, InferenceError>>, InferenceError>> {
        Box::pin(async {
            let events: BoxStream<'static, _> = Box::pin(stream::iter(hi()));
            Ok(events)
        })
    }

    fn report(&self) -> Option<GpuReport> {
        Some(report(ModelState::Resident))
    }
}

#[tokio::test]
async fn the_node_of_this_process_is_one_of_them() {
    let (b, at_b) = start("b", report(ModelState::OnDisk)).await;
    // Its own entry in the member list is not another node.
    let (own, at_own) = start("dp-1", report(ModelState::Resident)).await;
    let nodes = GpuNodes::new("dp-1", Some(Arc::new(Here)));
    nodes.set(vec![at_b, at_own]);
    tokio::time::timeout(SOON, nodes.settled()).await.unwrap();
    assert_eq!(collect(&nodes).await, hi());
    assert_eq!((own.asked(), b.asked(), counts(&nodes, "dp-1").answered), (0, 0, 1));
    // What is not there for a tenant here is not there for it on the nodes of others.
    assert_eq!((nodes.models_of("acme").len(), nodes.models_of("umbra").len()), (1, 0));
}

#[tokio::test]
async fn what_a_model_of_another_node_is_an_adapter_over_is_known() {
    let of_base = GpuReport { bases: [("m".to_owned(), "base".to_owned())].into(), ..report(ModelState::OnDisk) };
    let (_a, at_a) = start("a", of_base).await;
    let nodes = GpuNodes::new("dp-1", None);
    nodes.set(vec![at_a]);
    tokio::time::timeout(SOON, nodes.settled()).await.unwrap();
    assert_eq!((nodes.base_of("m").as_deref(), nodes.base_of("base")), (Some("base"), None));
}

#[tokio::test]
async fn what_another_node_has_for_some_tenants_is_not_there_for_others() {
    let of_umbra =
        GpuReport { tenants: [("m".to_owned(), ["umbra".to_owned()].into())].into(), ..report(ModelState::OnDisk) };
    let (a, at_a) = start("a", GpuReport { draining: true, ..of_umbra }).await;
    let nodes = GpuNodes::new("dp-1", None);
    nodes.set(vec![at_a]);
    tokio::time::timeout(SOON, nodes.settled()).await.unwrap();
    assert_eq!((nodes.models_of("acme").len(), nodes.models_of("umbra").len()), (0, 1));
    // That its node takes nothing new would tell that there is one.
    let hidden = nodes.chat(ask("m")).await.err().unwrap();
    let whole = nodes.chat_whole(ask("m")).await.err().unwrap();
    let request = EmbedRequest { tenant: "acme".to_owned(), model: "m".to_owned(), inputs: vec!["x".to_owned()] };
    let embedded = nodes.embed(request).await.unwrap_err();
    let absent = nodes.chat(ask("other")).await.err().unwrap();
    for told in [&hidden, &whole, &embedded] {
        assert_eq!((told.kind, told.message.replace("`m`", "`other`")), (absent.kind, absent.message.clone()));
    }
    assert_eq!(a.asked(), 0);
}
