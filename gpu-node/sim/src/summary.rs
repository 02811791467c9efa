//! What a policy was like on a mix, over several seeds.

use provost_gpu_vram::Priority;

use crate::device::{Outcome, run};
use crate::mixes::mixes;
use crate::policy::Rule;

/// One policy on one mix.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The mix.
    pub mix: &'static str,
    /// The policy.
    pub rule: Rule,
    /// Requests that were served.
    pub served: usize,
    /// Requests that were refused.
    pub refused: u64,
    /// Half of all requests waited no longer. Seconds.
    pub p50: f64,
    /// 95 of 100 requests waited no longer. Seconds.
    pub p95: f64,
    /// The same of critical requests; none where there are none.
    pub p95_critical: Option<f64>,
    /// The longest wait. Seconds.
    pub longest: f64,
    /// Weights given up, for 1,000 requests.
    pub evictions: f64,
    /// Bytes loaded again, in GiB for 1,000 requests.
    pub reload_gib: f64,
    /// Evictions sooner than four loads after the weights came, for 1,000 requests.
    pub early: f64,
    /// Those of them while the bus had been loading for more than half of the time, and not for a
    /// critical request, for 1,000 requests.
    pub busy: f64,
    /// Those of these whose model was asked for again before the four loads were over, for 1,000 requests.
    pub missed: f64,
    /// Minutes in which the bus did little but bring back what had been missed.
    pub thrash_minutes: u64,
    /// Share of the time in which the bus loaded.
    pub loading: f64,
    /// Things that a policy must not do.
    pub violations: u64,
}

/// Every policy on every mix, over these seeds.
pub fn compare(seeds: std::ops::Range<u64>) -> Vec<Summary> {
    let traces: Vec<Vec<_>> = seeds.map(mixes).collect();
    let count = traces.first().map_or(0, Vec::len);
    let mut summaries = Vec::new();
    for mix in 0..count {
        for rule in Rule::ALL {
            let runs = traces.iter().map(|traces| &traces[mix]);
            let outcomes: Vec<Outcome> = runs.map(|trace| run(trace, rule.policy(trace).as_mut())).collect();
            let name = traces.first().map_or("", |traces| traces[mix].name);
            summaries.push(summarise(name, rule, &outcomes));
        }
    }
    summaries
}

fn summarise(mix: &'static str, rule: Rule, outcomes: &[Outcome]) -> Summary {
    let waits = |only: Option<Priority>| {
        let all = outcomes.iter().flat_map(|outcome| &outcome.waits);
        let mut waits: Vec<u64> =
            all.filter(|(priority, _)| only.is_none_or(|only| only == *priority)).map(|(_, wait)| *wait).collect();
        waits.sort_unstable();
        waits
    };
    let all = waits(None);
    let critical = waits(Some(Priority::Critical));
    let sum = |what: fn(&Outcome) -> u64| outcomes.iter().map(what).sum::<u64>();
    let thousands = all.len().max(1) as f64 / 1_000.0;
    Summary {
        mix,
        rule,
        served: all.len(),
        refused: sum(|outcome| outcome.refused),
        p50: quantile(&all, 0.50),
        p95: quantile(&all, 0.95),
        p95_critical: (!critical.is_empty()).then(|| quantile(&critical, 0.95)),
        longest: quantile(&all, 1.0),
        evictions: sum(|outcome| outcome.evictions) as f64 / thousands,
        reload_gib: sum(|outcome| outcome.reload_bytes) as f64 / (1u64 << 30) as f64 / thousands,
        early: sum(|outcome| outcome.early) as f64 / thousands,
        busy: sum(|outcome| outcome.busy) as f64 / thousands,
        missed: sum(|outcome| outcome.missed) as f64 / thousands,
        thrash_minutes: sum(|outcome| outcome.thrash_minutes),
        loading: sum(|outcome| outcome.loading_micros) as f64 / sum(|outcome| outcome.total_micros).max(1) as f64,
        violations: sum(|outcome| outcome.violations),
    }
}

/// The least wait that this part of them does not exceed. Seconds.
fn quantile(sorted: &[u64], part: f64) -> f64 {
    let rank = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).map_or(0.0, |micros| *micros as f64 / 1e6)
}
