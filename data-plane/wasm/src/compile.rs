//! From a component's bytes to machine code, once for this node.

use std::{sync::Arc, time::Instant};

use wasmtime::component::Component;

use crate::{ComponentDigest, ComponentSource, Engine, PluginError, cache::Entry};

impl Engine {
    /// The compiled component: in memory already, from the cache, or compiled now, one at a time. Other plugins share it
    /// for as long as somebody holds it.
    pub(crate) async fn component(
        self: &Arc<Self>,
        digest: ComponentDigest,
        source: &ComponentSource,
    ) -> Result<Arc<Component>, PluginError> {
        let engine = self.clone();
        if let Some(component) = on_a_thread(move || engine.kept(&digest)).await? {
            return Ok(component);
        }
        let turn = self.compiling.clone().acquire_owned().await;
        let turn = turn.map_err(|_| PluginError::Unavailable("the engine is closed".to_owned()))?;
        let (engine, source) = (self.clone(), source.clone());
        on_a_thread(move || {
            // Kept to the end of the work, even if nobody waits for it any more.
            let _turn = turn;
            // All of it there, at their priority.
            engine.compilers.install(|| {
                // Somebody may have compiled it while this one waited.
                engine.kept(&digest).map_or_else(|| engine.compile(digest, &source), Ok)
            })
        })
        .await?
    }

    fn entry(&self, digest: ComponentDigest) -> Entry {
        Entry { digest, compiler: self.compiler }
    }

    fn kept(&self, digest: &ComponentDigest) -> Option<Arc<Component>> {
        self.components.get(digest).or_else(|| {
            let component = self.cache.as_ref()?.load(&self.wasmtime, &self.entry(*digest))?;
            Some(self.components.put(*digest, component))
        })
    }

    /// Called on a thread of those that compile, which the compiler shares its work out among.
    fn compile(&self, digest: ComponentDigest, source: &ComponentSource) -> Result<Arc<Component>, PluginError> {
        let bytes = source.read(&digest)?;
        let began = Instant::now();
        let component = Component::from_binary(&self.wasmtime, &bytes);
        let component = component.map_err(|cause| PluginError::Component(format!("{cause:#}")))?;
        let took_ms = began.elapsed().as_millis();
        tracing::info!(?digest, took_ms, bytes = bytes.len(), "a plugin was compiled");
        if let Some(cache) = &self.cache {
            let kept = component
                .serialize()
                .map_err(|cause| format!("{cause:#}"))
                .and_then(|code| cache.store(&self.entry(digest), &code).map_err(|cause| cause.to_string()));
            if let Err(why) = kept {
                // It runs; only the next start is slower.
                tracing::warn!(?digest, why, "a compiled plugin cannot be kept");
            }
        }
        Ok(self.components.put(digest, component))
    }
}

async fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, PluginError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|cause| PluginError::Unavailable(format!("loading it did not end: {cause}")))
}
