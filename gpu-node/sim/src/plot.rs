//! The p95 waits as bars, in SVG.

use std::fmt::Write;

use crate::policy::Rule;
use crate::summary::Summary;

const WIDTH: f64 = 760.0;
const LEFT: f64 = 150.0;
const BAR: f64 = 12.0;
const GROUP: f64 = 79.0;
const TOP: f64 = 50.0;
/// Waits below this are drawn as this: the scale is logarithmic. Seconds.
const LEAST: f64 = 0.1;

/// Bars of the p95 wait, a group for each mix, on a logarithmic scale.
pub fn plot(summaries: &[Summary]) -> String {
    let mut mixes: Vec<&str> = summaries.iter().map(|summary| summary.mix).collect();
    mixes.dedup();
    let most = summaries.iter().map(|summary| summary.p95).fold(1.0, f64::max);
    let decades = (most / LEAST).log10().ceil().max(1.0);
    let x = |seconds: f64| LEFT + (seconds.max(LEAST) / LEAST).log10() / decades * (WIDTH - LEFT - 70.0);
    let bottom = TOP + mixes.len() as f64 * GROUP;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{:.0}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"{LEFT}\" y=\"16\" font-size=\"13\">95 of 100 requests waited no longer than (seconds, logarithmic)</text>\n",
        bottom + 24.0
    );
    for (at, rule) in Rule::ALL.iter().enumerate() {
        let left = LEFT + at as f64 * 122.0;
        let _ = writeln!(
            svg,
            "<rect x=\"{left:.0}\" y=\"26\" width=\"10\" height=\"10\" fill=\"{}\"/><text x=\"{:.0}\" y=\"35\">{}</text>",
            colour(*rule),
            left + 14.0,
            rule.name()
        );
    }
    for decade in 0..=decades as i32 {
        let seconds = LEAST * 10f64.powi(decade);
        let at = x(seconds);
        let _ = writeln!(
            svg,
            "<line x1=\"{at:.1}\" y1=\"{TOP}\" x2=\"{at:.1}\" y2=\"{bottom:.0}\" stroke=\"#ddd\"/>\
             <text x=\"{at:.1}\" y=\"{:.0}\" text-anchor=\"middle\">{seconds}</text>",
            bottom + 16.0
        );
    }
    for (group, mix) in mixes.iter().enumerate() {
        let top = TOP + group as f64 * GROUP + 6.0;
        let _ = writeln!(svg, "<text x=\"8\" y=\"{:.0}\">{mix}</text>", top + 2.0 * BAR + 4.0);
        for (row, summary) in summaries.iter().filter(|summary| summary.mix == *mix).enumerate() {
            let y = top + row as f64 * (BAR + 1.0);
            let end = x(summary.p95);
            let _ = writeln!(
                svg,
                "<rect x=\"{LEFT}\" y=\"{y:.0}\" width=\"{:.1}\" height=\"{BAR}\" fill=\"{}\"/>\
                 <text x=\"{:.1}\" y=\"{:.0}\">{:.2}</text>",
                end - LEFT,
                colour(summary.rule),
                end + 4.0,
                y + BAR - 2.0,
                summary.p95
            );
        }
    }
    svg.push_str("</svg>\n");
    svg
}

fn colour(rule: Rule) -> &'static str {
    match rule {
        Rule::Arbiter => "#1b6ca8",
        Rule::Strict => "#8ab8dc",
        Rule::Lru => "#e0a030",
        Rule::KeepAlive => "#b0473a",
        Rule::Count => "#888888",
    }
}
