//! Prometheus' text format, as far as our own nodes print it.

use std::collections::BTreeMap;

/// One sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The metric.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

impl Sample {
    /// A label's value; empty: it has none.
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map(String::as_str).unwrap_or_default()
    }
}

/// Every sample of a page; lines that are none are passed over.
pub fn parse(text: &str) -> Vec<Sample> {
    text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect()
}

fn sample(line: &str) -> Option<Sample> {
    let end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (BTreeMap::new(), rest),
    };
    // A timestamp may follow.
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample { name: name.to_owned(), labels, value })
}

/// What stands between the braces, and what follows them.
fn labels(mut rest: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        if let Some(after) = rest.strip_prefix('}') {
            return Some((labels, after));
        }
        let (name, after) = rest.split_once("=\"")?;
        let (value, after) = quoted(after)?;
        labels.insert(name.trim().to_owned(), value);
        rest = after.strip_prefix(',').unwrap_or(after);
    }
}

/// A text up to its closing quote, and what follows that.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return Some((value, text.get(at + 1..)?)),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_and_the_rest_is_passed_over() {
        let text = "# HELP a A.\n# TYPE a counter\na 3\nb{x=\"1\",y=\"a \\\"b\\\\\\n}\"} 2.5 17\nc{le=\"+Inf\"} 4\n\n\
                    broken{x=\"1\nd{} 1\ne{x=\"1\"} many\n";
        let read = parse(text);
        let names: Vec<(&str, f64)> = read.iter().map(|s| (s.name.as_str(), s.value)).collect();
        assert_eq!(names, [("a", 3.0), ("b", 2.5), ("c", 4.0), ("d", 1.0)]);
        let of = |at: usize, label: &str| read.get(at).map(|s| s.label(label).to_owned());
        assert_eq!(of(1, "y").as_deref(), Some("a \"b\\\n}"));
        assert_eq!(
            (of(1, "x").as_deref(), of(2, "le").as_deref(), of(0, "x").as_deref()),
            (Some("1"), Some("+Inf"), Some(""))
        );
    }
}
