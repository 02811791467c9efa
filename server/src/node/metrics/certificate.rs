//! The certificate by which other nodes know this one.

use std::{sync::Arc, time::SystemTime};

use provost_wire::tls::{BACKDATE, Identity};

use super::{Sample, Sampler};

/// What a sampler says, and how much of the certificate's life is left.
pub fn with_certificate(sampler: Sampler, identity: Arc<Identity>) -> Sampler {
    Arc::new(move || {
        let mut samples = sampler();
        let certified = identity.certified();
        samples.push(Sample {
            name: "provost_certificate_left_ratio",
            labels: String::new(),
            help: "What is left of the life of the certificate by which other nodes know this one.",
            is_counter: false,
            value: left((certified.not_before, certified.not_after), SystemTime::now()),
        });
        samples
    })
}

/// From 1, when it was issued, to 0, when it ends.
fn left((not_before, not_after): (SystemTime, SystemTime), now: SystemTime) -> f64 {
    // Certificates of the cluster's CA are dated back by so much.
    let life = not_after.duration_since(not_before + BACKDATE).unwrap_or_default();
    let left = not_after.duration_since(now).unwrap_or_default();
    if life.is_zero() { 0.0 } else { (left.as_secs_f64() / life.as_secs_f64()).min(1.0) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_share_is_of_the_time_since_it_was_issued() {
        let issued = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let certificate = (issued - BACKDATE, issued + Duration::from_secs(100));
        for (after_s, expect) in [(0, 100.0), (75, 25.0), (100, 0.0), (500, 0.0)] {
            let share = left(certificate, issued + Duration::from_secs(after_s));
            assert!((share * 100.0 - expect).abs() < 1e-6, "{after_s} s: {share}");
        }
        // A clock that is behind, and a certificate that never held.
        assert!((left(certificate, issued - Duration::from_secs(50)) - 1.0).abs() < 1e-6);
        assert!(left((issued, issued), issued).abs() < 1e-6);
    }
}
