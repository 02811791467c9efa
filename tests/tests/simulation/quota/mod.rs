//! Invariant: no quota is ever exceeded, whatever is lost, repeated, late, cut off or restarted.
//!
//! Five nodes with the real local balances, one real ledger, and a network between them that is
//! simulated, as are the clocks: every run of a seed is the same.

mod changed;
mod network;
mod world;

use provost_types::{QuotaUnit, QuotaWindow};

use crate::seeds::run;
use world::{Faults, Load, World};

const LIMIT: u64 = 10_000;
/// Of a healthy run, at least so many are admitted.
const ENOUGH: u64 = 9_990;
const SEEDS: u64 = 200;

#[test]
fn a_calendar_quota_admits_its_limit_and_no_more() {
    run("a_calendar_quota_admits_its_limit_and_no_more", SEEDS, |seed| {
        // Every fifth run is healthy.
        let faults = if seed % 5 == 0 { Faults::None } else { Faults::All };
        let window = if seed % 2 == 0 { QuotaWindow::Month } else { QuotaWindow::Hour };
        // A third of the runs is slow, and most nodes have nothing to do: they give units back.
        let (calls, mean_gap_us, phase) = if seed % 3 == 0 { (14_000, 2_000, 4_000) } else { (12_500, 500, 0) };
        let load = Load { calls, mean_gap_us, phase, longest_cut_ms: 8_000, longest_call_ms: 40 };
        let mut world = World::new(seed, LIMIT, QuotaUnit::Calls, Some(window), faults, load);
        world.run();
        for (window_end, admitted) in &world.admitted {
            assert!(*admitted <= LIMIT, "{admitted} calls in the window that ends at {window_end}");
        }
        let all: u64 = world.admitted.values().sum();
        match faults {
            Faults::None => assert!(all >= ENOUGH, "only {all} of {LIMIT} were admitted"),
            // The faults must leave something to test.
            Faults::All => assert!(all > LIMIT / 10, "only {all} of {LIMIT} were admitted"),
        }
    });
}

#[test]
fn no_second_holds_more_calls_than_the_rate() {
    run("no_second_holds_more_calls_than_the_rate", SEEDS / 5, |seed| {
        let faults = if seed % 5 == 0 { Faults::None } else { Faults::All };
        let phase = if seed % 3 == 0 { 3_000 } else { 0 };
        let load = Load { calls: 18_000, mean_gap_us: 5_000, phase, longest_cut_ms: 60_000, longest_call_ms: 40 };
        let (limit, window) = (60, Some(QuotaWindow::Second));
        let mut world = World::new(seed, limit, QuotaUnit::Calls, window, faults, load);
        world.run();
        let (fullest, seconds) = (world.fullest_second(), world.seconds());
        assert!(fullest <= limit, "{fullest} calls in one second");
        let all = world.admitted.values().sum::<u64>();
        // Where the load moves from node to node, shares follow within seconds.
        let enough = match (faults, phase) {
            (Faults::None, 0) => 40,
            (Faults::None, _) => 30,
            (Faults::All, _) => 2,
        };
        assert!(all / seconds >= enough, "only {all} calls in {seconds} s");
    });
}

#[test]
fn no_more_calls_run_at_once_than_there_are_slots() {
    run("no_more_calls_run_at_once_than_there_are_slots", SEEDS / 5, |seed| {
        let faults = if seed % 5 == 0 { Faults::None } else { Faults::All };
        let phase = if seed % 3 == 0 { 1_000 } else { 0 };
        let load = Load { calls: 6_000, mean_gap_us: 15_000, phase, longest_cut_ms: 60_000, longest_call_ms: 1_500 };
        let mut world = World::new(seed, 20, QuotaUnit::Concurrent, None, faults, load);
        world.run();
        assert!(world.most_at_once <= 20, "{} at once", world.most_at_once);
        assert!(faults == Faults::All || world.most_at_once >= 18, "only {} at once", world.most_at_once);
    });
}
