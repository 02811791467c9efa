//! What the shield adds to a call on the healthy path: an upstream that answers at once, with and without it.
//! Kept answers are measured beside it, since they are in its place of an upstream's answer.
#![allow(missing_docs, clippy::expect_used, reason = "a bench stops at the first surprise")]

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use criterion::{Criterion, criterion_group, criterion_main};
use provost_data_pipeline::{AskError, ClientFacts, ClientLink, Execution, Operation};
use provost_data_tools::{ExecuteRequest, Shield, Upstream, UpstreamError};
use provost_mcp::{ProtocolVersion, RawJson};
use provost_types::{
    BoxFuture, BuiltinPlugin, CacheSpec, CallId, Name, PluginSource, PluginSpec, PrincipalRef, ResilienceSpec, Revision,
};

struct Ready(RawJson);

impl Upstream for Ready {
    fn run<'a>(
        &'a self,
        _: &'a ExecuteRequest<'a>,
        _: &'a dyn ClientLink,
    ) -> BoxFuture<'a, Result<Execution, UpstreamError>> {
        Box::pin(std::future::ready(Ok(Execution::result(self.0.clone(), false))))
    }

    fn definition(&self, _: &str) -> Option<RawJson> {
        None
    }
}

struct Nobody;

impl ClientLink for Nobody {
    fn notify(&self, _: &str, _: RawJson) {}
    fn ask<'a>(&'a self, _: &'a RawJson) -> Option<BoxFuture<'a, Result<RawJson, AskError>>> {
        None
    }
    fn cancelled(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

fn shield(cache: CacheSpec) -> Shield {
    let source = PluginSource::Builtin(BuiltinPlugin { name: "echo".to_owned(), config: Default::default() });
    let resilience = Some(Box::new(ResilienceSpec { cache, ..ResilienceSpec::default() }));
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

fn shields(c: &mut Criterion) {
    let client = ClientFacts {
        protocol_version: ProtocolVersion::LATEST,
        info: None,
        capabilities: RawJson::EMPTY_OBJECT,
        session: None,
        address: None,
        transport: "internal",
    };
    let principal = PrincipalRef { tenant: name("acme"), name: name("ana") };
    let upstream = Ready(RawJson::from_text("{\"content\":[]}"));
    let request = || ExecuteRequest {
        operation: Operation::CallTool("t".to_owned()),
        params: RawJson::from(serde_json::json!({"name": "t", "arguments": {"text": "hello"}})),
        client: &client,
        principal: &principal,
        subject: None,
        deadline: Instant::now() + Duration::from_secs(3_600),
        revision: Revision(1),
        call_id: CallId(1),
        other_tools: None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let _inside = runtime.enter();
    let request = request();
    let run = |future: BoxFuture<'_, Execution>| futures::executor::block_on(future);
    let mut group = c.benchmark_group("shield");
    group.bench_function("without", |b| {
        b.iter(|| run(Box::pin(async { upstream.run(&request, &Nobody).await.expect("it answers") })));
    });
    let plain = shield(CacheSpec::default());
    group.bench_function("healthy", |b| {
        b.iter(|| black_box(run(Box::pin(plain.execute(&upstream, &request, &Nobody)))));
    });
    let keeping = shield(CacheSpec { tools: ["t".to_owned()].into(), ttl_ms: 3_600_000, ..CacheSpec::default() });
    group.bench_function("kept", |b| {
        b.iter(|| black_box(run(Box::pin(keeping.execute(&upstream, &request, &Nobody)))));
    });
    group.finish();
}

criterion_group!(benches, shields);
criterion_main!(benches);
