//! `report.html`: the run as one page, without a script and without anything from elsewhere.
//!
//! Invariant: whatever stands in the report, such as what a peer says that it is, is text on the page and nothing else.

use std::fmt::Write;

use super::{
    judge::Verdict,
    plot::plots,
    report::{Figure, Row, State, SuiteReport, shown},
    sides,
};

const STYLE: &str = "\
:root { color-scheme: light dark; --ink: #1c2024; --soft: #60646c; --line: #d9d9e0; --page: #fcfcfd; --held: #2b9a66; \
--missed: #ce2c31; --plain: #8b8d98; --bar: #1c2024; }
@media (prefers-color-scheme: dark) { :root { --ink: #edeef0; --soft: #b0b4ba; --line: #363a3f; --page: #111113; \
--held: #33b074; --missed: #ec5d5e; --plain: #696e77; --bar: #edeef0; } }
body { margin: 0 auto; max-width: 60rem; padding: 1.5rem 1rem 4rem; background: var(--page); color: var(--ink); \
font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin: 2.5rem 0 0.5rem; overflow-wrap: anywhere; }
.soft { color: var(--soft); } .held { color: var(--held); } .missed { color: var(--missed); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.875rem; min-width: 100%; }
th, td { text-align: left; padding: 0.3rem 0.8rem 0.3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
svg { display: block; width: 100%; height: auto; margin: 0.5rem 0; }
svg text { font: 12px system-ui, sans-serif; fill: var(--ink); } svg .label { text-anchor: end; }
svg .held { fill: var(--held); } svg .missed { fill: var(--missed); } svg .plain { fill: var(--plain); }
svg rect { opacity: 0.55; } svg .one { fill: var(--ink); }
svg .bar { stroke: var(--bar); stroke-width: 1.5; stroke-dasharray: 3 2; }
";

/// Text as it stands between tags and in attributes.
pub fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            // No document may hold others.
            c if c.is_control() && c != '\n' && c != '\t' => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}

/// The page.
pub fn page(report: &SuiteReport) -> String {
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n<meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\"/>\n<title>Provost {version}: benchmark</title>\n\
         <style>{STYLE}</style>\n</head>\n<body>\n<h1>Provost {version}: benchmark</h1>\n<p>{}</p>\n",
        summary(report),
        version = escaped(&report.version)
    );
    page.push_str(&facts(report));
    page.push_str(&overview(report));
    page.push_str(&beside(report));
    for row in &report.rows {
        page.push_str(&section(row));
    }
    page.push_str("</body>\n</html>\n");
    page
}

fn summary(report: &SuiteReport) -> String {
    let count = |verdict| report.count(verdict);
    let rows = |state| report.rows.iter().filter(|row| row.state == state).count();
    format!(
        "Bars: <span class=\"held\">{} held</span>, <span class=\"missed\">{} missed</span>, {} without a verdict. Rows: \
         {} measured, {} not measurable here, {} failed.",
        count(Verdict::Held),
        count(Verdict::Missed),
        count(Verdict::Refused),
        rows(State::Measured),
        rows(State::Skipped),
        rows(State::Failed)
    )
}

/// A table whose cells are text.
fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut text = String::from("<div class=\"scroll\"><table>\n");
    let cells = |cells: &[String], tag: &str| {
        let cells: String = cells.iter().map(|cell| format!("<{tag}>{}</{tag}>", escaped(cell))).collect();
        format!("<tr>{cells}</tr>\n")
    };
    if !head.is_empty() {
        let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
        text.push_str(&cells(&head, "th"));
    }
    for row in rows {
        text.push_str(&cells(row, "td"));
    }
    text.push_str("</table></div>\n");
    text
}

fn facts(report: &SuiteReport) -> String {
    let (machine, conditions) = (&report.machine, &report.conditions);
    let averages = |load: &[f64]| load.iter().map(|one| format!("{one:.2}")).collect::<Vec<_>>().join(" ");
    let fact = |what: &str, how: String| vec![what.to_owned(), how];
    let gib = machine.memory_bytes as f64 / f64::from(1 << 30);
    let mut rows = vec![
        fact("begun, took", format!("{}, {:.0} s", report.started, report.took_s)),
        fact("machine", format!("{} x {}, {gib:.1} GiB, {}", machine.cpus, machine.cpu, machine.kernel)),
        fact(
            "load averages",
            format!("{} before, {} after", averages(&machine.load_before), averages(&machine.load_after)),
        ),
        fact("version", version(report)),
        fact("build, file system", format!("{}, {}", conditions.build, conditions.file_system)),
        fact(
            "each comparison",
            format!(
                "{} rounds of {} s after {} s, {} connections, {} calls/s in an open loop",
                conditions.rounds, conditions.seconds, conditions.warmup_s, conditions.connections, conditions.rate
            ),
        ),
        fact("upstream", conditions.upstream.clone()),
    ];
    rows.extend(conditions.notes.iter().map(|note| fact("note", note.clone())));
    rows.extend(report.peers.iter().map(|peer| {
        let version = if peer.version.is_empty() { String::new() } else { format!(" ({})", peer.version) };
        fact(&format!("peer {}", peer.name), format!("{}{version}", peer.part))
    }));
    table(&[], &rows)
}

fn version(report: &SuiteReport) -> String {
    match report.conditions.commit.as_str() {
        "" => report.version.clone(),
        commit => format!("{} ({commit})", report.version),
    }
}

