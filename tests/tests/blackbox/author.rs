//! The author's side of plugins: started, built, tested and signed, without a node.

use std::{
    ffi::OsStr,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;

use crate::harness::{binary, root, text};

/// Set where there is a compiler for guests, and what cargo fetches.
const WITH_GUESTS: &str = "PROVOST_TEST_GUESTS";

/// `provost plugin …`. Compiled components are kept for the next command, in a folder of this build.
fn plugin<A: AsRef<OsStr>>(args: &[A]) -> Output {
    Command::new(binary("provost"))
        .arg("plugin")
        .args(args)
        .env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"))
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn done<A: AsRef<OsStr>>(args: &[A]) -> String {
    let output = plugin(args);
    assert!(output.status.success(), "{}", text(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// What a refused command says; it ended with 1.
fn refused<A: AsRef<OsStr>>(args: &[A]) -> String {
    let output = plugin(args);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    text(&output)
}

fn example(path: &str) -> PathBuf {
    root().join("examples/plugins/rust-text").join(path)
}

/// A project whose component is there already.
fn ready_project(dir: &Path) -> PathBuf {
    let project = dir.join("text");
    fs::create_dir_all(project.join("tests")).unwrap();
    fs::copy(example("text.wasm"), project.join("made.wasm")).unwrap();
    fs::copy(example("README.md"), project.join("README.md")).unwrap();
    fs::copy(example("tests/cases.yaml"), project.join("tests/cases.yaml")).unwrap();
    let said = fs::read_to_string(example("plugin.yaml")).unwrap().replace("build: cargo", "component: made.wasm");
    fs::write(project.join("plugin.yaml"), said).unwrap();
    project
}

#[test]
fn a_project_is_started_whole_and_only_once() {
    let dir = tempfile::tempdir().unwrap();
    let project = dir.path().join("hello");
    let args = ["new".as_ref(), "hello".as_ref(), "--publisher".as_ref(), "acme".as_ref(), "--dir".as_ref()];
    let args: Vec<&OsStr> = args.into_iter().chain([project.as_os_str()]).collect();
    let said = done(&args);
    assert!(said.contains("provost plugin test"), "{said}");
    for file in [
        "Cargo.toml",
        "Cargo.lock",
        ".gitignore",
        "src/lib.rs",
        "tests/cases.yaml",
        "vendor/provost-plugin/Cargo.toml",
        "vendor/provost-plugin/src/lib.rs",
        "vendor/provost-plugin/wit/plugin.wit",
        "vendor/provost-plugin/LICENSE",
    ] {
        assert!(project.join(file).is_file(), "{file}");
    }
    let manifest = fs::read_to_string(project.join("plugin.yaml")).unwrap();
    assert!(manifest.contains("name: hello") && manifest.contains("publisher: acme"), "{manifest}");
    assert!(refused(&args).contains("PV-PLUGIN-NEW"), "a folder with files is left alone");
    // The cases of the template fit their form: they are read before the component is called.
    let component = example("text.wasm");
    let cases = example("tests/cases.yaml");
    let said = done(&[
        "test".as_ref(),
        project.as_os_str(),
        "--component".as_ref(),
        component.as_os_str(),
        "--cases".as_ref(),
        cases.as_os_str(),
    ]);
    assert!(said.contains("0 failed"), "{said}");
    let args = ["test".as_ref(), project.as_os_str(), "--component".as_ref(), component.as_os_str()];
    let said = refused(&args);
    assert!(said.contains("PV-TOOL-UNKNOWN") && said.contains("4 cases, 4 failed"), "{said}");
}

#[test]
fn what_cargo_needs_is_said_where_it_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let project = dir.path().join("hello");
    done(&["new".as_ref(), "hello".as_ref(), "--dir".as_ref(), project.as_os_str()]);
    let build = |path: &Path| {
        let mut command = Command::new(binary("provost"));
        command.args(["plugin", "build"]).arg(&project).env("PATH", path).env_remove("RUSTC").stdin(Stdio::null());
        text(&command.output().unwrap())
    };
    let nothing = dir.path().join("bin");
    fs::create_dir(&nothing).unwrap();
    let said = build(&nothing);
    assert!(said.contains("PV-PLUGIN-BUILD") && said.contains("https://rustup.rs"), "{said}");
    // A cargo that fails, and a compiler without the target.
    for program in ["cargo", "rustc"] {
        let path = nothing.join(program);
        let script = if program == "cargo" { "#!/bin/sh\nexit 101\n" } else { "#!/bin/sh\necho /nowhere\n" };
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let said = build(&nothing);
    assert!(said.contains("PV-PLUGIN-BUILD") && said.contains("rustup target add wasm32-unknown-unknown"), "{said}");
    fs::remove_file(project.join("Cargo.toml")).unwrap();
    assert!(build(&nothing).contains("Cargo.toml"));
}

#[test]
fn a_package_is_built_signed_and_tested_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let project = ready_project(dir.path());
    let key = dir.path().join("key.pem");
    let document = done(&[
        "keygen".as_ref(),
        key.as_os_str(),
        "--publisher".as_ref(),
        "provost".as_ref(),
        "--tenant".as_ref(),
        "acme".as_ref(),
    ]);
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    let pem = fs::read_to_string(&key).unwrap();
    let secret = pem.lines().nth(1).unwrap();
    let metadata = "kind: Publisher\nmetadata: { name: provost, tenant: acme }\n";
    assert!(document.contains(metadata) && !document.contains("Before it is applied"), "{document}");
    let other = dir.path().join("other.pem");
    let document_of_nobody = done(&["keygen".as_ref(), other.as_os_str()]);
    assert!(document_of_nobody.contains("# Before it is applied, the tenant"), "{document_of_nobody}");
    let public = document.split('\'').nth(1).unwrap().to_owned();
    assert!(public.starts_with("ed25519:"), "{document}");
    assert!(refused(&["keygen".as_ref(), key.as_os_str()]).contains("PV-PACKAGE-KEY"), "no key is written over");

    let said = done(&["build".as_ref(), project.as_os_str()]);
    assert!(said.contains("not signed") && said.contains("tools: count, slug, diff"), "{said}");
    assert!(said.contains("configuration: separator"), "{said}");
    let package = project.join("text-0.1.0.pvp");
    let args = ["sign".as_ref(), package.as_os_str(), "--key".as_ref(), key.as_os_str(), "--json".as_ref()];
    let signed: Value = serde_json::from_str(&done(&args)).unwrap();
    assert_eq!(signed["signedBy"], public.as_str(), "{signed}");
    // Built with a key it is the same, byte for byte.
    let again = dir.path().join("again.pvp");
    let built: Value = serde_json::from_str(&done(&[
        "build".as_ref(),
        project.as_os_str(),
        "--key".as_ref(),
        key.as_os_str(),
        "-o".as_ref(),
        again.as_os_str(),
        "--json".as_ref(),
    ]))
    .unwrap();
    assert_eq!(built["digest"], signed["digest"], "{built}");
    assert_eq!(built["configSchema"]["properties"]["separator"]["type"], "string", "{built}");
    assert_eq!(fs::read(&again).unwrap(), fs::read(&package).unwrap());
    for said in [&document, &built.to_string(), &signed.to_string()] {
        assert!(!said.contains(secret), "a private key was printed");
    }
    assert!(!String::from_utf8_lossy(&fs::read(&package).unwrap()).contains(secret));

    let said = done(&["test".as_ref(), package.as_os_str()]);
    assert!(said.contains("7 cases, 0 failed"), "{said}");
    let mut bytes = fs::read(&package).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&package, bytes).unwrap();
    assert!(refused(&["test".as_ref(), package.as_os_str()]).contains("PV-PACKAGE-DIGEST"));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(refused(&args[..4]).contains("chmod 600"), "a key that others can read is not used");
}

#[test]
fn cases_that_fail_say_why_and_wrong_ones_say_where() {
    let dir = tempfile::tempdir().unwrap();
    let project = ready_project(dir.path());
    let cases = project.join("tests/cases.yaml");
    fs::write(
        &cases,
        "cases:\n  - name: right\n    tool: slug\n    arguments: { text: A b }\n    expect: { text: a-b }\n\
         \x20 - name: wrong\n    tool: slug\n    arguments: { text: A b }\n    expect: { text: a_b }\n",
    )
    .unwrap();
    let said = refused(&["test".as_ref(), project.as_os_str()]);
    assert!(said.contains("expected `a_b`, and it is `a-b`") && said.contains("2 cases, 1 failed"), "{said}");
    let one = |name: &str| {
        let args = ["test".as_ref(), project.as_os_str(), "--case".as_ref(), OsStr::new(name), "--json".as_ref()];
        plugin(&args)
    };
    let output = one("right");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(output.status.success() && report["cases"].as_array().unwrap().len() == 1, "{report}");
    let output = one("other");
    assert!(text(&output).contains("PV-PLUGIN-CASES") && text(&output).contains("`right`"), "{}", text(&output));

    fs::write(&cases, "cases:\n  - name: a\n    tool: slug\n    expects: { text: a }\n").unwrap();
    let said = refused(&["test".as_ref(), project.as_os_str()]);
    assert!(said.contains("PV-PLUGIN-CASES") && said.contains("line 4") && said.contains("expects"), "{said}");
    assert!(refused(&["build".as_ref(), project.as_os_str()]).contains("PV-PLUGIN-CASES"), "and none are packed");

    let manifest = project.join("plugin.yaml");
    let said = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, said.replace("docs:", "doc:")).unwrap();
    let said = refused(&["build".as_ref(), project.as_os_str()]);
    assert!(said.contains("PV-PLUGIN-PROJECT") && said.contains("line 6"), "{said}");
    fs::write(project.join("made.wasm"), b"\0asm\x01\0\0\0").unwrap();
    fs::copy(example("plugin.yaml"), &manifest).unwrap();
    let component = project.join("made.wasm");
    let args = ["build".as_ref(), project.as_os_str(), "--component".as_ref(), component.as_os_str()];
    assert!(refused(&args).contains("PV-PLUGIN-IMPORTS"), "an empty module is no plugin");
    assert!(refused(&["build".as_ref(), dir.path().as_os_str()]).contains("PV-PLUGIN-PROJECT"));
}

/// Cases of the guest that does everything a plugin should not.
const BAD_GUEST: &str = r#"
cases:
  - name: a request is answered by its case
    tool: fetch
    arguments: { text: "https://api.example/a" }
    http: [{ request: { url: "https://api.example/a", headers: { Accept: "*/*" } }, response: { status: 201, body: hi } }]
    expect: { text: 201 hi }
  - name: a request can fail
    tool: fetch
    arguments: { text: "https://api.example/a", credential: key }
    http: [{ request: { url: "https://api.example/a", credential: key }, error: timeout }]
    expect: { contains: [Timeout] }
  - name: a crash
    tool: trap
    arguments: { text: by design }
    expect: { error: PV-PLUGIN-TRAP }
  - name: no end
    tool: loop
    deadlineMs: 300
    expect: { error: PV-PLUGIN-DEADLINE }
  - name: an answer that is too large
    tool: large
    arguments: { n: 5000000 }
    expect: { error: PV-PLUGIN-TOO-LARGE }
  - name: a log
    tool: flood
    arguments: { n: 2, text: line }
    expect: { text: done, log: [0 line, "info: 1 line"] }
"#;

#[test]
fn what_a_plugin_asks_for_is_answered_by_the_case_within_what_it_wants() {
    let dir = tempfile::tempdir().unwrap();
    let component = root().join("data-plane/wasm/tests/guests/hostile.wasm");
    let cases = dir.path().join("cases.yaml");
    fs::write(&cases, BAD_GUEST).unwrap();
    let args = ["test".as_ref(), component.as_os_str(), "--cases".as_ref(), cases.as_os_str()];
    let said = done(&args);
    assert!(said.contains("6 cases, 0 failed"), "{said}");
    let endless = "computeMs: 50\ncases:\n  - name: no end\n    tool: loop\n    expect: { error: PV-PLUGIN-COMPUTE }\n";
    fs::write(&cases, endless).unwrap();
    assert!(done(&args).contains("1 cases, 0 failed"), "a deadline of ten seconds is not what ends it");
    let asked = "cases:\n  - name: a\n    tool: fetch\n    arguments: { text: 'https://b.example/' }\n    expect: { contains: [''] }\n";
    fs::write(&cases, asked).unwrap();
    let said = refused(&args);
    assert!(said.contains("GET https://b.example/") && said.contains("is not in `http`"), "{said}");
    let declared = asked
        .replace("    expect", "    http: [{ request: { url: 'https://c.example/' }, error: denied }]\n    expect");
    fs::write(&cases, declared).unwrap();
    assert!(refused(&args).contains("GET https://c.example/ was not sent"));

    // Its own words do not act on the terminal.
    let loud = "cases:\n  - name: a\n    tool: flood\n    arguments: { n: 1, text: \"\\u001b[2J\" }\n    expect: { text: no }\n";
    fs::write(&cases, loud).unwrap();
    let said = refused(&args);
    assert!(said.contains("<U+001B>[2J") && !said.contains('\u{1b}'), "{said:?}");

    // As a project it gets what it says that it wants, and no more.
    let project = ready_project(dir.path());
    fs::copy(&component, project.join("made.wasm")).unwrap();
    let build = ["build".as_ref(), project.as_os_str()];
    let said = refused(&build);
    assert!(said.contains("PV-PLUGIN-IMPORTS") && said.contains("wants.hosts"), "{said}");
    let manifest = project.join("plugin.yaml");
    let wants = fs::read_to_string(&manifest).unwrap() + "wants: { hosts: [api.example] }\n";
    fs::write(&manifest, wants).unwrap();
    let said = done(&build);
    assert!(said.contains("tools: loop"), "{said}");
    let args = ["test".as_ref(), project.as_os_str(), "--cases".as_ref(), cases.as_os_str()];
    fs::write(&cases, asked).unwrap();
    let said = refused(&args);
    assert!(said.contains("`b.example`, which is not in `wants.hosts`"), "{said}");
}

#[test]
fn a_started_project_compiles_and_its_cases_pass() {
    if std::env::var_os(WITH_GUESTS).is_none() {
        println!("skipped: set {WITH_GUESTS}=1 where rustup has wasm32-unknown-unknown");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let project = dir.path().join("hello");
    done(&["new".as_ref(), "hello".as_ref(), "--dir".as_ref(), project.as_os_str()]);
    let said = done(&["test".as_ref(), project.as_os_str(), "--".as_ref(), "--locked".as_ref()]);
    assert!(said.contains("4 cases, 0 failed"), "{said}");
    let said = done(&["build".as_ref(), project.as_os_str()]);
    assert!(said.contains("tools: greet"), "{said}");
    let component = fs::read(project.join("hello-0.1.0.pvp")).unwrap();
    let home = std::env::var("HOME").unwrap_or_default();
    let folders = [dir.path().to_str().unwrap(), home.as_str()].into_iter().filter(|folder| folder.len() > 1);
    let component = String::from_utf8_lossy(&component).into_owned();
    for folder in folders {
        assert!(!component.contains(folder), "{folder} is in the component");
    }
    let mut cargo = Command::new("cargo");
    let tested = cargo.args(["test", "--locked"]).current_dir(&project).stdin(Stdio::null()).output().unwrap();
    assert!(tested.status.success(), "{}", text(&tested));
}

#[test]
fn a_plugin_in_python_is_built_and_its_cases_pass() {
    if std::env::var_os(WITH_GUESTS).is_none() {
        println!("skipped: set {WITH_GUESTS}=1 where python3 has venv");
        return;
    }
    let made = Command::new(root().join("scripts/python_guest.sh")).stdin(Stdio::null()).output().unwrap();
    assert!(made.status.success(), "{}", text(&made));
    let dir = tempfile::tempdir().unwrap();
    let project = dir.path().join("stats");
    crate::files::copy(&root().join("examples/plugins/python-stats"), &project);
    fs::copy(String::from_utf8(made.stdout).unwrap().trim(), project.join("stats.wasm")).unwrap();
    let said = done(&["test".as_ref(), project.as_os_str()]);
    assert!(said.contains("6 cases, 0 failed"), "{said}");
    let said = done(&["build".as_ref(), project.as_os_str()]);
    assert!(said.contains("tools: describe, last"), "{said}");
}
