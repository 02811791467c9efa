//! Lists: byte for byte, fetched once, refreshed when they change.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use provost_data_tools::{Limits, ListKind};
use provost_types::Era;
use serde_json::json;

use crate::{
    bench::*,
    broken_http::{Scripted, script},
};

const ODD_TOOL: &str = r#"{"zeta": 1.50, "name":"odd" ,"inputSchema":{"type":"object","required":["n"],"properties":{"n":{"type":"integer"}}}, "x":[ 1,2 ]}"#;

#[tokio::test]
async fn definitions_are_byte_for_byte_and_fetched_once() {
    let fetched = Arc::new(AtomicUsize::new(0));
    let counter = fetched.clone();
    let server = script(move |method, _| match method {
        "tools/list" => {
            counter.fetch_add(1, Ordering::SeqCst);
            let bad = r#"{"name":"bad","inputSchema":{"properties":{"a":{"type":"string","x-mcp-header":""}}}}"#;
            Scripted::Raw(format!(
                r#"{{"resultType":"complete","tools":[{ODD_TOOL},{bad}],"ttlMs":0,"cacheScope":"private"}}"#
            ))
        }
        _ => Scripted::Default,
    })
    .await;
    let plugin = plugin(http_spec(&server.url, Era::Modern));
    let all = futures::future::join_all((0..50).map(|_| plugin.tools())).await;
    for tools in all {
        let tools = tools.unwrap();
        assert_eq!(tools.len(), 1, "the tool with an invalid header mark is dropped");
        assert_eq!(tools[0].raw.as_str(), ODD_TOOL);
    }
    assert_eq!(fetched.load(Ordering::SeqCst), 1, "fifty callers, one fetch");
    assert!(plugin.validate("odd", &json!({"n": 1}).into()).is_ok());
    assert!(plugin.validate("odd", &json!({"n": "one"}).into()).is_err());
    assert!(plugin.validate("unknown", &json!({}).into()).is_ok());
}

#[tokio::test]
async fn a_failed_fetch_is_shared_too() {
    let fetched = Arc::new(AtomicUsize::new(0));
    let counter = fetched.clone();
    let server = script(move |method, _| match method {
        "tools/list" => {
            counter.fetch_add(1, Ordering::SeqCst);
            Scripted::Hang
        }
        _ => Scripted::Default,
    })
    .await;
    let limits = Limits { list_timeout: std::time::Duration::from_secs(2), ..Limits::default() };
    let (_toolbox, plugin) = plugin_with(http_spec(&server.url, Era::Modern), limits);
    let all = futures::future::join_all((0..20).map(|_| plugin.tools())).await;
    assert!(all.iter().all(Result::is_err));
    assert_eq!(fetched.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn pages_are_followed_within_a_bound() {
    let server = script(|method, params| match method {
        "tools/list" => {
            let page = params["cursor"].as_str().map_or(0, |c| c.parse::<u32>().unwrap());
            Scripted::Raw(
                json!({"resultType": "complete", "ttlMs": 0, "cacheScope": "private",
                       "tools": [{"name": format!("t{page}"), "inputSchema": {"type": "object"}}],
                       "nextCursor": (page + 1).to_string()})
                .to_string(),
            )
        }
        _ => Scripted::Default,
    })
    .await;
    let limits = Limits { max_pages: 5, ..Limits::default() };
    let (_toolbox, plugin) = plugin_with(http_spec(&server.url, Era::Modern), limits);
    assert_eq!(plugin.tools().await.unwrap().len(), 5);
}

#[tokio::test]
async fn a_changed_list_is_fetched_anew() {
    for way in Way::ALL {
        let up = up(way).await;
        let before = up.plugin.tools().await.unwrap();
        eventually(&format!("{way:?}: the list is fetched anew"), async || {
            call(&up.plugin, "test_trigger_tool_change", json!({})).await;
            // Forgotten: the next who asks has it fetched.
            up.plugin.at_hand(ListKind::Tools).is_empty()
        })
        .await;
        // One that is what it was stays the same object, so that what was made of it stays good.
        assert!(Arc::ptr_eq(&before, &up.plugin.tools().await.unwrap()), "{way:?}");
    }
}
