//! Cargo, run for a plugin's project.

use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use provost_package::MAX_PACKAGE_BYTES;
use serde_json::Value;

use super::files;
use crate::failure::Failure;

/// Not `wasm32-wasip2`: its standard library imports WASI.
const TARGET: &str = "wasm32-unknown-unknown";

/// Builds the project in `dir`; the core module of its `cdylib`. Cargo's own messages go to standard error.
pub(super) fn build(dir: &Path, more: &[String]) -> Result<Vec<u8>, Failure> {
    let manifest = dir.join("Cargo.toml");
    let dir = dir.canonicalize().ok().filter(|_| manifest.is_file());
    let Some(dir) = dir else {
        let text = format!("`build: cargo` needs {}, which is not there", manifest.display());
        return Err(failed(text, "put the Rust project beside plugin.yaml, or say `component: FILE` there"));
    };
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--release", "--target", TARGET, "--message-format", "json-render-diagnostics"]);
    if !std::io::stderr().is_terminal() {
        // What the compiler has to say is said all the same.
        cargo.arg("--quiet");
    }
    if let Some(flags) = place_flags(&dir) {
        cargo.arg("--config").arg(flags);
    }
    cargo.args(more).current_dir(&dir).stdin(Stdio::null()).stderr(Stdio::inherit());
    let done = cargo.output().map_err(|cause| {
        failed(
            format!("cargo cannot be run: {cause}"),
            "install Rust (https://rustup.rs), then: rustup target add wasm32-unknown-unknown",
        )
    })?;
    if !done.status.success() {
        return Err(why_not(&dir));
    }
    let said = String::from_utf8_lossy(&done.stdout);
    let module = said.lines().filter_map(|line| module_of(line, &dir)).next_back();
    let module = module.ok_or_else(|| {
        let text = "cargo built no module: the package has no library of type cdylib";
        failed(text.to_owned(), "write `crate-type = [\"cdylib\", \"rlib\"]` under [lib] in Cargo.toml")
    })?;
    files::read(&module, MAX_PACKAGE_BYTES)
}

fn failed(text: String, hint: &str) -> Failure {
    Failure::new("PV-PLUGIN-BUILD", text, hint)
}

/// Why cargo failed: what it said stands above, but for the one cause that it explains badly.
fn why_not(dir: &Path) -> Failure {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let asked = Command::new(rustc).args(["--print", "target-libdir", "--target", TARGET]).current_dir(dir).output();
    let has_target = asked
        .is_ok_and(|said| said.status.success() && Path::new(String::from_utf8_lossy(&said.stdout).trim()).is_dir());
    if has_target {
        return failed("cargo could not build the plugin".to_owned(), "correct what cargo says above");
    }
    let text = format!("the compiler has no standard library for {TARGET}");
    failed(text, "rustup target add wasm32-unknown-unknown")
}

/// Flags by which a component does not name the folders of whoever built it: panics name files of dependencies. As a
/// setting and not in RUSTFLAGS, so that the author's own flags stay.
fn place_flags(dir: &Path) -> Option<String> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")))?;
    let registry = home.join("registry").join("src");
    let flags = [(dir, "/plugin"), (registry.as_path(), "/registry")]
        .into_iter()
        .filter_map(|(from, to)| Some(format!("--remap-path-prefix={}={to}", from.to_str()?)))
        .map(toml::Value::String)
        .collect();
    Some(format!("target.{TARGET}.rustflags={}", toml::Value::Array(flags)))
}

/// The module that a line of cargo's messages says was made of the package in `dir`.
fn module_of(line: &str, dir: &Path) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(line).ok()?;
    let kinds = message["target"]["crate_types"].as_array()?;
    let is_library = message["reason"] == "compiler-artifact" && kinds.iter().any(|kind| kind == "cdylib");
    let package = Path::new(message["manifest_path"].as_str()?).parent()?.canonicalize().ok()?;
    if !is_library || package != dir {
        return None;
    }
    let mut files = message["filenames"].as_array()?.iter().filter_map(Value::as_str).map(PathBuf::from);
    files.find(|file| file.extension().is_some_and(|extension| extension == "wasm"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_module_is_the_one_of_the_project() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        let artefact = |manifest: &Path, kind: &str, files: &[&str]| {
            json!({
                "reason": "compiler-artifact", "manifest_path": manifest, "filenames": files,
                "target": { "crate_types": [kind] },
            })
            .to_string()
        };
        let manifest = dir.join("Cargo.toml");
        let made = artefact(&manifest, "cdylib", &["/t/a.rlib", "/t/a.wasm"]);
        assert_eq!(module_of(&made, &dir), Some(PathBuf::from("/t/a.wasm")));
        for other in [
            artefact(&manifest, "rlib", &["/t/a.wasm"]),
            artefact(&manifest, "cdylib", &["/t/a.rlib"]),
            artefact(&std::env::temp_dir().join("Cargo.toml"), "cdylib", &["/t/a.wasm"]),
            r#"{"reason":"build-finished","success":true}"#.to_owned(),
            "not JSON".to_owned(),
        ] {
            assert_eq!(module_of(&other, &dir), None, "{other}");
        }
    }

    #[test]
    fn a_folder_without_a_rust_project_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = build(dir.path(), &[]).unwrap_err();
        assert!(error.code == "PV-PLUGIN-BUILD" && error.message.contains("Cargo.toml"), "{error}");
    }

    #[test]
    fn flags_are_toml() {
        let flags = place_flags(Path::new("/a \"b\"")).unwrap();
        let table: toml::Table = flags.parse().unwrap();
        let flags = table["target"][TARGET]["rustflags"].as_array().unwrap();
        assert_eq!(flags[0].as_str(), Some("--remap-path-prefix=/a \"b\"=/plugin"));
    }
}
