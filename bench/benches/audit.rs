//! What a record costs: encoding and hashing it, and making it durable through the group on this disk.
#![allow(missing_docs, clippy::expect_used, reason = "a bench stops at the first surprise")]

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use provost_audit_core::{Frontier, Hash, Place, chain_next, chain_start, encode_record, leaf_hash};
use provost_audit_store::{AuditLog, AuditLogConfig, open};
use provost_bench::event;
use provost_types::AuditSink;
use tokio::{runtime::Runtime, task::JoinSet};

fn place() -> Place<'static> {
    Place { writer_id: "node-1", epoch: 1, seq: 1, prev: Hash([3; 32]) }
}

fn pure(c: &mut Criterion) {
    let mut group = c.benchmark_group("audit record");
    let (event, place) = (event(1), place());
    group.bench_function("encode", |b| {
        b.iter(|| encode_record(black_box(&event), &place).expect("a record"));
    });
    let leaf = encode_record(&event, &place).expect("a record");
    group.throughput(Throughput::Bytes(leaf.len() as u64));
    group.bench_function("hash, chain and tree", |b| {
        let mut chain = chain_start("provost/acme");
        let mut tree = Frontier::default();
        b.iter(|| {
            let hash = leaf_hash(black_box(&leaf));
            chain = chain_next(&chain, &hash);
            tree.append(hash);
        });
    });
    group.finish();
}

/// `total` durable appends by `callers` at once.
async fn append(log: &AuditLog, callers: u64, total: u64) -> Duration {
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for caller in 0..callers {
        let log = log.clone();
        let share = total / callers + u64::from(caller < total % callers);
        tasks.spawn(async move {
            for _ in 0..share {
                log.record(event(u128::from(caller))).await.expect("a durable record");
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("a caller");
    }
    began.elapsed()
}

fn durable(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let dir =
        tempfile::tempdir_in(std::env::var("PROVOST_BENCH_DIR").unwrap_or_else(|_| ".".into())).expect("a directory");
    let log = Arc::new(runtime.block_on(open(AuditLogConfig::new(dir.path(), "node-1"))).expect("an audit log"));
    let mut group = c.benchmark_group("audit append, fsynced");
    group.throughput(Throughput::Elements(1)).sample_size(20).measurement_time(Duration::from_secs(5));
    for callers in [1, 16, 256] {
        group.bench_function(BenchmarkId::new("callers", callers), |b| {
            b.iter_custom(|total| runtime.block_on(append(&log, callers, total)));
        });
    }
    group.finish();
    runtime.block_on(log.close()).expect("a clean end");
}

criterion_group!(benches, pure, durable);
criterion_main!(benches);
