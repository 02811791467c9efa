//! Arguments as Cedar can read them: flat, by dotted path, a table a type.
//!
//! Invariant: every argument is in `texts` whatever its type, so that a rule on `context.args`
//! cannot be slipped past by sending a number or a list where a text was expected.

use std::collections::BTreeMap;

use cedar_policy::RestrictedExpression;
use serde_json::Value;

/// Most values that one call may show to policies.
const MAX_VALUES: usize = 512;
/// Objects nested deeper than this are shown as JSON text only.
const MAX_DEPTH: usize = 8;

/// Why arguments cannot be shown to policies; the call is denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    NotAnObject,
    TooMany,
    Ambiguous,
}

impl Unreadable {
    pub(crate) fn sentence(self) -> &'static str {
        match self {
            Self::NotAnObject => "the arguments are not a JSON object, so policies cannot read them",
            Self::TooMany => "the arguments hold more than 512 values, more than policies read",
            Self::Ambiguous => "two arguments have the same dotted path, so policies cannot tell them apart",
        }
    }
}

/// The tables behind `context.args`, `.ints`, `.bools` and `.lists`.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct ArgumentTables {
    pub(crate) texts: BTreeMap<String, String>,
    pub(crate) integers: BTreeMap<String, i64>,
    pub(crate) booleans: BTreeMap<String, bool>,
    pub(crate) lists: BTreeMap<String, Vec<String>>,
}

impl ArgumentTables {
    /// Reads the JSON text of the arguments; none is an empty object.
    pub(crate) fn read(arguments: Option<&str>) -> Result<Self, Unreadable> {
        let mut tables = Self::default();
        let Some(text) = arguments else { return Ok(tables) };
        match serde_json::from_str(text) {
            Ok(Value::Object(map)) => {
                for (key, value) in &map {
                    tables.add(key.clone(), value, 1)?;
                }
                Ok(tables)
            }
            _ => Err(Unreadable::NotAnObject),
        }
    }

    fn add(&mut self, path: String, value: &Value, depth: usize) -> Result<(), Unreadable> {
        if self.texts.len() >= MAX_VALUES {
            return Err(Unreadable::TooMany);
        }
        match value {
            Value::Number(n) => {
                if let Some(n) = n.as_i64() {
                    self.integers.insert(path.clone(), n);
                }
            }
            Value::Bool(b) => {
                self.booleans.insert(path.clone(), *b);
            }
            Value::Array(items) if items.iter().all(is_scalar) => {
                self.lists.insert(path.clone(), items.iter().map(as_text).collect());
            }
            Value::Object(map) if depth < MAX_DEPTH => {
                for (key, inner) in map {
                    self.add(format!("{path}.{key}"), inner, depth + 1)?;
                }
            }
            _ => {}
        }
        match self.texts.insert(path, as_text(value)) {
            None => Ok(()),
            Some(_) => Err(Unreadable::Ambiguous),
        }
    }
}

fn is_scalar(value: &Value) -> bool {
    !matches!(value, Value::Array(_) | Value::Object(_))
}

/// A string as it is; anything else as its JSON.
fn as_text(value: &Value) -> String {
    match value {
        Value::String(s) => s.clone(),
        other => other.to_string(),
    }
}

/// A list as a Cedar set of strings.
pub(crate) fn list_expression(items: Vec<String>) -> RestrictedExpression {
    RestrictedExpression::new_set(items.into_iter().map(RestrictedExpression::new_string))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_argument_has_a_text() {
        let json = r#"{"s":"x","n":3,"f":1.5,"b":true,"z":null,"l":["a",2],"m":[{}],"o":{"r":"eu"}}"#;
        let tables = ArgumentTables::read(Some(json)).unwrap();
        let texts: Vec<_> = tables.texts.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(
            texts,
            ["b=true", "f=1.5", r#"l=["a",2]"#, "m=[{}]", "n=3", r#"o={"r":"eu"}"#, "o.r=eu", "s=x", "z=null"]
        );
        assert_eq!(tables.integers, BTreeMap::from([("n".into(), 3)]));
        assert_eq!(tables.booleans, BTreeMap::from([("b".into(), true)]));
        assert_eq!(tables.lists, BTreeMap::from([("l".into(), vec!["a".into(), "2".into()])]));
    }

    #[test]
    fn arguments_that_policies_could_misread_are_refused() {
        let many = format!("{{{}}}", (0..600).map(|i| format!("\"k{i}\":1")).collect::<Vec<_>>().join(","));
        for (json, expect) in [
            ("[1]", Unreadable::NotAnObject),
            ("{", Unreadable::NotAnObject),
            (r#"{"a.b":1,"a":{"b":2}}"#, Unreadable::Ambiguous),
            (many.as_str(), Unreadable::TooMany),
        ] {
            assert_eq!(ArgumentTables::read(Some(json)), Err(expect), "{json}");
        }
    }
}
