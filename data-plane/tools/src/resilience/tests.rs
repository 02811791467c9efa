//! A shield before an upstream that does what a test says.

mod callers;

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use provost_data_pipeline::{AskError, ClientFacts, ClientLink, Execution, Operation, Reply, SubjectToken};
use provost_mcp::{ProtocolVersion, RawJson, RpcError};
use provost_types::{
    BoxFuture, BreakerSpec, BuiltinPlugin, CacheSpec, CallId, HedgeSpec, Name, PluginSource, PluginSpec, PrincipalRef,
    ResilienceSpec, RetrySpec, Revision,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{Shield, Upstream, budget::RESERVE};
use crate::{ExecuteRequest, UpstreamError};

/// What the upstream does the nth time (from 1): after so many milliseconds, this.
type Script = Box<dyn Fn(usize) -> (u64, Result<Value, UpstreamError>) + Send + Sync>;

struct Scripted {
    script: Script,
    begun: AtomicUsize,
    ended: AtomicUsize,
}

fn scripted(script: impl Fn(usize) -> (u64, Result<Value, UpstreamError>) + Send + Sync + 'static) -> Scripted {
    Scripted { script: Box::new(script), begun: AtomicUsize::new(0), ended: AtomicUsize::new(0) }
}

impl Scripted {
    fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }
}

impl Upstream for Scripted {
    fn run<'a>(
        &'a self,
        _: &'a ExecuteRequest<'a>,
        link: &'a dyn ClientLink,
    ) -> BoxFuture<'a, Result<Execution, UpstreamError>> {
        Box::pin(async move {
            let n = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
            let (ms, outcome) = (self.script)(n);
            link.notify("notifications/progress", RawJson::from(json!({ "n": n })));
            tokio::time::sleep(Duration::from_millis(ms)).await;
            self.ended.fetch_add(1, Ordering::SeqCst);
            outcome.map(|body| {
                let is_error = body["isError"] == true;
                Execution::result(RawJson::from(body), is_error)
            })
        })
    }

    fn definition(&self, _: &str) -> Option<RawJson> {
        None
    }
}

#[derive(Default)]
struct Link {
    cancel: CancellationToken,
    told: AtomicUsize,
}

impl ClientLink for Link {
    fn notify(&self, _: &str, _: RawJson) {
        self.told.fetch_add(1, Ordering::SeqCst);
    }
    fn ask<'a>(&'a self, _: &'a RawJson) -> Option<BoxFuture<'a, Result<RawJson, AskError>>> {
        None
    }
    fn cancelled(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.cancel.cancelled())
    }
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn shield(spec: ResilienceSpec) -> Shield {
    let source = PluginSource::Builtin(BuiltinPlugin { name: "echo".into(), config: BTreeMap::new() });
    let resilience = Some(Box::new(spec));
    let spec = PluginSpec {
        description: String::new(),
        source,
        timeout_ms: 0,
        max_concurrency: 0,
        resilience,
        definitions: None,
        reloads: 0,
    };
    Shield::new(&name("acme"), &name("up"), &spec)
}

fn client(session: Option<&str>) -> ClientFacts {
    ClientFacts {
        protocol_version: ProtocolVersion::LATEST,
        info: None,
        capabilities: RawJson::EMPTY_OBJECT,
        session: session.map(Into::into),
        address: None,
        transport: "internal",
    }
}

/// One call as one who calls.
struct Who<'a> {
    principal: &'a str,
    session: Option<&'a str>,
    token: Option<&'a str>,
    revision: u64,
}

const ANN: Who<'_> = Who { principal: "ann", session: None, token: None, revision: 1 };

async fn call_as(
    who: &Who<'_>,
    shield: &Shield,
    upstream: &Scripted,
    operation: Operation,
    params: Value,
) -> Execution {
    let client = client(who.session);
    let principal = PrincipalRef { tenant: name("acme"), name: name(who.principal) };
    let subject = who.token.map(SubjectToken::verified);
    let request = ExecuteRequest {
        operation,
        params: RawJson::from(params),
        client: &client,
        principal: &principal,
        subject: subject.as_ref(),
        deadline: Instant::now() + Duration::from_secs(30),
        revision: Revision(who.revision),
        call_id: CallId(1),
        other_tools: None,
    };
    shield.execute(upstream, &request, &Link::default()).await
}

