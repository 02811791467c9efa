//! Messages as JSON Schema 2020-12, as the JSON mapping of proto3 writes them.
//!
//! A message is written out in full where that is small and ends; else the messages within it stand in `$defs`, so that
//! messages that hold themselves stay what they are.
//!
//! Invariants: the work for one tool and for all tools of a plugin is bounded; nothing in the result refers to anything
//! outside of it; what the schema of arguments lets through is what the mapping reads, but for texts with a form of
//! their own (times, Base64), which are looked at when the message is made.

use std::{
    cell::Cell,
    collections::{BTreeMap, VecDeque},
};

use prost_reflect::{EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};

use super::{comments::Comments, well_known};
use crate::openapi::{Names, bounded, sanitised};

/// Parts of the schema of one message that are written out in full.
const MAX_INLINE_PARTS: usize = 1_500;
/// Parts of the schema of one message.
const MAX_PARTS: usize = 10_000;
/// Parts of all schemas of one plugin, those included that were given up.
const MAX_ALL_PARTS: usize = 2_000_000;
/// Nesting within a schema.
const MAX_DEPTH: usize = 48;
/// Characters of a description within a schema.
const MAX_DESCRIPTION_CHARS: usize = 1_024;
/// Bytes of text that count as one part.
const PART_BYTES: usize = 64;
/// Fields of one `oneof` whose pairs are forbidden one by one; of more only the description speaks.
const MAX_EXCLUSIVE: usize = 12;
/// Of `google.api.FieldBehavior`.
const REQUIRED: i32 = 2;
const OUTPUT_ONLY: i32 = 3;
const INPUT_ONLY: i32 = 4;

/// Who writes what the schema describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// The caller: what the service alone sets is left out.
    Input,
    /// The service: what the caller alone sets is left out.
    Output,
}

/// The work that is left for all tools of a plugin.
pub(super) struct Work(Cell<usize>);

impl Default for Work {
    fn default() -> Self {
        Self(Cell::new(MAX_ALL_PARTS))
    }
}

/// Why there is no schema.
enum Fault {
    /// Written out in full it has no end, or is too large: it can be said with `$defs`.
    NotInline,
    Unusable(&'static str),
}

/// The schema of a message, `$defs` included.
pub(super) fn of_message(
    message: &MessageDescriptor,
    side: Side,
    work: &Work,
    comments: &Comments,
) -> Result<Value, String> {
    for is_inline in [true, false] {
        let mut conversion = Conversion {
            side,
            work,
            comments,
            left: if is_inline { MAX_INLINE_PARTS } else { MAX_PARTS },
            is_inline,
            way: Vec::new(),
            named: BTreeMap::new(),
            names: Names::default(),
            waiting: VecDeque::new(),
        };
        match conversion.whole(message) {
            Ok(schema) => return Ok(schema),
            Err(Fault::NotInline) => {}
            Err(Fault::Unusable(cause)) => return Err(cause.to_owned()),
        }
    }
    Err("its messages are too large".to_owned())
}

struct Conversion<'c> {
    side: Side,
    work: &'c Work,
    comments: &'c Comments,
    left: usize,
    is_inline: bool,
    /// Messages on the way to here, where they are written out.
    way: Vec<String>,
    /// Names in `$defs` by full name.
    named: BTreeMap<String, String>,
    names: Names,
    /// What is to be converted yet, and its name.
    waiting: VecDeque<(String, MessageDescriptor)>,
}

