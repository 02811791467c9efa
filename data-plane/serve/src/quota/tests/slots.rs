//! Calls at once: slots, and units that many want at the same time.

use super::*;

async fn reserve(quotas: &Quotas, index: &QuotaIndex) -> Result<Reservation, Rejection> {
    let (tenant, principal) = (name("acme"), name("ann"));
    let call = QuotaCall {
        tenant: &tenant,
        principal: &principal,
        tool: Some("echo.echo"),
        model: None,
        workflow: "",
        tokens: 0,
        cost_micro: 0,
    };
    quotas.reserve(index, &call).await
}

#[tokio::test]
async fn slots_are_free_again_when_calls_end() {
    let quotas = Quotas::start(Arc::new(Port::with(2)), "dp-1", 1);
    let index = QuotaIndex::compile(&snapshot(&[("slots", quota(QuotaUnit::Concurrent, 2))]));
    let first = reserve(&quotas, &index).await.unwrap();
    let second = reserve(&quotas, &index).await.unwrap();
    let denied = reserve(&quotas, &index).await.unwrap_err();
    assert!(denied.error.message.contains("2 calls at once run already"), "{}", denied.error.message);
    first.0[0].begin();
    first.0[0].settle(&Usage::default());
    let third = reserve(&quotas, &index).await.unwrap();
    second.0[0].begin();
    drop((second, third));
    let _both = (reserve(&quotas, &index).await.unwrap(), reserve(&quotas, &index).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_calls_at_once_are_admitted_exactly_as_often_as_there_are_units() {
    let quotas = Quotas::start(Arc::new(Port::with(100)), "dp-1", 1);
    let two = [("hourly", quota(QuotaUnit::Calls, 100)), ("second", quota(QuotaUnit::Calls, 100))];
    let index = Arc::new(QuotaIndex::compile(&snapshot(&two)));
    let calls: Vec<_> = (0..500)
        .map(|_| {
            let (quotas, index) = (quotas.clone(), index.clone());
            tokio::spawn(async move {
                let Ok(reservation) = reserve(&quotas, &index).await else { return false };
                reservation.0.iter().for_each(|hold| hold.begin());
                reservation.0.iter().for_each(|hold| hold.settle(&Usage::default()));
                true
            })
        })
        .collect();
    let mut admitted = 0;
    for call in calls {
        admitted += u64::from(call.await.unwrap());
    }
    assert_eq!(admitted, 100);
}

#[tokio::test]
async fn a_slot_is_free_again_after_a_call_that_fails_is_refused_later_or_is_cancelled() {
    let slots = quota(QuotaUnit::Concurrent, 1);
    let tokens = quota(QuotaUnit::Tokens, 10_000);
    let port = Port::with(10_000);
    port.0.lock().left.insert("acme/slots".into(), 1);
    let setup = Setup::new(&[("slots", slots), ("tokens", tokens)], Some(&port));
    let chat =
        |bound: u32| json!({"model": "tiny", "messages": [{"role": "user", "content": "x"}], "max_tokens": bound});
    let wrong = json!({"name": "echo.echo", "arguments": {"text": 5}});
    for round in 0..3 {
        setup.call(Operation::Chat("tiny".into()), chat(5)).await.outcome.unwrap();
        setup.call(Operation::CallTool("echo.echo".into()), wrong.clone()).await.outcome.unwrap_err();
        // While one runs, there is no slot for another.
        let link = CancelLink(tokio::sync::Notify::new());
        let endless = setup.call_by(Operation::Chat("tiny".into()), chat(ENDLESS), &link);
        let before = setup.world.endless.load(Ordering::SeqCst);
        let meanwhile = async {
            setup.world.more_than(before).await;
            let refused = setup.echo().await;
            link.0.notify_one();
            refused
        };
        let (cancelled, refused) = tokio::join!(endless, meanwhile);
        assert!(matches!(cancelled.outcome, Ok(Reply::Error(_))), "{:?}", cancelled.outcome);
        let refused = refused.unwrap_err();
        assert!(refused.error.message.contains("1 calls at once run already"), "{}", refused.error.message);
        let data = RawObject::parse(refused.error.data.as_ref().unwrap()).unwrap();
        assert_eq!(data.get_text("kind").as_deref(), Some("concurrency"));
        assert!(setup.echo().await.is_ok(), "round {round}: the slot came back");
        // A call whose task is lost gives its slot back too.
        let lost = setup.call_by(Operation::Chat("tiny".into()), chat(ENDLESS), &NoLink);
        tokio::select! {
            answer = lost => panic!("it has an end: {:?}", answer.outcome),
            () = setup.world.more_than(before + 1) => {}
        }
        assert!(setup.echo().await.is_ok(), "round {round}: the slot of a lost call came back");
    }
    // What was cancelled is charged by upper bounds, what was lost by all that it held; not nothing.
    setup.quotas.as_ref().unwrap().close().await;
    assert!(port.left("acme/tokens") < 10_000 - 3 * (256 + 5), "{}", port.left("acme/tokens"));
}
