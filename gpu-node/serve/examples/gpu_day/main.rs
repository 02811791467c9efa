//! What a device does with models that take turns in its memory: how fast weights come back, how long a switch takes, and whether
//! the books stay those of the device. `scripts/gpu_day.sh` runs it; `gpu_day cpu 8 5` tries it on any machine.
//!
//! `gpu_day DEVICE MIB SECONDS`: models of random weights of so many MiB each; the last part takes so long.
#![allow(clippy::print_stdout, reason = "it prints rows of a table")]

mod model;
mod node;

use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use provost_gpu_infer::ComputeDevice;
use provost_gpu_serve::{DeviceChoice, ModelSource};

/// Times that weights are brought back, of which the middle one counts.
const LOADS: usize = 7;
/// Least part of the rate of the bus that weights come back with.
const RATE_BAR: f64 = 0.85;
/// Longest switch between two models, in seconds.
const SWITCH_BAR: f64 = 0.5;
/// Largest part of the capacity that books and device may differ by.
const DRIFT_BAR: f64 = 0.01;
const MIB: u64 = 1 << 20;
pub(crate) const MODELS: [&str; 3] = ["one", "two", "three"];

type Outcome<T> = Result<T, Box<dyn Error>>;

/// What was measured, a row each, and what misses its bar.
#[derive(Default)]
struct Rows {
    missed: usize,
}

impl Rows {
    fn say(&self, what: &str, value: &str, bar: &str) {
        println!("| {what} | {value} | {bar} |");
    }

    fn hold(&mut self, what: &str, value: &str, bar: &str, holds: bool) {
        self.missed += usize::from(!holds);
        self.say(what, value, &format!("{bar}: {}", if holds { "holds" } else { "missed" }));
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |default: &str| arguments.next().unwrap_or_else(|| default.to_owned());
    let device: DeviceChoice = next("cuda:0").parse()?;
    let (mib, seconds): (u64, u64) = (next("4096").parse()?, next("600").parse()?);
    let models = tempfile::tempdir()?;
    for (seed, name) in MODELS.into_iter().enumerate() {
        model::write(&models.path().join(name), mib, seed)?;
    }
    let bytes = ModelSource::open(MODELS[0], &models.path().join(MODELS[0]))?.weight_bytes();
    let mut rows = Rows::default();
    println!("| what | measured | bar |\n|---|---|---|");
    swap_in(&mut rows, device, models.path(), bytes)?;
    switch(&mut rows, device, models.path(), bytes).await?;
    soak(&mut rows, device, models.path(), bytes, Duration::from_secs(seconds)).await?;
    match rows.missed {
        0 => Ok(()),
        missed => Err(format!("{missed} bars are missed").into()),
    }
}

/// How fast weights come to the device: from their file, and from the copy that the host keeps.
fn swap_in(rows: &mut Rows, choice: DeviceChoice, models: &Path, bytes: u64) -> Outcome<()> {
    let device = ComputeDevice::open(choice, bytes.saturating_mul(2))?;
    let source = ModelSource::open(MODELS[0], &models.join(MODELS[0]))?;
    let digest = source.digest()?;
    let rate = device.copy_rate(bytes.min(1 << 30))?;
    let load = || -> Outcome<f64> {
        let began = Instant::now();
        let network = source.load_network_on(&device, digest)?;
        let seconds = began.elapsed().as_secs_f64();
        drop(network);
        Ok(float(bytes) / seconds)
    };
    rows.say("device", &device.name(), "");
    rows.say("one model", &format!("{} MiB", bytes / MIB), "");
    rows.say("weights from their file, the first time", &gigabytes(load()?), "");
    let mut rates = (0..LOADS).map(|_| load()).collect::<Outcome<Vec<f64>>>()?;
    let again = middle(&mut rates);
    match rate {
        None => rows.say("weights, again", &gigabytes(again), "no device to hold it against"),
        Some(rate) => {
            rows.say("page-locked memory to the device", &gigabytes(rate), "");
            let part = again / rate;
            let value = format!("{} ({:.0} %)", gigabytes(again), part * 100.0);
            rows.hold("weights from the host's copy", &value, "at least 85 % of the row above", part >= RATE_BAR);
        }
    }
    Ok(())
}

/// How long an answer of one token takes whose model has to come for the one that is there.
async fn switch(rows: &mut Rows, device: DeviceChoice, models: &Path, bytes: u64) -> Outcome<()> {
    let node = node::start(device, models, bytes, 1)?;
    let mut seconds = Vec::new();
    for turn in 0..2 * LOADS {
        let began = Instant::now();
        node::ask(&node, MODELS[turn % 2], 1).await?;
        // The first two are read from their files.
        if turn >= 2 {
            seconds.push(began.elapsed().as_secs_f64());
        }
    }
    let loads = node.counts().loads;
    if loads < 2 * LOADS as u64 {
        return Err(format!("{loads} loads in {} turns: the models did not take turns", 2 * LOADS).into());
    }
    let median = middle(&mut seconds);
    let value = format!("{:.0} ms", median * 1e3);
    rows.hold("a switch between two models, to the first token", &value, "below 500 ms", median < SWITCH_BAR);
    Ok(())
}

/// Three models in the room of two, for a while: whether the books stay those of the device.
async fn soak(rows: &mut Rows, device: DeviceChoice, models: &Path, bytes: u64, time: Duration) -> Outcome<()> {
    let node = node::start(device, models, bytes, 2)?;
    let (began, mut answers, mut worst) = (Instant::now(), 0usize, None);
    while began.elapsed() < time {
        for _ in 0..2 * MODELS.len() {
            node::ask(&node, MODELS[answers % MODELS.len()], 8).await?;
            answers += 1;
        }
        // The device is asked each second, and the two are compared while nothing runs.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        let drift = node.device_now().map(|now| now.drift.unsigned_abs());
        worst = worst.max(drift);
    }
    let counts = node.counts();
    let value = format!("{} s, {answers} answers, {} evictions", began.elapsed().as_secs(), counts.evictions);
    rows.hold(
        "three models in the room of two",
        &value,
        "evictions, and no refusal",
        counts.evictions > 0 && counts.refused.iter().all(|count| *count == 0),
    );
    match worst {
        None => rows.say("books against the device", "no device that measures", ""),
        Some(worst) => {
            let part = float(worst) / float(node.usage().capacity);
            let value = format!("{} MiB ({:.2} %)", worst / MIB, part * 100.0);
            rows.hold(
                "the most that books and device differed by",
                &value,
                "below 1 % of the capacity",
                part < DRIFT_BAR,
            );
        }
    }
    Ok(())
}

/// The one in the middle.
fn middle(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn gigabytes(rate: f64) -> String {
    format!("{:.2} GB/s", rate / 1e9)
}

#[allow(clippy::cast_precision_loss, reason = "for ratios")]
fn float(bytes: u64) -> f64 {
    bytes as f64
}
