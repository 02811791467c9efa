//! Which components become plugins.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use provost_data_wasm::{
    ComponentDigest, ComponentSource, Grants, PluginError, PluginLimits, PluginSettings, WasmPlugin,
};
use provost_mcp::RawJson;
use serde_json::json;

use crate::world::{HOSTILE, TEXT, ask, engine_of, hostile_settings, plugin_of, said};

/// Components begin so.
const PREAMBLE: [u8; 8] = [0, b'a', b's', b'm', 0x0d, 0, 1, 0];

/// A component that imports an instance of this name and is empty otherwise.
fn importing(name: &str) -> Vec<u8> {
    let length = u8::try_from(name.len()).unwrap();
    let mut component = PREAMBLE.to_vec();
    // The type of an instance without members; the import of one.
    component.extend([0x07, 3, 1, 0x42, 0]);
    component.extend([0x0a, length + 5, 1, 0, length]);
    component.extend(name.bytes());
    component.extend([0x05, 0]);
    component
}

async fn refused(component: Vec<u8>, settings: PluginSettings) -> PluginError {
    let digest = ComponentDigest::of(&component);
    let plugin = WasmPlugin::new(engine_of(1), digest, ComponentSource::Bytes(Bytes::from(component)), settings);
    plugin.tools().await.expect_err("it is no plugin")
}

#[tokio::test]
async fn what_is_no_component_is_refused() {
    let core_module = [&PREAMBLE[..4], &[1, 0, 0, 0]].concat();
    for component in [Vec::new(), b"hello".to_vec(), core_module, [&TEXT[..1000]].concat()] {
        let error = refused(component, PluginSettings::default()).await;
        assert!(matches!(error, PluginError::Component(_)), "{error}");
    }
    let error = refused(PREAMBLE.to_vec(), PluginSettings::default()).await;
    assert!(matches!(&error, PluginError::Imports(why) if why.contains("provost:plugin/tools@0.1.0")), "{error}");
}

#[tokio::test]
async fn who_imports_more_than_there_is_is_refused_by_name() {
    let table = [
        ("wasi:cli/environment@0.2.0", "there is no WASI"),
        ("wasi:sockets/tcp@0.2.0", "there is no WASI"),
        ("provost:plugin/host@9.0.0", "provost:plugin/host@9.0.0"),
        ("acme:tools/shell@1.0.0", "acme:tools/shell@1.0.0"),
    ];
    for (name, why) in table {
        let error = refused(importing(name), PluginSettings::default()).await;
        assert!(matches!(&error, PluginError::Imports(text) if text.contains(why)), "{name}: {error}");
    }
}

#[tokio::test]
async fn egress_is_there_only_where_it_is_granted() {
    let without = plugin_of(&engine_of(1), HOSTILE, PluginSettings::default());
    let error = without.tools().await.unwrap_err();
    assert_eq!(error.code(), "PV-PLUGIN-IMPORTS");
    assert!(error.to_string().contains("grants no egress"), "{error}");
    let granted = PluginSettings { grants: Grants { http: true }, ..PluginSettings::default() };
    plugin_of(&engine_of(1), HOSTILE, granted).tools().await.unwrap();
    // Who does not want it, does not need it.
    plugin_of(&engine_of(1), TEXT, PluginSettings::default()).tools().await.unwrap();
}

#[tokio::test]
async fn bytes_of_another_component_are_refused() {
    let digest = ComponentDigest::of(b"another one");
    let source = ComponentSource::Bytes(Bytes::from_static(TEXT));
    let plugin = WasmPlugin::new(engine_of(1), digest, source, PluginSettings::default());
    let error = plugin.tools().await.unwrap_err();
    assert!(matches!(&error, PluginError::Component(why) if why.contains(&digest.to_string())), "{error}");
}

