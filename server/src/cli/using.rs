//! `provost tools` and `provost call`.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Map, Value, json};

use super::{EndpointArgs, table};
use crate::{client::McpClient, failure::Failure};

/// Most pages of a list that are followed.
const MAX_PAGES: usize = 1_000;

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
    /// The transport.
    #[arg(long, default_value = "http", value_parser = ["http"])]
    transport: String,
    /// Print the whole result, with the audit leaf in `_meta`.
    #[arg(long)]
    show_meta: bool,
    #[command(flatten)]
    endpoint: EndpointArgs,
}

/// Lists the tools.
pub async fn tools(args: ToolsArgs) -> anyhow::Result<ExitCode> {
    let context = args.endpoint.resolve()?;
    let client = McpClient::new(context.url, context.token)?;
    let mut tools = Vec::new();
    let mut cursor: Option<Value> = None;
    for _ in 0..MAX_PAGES {
        let params = cursor.take().map_or_else(|| json!({}), |c| json!({ "cursor": c }));
        let mut page = client.request("tools/list", params, None, |_, _| ()).await?;
        if let Value::Array(items) = page["tools"].take() {
            tools.extend(items);
        }
        match page["nextCursor"].take() {
            Value::Null => break,
            next => cursor = Some(next),
        }
    }
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

/// Calls a tool. Exit code 1 when the tool says that it failed.
pub async fn call(args: CallArgs) -> anyhow::Result<ExitCode> {
    let arguments = arguments(&args)?;
    let context = args.endpoint.resolve()?;
    let client = McpClient::new(context.url, context.token)?;
    let params = json!({ "name": args.tool, "arguments": arguments });
    let result = client
        .request("tools/call", params, Some(&args.tool), |method, params| {
            if method == "notifications/progress" {
                eprintln!("progress: {}", params["progress"]);
            }
        })
        .await?;
    if args.show_meta {
        println!("{}", serde_json::to_string_pretty(&result)?);
    } else {
        print_content(&result)?;
    }
    let failed = result["isError"].as_bool().unwrap_or(false);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn arguments(args: &CallArgs) -> anyhow::Result<Value> {
    if let Some(text) = &args.json {
        let value: Value = serde_json::from_str(text).map_err(|cause| {
            Failure::new(
                "PV-CLI-ARGUMENTS",
                format!("--json is not JSON: {cause}"),
                "quote it for the shell: --json '{\"text\":\"hi\"}'",
            )
        })?;
        return Ok(value);
    }
    let mut object = Map::new();
    for pair in &args.args {
        let Some((key, value)) = pair.split_once('=') else {
            return Err(
                Failure::new("PV-CLI-ARGUMENTS", format!("--arg {pair} has no `=`"), "write --arg name=value").into()
            );
        };
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
        if object.insert(key.to_owned(), value).is_some() {
            return Err(Failure::new(
                "PV-CLI-ARGUMENTS",
                format!("--arg {key} is given twice"),
                "give each argument once; a list is one argument: --arg 'names=[\"a\",\"b\"]'",
            )
            .into());
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
