//! How long a run may take, and how hard it may try for that.
//!
//! Before anything is measured, what the wanted rows take is added up, and repetitions are given up until it fits. The
//! sum is of the loads, whose times are fixed, and of rough times for what is between them; so a row also ends when the
//! time is over, whatever it is doing.

use std::time::{Duration, Instant};

use super::{
    models,
    rows::{GROUPS, Group, Wanted},
    stage::Effort,
    tokens,
};
use crate::failure::{Failure, Usage};

/// Fewer repetitions than this bear no verdict. A quick run bears few anyway.
const LEAST_ROUNDS: u32 = 3;
/// The shortest that the measured part of a load is made.
const LEAST_SECONDS: u64 = 2;
/// Rounds and seconds of rows with many sides; see there.
const FEW_ROUNDS: u32 = 3;
const FEW_SECONDS: u64 = 3;
/// Connections before a load and its last answers after it.
const AROUND_A_LOAD: Duration = Duration::from_millis(300);
/// Starting the upstream and the peers that are started here.
const START: Duration = Duration::from_secs(5);

/// Until when a run may go on.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    total: Duration,
    began: Instant,
}

impl Budget {
    /// From now on.
    pub fn new(total: Duration) -> Self {
        Self { total, began: Instant::now() }
    }

    /// What is left of it.
    pub fn left(&self) -> Duration {
        self.total.saturating_sub(self.began.elapsed())
    }

    /// The whole of it.
    pub fn total(&self) -> Duration {
        self.total
    }

    /// The most that may be tried so that the wanted rows fit into what is left: first fewer rounds, then shorter ones.
    pub fn fit(&self, full: Effort, wanted: &Wanted, peers: usize) -> anyhow::Result<Effort> {
        let left = self.left();
        if let Some(effort) = efforts(full).find(|effort| estimate(effort, wanted, peers) <= left) {
            return Ok(effort);
        }
        let least = efforts(full).last().unwrap_or(full);
        let needed = estimate(&least, wanted, peers).as_secs() + 1;
        let text = format!("the rows take about {needed} s at the least, and --budget leaves {} s", left.as_secs());
        let hint = "give it more time, or name fewer --rows or fewer peers";
        Err(Usage(Failure::new("PV-BENCH-PLAN", text, hint)).into())
    }
}

/// From the most to the least.
fn efforts(full: Effort) -> impl Iterator<Item = Effort> {
    let least = LEAST_ROUNDS.min(full.rounds);
    let fewer = (least..=full.rounds).rev().map(move |rounds| Effort { rounds, ..full });
    let shorter = (LEAST_SECONDS..full.measured.as_secs()).rev();
    fewer.chain(shorter.map(move |s| Effort { rounds: least, measured: Duration::from_secs(s), ..full }))
}

/// How long the wanted rows take, about.
fn estimate(effort: &Effort, wanted: &Wanted, peers: usize) -> Duration {
    let groups = GROUPS.iter().filter(|group| wanted.takes_time(**group));
    groups.map(|group| of_group(*group, effort, peers)).sum::<Duration>() + START
}

