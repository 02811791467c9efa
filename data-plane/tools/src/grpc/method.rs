//! A method as a tool.
//!
//! Invariant: the last line of a tool's description names the method, so that what is approved of a definition, and what
//! its hash covers, says what a call does.

use prost_reflect::{MessageDescriptor, MethodDescriptor, prost_types::method_options::IdempotencyLevel};
use provost_mcp::RawJson;
use serde_json::{Value, json};

use super::{
    comments::Comments,
    schema::{Side, Work, of_message},
    well_known::{Shape, shape},
};
use crate::{
    Definition,
    openapi::{Names, bounded},
};

/// Characters of a tool's description, its last line not counted.
const MAX_DESCRIPTION_CHARS: usize = 2_000;
/// Bytes of the schema of a tool's arguments. Larger ones would not be checked, and are no use to a model.
const MAX_INPUT_BYTES: usize = 128 * 1024;
/// Bytes of the schema of a tool's answers; a larger one is left out.
const MAX_OUTPUT_BYTES: usize = 32 * 1024;
/// Messages of a stream that one call takes, and that it may ask for.
pub(super) const DEFAULT_MESSAGES: usize = 100;
pub(super) const MAX_MESSAGES: usize = 1_000;
/// The argument that a message is which is no object as JSON.
pub(super) const VALUE: &str = "value";

/// What a call of the tool does.
#[derive(Debug)]
pub(super) struct Call {
    /// `/package.Service/Method`.
    pub(super) path: String,
    pub(super) input: MessageDescriptor,
    pub(super) output: MessageDescriptor,
    /// The argument that says how many messages to take; `None`: the answer is one.
    pub(super) messages: Option<String>,
}

impl Call {
    /// Whether the arguments are the message; else one of them is.
    pub(super) fn takes_fields(&self) -> bool {
        shape(self.input.full_name()) == Shape::Object
    }
}

/// The tool of this name. `Err`: why there is none.
pub(super) fn tool(
    method: &MethodDescriptor,
    name: &str,
    has_output: bool,
    work: &Work,
    comments: &Comments,
) -> Result<(Definition, Call), String> {
    if method.is_client_streaming() {
        return Err("it takes a stream of messages".to_owned());
    }
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    // Descriptors are others' word: a name such as `..` would lead to another place of the server.
    if !method.parent_service().full_name().split('.').all(is_name) || !is_name(method.name()) {
        return Err("its name is no name".to_owned());
    }
    let mut input = of_message(&method.input(), Side::Input, work, comments)?;
    if shape(method.input().full_name()) != Shape::Object {
        input =
            json!({"type": "object", "properties": {VALUE: input}, "required": [VALUE], "additionalProperties": false});
    }
    let messages = method.is_server_streaming().then(|| bound_argument(&mut input));
    if input.to_string().len() > MAX_INPUT_BYTES {
        return Err("the schema of its arguments is too large".to_owned());
    }
    let mut definition = json!({
        "name": name,
        "description": description(method, &path, comments),
        "inputSchema": input,
        "annotations": annotations(method),
    });
    if has_output && let Some(schema) = output(method, work, comments) {
        definition["outputSchema"] = schema;
    }
    let call = Call { path, input: method.input(), output: method.output(), messages };
    Ok((Definition { name: name.to_owned(), raw: RawJson::from(definition) }, call))
}

fn is_name(part: &str) -> bool {
    !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Adds the argument that says how many messages of a stream to take; its name.
fn bound_argument(input: &mut Value) -> String {
    let mut names = Names::default();
    for field in input.get("properties").and_then(Value::as_object).into_iter().flat_map(|fields| fields.keys()) {
        names.take(field);
    }
    let name = names.take("maxMessages");
    let text = format!("How many messages of the stream to take at most; {DEFAULT_MESSAGES} if left out.");
    let schema = json!({"type": "integer", "minimum": 1, "maximum": MAX_MESSAGES, "description": text});
    if let Some(object) = input.as_object_mut() {
        let fields = object.entry("properties").or_insert_with(|| json!({}));
        if let Some(fields) = fields.as_object_mut() {
            fields.insert(name.clone(), schema);
        }
    }
    name
}

/// The schema of the tool's structured result: an object; a list is its `items`, anything else its `value`.
fn output(method: &MethodDescriptor, work: &Work, comments: &Comments) -> Option<Value> {
    let mut schema = of_message(&method.output(), Side::Output, work, comments).ok()?;
    let definitions = schema.as_object_mut().and_then(|object| object.remove("$defs"));
    let in_member =
        |member: &str, schema: Value| json!({"type": "object", "properties": {member: schema}, "required": [member]});
    let mut schema = match shape(method.output().full_name()) {
        _ if method.is_server_streaming() => in_member("items", json!({"type": "array", "items": schema})),
        Shape::Object => schema,
        Shape::List => in_member("items", schema),
        Shape::Value => in_member(VALUE, schema),
        Shape::Any => return None,
    };
    if let (Some(definitions), Some(object)) = (definitions, schema.as_object_mut()) {
        object.insert("$defs".to_owned(), definitions);
    }
    (schema.to_string().len() <= MAX_OUTPUT_BYTES).then_some(schema)
}

fn description(method: &MethodDescriptor, path: &str, comments: &Comments) -> String {
    let mut parts = Vec::new();
    if method.method_descriptor_proto().options.as_ref().is_some_and(|options| options.deprecated()) {
        parts.push("Deprecated.".to_owned());
    }
    let said = comments.of(&method.parent_file(), method.path());
    parts.extend(said.map(|text| bounded(&text, MAX_DESCRIPTION_CHARS)));
    let way = if method.is_server_streaming() { "gRPC, a stream of answers:" } else { "gRPC" };
    parts.push(format!("{way} {path}"));
    parts.join("\n\n")
}

/// What the method says by itself (`idempotency_level`).
fn annotations(method: &MethodDescriptor) -> Value {
    let options = method.method_descriptor_proto().options.as_ref();
    match options.map(|options| options.idempotency_level()) {
        Some(IdempotencyLevel::NoSideEffects) => {
            json!({"readOnlyHint": true, "destructiveHint": false, "idempotentHint": true, "openWorldHint": true})
        }
        // Whether it destroys is not said; left out, a client takes it for granted.
        Some(IdempotencyLevel::Idempotent) => {
            json!({"readOnlyHint": false, "idempotentHint": true, "openWorldHint": true})
        }
        Some(IdempotencyLevel::IdempotencyUnknown) | None => json!({"readOnlyHint": false, "openWorldHint": true}),
    }
}
