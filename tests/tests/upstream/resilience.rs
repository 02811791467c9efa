//! Upstreams that refuse, hang, fail and recover: what callers see, what the upstream is spared, and what
//! becomes of its neighbours.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use provost_data_pipeline::{Execution, Operation, Reply};
use provost_data_tools::{Limits, Plugin};
use provost_types::{BreakerSpec, Era, PluginSpec, QueueSpec, ResilienceSpec, RetrySpec, ToolResilience};
use serde_json::{Value, json};

use crate::{
    bench::*,
    broken_http::{ScriptServer, Scripted, script},
};

pub fn with(spec: PluginSpec, resilience: ResilienceSpec) -> PluginSpec {
    PluginSpec { resilience: Some(Box::new(resilience)), ..spec }
}

/// Nothing is tried again.
fn once() -> RetrySpec {
    RetrySpec { attempts: 1, ..RetrySpec::default() }
}

fn data(execution: &Execution) -> Value {
    match &execution.reply {
        Reply::Error(error) => error.data.as_ref().unwrap().parse().unwrap(),
        other => panic!("no error: {other:?}"),
    }
}

fn message(execution: &Execution) -> String {
    match &execution.reply {
        Reply::Error(error) => error.message.clone(),
        other => panic!("no error: {other:?}"),
    }
}

/// A server that does `bad` to calls while it is told to be bad, and counts them.
struct Moody {
    server: ScriptServer,
    is_bad: Arc<AtomicBool>,
    calls: Arc<AtomicUsize>,
}

async fn moody(bad: Scripted) -> Moody {
    let (is_bad, calls) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let (mood, counter) = (is_bad.clone(), calls.clone());
    let server = script(move |method, _| match method {
        "tools/call" | "resources/read" => {
            counter.fetch_add(1, Ordering::SeqCst);
            if mood.load(Ordering::SeqCst) { bad.clone() } else { Scripted::Default }
        }
        _ => Scripted::Default,
    })
    .await;
    Moody { server, is_bad, calls }
}

