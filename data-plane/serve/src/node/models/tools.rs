//! Tools in requests of OpenAI's API: functions that the model may call, and calls that it made.

use std::collections::BTreeSet;

use provost_mcp::RpcError;
use provost_types::{ChatTools, FunctionCall, FunctionTool, ToolChoice};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{body::invalid, object::Object};

/// Most functions of one request.
const MAX_TOOLS: usize = 128;
/// Longest name of a function, in bytes.
const MAX_NAME_BYTES: usize = 64;
/// Most calls of one message.
const MAX_CALLS: usize = 128;

/// An item of `tools`.
#[derive(Deserialize)]
pub(super) struct Tool {
    #[serde(rename = "type")]
    kind: String,
    function: Option<Object<Function>>,
}

#[derive(Deserialize)]
struct Function {
    name: String,
    description: Option<String>,
    parameters: Option<Value>,
    strict: Option<bool>,
}

/// `tool_choice`.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Choice {
    Word(String),
    Named(Named),
}

#[derive(Deserialize)]
pub(super) struct Named {
    #[serde(rename = "type")]
    kind: String,
    function: Option<NamedFunction>,
}

#[derive(Deserialize)]
struct NamedFunction {
    name: String,
}

/// An item of a message's `tool_calls`.
#[derive(Deserialize)]
pub(super) struct Made {
    id: String,
    #[serde(rename = "type")]
    kind: Option<String>,
    function: Option<Object<MadeFunction>>,
}

#[derive(Deserialize)]
struct MadeFunction {
    name: String,
    arguments: String,
}

/// What the model may call. `None`: nothing.
pub(super) fn tools(
    tools: Vec<Object<Tool>>,
    choice: Option<Choice>,
    parallel: Option<bool>,
) -> Result<Option<ChatTools>, RpcError> {
    let choice = choice.map(Choice::plain).transpose()?.unwrap_or(Some(ToolChoice::Auto));
    if tools.is_empty() {
        return match choice {
            None | Some(ToolChoice::Auto) => Ok(None),
            Some(_) => Err(invalid("`tool_choice` asks for a call, and there are no `tools`")),
        };
    }
    if tools.len() > MAX_TOOLS {
        return Err(invalid(format!("{} `tools`, at most {MAX_TOOLS} are served", tools.len())));
    }
    let functions: Vec<FunctionTool> = tools.into_iter().map(|tool| tool.0.plain()).collect::<Result<_, _>>()?;
    check_names(&functions, choice.as_ref())?;
    Ok(choice.map(|choice| ChatTools { functions, choice, parallel: parallel.unwrap_or(true) }))
}

fn check_names(functions: &[FunctionTool], choice: Option<&ToolChoice>) -> Result<(), RpcError> {
    let mut names = BTreeSet::new();
    if let Some(twice) = functions.iter().find(|function| !names.insert(function.name.as_str())) {
        return Err(invalid(format!("`tools` has two functions `{}`", twice.name)));
    }
    match choice {
        Some(ToolChoice::Function(name)) if !names.contains(name.as_str()) => {
            Err(invalid(format!("`tool_choice` names the function `{name}`, which is not in `tools`")))
        }
        _ => Ok(()),
    }
}

/// The calls of a message.
pub(super) fn calls(made: Vec<Object<Made>>) -> Result<Vec<FunctionCall>, RpcError> {
    if made.len() > MAX_CALLS {
        return Err(invalid(format!("a message has {} `tool_calls`, at most {MAX_CALLS} are served", made.len())));
    }
    made.into_iter().map(|made| made.0.plain()).collect()
}

impl Choice {
    /// `None`: the model calls nothing.
    fn plain(self) -> Result<Option<ToolChoice>, RpcError> {
        match self {
            Self::Word(word) => match &*word {
                "none" => Ok(None),
                "auto" => Ok(Some(ToolChoice::Auto)),
                "required" => Ok(Some(ToolChoice::Required)),
                _ => Err(invalid(format!(
                    "`tool_choice` `{word}` is not served; there are none, auto, required and a named function"
                ))),
            },
            Self::Named(Named { kind, function }) => match function {
                Some(function) if kind == "function" => Ok(Some(ToolChoice::Function(function.name))),
                _ => Err(invalid(format!("`tool_choice` of type `{kind}` is not served, or names no `function.name`"))),
            },
        }
    }
}

impl Tool {
    fn plain(self) -> Result<FunctionTool, RpcError> {
        let Self { kind, function } = self;
        let Some(Object(Function { name, description, parameters, strict })) = function.filter(|_| kind == "function")
        else {
            return Err(invalid(format!("`tools` of type `{kind}` are not served, or have no `function`")));
        };
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.bytes().all(is_plain) {
            return Err(invalid(format!(
                "a function is called `{name}`; names have 1 to {MAX_NAME_BYTES} letters, digits, `_` and `-`"
            )));
        }
        let parameters = parameters.filter(|parameters| !parameters.is_null());
        let parameters = parameters.map(|parameters| schema(&name, parameters)).transpose()?;
        Ok(FunctionTool { name, description, parameters, strict: strict.unwrap_or(false) })
    }
}

