//! The toolbox keeps step with the snapshot; the built-ins.

use std::{collections::BTreeMap, sync::Arc};

use provost_data_pipeline::Reply;
use provost_data_tools::Limits;
use provost_types::{BuiltinPlugin, CallStatus, HttpPlugin, PluginSource, SecretRef};
use serde_json::json;

use crate::bench::*;

fn builtin(which: &str) -> provost_types::PluginSpec {
    spec(PluginSource::Builtin(BuiltinPlugin { name: which.to_owned(), config: BTreeMap::new() }))
}

#[tokio::test]
async fn only_what_changed_is_replaced() {
    let toolbox = toolbox(Limits::default());
    toolbox.reconcile(&snapshot(&[("a", builtin("echo")), ("b", builtin("time"))]));
    let acme = name("acme");
    let (a, b) = (toolbox.plugin(&acme, "a").unwrap(), toolbox.plugin(&acme, "b").unwrap());
    toolbox.reconcile(&snapshot(&[("a", builtin("echo")), ("b", builtin("echo"))]));
    assert!(Arc::ptr_eq(&a, &toolbox.plugin(&acme, "a").unwrap()), "unchanged, kept");
    assert!(!Arc::ptr_eq(&b, &toolbox.plugin(&acme, "b").unwrap()), "changed, replaced");
    assert_ne!(b.digest(), toolbox.plugin(&acme, "b").unwrap().digest());
    toolbox.reconcile(&snapshot(&[("a", builtin("echo"))]));
    assert!(toolbox.plugin(&acme, "b").is_none());
    assert!(toolbox.plugin(&name("other"), "a").is_none(), "tenants are apart");
    assert!(text(&call(&b, "now", json!({})).await).contains("unixMs"), "held, it still works");
}

#[tokio::test]
async fn built_ins_answer() {
    let echo = plugin(builtin("echo"));
    assert_eq!(text(&call(&echo, "echo", json!({"text": "hi"})).await), "hi");
    assert_eq!(call(&echo, "echo", json!({})).await.status, CallStatus::ToolError);
    assert_eq!(call(&echo, "shout", json!({})).await.status, CallStatus::RpcError);
    assert!(echo.validate("echo", &json!({"text": 1}).into()).is_err());
    let models = plugin(builtin("inference"));
    assert_eq!(models.tools().await.unwrap().len(), 4);
    assert_eq!(body(&call(&models, "models", json!({})).await)["structuredContent"], json!({"models": []}));
    let chat = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
    assert_eq!(call(&models, "chat", chat).await.status, CallStatus::ToolError);
}

#[tokio::test]
async fn a_wrong_spec_says_what_is_wrong() {
    let missing = spec(PluginSource::McpHttp(HttpPlugin {
        url: "http://127.0.0.1:1/mcp".to_owned(),
        secret_headers: BTreeMap::from([(
            "authorization".to_owned(),
            SecretRef { secret: name(NO_SECRET), prefix: "Bearer ".to_owned() },
        )]),
        ..HttpPlugin::default()
    }));
    for (spec, expected) in [(missing, NO_SECRET), (builtin("nonsense"), "nonsense"), (builtin("sql"), "url")] {
        let plugin = plugin(spec);
        assert!(plugin.tools().await.is_err());
        let done = call(&plugin, "t", json!({})).await;
        assert_eq!(pv_code(&done), "PV-UPSTREAM-CONFIG");
        let Reply::Error(error) = &done.reply else { panic!() };
        assert!(error.message.contains(expected), "{}", error.message);
    }
}
