//! Machine code is run only if this node made it.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use provost_data_wasm::{
    AotCache, CacheKey, ComponentDigest, ComponentSource, Engine, EngineConfig, PluginError, PluginSettings, WasmPlugin,
};
use tempfile::TempDir;

use crate::world::{TEXT, ask, said};

const KEY: [u8; 32] = [9; 32];

/// An engine that was just started over this folder.
fn engine(folder: &Path, key: [u8; 32]) -> Arc<Engine> {
    let cache = Some(AotCache::open(folder, CacheKey::new(key)).unwrap());
    Engine::new(EngineConfig { concurrency: 1, cache, ..EngineConfig::default() }).unwrap()
}

fn text_on(engine: &Arc<Engine>, source: ComponentSource) -> WasmPlugin {
    WasmPlugin::new(engine.clone(), ComponentDigest::of(TEXT), source, PluginSettings::default())
}

fn in_memory() -> ComponentSource {
    ComponentSource::Bytes(Bytes::from_static(TEXT))
}

/// With this nothing can be compiled: what loads was kept.
fn nowhere() -> ComponentSource {
    ComponentSource::File(PathBuf::from("/nonexistent/text.wasm"))
}

fn files(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// A folder with one compiled component, and its file.
async fn compiled() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let plugin = text_on(&engine(folder.path(), KEY), in_memory());
    assert_eq!(plugin.tools().await.unwrap().len(), 3);
    let kept = files(folder.path());
    assert_eq!(kept.len(), 1, "{kept:?}");
    (folder, kept.into_iter().next().unwrap())
}

fn is_refused(ended: Result<impl std::fmt::Debug, PluginError>) {
    assert!(matches!(ended, Err(PluginError::Unavailable(_))), "it was used: {ended:?}");
}

#[tokio::test]
async fn a_component_is_in_memory_once_while_a_plugin_holds_it() {
    let engine = Engine::new(EngineConfig { concurrency: 1, ..EngineConfig::default() }).unwrap();
    let first = text_on(&engine, in_memory());
    assert_eq!(first.tools().await.unwrap().len(), 3);
    let second = text_on(&engine, nowhere());
    assert_eq!(said(ask(&second, "slug", r#"{"text":"a b"}"#).await), "a-b", "it is the one that is there");
    drop(first);
    let third = text_on(&engine, nowhere());
    assert_eq!(third.tools().await.unwrap().len(), 3, "the second holds it");
    drop((second, third));
    is_refused(text_on(&engine, nowhere()).tools().await);
}

#[tokio::test]
async fn what_was_compiled_is_there_after_a_restart() {
    let (folder, file) = compiled().await;
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o400);
    let plugin = text_on(&engine(folder.path(), KEY), nowhere());
    assert_eq!(said(ask(&plugin, "slug", r#"{"text":"a b"}"#).await), "a-b");
}

#[tokio::test]
async fn what_was_changed_is_refused_removed_and_compiled_again() {
    let (folder, file) = compiled().await;
    let good = fs::read(&file).unwrap();
    let changed = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    let wrong = [
        changed(0),
        changed(good.len() / 3),
        changed(good.len() / 2),
        // The check itself.
        changed(good.len() - 1),
        good[..good.len() - 1].to_vec(),
        [&good[..], b"x"].concat(),
        Vec::new(),
        b"short".to_vec(),
    ];
    for bytes in wrong {
        // As somebody would who has the folder but not the key.
        fs::remove_file(&file).ok();
        fs::write(&file, &bytes).unwrap();
        is_refused(text_on(&engine(folder.path(), KEY), nowhere()).tools().await);
        assert!(!file.exists(), "what is not to be trusted stays");
    }
    let plugin = text_on(&engine(folder.path(), KEY), in_memory());
    assert_eq!(plugin.tools().await.unwrap().len(), 3);
    assert_eq!(files(folder.path()), std::slice::from_ref(&file), "it was not kept again");
    assert_eq!(text_on(&engine(folder.path(), KEY), nowhere()).tools().await.unwrap().len(), 3);
}

#[tokio::test]
async fn code_of_another_node_or_another_component_is_refused() {
    let (folder, file) = compiled().await;
    let good = fs::read(&file).unwrap();
    is_refused(text_on(&engine(folder.path(), [8; 32]), nowhere()).tools().await);
    // Whole, ours, and of another component.
    let other = ComponentDigest::of(b"another one");
    let name =
        file.file_name().unwrap().to_str().unwrap().replace(&ComponentDigest::of(TEXT).to_string(), &other.to_string());
    fs::write(folder.path().join(&name), &good).unwrap();
    let plugin = WasmPlugin::new(engine(folder.path(), KEY), other, nowhere(), PluginSettings::default());
    is_refused(plugin.tools().await);
}

#[tokio::test]
async fn two_that_want_the_same_component_at_once_both_get_it() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine(folder.path(), KEY);
    let (one, two) = (text_on(&engine, in_memory()), text_on(&engine, in_memory()));
    let (first, second) = tokio::join!(one.tools(), two.tools());
    assert_eq!(first.unwrap(), second.unwrap());
    assert_eq!(files(folder.path()).len(), 1);
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_costs_nothing_but_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cache");
    let engine = engine(&path, KEY);
    fs::remove_dir(&path).unwrap();
    assert_eq!(text_on(&engine, in_memory()).tools().await.unwrap().len(), 3);
}

#[tokio::test]
async fn what_is_not_installed_any_more_is_removed() {
    let (folder, file) = compiled().await;
    let path = folder.path();
    fs::write(path.join(".unfinished-0123456789abcdef"), b"half").unwrap();
    fs::write(path.join("what is this"), b"").unwrap();
    let cache = AotCache::open(path, CacheKey::new(KEY)).unwrap();
    assert_eq!(cache.retain(|digest| *digest == ComponentDigest::of(TEXT)).unwrap(), 2);
    assert_eq!(files(path), [file]);
    assert_eq!(cache.retain(|_| false).unwrap(), 1);
    assert!(files(path).is_empty());
}

#[test]
fn a_folder_that_others_write_to_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let open = |path: &Path| AotCache::open(path, CacheKey::of_this_process());
    let made = folder.path().join("a/b");
    open(&made).unwrap();
    assert_eq!(fs::metadata(&made).unwrap().permissions().mode() & 0o777, 0o700);
    fs::set_permissions(&made, Permissions::from_mode(0o770)).unwrap();
    let error = open(&made).unwrap_err().to_string();
    assert!(error.starts_with("PV-PLUGIN-CACHE: ") && error.contains("others may write"), "{error}");
    let file = folder.path().join("file");
    fs::write(&file, b"").unwrap();
    assert!(open(&file).is_err());
}

#[tokio::test]
async fn a_key_is_made_once_and_readable_for_one_user() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let (cache, one, two) = (folder.path().join("cache"), CacheKey::in_file(&path), CacheKey::in_file(&path));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o400);
    assert_eq!(fs::read(&path).unwrap().len(), 32);
    assert_eq!(format!("{:?}", one.as_ref().unwrap()), "CacheKey");
    for (key, source) in [(one, in_memory()), (two, nowhere())] {
        let cache = Some(AotCache::open(&cache, key.unwrap()).unwrap());
        let engine = Engine::new(EngineConfig { concurrency: 1, cache, ..EngineConfig::default() }).unwrap();
        assert_eq!(text_on(&engine, source).tools().await.unwrap().len(), 3);
    }
    let short = folder.path().join("short");
    fs::write(&short, b"0123").unwrap();
    assert!(CacheKey::in_file(&short).is_err());
}