impl Conversion<'_> {
    fn whole(&mut self, message: &MessageDescriptor) -> Result<Value, Fault> {
        self.way.push(message.full_name().to_owned());
        let mut schema = match well_known::schema(message.full_name(), self.side) {
            Some(schema) => schema,
            None => self.members(message, 0)?,
        };
        let mut definitions = Map::new();
        while let Some((name, message)) = self.waiting.pop_front() {
            definitions.insert(name, self.members(&message, 0)?);
        }
        if let (false, Some(schema)) = (definitions.is_empty(), schema.as_object_mut()) {
            schema.insert("$defs".to_owned(), Value::Object(definitions));
        }
        Ok(schema)
    }

    fn spend(&mut self, parts: usize) -> Result<(), Fault> {
        let all = self.work.0.get();
        self.work.0.set(all.saturating_sub(parts));
        if all < parts {
            return Err(Fault::Unusable("the messages are too large altogether"));
        }
        match self.left.checked_sub(parts) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None if self.is_inline => Err(Fault::NotInline),
            None => Err(Fault::Unusable("its messages are too large")),
        }
    }

    /// A message within another one.
    fn message(&mut self, message: &MessageDescriptor, depth: usize) -> Result<Value, Fault> {
        self.spend(1)?;
        if let Some(schema) = well_known::schema(message.full_name(), self.side) {
            return Ok(schema);
        }
        if !self.is_inline {
            let name = self.name(message);
            return Ok(json!({ "$ref": format!("#/$defs/{name}") }));
        }
        if depth > MAX_DEPTH || self.way.iter().any(|on_way| on_way == message.full_name()) {
            return Err(Fault::NotInline);
        }
        self.way.push(message.full_name().to_owned());
        let written = self.members(message, depth);
        self.way.pop();
        written
    }

    fn name(&mut self, message: &MessageDescriptor) -> String {
        if let Some(name) = self.named.get(message.full_name()) {
            return name.clone();
        }
        let short = sanitised(message.name());
        let name = match short.is_empty() || self.names.has(&short) {
            // With a number at once: to try all of them for thousands of one name takes too long.
            true => self.names.take(&format!("message_{}", self.named.len())),
            false => self.names.take(&short),
        };
        self.named.insert(message.full_name().to_owned(), name.clone());
        self.waiting.push_back((name.clone(), message.clone()));
        name
    }

    /// The fields of a message.
    fn members(&mut self, message: &MessageDescriptor, depth: usize) -> Result<Value, Fault> {
        self.spend(1)?;
        let (mut properties, mut required) = (Map::new(), Vec::new());
        for field in message.fields() {
            let behaviour = behaviour(&field);
            let others = if self.side == Side::Input { OUTPUT_ONLY } else { INPUT_ONLY };
            if behaviour.contains(&others) {
                continue;
            }
            let mut schema = self.field(&field, depth)?;
            let text = self.text(&field)?;
            if let (Some(text), Some(schema)) = (text, schema.as_object_mut()) {
                schema.insert("description".to_owned(), text.into());
            }
            let name = field.json_name().to_owned();
            self.spend(name.len() / PART_BYTES)?;
            if self.side == Side::Input && (field.is_required() || behaviour.contains(&REQUIRED)) {
                required.push(Value::from(name.clone()));
            }
            properties.insert(name, schema);
        }
        let mut schema = json!({"type": "object", "properties": properties});
        if self.side == Side::Input {
            schema["additionalProperties"] = Value::Bool(false);
            if let Some(never) = self.exclusive(message)? {
                schema["not"] = never;
            }
        }
        if !required.is_empty() {
            schema["required"] = Value::Array(required);
        }
        Ok(schema)
    }

    /// What may not be: two fields of one `oneof`.
    fn exclusive(&mut self, message: &MessageDescriptor) -> Result<Option<Value>, Fault> {
        let mut pairs = Vec::new();
        let is_small = |count: usize| (2..=MAX_EXCLUSIVE).contains(&count);
        for oneof in message.oneofs().filter(|oneof| is_small(oneof.fields().len())) {
            let names: Vec<String> = oneof.fields().map(|field| field.json_name().to_owned()).collect();
            for (at, first) in names.iter().enumerate() {
                for second in names.iter().skip(at + 1) {
                    self.spend(1 + (first.len() + second.len()) / PART_BYTES)?;
                    pairs.push(json!({ "required": [first, second] }));
                }
            }
        }
        Ok((!pairs.is_empty()).then(|| json!({ "anyOf": pairs })))
    }

    fn field(&mut self, field: &FieldDescriptor, depth: usize) -> Result<Value, Fault> {
        let kind = field.kind();
        if let (true, Kind::Message(entry)) = (field.is_map(), &kind) {
            let values = self.kind(&entry.map_entry_value_field().kind(), depth + 1)?;
            let mut schema = json!({"type": "object", "additionalProperties": values});
            match entry.map_entry_key_field().kind() {
                Kind::String => {}
                Kind::Bool => schema["propertyNames"] = json!({"enum": ["true", "false"]}),
                _ => schema["propertyNames"] = json!({"pattern": "^-?[0-9]+$"}),
            }
            return Ok(schema);
        }
        let one = self.kind(&kind, depth + 1)?;
        Ok(if field.is_list() { json!({"type": "array", "items": one}) } else { one })
    }

    fn kind(&mut self, kind: &Kind, depth: usize) -> Result<Value, Fault> {
        match kind {
            Kind::Message(message) => self.message(message, depth),
            Kind::Enum(of) => {
                self.spend(of.values().map(|value| 1 + value.name().len() / PART_BYTES).sum())?;
                Ok(names_of(of, self.side))
            }
            other => {
                self.spend(1)?;
                Ok(scalar(other, self.side))
            }
        }
    }

    /// What is said of a field.
    fn text(&mut self, field: &FieldDescriptor) -> Result<Option<String>, Fault> {
        let mut parts = Vec::new();
        if field.field_descriptor_proto().options.as_ref().is_some_and(|options| options.deprecated()) {
            parts.push("Deprecated.".to_owned());
        }
        parts.extend(self.comments.of(&field.parent_file(), field.path()));
        // What is optional by itself is a choice of one for protobuf.
        match field.containing_oneof() {
            Some(oneof) if oneof.fields().len() > MAX_EXCLUSIVE => {
                parts.push(format!("At most one field of the choice `{}`.", oneof.name()));
            }
            Some(oneof) if oneof.fields().len() > 1 => {
                let names: Vec<String> = oneof.fields().map(|field| field.json_name().to_owned()).collect();
                parts.push(format!("At most one of: {}.", names.join(", ")));
            }
            _ => {}
        }
        if parts.is_empty() {
            return Ok(None);
        }
        let text = bounded(&parts.join(" "), MAX_DESCRIPTION_CHARS);
        self.spend(text.len() / PART_BYTES)?;
        Ok(Some(text))
    }
}

