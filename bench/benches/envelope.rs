//! What it costs to read one message: the first thing that happens to every call.
#![allow(missing_docs, clippy::expect_used, reason = "a bench stops at the first surprise")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use provost_bench::{CALL, call_bytes, tools_list_bytes};
use provost_mcp::{Envelope, JsonLimits};

fn envelope(c: &mut Criterion) {
    let mut group = c.benchmark_group("envelope");
    let call = call_bytes();
    group.throughput(Throughput::Bytes(CALL.len() as u64));
    group.bench_function("parse tools/call", |b| {
        b.iter(|| Envelope::parse(black_box(call.clone()), &JsonLimits::REQUEST).expect("a message"));
    });
    // The yardstick: a typed tree of the same bytes, which also loses key order and duplicates.
    group.bench_function("serde_json::Value of the same", |b| {
        b.iter(|| serde_json::from_slice::<serde_json::Value>(black_box(&call)).expect("JSON"));
    });
    let list = tools_list_bytes(200);
    group.throughput(Throughput::Bytes(list.len() as u64));
    group.bench_function("parse tools/list of 200", |b| {
        b.iter(|| Envelope::parse(black_box(list.clone()), &JsonLimits::RESPONSE).expect("a message"));
    });
    group.finish();
}

criterion_group!(benches, envelope);
criterion_main!(benches);
