//! One operation as a tool.
//!
//! Parameters are arguments of their names, as far as these are names of arguments; the body is the argument `body`,
//! as a whole, so that nothing in it is taken for a parameter. The description ends with method and path: what an
//! administrator approves, and what the definition's hash covers, says what a call does.

use std::collections::BTreeSet;

use http::Method;
use provost_mcp::RawJson;
use serde_json::{Map, Value, json};

use super::{
    body::{self, Body},
    document::{Document, short},
    encode::percent_decode,
    names::{Names, sanitised},
    parameter::{self, Parameter, Place, is_reserved_header},
    schema::{Side, Work, bounded, of_tool},
};
use crate::Definition;

/// Parameters of one operation.
const MAX_PARAMETERS: usize = 128;
/// Characters of a tool's description, method and path not counted.
const MAX_DESCRIPTION_CHARS: usize = 2_000;
/// Characters of a tool's title, and of an argument's description.
const MAX_TITLE_CHARS: usize = 120;
const MAX_ARGUMENT_CHARS: usize = 1_000;
/// Bytes of a path's template.
const MAX_PATH_BYTES: usize = 1_024;
/// Bytes of the schema of a tool's arguments. Larger ones would not be checked, and are no use to a model.
const MAX_INPUT_BYTES: usize = 128 * 1024;
/// Bytes of the schema of a tool's answers; a larger one is left out.
const MAX_OUTPUT_BYTES: usize = 32 * 1024;
/// Pages that one call may ask for.
pub(super) const MAX_PAGES: usize = 20;

/// What a call of the tool does.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) path: Vec<Piece>,
    pub(super) parameters: Vec<Parameter>,
    pub(super) body: Option<CallBody>,
    /// The argument that says how many pages to get; `None`: the answer is no list.
    pub(super) pages: Option<String>,
}

/// A part of a path.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Encoded.
    Text(String),
    /// The place of a parameter.
    Parameter(usize),
}

/// The body of a call.
#[derive(Debug)]
pub(super) struct CallBody {
    pub(super) argument: String,
    pub(super) body: Body,
}

/// What the plugin itself gives to each request, and what else it says of all operations.
#[derive(Debug, Default)]
pub(super) struct Given {
    /// Names of headers, in lower case.
    pub(super) headers: BTreeSet<String>,
    /// Names of query parameters.
    pub(super) query: BTreeSet<String>,
    /// Whether the resource names the server: operations cannot have others then.
    pub(super) is_server_named: bool,
    pub(super) hide_output_schemas: bool,
}

/// An operation in its document.
pub(super) struct Operation<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    /// What it shares with the other operations of its path.
    pub(super) item: &'a Value,
    pub(super) value: &'a Value,
}

/// The tool of this name. `Err`: why there is none.
pub(super) fn tool(
    document: &Document<'_>,
    operation: &Operation<'_>,
    name: &str,
    given: &Given,
    work: &Work,
) -> Result<(Definition, Call), String> {
    let Operation { item, value, .. } = operation;
    if !given.is_server_named && [item, value].iter().any(|of| of.get("servers").is_some()) {
        return Err("it has servers of its own; name the plugin's `server`".to_owned());
    }
    let method = Method::from_bytes(operation.method.to_ascii_uppercase().as_bytes()).map_err(|e| e.to_string())?;
    let has_body = !matches!(method, Method::GET | Method::HEAD);
    let described = parameters(document, operation, given)?;
    let body = match value.get("requestBody").filter(|_| has_body) {
        Some(body) => body::read(document, body)?,
        None => None,
    };
    let answer = answer(document, value);
    let mut names = Names::default();
    let arguments: Vec<String> = described.iter().map(|d| argument(&mut names, &d.parameter)).collect();
    let body_name = body.as_ref().map(|_| names.take("body"));
    let is_list = answer.as_ref().is_some_and(|(kind, _)| *kind == Kind::Array);
    let pages = (is_list && method == Method::GET).then(|| names.take("pages"));

    let (mut input, definitions) = of_tool(document, Side::Input, work, |convert| {
        let (mut properties, mut required) = (Map::new(), Vec::new());
        for (argument, d) in arguments.iter().zip(&described) {
            let schema = d.schema.map(&mut *convert).transpose()?.unwrap_or(Value::Bool(true));
            properties.insert(argument.clone(), with_description(schema, d.description));
            if d.parameter.is_required {
                required.push(argument.clone());
            }
        }
        if let (Some(body), Some(argument)) = (&body, &body_name) {
            let schema = body.schema.map(&mut *convert).transpose()?.unwrap_or(Value::Bool(true));
            properties.insert(argument.clone(), with_description(schema, body.description));
            if body.is_required {
                required.push(argument.clone());
            }
        }
        if let Some(argument) = &pages {
            let text = "How many pages of the list to get at most; 1 if left out.";
            let schema = json!({"type": "integer", "minimum": 1, "maximum": MAX_PAGES, "description": text});
            properties.insert(argument.clone(), schema);
        }
        let mut schema = json!({"type": "object", "properties": properties, "additionalProperties": false});
        if !required.is_empty() {
            schema["required"] = json!(required);
        }
        Ok(schema)
    })?;
    if !definitions.is_empty() {
        input["$defs"] = Value::Object(definitions);
    }
    if input.to_string().len() > MAX_INPUT_BYTES {
        return Err("the schema of its arguments is too large".to_owned());
    }
    let parameters: Vec<Parameter> =
        described.into_iter().zip(arguments).map(|(d, argument)| Parameter { argument, ..d.parameter }).collect();
    let path = pieces(operation.path, &parameters)?;

    let mut definition = json!({
        "name": name,
        "description": description(operation, &method),
        "inputSchema": input,
        "annotations": annotations(&method),
    });
    if let Some(title) = text(value, "summary") {
        definition["title"] = bounded(title, MAX_TITLE_CHARS).into();
    }
    if let Some((kind, schema)) = answer.filter(|_| !given.hide_output_schemas)
        && let Some(schema) = output(document, kind, schema, work)
    {
        definition["outputSchema"] = schema;
    }
    let body = body.zip(body_name).map(|(d, argument)| CallBody { argument, body: d.body });
    let definition = Definition { name: name.to_owned(), raw: RawJson::from(definition) };
    Ok((definition, Call { method, path, parameters, body, pages }))
}