impl Moody {
    fn plugin(&self, resilience: ResilienceSpec) -> Arc<Plugin> {
        plugin(with(http_spec(&self.server.url, Era::Modern), resilience))
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

fn unavailable() -> Scripted {
    Scripted::Status(503, "text/plain", "later".to_owned())
}

#[tokio::test]
async fn an_upstream_that_fails_is_left_alone_until_a_trial_succeeds() {
    let up = moody(unavailable()).await;
    let breaker = BreakerSpec { consecutive_failures: 3, open_ms: 400, ..BreakerSpec::default() };
    let plugin = up.plugin(ResilienceSpec { breaker, retry: once(), ..ResilienceSpec::default() });
    assert_eq!(plugin.tools().await.unwrap().len(), 1);
    for _ in 0..3 {
        assert_eq!(pv_code(&call(&plugin, "t", json!({})).await), "PV-UPSTREAM-HTTP");
    }
    assert!(plugin.pressure().is_open);
    let refused = call(&plugin, "t", json!({})).await;
    assert_eq!(pv_code(&refused), "PV-UPSTREAM-OPEN");
    assert!(data(&refused)["retryAfterMs"].as_u64().unwrap() <= 400, "{refused:?}");
    let text_of = message(&refused);
    assert!(text_of.contains("plugin `up`") && text_of.contains("since 2") && text_of.contains("until 2"), "{text_of}");
    assert_eq!(refused.effort.attempts, 0, "nothing was asked");
    assert_eq!(up.calls(), 3, "the upstream was spared");
    assert_eq!(plugin.tools().await.unwrap().len(), 1, "lists are not affected");

    up.is_bad.store(false, Ordering::SeqCst);
    eventually("a trial succeeds", async || {
        let done = call(&plugin, "t", json!({})).await;
        matches!(done.reply, Reply::Result { .. })
    })
    .await;
    assert!(!plugin.pressure().is_open);
    assert_eq!(text(&call(&plugin, "t", json!({})).await), "fine");
}

#[tokio::test]
async fn a_tools_own_errors_and_callers_in_a_hurry_open_nothing() {
    let is_error = Scripted::Raw(json!({"content": [], "isError": true}).to_string());
    let refused = Scripted::Status(404, "text/plain", "no".to_owned());
    let rpc =
        Scripted::Body(json!({"jsonrpc": "2.0", "id": null, "error": {"code": -32602, "message": "no"}}).to_string());
    for bad in [is_error, refused, rpc] {
        let up = moody(bad.clone()).await;
        let breaker = BreakerSpec { consecutive_failures: 1, ..BreakerSpec::default() };
        let plugin = up.plugin(ResilienceSpec { breaker, ..ResilienceSpec::default() });
        for _ in 0..5 {
            call(&plugin, "t", json!({})).await;
        }
        assert!(!plugin.pressure().is_open, "{bad:?}");
        assert_eq!(up.calls(), 5, "{bad:?}: an answer is never tried again");
    }
    let up = moody(Scripted::Hang).await;
    let breaker = BreakerSpec { consecutive_failures: 1, ..BreakerSpec::default() };
    let spec = PluginSpec { timeout_ms: 700, ..http_spec(&up.server.url, Era::Modern) };
    let plugin = plugin(with(spec, ResilienceSpec { breaker, ..ResilienceSpec::default() }));
    plugin.tools().await.unwrap();
    let hurried = json!({"name": "t", "_meta": {"io.provost/timeoutMs": 50}});
    let operation = || Operation::CallTool("t".to_owned());
    let late = execute(&plugin, operation(), hurried, &modern_client(), &TestLink::default()).await;
    assert_eq!(pv_code(&late), "PV-UPSTREAM-TIMEOUT");
    assert!(message(&late).contains("that the caller gave"), "{late:?}");
    assert!(!plugin.pressure().is_open);
    // The policy's own time is another matter.
    let late = call(&plugin, "t", json!({})).await;
    assert_eq!(pv_code(&late), "PV-UPSTREAM-TIMEOUT");
    assert!(message(&late).contains("plugin `up`") && message(&late).contains("policy"), "{late:?}");
    assert!(plugin.pressure().is_open);
}

#[tokio::test]
async fn what_was_not_sent_is_tried_again() {
    // A port that was free a moment ago.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let retry = RetrySpec { attempts: 10, backoff_ms: 200, max_backoff_ms: 400, ..RetrySpec::default() };
    let spec = http_spec(&format!("http://{address}/mcp"), Era::Modern);
    let plugin = plugin(with(spec, ResilienceSpec { retry, ..ResilienceSpec::default() }));
    let starting = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let everything = provost_tests::everything::Everything::new(provost_tests::everything::EraChoice::Modern);
        provost_tests::everything::serve_http(everything, address).await.unwrap()
    };
    let (done, _server) = tokio::join!(call(&plugin, "test_simple_text", json!({})), starting);
    assert!(matches!(done.reply, Reply::Result { .. }), "{done:?}");
    assert!(done.effort.attempts > 1, "{:?}", done.effort);
}

#[tokio::test]
async fn what_may_have_been_executed_is_repeated_only_where_that_is_safe() {
    let read = || Operation::ReadResource("test://a".to_owned());
    let tool = || Operation::CallTool("t".to_owned());
    let trusting = RetrySpec { trust_annotations: true, backoff_ms: 1, ..RetrySpec::default() };
    let listed = RetrySpec { tools: ["t".to_owned()].into(), backoff_ms: 1, ..RetrySpec::default() };
    let plain = RetrySpec { backoff_ms: 1, ..RetrySpec::default() };
    let table = [(plain.clone(), tool(), 1), (trusting, tool(), 1), (listed, tool(), 3), (plain, read(), 3)];
    for (retry, operation, expect) in table {
        let up = moody(unavailable()).await;
        let plugin = up.plugin(ResilienceSpec { retry, ..ResilienceSpec::default() });
        plugin.tools().await.unwrap();
        let done =
            execute(&plugin, operation.clone(), json!({"name": "t"}), &modern_client(), &TestLink::default()).await;
        assert_eq!(pv_code(&done), "PV-UPSTREAM-HTTP");
        assert_eq!((up.calls(), done.effort.attempts), (expect, expect as u32), "{operation:?}");
    }
}

#[tokio::test]
async fn calls_beyond_the_bounds_wait_or_are_refused() {
    let server = moody(Scripted::Hang).await;
    let rule = ToolResilience { tools: ["t*".to_owned()].into(), max_concurrent: 1, ..ToolResilience::default() };
    let queue = QueueSpec { max_queued: 1, timeout_ms: 200 };
    let plugin = server.plugin(ResilienceSpec { queue, tools: vec![rule], retry: once(), ..ResilienceSpec::default() });
    plugin.tools().await.unwrap();
    let link = TestLink::default();
    let client = modern_client();
    let running = execute(&plugin, Operation::CallTool("t".into()), json!({"name": "t"}), &client, &link);
    let others = async {
        eventually("the first call is under way", async || server.calls() == 1).await;
        let (waiting, refused) = tokio::join!(call(&plugin, "t2", json!({})), async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            call(&plugin, "t3", json!({})).await
        });
        assert_eq!(pv_code(&waiting), "PV-UPSTREAM-BUSY");
        assert!(message(&waiting).contains("waited"), "{waiting:?}");
        assert_eq!(pv_code(&refused), "PV-UPSTREAM-BUSY");
        assert_eq!(data(&refused)["retryAfterMs"], 1_000);
        server.is_bad.store(false, Ordering::SeqCst);
        assert_eq!(text(&call(&plugin, "other", json!({})).await), "fine", "other tools have their own places");
        link.cancel.cancel();
    };
    let (cancelled, ()) = tokio::join!(running, others);
    assert_eq!(cancelled.status, provost_types::CallStatus::Cancelled);
    assert_eq!(server.calls(), 2, "nothing that was refused was sent");
    assert_eq!(text(&call(&plugin, "t", json!({})).await), "fine", "the place is free again");
}

