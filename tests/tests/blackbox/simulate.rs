//! What a change of policy would do to recorded calls, and why a call is decided as it is.

use std::process::Output;

use serde_json::{Value, json};

use crate::harness::{Dev, modern, post, text, until};

pub fn document(kind: &str, name: &str, spec: &str) -> String {
    format!("---\napiVersion: provost/v1\nkind: {kind}\nmetadata: {{ name: {name}, tenant: acme }}\nspec: {spec}\n")
}

pub fn policy(name: &str, cedar: &str) -> String {
    document("Policy", name, &json!({ "cedar": cedar }).to_string())
}

/// A tenant with the principals `ana` and `bot`, who may use everything, and `eve`, who may nothing; the
/// built-ins `echo` and `sql`.
pub fn world() -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let database = dir.path().join("empty.db");
    // An empty file is a database without tables.
    std::fs::write(&database, "").unwrap();
    let mut yaml = "apiVersion: provost/v1\nkind: Tenant\nmetadata: { name: acme }\nspec: {}\n".to_owned();
    for who in ["ana", "bot", "eve"] {
        yaml += &document("Principal", who, "{}");
    }
    yaml += &document("Role", "all", "{ rules: [ { tools: ['*'], prompts: ['*'], resources: ['*'] } ] }");
    yaml += &document("RoleBinding", "all", "{ role: all, principals: [ana, bot] }");
    yaml += &document("Plugin", "echo", "{ source: { builtin: { name: echo } } }");
    let sql = json!({ "source": { "builtin": { "name": "sql", "config": { "url": format!("sqlite:{}", database.display()) } } } });
    yaml += &document("Plugin", "sql", &sql.to_string());
    (dir, yaml)
}

pub fn token(dev: &Dev, who: &str) -> String {
    let output = dev.cli(&["token", "create", "--principal", who, "--tenant", "acme", "--json"]);
    assert!(output.status.success(), "{}", text(&output));
    let made: Value = serde_json::from_slice(&output.stdout).unwrap();
    made["token"].as_str().unwrap().to_owned()
}

/// Calls with a token that may just have been made.
pub fn call(dev: &Dev, token: &str, tool: &str, arguments: Value) -> Value {
    let body = modern("tools/call", json!({ "name": tool, "arguments": arguments }));
    until(|| {
        let (status, answer) = post(dev.mcp(), token, &body);
        (status != 401).then_some(answer)
    })
}

fn simulate(dev: &Dev, yaml: &str, args: &[&str]) -> (Output, Value) {
    let output = dev.cli_stdin(&[&["simulate", "-f", "-", "--json"], args].concat(), yaml);
    let value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output, value)
}

fn table(dev: &Dev, yaml: &str, args: &[&str]) -> String {
    let output = dev.cli_stdin(&[&["simulate", "-f", "-"], args].concat(), yaml);
    assert!(output.status.success(), "{}", text(&output));
    text(&output)
}

const NO_ECHO: &str = "@id(\"no-echo\") forbid(principal == Provost::Principal::\"ana\", action, \
                       resource == Provost::Tool::\"echo.echo\");";