/// The parameters that a caller gives: those of the operation, and those of its path that it does not say anew.
fn parameters<'a>(
    document: &Document<'a>,
    operation: &Operation<'a>,
    given: &Given,
) -> Result<Vec<parameter::Described<'a>>, String> {
    let list = |of: &'a Value| of.get("parameters").and_then(Value::as_array).into_iter().flatten();
    let mut all: Vec<parameter::Described<'a>> = Vec::new();
    for value in list(operation.value).chain(list(operation.item)) {
        let described = parameter::read(document, value)?;
        let p = &described.parameter;
        let is_same = |other: &parameter::Described<'_>| {
            other.parameter.place == p.place
                && match p.place {
                    Place::Header => other.parameter.name.eq_ignore_ascii_case(&p.name),
                    _ => other.parameter.name == p.name,
                }
        };
        if all.iter().any(is_same) || is_given(p, given) {
            continue;
        }
        if p.place == Place::Header && is_reserved_header(&p.name) {
            let is_ignored = ["accept", "content-type", "authorization"].iter().any(|h| p.name.eq_ignore_ascii_case(h));
            if p.is_required && !is_ignored {
                return Err(format!("it needs the header `{}`, which no caller gives", short(&p.name)));
            }
            continue;
        }
        // One that is nowhere in the path goes nowhere.
        if p.place == Place::Path && !operation.path.contains(&format!("{{{}}}", p.name)) {
            continue;
        }
        if all.len() >= MAX_PARAMETERS {
            return Err(format!("it has more than {MAX_PARAMETERS} parameters"));
        }
        all.push(described);
    }
    Ok(all)
}

/// Whether the plugin gives it: then no caller does.
fn is_given(parameter: &Parameter, given: &Given) -> bool {
    match parameter.place {
        Place::Header => given.headers.contains(&parameter.name.to_ascii_lowercase()),
        Place::Query => given.query.contains(&parameter.name),
        Place::Cookie => given.headers.contains("cookie"),
        Place::Path => false,
    }
}

fn argument(names: &mut Names, parameter: &Parameter) -> String {
    let mut wanted = sanitised(&parameter.name);
    if wanted.is_empty() {
        wanted = parameter.place.as_str().to_owned();
    }
    if names.has(&wanted) {
        wanted = format!("{}_{wanted}", parameter.place.as_str());
    }
    names.take(&wanted)
}

fn with_description(schema: Value, description: &str) -> Value {
    let mut object = match schema {
        Value::Object(object) => object,
        Value::Bool(true) => Map::new(),
        other => return other,
    };
    if !description.trim().is_empty() {
        object.insert("description".to_owned(), bounded(description, MAX_ARGUMENT_CHARS).into());
    }
    Value::Object(object)
}

