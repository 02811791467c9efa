//! The memory that models run in, and who waits for it.

use provost_gpu_serve::{Counts, DeviceNow, GpuNode, RefusedFor, WAIT_BOUNDS_MS};

use super::{Sample, float};

/// [`WAIT_BOUNDS_MS`] in seconds, as text.
const BOUNDS: [&str; WAIT_BOUNDS_MS.len()] =
    ["0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "30", "60"];
const MICROS_PER_S: f64 = 1e6;

/// Memory, loads, evictions, waits and refusals.
pub(super) fn of_models(gpu: &GpuNode) -> Vec<Sample> {
    let mut samples = of_memory(gpu);
    samples.extend(gpu.device_now().into_iter().flat_map(of_device));
    samples.extend(of_counts(&gpu.counts()));
    samples
}

fn of_memory(gpu: &GpuNode) -> Vec<Sample> {
    let (usage, caches) = (gpu.usage(), gpu.kv_usage());
    let all = [
        ("capacity", usage.capacity),
        ("weights", usage.weights),
        ("reserved", usage.reserved),
        ("kv_cache", caches.capacity),
    ];
    let sample = |(purpose, bytes): (&str, u64)| Sample {
        name: "provost_device_memory_bytes",
        labels: format!("{{purpose=\"{purpose}\"}}"),
        help: "Memory of the device for models: all, that of weights, that granted to requests and caches, and of this KV caches.",
        is_counter: false,
        value: float(bytes),
    };
    all.into_iter().map(sample).collect()
}

/// What a CUDA device says itself.
fn of_device(now: DeviceNow) -> Vec<Sample> {
    let measured = [("total", now.total), ("free", now.free), ("missing", now.missing)];
    let mut samples: Vec<Sample> = measured
        .into_iter()
        .map(|(what, bytes)| Sample {
            name: "provost_device_measured_bytes",
            labels: format!("{{what=\"{what}\"}}"),
            help: "What the device says of its memory: all, what nobody has, and what the books have and the device has not.",
            is_counter: false,
            value: float(bytes),
        })
        .collect();
    let size = float(now.drift.unsigned_abs());
    samples.push(Sample {
        name: "provost_device_drift_bytes",
        labels: String::new(),
        help: "What the device had less than the books when last nothing ran; more where it is negative.",
        is_counter: false,
        value: if now.drift < 0 { -size } else { size },
    });
    samples
}

fn of_counts(counts: &Counts) -> Vec<Sample> {
    let one = |name, help, is_counter, value| Sample { name, labels: String::new(), help, is_counter, value };
    let mut samples = vec![
        one("provost_model_loads_total", "Models loaded into memory.", true, float(counts.loads)),
        one(
            "provost_model_reloads_total",
            "Of these, models that had been in memory before.",
            true,
            float(counts.reloads),
        ),
        one(
            "provost_model_loading_seconds_total",
            "Time in which models were loaded.",
            true,
            float(counts.loading_micros) / MICROS_PER_S,
        ),
        one("provost_model_evictions_total", "Models given up for others.", true, float(counts.evictions)),
        one("provost_model_waiting", "Requests to models that wait.", false, float(counts.waiting)),
        one("provost_model_running", "Requests to models that run.", false, float(counts.running)),
    ];
    samples.extend(RefusedFor::ALL.into_iter().zip(counts.refused).map(|(why, count)| Sample {
        name: "provost_model_refused_total",
        labels: format!("{{reason=\"{}\"}}", why.as_str()),
        help: "Requests refused for want of a place, of memory or of their model, by why.",
        is_counter: true,
        value: float(count),
    }));
    samples.extend(of_waits(counts));
    samples
}

fn of_waits(counts: &Counts) -> Vec<Sample> {
    let part = |name, labels, value| Sample {
        name,
        labels,
        help: "From the arrival of a request to a model until it began.",
        is_counter: true,
        value,
    };
    let mut below = 0;
    let mut samples = Vec::with_capacity(BOUNDS.len() + 3);
    for (bound, in_bucket) in BOUNDS.into_iter().chain(["+Inf"]).zip(counts.waits.counts) {
        below += in_bucket;
        samples.push(part("provost_model_wait_seconds_bucket", format!("{{le=\"{bound}\"}}"), float(below)));
    }
    let sum = float(counts.waits.sum_micros) / MICROS_PER_S;
    samples.push(part("provost_model_wait_seconds_sum", String::new(), sum));
    samples.push(part("provost_model_wait_seconds_count", String::new(), float(below)));
    samples
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_told_in_seconds() {
        for (text, ms) in BOUNDS.into_iter().zip(WAIT_BOUNDS_MS) {
            assert!((text.parse::<f64>().unwrap() * 1e3 - float(ms)).abs() < 1e-6, "{text}");
        }
    }

    #[test]
    fn what_a_device_says_is_told_with_its_sign() {
        let samples = of_device(DeviceNow { total: 8, free: 3, missing: 1, drift: -2 });
        let told: Vec<(&str, &str, f64)> =
            samples.iter().map(|sample| (sample.name, sample.labels.as_str(), sample.value)).collect();
        assert_eq!(
            told,
            [
                ("provost_device_measured_bytes", "{what=\"total\"}", 8.0),
                ("provost_device_measured_bytes", "{what=\"free\"}", 3.0),
                ("provost_device_measured_bytes", "{what=\"missing\"}", 1.0),
                ("provost_device_drift_bytes", "", -2.0),
            ]
        );
    }

    #[test]
    fn each_reason_and_each_wait_is_told() {
        let mut counts = Counts { loads: 3, reloads: 1, evictions: 2, refused: [1, 0, 4, 0, 0], ..Counts::default() };
        (counts.waits.counts[0], counts.waits.counts[13], counts.waits.sum_micros) = (2, 1, 90_500_000);
        let samples = of_counts(&counts);
        let of = |name: &str, labels: &str| {
            samples.iter().find(|sample| sample.name == name && sample.labels == labels).unwrap().value
        };
        assert_eq!(of("provost_model_reloads_total", ""), 1.0);
        assert_eq!(of("provost_model_refused_total", "{reason=\"too_large\"}"), 4.0);
        assert_eq!(of("provost_model_wait_seconds_bucket", "{le=\"60\"}"), 2.0);
        assert_eq!(of("provost_model_wait_seconds_bucket", "{le=\"+Inf\"}"), 3.0);
        assert_eq!(of("provost_model_wait_seconds_sum", ""), 90.5);
        assert_eq!(of("provost_model_wait_seconds_count", ""), 3.0);
    }
}