/// Loads, and the time to start what they need.
fn of_group(group: Group, effort: &Effort, peers: usize) -> Duration {
    let seconds = Duration::from_secs;
    let load = effort.warmup + effort.measured + AROUND_A_LOAD;
    let short = effort.warmup + effort.measured.min(seconds(FEW_SECONDS)) + AROUND_A_LOAD;
    let (rounds, few) = (effort.rounds, effort.rounds.min(FEW_ROUNDS));
    let sides = u32::try_from(peers).unwrap_or(u32::MAX).saturating_add(2);
    match group {
        // A peer that does not hold the rate has a long round, and three at a lower one in place of the others.
        Group::Saturated | Group::AddedLocal => load * rounds.saturating_mul(sides) + seconds(2),
        Group::Transports => load * (few * 4),
        // Both sides without loss and with it, and a node of its own.
        Group::Loss => short * (few * 4) + seconds(10),
        Group::Sessions => seconds(8),
        Group::Scale if effort.quick => load * (rounds * 2) + seconds(10),
        Group::Scale => load * (rounds * 2) + seconds(60),
        // One alone and three together, and four nodes to start.
        Group::Nodes => load * (few * 2) + seconds(10),
        Group::AddedQuorum => load * (rounds * 2) + seconds(8),
        Group::Commit => seconds(2) * rounds + seconds(8),
        // A thousand nodes join; two rounds. The three that take them in are started for other rows too.
        Group::CommitThousand if effort.quick => seconds(8),
        Group::CommitThousand => seconds(12),
        // Three numbers of clients, two stores.
        Group::Writes => short * (few * 6) + seconds(12),
        // Three models are written, and a node is started.
        Group::Models => models::lasts(effort) + seconds(12),
        // Appended, appended by three voters at two rates, verified.
        Group::Audit => effort.measured * rounds + (effort.measured * 2 + seconds(5)) * few + seconds(2) * rounds,
        Group::Quota | Group::Policy => seconds(3),
        Group::Wasm => seconds(12),
        // Ten short runs under valgrind, where it is there.
        Group::Instructions => seconds(25),
        Group::Tokens => tokens::lasts(effort),
        Group::Elsewhere => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit(rows: &[&str], peers: usize, seconds: u64) -> anyhow::Result<Effort> {
        let rows: Vec<String> = rows.iter().map(|id| (*id).to_owned()).collect();
        Budget::new(Duration::from_secs(seconds)).fit(Effort::FULL, &Wanted::new(&rows), peers)
    }

    #[test]
    fn the_whole_table_beside_one_peer_fits_into_the_default_with_a_round_less_at_most() {
        let effort = fit(&[], 1, 14 * 60).unwrap();
        assert!(effort.rounds + 1 >= Effort::FULL.rounds, "{} rounds", effort.rounds);
        assert_eq!(effort.measured, Effort::FULL.measured);
    }

    #[test]
    fn repetitions_are_given_up_before_they_are_shortened_and_never_below_the_least() {
        let mut before = (u32::MAX, u64::MAX);
        let mut seen = std::collections::BTreeSet::new();
        for seconds in (1..15 * 60).rev() {
            let Ok(effort) = fit(&[], 6, seconds) else { break };
            let now = (effort.rounds, effort.measured.as_secs());
            assert!(now.0 <= before.0 && now.1 <= before.1, "{now:?} after {before:?}");
            assert!(now.0 >= LEAST_ROUNDS && now.1 >= LEAST_SECONDS, "{now:?}");
            assert!(now.1 == 5 || now.0 == LEAST_ROUNDS, "{now:?}");
            assert!(estimate(&effort, &Wanted::new(&[]), 6) <= Duration::from_secs(seconds));
            before = now;
            seen.insert(now);
        }
        assert!(seen.contains(&(LEAST_ROUNDS, LEAST_SECONDS)), "{seen:?}");
    }

    #[test]
    fn what_cannot_fit_is_said_with_what_it_takes() {
        let error = fit(&[], 1, 60).unwrap_err().to_string();
        assert!(error.contains("PV-BENCH-PLAN") && error.contains("--budget leaves "), "{error}");
        assert!(fit(&["quota"], 1, 60).is_ok());
    }

    #[test]
    fn models_beside_llama_take_time_only_where_it_is_there() {
        let rows = ["tokens".to_owned()];
        let of = |llama| estimate(&Effort::FULL, &Wanted::new(&rows).beside_llama(llama), 0);
        assert_eq!((of(false), of(true)), (START, START + tokens::lasts(&Effort::FULL)));
    }

    #[test]
    fn nothing_is_left_of_a_budget_that_is_spent() {
        let budget = Budget::new(Duration::ZERO);
        assert!(budget.left().is_zero() && budget.total().is_zero());
    }
}
