//! What a newcomer does first, and what an auditor does after.

use serde_json::Value;

use crate::harness::{Dev, STOP_LIMIT, root, text};

const QUERY: &str = "SELECT count(*) AS n FROM customers";

fn sql(dev: &Dev, statement: &str) -> std::process::Output {
    dev.cli(&["call", "sql.query", "--arg", &format!("sql={statement}")])
}

#[test]
fn the_quickstart_answers_with_three_voters_too() {
    let dev = Dev::start(None, &["--nodes", "3"]);
    let answer = sql(&dev, QUERY);
    assert!(answer.status.success(), "{}", text(&answer));
}

#[test]
fn a_copy_of_the_quickstart_serves_what_the_quickstart_serves() {
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("mine");
    std::fs::create_dir(&copy).unwrap();
    for entry in std::fs::read_dir(root().join("examples/quickstart")).unwrap().map(Result::unwrap) {
        std::fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
    let dev = Dev::start(None, &["--config", copy.to_str().unwrap()]);
    let allowed = sql(&dev, QUERY);
    assert!(allowed.status.success(), "{}", text(&allowed));
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
    assert!(took < STOP_LIMIT, "stopping took {took:?}");
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
    // The newest records stand in the tail, as they are.
    let victim = audit.join("tenants/acme/tail-00000000000000000000.raw");
    let mut bytes = std::fs::read(&victim).unwrap();
    let place = bytes.windows(9).position(|w| w == b"sql.query").expect("no record of the call");
    bytes[place] ^= 0x40;
    std::fs::write(&victim, bytes).unwrap();
    let verify = dev.cli(&["audit", "verify", audit.to_str().unwrap(), "--json"]);
    assert_eq!(verify.status.code(), Some(1), "{}", text(&verify));
    let report: Value = serde_json::from_slice(&verify.stdout).unwrap();
    let logs = report["logs"].as_array().unwrap();
    let acme = logs.iter().find(|l| l["origin"] == "dev/acme").unwrap();
    let failure = &acme["failure"];
    assert!(failure["file"].as_str().unwrap().ends_with("tail-00000000000000000000.raw"), "{failure}");
    // The first record that names the tool is the first intent.
    let offset = usize::try_from(failure["offset"].as_u64().unwrap()).unwrap();
    assert!(offset <= place, "the place is after the change: {failure}");
    assert!(failure["expected"] != failure["actual"], "{failure}");
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
