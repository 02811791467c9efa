//! Models as resources: imported, declared, used, ordered about, tampered with and deleted, through one node.

use std::{fs, path::Path, process::Command};

use serde_json::{Value, json};

use crate::{
    harness::{Dev, binary, post_raw, root, text, until},
    inference::models_dir,
};

const YAML: &str = "apiVersion: provost/v1\nkind: Tenant\nmetadata: { name: acme }\nspec: {}\n---\n\
apiVersion: provost/v1\nkind: Tenant\nmetadata: { name: umbra }\nspec: {}\n---\n\
apiVersion: provost/v1\nkind: Principal\nmetadata: { name: bot, tenant: acme }\nspec: {}\n---\n\
apiVersion: provost/v1\nkind: Role\nmetadata: { name: ai, tenant: acme }\n\
spec: { rules: [ { tools: ['ai.*'], models: ['*'] } ] }\n---\n\
apiVersion: provost/v1\nkind: RoleBinding\nmetadata: { name: ai, tenant: acme }\n\
spec: { role: ai, principals: [bot] }\n---\n\
apiVersion: provost/v1\nkind: Plugin\nmetadata: { name: ai, tenant: acme }\n\
spec: { source: { builtin: { name: inference } } }\n";

fn run(dev: &Dev, args: &[&str]) -> (bool, String) {
    let output = dev.cli(args);
    (output.status.success(), text(&output))
}

fn well(dev: &Dev, args: &[&str]) -> String {
    let (done, said) = run(dev, args);
    assert!(done, "{args:?}: {said}");
    said
}

fn refused(dev: &Dev, args: &[&str], code: &str) {
    let (done, said) = run(dev, args);
    assert!(!done && said.contains(code), "{args:?}: {said}");
}

fn json_of(dev: &Dev, args: &[&str]) -> Value {
    let output = dev.cli(args);
    assert!(output.status.success(), "{args:?}: {}", text(&output));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{args:?}: {e}: {}", text(&output)))
}

/// What the node says of a model; null: it has none of that name.
fn standing(dev: &Dev, model: &str) -> Value {
    let all = json_of(dev, &["model", "status", "--json"]);
    let models = all["nodes"][0]["models"].as_array().unwrap_or_else(|| panic!("{all}"));
    models.iter().find(|found| found["name"] == model).cloned().unwrap_or_default()
}

/// Waits until the node says of a model what is expected.
fn stands(dev: &Dev, model: &str, expected: &Value) {
    until(|| {
        let found = standing(dev, model);
        let fields = expected.as_object().unwrap();
        fields.iter().all(|(field, value)| found[field] == *value).then_some(())
    });
}

fn apply(dev: &Dev, document: &str) -> (bool, String) {
    let file = dev.data.parent().unwrap().join("model.yaml");
    fs::write(&file, document).unwrap();
    run(dev, &["apply", "-f", file.to_str().unwrap()])
}

fn document(name: &str, spec: &str) -> String {
    format!("apiVersion: provost/v1\nkind: Model\nmetadata: {{ name: {name} }}\nspec: {spec}\n")
}

fn declare(dev: &Dev, name: &str, spec: &str) {
    let (done, said) = apply(dev, &document(name, spec));
    assert!(done, "{said}");
}

fn chat(dev: &Dev, model: &str) -> (u16, Value) {
    let body = json!({ "model": model, "max_tokens": 4, "temperature": 0,
                       "messages": [{ "role": "user", "content": "hello" }] });
    let headers = [("authorization".to_owned(), format!("Bearer {}", dev.token()))];
    post_raw(&format!("{}/v1/chat/completions", dev.base()), &headers, body.to_string().into_bytes())
}

fn answers(dev: &Dev, model: &str) {
    let last = std::cell::RefCell::new(Value::Null);
    until(|| {
        let (status, answer) = chat(dev, model);
        last.replace(answer);
        (status == 200).then_some(())
    });
    assert!(last.borrow()["usage"]["completion_tokens"].as_u64().unwrap() > 0, "{}", last.borrow());
}

fn fixture(name: &str) -> String {
    root().join("gpu-node/infer/tests/fixtures").join(name).to_str().unwrap().to_owned()
}

