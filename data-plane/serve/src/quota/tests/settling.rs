//! Tokens and money: reserved for the worst case, settled by use.

use super::*;

#[tokio::test]
async fn tokens_are_reserved_for_the_worst_case_and_settled_by_use() {
    let port = Port::with(1_000);
    let setup = Setup::new(&[("tokens", quota(QuotaUnit::Tokens, 1_000))], Some(&port));
    // Seven tokens each, though each reserves hundreds.
    for _ in 0..20 {
        let answer = setup.call(Operation::Embed("tiny".into()), json!({"model": "tiny", "input": "x"})).await;
        assert!(answer.outcome.is_ok(), "{:?}", answer.outcome);
        assert_eq!(answer.limits[0].unit, QuotaUnit::Tokens);
    }
    setup.quotas.as_ref().unwrap().close().await;
    assert_eq!(port.left("acme/tokens"), 1_000 - 20 * 7);
    // A chat could use more than is left; tools use no tokens.
    let setup = Setup::new(&[("tokens", quota(QuotaUnit::Tokens, 400))], Some(&Port::with(400)));
    let chat = json!({"model": "tiny", "messages": [], "max_tokens": 300});
    let denied = setup.call(Operation::Chat("tiny".into()), chat).await.outcome.unwrap_err();
    assert_eq!(denied.code, "PV-QUOTA-EXCEEDED");
    assert!(denied.error.message.contains("this call may use"), "{}", denied.error.message);
    assert_eq!(denied.retry_after_ms, None, "it never fits");
    // Where a text is gone on with, sixteen are made if nothing else is said: that fits, and the model says no.
    let completion = json!({"model": "tiny", "prompt": "x"});
    let ran = setup.call(Operation::Chat("tiny".into()), completion).await.outcome;
    assert!(matches!(ran, Ok(Reply::Error(_))), "{ran:?}");
    let refused = json!({"model": "tiny", "prompt": "x", "max_tokens": 300});
    let refused = setup.call(Operation::Chat("tiny".into()), refused).await.outcome.unwrap_err();
    assert_eq!(refused.code, "PV-QUOTA-EXCEEDED");
    assert!(setup.echo().await.is_ok());
    // This one could fit, and not now: what came for it goes back to where others may use it.
    let port = Port::with(1_000);
    let setup = Setup::new(&[("tokens", quota(QuotaUnit::Tokens, 1_000))], Some(&port));
    let chat = |bound: u64| json!({"model": "tiny", "messages": [], "max_tokens": bound});
    port.0.lock().left.insert("acme/tokens".into(), 400);
    let denied = setup.call(Operation::Chat("tiny".into()), chat(600)).await.outcome.unwrap_err();
    assert!(denied.error.message.contains("at most 400 are left"), "{}", denied.error.message);
    assert_eq!(port.left("acme/tokens"), 0);
    let back = async {
        while port.left("acme/tokens") == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, back).await.expect("nothing goes back");
    assert_eq!(port.left("acme/tokens"), 400);
}

#[tokio::test]
async fn money_is_reserved_for_the_worst_case_settled_by_use_and_recorded() {
    let port = Port::with(10_000);
    let setup = Setup::new(&[("money", quota(QuotaUnit::CostMicro, 10_000))], Some(&port));
    setup.echo().await.unwrap();
    // A call and seven tokens, though hundreds were reserved.
    let embed = setup.call(Operation::Embed("tiny".into()), json!({"model": "tiny", "input": "x"})).await;
    assert!(embed.outcome.is_ok(), "{:?}", embed.outcome);
    let costs = |setup: &Setup| -> Vec<u64> {
        let records = setup.world.records.lock();
        records.iter().filter(|r| r.phase == Phase::Outcome).map(|r| r.impact.cost_micro).collect()
    };
    assert_eq!(costs(&setup), [100, 100 + 7 * 3]);
    // What a model cannot do is not charged but for the call.
    let chat = json!({"model": "tiny", "messages": [], "max_tokens": 5});
    setup.call(Operation::Chat("tiny".into()), chat).await;
    assert_eq!(costs(&setup)[2], 100);
    // An adapter costs what its base costs: no price names it.
    let embed = setup.call(Operation::Embed("tuned".into()), json!({"model": "tuned", "input": "x"})).await;
    assert!(embed.outcome.is_ok(), "{:?}", embed.outcome);
    assert_eq!(costs(&setup)[3], 121);
    // That it was asked for at two nodes is one call, and told of it.
    let attempts = |setup: &Setup| -> Vec<u32> {
        let records = setup.world.records.lock();
        records.iter().filter(|r| r.phase == Phase::Outcome).map(|r| r.why.attempt).collect()
    };
    assert_eq!(attempts(&setup), [1, 1, 1, 2]);
    setup.quotas.as_ref().unwrap().close().await;
    assert_eq!(port.left("acme/money"), 10_000 - 100 - 121 - 100 - 121);
    // Of what costs more than the quota ever has, none runs; what is used up is used up.
    let setup = Setup::new(&[("money", quota(QuotaUnit::CostMicro, 250))], Some(&Port::with(250)));
    let dear = setup.call(Operation::Embed("tiny".into()), json!({"model": "tiny", "input": "x"})).await;
    assert_eq!(dear.outcome.unwrap_err().retry_after_ms, None);
    setup.echo().await.unwrap();
    setup.echo().await.unwrap();
    let denied = setup.echo().await.unwrap_err();
    assert_eq!(denied.code, "PV-QUOTA-EXCEEDED");
    let said = "quota acme/money: this call may use 100, and of 250 millionths an hour at most 50 are left; it begins \
                anew at ";
    assert!(denied.error.message.starts_with(said), "{}", denied.error.message);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_free_and_one_that_never_began_is() {
    let port = Port::with(10_000);
    let setup = Setup::new(&[("tokens", quota(QuotaUnit::Tokens, 10_000))], Some(&port));
    let chat =
        |bound: u32| json!({"model": "tiny", "messages": [{"role": "user", "content": "x"}], "max_tokens": bound});
    setup.call(Operation::Chat("tiny".into()), chat(5)).await.outcome.unwrap();
    let broken = setup.call(Operation::Chat("tiny".into()), chat(BROKEN)).await;
    assert!(matches!(broken.outcome, Ok(Reply::Error(_))), "{:?}", broken.outcome);
    setup.quotas.as_ref().unwrap().close().await;
    let charged = 10_000 - port.left("acme/tokens");
    assert!((256 + 5..2 * 256).contains(&charged), "{charged}");
}

#[tokio::test]
async fn who_goes_away_before_an_answer_began_leaves_the_queue_and_pays_nothing() {
    let port = Port::with(10_000);
    let setup = Setup::new(&[("tokens", quota(QuotaUnit::Tokens, 10_000))], Some(&port));
    let chat = json!({"model": "tiny", "messages": [{"role": "user", "content": "x"}], "max_tokens": QUEUED});
    let link = CancelLink(tokio::sync::Notify::new());
    let queued = setup.call_by(Operation::Chat("tiny".into()), chat, &link);
    let leaves = async {
        setup.world.more_than(0).await;
        link.0.notify_one();
    };
    let (left, ()) = tokio::join!(tokio::time::timeout(SOON, queued), leaves);
    assert!(matches!(left.unwrap().outcome, Ok(Reply::Error(_))));
    setup.quotas.as_ref().unwrap().close().await;
    assert_eq!(port.left("acme/tokens"), 10_000);
}
