//! Loads of a comparison: every side in turn, round after round, so that what the machine does meets all of them.

use indicatif::ProgressBar;
use provost_client::Transport;

use super::program::{LOOK_EVERY, START_LIMIT};
use crate::{
    bench::{
        Era,
        client::Target,
        plan::Plan,
        process::Watched,
        report::Report,
        worker::{self, Outcome},
    },
    failure::Failure,
};

/// A run in which the generator itself was late says nothing; it is made again so often.
const MAX_TRIES: usize = 4;

/// What is called in a comparison.
#[derive(Clone)]
pub struct Side {
    /// `direct`, `governed`, the name of a peer.
    pub name: String,
    /// How it is called.
    pub target: Target,
    /// What carries the calls.
    pub transport: Transport,
    /// The protocol that it speaks.
    pub era: Era,
    /// Its process, where that is known.
    pub watched: Option<Watched>,
}

/// The figures of one run.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// Calls answered a second.
    pub throughput: f64,
    /// Median latency.
    pub p50_us: f64,
    /// The latency that one call in a hundred exceeds.
    pub p99_us: f64,
    /// CPU time of the process for each call.
    pub cpu_us: Option<f64>,
    /// Its resident memory at the end.
    pub rss_bytes: Option<u64>,
}

/// All runs of one side.
pub struct Measured {
    /// Of the side.
    pub name: String,
    /// One a round.
    pub runs: Vec<Run>,
    /// Why it has fewer than there are rounds.
    pub failed: Option<String>,
}

impl Run {
    fn of(outcome: &Outcome) -> Self {
        let latency = &outcome.tally.latency;
        Self {
            throughput: latency.len() as f64 / outcome.elapsed.as_secs_f64().max(1e-9),
            p50_us: latency.value_at_quantile(0.5) as f64 / 1e3,
            p99_us: latency.value_at_quantile(0.99) as f64 / 1e3,
            cpu_us: outcome.cost.map(|cost| cost.cpu_us_per_call),
            rss_bytes: outcome.cost.map(|cost| cost.rss_bytes_after),
        }
    }
}

impl Measured {
    /// One number of each run.
    pub fn each(&self, of: impl Fn(&Run) -> f64) -> Vec<f64> {
        self.runs.iter().map(of).collect()
    }

    /// One number of each run that has it.
    pub fn each_known(&self, of: impl Fn(&Run) -> Option<f64>) -> Vec<f64> {
        self.runs.iter().filter_map(of).collect()
    }

    /// Joins each run with the plain one of its round.
    pub fn beside(&self, plain: &Self, join: impl Fn(&Run, &Run) -> f64) -> Vec<f64> {
        self.runs.iter().zip(&plain.runs).map(|(own, plain)| join(own, plain)).collect()
    }
}

/// Runs the load against each side in turn, `rounds` times. A side that fails is left out from then on; whether the
/// row can do without it is for the caller to say.
pub async fn interleaved(plan: &Plan, sides: &[Side], rounds: u32, row: &str, bar: &ProgressBar) -> Vec<Measured> {
    let named = |side: &Side| Measured { name: side.name.clone(), runs: Vec::new(), failed: None };
    let mut measured: Vec<Measured> = sides.iter().map(named).collect();
    for round in 1..=rounds {
        for (side, into) in sides.iter().zip(&mut measured) {
            if into.failed.is_some() {
                continue;
            }
            bar.set_message(format!("{row}: {}, round {round} of {rounds}", side.name));
            match once(plan, side).await {
                Ok(run) => into.runs.push(run),
                Err(cause) => into.failed = Some(format!("{cause:#}")),
            }
        }
    }
    measured
}

/// Adds the runs of a further round. A side that failed in any has failed.
pub fn join_round(all: &mut Vec<Measured>, round: Vec<Measured>) {
    if all.is_empty() {
        *all = round;
        return;
    }
    for (side, more) in all.iter_mut().zip(round) {
        side.runs.extend(more.runs);
        side.failed = side.failed.take().or(more.failed);
    }
}

