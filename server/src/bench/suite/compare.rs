//! `provost bench compare`: what changed between two runs of the suite, and which bars no longer hold.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use clap::Args;
use serde::Serialize;

use super::{
    judge::Verdict,
    report::{Figure, State, SuiteReport, shown},
};
use crate::failure::{Failure, Usage};

/// Longer than any report.
const MAX_REPORT_BYTES: u64 = 64 << 20;
/// A program may say what it likes of itself; so much of it is printed.
const MAX_SHOWN_CHARS: usize = 60;

/// What `provost bench compare` is told.
#[derive(Args)]
pub struct CompareArgs {
    /// `report.json` of the run before.
    before: PathBuf,
    /// `report.json` of the run after.
    after: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// One figure in both runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    row: String,
    figure: String,
    label: String,
    unit: String,
    before: Option<f64>,
    after: Option<f64>,
    /// After in parts of before, less one; absent: there are no two numbers, or the first is 0.
    change: Option<f64>,
    verdict_before: Verdict,
    verdict_after: Verdict,
    /// A bar that held does not hold any more.
    is_lost: bool,
}

/// Two runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    changes: Vec<Change>,
    /// Why the numbers may differ for another reason than the program.
    warnings: Vec<String>,
}

/// Compares, prints, and fails where a bar that held no longer holds.
pub fn run(args: &CompareArgs) -> anyhow::Result<()> {
    let comparison = compare(&read(&args.before)?, &read(&args.after)?);
    print(&comparison, args.json)?;
    comparison.verdict()
}

#[allow(clippy::print_stdout, reason = "the table is the command's output")]
fn print(comparison: &Comparison, json: bool) -> anyhow::Result<()> {
    match json {
        true => println!("{}", serde_json::to_string_pretty(comparison)?),
        false => println!("{comparison}"),
    }
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<SuiteReport> {
    let wrong = |cause: String| {
        let text = format!("{} is no report of `provost bench suite`: {cause}", path.display());
        Usage(Failure::new("PV-BENCH-REPORT", text, "name the report.json of a run"))
    };
    let length = path.metadata().map_err(|cause| wrong(cause.to_string()))?.len();
    if length > MAX_REPORT_BYTES {
        return Err(wrong(format!("it has {length} bytes")).into());
    }
    let text = std::fs::read(path).map_err(|cause| wrong(cause.to_string()))?;
    let report: SuiteReport = serde_json::from_slice(&text).map_err(|cause| wrong(cause.to_string()))?;
    match report.schema.strip_prefix("provost-bench-suite/") {
        Some(_) => Ok(report),
        None => Err(wrong("it has another schema".to_owned()).into()),
    }
}

/// What is found of a figure in a report.
struct Found<'a> {
    figure: Option<&'a Figure>,
    /// Its row was tried and not measured.
    is_failed: bool,
}

fn find<'a>(report: &'a SuiteReport, row: &str, figure: &str) -> Found<'a> {
    let row = report.rows.iter().find(|found| found.id == row);
    Found {
        figure: row.and_then(|row| row.figures.iter().find(|found| found.id == figure)),
        is_failed: row.is_some_and(|row| row.state == State::Failed),
    }
}

/// Every figure that either run has, in the order of the later one; then what only the earlier one has.
pub fn compare(before: &SuiteReport, after: &SuiteReport) -> Comparison {
    let mut changes = Vec::new();
    let only_before = before.figures().filter(|(row, figure)| find(after, &row.id, &figure.id).figure.is_none());
    for (row, figure) in after.figures().chain(only_before) {
        let (old, new) = (find(before, &row.id, &figure.id), find(after, &row.id, &figure.id));
        let median = |found: &Found<'_>| found.figure.and_then(|figure| figure.median);
        let verdict = |found: &Found<'_>| found.figure.map_or(Verdict::None, |figure| figure.verdict);
        let (was, is) = (median(&old), median(&new));
        let held = verdict(&old) == Verdict::Held;
        changes.push(Change {
            row: row.id.clone(),
            figure: figure.id.clone(),
            label: figure.label.clone(),
            unit: figure.unit.clone(),
            before: was,
            after: is,
            change: was.zip(is).filter(|(was, _)| *was != 0.0).map(|(was, is)| is / was - 1.0),
            verdict_before: verdict(&old),
            verdict_after: verdict(&new),
            is_lost: held && (verdict(&new) == Verdict::Missed || new.is_failed),
        });
    }
    Comparison { changes, warnings: warnings(before, after) }
}

fn warnings(before: &SuiteReport, after: &SuiteReport) -> Vec<String> {
    let (old, new) = (&before.conditions, &after.conditions);
    let table = [
        ("processor", before.machine.cpu.clone(), after.machine.cpu.clone()),
        ("processors", before.machine.cpus.to_string(), after.machine.cpus.to_string()),
        ("build", old.build.clone(), new.build.clone()),
        ("quick", old.quick.to_string(), new.quick.to_string()),
        ("upstream", old.upstream.clone(), new.upstream.clone()),
        ("file system", old.file_system.clone(), new.file_system.clone()),
        ("connections", old.connections.to_string(), new.connections.to_string()),
        ("calls/s offered", old.rate.to_string(), new.rate.to_string()),
    ];
    let differs = table.into_iter().filter(|(_, old, new)| old != new);
    differs.map(|(what, old, new)| format!("the runs differ in {what}: {} and {}", plain(&old), plain(&new))).collect()
}