#[test]
fn a_policy_that_would_deny_recorded_calls_is_seen_before_it_is_applied() {
    let (_dir, yaml) = world();
    let dev = Dev::start(Some(&yaml), &[]);
    let (ana, bot, eve) = (token(&dev, "ana"), token(&dev, "bot"), token(&dev, "eve"));
    for n in 0..3 {
        call(&dev, &ana, "echo.echo", json!({ "text": n.to_string() }));
    }
    call(&dev, &bot, "echo.echo", json!({ "text": "bot" }));
    let refused = call(&dev, &eve, "echo.echo", json!({ "text": "eve" }));
    assert_eq!(refused["error"]["data"]["code"], "PV-TOOL-UNKNOWN", "{refused}");

    let freeze = policy("freeze", NO_ECHO);
    let (output, found) = simulate(&dev, &freeze, &[]);
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!((&found["lookedAt"], &found["changed"]), (&json!(5), &json!(3)), "{found}");
    let changes = found["changes"].as_array().unwrap();
    assert_eq!(changes.len(), 3);
    for change in changes {
        assert_eq!((&change["principal"], &change["target"]), (&json!("ana"), &json!("echo.echo")), "{change}");
        assert_eq!(change["before"]["effect"], "allow");
        assert_eq!(change["before"]["by"], json!(["role:all"]));
        assert_eq!(change["after"]["effect"], "deny");
        assert_eq!(change["after"]["by"], json!(["freeze/no-echo"]));
        let shown = dev.cli(&["audit", "show", &change["index"].to_string(), "--tenant", "acme"]);
        let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
        assert_eq!(shown["record"]["gen_ai.tool.name"], "echo.echo");
    }
    assert_eq!(found["bodiesOpened"], 0, "no decision depends on arguments: {found}");
    assert_eq!(found["undecidable"], json!([]));
    assert_eq!(found["visibility"][0]["principal"], "ana", "{found}");
    assert_eq!(found["visibility"][0]["after"], false);
    assert_eq!(dev.cli_stdin(&["simulate", "-f", "-", "--fail-on-change"], &freeze).status.code(), Some(1));
    let shown = table(&dev, &freeze, &[]);
    for line in [
        "Looked at 5 recorded calls of acme",
        "3 calls would be",
        "allow by role:all",
        "deny by freeze/no-echo",
        "echo.echo disappears for ana of acme",
    ] {
        assert!(shown.contains(line), "{line} is not in {shown}");
    }
    println!("{shown}");

    // Nothing was changed, and that the log was read is in it.
    assert!(!dev.cli(&["get", "Policy", "freeze"]).status.success());
    let reads = dev.cli(&["audit", "query", "--json", "--tenant", "acme", "--event", "audit.read"]);
    assert!(text(&reads).contains("command:simulate"), "{}", text(&reads));

    // Conditions narrow what is looked at.
    for (args, expect) in [
        (vec!["--principal", "bot"], (1, 0)),
        (vec!["--principal", "ana"], (3, 3)),
        (vec!["--tool", "sql.query"], (0, 0)),
        (vec!["--limit", "2"], (2, 2)),
        (vec!["--until", "1h"], (0, 0)),
    ] {
        let (_, found) = simulate(&dev, &freeze, &args);
        assert_eq!((&found["lookedAt"], &found["changed"]), (&json!(expect.0), &json!(expect.1)), "{args:?} {found}");
    }

    // A period without calls says nothing of what would change.
    let early = dev.cli_stdin(&["simulate", "-f", "-", "--until", "1h"], &freeze);
    let said = text(&early);
    assert_eq!(early.status.code(), Some(1), "{said}");
    assert!(said.contains("PV-CLI-PERIOD") && said.contains("the log has records from 20"), "{said}");
    assert!(!said.contains("No call would be"), "{said}");

    // What was denied would be allowed.
    let grant = document("RoleBinding", "eve", "{ role: all, principals: [eve] }");
    let (_, found) = simulate(&dev, &grant, &[]);
    assert_eq!(found["changed"], 1, "{found}");
    assert_eq!(found["changes"][0]["principal"], "eve");
    assert_eq!(
        (&found["changes"][0]["before"]["by"], &found["changes"][0]["after"]["by"]),
        (&json!([]), &json!(["role:all"]))
    );
    // A grant that has not begun to count for calls of the past: it ended before they were made.
    let ended = document("RoleBinding", "eve", "{ role: all, principals: [eve], expires: 2020-01-01T00:00:00Z }");
    assert_eq!(simulate(&dev, &ended, &[]).1["changed"], 0);
}

#[test]
fn a_broken_candidate_is_refused_as_by_apply() {
    let (_dir, yaml) = world();
    let dev = Dev::start(Some(&yaml), &[]);
    let broken = policy("broken", "permit(principal, action, resource) when { context.nothing };")
        + &document("RoleBinding", "nobody", "{ role: missing, principals: [ana] }");
    let (simulated, _) = simulate(&dev, &broken, &[]);
    let applied = dev.cli_stdin(&["apply", "-f", "-", "--dry-run"], &broken);
    assert_eq!((simulated.status.code(), applied.status.code()), (Some(1), Some(1)));
    assert_eq!(String::from_utf8_lossy(&simulated.stderr), String::from_utf8_lossy(&applied.stderr));
    assert!(text(&simulated).contains("PV-POLICY-INVALID") && text(&simulated).contains("PV-RES-REFERENCE"));
    let usage = dev.cli(&["simulate"]);
    assert_eq!(usage.status.code(), Some(2));
}

const NO_SECRETS: &str = "@id(\"no-secrets\") forbid(principal, action, resource == Provost::Tool::\"echo.echo\") \
                          when { context.args.hasTag(\"text\") && context.args.getTag(\"text\") like \"*secret*\" };";

