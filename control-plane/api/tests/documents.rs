//! Documents in, every problem out: code, field, file and line.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::file;
use provost_control_api::{SourceFile, read_documents};
use provost_control_state::Draft;
use provost_types::{Kind, Spec};
use provost_wire::admin::Problem;

fn parsed(files: &[SourceFile]) -> Result<Vec<Draft>, Vec<Problem>> {
    let documents = read_documents(files);
    if documents.unread.problems.is_empty() { Ok(documents.drafts) } else { Err(documents.unread.problems) }
}

/// `file:line code field` of each problem.
fn problems(files: &[(&str, &str)]) -> Vec<String> {
    let files: Vec<_> = files.iter().map(|(path, text)| file(path, text)).collect();
    match parsed(&files) {
        Ok(drafts) => panic!("{} drafts, no problem", drafts.len()),
        Err(problems) => problems.iter().map(|p| format!("{}:{} {} {}", p.file, p.line, p.code, p.field)).collect(),
    }
}

fn check(text: &str, expect: &[&str]) {
    assert_eq!(problems(&[("a.yaml", text)]), expect, "{text}");
}

const HEAD: &str = "apiVersion: provost/v1\nkind: Role\nmetadata: {name: r, tenant: acme}\n";

#[test]
fn each_mistake_is_found_at_its_place() {
    check(&format!("{HEAD}extra: 1\n"), &["a.yaml:4 PV-DOC-UNKNOWN extra"]);
    check(&format!("{HEAD}spec:\n  descripton: x\n"), &["a.yaml:5 PV-DOC-UNKNOWN spec.descripton"]);
    check(&format!("{HEAD}spec:\n  description: [1]\n"), &["a.yaml:5 PV-DOC-VALUE spec.description"]);
    check(&format!("{HEAD}spec:\n  rules:\n    - tools: sql\n"), &["a.yaml:6 PV-DOC-VALUE spec.rules[0].tools"]);
    check(
        &format!("{HEAD}spec:\n  rules:\n    - {{}}\n    - tool: []\n"),
        &["a.yaml:7 PV-DOC-UNKNOWN spec.rules[1].tool"],
    );
    check("kind: Role\nmetadata: {name: r, tenant: acme}\n", &["a.yaml:1 PV-DOC-VERSION apiVersion"]);
    check(
        "apiVersion: provost/v2\nkind: Role\nmetadata: {name: r, tenant: a}\n",
        &["a.yaml:1 PV-DOC-VERSION apiVersion"],
    );
    check("apiVersion: provost/v1\nkind: Rol\nmetadata: {name: r, tenant: a}\n", &["a.yaml:2 PV-DOC-KIND kind"]);
    check(
        "apiVersion: provost/v1\nkind: Role\nmetadata:\n  name: Bad Name\n  tenant: acme\n",
        &["a.yaml:4 PV-DOC-VALUE metadata.name"],
    );
    check("apiVersion: provost/v1\nkind: Role\nmetadata:\n  name: r\n", &["a.yaml:3 PV-DOC-TENANT metadata.tenant"]);
    check(
        "apiVersion: provost/v1\nkind: Tenant\nmetadata:\n  name: r\n  tenant: acme\n",
        &["a.yaml:5 PV-DOC-TENANT metadata.tenant"],
    );
    check("apiVersion: provost/v1\nkind: Role\n", &["a.yaml:1 PV-DOC-MISSING metadata"]);
    check(
        "apiVersion: provost/v1\nkind: Policy\nmetadata: {name: p, tenant: acme}\nspec:\n  mode: enforce\n",
        &["a.yaml:4 PV-DOC-MISSING spec.cedar"],
    );
    check(
        "apiVersion: provost/v1\nkind: Plugin\nmetadata: {name: p, tenant: acme}\nspec:\n  source:\n    mcp-htpp: {url: x}\n",
        &["a.yaml:6 PV-DOC-VALUE spec.source.mcp-htpp"],
    );
    check(
        "apiVersion: provost/v1\nkind: Secret\nmetadata: {name: s, tenant: acme}\nspec:\n  sealed: {version: 1, keyTerm: 1, ciphertext: AA}\n",
        &["a.yaml:5 PV-DOC-SEALED spec.sealed"],
    );
    check("just text\n", &["a.yaml:1 PV-DOC-SHAPE "]);
}