/// Provost beside direct calls and peers.
fn beside(report: &SuiteReport) -> String {
    let lines = sides::lines(report);
    match lines.is_empty() {
        true => String::new(),
        false => format!("<h2 id=\"beside\">Side by side</h2>\n{}", table(&sides::HEAD, &lines)),
    }
}

/// The bars, and the rows that were not measured.
fn overview(report: &SuiteReport) -> String {
    let mut rows = Vec::new();
    for row in &report.rows {
        for figure in row.figures.iter().filter(|figure| figure.bar.is_some()) {
            rows.push(vec![
                row.title.clone(),
                figure.label.clone(),
                median(figure),
                bar(figure),
                figure.verdict.as_str().to_owned(),
            ]);
        }
        if let Some(why) = &row.why {
            let state = if row.state == State::Failed { "failed" } else { "not here" };
            rows.push(vec![row.title.clone(), why.clone(), String::new(), String::new(), state.to_owned()]);
        }
    }
    table(&["row", "figure", "median", "bar", "verdict"], &rows)
}

fn median(figure: &Figure) -> String {
    figure.median.map_or_else(|| "-".to_owned(), |median| format!("{} {}", shown(median), figure.unit))
}

fn bar(figure: &Figure) -> String {
    figure.bar.map_or_else(String::new, |bar| format!("{} {} {}", bar.sign(), shown(bar.value), figure.unit))
}

fn section(row: &Row) -> String {
    let mut text = format!("<h2 id=\"{id}\">{}</h2>\n", escaped(&row.title), id = escaped(&row.id));
    if let Some(why) = &row.why {
        let word = if row.state == State::Failed { "Failed" } else { "Not measured" };
        // Writing to a string does not fail.
        let _ = writeln!(text, "<p class=\"soft\">{word}: {}</p>", escaped(why));
        return text;
    }
    text.push_str(&plots(row));
    text.push_str("<div class=\"scroll\"><table>\n");
    text.push_str("<tr><th>figure</th><th>median</th><th>bar</th><th>verdict</th><th>repetitions</th></tr>\n");
    for figure in &row.figures {
        let class = match figure.verdict {
            Verdict::Held => "held",
            Verdict::Missed => "missed",
            Verdict::Refused | Verdict::None => "soft",
        };
        let why = figure.why.as_ref().map_or_else(String::new, |why| format!(": {why}"));
        let each = figure.repetitions.iter().map(|value| shown(*value)).collect::<Vec<_>>().join(", ");
        let _ = writeln!(
            text,
            "<tr><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"{class}\">{}{}</td><td>{each}</td></tr>",
            escaped(&figure.label),
            escaped(&median(figure)),
            escaped(&bar(figure)),
            figure.verdict.as_str(),
            escaped(&why)
        );
    }
    text.push_str("</table></div>\n");
    for note in &row.notes {
        let _ = writeln!(text, "<p class=\"soft\">{}</p>", escaped(note));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::suite::{
        judge::Bar,
        report::{PeerFact, sample_report},
    };

    const HOSTILE: &str = "</td><script>alert('1')</script>\"&\u{1b}";

    fn hostile() -> SuiteReport {
        let mut report = sample_report();
        let figure = Figure::new(HOSTILE, HOSTILE, HOSTILE, vec![1.0, 2.0]).against(Bar::at_least(1.0), Some(HOSTILE));
        report.version = HOSTILE.to_owned();
        report.machine.cpu = HOSTILE.to_owned();
        report.conditions.notes.push(HOSTILE.to_owned());
        report.conditions.commit = HOSTILE.to_owned();
        let text = || HOSTILE.to_owned();
        report.peers.push(PeerFact { name: text(), version: text(), part: text() });
        report.rows = vec![
            Row::measured("throughput", HOSTILE, vec![Figure::new(HOSTILE, "", "calls/s", vec![1.0])], Vec::new()),
            Row::measured(HOSTILE, HOSTILE, vec![figure], vec![text()]),
            Row::skipped("skipped", HOSTILE, HOSTILE),
            Row::failed("failed", HOSTILE, HOSTILE),
        ];
        report
    }

    /// Fails unless every tag is closed where it must be.
    fn check_tags(page: &str) {
        let mut open: Vec<&str> = Vec::new();
        for part in page.split('<').skip(1) {
            let (tag, _) = part.split_once('>').expect("a tag ends");
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name), "{tag}");
            } else if !tag.ends_with('/') && !tag.starts_with('!') {
                open.push(tag.split_whitespace().next().expect("a tag has a name"));
            }
        }
        assert!(open.is_empty(), "{open:?}");
    }

    #[test]
    fn what_a_report_holds_is_text_and_the_page_is_well_formed() {
        let page = page(&hostile());
        check_tags(&page);
        assert!(!page.contains("<script") && !page.contains('\u{1b}'), "{page}");
        assert!(page.contains("&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&quot;&amp;"), "{page}");
    }

    #[test]
    fn the_page_asks_nobody_for_anything() {
        let page = page(&hostile());
        for word in ["src=", "href=", "url(", "@import", "http://", "https://"] {
            assert!(!page.contains(word), "{word}");
        }
        // Wide tables scroll by themselves.
        assert_eq!(page.matches("<table>").count(), page.matches("<div class=\"scroll\"><table>").count());
    }
}
