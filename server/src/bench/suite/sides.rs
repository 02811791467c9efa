//! Provost and what it stands beside, a line each: figures of several rows of one run, as a table for people. Pure.

use super::report::{Figure, SuiteReport, shown};

/// What the columns are.
pub const HEAD: [&str; 8] =
    ["", "calls/s", "x direct", "Provost is", "CPU us/call", "MB under load", "p50 us", "p99 us"];
/// The row whose sides they are.
const THROUGHPUT: &str = "throughput";
const ADDED: &str = "added-local";

/// A line for each side of the row `throughput`, in its order; none where that was not measured.
pub fn lines(report: &SuiteReport) -> Vec<Vec<String>> {
    let Some(row) = report.rows.iter().find(|row| row.id == THROUGHPUT) else { return Vec::new() };
    let sides = row.figures.iter().filter(|figure| figure.unit == "calls/s");
    sides.map(|side| line(report, &side.id)).collect()
}

fn line(report: &SuiteReport, name: &str) -> Vec<String> {
    let median = |row: &str, figure: &str| median(report, row, figure).map_or_else(|| "-".to_owned(), shown);
    let times = |figure: &str| match median(THROUGHPUT, figure) {
        text if text == "-" => text,
        text => format!("{text} x"),
    };
    // Of Provost itself the figures have names without its own.
    let (ratio, loaded) = match name {
        "governed" => ("ratio".to_owned(), "loaded".to_owned()),
        _ => (format!("ratio-{name}"), format!("loaded-{name}")),
    };
    vec![
        if name == "governed" { "Provost".to_owned() } else { name.to_owned() },
        median(THROUGHPUT, name),
        times(&ratio),
        times(&format!("over-{name}")),
        median("cpu", name),
        median("memory", &loaded),
        median(ADDED, &format!("{name}-p50")),
        median(ADDED, &format!("{name}-p99")),
    ]
}

fn median(report: &SuiteReport, row: &str, figure: &str) -> Option<f64> {
    let row = report.rows.iter().find(|found| found.id == row)?;
    let figure: &Figure = row.figures.iter().find(|found| found.id == figure)?;
    figure.median
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::suite::report::{Row, sample_report};

    #[test]
    fn each_side_has_a_line_and_what_was_not_measured_a_dash() {
        let figure = |id: &str, unit: &str, value: f64| Figure::new(id, id, unit, vec![value]);
        let throughput = vec![
            figure("direct", "calls/s", 200.0),
            figure("governed", "calls/s", 100.0),
            figure("litellm", "calls/s", 2.0),
            figure("ratio", "x", 0.5),
            figure("ratio-litellm", "x", 0.01),
            figure("over-litellm", "x", 50.0),
        ];
        let report = SuiteReport {
            rows: vec![
                Row::measured("throughput", "", throughput, Vec::new()),
                Row::measured("cpu", "", vec![figure("governed", "us/call", 60.0)], Vec::new()),
                Row::measured("memory", "", vec![figure("loaded", "MB", 120.0)], Vec::new()),
            ],
            ..sample_report()
        };
        let found = lines(&report);
        assert!(found.iter().all(|line| line.len() == HEAD.len()), "{found:?}");
        assert_eq!(found[0], ["direct", "200", "-", "-", "-", "-", "-", "-"]);
        assert_eq!(found[1], ["Provost", "100", "0.500 x", "-", "60.0", "120", "-", "-"]);
        assert_eq!(found[2], ["litellm", "2.00", "0.010 x", "50.0 x", "-", "-", "-", "-"]);
        assert!(lines(&sample_report()).is_empty());
    }
}
