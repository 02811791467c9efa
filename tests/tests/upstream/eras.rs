//! The plain operations, alike over every way to an upstream.

use std::time::Duration;

use provost_data_pipeline::Operation;
use provost_mcp::{Era, RpcError};
use provost_types::CallStatus;
use serde_json::json;

use crate::bench::*;

#[tokio::test]
async fn every_way_lists_and_calls() {
    for way in Way::ALL {
        let up = up(way).await;
        let facts = up.plugin.capabilities().await.unwrap();
        assert_eq!(facts.era == Era::Modern, way.is_modern(), "{way:?}");
        assert_eq!(facts.instructions.as_deref(), Some("A server with one of everything, for tests."));
        let tools = up.plugin.tools().await.unwrap();
        assert!(tools.iter().any(|t| t.name == "test_simple_text"), "{way:?}");
        assert_eq!(up.plugin.prompts().await.unwrap().len(), 5, "{way:?}");
        assert_eq!(up.plugin.resources().await.unwrap().len(), 3, "{way:?}");
        assert_eq!(up.plugin.resource_templates().await.unwrap().len(), 1, "{way:?}");

        let done = call(&up.plugin, "test_simple_text", json!({})).await;
        assert_eq!(text(&done), "This is a simple text response for testing.", "{way:?}");
        assert_eq!(done.status, CallStatus::Ok);
        let failed = call(&up.plugin, "test_error_handling", json!({})).await;
        assert_eq!(failed.status, CallStatus::ToolError, "{way:?}");
        // Its argument travels in a header too, which the server compares.
        let mirrored = call(&up.plugin, "test_custom_header", json!({"value": "süd"})).await;
        assert_eq!(text(&mirrored), "süd", "{way:?}");
        let unknown = call(&up.plugin, "nonsense", json!({})).await;
        assert_eq!(unknown.status, CallStatus::RpcError, "{way:?}");
    }
}

#[tokio::test]
async fn every_way_reads_prompts_resources_and_completions() {
    for way in Way::ALL {
        let up = up(way).await;
        let link = TestLink::default();
        let client = modern_client();
        let run = async |operation, params| execute(&up.plugin, operation, params, &client, &link).await;
        let prompt = run(
            Operation::GetPrompt("test_prompt_with_arguments".into()),
            json!({"name": "up.x", "arguments": {"arg1": "a", "arg2": "b"}}),
        )
        .await;
        assert_eq!(body(&prompt)["messages"][0]["content"]["text"], "Prompt with arguments: arg1='a', arg2='b'");
        let read = run(Operation::ReadResource("test://template/7/data".into()), json!({"uri": "x"})).await;
        assert!(body(&read)["contents"][0]["text"].as_str().unwrap().contains("Data for ID: 7"));
        let missing = run(Operation::ReadResource("test://none".into()), json!({"uri": "x"})).await;
        let provost_data_pipeline::Reply::Error(error) = missing.reply else { panic!("{way:?}") };
        assert_eq!(error.code, RpcError::INVALID_PARAMS, "a modern client knows no -32002 ({way:?})");
        let complete = run(
            Operation::Complete { is_prompt: true, target: "test_prompt_with_arguments".into() },
            json!({"ref": {"type": "ref/prompt", "name": "up.x"}, "argument": {"name": "arg1", "value": "par"}}),
        )
        .await;
        assert_eq!(body(&complete)["completion"]["values"], json!(["paris", "park", "party"]), "{way:?}");
    }
}

#[tokio::test]
async fn progress_comes_with_the_clients_own_token() {
    for way in Way::ALL {
        let up = up(way).await;
        let link = TestLink::default();
        let params = json!({"name": "x", "arguments": {}, "_meta": {"progressToken": "mine"}});
        let operation = Operation::CallTool("test_tool_with_progress".into());
        let done = execute(&up.plugin, operation, params, &modern_client(), &link).await;
        assert_eq!(done.status, CallStatus::Ok, "{way:?}");
        let reports = link.of("notifications/progress");
        assert_eq!(reports.len(), 3, "{way:?}");
        assert!(reports.iter().all(|r| r["progressToken"] == "mine"), "{way:?}: {reports:?}");
    }
}