/// Changes one byte at the end of a file.
fn damage(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(file, bytes).unwrap();
}

#[test]
fn a_model_is_imported_declared_used_ordered_about_and_deleted() {
    let dev = Dev::start(Some(YAML), &[]);
    let printed = dev.cli(&["model", "import", &fixture("tiny-chat"), "--name", "tiny"]);
    assert!(printed.status.success(), "{}", text(&printed));
    let document = String::from_utf8(printed.stdout).unwrap();
    let again = json_of(&dev, &["model", "import", &fixture("tiny-chat"), "--name", "tiny", "--json"]);
    assert_eq!(again["wasThere"], true, "{again}");
    let digest = again["digest"].as_str().unwrap();
    assert!(document.contains(digest), "{document}");
    assert!(well(&dev, &["model", "list", "--store"]).contains(digest));
    assert_eq!(standing(&dev, "tiny"), Value::Null, "nothing is served that is not declared");
    assert_ne!(chat(&dev, "tiny").0, 200);

    let (done, said) = apply(&dev, &document);
    assert!(done, "{said}");
    answers(&dev, "tiny");
    stands(
        &dev,
        "tiny",
        &json!({ "state": "ready", "digest": digest, "format": "safetensors", "dtype": "f32",
                                  "declared": true, "pinned": false, "priority": "normal", "leases": 0 }),
    );
    assert!(well(&dev, &["get", "Model"]).contains(digest));
    assert!(well(&dev, &["describe", "Model", "tiny"]).contains(digest));

    assert!(well(&dev, &["model", "unload", "tiny"]).contains("tiny on dev: absent"));
    assert!(well(&dev, &["model", "pin", "tiny"]).contains("ready, pinned"));
    refused(&dev, &["model", "unload", "tiny"], "PV-MODEL-PINNED");
    assert!(well(&dev, &["model", "unpin", "tiny"]).contains("tiny on dev: ready"));
    well(&dev, &["model", "unload", "tiny", "--drain"]);
    assert_eq!(standing(&dev, "tiny")["state"], "absent");
    assert!(well(&dev, &["model", "load", "tiny"]).contains("ready"));
    refused(&dev, &["model", "load", "other"], "PV-MODEL-NOT-FOUND");
    refused(&dev, &["model", "load", "tiny", "--node", "other"], "PV-MODEL-NODE");
    let recorded = well(&dev, &["audit", "query", "--json", "--limit", "1000"]);
    assert!(recorded.contains("model.unload") && recorded.contains("Model/tiny"), "{recorded}");

    // What is said of its use changes without a new load.
    let blob = format!("source: {{ blob: '{digest}' }}");
    declare(&dev, "tiny", &format!("{{ {blob}, priority: critical, pinned: true, contextTokens: 40 }}"));
    stands(&dev, "tiny", &json!({ "state": "ready", "priority": "critical", "pinned": true }));
    declare(&dev, "tiny", &format!("{{ {blob}, tenants: [umbra] }}"));
    until(|| (chat(&dev, "tiny").0 != 200).then_some(()));
    let (done, said) = run(&dev, &["delete", "Tenant", "umbra"]);
    assert!(!done && said.contains("PV-RES-IN-USE"), "{said}");
    declare(&dev, "tiny", &format!("{{ {blob}, tenants: [acme, umbra] }}"));
    answers(&dev, "tiny");

    well(&dev, &["delete", "Model", "tiny"]);
    until(|| (chat(&dev, "tiny").0 != 200).then_some(()));
    until(|| standing(&dev, "tiny").is_null().then_some(()));
    refused(&dev, &["model", "status", "tiny"], "PV-MODEL-NOT-FOUND");
}