async fn call(shield: &Shield, upstream: &Scripted) -> Execution {
    call_as(&ANN, shield, upstream, tool(), json!({"name": "t", "arguments": {}})).await
}

fn tool() -> Operation {
    Operation::CallTool("t".to_owned())
}

fn read() -> Operation {
    Operation::ReadResource("test://a".to_owned())
}

fn body(execution: &Execution) -> Value {
    match &execution.reply {
        Reply::Result { body, .. } => body.parse().unwrap(),
        other => panic!("no result: {other:?}"),
    }
}

fn quick_retries() -> RetrySpec {
    RetrySpec { tools: ["t".to_owned()].into(), backoff_ms: 1, max_backoff_ms: 1, ..RetrySpec::default() }
}

#[tokio::test]
async fn retries_end_with_the_first_answer_and_with_the_attempts() {
    let lost = || Err(UpstreamError::Died("gone".to_owned()));
    let table: [(usize, &str, u32); 4] = [(0, "ok", 1), (1, "ok", 2), (2, "ok", 3), (9, "PV-UPSTREAM-DIED", 3)];
    for (failures, expect, attempts) in table {
        let upstream = scripted(move |n| (0, if n <= failures { lost() } else { Ok(json!({"isError": true})) }));
        let done = call(&shield(ResilienceSpec { retry: quick_retries(), ..Default::default() }), &upstream).await;
        match &done.reply {
            Reply::Result { is_error, .. } => assert!(*is_error && expect == "ok", "a tool's failure is an answer"),
            Reply::Error(error) => assert!(error.to_raw().as_str().contains(expect), "{error:?}"),
            other => panic!("{other:?}"),
        }
        assert_eq!(done.effort.attempts, attempts);
    }
}

#[tokio::test]
async fn retries_do_not_storm() {
    let upstream = scripted(|_| (0, Err(UpstreamError::Unreachable("no".to_owned()))));
    let retry = RetrySpec { attempts: 10, budget_percent: 10, ..quick_retries() };
    let breaker = BreakerSpec { enabled: false, ..BreakerSpec::default() };
    let shield = shield(ResilienceSpec { retry, breaker, ..Default::default() });
    let began = Instant::now();
    for _ in 0..200 {
        call(&shield, &upstream).await;
    }
    let allowed = 200 + 20 + RESERVE as usize + began.elapsed().as_secs() as usize + 1;
    assert!((200 + 20..=allowed).contains(&upstream.begun()), "{} attempts of 200 calls", upstream.begun());
}

#[tokio::test]
async fn a_cancelled_call_is_not_tried_again_and_gives_its_place_back() {
    let upstream = scripted(|_| (0, Err(UpstreamError::Unreachable("no".to_owned()))));
    let retry = RetrySpec { backoff_ms: 600_000, max_backoff_ms: 600_000, ..quick_retries() };
    let shield = shield(ResilienceSpec { retry, ..Default::default() });
    let (facts, principal, link) =
        (client(None), PrincipalRef { tenant: name("acme"), name: name("ann") }, Link::default());
    let request = ExecuteRequest {
        operation: tool(),
        params: RawJson::EMPTY_OBJECT,
        client: &facts,
        principal: &principal,
        subject: None,
        deadline: Instant::now() + Duration::from_secs(3_600),
        revision: Revision(1),
        call_id: CallId(1),
        other_tools: None,
    };
    // The plugin's time is a minute: no room for the pause, so the failure is the answer.
    assert!(matches!(shield.execute(&upstream, &request, &link).await.reply, Reply::Error(_)));
    assert_eq!(upstream.begun(), 1);
    assert_eq!(shield.policy().gate.load(), (0, 0));
    let slow = scripted(|_| (60_000, Ok(json!({}))));
    let calling = shield.execute(&slow, &request, &link);
    assert!(tokio::time::timeout(Duration::from_millis(20), calling).await.is_err(), "it runs");
    assert_eq!(shield.policy().gate.load(), (0, 0), "dropped calls leave nothing");
    assert!(!shield.watch().is_open());
}

