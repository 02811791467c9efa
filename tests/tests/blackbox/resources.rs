//! Resources by the command line: all or nothing, every error at once.

use serde_json::Value;

use crate::harness::{Dev, text, until};

fn write(dir: &std::path::Path, name: &str, yaml: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, yaml).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn every_error_of_an_apply_is_named_with_its_file_and_line_and_nothing_is_applied() {
    let dev = Dev::start(None, &[]);
    let dir = tempfile::tempdir().unwrap();
    let before = text(&dev.cli(&["history"]));
    let one = write(
        dir.path(),
        "one.yaml",
        "apiVersion: provost/v1\nkind: Principal\nmetadata: { name: kim, tenant: acme }\nspec:\n  colour: red\n",
    );
    let two = write(
        dir.path(),
        "two.yaml",
        "apiVersion: provost/v1\nkind: Policy\nmetadata: { name: bad, tenant: acme }\nspec:\n  cedar: |\n    permit(principal, action, resource) when { principal.shoe_size > 3 };\n---\n\
         apiVersion: provost/v1\nkind: Principal\nmetadata: { name: fine, tenant: acme }\nspec: {}\n",
    );
    let output = dev.cli(&["apply", "-f", &one, "-f", &two]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let message = text(&output);
    assert!(message.contains("one.yaml:5"), "no place of the unknown key: {message}");
    assert!(message.contains("colour"), "{message}");
    // The Cedar error of the other file is in the same answer.
    assert!(message.contains("two.yaml"), "{message}");
    assert!(message.contains("shoe_size"), "{message}");
    assert!(!text(&dev.cli(&["get", "Principal"])).contains("fine"), "half an apply");
    assert_eq!(text(&dev.cli(&["history"])), before);
}

#[test]
fn apply_diff_get_history_rollback_delete_tell_one_story() {
    let dev = Dev::start(None, &[]);
    let dir = tempfile::tempdir().unwrap();
    let kim = "apiVersion: provost/v1\nkind: Principal\nmetadata: { name: kim, tenant: acme }\nspec: { type: user, displayName: Kim }\n";
    let path = write(dir.path(), "kim.yaml", kim);
    let revision = |dev: &Dev| -> u64 {
        let output = dev.cli(&["history", "--json", "--limit", "1"]);
        let value: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)));
        value[0]["revision"].as_u64().unwrap()
    };
    let start = revision(&dev);

    let dry = dev.cli(&["apply", "-f", &path, "--dry-run"]);
    assert!(dry.status.success(), "{}", text(&dry));
    assert_eq!(revision(&dev), start, "a dry run changed the state");
    let diff = dev.cli(&["diff", "-f", &path]);
    assert!(text(&diff).contains("kim"), "{}", text(&diff));

    let applied = dev.cli(&["apply", "-f", &path]);
    assert!(applied.status.success(), "{}", text(&applied));
    assert!(revision(&dev) > start);
    let got = dev.cli(&["get", "Principal", "kim", "-o", "yaml"]);
    assert!(text(&got).contains("displayName: Kim"), "{}", text(&got));
    let json = dev.cli(&["get", "Principal", "kim", "-o", "json"]);
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["spec"]["displayName"], "Kim");
    assert!(text(&dev.cli(&["describe", "Principal", "kim"])).contains("kim"));

    // The same apply again is no change.
    let again = revision(&dev);
    assert!(dev.cli(&["apply", "-f", &path]).status.success());
    assert_eq!(revision(&dev), again, "an unchanged apply made a revision");

    let back = dev.cli(&["rollback", "--to", &start.to_string()]);
    assert!(back.status.success(), "{}", text(&back));
    assert_eq!(dev.cli(&["get", "Principal", "kim"]).status.code(), Some(1));

    assert!(dev.cli(&["apply", "-f", &path]).status.success());
    assert!(dev.cli(&["delete", "Principal", "kim"]).status.success());
    assert_eq!(dev.cli(&["get", "Principal", "kim"]).status.code(), Some(1));

    // What is referenced stays.
    let output = dev.cli(&["delete", "Tenant", "acme"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));

    // Every change is in the audit log, moments later.
    until(|| {
        let audit = text(&dev.cli(&["audit", "query", "--json", "--event", "apply"]));
        audit.contains("Principal/acme/kim").then_some(())
    });
}

#[test]
fn explain_and_schema_speak_for_every_kind() {
    let dev = Dev::start(None, &[]);
    let schema = dev.cli(&["schema"]);
    assert!(schema.status.success(), "{}", text(&schema));
    let schema: Value = serde_json::from_slice(&schema.stdout).unwrap();
    let kinds =
        "Tenant Principal ApiKey Role RoleBinding Policy Plugin Secret Quota NodeGroup Price Guard IdentityProvider";
    for kind in kinds.split(' ') {
        assert!(schema.to_string().contains(&format!("\"{kind}\"")), "schema lacks {kind}");
        let explain = dev.cli(&["explain", kind]);
        assert!(explain.status.success(), "{}", text(&explain));
        assert!(text(&explain).len() > 60, "explain {kind} says too little");
    }
    assert_eq!(dev.cli(&["explain", "Banana"]).status.code(), Some(1));
}

#[test]
fn a_secret_goes_in_by_stdin_and_never_comes_out() {
    let mut dev = Dev::start(None, &[]);
    let value = "correct-horse-battery-staple-7391";
    let set = dev.cli_stdin(&["secret", "set", "api-token"], value);
    assert!(set.status.success(), "{}", text(&set));
    let seen = [
        dev.cli(&["get", "Secret", "api-token", "-o", "yaml"]),
        dev.cli(&["describe", "Secret", "api-token"]),
        dev.cli(&["history", "--json"]),
        dev.cli(&["audit", "query", "--json"]),
    ];
    for output in &seen {
        assert!(output.status.success(), "{}", text(output));
        assert!(!text(output).contains(value), "a command shows the secret");
    }
    assert!(dev.terminate().1);
    let mut stack = vec![dev.data.clone(), dev.data.parent().unwrap().join("stderr.log")];
    while let Some(path) = stack.pop() {
        if path.is_dir() {
            stack.extend(std::fs::read_dir(path).unwrap().map(|e| e.unwrap().path()));
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        let found = bytes.windows(value.len()).any(|w| w == value.as_bytes());
        assert!(!found, "{} holds the secret in clear", path.display());
    }
}
