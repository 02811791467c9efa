//! What a newcomer does first, and what an auditor does after.

use serde_json::Value;

use crate::harness::{Dev, text};

const QUERY: &str = "SELECT count(*) AS n FROM customers";

fn sql(dev: &Dev, statement: &str) -> std::process::Output {
    dev.cli(&["call", "sql.query", "--arg", &format!("sql={statement}")])
}

#[test]
fn select_answers_and_everything_else_is_denied_by_a_named_policy_and_recorded() {
    let mut dev = Dev::start(None, &[]);
    let allowed = sql(&dev, QUERY);
    assert!(allowed.status.success(), "{}", text(&allowed));
    assert!(text(&allowed).contains("\"n\""), "{}", text(&allowed));

    let denied = [
        "DROP TABLE customers",
        "SELECT 1; DROP TABLE customers",
        "SELECT salary FROM employees",
        "UPDATE customers SET name = 'x'",
        "WITH e AS (SELECT * FROM employees) SELECT * FROM e",
    ];
    for statement in denied {
        let output = sql(&dev, statement);
        assert_eq!(output.status.code(), Some(1), "{statement}: {}", text(&output));
        let message = text(&output);
        assert!(message.contains("PV-POLICY-DENIED"), "{statement}: {message}");
        assert!(
            message.contains("policy ") || message.contains("no role or policy"),
            "{statement} names no policy: {message}"
        );
    }
    // Nothing was dropped.
    assert!(sql(&dev, QUERY).status.success());

    let query = dev.cli(&["audit", "query", "--tool", "sql.query", "--json"]);
    assert!(query.status.success(), "{}", text(&query));
    let records: Vec<Value> =
        String::from_utf8_lossy(&query.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let with = |phase: &str| records.iter().filter(|r| r["record"]["phase"] == phase).count();
    assert_eq!((with("intent"), with("outcome"), with("denied")), (2, 2, denied.len()));

    // One writer, no witness: consistent but unanchored.
    let (took, clean) = dev.terminate();
    assert!(clean, "{}", dev.stderr());
    assert!(took.as_secs() < 5, "stopping took {took:?}");
    let audit = dev.data.join("audit");
    let verify = dev.cli(&["audit", "verify", audit.to_str().unwrap()]);
    assert_eq!(verify.status.code(), Some(2), "{}", text(&verify));
    let report = text(&verify);
    for verdict in ["INTEGRITY", "AUTHENTICITY", "COMPLETENESS", "RETENTION"] {
        assert!(report.contains(verdict), "{report}");
    }
}

#[test]
fn one_flipped_byte_is_found_and_placed() {
    let mut dev = Dev::start(None, &[]);
    for _ in 0..3 {
        assert!(sql(&dev, QUERY).status.success());
    }
    assert!(dev.terminate().1);
    let audit = dev.data.join("audit");
    let victim = largest_segment(&audit);
    let mut bytes = std::fs::read(&victim).unwrap();
    // Inside the first block's payload: past its header, before the preallocated tail.
    bytes[200] ^= 0x40;
    std::fs::write(&victim, bytes).unwrap();
    let verify = dev.cli(&["audit", "verify", audit.to_str().unwrap(), "--json"]);
    assert_eq!(verify.status.code(), Some(1), "{}", text(&verify));
    let report: Value = serde_json::from_slice(&verify.stdout).unwrap();
    let found = report.to_string();
    let name = victim.file_name().unwrap().to_str().unwrap();
    assert!(found.contains(name), "the file is not named: {found}");
    assert!(found.contains("offset"), "no place: {found}");
}

fn largest_segment(audit: &std::path::Path) -> std::path::PathBuf {
    let mut stack = vec![audit.to_owned()];
    let mut best: Option<(u64, std::path::PathBuf)> = None;
    while let Some(dir) = stack.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                stack.push(path);
                continue;
            }
            let is_segment = path.extension().is_some_and(|e| e == "seg");
            let is_tenant = path.to_string_lossy().contains("acme");
            let len = path.metadata().unwrap().len();
            if is_segment && is_tenant && best.as_ref().is_none_or(|(l, _)| len > *l) {
                best = Some((len, path));
            }
        }
    }
    best.expect("no segment of tenant acme").1
}

#[test]
fn a_restart_continues_where_it_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut dev = Dev::start_in(&data, None, &[]);
    let token = dev.token().to_owned();
    assert!(sql(&dev, QUERY).status.success());
    let before = text(&dev.cli(&["history"]));
    assert!(dev.terminate().1);
    drop(dev);

    let dev = Dev::start_in(&data, None, &[]);
    assert_eq!(dev.token(), token, "the token survives a restart");
    assert_eq!(text(&dev.cli(&["history"])), before, "a restart changes nothing");
    assert!(sql(&dev, QUERY).status.success());
    let query = dev.cli(&["audit", "query", "--tool", "sql.query", "--status", "ok", "--json"]);
    assert_eq!(String::from_utf8_lossy(&query.stdout).lines().count(), 2);
}

#[test]
fn lists_show_only_what_the_caller_may_use() {
    let dev = Dev::start(None, &[]);
    let tools = |token: &str| {
        let output = dev.cli(&["tools", "--url", dev.mcp(), "--token", token]);
        assert!(output.status.success(), "{}", text(&output));
        text(&output)
    };
    let analyst = tools(dev.token());
    assert!(analyst.contains("sql.schema") && analyst.contains("ai.chat"), "{analyst}");
    let made = dev.cli(&["token", "create", "--principal", "sam", "--json"]);
    assert!(made.status.success(), "{}", text(&made));
    let made: Value = serde_json::from_slice(&made.stdout).unwrap();
    let support = tools(made["token"].as_str().unwrap());
    assert!(support.contains("sql.query"), "{support}");
    assert!(!support.contains("sql.schema"), "support sees what it may not call: {support}");
    assert!(!support.contains("ai."), "support sees models: {support}");
}