#[test]
fn what_is_tampered_with_missing_or_otherwise_is_not_served() {
    let dev = Dev::start(Some(YAML), &[]);
    let imported = json_of(&dev, &["model", "import", &fixture("tiny-chat"), "--json"]);
    let (digest, place) = (imported["digest"].as_str().unwrap(), imported["place"].as_str().unwrap());
    declare(&dev, "tiny", &format!("{{ source: {{ blob: '{digest}' }} }}"));
    answers(&dev, "tiny");
    well(&dev, &["model", "unload", "tiny"]);
    damage(&Path::new(place).join("model.safetensors"));
    refused(&dev, &["model", "load", "tiny"], "PV-MODEL-DIGEST");
    let (status, answer) = chat(&dev, "tiny");
    assert!(status >= 500 && answer.to_string().contains("PV-MODEL-DIGEST"), "{status} {answer}");
    stands(&dev, "tiny", &json!({ "state": "failed" }));
    assert!(well(&dev, &["model", "status"]).contains("model.safetensors is not what was imported"));
    // Another import mends it.
    let mended = json_of(&dev, &["model", "import", &fixture("tiny-chat"), "--json"]);
    assert_eq!((mended["wasThere"].as_bool(), mended["digest"].as_str()), (Some(false), Some(digest)));
    answers(&dev, "tiny");

    declare(&dev, "gone", &format!("{{ source: {{ blob: 'sha256:{}' }} }}", "0".repeat(64)));
    declare(&dev, "nowhere", "{ source: { path: /nonexistent/model } }");
    declare(&dev, "differs", &format!("{{ source: {{ blob: '{digest}' }}, format: gguf }}"));
    stands(&dev, "gone", &json!({ "state": "missing" }));
    stands(&dev, "nowhere", &json!({ "state": "missing" }));
    stands(&dev, "differs", &json!({ "state": "failed" }));
    refused(&dev, &["model", "load", "gone"], "PV-MODEL-MISSING");
    refused(&dev, &["model", "pin", "differs"], "PV-MODEL-DIFFERS");
    assert_ne!(chat(&dev, "gone").0, 200);

    for (spec, said) in [
        ("{ source: { path: models/tiny } }", "spec.source.path"),
        ("{ source: { blob: nothing } }", "sha256:"),
        ("{ source: { path: /m }, priority: high }", "priority"),
        ("{ source: { path: /m }, tenants: [nobody] }", "spec.tenants[0]"),
    ] {
        let (done, told) = apply(&dev, &document("bad", spec));
        assert!(!done && told.contains("PV-") && told.contains(said), "{spec}: {told}");
    }
    let (done, told) = run(&dev, &["model", "import", "/nonexistent/model"]);
    assert!(!done && told.contains("PV-MODEL-UNREADABLE"), "{told}");
}

#[test]
fn stored_models_are_removed_once_nothing_names_them() {
    let dev = Dev::start(Some(YAML), &[]);
    let import = |name: &str| json_of(&dev, &["model", "import", &fixture(name), "--name", name, "--json"]);
    let (tiny, qwen) = (import("tiny-chat"), import("tiny-qwen3"));
    let digest = tiny["digest"].as_str().unwrap();
    declare(&dev, "one", &format!("{{ source: {{ blob: '{digest}' }} }}"));
    declare(&dev, "two", &format!("{{ source: {{ blob: '{digest}' }} }}"));
    stands(&dev, "two", &json!({ "state": "absent" }));
    for wanted in [digest, "tiny-chat"] {
        refused(&dev, &["model", "remove", wanted], "PV-MODEL-IN-USE");
        let (_, said) = run(&dev, &["model", "remove", wanted, "--dry-run"]);
        assert!(said.contains("`one`, `two`"), "{said}");
    }
    refused(&dev, &["model", "remove", "other"], "PV-MODEL-NOT-FOUND");
    refused(&dev, &["model", "prune", "--node", "other"], "PV-MODEL-NODE");
    let said = well(&dev, &["model", "prune", "--dry-run"]);
    assert!(said.contains("would be removed: 1 model") && said.contains("used by one, two"), "{said}");
    let stored = || well(&dev, &["model", "list", "--store"]);
    assert!(stored().contains(qwen["digest"].as_str().unwrap()));
    let pruned = json_of(&dev, &["model", "prune", "--json"]);
    assert_eq!((&pruned["removed"], &pruned["bytes"]), (&json!(1), &qwen["bytes"]), "{pruned}");
    assert!(!Path::new(qwen["place"].as_str().unwrap()).exists());
    answers(&dev, "one");

    well(&dev, &["delete", "Model", "one"]);
    well(&dev, &["delete", "Model", "two"]);
    until(|| standing(&dev, "two").is_null().then_some(()));
    assert!(well(&dev, &["model", "remove", "tiny-chat"]).contains("removed: 1 model"));
    assert!(stored().contains("nothing was imported"), "{}", stored());
    let recorded = well(&dev, &["audit", "query", "--json", "--limit", "1000"]);
    assert!(recorded.contains("model.remove") && recorded.contains("StoredModel/tiny-chat"), "{recorded}");
}