#[test]
fn all_mistakes_of_all_documents_and_files_come_at_once() {
    let first = format!(
        "{HEAD}spec:\n  wrong: 1\n  description: {{}}\n  rules:\n    - tools: [1, ok, {{}}]\n      mdels: []\n---\n{HEAD}spec: {{}}\n---\napiVersion: provost/v1\nkind: Nope\nmetadata: {{name: UP}}\n"
    );
    let second = "a: [\n";
    assert_eq!(
        problems(&[("a.yaml", &first), ("b.yaml", second), ("c.yaml", &format!("{HEAD}spec: {{}}\n"))]),
        [
            "a.yaml:5 PV-DOC-UNKNOWN spec.wrong",
            "a.yaml:6 PV-DOC-VALUE spec.description",
            "a.yaml:8 PV-DOC-VALUE spec.rules[0].tools[0]",
            "a.yaml:8 PV-DOC-VALUE spec.rules[0].tools[2]",
            "a.yaml:9 PV-DOC-UNKNOWN spec.rules[0].mdels",
            "a.yaml:17 PV-DOC-KIND kind",
            "a.yaml:18 PV-DOC-VALUE metadata.name",
            "b.yaml:1 PV-DOC-SYNTAX ",
            "c.yaml:1 PV-DOC-DUPLICATE ",
        ]
    );
}

/// A path repeats its beginning for every field below: long keys and long lists must not multiply.
#[test]
fn long_paths_are_not_kept_and_problems_below_have_the_place_around() {
    let long = "k".repeat(60_000);
    let items = "0,".repeat(20_000);
    let text = format!("{HEAD}spec:\n  bogus: 1\n  ? {long}\n  : [{items}0]\n");
    let found = problems(&[("a.yaml", &text)]);
    let short: Vec<&str> = found.iter().map(|problem| &problem[..problem.len().min(34)]).collect();
    assert_eq!(short, ["a.yaml:4 PV-DOC-UNKNOWN spec.kkkkk", "a.yaml:5 PV-DOC-UNKNOWN spec.bogus"]);
}

#[test]
fn yaml_and_json_give_the_same_drafts() {
    let yaml = format!("# a comment\n{HEAD}spec:\n  rules:\n    - tools: ['sql.*']\n---\n---\n");
    let json = r#"{
        "apiVersion": "provost/v1", "kind": "Role",
        "metadata": {"name": "r", "tenant": "acme"},
        "spec": {"rules": [{"tools": ["sql.*"]}]}
    }"#;
    let list = format!("[{json}]");
    let read = |text: &str| {
        let drafts = parsed(&[file("a", text)]).unwrap();
        assert_eq!(drafts.len(), 1);
        drafts[0].clone()
    };
    assert_eq!(read(&yaml), read(json));
    assert_eq!(read(&yaml), read(&list));
    assert!(matches!(read(json).spec, Spec::Role(_)));
}

#[test]
fn every_kind_can_be_written() {
    let spec = |kind: Kind| match kind {
        Kind::ApiKey => "{principal: ann, hash: abc}",
        Kind::RoleBinding => "{role: r, principals: [ann], expires: '2027-01-01T00:00:00Z'}",
        Kind::Policy => "{cedar: 'permit(principal, action, resource);', mode: observe}",
        Kind::Plugin => "{source: {mcp-stdio: {command: npx, secretEnv: {T: {secret: s}}}}, timeoutMs: 5}",
        Kind::Quota => "{limit: 5, unit: cost-micro, window: month}",
        Kind::NodeGroup => "{nodes: ['canary-*'], holdS: 5}",
        Kind::Price => "{currency: EUR, models: ['*'], perMillionOutputTokensMicro: 500000}",
        Kind::Guard => "{rules: [{kinds: [card, secrets], action: mask}], paths: [{path: $.a, action: block}]}",
        Kind::IdentityProvider => "{issuer: 'https://id.example.com', scopes: {tools.use: [r]}}",
        Kind::Model => "{source: {path: /models/tiny}, priority: critical, tenants: [acme]}",
        Kind::Publisher => "{keys: ['ed25519:0000000000000000000000000000000000000000000000000000000000000000']}",
        Kind::ToolAlias => {
            "{targets: [{tool: a.b, weight: 9}, {tool: c.d}], deprecated: {until: '2027-01-01T00:00:00Z'}}"
        }
        _ => "{}",
    };
    for kind in Kind::ALL.into_iter().filter(|kind| !kind.is_governance()) {
        let tenant = if kind.is_tenanted() { ", tenant: acme" } else { "" };
        let text = format!(
            "apiVersion: provost/v1\nkind: {kind}\nmetadata: {{name: x{tenant}, labels: {{a: b}}}}\nspec: {}\n",
            spec(kind)
        );
        let drafts = parsed(&[file("a", &text)]).unwrap_or_else(|p| panic!("{kind}: {p:?}"));
        assert_eq!(drafts[0].spec.kind(), kind);
    }
}

