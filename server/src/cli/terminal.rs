//! The person at the terminal, as the one who answers what a tool asks in the middle of a call.
//!
//! Only forms of flat fields are asked (MCP elicitation, mode `form`). Where no person is there nothing is
//! declared, so that a server refuses at once what it could not be answered. Left out: elicitation by URL,
//! sampling, roots.

use std::io::{BufRead, IsTerminal, Write};

use futures::future::BoxFuture;
use provost_client::Handler;
use provost_mcp::{RawJson, RpcError};
use serde_json::{Map, Value, json};

/// How often a field is asked for again when the answer does not fit it.
const MAX_TRIES: usize = 3;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Terminal {
    is_there: bool,
}

impl Terminal {
    /// Looks whether somebody is there: both what is asked and what is answered must be theirs.
    pub fn open() -> Self {
        Self { is_there: std::io::stdin().is_terminal() && std::io::stderr().is_terminal() }
    }

    /// What to declare to servers.
    pub fn capabilities(self) -> Value {
        if self.is_there { json!({ "elicitation": { "form": {} } }) } else { json!({}) }
    }

    /// Answers one request of the server.
    pub async fn answer(self, method: String, params: Option<RawJson>) -> Result<RawJson, RpcError> {
        if method != "elicitation/create" || !self.is_there {
            let message = format!("the command line cannot answer {method} here");
            return Err(RpcError::with_code(RpcError::METHOD_NOT_FOUND, "PV-CLI-INPUT", message));
        }
        let params: Value = params.and_then(|p| p.parse().ok()).unwrap_or_default();
        // Reading a terminal blocks.
        let asked = tokio::task::spawn_blocking(move || {
            let (stdin, stderr) = (std::io::stdin(), std::io::stderr());
            ask(&params, &mut stdin.lock(), &mut stderr.lock())
        });
        let answer = asked.await.unwrap_or_else(|_| json!({ "action": "cancel" }));
        Ok(RawJson::from(answer))
    }
}

impl Handler for Terminal {
    fn request(&self, method: String, params: Option<RawJson>) -> BoxFuture<'static, Result<RawJson, RpcError>> {
        let terminal = *self;
        Box::pin(async move { terminal.answer(method, params).await })
    }

    fn notification(&self, method: &str, params: Option<&RawJson>) {
        if method == "notifications/progress" {
            let params: Value = params.and_then(|p| p.parse().ok()).unwrap_or_default();
            eprintln!("progress: {}", params["progress"]);
        }
    }
}

/// Asks for every field of a form. An empty line leaves an optional field out and declines a required one;
/// the end of the input cancels.
fn ask(params: &Value, input: &mut impl BufRead, output: &mut impl Write) -> Value {
    let message = params["message"].as_str().unwrap_or("The tool asks:");
    let _ = writeln!(output, "{}", printable(message));
    let schema = &params["requestedSchema"];
    let required = |name: &str| schema["required"].as_array().is_some_and(|all| all.iter().any(|r| r == name));
    let mut content = Map::new();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        match ask_field(name, field, required(name), input, output) {
            Given::Value(value) => {
                content.insert(name.clone(), value);
            }
            Given::Nothing => {}
            Given::Declined => return json!({ "action": "decline" }),
            Given::End => return json!({ "action": "cancel" }),
        }
    }
    json!({ "action": "accept", "content": content })
}

enum Given {
    Value(Value),
    Nothing,
    Declined,
    End,
}