#[tokio::test]
async fn a_list_that_hangs_opens_the_breaker_and_the_last_one_is_used() {
    let hangs = Arc::new(AtomicBool::new(false));
    let mood = hangs.clone();
    let server = script(move |method, _| match method {
        "tools/list" if mood.load(Ordering::SeqCst) => Scripted::Hang,
        _ => Scripted::Default,
    })
    .await;
    let limits = Limits {
        list_timeout: Duration::from_millis(300),
        list_ttl_min: Duration::from_millis(1),
        ..Limits::default()
    };
    let breaker = BreakerSpec { open_ms: 60_000, max_open_ms: 60_000, ..BreakerSpec::default() };
    let spec = with(http_spec(&server.url, Era::Modern), ResilienceSpec { breaker, ..ResilienceSpec::default() });
    let (_toolbox, plugin) = plugin_with(spec, limits);
    assert_eq!(plugin.tools().await.unwrap().len(), 1);
    hangs.store(true, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(plugin.tools().await.unwrap().len(), 1, "the last one, after its time");
    assert!(plugin.pressure().is_open, "nobody waits so long twice");
    let began = Instant::now();
    for _ in 0..20 {
        assert_eq!(plugin.tools().await.unwrap().len(), 1);
    }
    assert!(began.elapsed() < Duration::from_secs(3), "20 lists took {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_hangs_does_not_slow_its_neighbours() {
    let bad = moody(Scripted::Hang).await;
    let good = moody(unavailable()).await;
    good.is_bad.store(false, Ordering::SeqCst);
    let toolbox = toolbox(Limits::default());
    let spec = |up: &Moody| http_spec(&up.server.url, Era::Modern);
    let slow = PluginSpec { max_concurrency: 4, ..spec(&bad) };
    toolbox.reconcile(&snapshot(&[("bad", slow), ("good", spec(&good))]));
    let plugin = |which: &str| toolbox.plugin(&name("acme"), which).unwrap();
    let p99 = async |plugin: &Plugin| {
        let mut times = Vec::new();
        for _ in 0..200 {
            let began = Instant::now();
            assert_eq!(text(&call(plugin, "t", json!({})).await), "fine");
            times.push(began.elapsed());
        }
        times.sort();
        times[197]
    };
    let alone = p99(&plugin("good")).await;
    let hanging = (0..100).map(|_| {
        let plugin = plugin("bad");
        tokio::spawn(async move {
            call(&plugin, "t", json!({})).await;
        })
    });
    let hanging: Vec<_> = hanging.collect();
    eventually("calls hang", async || plugin("bad").pressure().waiting >= 90).await;
    let beside = p99(&plugin("good")).await;
    hanging.iter().for_each(tokio::task::JoinHandle::abort);
    // Its hanging calls take 60 s; a slow machine takes a few milliseconds more at times.
    assert!(beside < alone * 10 + Duration::from_millis(250), "p99 alone {alone:?}, beside a hanging one {beside:?}");
}
