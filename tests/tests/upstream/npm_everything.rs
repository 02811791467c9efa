//! The everything-server of the TypeScript SDK as a legacy upstream. Needs npx and the npm
//! registry; without them the test says so and passes.

use std::{process::Command, time::Duration};

use provost_data_pipeline::Operation;
use provost_data_tools::Limits;
use provost_mcp::{Era as SpokenEra, RawJson};
use provost_types::{CallStatus, Era};
use serde_json::json;

use crate::bench::*;

const PACKAGE: &str = "@modelcontextprotocol/server-everything@2026.8.31";

#[tokio::test]
async fn the_typescript_everything_server_is_bridged() {
    let there = Command::new("npx").args(["-y", "-p", PACKAGE, "-c", "true"]).output();
    if !there.is_ok_and(|o| o.status.success()) {
        eprintln!("skipped: npx cannot provide {PACKAGE}");
        return;
    }
    let limits = Limits { connect_timeout: Duration::from_secs(60), ..Limits::default() };
    let (_toolbox, plugin) = plugin_with(stdio_spec("npx", &["-y", PACKAGE, "stdio"], Era::Auto), limits);
    let facts = plugin.capabilities().await.unwrap();
    assert_eq!(facts.era, SpokenEra::Legacy);
    let tools = plugin.tools().await.unwrap();
    assert!(tools.iter().any(|t| t.name == "echo"), "{tools:?}");
    // Without capabilities: the server would ask for the roots as soon as there are any.
    let mut client = modern_client();
    client.capabilities = RawJson::EMPTY_OBJECT;
    let params = json!({"name": "x", "arguments": {"message": "hi"}});
    let operation = Operation::CallTool("echo".into());
    let echoed = execute(&plugin, operation, params, &client, &TestLink::default()).await;
    assert_eq!(text(&echoed), "Echo: hi");
    assert!(!plugin.prompts().await.unwrap().is_empty());
    assert!(!plugin.resources().await.unwrap().is_empty());

    // A modern client is asked by a legacy server of another SDK.
    // The server adds such tools a moment after it heard what its client can do.
    let asking = "trigger-sampling-request";
    eventually("the asking tool is listed", async || plugin.tools().await.unwrap().iter().any(|t| t.name == asking))
        .await;
    let (mut client, link) = (modern_client(), TestLink::default());
    client.capabilities = RawJson::from(json!({"sampling": {}}));
    let operation = || Operation::CallTool(asking.into());
    let mut params = json!({"name": asking, "arguments": {"prompt": "hi", "maxTokens": 10}});
    let first = execute(&plugin, operation(), params.clone(), &client, &link).await;
    assert_eq!(first.status, CallStatus::InputRequired, "{:?}", first.reply);
    let first = body(&first);
    let key = first["inputRequests"].as_object().unwrap().keys().next().unwrap().clone();
    params["requestState"] = first["requestState"].clone();
    params["inputResponses"] = json!({key: {"role": "assistant", "model": "m", "stopReason": "endTurn",
        "content": {"type": "text", "text": "sampled"}}});
    let done = execute(&plugin, operation(), params, &client, &link).await;
    assert!(text(&done).contains("sampled"), "{:?}", done.reply);
}