/// Of `google.api.field_behavior`, if the descriptors know it.
fn behaviour(field: &FieldDescriptor) -> Vec<i32> {
    let Some(extension) = field.parent_pool().get_extension_by_name("google.api.field_behavior") else {
        return Vec::new();
    };
    if extension.containing_message().full_name() != "google.protobuf.FieldOptions" || !extension.is_list() {
        return Vec::new();
    }
    let options = field.options();
    let values = options.get_extension(&extension);
    values.as_list().into_iter().flatten().filter_map(|value| value.as_enum_number()).collect()
}

/// The names of an enumeration. A service may know more of them than its descriptors, and sends numbers then.
fn names_of(of: &EnumDescriptor, side: Side) -> Value {
    if of.full_name() == "google.protobuf.NullValue" {
        return json!({"type": "null"});
    }
    let names: Vec<String> = of.values().map(|value| value.name().to_owned()).collect();
    match side {
        Side::Input => json!({"type": "string", "enum": names}),
        Side::Output => json!({"anyOf": [{"type": "string", "enum": names}, {"type": "integer"}]}),
    }
}

/// A value that is no message and no enumeration.
pub(super) fn scalar(kind: &Kind, side: Side) -> Value {
    let long = |pattern: &str| match side {
        // Written as text, so that no reader rounds it; read as either.
        Side::Input => json!({"type": ["string", "integer"], "pattern": pattern}),
        Side::Output => json!({"type": "string", "pattern": pattern}),
    };
    match kind {
        Kind::Bool => json!({"type": "boolean"}),
        Kind::String => json!({"type": "string"}),
        Kind::Bytes => json!({"type": "string", "contentEncoding": "base64"}),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
            json!({"type": "integer", "minimum": i32::MIN, "maximum": i32::MAX})
        }
        Kind::Uint32 | Kind::Fixed32 => json!({"type": "integer", "minimum": 0, "maximum": u32::MAX}),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => long("^-?[0-9]{1,19}$"),
        Kind::Uint64 | Kind::Fixed64 => long("^[0-9]{1,20}$"),
        Kind::Double | Kind::Float => match side {
            Side::Input => json!({"type": "number"}),
            Side::Output => json!({"anyOf": [{"type": "number"}, {"enum": ["NaN", "Infinity", "-Infinity"]}]}),
        },
        Kind::Message(_) => json!({"type": "object"}),
        Kind::Enum(of) => names_of(of, side),
    }
}

#[cfg(test)]
#[path = "schema_tests.rs"]
mod tests;
