//! A guest in Python: an interpreter of eighteen megabytes, under the same contract and the same bounds.
//!
//! Its component is no part of the repository: `scripts/python_guest.sh` makes it, where `PROVOST_TEST_GUESTS` is set.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use provost_data_wasm::{
    ComponentDigest, ComponentSource, PluginAnswer, PluginError, PluginLimits, PluginSettings, WasmPlugin,
};
use provost_mcp::RawJson;
use serde_json::{Value, json};

use crate::world::{FakeHost, ask, call, engine_of, said};

const WITH_GUESTS: &str = "PROVOST_TEST_GUESTS";

/// The component; `None`: nobody wants it built.
fn component() -> Option<PathBuf> {
    std::env::var_os(WITH_GUESTS)?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/python_guest.sh");
    let made = Command::new(script).stdin(Stdio::null()).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    Some(PathBuf::from(String::from_utf8(made.stdout).unwrap().trim()))
}

fn plugin(path: PathBuf, limits: PluginLimits) -> WasmPlugin {
    let digest = ComponentDigest::of(&fs::read(&path).unwrap());
    let config = Some(RawJson::from(json!({ "digits": 1 })));
    let settings = PluginSettings { config, limits, ..PluginSettings::default() };
    WasmPlugin::new(engine_of(2), digest, ComponentSource::File(path), settings)
}

#[tokio::test]
async fn a_guest_in_python_lists_computes_keeps_and_fails_like_any_other() {
    let Some(path) = component() else {
        eprintln!("skipped: set {WITH_GUESTS}=1 where python3 has venv");
        return;
    };
    let stats = plugin(path.clone(), PluginLimits::default());
    let tools = stats.tools().await.unwrap();
    assert_eq!(tools.iter().map(|tool| tool.name.as_str()).collect::<Vec<_>>(), ["describe", "last"]);
    let definition: Value = tools[0].definition.parse().unwrap();
    assert_eq!(definition["inputSchema"]["properties"]["numbers"]["type"], "array", "{definition}");

    // It is configured, computes, and keeps what the host keeps for it.
    let host = FakeHost::new();
    let described = said(stats.call(&call("describe", r#"{"numbers":[1,2,2.5]}"#), host.clone()).await);
    let found: Value = serde_json::from_str(&described).unwrap();
    assert_eq!(found, json!({ "count": 3, "mean": 1.8, "median": 2, "deviation": 0.6 }));
    assert_eq!(said(stats.call(&call("last", "{}"), host).await), described);
    // With another host there is nothing: no instance keeps anything itself.
    let nothing = ask(&stats, "last", "{}").await.unwrap();
    assert!(matches!(&nothing, PluginAnswer::Complete { is_error: true, .. }), "{nothing:?}");

    assert_eq!(ask(&stats, "other", "{}").await, Err(PluginError::UnknownTool("other".to_owned())));
    let wrong = ask(&stats, "describe", "{}").await;
    assert!(matches!(&wrong, Err(PluginError::InvalidParams(why)) if why.contains("numbers")), "{wrong:?}");
    let short = PluginLimits { memory_bytes: 1 << 20, ..PluginLimits::default() };
    let refused = plugin(path, short).tools().await;
    assert!(refused.is_err(), "an interpreter does not fit into a mebibyte");
}
