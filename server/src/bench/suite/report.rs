//! What a run of the suite leaves: the form of `report.json`. Pure.
//!
//! Invariants: every figure carries each of its repetitions; a row that was not measured says why; numbers are
//! finite. Fields are only ever added: `compare` reads reports of other versions.

use serde::{Deserialize, Serialize};

use super::{
    judge::{self, Bar, Verdict},
    machine::Machine,
};

/// The form of the file.
pub const SCHEMA: &str = "provost-bench-suite/1";

/// A whole run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SuiteReport {
    /// [`SCHEMA`].
    pub schema: String,
    /// Of the program.
    pub version: String,
    /// When it began, RFC 3339.
    pub started: String,
    /// How long it took, seconds.
    pub took_s: f64,
    /// Where it ran.
    pub machine: Machine,
    /// How it was run.
    pub conditions: Conditions,
    /// What was found to compare with.
    pub peers: Vec<PeerFact>,
    /// The table.
    pub rows: Vec<Row>,
}

/// How it was run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Conditions {
    /// Fewer, shorter repetitions and smaller states.
    pub quick: bool,
    /// Repetitions of each side of a comparison.
    pub rounds: u32,
    /// The measured part of each load, seconds.
    pub seconds: f64,
    /// Load before it, seconds.
    pub warmup_s: f64,
    /// Connections of the generator.
    pub connections: usize,
    /// Calls offered a second in an open loop.
    pub rate: f64,
    /// What `direct` is.
    pub upstream: String,
    /// The build: `release` or `debug`.
    pub build: String,
    /// The file system under the data directories.
    pub file_system: String,
    /// The longest that the run was to take, seconds.
    #[serde(default)]
    pub budget_s: f64,
    /// What the program was built from, where that was said; else empty.
    #[serde(default)]
    pub commit: String,
    /// Other things to know of this run.
    pub notes: Vec<String>,
}

/// Another program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerFact {
    /// What it is called here.
    pub name: String,
    /// What it says that it is; empty: it was not asked.
    pub version: String,
    /// Whether and how it takes part.
    pub part: String,
}

/// Whether a row was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It was.
    Measured,
    /// It cannot be measured here.
    Skipped,
    /// It could be, and was not: the measurement failed.
    Failed,
}

/// A row of the table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Its name on the command line.
    pub id: String,
    /// What it measures.
    pub title: String,
    /// Whether it was measured.
    pub state: State,
    /// Why it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The figures.
    #[serde(default)]
    pub figures: Vec<Figure>,
    /// What to know about them.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// A number with its repetitions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// Its name within the row, the same from version to version.
    pub id: String,
    /// For people.
    pub label: String,
    /// Of all its numbers.
    pub unit: String,
    /// One a round.
    pub repetitions: Vec<f64>,
    /// Their median; absent: there are none.
    pub median: Option<f64>,
    /// What it is held against.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bar: Option<Bar>,
    /// Whether that holds.
    pub verdict: Verdict,
    /// Why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

impl Figure {
    /// A figure without a bar. Repetitions that are not finite are left out.
    pub fn new(id: &str, label: impl Into<String>, unit: &str, repetitions: Vec<f64>) -> Self {
        let repetitions: Vec<f64> = repetitions.into_iter().filter(|value| value.is_finite()).collect();
        Self {
            id: id.to_owned(),
            label: label.into(),
            unit: unit.to_owned(),
            median: judge::median(&repetitions),
            repetitions,
            bar: None,
            verdict: Verdict::None,
            why: None,
        }
    }

    /// The same held against a bar. With a doubt no verdict is given.
    pub fn against(mut self, bar: Bar, doubt: Option<&str>) -> Self {
        self.bar = Some(bar);
        (self.verdict, self.why) = match (self.median, doubt) {
            (None, _) => (Verdict::Refused, Some("nothing was measured".to_owned())),
            (Some(_), Some(doubt)) => (Verdict::Refused, Some(doubt.to_owned())),
            (Some(median), None) if bar.holds(median) => (Verdict::Held, None),
            (Some(_), None) => (Verdict::Missed, None),
        };
        self
    }
}

