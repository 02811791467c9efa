//! Functions that a model may call, in the arguments of `chat`, and the calls that it makes of them.

use std::collections::BTreeSet;

use provost_types::{CallDelta, CallHead, ChatTools, FunctionCall, FunctionTool, ToolChoice};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Most functions of one call.
const MAX_TOOLS: usize = 128;
/// Longest name of a function, in bytes.
const MAX_NAME_BYTES: usize = 64;
/// Most calls of one message.
const MAX_CALLS: usize = 128;

/// A function, as MCP describes tools.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Function {
    name: String,
    description: Option<String>,
    input_schema: Option<Map<String, Value>>,
    #[serde(default)]
    strict: bool,
}

/// `toolChoice`.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Choice {
    Word(String),
    Named { name: String },
}

/// A call that the model made before.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Made {
    id: String,
    name: String,
    arguments: Map<String, Value>,
}

/// A call in an answer.
pub(super) struct Call {
    head: CallHead,
    /// The text of its arguments, as far as it came.
    arguments: String,
}

pub(super) fn tools_schema() -> Value {
    json!({
        "type": "array",
        "maxItems": MAX_TOOLS,
        "description": "Functions that the model may call. Whoever asks runs them, and sends what comes of it as messages of the role `tool`.",
        "items": {
            "type": "object",
            "properties": {
                "name": {"type": "string", "pattern": format!("^[A-Za-z0-9_-]{{1,{MAX_NAME_BYTES}}}$")},
                "description": {"type": "string"},
                "inputSchema": {"type": "object", "description": "The JSON schema of the arguments; without one there are none."},
                "strict": {"type": "boolean", "description": "Arguments follow the schema also where the model is free to call."},
            },
            "required": ["name"],
            "additionalProperties": false,
        },
    })
}

pub(super) fn choice_schema() -> Value {
    json!({
        "description": "`auto` where nothing is said. A name: that function is called.",
        "anyOf": [
            {"enum": ["none", "auto", "required"]},
            {
                "type": "object",
                "properties": {"name": {"type": "string"}},
                "required": ["name"],
                "additionalProperties": false,
            },
        ],
    })
}

/// Of calls of a message, or of those of an answer.
pub(super) fn calls_schema(arguments: &Value) -> Value {
    json!({
        "type": "array",
        "maxItems": MAX_CALLS,
        "items": {
            "type": "object",
            "properties": {"id": {"type": "string"}, "name": {"type": "string"}, "arguments": arguments},
            "required": ["id", "name", "arguments"],
            "additionalProperties": false,
        },
    })
}

/// What the model may call. `None`: nothing.
pub(super) fn tools(
    functions: Vec<Function>,
    choice: Option<Choice>,
    parallel: Option<bool>,
) -> Result<Option<ChatTools>, String> {
    let choice = choice.map_or(Ok(Some(ToolChoice::Auto)), Choice::plain)?;
    if functions.is_empty() {
        return match choice {
            None | Some(ToolChoice::Auto) => Ok(None),
            Some(_) => Err("`toolChoice` asks for a call, and there are no `tools`".to_owned()),
        };
    }
    if functions.len() > MAX_TOOLS {
        return Err(format!("there are {} `tools`, at most {MAX_TOOLS} are served", functions.len()));
    }
    let functions: Vec<FunctionTool> = functions.into_iter().map(Function::plain).collect::<Result<_, _>>()?;
    let mut names = BTreeSet::new();
    if let Some(twice) = functions.iter().find(|function| !names.insert(function.name.as_str())) {
        return Err(format!("`tools` has two functions `{}`", twice.name));
    }
    if let Some(ToolChoice::Function(name)) = &choice
        && !names.contains(name.as_str())
    {
        return Err(format!("`toolChoice` names the function `{name}`, which is not in `tools`"));
    }
    Ok(choice.map(|choice| ChatTools { functions, choice, parallel: parallel.unwrap_or(true) }))
}

/// The calls of a message.
pub(super) fn made(role: &str, calls: Vec<Made>) -> Result<Vec<FunctionCall>, String> {
    if !calls.is_empty() && role != "assistant" {
        return Err(format!("a message of the role `{role}` has `toolCalls`"));
    }
    if calls.len() > MAX_CALLS {
        return Err(format!("a message has {} `toolCalls`, at most {MAX_CALLS} are served", calls.len()));
    }
    Ok(calls.into_iter().map(|Made { id, name, arguments }| FunctionCall { id, name, arguments }).collect())
}

/// Adds pieces of calls to those of an answer.
pub(super) fn add(calls: &mut Vec<Call>, deltas: Vec<CallDelta>) {
    for CallDelta { head, arguments, .. } in deltas {
        match (head, calls.last_mut()) {
            (Some(head), _) => calls.push(Call { head, arguments }),
            (None, Some(call)) => call.arguments.push_str(&arguments),
            (None, None) => {}
        }
    }
}

impl Call {
    /// Arguments that were cut off are no object, and shown as far as they came.
    pub(super) fn shown(&self) -> Value {
        let arguments = match serde_json::from_str::<Map<String, Value>>(&self.arguments) {
            Ok(arguments) => Value::Object(arguments),
            Err(_) => Value::from(self.arguments.as_str()),
        };
        json!({"id": self.head.id, "name": self.head.name, "arguments": arguments})
    }
}

impl Choice {
    /// `None`: the model calls nothing.
    fn plain(self) -> Result<Option<ToolChoice>, String> {
        match self {
            Self::Named { name } => Ok(Some(ToolChoice::Function(name))),
            Self::Word(word) => match word.as_str() {
                "none" => Ok(None),
                "auto" => Ok(Some(ToolChoice::Auto)),
                "required" => Ok(Some(ToolChoice::Required)),
                _ => Err(format!("`toolChoice` `{word}` is not served; there are none, auto, required and a name")),
            },
        }
    }
}

impl Function {
    fn plain(self) -> Result<FunctionTool, String> {
        let Self { name, description, input_schema, strict } = self;
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.bytes().all(is_plain) {
            return Err(format!(
                "a function is called `{name}`; names have 1 to {MAX_NAME_BYTES} letters, digits, `_` and `-`"
            ));
        }
        let kind = input_schema.as_ref().and_then(|schema| schema.get("type"));
        if kind.is_some_and(|kind| kind != "object") {
            return Err(format!(
                "`inputSchema` of the function `{name}` must have the `type` `object`: arguments have names"
            ));
        }
        Ok(FunctionTool { name, description, parameters: input_schema, strict })
    }
}
