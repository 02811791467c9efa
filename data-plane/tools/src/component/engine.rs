//! The one engine of a node, made when the first component needs it: it reserves address space and a thread.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use provost_data_wasm::{AotCache, CacheKey, Engine, EngineConfig};

use super::files::PackageFiles;
use crate::UpstreamError;

/// Where components lie below the data directory.
const COMPONENTS: &str = "plugins";
/// Where packages are kept that were fetched.
const PACKAGES: &str = "plugins/packages";
/// Where their machine code is kept, and the key that this node knows its own by.
const COMPILED: &str = "plugins-compiled";
const KEY: &str = "keys/plugins-compiled.key";

pub(crate) struct Engines {
    data_dir: PathBuf,
    engine: OnceLock<Result<Arc<Engine>, UpstreamError>>,
}

impl Engines {
    pub(crate) fn new(data_dir: &Path) -> Self {
        Self { data_dir: data_dir.to_owned(), engine: OnceLock::new() }
    }

    /// The file of a component; `name` is a name and no path.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.data_dir.join(COMPONENTS).join(name)
    }

    /// The packages of this node.
    pub(crate) fn packages(&self) -> PackageFiles {
        PackageFiles::new(&self.data_dir.join(PACKAGES))
    }

    pub(crate) fn get(&self) -> Result<Arc<Engine>, UpstreamError> {
        self.engine.get_or_init(|| self.make().map_err(UpstreamError::Config)).clone()
    }

    fn make(&self) -> Result<Arc<Engine>, String> {
        let key = CacheKey::in_file(&self.data_dir.join(KEY)).map_err(|cause| cause.to_string())?;
        let cache = AotCache::open(self.data_dir.join(COMPILED), key).map_err(|cause| cause.to_string())?;
        Engine::new(EngineConfig { cache: Some(cache), ..EngineConfig::default() }).map_err(|cause| cause.to_string())
    }
}