#[test]
fn nodes_of_a_cluster_are_asked_and_ordered_by_any_control_plane_node() {
    let dev = Dev::start(Some(YAML), &["--nodes", "3"]);
    let imported = json_of(&dev, &["model", "import", &fixture("tiny-chat"), "--name", "tiny", "--json"]);
    declare(
        &dev,
        "tiny",
        &format!("{{ source: {{ blob: '{}' }}, priority: background }}", imported["digest"].as_str().unwrap()),
    );
    answers(&dev, "tiny");
    for voter in dev.info["nodes"].as_array().unwrap() {
        let asked = ["model", "status", "--json", "--admin", voter["admin"].as_str().unwrap(), "--admin-token"];
        let told = json_of(&dev, &[&asked[..], &[dev.info["admin_token"].as_str().unwrap()][..]].concat());
        let node = &told["nodes"][0];
        assert_eq!((&node["node"], &node["models"][0]["state"]), (&json!("dev"), &json!("ready")), "{told}");
        assert_eq!(node["models"][0]["priority"], "background", "{told}");
    }
    assert!(well(&dev, &["model", "pin", "tiny", "--node", "dev"]).contains("tiny on dev: ready, pinned"));
    refused(&dev, &["model", "unload", "tiny"], "PV-MODEL-PINNED");
    refused(&dev, &["model", "load", "other"], "PV-MODEL-NOT-FOUND");
}

#[test]
fn an_import_that_is_cut_off_leaves_no_model() {
    let dir = tempfile::tempdir().unwrap();
    let import = |limits: &str| {
        let script = format!("{limits} exec \"$0\" \"$@\"");
        let mut command = Command::new("sh");
        command.args(["-c", &script]).arg(binary("provost"));
        command.args(["model", "import", &fixture("tiny-chat"), "--name", "tiny", "--data-dir"]).arg(dir.path());
        command.output().unwrap()
    };
    let listed = || {
        let mut command = Command::new(binary("provost"));
        text(&command.args(["model", "list", "--store", "--data-dir"]).arg(dir.path()).output().unwrap())
    };
    // The system ends a process that writes a longer file; one that is spared this is refused the bytes.
    let cut_off = import("ulimit -c 0; ulimit -f 64;");
    assert!(!cut_off.status.success(), "{}", text(&cut_off));
    assert!(listed().contains("nothing was imported"), "{}", listed());
    assert!(!dir.path().join("models/blobs").exists());
    let whole = import("");
    assert!(whole.status.success(), "{}", text(&whole));
    assert!(listed().contains("tiny"), "{}", listed());
    assert_eq!(fs::read_dir(dir.path().join("models/staging")).unwrap().count(), 0);
}

#[test]
fn a_resource_goes_before_the_nodes_own_directory() {
    let models = models_dir();
    let dev = Dev::start(Some(YAML), &["--models", models.path().to_str().unwrap()]);
    answers(&dev, "tiny-chat");
    stands(&dev, "tiny-chat", &json!({ "declared": false, "architecture": "llama" }));
    declare(&dev, "tiny-chat", &format!("{{ source: {{ path: '{}' }} }}", fixture("tiny-qwen3")));
    stands(&dev, "tiny-chat", &json!({ "declared": true, "architecture": "qwen3" }));
    answers(&dev, "tiny-chat");
    well(&dev, &["delete", "Model", "tiny-chat"]);
    stands(&dev, "tiny-chat", &json!({ "declared": false, "architecture": "llama" }));
    answers(&dev, "tiny-chat");
}
