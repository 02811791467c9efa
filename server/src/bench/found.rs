//! Which tool a load calls, and with what, where the command line leaves it open.
//!
//! `--tool echo`, which is the default, is the tool of that name. A gateway puts a plugin's name before it: there it is
//! `echo.echo`. One call goes ahead of every load and decides; no list is asked for, which may be long, or not for
//! whoever may call. Only what a server refuses as unknown, or as not called rightly, is tried otherwise.

use provost_client::Connector;
use serde_json::{Value, json};

use super::{
    LoadArgs,
    client::{CallError, Target},
};
use crate::cli::arguments;

/// A tool that asks for nothing but something to say back.
const ECHO: &str = "echo";

/// The tool's name there, and calls of it, of which one was answered well.
pub async fn find(args: &LoadArgs, connector: &Connector) -> anyhow::Result<(String, Target)> {
    let given = given(args)?;
    let mut refused = CallError::Wrong("no tool is named");
    for name in names(&args.tool) {
        for arguments in offers(&name, given.as_ref()) {
            let target = Target::new(connector.clone(), args.era, &name, &arguments)?
                .expecting(args.expect.clone())
                .within(args.timeout);
            let Err(error) = target.first_call().await else { return Ok((name, target)) };
            if !error.is_refusal() {
                return Err(error.of_the_first_call());
            }
            refused = error;
            if refused.is_unknown_tool() {
                break;
            }
        }
    }
    Err(refused.of_the_first_call())
}

/// The arguments that the command line says; none where it says nothing of them.
fn given(args: &LoadArgs) -> anyhow::Result<Option<Value>> {
    match &args.json_args {
        Some(text) => Ok(Some(arguments::of_json("--json-args", text)?.parse()?)),
        None if args.args.is_empty() => Ok(None),
        None => Ok(Some(Value::Object(arguments::of_pairs(&args.args)?))),
    }
}

/// What the tool may be called.
fn names(tool: &str) -> Vec<String> {
    if tool.contains('.') { vec![tool.to_owned()] } else { vec![tool.to_owned(), format!("{tool}.{tool}")] }
}

/// What it may be called with: of an echo, the built-in's argument, then that of the servers for tests.
fn offers(name: &str, given: Option<&Value>) -> Vec<Value> {
    match given {
        Some(given) => vec![given.clone()],
        None if name.rsplit('.').next() == Some(ECHO) => vec![json!({"text": "hello"}), json!({"message": "hello"})],
        None => vec![json!({})],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_lack_its_plugin_and_an_echo_its_text() {
        assert_eq!(names("echo"), ["echo", "echo.echo"]);
        assert_eq!(names("sql.query"), ["sql.query"]);
        let says = [json!({"text": "hello"}), json!({"message": "hello"})];
        assert_eq!(offers("echo", None), says);
        assert_eq!(offers("up.echo", None), says);
        assert_eq!(offers("up.echoes", None), [json!({})]);
        assert_eq!(offers("echo", Some(&json!({"a": 1}))), [json!({"a": 1})]);
    }
}