#[test]
fn a_policy_on_arguments_reads_bodies_and_never_guesses_those_that_were_erased() {
    let (_dir, yaml) = world();
    let dev = Dev::start(Some(&yaml), &[]);
    let (ana, bot) = (token(&dev, "ana"), token(&dev, "bot"));
    for who in [&ana, &bot] {
        call(&dev, who, "echo.echo", json!({ "text": "a secret" }));
        call(&dev, who, "echo.echo", json!({ "text": "nothing of the kind" }));
    }
    call(&dev, &ana, "sql.query", json!({ "sql": "SELECT 1" }));

    let candidate = policy("secrets", NO_SECRETS);
    let (_, found) = simulate(&dev, &candidate, &[]);
    assert_eq!((&found["lookedAt"], &found["changed"]), (&json!(5), &json!(2)), "{found}");
    assert_eq!(found["bodiesOpened"], 4, "sql.query does not depend on it: {found}");
    assert_eq!(found["visibility"], json!([]), "a forbid on arguments hides nothing");
    assert!(!found.to_string().contains("a secret"), "no argument is handed out: {found}");

    let erased = dev.cli(&["audit", "erase", "--tenant", "acme", "--subject", "bot", "--reason", "request 1"]);
    assert!(erased.status.success(), "{}", text(&erased));
    let (_, found) = simulate(&dev, &candidate, &[]);
    assert_eq!((&found["lookedAt"], &found["changed"]), (&json!(5), &json!(1)), "{found}");
    let undecidable = found["undecidable"].as_array().unwrap();
    assert_eq!((undecidable.len(), &undecidable[0]["why"], &undecidable[0]["count"]), (1, &json!("erased"), &json!(2)));
    let shown = table(&dev, &candidate, &[]);
    assert!(shown.contains("2 calls are not decidable") && shown.contains("(erased)"), "{shown}");
    // What does not depend on arguments is decided all the same.
    let (_, found) =
        simulate(&dev, &policy("all", "forbid(principal == Provost::Principal::\"bot\", action, resource);"), &[]);
    assert_eq!((&found["changed"], &found["undecidable"]), (&json!(2), &json!([])), "{found}");

    let sql = "forbid(principal, action, resource == Provost::Tool::\"sql.query\") \
               when { context has sql && context.sql.kind == \"SELECT\" && context.sql.has_where };";
    assert_eq!(simulate(&dev, &policy("sql", sql), &[]).1["changed"], 0);
    let sql = sql.replace("context.sql.has_where", "!context.sql.has_where");
    assert_eq!(simulate(&dev, &policy("sql", &sql), &[]).1["changed"], 1, "the SQL is read as the plugin reads it");
}

