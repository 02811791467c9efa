//! Schemas of the document as JSON Schema 2020-12 of a tool.
//!
//! A schema is written out in full where that is small and ends; else what it refers to stands in `$defs`, so that
//! schemas that refer to themselves stay what they are. What OpenAPI 3.0 says otherwise than JSON Schema (`nullable`,
//! boolean `exclusiveMinimum`) is said as JSON Schema does.
//!
//! Invariants: the work for one tool and for all tools of a document is bounded; nothing in the result refers to
//! anything outside of it; a keyword that is not known is left out.

use std::{
    cell::Cell,
    collections::{BTreeMap, VecDeque},
};

use serde_json::{Map, Value, json};

use super::{
    document::Document,
    names::{Names, sanitised},
};

/// Parts of the schemas of one tool that are written out in full.
const MAX_INLINE_PARTS: usize = 1_500;
/// Parts of the schemas of one tool.
const MAX_PARTS: usize = 10_000;
/// Parts of the schemas of all tools of one document, those included that were given up.
const MAX_ALL_PARTS: usize = 2_000_000;
/// Nesting within a schema.
const MAX_DEPTH: usize = 48;
/// Characters of a description within a schema.
const MAX_DESCRIPTION_CHARS: usize = 1_024;
/// Bytes of text that count as one part.
const PART_BYTES: usize = 64;
/// The largest compiled form of a pattern.
const MAX_PATTERN_BYTES: usize = 256 * 1024;

/// Who writes what the schema describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// The caller: what the service alone sets is left out.
    Input,
    /// The service: what the caller alone sets is left out.
    Output,
}

/// The work that is left for all tools of a document.
pub(super) struct Work(Cell<usize>);

impl Default for Work {
    fn default() -> Self {
        Self(Cell::new(MAX_ALL_PARTS))
    }
}

/// Why there is no schema.
#[derive(Debug, PartialEq, Eq)]
enum Fault {
    /// Written out in full it has no end, or is too large: it can be said with `$defs`.
    NotInline,
    Unusable(String),
}

impl From<String> for Fault {
    fn from(cause: String) -> Self {
        Self::Unusable(cause)
    }
}

/// Converts the schemas of one tool; `make` asks for each, and puts `$defs` (if there are any) beside them.
pub(super) fn of_tool<T>(
    document: &Document<'_>,
    side: Side,
    work: &Work,
    make: impl Fn(&mut dyn FnMut(&Value) -> Result<Value, String>) -> Result<T, String>,
) -> Result<(T, Map<String, Value>), String> {
    for is_inline in [true, false] {
        let mut conversion = Conversion::new(document, side, work, is_inline);
        let mut not_inline = false;
        let made = make(&mut |schema: &Value| {
            conversion.schema(schema, 0).map_err(|fault| match fault {
                Fault::NotInline => {
                    not_inline = true;
                    String::new()
                }
                Fault::Unusable(cause) => cause,
            })
        });
        if not_inline && is_inline {
            continue;
        }
        let made = made?;
        let definitions = conversion.definitions().map_err(|fault| match fault {
            Fault::NotInline => "its schemas are too large".to_owned(),
            Fault::Unusable(cause) => cause,
        })?;
        return Ok((made, definitions));
    }
    Err("its schemas are too large".to_owned())
}

struct Conversion<'c, 'a> {
    document: &'c Document<'a>,
    side: Side,
    work: &'c Work,
    left: usize,
    is_inline: bool,
    /// References on the way to here, where schemas are written out.
    way: Vec<String>,
    /// Names in `$defs` by reference.
    named: BTreeMap<String, String>,
    names: Names,
    /// Names and references that are to be converted yet.
    waiting: VecDeque<(String, String)>,
}

impl<'c, 'a> Conversion<'c, 'a> {
    fn new(document: &'c Document<'a>, side: Side, work: &'c Work, is_inline: bool) -> Self {
        Self {
            document,
            side,
            work,
            left: if is_inline { MAX_INLINE_PARTS } else { MAX_PARTS },
            is_inline,
            way: Vec::new(),
            named: BTreeMap::new(),
            names: Names::default(),
            waiting: VecDeque::new(),
        }
    }

    /// What was referred to; empty where schemas are written out.
    fn definitions(&mut self) -> Result<Map<String, Value>, Fault> {
        let mut definitions = Map::new();
        while let Some((name, reference)) = self.waiting.pop_front() {
            let schema = self.document.referred(&reference)?;
            let schema = self.schema(schema, 0)?;
            definitions.insert(name, schema);
        }
        Ok(definitions)
    }

