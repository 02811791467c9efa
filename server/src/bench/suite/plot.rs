//! A row as a plot: a line for each figure of one unit, with its repetitions, its median and its bar. SVG, no script.
//!
//! Plots are drawn in a fixed width and scale with the page. Colours come from the page's style sheet.

use std::fmt::Write;

use super::{
    html::escaped,
    judge::Verdict,
    report::{Figure, Row, shown},
};

const WIDTH: f64 = 720.0;
/// Left of the axis: labels.
const LABELS: f64 = 300.0;
/// Right of it: the numbers.
const NUMBERS: f64 = 90.0;
const LINE: f64 = 26.0;
const TOP: f64 = 8.0;
/// Characters of a label that fit.
const MAX_LABEL_CHARS: usize = 46;

/// The plots of a row: one for each unit that its figures have.
pub fn plots(row: &Row) -> String {
    let mut units: Vec<&str> = Vec::new();
    for figure in row.figures.iter().filter(|figure| figure.median.is_some()) {
        if !units.contains(&figure.unit.as_str()) {
            units.push(&figure.unit);
        }
    }
    units.into_iter().map(|unit| plot(row, unit)).collect()
}

fn plot(row: &Row, unit: &str) -> String {
    let figures: Vec<&Figure> =
        row.figures.iter().filter(|figure| figure.unit == unit && figure.median.is_some()).collect();
    let most = figures.iter().flat_map(|figure| values(figure)).fold(0.0, f64::max);
    let least = figures.iter().flat_map(|figure| values(figure)).fold(0.0, f64::min);
    let span = if most > least { most - least } else { 1.0 };
    let x = |value: f64| LABELS + (value - least) / span * (WIDTH - LABELS - NUMBERS);
    let height = TOP * 2.0 + LINE * figures.len() as f64;
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}, {}\">\n",
        escaped(&row.title),
        escaped(unit)
    );
    for (at, figure) in figures.iter().enumerate() {
        let y = TOP + LINE * (at as f64 + 0.5);
        // Writing to a string does not fail.
        let _ = line(&mut svg, figure, y, &x);
    }
    svg.push_str("</svg>\n");
    svg
}

/// Everything that must fit.
fn values(figure: &Figure) -> impl Iterator<Item = f64> {
    let bar = figure.bar.map(|bar| bar.value);
    figure.repetitions.iter().copied().chain(figure.median).chain(bar)
}

fn line(svg: &mut String, figure: &Figure, y: f64, x: &impl Fn(f64) -> f64) -> std::fmt::Result {
    let Some(median) = figure.median else { return Ok(()) };
    let label: String = figure.label.chars().take(MAX_LABEL_CHARS).collect();
    let (from, to) = (x(0.0_f64.min(median)), x(0.0_f64.max(median)));
    let class = match figure.verdict {
        Verdict::Held => "held",
        Verdict::Missed => "missed",
        Verdict::Refused | Verdict::None => "plain",
    };
    writeln!(svg, "<text x=\"{:.1}\" y=\"{:.1}\" class=\"label\">{}</text>", LABELS - 8.0, y + 4.0, escaped(&label))?;
    writeln!(
        svg,
        "<rect x=\"{from:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"12\" class=\"{class}\"/>",
        y - 6.0,
        (to - from).max(1.0)
    )?;
    for value in &figure.repetitions {
        writeln!(svg, "<circle cx=\"{:.1}\" cy=\"{y:.1}\" r=\"2.5\" class=\"one\"/>", x(*value))?;
    }
    if let Some(bar) = figure.bar {
        let at = x(bar.value);
        writeln!(
            svg,
            "<line x1=\"{at:.1}\" y1=\"{:.1}\" x2=\"{at:.1}\" y2=\"{:.1}\" class=\"bar\"/>",
            y - 11.0,
            y + 11.0
        )?;
    }
    writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" class=\"number\">{} {}</text>",
        WIDTH - NUMBERS + 8.0,
        y + 4.0,
        shown(median),
        escaped(&figure.unit)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::suite::judge::Bar;

    #[test]
    fn each_unit_has_a_plot_and_everything_lies_within_it() {
        let figures = vec![
            Figure::new("a", "a", "us", vec![-5.0, 10.0]).against(Bar::at_most(40.0), None),
            Figure::new("b", "b", "us", vec![30.0]),
            Figure::new("c", "c", "x", vec![0.0]),
            Figure::new("d", "d", "none", Vec::new()),
        ];
        let svg = plots(&Row::measured("row", "a <row>", figures, Vec::new()));
        assert_eq!(svg.matches("<svg ").count(), 2);
        assert_eq!(svg.matches("class=\"bar\"").count(), 1);
        assert!(!svg.contains("NaN") && !svg.contains("inf") && svg.contains("a &lt;row&gt;"), "{svg}");
        for part in svg.split("cx=\"").skip(1) {
            let at: f64 = part.split('"').next().unwrap().parse().unwrap();
            assert!((LABELS..=WIDTH - NUMBERS).contains(&at), "{at}");
        }
    }
}
