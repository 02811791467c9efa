//! A plugin that calls the tools that it is told to, for the tests of calls within calls. Never install it: whoever may
//! call it decides what it calls.

use provost_plugin::{
    Call, Failure, Plugin, Tool,
    schemars::JsonSchema,
    serde::Deserialize,
    serde_json::{Map, Value},
};

#[derive(Deserialize, JsonSchema)]
#[serde(crate = "provost_plugin::serde", deny_unknown_fields)]
#[schemars(crate = "provost_plugin::schemars")]
struct Wanted {
    /// The tool's full name.
    tool: String,
    /// What it is given.
    arguments: Map<String, Value>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(crate = "provost_plugin::serde", deny_unknown_fields)]
#[schemars(crate = "provost_plugin::schemars")]
struct Repeated {
    /// The tool's full name.
    tool: String,
    /// What it is given.
    arguments: Map<String, Value>,
    /// How often.
    times: u32,
}

/// The result object as a text.
fn call(call: &Call, wanted: Wanted) -> Result<String, Failure> {
    Ok(call.call_tool(&wanted.tool, &wanted.arguments)?.to_string())
}

/// How many had a result, and what the last one that had none was told.
fn many(call: &Call, wanted: Repeated) -> String {
    let (mut done, mut told) = (0, String::new());
    for _ in 0..wanted.times {
        match call.call_tool(&wanted.tool, &wanted.arguments) {
            Ok(_) => done += 1,
            Err(failure) => told = format!("{failure:?}"),
        }
    }
    format!("{done} {told}")
}

fn plugin() -> Plugin {
    Plugin::new().with(Tool::new("call", "Calls a tool, and gives its result as a text.", call)).with(Tool::new(
        "many",
        "Calls a tool so many times, and counts the results.",
        many,
    ))
}

provost_plugin::export!(plugin);
