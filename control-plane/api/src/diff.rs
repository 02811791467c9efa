//! What a change changes, field by field.

use std::collections::BTreeMap;

use provost_control_state::ChangeKind;
use provost_types::{Resource, ResourceKey};
use serde_json::Value;

use crate::render::comparable;

/// One field that differs.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldDiff {
    /// Path such as `spec.rules[0].tools`.
    pub field: String,
    /// Before; `None`: absent.
    pub old: Option<Value>,
    /// After; `None`: absent.
    pub new: Option<Value>,
}

/// What happens to one resource.
#[derive(Clone, Debug, PartialEq)]
pub struct ResourceDiff {
    /// The resource.
    pub key: ResourceKey,
    /// What happens.
    pub kind: ChangeKind,
    /// The fields that differ, in order of path.
    pub fields: Vec<FieldDiff>,
}

/// Compares a resource before and after.
pub(crate) fn of(key: &ResourceKey, kind: ChangeKind, old: Option<&Resource>, new: Option<&Resource>) -> ResourceDiff {
    let mut fields = Vec::new();
    compare(String::new(), old.map(comparable), new.map(comparable), &mut fields);
    fields.sort_by(|a, b| a.field.cmp(&b.field));
    ResourceDiff { key: key.clone(), kind, fields }
}

/// Adds the leaves that differ below `path`.
fn compare(path: String, old: Option<Value>, new: Option<Value>, fields: &mut Vec<FieldDiff>) {
    match (old, new) {
        (old, new) if old == new => {}
        (Some(Value::Object(old)), Some(Value::Object(mut new))) => {
            for (name, old) in old {
                let new = new.remove(&name);
                compare(join(&path, &name), Some(old), new, fields);
            }
            for (name, new) in new {
                compare(join(&path, &name), None, Some(new), fields);
            }
        }
        (old, new) => {
            let (old, mut new) = (leaves(&path, old), leaves(&path, new));
            for (field, old) in old {
                let new = new.remove(&field);
                if new.as_ref() != Some(&old) {
                    fields.push(FieldDiff { field, old: Some(old), new });
                }
            }
            fields.extend(new.into_iter().map(|(field, new)| FieldDiff { field, old: None, new: Some(new) }));
        }
    }
}

fn leaves(path: &str, value: Option<Value>) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    if let Some(value) = value {
        flatten(path.to_owned(), value, &mut found);
    }
    found
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// Scalars are leaves, and so are lists and maps without further lists or maps of their own.
fn flatten(path: String, value: Value, found: &mut BTreeMap<String, Value>) {
    let nested = |v: &Value| v.is_object() || v.is_array();
    match value {
        Value::Object(fields) => {
            for (name, child) in fields {
                flatten(join(&path, &name), child, found);
            }
        }
        Value::Array(items) if items.iter().any(nested) => {
            for (i, child) in items.into_iter().enumerate() {
                flatten(format!("{path}[{i}]"), child, found);
            }
        }
        leaf => {
            found.insert(path, leaf);
        }
    }
}

/// As text: one line a resource, `-` and `+` lines for its fields; unchanged ones are left out.
pub fn diff_text(diffs: &[ResourceDiff]) -> String {
    let mut text = String::new();
    for diff in diffs.iter().filter(|d| d.kind != ChangeKind::Unchanged) {
        let sign = match diff.kind {
            ChangeKind::Created => '+',
            ChangeKind::Deleted => '-',
            _ => '~',
        };
        text.push_str(&format!("{sign} {} ({})\n", diff.key, diff.kind.as_str()));
        for field in &diff.fields {
            for (sign, value) in [('-', &field.old), ('+', &field.new)] {
                if let Some(value) = value {
                    push_lines(&mut text, sign, &field.field, value);
                }
            }
        }
    }
    text
}

/// A text of several lines (Cedar) keeps them; anything else is one line of JSON.
fn push_lines(text: &mut String, sign: char, field: &str, value: &Value) {
    match value {
        Value::String(lines) if lines.contains('\n') => {
            text.push_str(&format!("  {sign} {field}: |\n"));
            for line in lines.lines() {
                text.push_str(&format!("  {sign}   {line}\n"));
            }
        }
        other => text.push_str(&format!("  {sign} {field}: {other}\n")),
    }
}