#[tokio::test]
async fn modern_clients_hear_only_the_log_that_they_asked_for() {
    for way in Way::ALL {
        let up = up(way).await;
        for (level, expected) in [(None, 0), (Some("info"), 3)] {
            let link = TestLink::default();
            let meta = match level {
                Some(level) => json!({"io.modelcontextprotocol/logLevel": level}),
                None => json!({}),
            };
            let params = json!({"name": "x", "arguments": {}, "_meta": meta});
            let operation = Operation::CallTool("test_tool_with_logging".into());
            execute(&up.plugin, operation, params, &modern_client(), &link).await;
            assert_eq!(link.of("notifications/message").len(), expected, "{way:?} {level:?}");
        }
        // A legacy client hears by default, and as it set.
        let client = legacy_client("s1");
        let link = TestLink::default();
        let set = execute(&up.plugin, Operation::SetLogLevel, json!({"level": "debug"}), &client, &link).await;
        assert_eq!(set.status, CallStatus::Ok, "{way:?}");
        let operation = Operation::CallTool("test_tool_with_logging".into());
        execute(&up.plugin, operation, json!({"name": "x"}), &client, &link).await;
        assert_eq!(link.of("notifications/message").len(), 3, "{way:?}");
    }
}

#[tokio::test]
async fn cancellation_and_deadlines_reach_the_upstream() {
    for way in Way::ALL {
        let up = up(way).await;
        up.plugin.tools().await.unwrap();
        let link = TestLink::default();
        let slow = json!({"name": "x", "arguments": {"ms": 60_000}});
        let operation = || Operation::CallTool("slow".into());
        let client = modern_client();
        let calling = execute(&up.plugin, operation(), slow.clone(), &client, &link);
        let counted = async |tool: &str| text(&call(&up.plugin, tool, json!({})).await);
        let cancelling = async {
            eventually("the call is under way upstream", async || counted("count_begun").await == "1").await;
            link.cancel.cancel();
        };
        let (done, ()) = tokio::join!(calling, cancelling);
        assert_eq!(done.status, CallStatus::Cancelled, "{way:?}");

        let link = TestLink::default();
        let time = Duration::from_millis(500);
        let late = execute_within(&up.plugin, operation(), slow, &client, &link, time).await;
        assert_eq!(late.status, CallStatus::Timeout, "{way:?}");
        assert_eq!(pv_code(&late), "PV-UPSTREAM-TIMEOUT");
        // The second one may have met its deadline before it came there.
        eventually("what began upstream is cancelled there", async || {
            counted("count_cancelled").await == counted("count_begun").await
        })
        .await;
    }
}

#[tokio::test]
async fn tasks_are_routed_by_their_handles() {
    for way in [Way::HttpModern, Way::StdioModern] {
        let up = up(way).await;
        let mut client = modern_client();
        client.capabilities = provost_mcp::RawJson::from(json!({"extensions": {"io.modelcontextprotocol/tasks": {}}}));
        let link = TestLink::default();
        let params = json!({"name": "x", "arguments": {"seconds": 0, "label": "it"}});
        let operation = Operation::CallTool("slow_compute".into());
        let created = execute(&up.plugin, operation, params, &client, &link).await;
        let handle = body(&created)["taskId"].as_str().unwrap_or_default().to_owned();
        let local = handle.strip_prefix("up.").expect("the handle names the plugin").to_owned();
        eventually("the task is done", async || {
            let operation = Operation::Task { method: "tasks/get".into(), task: local.clone() };
            let params = json!({"taskId": handle});
            let got = body(&execute(&up.plugin, operation, params, &client, &link).await);
            assert_eq!(got["taskId"], handle.as_str(), "{way:?}");
            got["status"] == "completed"
        })
        .await;
    }
}