async fn once(plan: &Plan, side: &Side) -> anyhow::Result<Run> {
    let mut tries = 1;
    loop {
        let outcome = Box::pin(worker::drive(plan, &side.target, side.watched)).await?;
        let verdict = Report::new(&side.name, side.transport, "", plan, side.era, &outcome).verdict();
        match verdict {
            Ok(()) => return Ok(Run::of(&outcome)),
            Err(cause) if tries < MAX_TRIES && is_late(&cause) => tries += 1,
            Err(cause) => return Err(cause),
        }
    }
}

fn is_late(cause: &anyhow::Error) -> bool {
    cause.downcast_ref::<Failure>().is_some_and(|failure| failure.code == "PV-BENCH-LAG")
}

/// The sides of these names; an error if one of them failed.
pub fn all_of<'a, const N: usize>(measured: &'a [Measured], names: [&str; N]) -> anyhow::Result<[&'a Measured; N]> {
    let mut found = Vec::with_capacity(N);
    for name in names {
        let side = measured.iter().find(|side| side.name == name);
        match side {
            Some(Measured { failed: Some(cause), .. }) => anyhow::bail!("{name}: {cause}"),
            Some(side) => found.push(side),
            None => anyhow::bail!("PV-BENCH: {name} was not measured"),
        }
    }
    found.try_into().map_err(|_| anyhow::anyhow!("PV-BENCH: sides are missing"))
}

/// Waits until a call goes through: nodes take resources, tokens and units of quotas moments after they serve.
pub async fn until_answered(target: &Target) -> anyhow::Result<()> {
    let began = tokio::time::Instant::now();
    loop {
        match Box::pin(target.probe()).await {
            Ok(()) => return Ok(()),
            Err(cause) if began.elapsed() > START_LIMIT => return Err(cause),
            Err(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(name: &str, throughputs: &[f64], failed: Option<&str>) -> Measured {
        let run = |throughput: &f64| Run {
            throughput: *throughput,
            p50_us: 0.0,
            p99_us: 0.0,
            cpu_us: (*throughput > 1.0).then_some(*throughput),
            rss_bytes: None,
        };
        Measured {
            name: name.to_owned(),
            runs: throughputs.iter().map(run).collect(),
            failed: failed.map(str::to_owned),
        }
    }

    #[test]
    fn sides_are_compared_within_their_round() {
        let (direct, governed) = (side("direct", &[100.0, 200.0], None), side("governed", &[50.0, 50.0], None));
        assert_eq!(governed.beside(&direct, |own, plain| own.throughput / plain.throughput), [0.5, 0.25]);
        assert_eq!(side("x", &[1.0, 2.0], None).each_known(|run| run.cpu_us), [2.0]);
    }

    #[test]
    fn a_side_that_failed_is_an_error_with_its_cause() {
        let measured = [side("direct", &[1.0], None), side("nginx", &[], Some("PV-BENCH-ERRORS: x"))];
        assert!(all_of(&measured, ["direct"]).is_ok());
        for (name, expect) in [("nginx", "PV-BENCH-ERRORS"), ("other", "not measured")] {
            let error = all_of(&measured, ["direct", name]).err().unwrap().to_string();
            assert!(error.contains(expect), "{error}");
        }
    }

    #[test]
    fn rounds_are_joined_side_by_side_and_one_failure_stays() {
        let mut all = Vec::new();
        join_round(&mut all, vec![side("a", &[1.0], None), side("b", &[2.0], Some("x"))]);
        join_round(&mut all, vec![side("a", &[3.0], None), side("b", &[4.0], None)]);
        assert_eq!(all[0].each(|run| run.throughput), [1.0, 3.0]);
        assert_eq!((all[0].failed.as_deref(), all[1].failed.as_deref()), (None, Some("x")));
    }

    #[test]
    fn only_a_late_generator_is_worth_another_try() {
        let failure = |code: &str| anyhow::Error::from(Failure::new(code, "x", "y"));
        assert!(is_late(&failure("PV-BENCH-LAG")));
        assert!(!is_late(&failure("PV-BENCH-ERRORS")) && !is_late(&anyhow::anyhow!("x")));
    }
}
