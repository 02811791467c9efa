//! The comparison as a table in Markdown.

use std::fmt::Write;

use crate::summary::Summary;

/// One line for each mix and policy.
pub fn table(summaries: &[Summary]) -> String {
    let mut table = String::from(
        "| mix | policy | p50 wait | p95 wait | longest | evictions / 1,000 | reloaded GiB / 1,000 | early / 1,000 | busy | missed | thrash | bus |\n\
         |---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    let mut before = "";
    for summary in summaries {
        let mix = if summary.mix == before { "" } else { summary.mix };
        before = summary.mix;
        let line = format!(
            "| {mix} | {} | {:.2} s | {:.2} s | {:.1} s | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {} min | {:.0} % |",
            summary.rule.name(),
            summary.p50,
            summary.p95,
            summary.longest,
            summary.evictions,
            summary.reload_gib,
            summary.early,
            summary.busy,
            summary.missed,
            summary.thrash_minutes,
            summary.loading * 100.0,
        );
        // Writing to a string does not fail.
        let _ = writeln!(table, "{line}");
    }
    table
}
