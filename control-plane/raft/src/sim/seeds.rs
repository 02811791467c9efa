//! Which seeds are run, and what a failing one says.

use std::time::{Duration, Instant};

use super::{
    acked_once, leaders, linearizable, logs_agree,
    record::{Outcome, Record},
    world::{Plan, run},
};

/// Seeds of a normal test run, and when it stops to begin new ones.
const DEFAULT_SEEDS: u64 = 12;
const TIME_LIMIT: Duration = Duration::from_secs(15);

type Check = fn(&Record) -> Result<(), String>;

const INVARIANTS: [(&str, Check); 5] = [
    ("what was acknowledged is there once", acked_once::check),
    ("at most one leader a term", leaders::check),
    ("logs and machines agree", logs_agree::check),
    ("registers are linearizable", linearizable::check),
    ("no process ends by itself", |record| record.fatal.first().map_or(Ok(()), |why| Err(why.clone()))),
];

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text}")))
}

fn plan(seed: u64) -> Plan {
    Plan { seed, nodes: if seed % 4 == 3 { 5 } else { 3 }, disks_lie: false }
}

fn violations(record: &Record) -> Vec<String> {
    INVARIANTS.iter().filter_map(|(name, check)| check(record).err().map(|why| format!("{name}: {why}"))).collect()
}

fn report(seed: u64, record: &Record, broken: &[String]) -> String {
    let again =
        format!("PROVOST_SIM_SEED={seed} cargo test -p provost-control-raft sim::seeds::invariants -- --nocapture");
    format!("seed {seed}:\n  {}\nfaults:\n  {}\nreproduce: {again}", broken.join("\n  "), record.faults.join("\n  "))
}

#[test]
fn invariants_hold_whatever_fails() {
    let asked = number("PROVOST_SIM_SEEDS");
    let seeds: Vec<u64> = match number("PROVOST_SIM_SEED") {
        Some(seed) => vec![seed],
        None => (0..asked.unwrap_or(DEFAULT_SEEDS)).collect(),
    };
    let start = Instant::now();
    let (mut done, mut ran) = (0_usize, 0);
    for seed in seeds {
        if asked.is_none() && ran > 0 && start.elapsed() > TIME_LIMIT {
            break;
        }
        let record = run(&plan(seed));
        let broken = violations(&record);
        assert!(broken.is_empty(), "{}", report(seed, &record, &broken));
        let count = |f: fn(&Outcome) -> bool| record.operations.iter().filter(|op| f(&op.outcome)).count();
        let answered = count(|o| !matches!(o, Outcome::Unknown | Outcome::Refused));
        println!(
            "seed {seed}: {answered} answered, {} refused, {} unknown, {} faults, {} leaders, {:?}",
            count(|o| *o == Outcome::Refused),
            count(|o| *o == Outcome::Unknown),
            record.faults.len(),
            record.leaders.len(),
            start.elapsed(),
        );
        done += answered;
        ran += 1;
    }
    assert!(done > ran * 100, "the runs were too quiet to show anything: {done} operations in {ran}");
}

#[test]
fn a_seed_decides_everything() {
    let fingerprints = [5, 5, 6].map(|seed| run(&plan(seed)).fingerprint());
    assert_eq!(fingerprints[0], fingerprints[1], "the same seed gave two histories");
    assert_ne!(fingerprints[0], fingerprints[2]);
}

/// The model and the checks are good for something: a disk that only says that it synced is
/// found out.
#[test]
fn a_disk_that_lies_is_found_out() {
    let lost = (0..10).find_map(|seed| {
        let record = run(&Plan { disks_lie: true, ..plan(seed) });
        acked_once::check(&record).err().or_else(|| linearizable::check(&record).err())
    });
    let lost = lost.expect("ten seeds with disks that forget, and no lost write");
    println!("{lost}");
}