/// The schema of a function's arguments, which are an object.
fn schema(name: &str, parameters: Value) -> Result<Map<String, Value>, RpcError> {
    let Value::Object(schema) = parameters else {
        return Err(invalid(format!("`parameters` of the function `{name}` are no JSON schema, which is an object")));
    };
    if schema.get("type").is_some_and(|kind| kind != "object") {
        return Err(invalid(format!(
            "`parameters` of the function `{name}` must have the `type` `object`: arguments have names"
        )));
    }
    Ok(schema)
}

impl Made {
    fn plain(self) -> Result<FunctionCall, RpcError> {
        let Self { id, kind, function } = self;
        let function = function.filter(|_| kind.as_deref().is_none_or(|kind| kind == "function"));
        let Some(Object(MadeFunction { name, arguments })) = function else {
            return Err(invalid(format!("the call `{id}` in `tool_calls` is not of a `function`")));
        };
        // Of a function that takes none there may be none.
        let arguments = if arguments.trim().is_empty() { "{}" } else { &*arguments };
        let arguments = serde_json::from_str(arguments).map_err(|cause| {
            invalid(format!("`arguments` of the call `{id}` in `tool_calls` are not a JSON object as a text: {cause}"))
        })?;
        Ok(FunctionCall { id, name, arguments })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(list: Value, choice: Value, parallel: Option<bool>) -> Result<Option<ChatTools>, String> {
        let list: Vec<Object<Tool>> = serde_json::from_value(list).map_err(|cause| cause.to_string())?;
        let choice: Option<Choice> = serde_json::from_value(choice).map_err(|cause| cause.to_string())?;
        tools(list, choice, parallel).map_err(|error| error.message)
    }

    fn function(name: &str) -> Value {
        json!({ "type": "function", "function": { "name": name, "parameters": { "type": "object" } } })
    }

    #[test]
    fn functions_and_choices_are_read() {
        let named = json!({ "type": "function", "function": { "name": "g" } });
        for (choice, expected) in [
            (Value::Null, Some(ToolChoice::Auto)),
            (json!("auto"), Some(ToolChoice::Auto)),
            (json!("required"), Some(ToolChoice::Required)),
            (named, Some(ToolChoice::Function("g".to_owned()))),
            (json!("none"), None),
        ] {
            let read = read(json!([function("f"), function("g")]), choice.clone(), None).unwrap();
            assert_eq!(read.as_ref().map(|tools| &tools.choice), expected.as_ref(), "{choice}");
            assert!(read.is_none_or(|tools| tools.parallel && tools.functions.len() == 2));
        }
        let bare = json!([{ "type": "function", "function": { "name": "f", "description": "d", "strict": true } }]);
        let one = read(bare, Value::Null, Some(false)).unwrap().unwrap();
        let expected =
            FunctionTool { name: "f".to_owned(), description: Some("d".to_owned()), parameters: None, strict: true };
        assert_eq!((one.functions, one.parallel), (vec![expected], false));
        assert_eq!(read(json!([]), json!("auto"), None).unwrap(), None);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let with =
            |parameters: Value| json!([{ "type": "function", "function": { "name": "f", "parameters": parameters } }]);
        let many: Vec<Value> = (0..129).map(|n| function(&format!("f{n}"))).collect();
        let named = |name: &str| json!({ "type": "function", "function": { "name": name } });
        for (list, choice, says) in [
            (json!([function("f")]), named("other"), "`other`"),
            (json!([function("f")]), json!("always"), "`always`"),
            (json!([function("f")]), json!({ "type": "allowed_tools" }), "allowed_tools"),
            (json!([function("f")]), json!({ "type": "function" }), "function.name"),
            (json!([function("f"), function("f")]), Value::Null, "two functions `f`"),
            (json!([function("a b")]), Value::Null, "`a b`"),
            (json!([function("")]), Value::Null, "names have"),
            (json!([function(&"n".repeat(65))]), Value::Null, "names have"),
            (json!([{ "type": "web_search" }]), Value::Null, "web_search"),
            (json!([{ "type": "function" }]), Value::Null, "no `function`"),
            (with(json!([1])), Value::Null, "no JSON schema"),
            (with(json!({ "type": "string" })), Value::Null, "`object`"),
            (json!(many), Value::Null, "at most 128"),
            (json!([]), json!("required"), "no `tools`"),
        ] {
            let refused = read(list, choice, None).unwrap_err();
            assert!(refused.contains(says), "{says}: {refused}");
        }
    }

    #[test]
    fn calls_of_a_message_have_arguments_that_are_an_object() {
        let read = |arguments: &str| {
            let made = json!([{ "id": "c", "type": "function", "function": { "name": "f", "arguments": arguments } }]);
            calls(serde_json::from_value(made).unwrap()).map_err(|error| error.message)
        };
        let call = read("{\"a\": [1]}").unwrap().remove(0);
        assert_eq!((&*call.id, &*call.name, Value::Object(call.arguments)), ("c", "f", json!({ "a": [1] })));
        assert!(read("").unwrap()[0].arguments.is_empty());
        for wrong in ["[]", "{", "\"{}\"", "1"] {
            assert!(read(wrong).unwrap_err().contains("`c`"), "{wrong}");
        }
        let custom = json!([{ "id": "c", "type": "custom", "custom": {} }]);
        assert!(calls(serde_json::from_value(custom).unwrap()).unwrap_err().message.contains("not of a `function`"));
    }
}
