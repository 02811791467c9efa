//! The models on disk, rescanned when asked but not too often.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use provost_gpu_infer::{InferError, ModelSource, discover};
use provost_types::ModelInfo;

use crate::config::AdapterModel;

/// A scan is believed for this long.
const RESCAN_AFTER: Duration = Duration::from_secs(3);

/// The models of one directory, and adapters over them.
#[derive(Debug)]
pub(crate) struct Catalogue {
    directory: Option<PathBuf>,
    adapters: BTreeMap<String, AdapterModel>,
    scan: Mutex<Scan>,
}

#[derive(Debug, Default)]
struct Scan {
    at: Option<Instant>,
    entries: BTreeMap<String, Arc<Entry>>,
}

/// One model on disk: described, or why it cannot be.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) source: Result<ModelSource, InferError>,
    fingerprint: Fingerprint,
}

/// Names, lengths and times of the files; equal means that nothing has changed.
type Fingerprint = Vec<(PathBuf, u64, Option<SystemTime>)>;

impl Catalogue {
    pub(crate) fn new(directory: Option<PathBuf>, adapters: BTreeMap<String, AdapterModel>) -> Self {
        Self { directory, adapters, scan: Mutex::new(Scan::default()) }
    }

    /// The models that can be used, in order of name.
    pub(crate) fn models(&self) -> Vec<ModelInfo> {
        let mut scan = self.scan.lock().unwrap_or_else(PoisonError::into_inner);
        self.refresh(&mut scan);
        scan.entries
            .values()
            .filter_map(|entry| entry.source.as_ref().ok())
            .map(|source| source.info().clone())
            .collect()
    }

    /// The same, each with the bytes of its weights.
    pub(crate) fn sizes(&self) -> Vec<(ModelInfo, u64)> {
        let mut scan = self.scan.lock().unwrap_or_else(PoisonError::into_inner);
        self.refresh(&mut scan);
        let sources = scan.entries.values().filter_map(|entry| entry.source.as_ref().ok());
        sources.map(|source| (source.info().clone(), source.weight_bytes())).collect()
    }

    /// The model of this name.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<Entry>> {
        let mut scan = self.scan.lock().unwrap_or_else(PoisonError::into_inner);
        self.refresh(&mut scan);
        scan.entries.get(name).cloned()
    }

    fn refresh(&self, scan: &mut Scan) {
        let Some(directory) = &self.directory else {
            return;
        };
        if scan.at.is_some_and(|at| at.elapsed() < RESCAN_AFTER) {
            return;
        }
        scan.at = Some(Instant::now());
        let found = match discover(directory) {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "the models directory cannot be read");
                Vec::new()
            }
        };
        let mut before = std::mem::take(&mut scan.entries);
        for (name, path) in found.into_iter().filter(|(name, _)| !self.adapters.contains_key(name)) {
            let fingerprint = fingerprint(&path);
            let entry = match before.remove(&name) {
                Some(entry) if entry.fingerprint == fingerprint => entry,
                _ => Arc::new(Entry::describe(&name, &path, fingerprint)),
            };
            scan.entries.insert(name, entry);
        }
        let mut adapted = Vec::with_capacity(self.adapters.len());
        for (name, adapter) in &self.adapters {
            let base = scan.entries.get(&adapter.base);
            let mut fingerprint = fingerprint(&adapter.path);
            fingerprint.extend(base.iter().flat_map(|base| base.fingerprint.iter().cloned()));
            let entry = match before.remove(name) {
                Some(entry) if entry.fingerprint == fingerprint => entry,
                _ => Arc::new(Entry::adapted(name, adapter, base, fingerprint)),
            };
            adapted.push((name.clone(), entry));
        }
        // Only now: an adapter is over a model, and not over another adapter.
        scan.entries.extend(adapted);
    }
}

impl Entry {
    fn describe(name: &str, path: &Path, fingerprint: Fingerprint) -> Self {
        Self::new(name, ModelSource::open(name, path), fingerprint)
    }

    fn adapted(name: &str, adapter: &AdapterModel, base: Option<&Arc<Self>>, fingerprint: Fingerprint) -> Self {
        let source = match base.map(|base| &base.source) {
            Some(Ok(base)) => base.adapted(name, &adapter.path),
            Some(Err(cause)) => Err(cause.clone()),
            None => Err(InferError::Unreadable {
                model: name.to_owned(),
                file: "base".to_owned(),
                cause: format!("the models directory has no model `{}`", adapter.base),
            }),
        };
        Self::new(name, source, fingerprint)
    }

    fn new(name: &str, source: Result<ModelSource, InferError>, fingerprint: Fingerprint) -> Self {
        match &source {
            Ok(source) => {
                let info = source.info();
                tracing::info!(
                    model = name,
                    architecture = info.architecture,
                    bytes = source.weight_bytes(),
                    "model found"
                );
            }
            Err(error) => tracing::warn!(model = name, %error, "model cannot be used"),
        }
        Self { name: name.to_owned(), source, fingerprint }
    }
}

fn fingerprint(path: &Path) -> Fingerprint {
    let mut files = vec![path.to_owned()];
    if let Ok(entries) = std::fs::read_dir(path) {
        files.extend(entries.flatten().map(|entry| entry.path()));
    } else {
        files.push(path.with_extension("tokenizer.json"));
    }
    files.sort();
    files
        .into_iter()
        .filter_map(|file| {
            let metadata = file.metadata().ok()?;
            let modified = metadata.modified().ok();
            Some((file, metadata.len(), modified))
        })
        .collect()
}
