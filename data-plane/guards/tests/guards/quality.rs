//! Recall and precision on the corpus, as a table.

use std::collections::BTreeMap;

use provost_data_guards::{Detectors, Kind};

use crate::corpus::{
    rng::Rng,
    rows::{Row, clean, positive},
};

/// The seed of the committed corpus. Another one by `PROVOST_GUARDS_SEED`.
const SEED: u64 = 20_261_121;
const POSITIVES: usize = 400;
const NEGATIVES: usize = 5_000;
/// FNV-1a of the committed corpus: the generator cannot change unseen.
const DIGEST: u64 = 0xa189_77a4_f8c7_2e90;

const RECALL: f64 = 0.98;
const PRECISION: f64 = 0.95;

fn rows(seed: u64) -> Vec<Row> {
    let mut rng = Rng(seed);
    let mut rows: Vec<Row> =
        Kind::ALL.iter().flat_map(|k| vec![*k; POSITIVES]).map(|k| positive(k, &mut rng)).collect();
    rows.extend((0..NEGATIVES).map(|_| clean(&mut rng)));
    rows
}

fn digest(rows: &[Row]) -> u64 {
    let bytes = rows.iter().flat_map(|r| r.text.bytes().chain([0]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

#[derive(Default)]
struct Score {
    labels: u32,
    found: u32,
    wrong: u32,
}

#[test]
fn recall_and_precision() {
    let seed = std::env::var("PROVOST_GUARDS_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(SEED);
    let rows = rows(seed);
    let detectors = Detectors::new(Kind::ALL.iter().copied());
    let mut scores: BTreeMap<Kind, Score> = Kind::ALL.iter().map(|k| (*k, Score::default())).collect();
    let mut misses = Vec::new();
    for row in &rows {
        let found = detectors.scan(row.text.as_bytes());
        if let Some((kind, start, end)) = row.label {
            let score = scores.get_mut(&kind).expect("every kind");
            score.labels += 1;
            if found.iter().any(|f| (f.kind, f.start, f.end) == (kind, start, end)) {
                score.found += 1;
            } else {
                misses.push(format!("missed {kind}: {} in {}", &row.text[start..end], row.text));
            }
        }
        for f in found.iter().filter(|f| row.label != Some((f.kind, f.start, f.end))) {
            scores.get_mut(&f.kind).expect("every kind").wrong += 1;
            misses.push(format!("no {}: {} in {}", f.kind, &row.text[f.range()], row.text));
        }
    }

    let ratio = |part: u32, other: u32| f64::from(part) / f64::from((part + other).max(1));
    println!("| detector | labelled | found | false | recall | precision |\n|---|---|---|---|---|---|");
    for (kind, s) in &scores {
        let (recall, precision) = (ratio(s.found, s.labels - s.found), ratio(s.found, s.wrong));
        println!("| {kind} | {} | {} | {} | {recall:.3} | {precision:.3} |", s.labels, s.found, s.wrong);
    }
    if std::env::var("PROVOST_GUARDS_MISSES").is_ok() {
        misses.iter().for_each(|m| println!("{m}"));
    }
    assert!(seed != SEED || digest(&rows) == DIGEST, "the corpus changed: its digest is {:#x}", digest(&rows));
    for (kind, s) in &scores {
        assert!(ratio(s.found, s.labels - s.found) >= RECALL, "{kind}: too many missed");
        assert!(ratio(s.found, s.wrong) >= PRECISION, "{kind}: too many false");
    }
}