/// What a report says, safe for a terminal.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_SHOWN_CHARS).collect()
}

impl Comparison {
    /// An error that names the bars that no longer hold.
    pub fn verdict(&self) -> anyhow::Result<()> {
        let lost: Vec<String> = self
            .changes
            .iter()
            .filter(|change| change.is_lost)
            .map(|change| format!("{}, {}", plain(&change.row), plain(&change.label)))
            .collect();
        if lost.is_empty() {
            return Ok(());
        }
        let text = format!("{} bars held and no longer hold: {}", lost.len(), lost.join("; "));
        let hint = "measure both again, in turn, on an idle machine: if it stays, look for what changed between them";
        Err(Failure::new("PV-BENCH-REGRESSED", text, hint).into())
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for warning in &self.warnings {
            writeln!(f, "note: {warning}")?;
        }
        write!(f, "{:<14} {:<46} {:>12} {:>12} {:>9}  verdict", "row", "figure", "before", "after", "change")?;
        for change in &self.changes {
            let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), shown);
            let moved = change.change.map_or_else(|| "-".to_owned(), |change| format!("{:+.1} %", change * 100.0));
            let label = format!("{} ({})", plain(&change.label), plain(&change.unit));
            write!(
                f,
                "\n{:<14} {label:<46} {:>12} {:>12} {moved:>9}  {}",
                plain(&change.row),
                number(change.before),
                number(change.after),
                change.verdicts()
            )?;
        }
        Ok(())
    }
}

impl Change {
    fn verdicts(&self) -> String {
        let text = match (self.verdict_before, self.verdict_after) {
            (before, after) if before == after => after.as_str().to_owned(),
            (Verdict::None, after) => after.as_str().to_owned(),
            (before, Verdict::None) => format!("{} -> not judged", before.as_str()),
            (before, after) => format!("{} -> {}", before.as_str(), after.as_str()),
        };
        if self.is_lost { format!("{text}  LOST") } else { text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::suite::{
        judge::Bar,
        report::{Row, sample_report},
    };

    fn with(rows: Vec<Row>) -> SuiteReport {
        SuiteReport { rows, ..sample_report() }
    }

    fn ratio(value: f64, doubt: Option<&str>) -> Vec<Row> {
        let figure = Figure::new("ratio", "governed / direct", "x", vec![value]).against(Bar::at_least(0.5), doubt);
        vec![Row::measured("throughput", "", vec![figure], Vec::new())]
    }

    #[test]
    fn a_bar_is_lost_when_it_held_and_is_missed_or_could_not_be_measured() {
        let held = with(ratio(0.6, None));
        let table = [
            (ratio(0.7, None), false),
            (ratio(0.4, None), true),
            (ratio(0.4, Some("drift")), false),
            (vec![Row::failed("throughput", "", "x")], true),
            (vec![Row::skipped("throughput", "", "x")], false),
            (Vec::new(), false),
        ];
        for (rows, lost) in table {
            let comparison = compare(&held, &with(rows.clone()));
            assert_eq!(comparison.verdict().is_err(), lost, "{rows:?}");
            assert_eq!(comparison.changes.len(), 1, "the figure stays in the table");
        }
        assert!(compare(&with(ratio(0.4, None)), &with(ratio(0.3, None))).verdict().is_ok(), "it never held");
    }

    #[test]
    fn changes_are_parts_of_what_was() {
        let comparison = compare(&with(ratio(0.5, None)), &with(ratio(0.4, None)));
        let change = comparison.changes[0].change.unwrap();
        assert!((change + 0.2).abs() < 1e-9, "{change}");
        let text = comparison.to_string();
        assert!(text.contains("-20.0 %") && text.contains("held -> missed  LOST"), "{text}");
    }

    #[test]
    fn runs_under_other_conditions_are_told_apart_and_control_characters_left_out() {
        let mut other = with(Vec::new());
        other.machine.cpu = "\u{1b}[2Jother".to_owned();
        let comparison = compare(&with(Vec::new()), &other);
        assert_eq!(comparison.warnings.len(), 1);
        assert!(!comparison.to_string().contains('\u{1b}'), "{comparison}");
    }

    #[test]
    fn what_is_no_report_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("report.json");
        for text in ["", "{}", "[1]", "{\"schema\":\"other/1\"}"] {
            std::fs::write(&file, text).unwrap();
            let error = read(&file).unwrap_err().to_string();
            assert!(error.starts_with("PV-BENCH-REPORT"), "{text}: {error}");
        }
        let report = with(ratio(0.6, None));
        std::fs::write(&file, serde_json::to_vec(&report).unwrap()).unwrap();
        assert_eq!(read(&file).unwrap(), report);
    }
}
