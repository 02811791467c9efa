//! What a change changes, field by field.

use std::collections::BTreeMap;

use provost_control_state::{ChangeKind, Draft};
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
    let old = leaves(old);
    let new = leaves(new);
    let mut fields = BTreeMap::new();
    for (field, value) in &old {
        if new.get(field) != Some(value) {
            fields.insert(field, (Some(value.clone()), new.get(field).cloned()));
        }
    }
    for (field, value) in &new {
        if !old.contains_key(field) {
            fields.insert(field, (None, Some(value.clone())));
        }
    }
    let fields = fields.into_iter().map(|(field, (old, new))| FieldDiff { field: field.clone(), old, new }).collect();
    ResourceDiff { key: key.clone(), kind, fields }
}

fn leaves(resource: Option<&Resource>) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    if let Some(resource) = resource {
        let draft = Draft { metadata: resource.metadata.clone(), spec: resource.spec.clone() };
        flatten(String::new(), comparable(&draft), &mut found);
    }
    found
}

/// Scalars are leaves, and so are lists and maps without further lists or maps of their own.
fn flatten(path: String, value: Value, found: &mut BTreeMap<String, Value>) {
    let nested = |v: &Value| v.is_object() || v.is_array();
    match value {
        Value::Object(fields) => {
            for (name, child) in fields {
                let path = if path.is_empty() { name } else { format!("{path}.{name}") };
                flatten(path, child, found);
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
