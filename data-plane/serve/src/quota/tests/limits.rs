//! Calls up to a limit, and a ledger that is away.

use super::*;

#[tokio::test]
async fn calls_are_admitted_up_to_the_limit_and_the_denial_says_why() {
    let port = Port::with(5);
    let setup = Setup::new(&[("hourly", quota(QuotaUnit::Calls, 5))], Some(&port));
    // Lists are not counted, and a call whose arguments are wrong gives its unit back.
    let list = setup.call(Operation::ListTools, json!({})).await;
    assert!(list.outcome.is_ok() && list.limits.is_empty());
    for _ in 0..7 {
        let params = json!({"name": "echo.echo", "arguments": {"text": 5}});
        let wrong = setup.call(Operation::CallTool("echo.echo".into()), params).await.outcome.unwrap_err();
        assert_eq!(wrong.code, "PV-ARGS-SCHEMA");
    }
    for _ in 0..5 {
        assert!(setup.echo().await.is_ok());
    }
    let denied = setup.echo().await.unwrap_err();
    assert_eq!((denied.kind, denied.code), (RejectionKind::Limited, "PV-QUOTA-EXCEEDED"));
    assert!(denied.error.message.starts_with("quota acme/hourly: 5 calls an hour are used up; it begins anew at "));
    let retry_ms = denied.retry_after_ms.unwrap();
    assert!((HOUR_MS - 60_000..=HOUR_MS).contains(&retry_ms), "{retry_ms}");
    let data = RawObject::parse(denied.error.data.as_ref().unwrap()).unwrap();
    // To the nanosecond what the ledger said.
    let resets_at = data.get_text("resetsAt").unwrap();
    let told = time::OffsetDateTime::parse(&resets_at, &time::format_description::well_known::Rfc3339).unwrap();
    let told = u64::try_from(told.unix_timestamp_nanos()).unwrap();
    let is_said = port.0.lock().answers.values().flat_map(|answer| &answer.grants).any(|g| g.window_end_ns == told);
    assert!(is_said && denied.error.message.ends_with(&resets_at), "{resets_at}: {}", denied.error.message);
    assert_eq!(data.get_text("quota").as_deref(), Some("acme/hourly"));
    assert_eq!(data.get_text("kind").as_deref(), Some("consumable"));
    assert_eq!(data.get("remaining").unwrap().as_str(), "0");
    assert_eq!(data.get_text("code").as_deref(), Some("PV-QUOTA-EXCEEDED"));
    assert_eq!(data.get("limit").unwrap().as_str(), "5");
    assert_eq!(data.get("retryAfterMs").unwrap().as_str(), retry_ms.to_string());
    assert!(data.get_text("resetsAt").unwrap().ends_with('Z'));
    let records = setup.world.records.lock();
    let last = records.last().unwrap();
    assert_eq!((last.phase, last.error.as_deref()), (Phase::Denied, Some("PV-QUOTA-EXCEEDED")));
    // What is known to be used up is not asked for with every call.
    assert!(port.0.lock().requests.len() <= 4);
}

#[tokio::test]
async fn a_tenant_without_quotas_asks_nobody_and_a_node_without_leases_admits_nothing() {
    let port = Port::with(5);
    let setup = Setup::new(&[], Some(&port));
    assert!(setup.echo().await.is_ok());
    assert!(port.0.lock().requests.is_empty());
    let setup = Setup::new(&[("hourly", quota(QuotaUnit::Calls, 5))], None);
    let denied = setup.echo().await.unwrap_err();
    assert_eq!((denied.kind, denied.code), (RejectionKind::LimitUnknown, "PV-QUOTA-UNREACHABLE"));
    assert!(setup.call(Operation::ListTools, json!({})).await.outcome.is_ok());
}

#[tokio::test]
async fn cut_off_it_spends_what_it_has_and_then_denies_until_the_ledger_is_back() {
    let port = Port::with(100);
    let setup = Setup::new(&[("hourly", quota(QuotaUnit::Calls, 100))], Some(&port));
    assert!(setup.echo().await.is_ok());
    port.0.lock().is_down = true;
    let mut admitted = 1;
    let denied = loop {
        match setup.echo().await {
            Ok(_) => admitted += 1,
            Err(denied) => break denied,
        }
    };
    assert_eq!(admitted, 100 - port.left("acme/hourly"), "all that was leased, and nothing more");
    assert_eq!((denied.kind, denied.code), (RejectionKind::LimitUnknown, "PV-QUOTA-UNREACHABLE"));
    assert!(denied.retry_after_ms.is_some());
    port.0.lock().is_down = false;
    let mut tries = 0;
    while setup.echo().await.is_err() {
        tries += 1;
        assert!(tries < 10, "the ledger is back and nobody noticed");
    }
}

#[tokio::test]
async fn a_fenced_node_admits_nothing() {
    let port = Port::with(100);
    port.0.lock().is_fenced = true;
    let setup = Setup::new(&[("hourly", quota(QuotaUnit::Calls, 100))], Some(&port));
    let denied = setup.echo().await.unwrap_err();
    assert_eq!(denied.code, "PV-QUOTA-UNREACHABLE");
    assert!(denied.error.message.contains("this node's name"), "{}", denied.error.message);
    let mut fenced = setup.quotas.as_ref().unwrap().fenced();
    tokio::time::timeout(SOON, fenced.wait_for(|f| *f)).await.unwrap().unwrap();
}

#[tokio::test]
async fn what_is_left_goes_back_at_the_end() {
    let port = Port::with(100);
    let setup = Setup::new(&[("hourly", quota(QuotaUnit::Calls, 100))], Some(&port));
    for _ in 0..3 {
        setup.echo().await.unwrap();
    }
    setup.quotas.as_ref().unwrap().close().await;
    assert_eq!(port.left("acme/hourly"), 97);
    let settled: u64 = port.0.lock().requests.iter().flat_map(|r| &r.reports).map(|r| r.settled).sum();
    assert_eq!(settled, 3);
    assert!(port.0.lock().requests.last().unwrap().reports.last().unwrap().closed);
}

#[tokio::test]
async fn a_limit_that_is_lowered_holds_for_what_was_leased_before() {
    let port = Port::with(100);
    let setup = Setup::new(&[("hourly", quota(QuotaUnit::Calls, 100))], Some(&port));
    assert!(setup.echo().await.is_ok());
    // Three more are at hand, and nobody grants any.
    port.0.lock().is_down = true;
    setup.node.activate(Compiled::new(snapshot(&[("hourly", quota(QuotaUnit::Calls, 1))])).unwrap());
    let denied = setup.echo().await.unwrap_err();
    assert_eq!(denied.code, "PV-QUOTA-UNREACHABLE");
}

#[tokio::test]
async fn a_limit_that_is_raised_can_be_used_at_once() {
    let port = Port::with(1);
    let setup = Setup::new(&[("hourly", quota(QuotaUnit::Calls, 1))], Some(&port));
    assert!(setup.echo().await.is_ok());
    assert_eq!(setup.echo().await.unwrap_err().code, "PV-QUOTA-EXCEEDED");
    {
        let mut ledger = port.0.lock();
        ledger.limit = 5;
        ledger.left.insert("acme/hourly".to_owned(), 4);
    }
    setup.node.activate(Compiled::new(snapshot(&[("hourly", quota(QuotaUnit::Calls, 5))])).unwrap());
    assert!(setup.echo().await.is_ok(), "it is refused until it was known to be used up");
}
