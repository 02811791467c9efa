//! `provost tools` and `provost call`.

use std::{process::ExitCode, sync::Arc, time::Duration};

use clap::Args;
use provost_client::{Client, ClientError, NoHandler};
use provost_mcp::{RawJson, RawObject};
use serde_json::{Map, Value, json};

use super::{
    endpoint::{EndpointArgs, EndpointContext, connect, failed},
    table,
    terminal::Terminal,
};
use crate::failure::{Failure, Usage};

/// Most pages of a list that are followed.
const MAX_PAGES: usize = 1_000;
/// The longest that one page may take.
const LIST_LIMIT: Duration = Duration::from_secs(60);
/// How often a tool may ask within one call.
const MAX_ROUNDS: usize = 8;

#[derive(Args)]
pub struct ToolsArgs {
    #[command(flatten)]
    endpoint: EndpointArgs,
    /// Print the definitions as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub struct CallArgs {
    /// The tool, `plugin.tool`.
    tool: String,
    /// An argument, `name=value`; a value that is JSON (`3`, `true`, `["a"]`) is taken as JSON.
    #[arg(long = "arg", value_name = "K=V")]
    args: Vec<String>,
    /// All arguments as one JSON object.
    #[arg(long, value_name = "JSON", conflicts_with = "args")]
    json: Option<String>,
    /// Print the whole result, with the audit leaf in `_meta`.
    #[arg(long)]
    show_meta: bool,
    #[command(flatten)]
    endpoint: EndpointArgs,
}

/// Lists the tools.
pub async fn tools(args: ToolsArgs) -> anyhow::Result<ExitCode> {
    let context = args.endpoint.resolve()?;
    let tools = every_tool(&context).await?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&tools)?);
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<Vec<String>> = tools
        .iter()
        .map(|tool| {
            let description = tool["description"].as_str().unwrap_or_default();
            let first_line = description.lines().next().unwrap_or_default();
            vec![tool["name"].as_str().unwrap_or_default().to_owned(), first_line.to_owned()]
        })
        .collect();
    table::print(&["TOOL", "DESCRIPTION"], &rows);
    Ok(ExitCode::SUCCESS)
}

/// The definitions of all tools that may be called there.
pub async fn every_tool(context: &EndpointContext) -> anyhow::Result<Vec<Value>> {
    let client = connect(context, json!({}), Arc::new(NoHandler)).await?;
    let mut tools = Vec::new();
    let mut cursor = None;
    for _ in 0..MAX_PAGES {
        let mut params = RawObject::new();
        if let Some(cursor) = cursor.take() {
            params.set("cursor", cursor);
        }
        let page = client.request("tools/list", params, None, Some(LIST_LIMIT)).await.map_err(failed)?;
        let page = RawObject::parse(&page).map_err(no_list)?;
        let items: Vec<Value> = page.get("tools").map_or_else(|| Ok(Vec::new()), |t| t.parse()).map_err(no_list)?;
        tools.extend(items);
        cursor = page.get("nextCursor").filter(|next| *next != RawJson::NULL);
        if cursor.is_none() {
            break;
        }
    }
    Ok(tools)
}

fn no_list(cause: impl std::fmt::Display) -> Failure {
    let hint = "is this an MCP endpoint? its path usually ends in /mcp";
    Failure::new("PV-CLI-ANSWER", format!("the list of tools cannot be read: {cause}"), hint)
}

/// Calls a tool. Exit code 1 when the tool says that it failed.
pub async fn call(args: CallArgs) -> anyhow::Result<ExitCode> {
    let arguments = arguments(&args)?;
    let context = args.endpoint.resolve()?;
    // A tool may ask its caller something in the middle of a call, if somebody is there.
    let terminal = Terminal::open();
    let client = connect(&context, terminal.capabilities(), Arc::new(terminal)).await?;
    let mut params = RawObject::new();
    params.set_text("name", &args.tool);
    params.set("arguments", RawJson::from(arguments));
    let result = answered(&client, terminal, params).await?;
    let result: Value = result.parse()?;
    if args.show_meta {
        println!("{}", serde_json::to_string_pretty(&result)?);
    } else {
        print_content(&result)?;
    }
    let failed = result["isError"].as_bool().unwrap_or(false);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The result of a call, after what the tool wanted to know was asked (MCP 2026-07-28, input required).
async fn answered(client: &Client, terminal: Terminal, params: RawObject) -> anyhow::Result<RawJson> {
    let mut next = params.clone();
    for _ in 0..MAX_ROUNDS {
        let result = client.request("tools/call", next, Some("cli"), None).await.map_err(failed)?;
        let object = RawObject::parse(&result).unwrap_or_default();
        if object.get_text("resultType").as_deref() != Some("input_required") {
            return Ok(result);
        }
        let mut responses = RawObject::new();
        for (key, request) in object.get_object("inputRequests").unwrap_or_default().iter() {
            let request = RawObject::parse(&request).unwrap_or_default();
            let method = request.get_text("method").unwrap_or_default();
            let answer = terminal.answer(method, request.get("params")).await;
            responses.set(&key, answer.map_err(|error| failed(ClientError::Rpc(error)))?);
        }
        next = params.clone();
        next.set("inputResponses", responses.finish());
        if let Some(state) = object.get("requestState") {
            next.set("requestState", state);
        }
    }
    let message = format!("the tool asked {MAX_ROUNDS} times and did not end");
    Err(Failure::new("PV-CLI-INPUT", message, "tell whoever runs the tool").into())
}

fn arguments(args: &CallArgs) -> anyhow::Result<Value> {
    let wrong = |text: String, hint: &str| Usage(Failure::new("PV-CLI-ARGUMENTS", text, hint));
    if let Some(text) = &args.json {
        let value: Value = serde_json::from_str(text).map_err(|cause| {
            wrong(format!("--json is not JSON: {cause}"), "quote it for the shell: --json '{\"text\":\"hi\"}'")
        })?;
        return Ok(value);
    }
    let mut object = Map::new();
    for pair in &args.args {
        let Some((key, value)) = pair.split_once('=') else {
            return Err(wrong(format!("--arg {pair} has no `=`"), "write --arg name=value").into());
        };
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
        if object.insert(key.to_owned(), value).is_some() {
            let hint = "give each argument once; a list is one argument: --arg 'names=[\"a\",\"b\"]'";
            return Err(wrong(format!("--arg {key} is given twice"), hint).into());
        }
    }
    Ok(Value::Object(object))
}

fn print_content(result: &Value) -> anyhow::Result<()> {
    let Some(blocks) = result["content"].as_array() else {
        println!("{}", serde_json::to_string_pretty(result)?);
        return Ok(());
    };
    for block in blocks {
        match block["text"].as_str() {
            Some(text) => println!("{text}"),
            None => println!("{}", serde_json::to_string(block)?),
        }
    }
    Ok(())
}