/// The path's template in parts. `Err`: it could lead elsewhere, or is not complete.
fn pieces(template: &str, parameters: &[Parameter]) -> Result<Vec<Piece>, String> {
    let is_odd = |c: char| c.is_control() || matches!(c, '?' | '#' | '\\');
    if template.len() > MAX_PATH_BYTES || !template.starts_with('/') || template.contains(is_odd) {
        return Err("its path is no path".to_owned());
    }
    let is_dots = |segment: &str| matches!(percent_decode(segment).as_str(), "." | "..");
    if template.split('/').any(is_dots) || percent_decode(template).contains('\\') {
        return Err("its path leads out of itself".to_owned());
    }
    let (mut pieces, mut rest) = (Vec::new(), template);
    while let Some((before, after)) = rest.split_once('{') {
        let (name, tail) = after.split_once('}').ok_or("its path has a `{` without `}`")?;
        let is_it = |p: &Parameter| p.place == Place::Path && p.name == name;
        let place = parameters
            .iter()
            .position(is_it)
            .ok_or_else(|| format!("`{}` of its path is no parameter", short(name)))?;
        pieces.push(Piece::Text(literal(before)));
        pieces.push(Piece::Parameter(place));
        rest = tail;
    }
    pieces.push(Piece::Text(literal(rest)));
    pieces.retain(|piece| *piece != Piece::Text(String::new()));
    Ok(pieces)
}

/// A part of a template with everything encoded that is not of a path (RFC 3986, 3.3); `%XX` stays.
fn literal(text: &str) -> String {
    let bytes = text.as_bytes();
    let is_hex = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_hexdigit);
    let mut out = String::new();
    for (at, b) in bytes.iter().enumerate() {
        let stays = b.is_ascii_alphanumeric()
            || b"-._~!$&()*+,;=:@/".contains(b)
            || (*b == b'%' && is_hex(at + 1) && is_hex(at + 2));
        if stays {
            out.push(char::from(*b));
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
    }
    out
}

fn text<'a>(value: &'a Value, member: &str) -> Option<&'a str> {
    value.get(member).and_then(Value::as_str).map(str::trim).filter(|text| !text.is_empty())
}

fn description(operation: &Operation<'_>, method: &Method) -> String {
    let value = operation.value;
    let mut parts = Vec::new();
    if value.get("deprecated").and_then(Value::as_bool) == Some(true) {
        parts.push("Deprecated.".to_owned());
    }
    let said = text(value, "description").or_else(|| text(value, "summary"));
    parts.extend(said.map(|text| bounded(text, MAX_DESCRIPTION_CHARS)));
    parts.push(format!("{method} {}", operation.path));
    parts.join("\n\n")
}

/// What the method says by itself (RFC 9110, 9.2).
fn annotations(method: &Method) -> Value {
    match *method {
        Method::GET | Method::HEAD => {
            json!({"readOnlyHint": true, "destructiveHint": false, "idempotentHint": true, "openWorldHint": true})
        }
        Method::PUT | Method::DELETE => {
            json!({"readOnlyHint": false, "destructiveHint": true, "idempotentHint": true, "openWorldHint": true})
        }
        // Whether it destroys is not for the method to say; left out, a client takes it for granted.
        _ => json!({"readOnlyHint": false, "openWorldHint": true}),
    }
}

/// Of which kind an answer is, as the document says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Object,
    Array,
    Other,
}

/// The schema of the answers that say success, if there is one for all of them.
fn answer<'a>(document: &Document<'a>, operation: &'a Value) -> Option<(Kind, &'a Value)> {
    let responses = operation.get("responses").and_then(Value::as_object)?;
    let mut good = responses.iter().filter(|(code, _)| code.starts_with('2'));
    let (_, response) = good.next()?;
    if good.next().is_some() {
        return None;
    }
    let content = document.resolve(response).ok()?.get("content").and_then(Value::as_object)?;
    let mut kinds = content.iter();
    let (_, media) = kinds.next().filter(|(kind, _)| body::is_json(kind))?;
    if kinds.next().is_some() {
        return None;
    }
    let schema = media.get("schema")?;
    let resolved = document.resolve(schema).ok()?;
    let has = |member: &str| resolved.get(member).is_some();
    let kind = match resolved.get("type").and_then(Value::as_str) {
        Some("object") => Kind::Object,
        Some("array") => Kind::Array,
        Some(_) => Kind::Other,
        None if has("properties") => Kind::Object,
        None if has("items") => Kind::Array,
        None => return None,
    };
    // An answer that may be null is of two kinds.
    (resolved.get("nullable") != Some(&Value::Bool(true))).then_some((kind, schema))
}

/// The schema of the tool's structured result: an object; a list is its `items`, anything else its `value`.
fn output(document: &Document<'_>, kind: Kind, schema: &Value, work: &Work) -> Option<Value> {
    let (converted, definitions) = of_tool(document, Side::Output, work, |convert| convert(schema)).ok()?;
    let mut output = match kind {
        Kind::Object => {
            let mut object = converted;
            object.as_object_mut()?.insert("type".to_owned(), "object".into());
            object
        }
        Kind::Array => json!({"type": "object", "properties": {"items": converted}, "required": ["items"]}),
        Kind::Other => json!({"type": "object", "properties": {"value": converted}, "required": ["value"]}),
    };
    if !definitions.is_empty() {
        output["$defs"] = Value::Object(definitions);
    }
    (output.to_string().len() <= MAX_OUTPUT_BYTES).then_some(output)
}

#[cfg(test)]
#[path = "operation_tests.rs"]
mod tests;