#[test]
fn a_duplicate_key_is_a_syntax_error_with_its_line() {
    let found = problems(&[("a.yaml", &format!("{HEAD}metadata: {{name: x}}\n"))]);
    assert_eq!(found, ["a.yaml:4 PV-DOC-SYNTAX "]);
}

#[test]
fn many_documents_are_read_and_too_many_are_said_to_be() {
    let many = |count: usize| {
        let document = |n: usize| format!("---\n{{apiVersion: provost/v1, kind: Tenant, metadata: {{name: t{n}}}}}\n");
        (0..count).map(document).collect::<String>()
    };
    assert_eq!(parsed(&[file("a.yaml", &many(1_100))]).unwrap().len(), 1_100);
    let problems = parsed(&[file("small.yaml", &many(1)), file("large.yaml", &many(10_001))]).unwrap_err();
    let [problem] = problems.as_slice() else { panic!("{problems:?}") };
    assert_eq!((problem.file.as_str(), problem.code.as_str()), ("large.yaml", "PV-DOC-SIZE"));
    assert!(problem.message.contains("10000 documents") && problem.hint.contains("in parts"), "{problem:?}");
    let long = format!("# {}\n", "x".repeat(8 << 20));
    let problems = parsed(&[file("small.yaml", &many(1)), file("long.yaml", &long)]).unwrap_err();
    assert_eq!((problems[0].file.as_str(), problems[0].code.as_str()), ("long.yaml", "PV-DOC-SIZE"));
}

/// On a stack as small as a node's tasks have.
#[test]
fn deep_documents_are_refused_and_end_nothing() {
    let nested = |levels: usize| format!("{HEAD}spec: {}{}\n", "{a: ".repeat(levels), "}".repeat(levels));
    for (levels, expect) in [(60, "a.yaml:4 PV-DOC-UNKNOWN spec.a"), (80, "PV-DOC-SYNTAX"), (100_000, "PV-DOC-SYNTAX")]
    {
        let text = nested(levels);
        let read = std::thread::Builder::new().stack_size(2 << 20).spawn(move || problems(&[("a.yaml", &text)]));
        let found = read.unwrap().join().unwrap();
        assert!(found.len() == 1 && found[0].contains(expect), "{levels}: {found:?}");
    }
}

#[test]
fn explain_and_schema_know_every_kind() {
    for kind in Kind::ALL {
        let explained = provost_control_api::explain(kind.as_str()).unwrap();
        assert!(!explained.doc.is_empty(), "{kind} has no doc");
        for field in &explained.fields {
            assert!(!field.doc.is_empty() || field.path.contains(".*"), "{kind}: {} has no doc", field.path);
        }
        assert!(explained.fields.iter().any(|f| f.path == "metadata.name" && f.required));
    }
    let source = provost_control_api::explain("plugins.source.mcp-http").unwrap();
    let url = source.fields.iter().find(|f| f.path == "spec.source.mcp-http.url").unwrap();
    assert_eq!((url.type_name.as_str(), url.required), ("string", true));
    // Each word is named, whether it has a comment of its own or not.
    for (field, words) in [
        ("Quota.window", "minute | hour | day | month | second"),
        ("Quota.unit", "calls | tokens | cost-micro | concurrent"),
        ("Policy.mode", "enforce | observe"),
    ] {
        let explained = provost_control_api::explain(field).unwrap();
        assert_eq!(explained.fields[0].type_name, words, "{field}");
    }
    assert_eq!(provost_control_api::explain("Role.nope").unwrap_err().code(), "PV-CTL-EXPLAIN");
    let schema = provost_control_api::schema();
    let written = Kind::ALL.into_iter().filter(|kind| !kind.is_governance()).count();
    assert_eq!(schema["oneOf"].as_array().unwrap().len(), written);
}

#[test]
fn a_number_that_does_not_fit_is_refused_in_words() {
    for (limit, found) in [("-3", "integer `-3`"), ("'many'", "string \"many\""), ("1.5", "floating point `1.5`")] {
        let text = format!(
            "apiVersion: provost/v1\nkind: Quota\nmetadata: {{name: q, tenant: acme}}\nspec: {{limit: {limit}, unit: calls, window: day}}\n"
        );
        let problems = parsed(&[file("a.yaml", &text)]).unwrap_err();
        let message = &problems[0].message;
        assert!(message.contains(found) && message.ends_with("expected a whole number, 0 or more"), "{message}");
    }
}