fn ask_field(name: &str, field: &Value, is_required: bool, input: &mut impl BufRead, output: &mut impl Write) -> Given {
    let title = field["title"].as_str().unwrap_or(name);
    let about = field["description"].as_str().map(|d| format!(" ({})", printable(d))).unwrap_or_default();
    let choices = choices(field).map(|all| format!(" [{}]", printable(&all.join(", ")))).unwrap_or_default();
    let default = match &field["default"] {
        Value::Null => String::new(),
        value => format!(" [default {}]", printable(&value.to_string())),
    };
    let hint = if is_required || !field["default"].is_null() { "" } else { " [optional]" };
    for _ in 0..MAX_TRIES {
        let _ = write!(output, "  {}{about}{choices}{default}{hint}: ", printable(title));
        let _ = output.flush();
        let mut line = String::new();
        match input.read_line(&mut line) {
            Ok(0) | Err(_) => return Given::End,
            Ok(_) => {}
        }
        let text = line.trim_end_matches(['\n', '\r']);
        if text.is_empty() {
            return match &field["default"] {
                Value::Null if is_required => Given::Declined,
                Value::Null => Given::Nothing,
                value => Given::Value(value.clone()),
            };
        }
        match read_value(field, text) {
            Ok(value) => return Given::Value(value),
            Err(wrong) => {
                let _ = writeln!(output, "    {wrong}");
            }
        }
    }
    Given::Declined
}

/// The values that a field of a list of values may have.
fn choices(field: &Value) -> Option<Vec<String>> {
    let titled = field["oneOf"].as_array().map(|all| all.iter().map(|one| &one["const"]).collect::<Vec<_>>());
    let all = field["enum"].as_array().map(|all| all.iter().collect()).or(titled)?;
    Some(all.into_iter().filter_map(Value::as_str).map(str::to_owned).collect())
}

fn read_value(field: &Value, text: &str) -> Result<Value, String> {
    if let Some(choices) = choices(field) {
        let found = choices.iter().find(|choice| *choice == text);
        return found.map(|c| json!(c)).ok_or_else(|| "give one of the values in brackets".to_owned());
    }
    match field["type"].as_str() {
        Some("boolean") => match text {
            "y" | "yes" | "true" => Ok(json!(true)),
            "n" | "no" | "false" => Ok(json!(false)),
            _ => Err("answer yes or no".to_owned()),
        },
        Some("integer") => text.parse::<i64>().map(|n| json!(n)).map_err(|_| "give a whole number".to_owned()),
        Some("number") => text.parse::<f64>().map(|n| json!(n)).map_err(|_| "give a number".to_owned()),
        Some("array") => Ok(json!(text.split(',').map(str::trim).collect::<Vec<_>>())),
        _ => Ok(json!(text)),
    }
}

/// What a server wrote, without what would move a terminal's cursor.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(typed: &str) -> (Value, String) {
        let params = json!({ "message": "Who\u{1b}[2J are you?", "requestedSchema": { "type": "object",
            "properties": {
                "name": { "type": "string", "title": "Name" },
                "age": { "type": "integer" },
                "plan": { "type": "string", "enum": ["free", "paid"], "default": "free" },
                "sure": { "type": "boolean" } },
            "required": ["name", "sure"] } });
        let mut shown = Vec::new();
        let answer = ask(&params, &mut typed.as_bytes(), &mut shown);
        (answer, String::from_utf8_lossy(&shown).into_owned())
    }

    #[test]
    fn a_form_is_filled_in_line_by_line() {
        // Fields come in the order in which the server wrote them.
        let filled = |content: Value| json!({ "action": "accept", "content": content });
        let table = [
            ("ada\n7\n\nyes\n", filled(json!({ "age": 7, "name": "ada", "plan": "free", "sure": true }))),
            ("ada\n\nnone\npaid\nno\n", filled(json!({ "name": "ada", "plan": "paid", "sure": false }))),
            ("\n\n", json!({ "action": "decline" })),
            ("ada\nx\ny\nz\n", json!({ "action": "decline" })),
            ("ada\n7\n", json!({ "action": "cancel" })),
        ];
        for (typed, expect) in table {
            assert_eq!(asked(typed).0, expect, "{typed:?}");
        }
        assert!(!asked("\n\n").1.contains('\u{1b}'), "a server cannot move the cursor");
    }

    #[tokio::test]
    async fn nobody_answers_where_nobody_is() {
        let nobody = Terminal { is_there: false };
        assert_eq!(nobody.capabilities(), json!({}));
        let refused = nobody.answer("elicitation/create".to_owned(), None).await;
        assert!(refused.is_err_and(|error| error.code == RpcError::METHOD_NOT_FOUND));
    }
}
