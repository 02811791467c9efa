//! A plugin that does everything a plugin should not, for the tests of `provost-data-wasm`. Each tool is one thing to
//! be contained; it takes a number `n` or a text where it needs one. Never install it.

mod fill;

use provost_plugin::{
    bindings::{
        exports::provost::plugin::tools::Guest,
        provost::plugin::{
            host, http,
            types::{CallContext, CallError, Content, InputRequired, Outcome, Tool, ToolResult},
        },
    },
    serde_json::{self, Value, json},
};
use std::sync::atomic::{AtomicU64, Ordering};

struct Hostile;
provost_plugin::bindings::export_component!(Hostile with_types_in provost_plugin::bindings);

/// What every tool that comes to its end says.
fn text(text: impl Into<String>) -> Result<Outcome, CallError> {
    answer(vec![Content::Text(text.into())], None)
}

fn answer(content: Vec<Content>, structured: Option<String>) -> Result<Outcome, CallError> {
    Ok(Outcome::Complete(ToolResult { content, structured, is_error: false }))
}

/// Calls of this instance so far.
static CALLS: AtomicU64 = AtomicU64::new(0);

impl Guest for Hostile {
    fn config_schema() -> Option<String> {
        Some(r#"{"type":"object"}"#.to_owned())
    }

    fn configure(config: String) -> Result<(), String> {
        match config.as_str() {
            r#"{"refuse":true}"# => Err("it says `refuse`".to_owned()),
            r#"{"loop":true}"# => fill::forever(),
            r#"{"trap":true}"# => panic!("configured to"),
            _ => Ok(()),
        }
    }

    fn list_tools() -> Vec<Tool> {
        let tool = |name: &str| Tool {
            name: name.to_owned(),
            title: None,
            description: String::new(),
            input_schema: r#"{"type":"object"}"#.to_owned(),
            output_schema: None,
            annotations: None,
        };
        ["loop", "alloc", "trap", "flood", "fetch", "large"].map(tool).into()
    }

    fn call_tool(context: CallContext, name: String, arguments: String) -> Result<Outcome, CallError> {
        let arguments: Value = serde_json::from_str(&arguments).map_err(|e| CallError::InvalidParams(e.to_string()))?;
        let n = arguments["n"].as_u64().unwrap_or(0);
        let word = arguments["text"].as_str().unwrap_or_default();
        match name.as_str() {
            "fine" => text(word),
            "count" => text((CALLS.fetch_add(1, Ordering::Relaxed) + 1).to_string()),
            "context" => answer(
                Vec::new(),
                Some(
                    json!({
                        "requestId": context.request_id, "hasTime": context.deadline_ms > 0,
                        "traceparent": context.traceparent, "principal": context.principal,
                        "responses": context.input_responses, "state": context.request_state,
                    })
                    .to_string(),
                ),
            ),
            // Time.
            "loop" => fill::forever(),
            "loop-in-host" => loop {
                host::now_ms();
            },
            "until-cancelled" => {
                while !host::cancelled() {}
                Err(CallError::Cancelled)
            }
            "work" => text(fill::work(n).to_string()),
            // Memory.
            "alloc" => text(fill::allocate().to_string()),
            "alloc-politely" => text(fill::allocate_what_is_given().to_string()),
            // Crashes.
            "trap" => panic!("{word}"),
            "stack" => text(fill::recurse(n).to_string()),
            "read-outside" => text(fill::read_outside().to_string()),
            // Answers.
            "large" => text("x".repeat(n as usize)),
            "many" => answer((0..n).map(|_| Content::Text("x".repeat(1 << 10))).collect(), None),
            "structured" => answer(Vec::new(), Some(word.to_owned())),
            "other" => answer(vec![Content::Other(word.to_owned())], None),
            "invalid" => Err(CallError::InvalidParams(word.repeat(n.max(1) as usize))),
            "failed" => Err(CallError::Failed(word.repeat(n.max(1) as usize))),
            "unknown" => Err(CallError::UnknownTool),
            "ask" => {
                Ok(Outcome::InputRequired(InputRequired { requests: word.to_owned(), state: Some("mine".to_owned()) }))
            }
            // What the host does.
            "flood" => {
                (0..n).for_each(|i| host::log(host::Level::Info, &format!("{i} {word}")));
                text("done")
            }
            "progress" => {
                (0..n).for_each(|i| host::progress(i as f64, Some(n as f64), Some(word)));
                host::progress(f64::NAN, None, None);
                text("done")
            }
            "fetch" => {
                let request = http::Request {
                    method: "GET".to_owned(),
                    url: word.to_owned(),
                    headers: vec![("accept".to_owned(), "*/*".to_owned())],
                    body: Some(vec![b'x'; n as usize]),
                    credential: arguments["credential"].as_str().map(str::to_owned),
                    timeout_ms: Some(5_000),
                };
                text(match http::send(&request) {
                    Ok(response) => format!("{} {}", response.status, String::from_utf8_lossy(&response.body)),
                    Err(error) => format!("{error:?}"),
                })
            }
            "fetch-many" => {
                let request = http::Request {
                    method: "GET".to_owned(),
                    url: "https://example.com/".to_owned(),
                    headers: Vec::new(),
                    body: None,
                    credential: None,
                    timeout_ms: None,
                };
                text((0..n).filter(|_| http::send(&request).is_ok()).count().to_string())
            }
            "get" => text(match host::kv_get(word) {
                Ok(value) => format!("{:?}", value.map(|value| String::from_utf8_lossy(&value).into_owned())),
                Err(error) => format!("{error:?}"),
            }),
            "set" => {
                let value = arguments["value"].as_str().map(str::as_bytes);
                text(format!("{:?}", host::kv_set(word, value)))
            }
            "set-large" => text(format!("{:?}", host::kv_set("large", Some(&vec![0; n as usize])))),
            "set-many" => text((0..n).filter(|_| host::kv_set("k", None).is_ok()).count().to_string()),
            "nested" => text(match host::call_tool(word, &arguments["arguments"].to_string()) {
                Ok(result) => result,
                Err(error) => format!("{error:?}"),
            }),
            "nested-many" => text((0..n).filter(|_| host::call_tool("other", "{}").is_ok()).count().to_string()),
            _ => Err(CallError::UnknownTool),
        }
    }
}
