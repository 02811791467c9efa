//! How fast a text is looked at, on one core: JSON rows without a protected value, with one in every
//! hundredth row, and in chunks as they come from a stream. `cargo bench -p provost-data-guards`.
#![allow(missing_docs, clippy::expect_used, reason = "a bench stops at the first surprise")]

#[path = "../tests/guards/corpus/mod.rs"]
mod corpus;

use std::hint::black_box;

use corpus::{
    rng::Rng,
    rows::{clean, ordinary, positive},
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use provost_data_guards::{Action, Guard, Kind, Rules};

/// Larger than a second-level cache.
const BYTES: usize = 4 << 20;
/// One row in so many holds a value.
const HIT_EVERY: usize = 100;
const CHUNK: usize = 16 << 10;

/// JSON rows; every `hit_every`th is one of the corpus, all kinds in turn.
fn table(hit_every: Option<usize>) -> Vec<u8> {
    let (mut rng, mut text, mut row) = (Rng(1), String::new(), 0);
    while text.len() < BYTES {
        row += 1;
        let line = match hit_every {
            Some(n) if row % n == 0 => positive(Kind::ALL[row / n % Kind::COUNT], &mut rng).text,
            _ => ordinary(&mut rng),
        };
        text += &line;
        text.push('\n');
    }
    text.into_bytes()
}

/// Rows with what is easily taken for a value and is none.
fn hard() -> Vec<u8> {
    let (mut rng, mut text) = (Rng(2), String::new());
    while text.len() < BYTES {
        text += &clean(&mut rng).text;
        text.push('\n');
    }
    text.into_bytes()
}

/// What somebody would send to make a scan slow: beginnings of values without end.
const WORST: [&str; 7] = [
    "-eyJ",
    "-sk-",
    "-----BEGIN PRIVATE KEY----- ",
    "a@",
    "12 ",
    "4111  ",
    "-----BEGIN PRIVATE KEY----- -----END X----- ",
];

fn scan(c: &mut Criterion) {
    let guard = Guard::new(Rules::all(Action::Mask));
    let (clean, hits, hard) = (table(None), table(Some(HIT_EVERY)), hard());
    assert!(guard.inspect(&clean).counts.is_empty());
    assert!(!guard.inspect(&hits).counts.is_empty());

    let mut group = c.benchmark_group("guard");
    for (name, text) in [("clean", &clean), ("1% of rows", &hits), ("near misses", &hard)] {
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(name, |b| b.iter(|| guard.inspect(black_box(text)).counts));
    }
    for part in WORST {
        let text = part.repeat(BYTES / 8 / part.len());
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(format!("{part:?} repeated"), |b| {
            b.iter(|| guard.inspect(black_box(text.as_bytes())).counts)
        });
    }
    for (name, text) in [("clean, in chunks", &clean), ("1% of rows, in chunks", &hits)] {
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(name, |b| {
            let mut out = Vec::with_capacity(text.len());
            b.iter(|| {
                out.clear();
                let mut stream = guard.stream();
                for chunk in black_box(text).chunks(CHUNK) {
                    stream.push(chunk, &mut out).expect("nothing blocks");
                }
                stream.finish(&mut out).expect("nothing blocks");
                stream.counts()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, scan);
criterion_main!(benches);
