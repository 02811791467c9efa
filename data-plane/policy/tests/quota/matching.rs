//! Which quotas cover a call, and whose account it counts in.

use provost_data_policy::{
    RunModel,
    quota::{LeaseBook, MAX_SLOTS_PER_QUOTA, QuotaCall},
};
use serde_json::json;

use crate::world::{Caller, index, name};

#[test]
fn a_quota_covers_its_tenant_its_principals_and_its_tools() {
    let daily = |more: serde_json::Value| {
        let mut spec = json!({"limit": 5, "unit": "calls", "window": "day"});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    };
    let index = index(&[
        ("acme/all", daily(json!({}))),
        ("acme/ann-and-bob", daily(json!({"principals": ["ann", "bob"]}))),
        ("acme/exact", daily(json!({"tools": ["sql.query"]}))),
        ("acme/prefix", daily(json!({"tools": ["sql.*", "llama*"]}))),
        ("umbra/all", daily(json!({}))),
    ]);
    // Tenant, principal, tool, model, the quotas.
    type Row = (&'static str, &'static str, Option<&'static str>, Option<&'static str>, &'static [&'static str]);
    let table: [Row; 7] = [
        ("acme", "ann", Some("sql.query"), None, &["all", "exact", "prefix", "ann-and-bob"]),
        ("acme", "cid", Some("sql.query"), None, &["all", "exact", "prefix"]),
        ("acme", "cid", Some("sql.list"), None, &["all", "prefix"]),
        ("acme", "cid", Some("inference.chat"), Some("llama-3"), &["all", "prefix"]),
        // A prompt or a resource is no tool.
        ("acme", "bob", None, None, &["all", "ann-and-bob"]),
        ("umbra", "ann", Some("sql.query"), None, &["all"]),
        ("other", "ann", Some("sql.query"), None, &[]),
    ];
    for (tenant, principal, tool, model, expect) in table {
        let caller = Caller::new(tenant, principal);
        let call = QuotaCall { tool, model: model.map(RunModel::plain), ..caller.tool("") };
        let names: Vec<_> = index.matching(&call).map(|q| q.name.split('/').nth(1).unwrap()).collect();
        assert_eq!(names, expect, "{tenant}/{principal} {tool:?} {model:?}");
        assert_eq!(index.has_any(&name(tenant)), !expect.is_empty());
    }
}

#[test]
fn what_covers_a_model_covers_its_adapters() {
    let daily = |tool: &str| json!({"limit": 5, "unit": "tokens", "window": "day", "tools": [tool]});
    let index = index(&[("acme/base", daily("llama-*")), ("acme/own", daily("support")), ("acme/else", daily("qwen"))]);
    let caller = Caller::new("acme", "ann");
    let covered = |name, base| {
        let call = QuotaCall { tool: None, model: Some(RunModel { name, base }), ..caller.tool("") };
        index.matching(&call).map(|q| q.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(covered("support", Some("llama-3")), ["acme/base", "acme/own"]);
    assert_eq!(covered("other", Some("llama-3")), ["acme/base"]);
    assert_eq!(covered("support", None), ["acme/own"]);
}

#[test]
fn each_account_is_that_of_its_subject() {
    let index = index(&[
        ("acme/a-all", json!({"limit": 5, "unit": "calls", "window": "day"})),
        ("acme/b-each", json!({"limit": 5, "unit": "calls", "window": "day", "per": "principal"})),
        ("acme/c-talk", json!({"limit": 5, "unit": "tokens", "window": "day", "per": "workflow"})),
    ]);
    let (book, ann, bob) = (LeaseBook::default(), Caller::new("acme", "ann"), Caller::new("acme", "bob"));
    let accounts = |call: &QuotaCall<'_>| -> Vec<String> {
        index.matching(call).map(|q| q.slot(&book, call).unwrap().account().to_owned()).collect()
    };
    let call = QuotaCall { workflow: "1f", tokens: 9, ..ann.tool("t") };
    assert_eq!(accounts(&call), ["acme/a-all", "acme/b-each#ann", "acme/c-talk#ann~1f"]);
    assert_eq!(accounts(&bob.tool("t")), ["acme/a-all", "acme/b-each#bob", "acme/c-talk#bob~"]);
    let units: Vec<_> = index.matching(&call).map(|q| q.units(&call)).collect();
    assert_eq!(units, [1, 1, 9]);
    // The same account each time.
    let slot = |caller: &Caller| {
        let call = caller.tool("t");
        index.matching(&call).nth(1).unwrap().slot(&book, &call).unwrap()
    };
    assert!(std::sync::Arc::ptr_eq(&slot(&ann), &slot(&ann)));
    assert!(!std::sync::Arc::ptr_eq(&slot(&ann), &slot(&bob)));
}

#[test]
fn made_up_conversations_fill_their_own_quota_and_no_other() {
    let spec = |per: &str| json!({"limit": 5, "unit": "calls", "window": "day", "per": per});
    let index = index(&[("acme/talk", spec("workflow")), ("umbra/each", spec("principal"))]);
    let (book, ann, una) = (LeaseBook::default(), Caller::new("acme", "ann"), Caller::new("umbra", "una"));
    let made = |caller: &Caller, workflow: &str| {
        let call = QuotaCall { workflow, ..caller.tool("t") };
        index.matching(&call).next().unwrap().slot(&book, &call).is_some()
    };
    for i in 0..MAX_SLOTS_PER_QUOTA {
        assert!(made(&ann, &i.to_string()));
    }
    assert!(!made(&ann, "one more"));
    assert!(made(&ann, "7"), "what is known stays");
    assert!(made(&una, ""));
    // None of them was used: they are forgotten.
    assert_eq!(book.next(1_000_000_000), None);
    assert!(made(&ann, "one more"));
}
