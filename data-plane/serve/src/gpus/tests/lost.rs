//! Nodes that are lost, and that fail.

use provost_types::Sound;

use super::*;

#[tokio::test]
async fn a_node_that_is_lost_before_it_told_anything_is_replaced_once() {
    let silent = || Ok(form::event_to_wire(Ok(ChatEvent::Silent)));
    for lost in [vec![gone()], vec![begun(), gone()], vec![begun(), silent(), gone()], vec![begun()], vec![]] {
        let (a, b, nodes) = two().await;
        let has_silent = lost.len() == 3;
        a.chats.lock().push_back(lost);
        let mut expect = hi();
        if has_silent {
            expect.insert(0, Ok(ChatEvent::Silent));
        }
        assert_eq!(again::counted(collect(&nodes)).await, (expect, 1));
        assert_eq!((a.asked(), b.asked()), (1, 1));
        assert_eq!(nodes.counts().tried_again, 1);
        assert_eq!((counts(&nodes, "a").lost, counts(&nodes, "b").answered), (1, 1));
        // Each call counts its own.
        assert_eq!(again::counted(collect(&nodes)).await, (hi(), 0));
    }
}

#[tokio::test]
async fn a_node_that_failed_is_set_aside_until_it_answers() {
    let (_a, _b, nodes) = two().await;
    let wanted = Wanted::of_chat(&ask("m"));
    let pick = || nodes.0.pick("m", wanted, &[]).ok().map(|seat| seat.name().to_owned());
    assert_eq!(pick().as_deref(), Some("a"));
    nodes.0.seats()[0].failed();
    assert_eq!(pick().as_deref(), Some("b"));
    nodes.0.seats()[0].succeeded();
    assert_eq!(pick().as_deref(), Some("a"));
}

#[tokio::test]
async fn a_node_that_is_lost_in_the_middle_ends_the_answer() {
    let (a, b, nodes) = two().await;
    a.chats.lock().push_back(vec![begun(), said("h"), gone()]);
    let told = collect(&nodes).await;
    assert_eq!(told[0], Ok(ChatEvent::Delta("h".to_owned())));
    let error = told[1].clone().unwrap_err();
    assert!(error.message.starts_with("PV-GPU-LOST"), "{error}");
    assert_eq!((told.len(), error.kind), (2, InferenceErrorKind::Failed));
    assert_eq!((b.asked(), nodes.counts().tried_again), (0, 0));
}

#[tokio::test]
async fn an_answer_that_is_shown_at_its_end_is_made_anew() {
    let (a, b, nodes) = two().await;
    a.chats.lock().push_back(vec![begun(), said("h"), said("ello"), gone()]);
    let told: Vec<_> = nodes.chat_whole(ask("m")).await.unwrap().collect().await;
    let silent = || Ok(ChatEvent::Silent);
    // Each token that was made is told as such, the text once.
    assert_eq!(told[..3], [silent(), silent(), silent()]);
    assert_eq!(told[3..], hi());
    assert_eq!((a.asked(), b.asked(), nodes.counts().tried_again), (1, 1, 1));
}

#[tokio::test]
async fn a_request_is_lost_at_two_nodes_and_no_more() {
    let (a, b, nodes) = two().await;
    let (c, at_c) = start("c", report(ModelState::OnDisk)).await;
    let (d, at_d) = start("d", report(ModelState::OnDisk)).await;
    let channel = |address: &str| Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy();
    let known: Vec<(String, String)> = nodes.0.peers.load().iter().map(|w| w.peer.place()).collect();
    let known = known.into_iter().map(|(name, address)| GpuAddress { channel: channel(&address), name, address });
    nodes.set(known.chain([at_c, at_d]).collect());
    tokio::time::timeout(SOON, nodes.settled()).await.unwrap();
    for fake in [&a, &b, &c, &d] {
        fake.chats.lock().push_back(vec![begun(), gone()]);
    }
    let told = collect(&nodes).await;
    assert!(told[0].clone().unwrap_err().message.starts_with("PV-GPU-LOST"), "{told:?}");
    assert_eq!(a.asked(), 1, "it holds the weights");
    assert_eq!(b.asked() + c.asked() + d.asked(), 1);
}

#[tokio::test]
async fn a_node_that_cannot_read_the_request_is_not_lost() {
    let (a, b, nodes) = two().await;
    a.chats.lock().push_back(vec![Err(Status::invalid_argument("PV-GPU-MESSAGE: what is `x`?"))]);
    assert_eq!(collect(&nodes).await, hi());
    assert_eq!((a.asked(), b.asked()), (1, 1));
    let counts = counts(&nodes, "a");
    assert_eq!((counts.failed, counts.lost), (1, 0));
}

#[tokio::test]
async fn texts_are_embedded_elsewhere_if_a_node_is_lost() {
    let (a, b, nodes) = two().await;
    a.embeds.lock().push_back(Err(Status::unavailable("gone")));
    let request = EmbedRequest { tenant: "acme".to_owned(), model: "m".to_owned(), inputs: vec!["x".to_owned()] };
    let answer = nodes.embed(request).await.unwrap();
    assert_eq!(answer.vectors, [[1.0]]);
    assert_eq!((a.asked(), b.asked(), nodes.counts().tried_again), (1, 1, 1));
}

#[tokio::test]
async fn a_recording_is_written_down_elsewhere_if_a_node_is_lost() {
    let (a, b, nodes) = two().await;
    a.speeches.lock().push_back(Err(Status::unavailable("gone")));
    let request = TranscribeRequest {
        tenant: "acme".to_owned(),
        model: "m".to_owned(),
        sound: Sound::new(vec![7; 12]),
        language: None,
        prompt: String::new(),
        temperature: 0.0,
        timestamps: false,
    };
    let transcript = nodes.transcribe(request.clone()).await.unwrap();
    assert_eq!(transcript.text, "12 bytes of acme");
    assert_eq!((a.asked(), b.asked(), nodes.counts().tried_again), (1, 1, 1));
    let unknown = nodes.transcribe(TranscribeRequest { model: "other".to_owned(), ..request }).await.unwrap_err();
    assert_eq!(unknown.kind, InferenceErrorKind::ModelNotFound);
}

#[tokio::test]
async fn a_message_that_is_too_large_is_no_loss_of_the_node() {
    let (a, b, nodes) = two().await;
    a.chats.lock().push_back(vec![Err(Status::out_of_range("encoded message length too large"))]);
    let error = collect(&nodes).await.remove(0).unwrap_err();
    assert_eq!(error.kind, InferenceErrorKind::InvalidRequest);
    assert!(error.message.starts_with("PV-GPU-MESSAGE"), "{error}");
    assert_eq!((a.asked(), b.asked(), counts(&nodes, "a").lost), (1, 0, 0));
    assert_eq!(collect(&nodes).await, hi());
    assert_eq!(a.asked(), 2, "it is not set aside");
}
