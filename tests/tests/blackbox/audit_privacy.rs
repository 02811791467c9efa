//! What the audit log keeps of calls, who can read it, and what is left after an erasure.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

use crate::{
    files::holding,
    harness::{Dev, Process, call_tool, root, text, upstream_yaml},
};

const CANARY: &str = "canary-5105-1051-0510-5100";

fn records(dev: &Dev, args: &[&str]) -> Vec<Value> {
    let output = dev.cli(&[&["audit", "query", "--json"], args].concat());
    assert!(output.status.success(), "{}", text(&output));
    String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn body_of(dev: &Dev, index: u64) -> Value {
    let index = index.to_string();
    let output = dev.cli(&["audit", "show", &index, "--tenant", "acme", "--body"]);
    assert!(output.status.success(), "{}", text(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn python(audit: &Path) -> (Option<i32>, Value) {
    let output = Command::new("python3").arg(root().join("tests/audit_verify.py")).arg(audit).output().unwrap();
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or_default())
}

#[test]
fn bodies_can_be_read_through_the_node_until_they_are_erased() {
    let mut dev = Dev::start(None, &[]);
    let answer = call_tool(&dev, "echo.echo", json!({ "text": CANARY }));
    assert!(answer.to_string().contains(CANARY), "{answer}");
    let calls = records(&dev, &["--tool", "echo.echo"]);
    let index = |phase: &str| {
        let found = calls.iter().find(|r| r["record"]["phase"] == phase).unwrap();
        found["index"].as_u64().unwrap()
    };
    let (intent, outcome) = (index("intent"), index("outcome"));
    let principal = calls[0]["record"]["principal"].as_str().unwrap().to_owned();

    let shown = body_of(&dev, intent);
    assert_eq!(shown["body"]["state"], "opened", "{shown}");
    assert_eq!(shown["body"]["content"]["arguments"]["text"], CANARY, "{shown}");
    assert!(body_of(&dev, outcome)["body"]["content"].to_string().contains(CANARY));
    let reads = records(&dev, &["--tenant", "acme", "--event", "audit.read"]);
    let objects: Vec<String> = reads.iter().map(|r| r["record"]["event.objects"].to_string()).collect();
    assert!(objects.iter().any(|o| o.contains(&format!("record:{intent}")) && o.contains("key:")), "{objects:?}");
    assert_eq!(holding(&dev.data, CANARY), Vec::<PathBuf>::new(), "nothing on disk holds it in clear");

    let refused = dev.cli(&["audit", "erase", "--tenant", "acme", "--subject", &principal, "--reason", " "]);
    assert!(text(&refused).contains("PV-AUDIT-ERASE"), "{}", text(&refused));
    let erased = dev.cli(&["audit", "erase", "--tenant", "acme", "--subject", &principal, "--reason", "request 4711"]);
    assert!(erased.status.success() && text(&erased).contains("1 keys"), "{}", text(&erased));
    let shown = body_of(&dev, intent);
    assert_eq!(shown["body"]["state"], "erased", "{shown}");
    assert!(shown["body"]["content"].is_null() && shown["record"]["principal"] == *principal, "{shown}");
    let erasures = records(&dev, &["--tenant", "acme", "--event", "audit.erase"]);
    assert_eq!(erasures.len(), 1);
    assert_eq!(erasures[0]["record"]["event.detail"], "request 4711");
    // A new key for what comes after.
    call_tool(&dev, "echo.echo", json!({ "text": "after" }));
    let last = records(&dev, &["--tool", "echo.echo"]).pop().unwrap();
    assert_eq!(body_of(&dev, last["index"].as_u64().unwrap())["body"]["state"], "opened");

    assert!(dev.terminate().1, "{}", dev.stderr());
    let audit = dev.data.join("audit");
    let verify = dev.cli(&["audit", "verify", audit.to_str().unwrap()]);
    assert_eq!(verify.status.code(), Some(2), "{}", text(&verify));
    assert!(text(&verify).contains("of them erased: their keys were destroyed"), "{}", text(&verify));
    crate::matrix::row("key erased, then verify", "holds; RETENTION counts the erased bodies", "2", "-");
    let (code, report) = python(&audit);
    assert_eq!(code, Some(2), "{report}");
    let acme = report["logs"].as_array().unwrap().iter().find(|l| l["origin"] == "dev/acme").unwrap();
    assert!(acme["erased"].as_u64().unwrap() >= 2 && acme["bodies"].as_u64() > acme["erased"].as_u64(), "{report}");

    // A body that was replaced is found without any key.
    let body = audit.join("tenants/acme/segments/00000000000000000000.body");
    let mut bytes = fs::read(&body).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&body, &bytes).unwrap();
    let verify = dev.cli(&["audit", "verify", audit.to_str().unwrap()]);
    assert_eq!((verify.status.code(), python(&audit).0), (Some(1), Some(1)), "{}", text(&verify));
    fs::remove_file(&body).unwrap();
    let verify = dev.cli(&["audit", "verify", audit.to_str().unwrap()]);
    assert_eq!((verify.status.code(), python(&audit).0), (Some(4), Some(4)), "{}", text(&verify));
}

/// With three voters the admin API is theirs, and the audit log is in another process.
#[test]
fn an_admin_api_that_keeps_no_log_hands_the_question_to_one_that_does() {
    let mut dev = Dev::start(None, &["--nodes", "3"]);
    call_tool(&dev, "echo.echo", json!({ "text": CANARY }));
    let calls = records(&dev, &["--tool", "echo.echo"]);
    let intent = calls.iter().find(|r| r["record"]["phase"] == "intent").unwrap();
    let (index, principal) = (intent["index"].as_u64().unwrap(), intent["record"]["principal"].as_str().unwrap());
    let shown = body_of(&dev, index);
    assert_eq!(shown["body"]["content"]["arguments"]["text"], CANARY, "{shown}");
    let reads = records(&dev, &["--tenant", "acme", "--event", "audit.read"]);
    assert!(reads.iter().any(|r| r["record"]["event.objects"].to_string().contains(&format!("record:{index}"))));
    let refused = dev.cli(&["audit", "erase", "--tenant", "acme", "--subject", principal, "--reason", " "]);
    assert!(text(&refused).contains("PV-AUDIT-ERASE"), "its code comes back: {}", text(&refused));
    let hold = |what: &str| dev.cli(&["audit", "hold", what, "case-7", "--tenant", "acme", "--reason", "case 7"]);
    let held = hold("add");
    assert!(held.status.success(), "{}", text(&held));
    let holds = dev.cli(&["audit", "hold", "list", "--json"]);
    let holds: Value = serde_json::from_slice(&holds.stdout).unwrap();
    assert_eq!((&holds[0]["hold"], &holds[0]["log"], holds[1].is_null()), (&"case-7".into(), &"acme".into(), true));
    let kept = dev.cli(&["audit", "erase", "--tenant", "acme", "--subject", principal, "--reason", "request 4711"]);
    assert!(text(&kept).contains("PV-AUDIT-HELD"), "{}", text(&kept));
    let young = dev.cli(&["audit", "prune", "--tenant", "acme", "--keep", "400d", "--dry-run"]);
    assert!(text(&young).contains("nothing is old enough"), "{}", text(&young));
    let released = hold("remove");
    assert!(released.status.success(), "{}", text(&released));
    assert!(text(&hold("remove")).contains("PV-AUDIT-NO-HOLD"));
    let erased = dev.cli(&["audit", "erase", "--tenant", "acme", "--subject", principal, "--reason", "request 4711"]);
    assert!(erased.status.success() && text(&erased).contains("1 keys"), "{}", text(&erased));
    assert_eq!(body_of(&dev, index)["body"]["state"], "erased");
    assert_eq!(records(&dev, &["--tenant", "acme", "--event", "audit.erase"]).len(), 1);
    call_tool(&dev, "echo.echo", json!({ "text": "after" }));
    assert!(dev.terminate().1, "{}", dev.stderr());
}

#[test]
fn logins_and_refused_tokens_are_recorded_and_no_token_is() {
    let dev = Dev::start(None, &[]);
    for _ in 0..3 {
        assert!(dev.cli(&["get", "Tenant"]).status.success());
    }
    const GUESS: &str = "guess-canary-token";
    for _ in 0..30 {
        let output = dev.cli(&["get", "Tenant", "--admin-token", GUESS]);
        assert!(text(&output).contains("PV-ADMIN-BAD-TOKEN"), "{}", text(&output));
    }
    let logins = records(&dev, &["--tenant", "cluster", "--event", "login"]);
    assert_eq!(logins.len(), 1, "one session: {logins:?}");
    assert_eq!(logins[0]["record"]["principal"], "admin");
    let refused = records(&dev, &["--tenant", "cluster", "--event", "login.refused"]);
    assert!((1..=20).contains(&refused.len()), "bounded: {}", refused.len());
    assert_eq!(refused[0]["record"]["error.type"], "PV-ADMIN-BAD-TOKEN");
    assert_eq!(holding(&dev.data, GUESS), Vec::<PathBuf>::new());
}

#[test]
fn a_record_names_the_secrets_that_a_call_used_and_never_their_values() {
    const VALUE: &str = "secret-canary-value";
    let upstream = Process::everything("modern");
    let plain = upstream_yaml(&upstream.url);
    let with_secret = format!("url: '{}', secretHeaders: {{ x-key: {{ secret: upstream-key }} }}", upstream.url);
    let yaml = plain.replace(&format!("url: '{}'", upstream.url), &with_secret);
    assert_ne!(yaml, plain);
    let secret = "apiVersion: provost/v1\nkind: Secret\nmetadata: { name: upstream-key, tenant: acme }\nspec: {}\n";
    let dev = Dev::start(Some(&format!("{yaml}---\n{secret}")), &[]);
    let set = dev.cli_stdin(&["secret", "set", "upstream-key"], VALUE);
    assert!(set.status.success(), "{}", text(&set));
    call_tool(&dev, "up.test_simple_text", json!({}));
    let calls = records(&dev, &["--tool", "up.test_simple_text"]);
    assert!(!calls.is_empty());
    for call in &calls {
        assert_eq!(call["record"]["secrets"], json!(["upstream-key"]), "{call}");
    }
    assert_eq!(holding(&dev.data, VALUE), Vec::<PathBuf>::new());
}

#[test]
fn reads_of_the_log_through_the_commands_of_a_running_node_are_recorded() {
    let dev = Dev::start(None, &[]);
    records(&dev, &["--tenant", "acme", "--principal", "nobody"]);
    let reads = records(&dev, &["--tenant", "acme", "--event", "audit.read"]);
    let filters: Vec<&str> = reads.iter().filter_map(|r| r["record"]["event.detail"].as_str()).collect();
    assert!(filters.iter().any(|f| f.contains("principal=nobody")), "{filters:?}");
}

#[test]
fn a_name_that_was_mistyped_begins_no_log() {
    let dev = Dev::start(None, &[]);
    call_tool(&dev, "echo.echo", json!({ "text": "hi" }));
    for command in ["query", "tail", "show 0", "export --format jsonl"] {
        let words: Vec<&str> = ["audit"].into_iter().chain(command.split(' ')).chain(["--tenant", "acmee"]).collect();
        let output = dev.cli(&words);
        assert_eq!(output.status.code(), Some(i32::from(command == "show 0")), "{command}: {}", text(&output));
        assert!(!String::from_utf8_lossy(&output.stdout).contains("acmee"), "{command}: {}", text(&output));
        assert!(text(&output).contains("log of tenant acmee"), "it says nothing: {command}: {}", text(&output));
    }
    let logs = fs::read_dir(dev.data.join("audit/tenants")).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(logs.collect::<Vec<_>>(), ["acme"]);
    let reads = records(&dev, &["--tenant", "cluster", "--event", "audit.read"]);
    let objects: Vec<String> = reads.iter().map(|r| r["record"]["event.objects"].to_string()).collect();
    for command in ["query", "tail", "show", "export"] {
        let wanted = json!([format!("command:{command}"), "log:acmee"]).to_string();
        assert!(objects.contains(&wanted), "{command} is not recorded: {objects:?}");
    }
}

#[test]
fn pseudonyms_hide_the_caller_from_a_copy_and_not_from_the_node() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut dev = Dev::start_env(&data, None, &[], &[("PROVOST_AUDIT_IDENTITIES", "pseudonyms")]);
    call_tool(&dev, "echo.echo", json!({ "text": "hi" }));
    let calls = records(&dev, &["--tool", "echo.echo"]);
    let name = calls[0]["principal"].as_str().expect("the node knows the name").to_owned();
    for call in &calls {
        let principal = call["record"]["principal"].as_str().unwrap();
        assert!(principal.starts_with("p-") && principal.len() == 34, "{call}");
        assert!(
            call["record"]["client.address"].is_null() && call["record"]["authenticated_by"] == "api_key",
            "{call}"
        );
        assert_eq!(body_of(&dev, call["index"].as_u64().unwrap())["body"]["state"], "opened");
    }
    assert_eq!(records(&dev, &["--tool", "echo.echo", "--principal", &name]).len(), calls.len());
    assert!(dev.terminate().1, "{}", dev.stderr());
    assert_eq!(records(&dev, &["--tool", "echo.echo", "--principal", &name]).len(), calls.len(), "by its key files");
    let copy = dir.path().join("copy");
    assert!(Command::new("cp").arg("-r").arg(data.join("audit")).arg(&copy).status().unwrap().success());
    let of_copy = dev.cli(&["audit", "query", "--dir", copy.to_str().unwrap(), "--tool", "echo.echo", "--json"]);
    assert!(of_copy.status.success() && !text(&of_copy).contains(&format!("\"{name}\"")), "{}", text(&of_copy));
}

/// An erasure that was answered outlives `kill -9`, and so does everything that was not erased.
#[test]
fn an_erasure_outlives_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut dev = Dev::start_in(&data, None, &[]);
    let made = dev.cli(&["token", "create", "--principal", "sam", "--json"]);
    let token = serde_json::from_slice::<Value>(&made.stdout).unwrap()["token"].as_str().unwrap().to_owned();
    call_tool(&dev, "echo.echo", json!({ "text": CANARY }));
    let sql = ["call", "sql.query", "--arg", "sql=SELECT name FROM customers WHERE id = 1", "--url"];
    let by_sam = dev.cli(&[&sql[..], &[dev.mcp(), "--token", &token]].concat());
    let first = |dev: &Dev, tool: &str| {
        let found = records(dev, &["--tool", tool]).into_iter().next();
        let found = found.unwrap_or_else(|| panic!("no record of {tool}: {}", text(&by_sam)));
        (found["index"].as_u64().unwrap(), found["record"]["principal"].as_str().unwrap().to_owned())
    };
    let ((index, principal), (of_sam, sam)) = (first(&dev, "echo.echo"), first(&dev, "sql.query"));
    assert_eq!(sam, "sam");
    let erase = ["audit", "erase", "--tenant", "acme", "--subject", &principal, "--reason", "asked to"];
    let erased = dev.cli(&erase);
    assert!(erased.status.success(), "{}", text(&erased));
    dev.kill_9();
    drop(dev);

    let mut dev = Dev::start_in(&data, None, &[]);
    assert_eq!(body_of(&dev, index)["body"]["state"], "erased");
    assert_eq!(body_of(&dev, of_sam)["body"]["state"], "opened");
    let again = dev.cli(&erase);
    assert!(again.status.success() && text(&again).contains("nothing to erase"), "{}", text(&again));
    assert_eq!(records(&dev, &["--tenant", "acme", "--event", "audit.erase"]).len(), 1);
    call_tool(&dev, "echo.echo", json!({ "text": "after" }));
    assert!(dev.terminate().1, "{}", dev.stderr());
    let verify = dev.cli(&["audit", "verify", data.join("audit").to_str().unwrap()]);
    assert_eq!(verify.status.code(), Some(2), "{}", text(&verify));
}
