//! Places in JSON: a small subset of JSONPath (RFC 9535).
//!
//! `$`, then one or more of `.name`, `['name']`, `[*]` and `..name`. No indexes, slices, filters or
//! functions: what a path selects is found in one pass, and takes no longer than the text is long times
//! the number of paths.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathStep {
    /// `.name`, `['name']`: the member of that name.
    Member(String),
    /// `[*]`: every item of an array, every member of an object.
    Any,
    /// `..name`: every member of that name, at any depth.
    Descendant(String),
}

/// A place in JSON, such as `$.customer.ssn`, `$.rows[*].iban` or `$..password`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContentPath {
    text: String,
    steps: Vec<PathStep>,
}

/// Why a text is not a [`ContentPath`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{path}` is not a path here: {problem}; write `$` and then `.name`, `['name']`, `[*]` or `..name`, such as \
     `$.customer.ssn` or `$.rows[*].iban`"
)]
pub struct NotAPath {
    /// The text, cut.
    pub path: String,
    /// What is wrong.
    pub problem: &'static str,
}

impl ContentPath {
    /// The longest path, in bytes.
    pub const MAX_LEN: usize = 256;
    /// The most steps.
    pub const MAX_STEPS: usize = 16;

    /// Reads a path.
    pub fn new(text: &str) -> Result<Self, NotAPath> {
        let wrong = |problem| NotAPath { path: text.chars().take(80).collect(), problem };
        if text.len() > Self::MAX_LEN {
            return Err(wrong("it is longer than 256 bytes"));
        }
        let mut rest = text.strip_prefix('$').ok_or_else(|| wrong("it does not begin with `$`"))?;
        let mut steps = Vec::new();
        while !rest.is_empty() {
            let (step, after) = step(rest).map_err(wrong)?;
            steps.push(step);
            rest = after;
        }
        match steps.len() {
            0 => Err(wrong("it names everything")),
            n if n > Self::MAX_STEPS => Err(wrong("it has more than 16 steps")),
            _ => Ok(Self { text: text.to_owned(), steps }),
        }
    }

    /// The steps after `$`; at least one.
    pub fn steps(&self) -> &[PathStep] {
        &self.steps
    }
}

fn step(rest: &str) -> Result<(PathStep, &str), &'static str> {
    if let Some(after) = rest.strip_prefix("..") {
        let (name, after) = name(after)?;
        return Ok((PathStep::Descendant(name), after));
    }
    if let Some(after) = rest.strip_prefix('.') {
        let (name, after) = name(after)?;
        return Ok((PathStep::Member(name), after));
    }
    if let Some(after) = rest.strip_prefix("[*]") {
        return Ok((PathStep::Any, after));
    }
    let quoted = rest.strip_prefix("['").ok_or("only `.`, `..`, `[*]` and `['` may follow")?;
    let (name, after) = quoted.split_once("']").ok_or("`['` has no `']`")?;
    let plain = !name.is_empty() && !name.contains(['\'', '\\']);
    if plain { Ok((PathStep::Member(name.to_owned()), after)) } else { Err("a name is empty, or has `'` or `\\`") }
}

/// Letters, digits, `_` and `-`, of any script.
fn name(text: &str) -> Result<(String, &str), &'static str> {
    let end = text.find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '-'))).unwrap_or(text.len());
    let (name, after) = text.split_at(end);
    if name.is_empty() { Err("a name is missing") } else { Ok((name.to_owned(), after)) }
}

impl FromStr for ContentPath {
    type Err = NotAPath;
    fn from_str(text: &str) -> Result<Self, NotAPath> {
        Self::new(text)
    }
}

impl<'de> Deserialize<'de> for ContentPath {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        Self::new(&text).map_err(serde::de::Error::custom)
    }
}

impl Serialize for ContentPath {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.text)
    }
}

impl JsonSchema for ContentPath {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "ContentPath".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        String::json_schema(generator)
    }
}

impl fmt::Display for ContentPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_subset_is_read_and_nothing_else() {
        let member = |name: &str| PathStep::Member(name.to_owned());
        let under = |name: &str| PathStep::Descendant(name.to_owned());
        for (text, expect) in [
            ("$.a", vec![member("a")]),
            ("$.customer.ssn", vec![member("customer"), member("ssn")]),
            ("$.rows[*].iban", vec![member("rows"), PathStep::Any, member("iban")]),
            ("$[*]", vec![PathStep::Any]),
            ("$..password", vec![under("password")]),
            ("$['a b']..größe-1[*]", vec![member("a b"), under("größe-1"), PathStep::Any]),
        ] {
            let path = ContentPath::new(text).unwrap();
            assert_eq!(path.steps(), expect, "{text}");
            assert_eq!(serde_json::to_value(&path).unwrap(), text);
        }
        let long = format!("${}", ".a".repeat(17));
        let wide = format!("$.{}", "a".repeat(256));
        for text in
            ["", "$", "a.b", "$a", "$.", "$..", "$.a.", "$[0]", "$[", "$['a", "$['']", "$.a[?@.b]", &long, &wide]
        {
            assert!(ContentPath::new(text).is_err(), "{text}");
        }
        assert!(ContentPath::new("$[0]").unwrap_err().to_string().contains("[*]"));
    }
}