    fn spend(&mut self, parts: usize) -> Result<(), Fault> {
        let all = self.work.0.get();
        self.work.0.set(all.saturating_sub(parts));
        if all < parts {
            return Err(Fault::Unusable("the document's schemas are too large altogether".to_owned()));
        }
        match self.left.checked_sub(parts) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None if self.is_inline => Err(Fault::NotInline),
            None => Err(Fault::Unusable("its schemas are too large".to_owned())),
        }
    }

    fn schema(&mut self, schema: &Value, depth: usize) -> Result<Value, Fault> {
        self.spend(1)?;
        if depth > MAX_DEPTH {
            let cause = || Fault::Unusable("its schemas are nested too deep".to_owned());
            return Err(if self.is_inline { Fault::NotInline } else { cause() });
        }
        match schema {
            Value::Bool(_) => Ok(schema.clone()),
            Value::Object(members) => match members.get("$ref") {
                Some(Value::String(reference)) => self.reference(reference, members, depth),
                _ => self.members(members, depth).map(Value::Object),
            },
            _ => Err(Fault::Unusable("a schema is neither an object nor a boolean".to_owned())),
        }
    }

    /// A reference, and what version 3.1 allows beside it.
    fn reference(&mut self, reference: &str, beside: &Map<String, Value>, depth: usize) -> Result<Value, Fault> {
        let mut referred = if self.is_inline {
            if self.way.iter().any(|on_way| on_way == reference) {
                return Err(Fault::NotInline);
            }
            let schema = self.document.referred(reference)?;
            self.way.push(reference.to_owned());
            let converted = self.schema(schema, depth + 1);
            self.way.pop();
            converted?
        } else {
            let name = self.name(reference)?;
            json!({ "$ref": format!("#/$defs/{name}") })
        };
        let beside: Map<String, Value> =
            beside.iter().filter(|(key, _)| *key != "$ref").map(|(k, v)| (k.clone(), v.clone())).collect();
        let mut beside = self.members(&beside, depth)?;
        if let (Some(text), Some(object)) = (beside.remove("description"), referred.as_object_mut()) {
            object.insert("description".to_owned(), text);
        }
        beside.remove("title");
        Ok(if beside.is_empty() { referred } else { json!({ "allOf": [referred, beside] }) })
    }

    fn name(&mut self, reference: &str) -> Result<String, Fault> {
        if let Some(name) = self.named.get(reference) {
            return Ok(name.clone());
        }
        self.document.referred(reference)?;
        let last = sanitised(reference.rsplit('/').next().unwrap_or_default());
        let name = self.names.take(if last.is_empty() { "schema" } else { &last });
        self.named.insert(reference.to_owned(), name.clone());
        self.waiting.push_back((name.clone(), reference.to_owned()));
        Ok(name)
    }

    fn members(&mut self, members: &Map<String, Value>, depth: usize) -> Result<Map<String, Value>, Fault> {
        let mut out = Map::new();
        for (key, value) in members {
            let converted = match (key.as_str(), value) {
                ("description" | "title", Value::String(text)) => Some(self.text(text)?),
                ("pattern", Value::String(text)) => is_pattern(text).then(|| value.clone()),
                ("exclusiveMinimum" | "exclusiveMaximum", Value::Bool(_)) => None,
                ("properties", Value::Object(properties)) => Some(self.properties(properties, depth)?),
                ("patternProperties" | "dependentSchemas", Value::Object(schemas)) => {
                    let mut all = Map::new();
                    for (name, schema) in schemas {
                        if key != "patternProperties" || is_pattern(name) {
                            all.insert(name.clone(), self.schema(schema, depth + 1)?);
                        }
                    }
                    Some(Value::Object(all))
                }
                ("allOf" | "anyOf" | "oneOf" | "prefixItems", Value::Array(schemas)) if !schemas.is_empty() => {
                    let all: Result<Vec<Value>, Fault> = schemas.iter().map(|s| self.schema(s, depth + 1)).collect();
                    Some(Value::Array(all?))
                }
                (
                    "items"
                    | "additionalProperties"
                    | "not"
                    | "contains"
                    | "propertyNames"
                    | "if"
                    | "then"
                    | "else"
                    | "unevaluatedProperties"
                    | "unevaluatedItems",
                    Value::Object(_) | Value::Bool(_),
                ) => Some(self.schema(value, depth + 1)?),
                (
                    "type" | "enum" | "const" | "default" | "format" | "required" | "deprecated" | "multipleOf"
                    | "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" | "minLength" | "maxLength"
                    | "minItems" | "maxItems" | "uniqueItems" | "minContains" | "maxContains" | "minProperties"
                    | "maxProperties" | "dependentRequired" | "contentEncoding" | "contentMediaType",
                    _,
                ) => {
                    self.spend(parts(value))?;
                    Some(value.clone())
                }
                _ => None,
            };
            if let Some(converted) = converted {
                out.insert(key.clone(), converted);
            }
        }
        self.drop_others(members, &mut out);
        as_2020_12(members, &mut out);
        Ok(out)
    }

    fn text(&mut self, text: &str) -> Result<Value, Fault> {
        let text: String = text.chars().take(MAX_DESCRIPTION_CHARS).collect();
        self.spend(text.len() / PART_BYTES)?;
        Ok(Value::String(text))
    }

    fn properties(&mut self, properties: &Map<String, Value>, depth: usize) -> Result<Value, Fault> {
        let mut all = Map::new();
        for (name, schema) in properties {
            if !self.is_others(schema) {
                self.spend(name.len() / PART_BYTES)?;
                all.insert(name.clone(), self.schema(schema, depth + 1)?);
            }
        }
        Ok(Value::Object(all))
    }

    /// Whether the other side alone sets the property.
    fn is_others(&self, schema: &Value) -> bool {
        let mark = match self.side {
            Side::Input => "readOnly",
            Side::Output => "writeOnly",
        };
        let is_marked = |schema: &Value| schema.get(mark) == Some(&Value::Bool(true));
        let referred = schema.get("$ref").and_then(Value::as_str).and_then(|r| self.document.referred(r).ok());
        is_marked(schema) || referred.is_some_and(is_marked)
    }

    /// What is not there is not required.
    fn drop_others(&self, members: &Map<String, Value>, out: &mut Map<String, Value>) {
        let properties = members.get("properties").and_then(Value::as_object);
        if let (Some(properties), Some(Value::Array(required))) = (properties, out.get_mut("required")) {
            required.retain(|name| {
                let property = name.as_str().and_then(|name| properties.get(name));
                !property.is_some_and(|schema| self.is_others(schema))
            });
        }
        // Of version 3.0's time are documents with `required: true` within a property.
        let is_list =
            out.get("required").is_none_or(|r| r.as_array().is_some_and(|names| names.iter().all(Value::is_string)));
        if !is_list {
            out.remove("required");
        }
    }
}

