//! The traffic mixes: what a node of an organisation may see, each harder than its memory.

use provost_gpu_vram::Priority;

use crate::random::Random;
use crate::trace::{Arrival, Model, Trace};

const GIB: u64 = 1 << 30;
/// A card of 80 GiB.
const CAPACITY: u64 = 80 * GIB;
/// Weights come at this many bytes a microsecond (10 GB/s: between one NVMe drive and pinned host memory).
const BYTES_PER_MICRO: u64 = 10_000;
/// Requests that run at once.
const SLOTS: usize = 16;
/// Length of a trace in seconds.
const SECONDS: f64 = 1_200.0;

/// All mixes for one seed.
pub fn mixes(seed: u64) -> Vec<Trace> {
    vec![popular(seed), bursts(seed), sizes(seed), chains(seed), batch(seed), alternating(seed)]
}

/// Twelve models, some of them asked for much more often than others (Zipf with exponent 1).
fn popular(seed: u64) -> Trace {
    let mut mix = Mix::new("popular few", seed);
    let sizes = [16, 8, 24, 16, 8, 16, 24, 8, 16, 16, 8, 24];
    let models: Vec<usize> = sizes.iter().map(|gib| mix.model(*gib, Priority::Normal)).collect();
    let weights: Vec<f64> = (1..=models.len()).map(|rank| 1.0 / rank as f64).collect();
    let mut at = 0.0;
    while at < SECONDS {
        at += mix.random.exponential(1.0 / 1.5);
        let model = models[mix.random.pick(&weights)];
        mix.chat(at, model, 2.0, Priority::Normal);
    }
    mix.trace()
}

/// Eight models that are silent for minutes and are then asked for all at once.
fn bursts(seed: u64) -> Trace {
    let mut mix = Mix::new("bursts", seed);
    for _ in 0..8 {
        let model = mix.model(20, Priority::Normal);
        let mut at = mix.random.exponential(60.0);
        while at < SECONDS {
            let mut end = at;
            let calls = 10 + mix.random.next() % 30;
            for _ in 0..calls {
                end += mix.random.exponential(0.5);
                mix.chat(end, model, 2.0, Priority::Normal);
            }
            at = end + mix.random.exponential(80.0);
        }
    }
    mix.trace()
}

/// One large model that is asked for now and then, beside many small ones and embeddings.
fn sizes(seed: u64) -> Trace {
    let mut mix = Mix::new("large beside small", seed);
    let large = mix.model(48, Priority::Normal);
    let embed = mix.model(1, Priority::Normal);
    let small: Vec<usize> = (0..8).map(|n| mix.model(6 + n % 3, Priority::Normal)).collect();
    let mut at = 0.0;
    while at < SECONDS {
        at += mix.random.exponential(1.0 / 4.0);
        match mix.random.next() % 100 {
            0..4 => mix.chat(at, large, 4.0, Priority::Normal),
            4..40 => mix.embed(at, embed),
            _ => {
                let model = small[mix.random.pick(&[1.0; 8])];
                mix.chat(at, model, 2.0, Priority::Normal);
            }
        }
    }
    mix.trace()
}

/// Agents that go from model to model: plan, look at a picture, write code, judge.
fn chains(seed: u64) -> Trace {
    let mut mix = Mix::new("chains of agents", seed);
    let models: Vec<usize> = [24, 16, 30, 16, 24].iter().map(|gib| mix.model(*gib, Priority::Normal)).collect();
    let mut began = 0.0;
    while began < SECONDS {
        began += mix.random.exponential(7.0);
        let mut at = began;
        let first = mix.random.next() as usize;
        for step in 0..4 {
            let model = models[(first + step) % models.len()];
            mix.chat(at, model, 3.0, Priority::Normal);
            at += mix.random.between(3.0, 9.0);
        }
    }
    mix.trace()
}

/// Batches in the background, people in front of them, and now and then a call that others hang on.
fn batch(seed: u64) -> Trace {
    let mut mix = Mix::new("batch beside calls", seed);
    let jobs: Vec<usize> = (0..3).map(|_| mix.model(24, Priority::Background)).collect();
    let people: Vec<usize> = (0..3).map(|_| mix.model(16, Priority::Normal)).collect();
    let judge = mix.model(12, Priority::Critical);
    let mut at = 0.0;
    while at < SECONDS {
        at += mix.random.exponential(40.0);
        let model = jobs[mix.random.pick(&[1.0; 3])];
        let calls = 20 + mix.random.next() % 20;
        for _ in 0..calls {
            mix.chat(at, model, 3.0, Priority::Background);
        }
    }
    let mut at = 0.0;
    while at < SECONDS {
        at += mix.random.exponential(2.0);
        let model = people[mix.random.pick(&[3.0, 2.0, 1.0])];
        mix.chat(at, model, 2.0, Priority::Normal);
    }
    let mut at = 0.0;
    while at < SECONDS {
        at += mix.random.exponential(15.0);
        mix.chat(at, judge, 1.0, Priority::Critical);
    }
    mix.trace()
}

/// Three models of which one fits, asked for in turn: the worst case for a minimum residency.
fn alternating(seed: u64) -> Trace {
    let mut mix = Mix::new("one fits of three", seed);
    let models: Vec<usize> = (0..3).map(|_| mix.model(50, Priority::Normal)).collect();
    let mut at = 0.0;
    while at < SECONDS {
        at += mix.random.exponential(2.5);
        let model = models[mix.random.pick(&[1.0; 3])];
        mix.chat(at, model, 1.5, Priority::Normal);
    }
    mix.trace()
}

/// A trace in the making.
struct Mix {
    random: Random,
    trace: Trace,
}

impl Mix {
    fn new(name: &'static str, seed: u64) -> Self {
        let of_name = name.bytes().fold(seed, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
        let trace = Trace { name, capacity: CAPACITY, slots: SLOTS, models: Vec::new(), arrivals: Vec::new() };
        Self { random: Random::new(of_name), trace }
    }

    fn model(&mut self, gib: u64, class: Priority) -> usize {
        let bytes = gib * GIB;
        self.trace.models.push(Model { bytes, load_micros: bytes / BYTES_PER_MICRO, class });
        self.trace.models.len() - 1
    }

    fn chat(&mut self, at: f64, model: usize, mean_seconds: f64, priority: Priority) {
        let seconds = self.random.exponential(mean_seconds).clamp(0.2, 5.0 * mean_seconds);
        let budget_bytes = (self.random.between(0.25, 1.0) * GIB as f64) as u64;
        let (at, service_micros) = (micros(at), micros(seconds));
        self.trace.arrivals.push(Arrival { at, model, budget_bytes, service_micros, priority });
    }

    fn embed(&mut self, at: f64, model: usize) {
        let service_micros = micros(self.random.between(0.02, 0.1));
        let arrival =
            Arrival { at: micros(at), model, budget_bytes: GIB / 16, service_micros, priority: Priority::Normal };
        self.trace.arrivals.push(arrival);
    }

    fn trace(mut self) -> Trace {
        self.trace.arrivals.sort_by_key(|arrival| arrival.at);
        self.trace
    }
}

fn micros(seconds: f64) -> u64 {
    (seconds * 1e6) as u64
}
