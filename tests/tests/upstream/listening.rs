//! What upstreams say between calls.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use provost_data_pipeline::{ClientFacts, Operation, Reply};
use provost_data_tools::{ListenEnd, ListenFilter, Plugin};
use provost_mcp::{RawJson, RpcError};
use provost_types::Era;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::{
    bench::*,
    broken_http::{Scripted, script},
};

fn listen(
    plugin: &Arc<Plugin>,
    filter: ListenFilter,
    client: &ClientFacts,
    link: &Arc<TestLink>,
) -> JoinHandle<ListenEnd> {
    let (plugin, client, link) = (plugin.clone(), client.clone(), link.clone());
    tokio::spawn(async move {
        let principal = principal();
        let request = request(Operation::Listen, json!({}), &client, &principal, Duration::from_secs(60));
        plugin.listen(&filter, &request, &*link).await.unwrap()
    })
}

#[tokio::test]
async fn a_listener_hears_what_it_asked_for() {
    for way in Way::ALL {
        let up = up(way).await;
        let client = modern_client();
        let params = RawJson::from(json!({"notifications": {
            "toolsListChanged": true, "resourceSubscriptions": ["test://watched-resource"]}}));
        let link = Arc::new(TestLink::default());
        let listening = listen(&up.plugin, ListenFilter::from_params(&params), &client, &link);
        // The stream needs a moment to open: say it again until it is heard.
        eventually(&format!("{way:?}: the change is heard"), async || {
            call(&up.plugin, "test_trigger_tool_change", json!({})).await;
            call(&up.plugin, "test_trigger_prompt_change", json!({})).await;
            call(&up.plugin, "touch_resource", json!({"uri": "test://watched-resource"})).await;
            call(&up.plugin, "touch_resource", json!({"uri": "test://static-text"})).await;
            !link.of("notifications/tools/list_changed").is_empty()
                && !link.of("notifications/resources/updated").is_empty()
        })
        .await;
        assert!(link.of("notifications/prompts/list_changed").is_empty(), "{way:?}: not asked for");
        let updated = link.of("notifications/resources/updated");
        assert!(updated.iter().all(|u| u["uri"] == "test://watched-resource"), "{way:?}: {updated:?}");
        assert!(updated.iter().all(|u| u["_meta"].is_null()), "{way:?}: {updated:?}");
        link.cancel.cancel();
        assert_eq!(listening.await.unwrap(), ListenEnd::Cancelled);
    }
}

#[tokio::test]
async fn legacy_subscriptions_work_on_every_upstream() {
    for way in Way::ALL {
        let up = up(way).await;
        let client = legacy_client("s1");
        let link = Arc::new(TestLink::default());
        let listening = listen(&up.plugin, ListenFilter::legacy(), &client, &link);
        let uri = "test://watched-resource";
        let run =
            async |operation| execute(&up.plugin, operation, json!({"uri": uri}), &client, &TestLink::default()).await;
        body(&run(Operation::Subscribe(uri.into())).await);
        let touch = async || {
            let params = json!({"name": "x", "arguments": {"uri": uri}});
            let operation = Operation::CallTool("touch_resource".into());
            execute(&up.plugin, operation, params, &client, &TestLink::default()).await
        };
        eventually(&format!("{way:?}: the update is heard"), async || {
            touch().await;
            !link.of("notifications/resources/updated").is_empty()
        })
        .await;
        body(&run(Operation::Unsubscribe(uri.into())).await);
        // What was under way before may still come; after that there is silence.
        eventually(&format!("{way:?}: nothing is heard any more"), async || {
            let before = link.of("notifications/resources/updated").len();
            touch().await;
            tokio::time::sleep(Duration::from_millis(500)).await;
            link.of("notifications/resources/updated").len() == before
        })
        .await;
        link.cancel.cancel();
        assert_eq!(listening.await.unwrap(), ListenEnd::Cancelled);
    }
}

/// A merged route announces subscriptions for the plugins that have them: whoever names another's resource learns why not.
#[tokio::test]
async fn a_subscription_that_nothing_would_be_heard_of_is_refused_with_what_to_do() {
    let legacy = script(|method, _| match method {
        "initialize" => Scripted::Raw(
            json!({"protocolVersion": "2025-11-25", "capabilities": {"resources": {}},
                "serverInfo": {"name": "s", "version": "1"}})
            .to_string(),
        ),
        "resources/subscribe" | "resources/unsubscribe" => Scripted::Error(-32601, "Method not found"),
        _ => Scripted::Default,
    })
    .await;
    let modern = script(|method, _| match method {
        "server/discover" => Scripted::Raw(
            json!({"resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": {"resources": {}},
                "ttlMs": 0, "cacheScope": "private"})
            .to_string(),
        ),
        _ => Scripted::Default,
    })
    .await;
    for (url, era) in [(&legacy.url, Era::Legacy), (&modern.url, Era::Modern)] {
        let plugin = plugin(http_spec(url, era));
        let (uri, client) = ("test://a", legacy_client("s1"));
        let operation = Operation::Subscribe(uri.into());
        let done = execute(&plugin, operation, json!({"uri": uri}), &client, &TestLink::default()).await;
        assert_eq!(pv_code(&done), "PV-UPSTREAM-NO-SUBSCRIPTION", "{era:?}");
        let Reply::Error(error) = &done.reply else { panic!("{era:?}: {:?}", done.reply) };
        assert_eq!(error.code, RpcError::INVALID_PARAMS, "{era:?}");
        assert!(error.message.contains("read them again"), "{era:?}: {}", error.message);
    }
}

/// Else its whole answer would be a refusal, and nothing of its lists were heard either.
#[tokio::test]
async fn a_server_that_tells_nothing_of_its_resources_is_asked_for_its_lists_alone() {
    let asked: Arc<Mutex<Vec<Value>>> = Arc::default();
    let heard = asked.clone();
    let server = script(move |method, params| match method {
        "server/discover" => Scripted::Raw(
            json!({"resultType": "complete", "supportedVersions": ["2026-07-28"],
                "capabilities": {"resources": {}, "tools": {}}, "ttlMs": 0, "cacheScope": "private"})
            .to_string(),
        ),
        "subscriptions/listen" => {
            heard.lock().unwrap().push(params["notifications"].clone());
            let told = json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"});
            Scripted::Events(vec![told.to_string()])
        }
        _ => Scripted::Default,
    })
    .await;
    let plugin = plugin(http_spec(&server.url, Era::Modern));
    let params = RawJson::from(json!({"notifications": {
        "toolsListChanged": true, "resourceSubscriptions": ["test://a"]}}));
    let link = Arc::new(TestLink::default());
    let listening = listen(&plugin, ListenFilter::from_params(&params), &modern_client(), &link);
    eventually("a change of its tools is heard", async || !link.of("notifications/tools/list_changed").is_empty())
        .await;
    link.cancel.cancel();
    assert_eq!(listening.await.unwrap(), ListenEnd::Cancelled);
    let asked = asked.lock().unwrap();
    assert!(asked.iter().all(|wanted| *wanted == json!({"toolsListChanged": true})), "{asked:?}");
}