/// How many parts a value counts as that is taken over as it is.
fn parts(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(parts).sum::<usize>(),
        Value::Object(members) => 1 + members.iter().map(|(k, v)| k.len() / PART_BYTES + parts(v)).sum::<usize>(),
        Value::String(text) => 1 + text.len() / PART_BYTES,
        _ => 1,
    }
}

/// Whether the validator reads it: one pattern that it does not would leave all arguments unchecked.
fn is_pattern(text: &str) -> bool {
    regex::RegexBuilder::new(text).size_limit(MAX_PATTERN_BYTES).build().is_ok()
}

/// Says what version 3.0 says otherwise.
fn as_2020_12(members: &Map<String, Value>, out: &mut Map<String, Value>) {
    for (exclusive, inclusive) in [("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")] {
        if members.get(exclusive) == Some(&Value::Bool(true))
            && let Some(bound) = out.remove(inclusive)
        {
            out.insert(exclusive.to_owned(), bound);
        }
    }
    // Uploads have this form in version 3.0; as JSON they are text.
    if out.get("type").is_some_and(|t| !is_type(t)) {
        out.remove("type");
    }
    if members.get("nullable") != Some(&Value::Bool(true)) {
        return;
    }
    match out.get("type").cloned() {
        Some(Value::String(of)) if of != "null" => {
            out.insert("type".to_owned(), json!([of, "null"]));
            if let Some(Value::Array(values)) = out.get_mut("enum")
                && !values.contains(&Value::Null)
            {
                values.push(Value::Null);
            }
        }
        Some(_) => {}
        None if out.is_empty() => {}
        None => {
            let description = out.remove("description");
            let schema = std::mem::take(out);
            out.insert("anyOf".to_owned(), json!([schema, { "type": "null" }]));
            out.extend(description.map(|text| ("description".to_owned(), text)));
        }
    }
}

/// Whether it is a type, or a list of types, of JSON Schema.
fn is_type(value: &Value) -> bool {
    let is_one = |v: &Value| {
        let known = ["array", "boolean", "integer", "null", "number", "object", "string"];
        v.as_str().is_some_and(|name| known.contains(&name))
    };
    match value {
        Value::Array(types) => !types.is_empty() && types.iter().all(is_one),
        one => is_one(one),
    }
}

/// A description with at most so many characters.
pub(crate) fn bounded(text: &str, max_chars: usize) -> String {
    let text = text.trim();
    match text.char_indices().nth(max_chars) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default().trim_end()),
    }
}

#[cfg(test)]
#[path = "schema_tests.rs"]
mod tests;
