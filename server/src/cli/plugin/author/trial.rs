//! The engine that nodes run, for a plugin that no node has.

use std::{io::IsTerminal, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use indicatif::ProgressBar;
use provost_data_wasm::{
    AotCache, CacheKey, ComponentDigest, ComponentSource, Engine, EngineConfig, PluginError, PluginSettings,
    PluginTool, WasmPlugin,
};
use provost_mcp::RawJson;

use crate::failure::Failure;

/// Instances at a time: one is loaded or called, and one may be within it.
const CONCURRENCY: u32 = 2;
/// How often a terminal sees that work goes on.
const TURN: Duration = Duration::from_millis(120);

/// An engine of this process. What it compiles is kept for the next one where that is possible: an interpreter takes
/// half a minute.
pub(super) fn engine() -> Result<Arc<Engine>, Failure> {
    let config = EngineConfig { concurrency: CONCURRENCY, cache: cache(), ..EngineConfig::default() };
    Engine::new(config).map_err(|error| refused(&error))
}

/// The user's own; without a home, or where it cannot be trusted, none.
fn cache() -> Option<AotCache> {
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let base = base.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    let folder = base.join("provost");
    std::fs::create_dir_all(&folder).ok()?;
    let key = CacheKey::in_file(&folder.join("trial-plugins.key")).ok()?;
    AotCache::open(folder.join("trial-plugins"), key).ok()
}

/// A component, as an installation with these settings would have it.
pub(super) fn plugin(engine: &Arc<Engine>, component: &Bytes, settings: PluginSettings) -> WasmPlugin {
    let source = ComponentSource::Bytes(component.clone());
    WasmPlugin::new(engine.clone(), ComponentDigest::of(component), source, settings)
}

/// Whether a node could use the component: its tools, and the schema of its configuration if it takes one.
pub(super) async fn check(
    component: &Bytes,
    settings: PluginSettings,
) -> Result<(Arc<[PluginTool]>, Option<RawJson>), Failure> {
    let plugin = plugin(&engine()?, component, settings);
    let tools = tools(&plugin).await.map_err(|error| refused(&error))?;
    let schema = plugin.config_schema().await.map_err(|error| refused(&error))?;
    Ok((tools, schema))
}

/// Its tools; the first time the component is compiled for it.
pub(super) async fn tools(plugin: &WasmPlugin) -> Result<Arc<[PluginTool]>, PluginError> {
    if plugin.tools_at_hand().is_some() || !std::io::stderr().is_terminal() {
        return plugin.tools().await;
    }
    let progress = ProgressBar::new_spinner().with_message("the component is compiled");
    progress.enable_steady_tick(TURN);
    let tools = plugin.tools().await;
    progress.finish_and_clear();
    tools
}

/// What is wrong with the component, with its code and what an author can do.
pub(super) fn refused(error: &PluginError) -> Failure {
    let hint = match error {
        PluginError::Imports(_) => {
            "build it for wasm32-unknown-unknown; a plugin that sends requests names hosts in `wants.hosts` of plugin.yaml"
        }
        PluginError::Compute(_) => "name more in `computeMs` of the cases, and of the Plugin that installs it",
        PluginError::Memory(_) => "name more in `memoryMib` of the cases, and of the Plugin that installs it",
        _ => "the error's page in docs/errors says more",
    };
    Failure::new(error.code(), message(error), hint)
}

/// The text of an error without its code.
pub(super) fn message(error: &PluginError) -> String {
    let text = error.to_string();
    text.strip_prefix(error.code()).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(&text).to_owned()
}