impl Row {
    /// A row whose figures are there.
    pub fn measured(id: &str, title: &str, figures: Vec<Figure>, notes: Vec<String>) -> Self {
        Self { id: id.to_owned(), title: title.to_owned(), state: State::Measured, why: None, figures, notes }
    }

    /// A row that cannot be measured here.
    pub fn skipped(id: &str, title: &str, why: impl Into<String>) -> Self {
        Self { state: State::Skipped, why: Some(why.into()), ..Self::measured(id, title, Vec::new(), Vec::new()) }
    }

    /// A row whose measurement failed.
    pub fn failed(id: &str, title: &str, why: impl Into<String>) -> Self {
        Self { state: State::Failed, ..Self::skipped(id, title, why) }
    }
}

impl SuiteReport {
    /// Every figure with its row.
    pub fn figures(&self) -> impl Iterator<Item = (&Row, &Figure)> {
        self.rows.iter().flat_map(|row| row.figures.iter().map(move |figure| (row, figure)))
    }

    /// How many figures have this verdict.
    pub fn count(&self, verdict: Verdict) -> usize {
        self.figures().filter(|(_, figure)| figure.verdict == verdict).count()
    }

    /// Takes back every verdict, with the reason.
    pub fn refuse(&mut self, why: &str) {
        let judged = self.rows.iter_mut().flat_map(|row| row.figures.iter_mut()).filter(|figure| figure.bar.is_some());
        for figure in judged {
            (figure.verdict, figure.why) = (Verdict::Refused, Some(why.to_owned()));
        }
    }

    /// Rows whose measurement failed.
    pub fn failed(&self) -> Vec<&Row> {
        self.rows.iter().filter(|row| row.state == State::Failed).collect()
    }
}

/// A number as people read it: enough digits, and no more.
pub fn shown(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => grouped(value),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 || size == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// Without a fraction, in groups of three digits.
fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::with_capacity(digits.len() + digits.len() / 3 + 1);
    if value < 0.0 {
        text.push('-');
    }
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A report without rows, for tests.
#[cfg(test)]
pub fn sample_report() -> SuiteReport {
    SuiteReport {
        schema: SCHEMA.to_owned(),
        version: "1.2.3".to_owned(),
        started: "2026-11-22T12:00:00Z".to_owned(),
        took_s: 12.5,
        machine: Machine { cpu: "a processor".to_owned(), cpus: 2, memory_bytes: 8 << 30, ..Machine::default() },
        conditions: Conditions {
            quick: true,
            rounds: 2,
            seconds: 2.0,
            warmup_s: 0.5,
            connections: 16,
            rate: 500.0,
            upstream: "its own".to_owned(),
            build: "release".to_owned(),
            file_system: "ext4".to_owned(),
            budget_s: 840.0,
            commit: String::new(),
            notes: Vec::new(),
        },
        peers: Vec::new(),
        rows: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_judged_by_its_median_unless_there_is_a_doubt() {
        let ratio = || Figure::new("ratio", "governed / direct", "x", vec![0.4, 0.6, 0.55]);
        let bar = Bar::at_least(0.5);
        assert_eq!(ratio().against(bar, None).verdict, Verdict::Held);
        assert_eq!(ratio().against(Bar::at_least(0.56), None).verdict, Verdict::Missed);
        let doubted = ratio().against(bar, Some("it drifts"));
        assert_eq!((doubted.verdict, doubted.why.as_deref()), (Verdict::Refused, Some("it drifts")));
        let empty = Figure::new("ratio", "x", "x", vec![f64::NAN]).against(bar, None);
        assert_eq!((empty.verdict, empty.median), (Verdict::Refused, None));
    }

    #[test]
    fn numbers_have_the_digits_that_mean_something() {
        for (value, expect) in [
            (0.0, "0.00"),
            (0.1234, "0.123"),
            (1.5, "1.50"),
            (12.34, "12.3"),
            (123.4, "123"),
            (1_234.0, "1,234"),
            (-1_234_567.0, "-1,234,567"),
        ] {
            assert_eq!(shown(value), expect);
        }
    }
}