#[test]
fn why_tells_what_decided_and_what_is_missing() {
    let (_dir, mut yaml) = world();
    yaml += &policy("secrets", NO_SECRETS);
    yaml += &document("Role", "clock", "{ rules: [ { tools: ['echo.*'] } ] }");
    yaml += &document("RoleBinding", "clock", "{ role: clock, principals: [eve], expires: 2026-01-01T00:00:00Z }");
    yaml += &policy(
        "near",
        "@id(\"when-asked\") permit(principal == Provost::Principal::\"eve\", action, resource in Provost::Plugin::\"echo\") \
         when { context.args.hasTag(\"please\") };",
    );
    yaml += &document("ToolAlias", "say", "{ targets: [ { tool: echo.echo } ] }");
    yaml += &document(
        "ToolAlias",
        "gone",
        "{ targets: [ { tool: echo.echo } ], deprecated: { until: 2026-01-01T00:00:00Z } }",
    );
    let dev = Dev::start(Some(&yaml), &[]);
    let why = |args: &[&str]| {
        let output = dev.cli(&[&["why"], args].concat());
        (output.status.code(), text(&output))
    };
    let ana = ["--principal", "ana", "--tool", "echo.echo"];
    let eve = ["--principal", "eve", "--tool", "echo.echo"];
    let table: [(Vec<&str>, Option<i32>, &[&str]); 17] = [
        (
            [&["ALLOW"], &ana[..]].concat(),
            Some(0),
            &["ALLOW  principal ana to call tool echo.echo", "all (*), by RoleBinding all"],
        ),
        ([&["deny"], &ana[..]].concat(), Some(1), &["ALLOW"]),
        (
            [&["DENY"], &ana[..], &["--arg", "text=a secret"]].concat(),
            Some(0),
            &["policy secrets/no-secrets of tenant acme forbids", "(Policy secrets, line 1)", "| @id(\"no-secrets\")"],
        ),
        (
            [&["DENY"], &eve[..]].concat(),
            Some(0),
            &[
                "no role or policy of tenant acme permits",
                "all: not bound to the principal",
                "clock: RoleBinding clock ended 2026-01-01T00:00:00Z",
                "near/when-asked permits",
                "if only: ",
                "please",
            ],
        ),
        ([&["ALLOW"], &eve[..], &["--json", "{\"please\":true}"]].concat(), Some(0), &["near/when-asked permits"]),
        (
            [&["ALLOW"], &eve[..], &["--at", "2025-12-31T23:59:59Z"]].concat(),
            Some(0),
            &["clock (echo.*), by RoleBinding clock until 2026-01-01T00:00:00Z"],
        ),
        (vec!["DENY", "--principal", "ana", "--tool", "nothing.x"], Some(1), &["PV-WHY-CALL", "provost get Plugin"]),
        (vec!["DENY", "--principal", "ana"], Some(2), &["PV-WHY-CALL"]),
        (
            vec!["ALLOW", "--principal", "ana", "--tool", "say"],
            Some(0),
            &["ALLOW  principal ana to call tool echo.echo", "all (*), by RoleBinding all"],
        ),
        (
            vec!["DENY", "--principal", "ana", "--tool", "say", "--arg", "text=a secret"],
            Some(0),
            &["policy secrets/no-secrets of tenant acme forbids"],
        ),
        (
            vec!["DENY", "--principal", "ana", "--tool", "gone"],
            Some(1),
            &["PV-WHY-CALL", "is out of use since 2026-01-01"],
        ),
        ([&["ALLOW"], &ana[..], &["--transport", "pigeon"]].concat(), Some(2), &["PV-CLI-USAGE", "h3, quic"]),
        ([&["ALLOW"], &ana[..], &["--address", "nowhere"]].concat(), Some(2), &["PV-CLI-USAGE", "nowhere"]),
        // Readers differ on which of two counts: a node refuses the call, so nothing is said of it.
        (
            [&["ALLOW"], &eve[..], &["--json", "{\"please\":false,\"please\":true}"]].concat(),
            Some(1),
            &["PV-WHY-CALL", "\"please\" stands twice", "each name once"],
        ),
        ([&["ALLOW"], &eve[..], &["--json", "[true]"]].concat(), Some(1), &["PV-WHY-CALL", "not a JSON object"]),
        (
            [&["ALLOW"], &eve[..], &["--arg", "please=false", "--arg", "please=true"]].concat(),
            Some(2),
            &["PV-CLI-ARGUMENTS", "`please` is given twice"],
        ),
        (
            [&["ALLOW"], &eve[..], &["--arg", "please={\"a\":1,\"a\":2}"]].concat(),
            Some(2),
            &["PV-CLI-ARGUMENTS", "\"a\" stands twice"],
        ),
    ];
    for (args, code, lines) in table {
        let (found, said) = why(&args);
        assert_eq!(found, code, "{args:?}: {said}");
        for line in lines {
            assert!(said.contains(line), "{args:?}: {line} is not in {said}");
        }
    }
    let (code, told) = why(&[&["DENY"], &eve[..], &["--json"]].concat());
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((code, &told["decision"]["effect"]), (Some(0), &json!("deny")));
    assert_eq!(told["explanation"]["nearRoles"][1]["role"], "clock", "{told}");

    // A recorded call, as it was decided and as it would be now.
    let token = token(&dev, "ana");
    call(&dev, &token, "echo.echo", json!({ "text": "a secret" }));
    let denied = dev.cli(&["audit", "query", "--json", "--tool", "echo.echo", "--status", "denied"]);
    let denied: Value = serde_json::from_str(text(&denied).lines().last().unwrap()).unwrap();
    let index = denied["index"].to_string();
    let (code, said) = why(&["DENY", "--record", &index]);
    assert_eq!(code, Some(0), "{said}");
    for line in
        ["recorded as", "decided by secrets/no-secrets", "refused with PV-POLICY-DENIED", "(Policy secrets, line 1)"]
    {
        assert!(said.contains(line), "{line} is not in {said}");
    }
    assert!(why(&["DENY", "--record", "0"]).1.contains("PV-WHY-RECORD"), "{}", why(&["DENY", "--record", "0"]).1);
    let erased = dev.cli(&["audit", "erase", "--tenant", "acme", "--subject", "ana", "--reason", "request 2"]);
    assert!(erased.status.success(), "{}", text(&erased));
    let (code, said) = why(&["DENY", "--record", &index]);
    assert!(code == Some(1) && said.contains("NOT CERTAIN") && said.contains("(erased)"), "{code:?} {said}");
}

/// With three voters the admin API is theirs, and the audit log is in another process.
#[test]
fn three_voters_hand_the_question_to_the_node_that_keeps_the_log() {
    let (_dir, yaml) = world();
    let dev = Dev::start(Some(&yaml), &["--nodes", "3"]);
    let ana = token(&dev, "ana");
    call(&dev, &ana, "echo.echo", json!({ "text": "a secret" }));
    call(&dev, &ana, "echo.echo", json!({ "text": "else" }));
    let (output, found) = simulate(&dev, &policy("secrets", NO_SECRETS), &[]);
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!((&found["lookedAt"], &found["changed"]), (&json!(2), &json!(1)), "{found}");
    let index = found["changes"][0]["index"].to_string();
    let told = dev.cli(&["why", "ALLOW", "--record", &index, "--tenant", "acme"]);
    assert!(told.status.success() && text(&told).contains("role all"), "{}", text(&told));
}