#[tokio::test]
async fn a_component_in_a_file_is_read_when_it_is_needed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("text.wasm");
    // Nobody compiled this one before: its bytes are its own.
    let mut component = TEXT.to_vec();
    component.extend([0, 3, 1, b'x', b'y']);
    let source = ComponentSource::File(path.clone());
    let plugin = WasmPlugin::new(cacheless(), ComponentDigest::of(&component), source, PluginSettings::default());
    let missing = plugin.tools().await.unwrap_err();
    assert!(matches!(missing, PluginError::Unavailable(_)), "{missing}");
    // That could go away, and did.
    std::fs::write(&path, &component).unwrap();
    assert_eq!(plugin.tools().await.unwrap().len(), 3);
}

fn cacheless() -> Arc<provost_data_wasm::Engine> {
    provost_data_wasm::Engine::new(provost_data_wasm::EngineConfig {
        concurrency: 1,
        ..provost_data_wasm::EngineConfig::default()
    })
    .unwrap()
}

#[tokio::test]
async fn a_configuration_that_is_refused_crashes_or_does_not_end_loads_nothing() {
    let with = |config: serde_json::Value| {
        let config = Some(RawJson::from(config));
        plugin_of(&engine_of(2), HOSTILE, PluginSettings { config, ..hostile_settings(|_| {}) })
    };
    let refused = with(json!({"refuse": true}));
    for _ in 0..2 {
        // The second time it is remembered.
        assert_eq!(refused.tools().await, Err(PluginError::Config("it says `refuse`".to_owned())));
        assert_eq!(ask(&refused, "fine", "{}").await.unwrap_err().code(), "PV-PLUGIN-CONFIG");
    }
    let crashed = with(json!({"trap": true})).tools().await;
    assert!(matches!(crashed, Err(PluginError::Trap(_))), "{crashed:?}");
    let looping = with(json!({"loop": true}));
    let call = crate::world::call_in(Duration::from_millis(200), "fine", "{}");
    let ended = looping.call(&call, crate::world::FakeHost::new()).await;
    assert_eq!(ended, Err(PluginError::Deadline));
}

#[tokio::test]
async fn a_bound_beyond_the_engines_is_the_engines() {
    let config = provost_data_wasm::EngineConfig {
        concurrency: 1,
        max_memory_bytes: 4 << 20,
        cache: Some(crate::world::shared_cache()),
        ..provost_data_wasm::EngineConfig::default()
    };
    let engine = provost_data_wasm::Engine::new(config).unwrap();
    let plugin = plugin_of(&engine, HOSTILE, hostile_settings(|limits| limits.memory_bytes = usize::MAX));
    assert_eq!(ask(&plugin, "alloc", "{}").await, Err(PluginError::Memory(4 << 20)));
    let none = PluginLimits { concurrency: 0, ..PluginLimits::default() };
    let plugin = plugin_of(&engine, TEXT, PluginSettings { limits: none, ..PluginSettings::default() });
    assert_eq!(said(ask(&plugin, "slug", r#"{"text":"a b"}"#).await), "a-b");
}

/// How fast is measured by `benches/call.rs`.
#[tokio::test]
async fn many_installed_plugins_load_when_they_are_used_and_without_compiling() {
    let engine = engine_of(8);
    plugin_of(&engine, TEXT, PluginSettings::default()).tools().await.unwrap();
    // Nothing could be compiled of this.
    let nowhere = || ComponentSource::File("/nonexistent/text.wasm".into());
    let plugin = || WasmPlugin::new(engine.clone(), ComponentDigest::of(TEXT), nowhere(), PluginSettings::default());
    let plugins: Vec<_> = (0..1000).map(|_| plugin()).collect();
    assert!(plugins.iter().all(|plugin| plugin.tools_at_hand().is_none()));
    for plugin in plugins.iter().step_by(10) {
        assert_eq!(plugin.tools().await.unwrap().len(), 3);
    }
    assert_eq!(plugins.iter().filter(|plugin| plugin.tools_at_hand().is_some()).count(), 100);
}