fn cached_tool() -> ResilienceSpec {
    let cache = CacheSpec { tools: ["t".to_owned()].into(), ttl_ms: 60_000, ..CacheSpec::default() };
    ResilienceSpec { cache, retry: RetrySpec { attempts: 1, ..RetrySpec::default() }, ..Default::default() }
}

#[tokio::test]
async fn a_kept_answer_is_given_to_the_same_question_of_the_same_caller_only() {
    let shield = shield(cached_tool());
    let upstream = scripted(|n| (0, Ok(json!({ "n": n }))));
    let bob = Who { principal: "bob", ..ANN };
    let later = Who { revision: 2, ..ANN };
    let elsewhere = Who { session: Some("s"), ..ANN };
    let (more, less) = (Who { token: Some("with more scopes"), ..ANN }, Who { token: Some("with less"), ..ANN });
    let args = |x: u32| json!({"name": "t", "arguments": {"x": x}, "_meta": {"progressToken": x}});
    let other = || Operation::CallTool("u".to_owned());
    let table = [
        (&ANN, tool(), args(1), 1),
        (&ANN, tool(), args(1), 1),
        (&ANN, tool(), json!({"_meta": {"a": 1}, "name": "z", "arguments": {"x": 1}}), 1),
        (&ANN, tool(), args(2), 2),
        (&bob, tool(), args(1), 3),
        (&later, tool(), args(1), 4),
        (&elsewhere, tool(), args(1), 5),
        (&ANN, other(), args(1), 6),
        (&ANN, other(), args(1), 7),
        (&ANN, tool(), json!({"arguments": {"x": 1}, "inputResponses": {}}), 8),
        (&ANN, tool(), args(1), 1),
        (&more, tool(), args(1), 9),
        (&more, tool(), args(1), 9),
        (&less, tool(), args(1), 10),
    ];
    let mut asked = 0;
    for (i, (who, operation, params, n)) in table.into_iter().enumerate() {
        let done = call_as(who, &shield, &upstream, operation, params).await;
        assert_eq!(body(&done)["n"], n, "case {i}");
        let is_kept = upstream.begun() == asked;
        assert_eq!((done.effort.attempts == 0, done.effort.cached_ms.is_some()), (is_kept, is_kept), "case {i}");
        asked = upstream.begun();
    }
    assert_eq!(asked, 10);
}

#[tokio::test]
async fn hints_of_the_upstream_say_for_how_long_and_for_whom() {
    let bob = Who { principal: "bob", ..ANN };
    for (scope, asked) in [("public", 1), ("private", 2)] {
        let shield = shield(ResilienceSpec::default());
        let upstream = scripted(move |_| (0, Ok(json!({"contents": [], "ttlMs": 50_000, "cacheScope": scope}))));
        call_as(&ANN, &shield, &upstream, read(), json!({"uri": "x"})).await;
        let again = call_as(&ANN, &shield, &upstream, read(), json!({"uri": "y"})).await;
        assert!(again.effort.cached_ms.is_some(), "{scope}");
        let left = body(&again)["ttlMs"].as_u64().unwrap();
        assert!((40_000..=50_000).contains(&left), "what is left: {left}");
        call_as(&bob, &shield, &upstream, read(), json!({"uri": "x"})).await;
        assert_eq!(upstream.begun(), asked, "{scope}");
        shield.forget();
        call_as(&ANN, &shield, &upstream, read(), json!({"uri": "x"})).await;
        assert_eq!(upstream.begun(), asked + 1, "something changed");
    }
    for answer in [json!({"contents": []}), json!({"ttlMs": 0}), json!({"ttlMs": -5}), json!({"ttlMs": "9"})] {
        let (shield, text) = (shield(ResilienceSpec::default()), answer.to_string());
        let upstream = scripted(move |_| (0, Ok(answer.clone())));
        for _ in 0..2 {
            call_as(&ANN, &shield, &upstream, read(), json!({"uri": "x"})).await;
        }
        assert_eq!(upstream.begun(), 2, "{text}");
    }
}

#[tokio::test]
async fn who_asks_for_the_same_at_once_waits_for_one_answer() {
    let shield = shield(cached_tool());
    let upstream = scripted(|n| (50, Ok(json!({ "n": n }))));
    let all = futures::future::join_all((0..20).map(|_| call(&shield, &upstream))).await;
    assert!(all.iter().all(|done| body(done)["n"] == 1));
    assert_eq!(upstream.begun(), 1);
    // A failure is nobody's answer but its own.
    let failing = scripted(|_| (10, Err(UpstreamError::Rpc(RpcError::new(-32000, "no")))));
    let shield = self::shield(cached_tool());
    let all = futures::future::join_all((0..5).map(|_| call(&shield, &failing))).await;
    assert!(all.iter().all(|done| matches!(done.reply, Reply::Error(_))));
    assert_eq!(failing.begun(), 5);
}

#[tokio::test]
async fn an_answer_that_a_change_overtook_is_not_kept() {
    let shield = shield(cached_tool());
    let upstream = scripted(|n| (60, Ok(json!({ "n": n }))));
    let change = async {
        while upstream.begun() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        shield.forget();
    };
    let (old, ()) = tokio::join!(call(&shield, &upstream), change);
    assert_eq!(body(&old)["n"], 1);
    assert_eq!(body(&call(&shield, &upstream).await)["n"], 2);
    assert_eq!(body(&call(&shield, &upstream).await)["n"], 2);
}

#[tokio::test]
async fn a_slow_try_is_hedged_once_and_the_first_good_answer_is_taken() {
    let lost = || Err(UpstreamError::Died("gone".to_owned()));
    type Try = (u64, Result<Value, UpstreamError>);
    let good = |ms, n: u64| -> Try { (ms, Ok(json!({ "n": n }))) };
    // First try, second try, whose answer, how many began.
    let table: [(Try, Try, Option<u64>, usize); 5] = [
        (good(0, 1), good(0, 2), Some(1), 1),
        (good(60_000, 1), good(0, 2), Some(2), 2),
        (good(150, 1), (0, lost()), Some(1), 2),
        (good(150, 1), (0, Ok(json!({"isError": true}))), Some(1), 2),
        ((100, lost()), good(100, 2), Some(2), 2),
    ];
    for (i, (first, second, expect, begun)) in table.into_iter().enumerate() {
        let hedge = Some(HedgeSpec { tools: ["t".to_owned()].into(), after_ms: 40 });
        let shield = shield(ResilienceSpec {
            hedge,
            retry: RetrySpec { attempts: 1, ..RetrySpec::default() },
            ..Default::default()
        });
        let upstream = scripted(move |n| if n == 1 { first.clone() } else { second.clone() });
        let done = tokio::time::timeout(Duration::from_secs(20), call(&shield, &upstream)).await.unwrap();
        assert_eq!(body(&done)["n"].as_u64(), expect, "case {i}");
        assert_eq!((upstream.begun(), done.effort.attempts as usize), (begun, begun), "case {i}");
    }
}

#[tokio::test]
async fn hedges_are_paid_from_the_budget_and_say_nothing_to_the_client() {
    let hedge = Some(HedgeSpec { tools: ["t".to_owned()].into(), after_ms: 1 });
    let retry = RetrySpec { budget_percent: 0, ..RetrySpec::default() };
    let shield = shield(ResilienceSpec { hedge, retry, ..Default::default() });
    let upstream = scripted(|_| (10, Ok(json!({}))));
    let began = Instant::now();
    for _ in 0..30 {
        call(&shield, &upstream).await;
    }
    let hedged = upstream.begun() - 30;
    assert!((10..=11 + began.elapsed().as_secs() as usize).contains(&hedged), "{hedged} hedges");
}
