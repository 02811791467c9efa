//! The models that a node knows: those that are declared for all nodes, those of its own directory, which is rescanned
//! when asked but not too often, and adapters over either. One that is declared hides an adapter and one of the directory
//! with its name, and an adapter one of the directory.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use provost_gpu_infer::{InferError, ModelSource, discover};
use provost_types::{FileDigest, ModelFiles, ModelFormat, ModelInfo, ModelSpec};

use crate::config::AdapterModel;
use crate::copies::{Copies, CopyStands};
use crate::store::{ModelStore, Verified};

/// A scan is believed for this long.
const RESCAN_AFTER: Duration = Duration::from_secs(3);

/// The declared models by name.
pub(crate) type Declared = BTreeMap<String, Arc<ModelSpec>>;

/// The models of one node.
#[derive(Debug)]
pub(crate) struct Catalogue {
    directory: Option<PathBuf>,
    store: Option<ModelStore>,
    adapters: BTreeMap<String, AdapterModel>,
    copies: Arc<Copies>,
    scan: Mutex<Scan>,
}

#[derive(Debug, Default)]
struct Scan {
    at: Option<Instant>,
    entries: BTreeMap<String, Arc<Entry>>,
    declared: Declared,
    /// Somebody said what is declared, be it nothing.
    is_told: bool,
}

/// One model on disk: described, or why it cannot be.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) source: Result<ModelSource, InferError>,
    /// What was declared of its files; none: it is of the directory.
    wanted: Option<Wanted>,
    /// Its place in the store, if that is where it is.
    stored: Option<Verified>,
    /// What it is an adapter over; another one there makes it another model.
    base: Option<Arc<Self>>,
    fingerprint: Fingerprint,
}

/// Names, lengths and times of the files, or the inode of a stored model; equal means that nothing has changed.
type Fingerprint = Vec<(PathBuf, u64, Option<SystemTime>)>;

/// What a resource says of a model's files. Where all of it is as it was, the model is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    files: ModelFiles,
    format: Option<ModelFormat>,
    dtype: Option<String>,
}

impl Catalogue {
    pub(crate) fn new(
        directory: Option<PathBuf>,
        store: Option<ModelStore>,
        adapters: BTreeMap<String, AdapterModel>,
    ) -> Self {
        Self { directory, store, adapters, copies: Arc::default(), scan: Mutex::new(Scan::default()) }
    }

    /// Where imported models are.
    pub(crate) fn store(&self) -> Option<&ModelStore> {
        self.store.as_ref()
    }

    /// What is copied from other nodes.
    pub(crate) fn copies(&self) -> &Arc<Copies> {
        &self.copies
    }

    /// The declared models that are not in the store.
    pub(crate) fn lacking(&self) -> BTreeSet<FileDigest> {
        let Some(store) = &self.store else { return BTreeSet::new() };
        let declared: BTreeSet<FileDigest> = self.lock().declared.values().filter_map(|spec| blob_of(spec)).collect();
        declared.into_iter().filter(|digest| !store.has(*digest)).collect()
    }

    /// The declared models of this digest, by name.
    pub(crate) fn named(&self, digest: FileDigest) -> Vec<String> {
        let scan = self.lock();
        let are_it = scan.declared.iter().filter(|(_, spec)| blob_of(spec) == Some(digest));
        are_it.map(|(name, _)| name.clone()).collect()
    }

    /// What is known of the copy of a declared model.
    pub(crate) fn copy_of(&self, name: &str) -> Option<CopyStands> {
        let digest = blob_of(self.lock().declared.get(name)?)?;
        self.copies.of(digest)
    }

    /// What is on disk is looked at the next time that somebody asks, however soon that is.
    pub(crate) fn look_again(&self) {
        self.lock().at = None;
    }

    /// The models that can be used, in order of name.
    pub(crate) fn models(&self) -> Vec<ModelInfo> {
        self.sizes().into_iter().map(|(info, _)| info).collect()
    }

    /// The same, each with the bytes of its weights.
    pub(crate) fn sizes(&self) -> Vec<(ModelInfo, u64)> {
        let scan = self.fresh();
        let usable = scan.entries.values().filter_map(|entry| entry.source.as_ref().ok());
        let sized = |source: &ModelSource| {
            let mut info = source.info().clone();
            let declared = self.rules_in(&scan, &info.name).map_or(0, |spec| spec.context_tokens);
            if declared > 0 {
                info.context_tokens = info.context_tokens.min(declared);
            }
            (info, source.weight_bytes())
        };
        usable.map(sized).collect()
    }

    /// All models, those that cannot be used too, in order of name.
    pub(crate) fn entries(&self) -> Vec<Arc<Entry>> {
        self.fresh().entries.values().cloned().collect()
    }

    /// The model of this name.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<Entry>> {
        self.fresh().entries.get(name).cloned()
    }

    /// What was declared of the model of this name.
    pub(crate) fn declared(&self, name: &str) -> Option<Arc<ModelSpec>> {
        self.lock().declared.get(name).cloned()
    }

    /// What was declared of the model of this name, or of the one that it is an adapter over: who may see it, and how much
    /// of its context there is.
    pub(crate) fn rules_of(&self, name: &str) -> Option<Arc<ModelSpec>> {
        let scan = self.lock();
        self.rules_in(&scan, name).cloned()
    }

    /// Whether a model is there for a tenant.
    pub(crate) fn is_seen_by(&self, name: &str, tenant: &str) -> bool {
        self.rules_of(name).is_none_or(|spec| spec.is_seen_by(tenant))
    }

    /// The models that are there for some tenants only, with these.
    pub(crate) fn restricted(&self) -> BTreeMap<String, BTreeSet<String>> {
        let scan = self.fresh();
        let ruled = scan.entries.keys().filter_map(|name| Some((name, self.rules_in(&scan, name)?)));
        let some = ruled.filter(|(_, spec)| !spec.tenants.is_empty());
        some.map(|(name, spec)| (name.clone(), spec.tenants.iter().map(ToString::to_string).collect())).collect()
    }

    /// The model that this one is an adapter over. One that is declared is none.
    pub(crate) fn base_of(&self, name: &str) -> Option<String> {
        let adapter = self.adapters.get(name)?;
        (!self.lock().declared.contains_key(name)).then(|| adapter.base.clone())
    }

    /// The adapters, each with the model that it is over.
    pub(crate) fn bases(&self) -> BTreeMap<String, String> {
        let scan = self.lock();
        let adapters = self.adapters.iter().filter(|(name, _)| !scan.declared.contains_key(*name));
        adapters.map(|(name, adapter)| (name.clone(), adapter.base.clone())).collect()
    }

    fn rules_in<'a>(&self, scan: &'a Scan, name: &str) -> Option<&'a Arc<ModelSpec>> {
        let of_base = || scan.declared.get(&self.adapters.get(name)?.base);
        scan.declared.get(name).or_else(of_base)
    }

    /// The names of the models that are declared to stay in memory.
    pub(crate) fn pinned(&self) -> Vec<String> {
        let scan = self.lock();
        scan.declared.iter().filter(|(_, spec)| spec.pinned).map(|(name, _)| name.clone()).collect()
    }

    /// Replaces what is declared. False: it is as it was. Reads the headers of new models.
    pub(crate) fn declare(&self, declared: Declared) -> bool {
        let mut scan = self.lock();
        scan.is_told = true;
        if scan.declared == declared {
            return false;
        }
        scan.declared = declared;
        scan.at = None;
        self.refresh(&mut scan);
        true
    }

    /// Whether it was said what is declared.
    pub(crate) fn is_told(&self) -> bool {
        self.lock().is_told
    }

    fn fresh(&self) -> MutexGuard<'_, Scan> {
        let mut scan = self.lock();
        self.refresh(&mut scan);
        scan
    }

    fn lock(&self) -> MutexGuard<'_, Scan> {
        self.scan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refresh(&self, scan: &mut Scan) {
        if scan.at.is_some_and(|at| at.elapsed() < RESCAN_AFTER) {
            return;
        }
        scan.at = Some(Instant::now());
        let mut before = std::mem::take(&mut scan.entries);
        for (name, spec) in &scan.declared {
            let wanted = Wanted::of(spec);
            let (place, stored) = self.place_of(&wanted.files);
            let entry = place.map_or_else(
                || Entry::missing(name, "this node has no store of models", Some(wanted.clone())),
                |place| renewed(&mut before, name, &place, stored, Some(wanted.clone())),
            );
            scan.entries.insert(name.clone(), entry);
        }
        for (name, path) in self.discovered() {
            if scan.entries.contains_key(&name) || self.adapters.contains_key(&name) {
                continue;
            }
            let entry = renewed(&mut before, &name, &path, None, None);
            scan.entries.insert(name, entry);
        }
        let mut adapted = Vec::with_capacity(self.adapters.len());
        for (name, adapter) in self.adapters.iter().filter(|(name, _)| !scan.declared.contains_key(*name)) {
            let base = scan.entries.get(&adapter.base).cloned();
            let fingerprint = fingerprint(&adapter.path);
            let is_over = |entry: &Entry| match (&entry.base, &base) {
                (Some(one), Some(other)) => Arc::ptr_eq(one, other),
                (None, None) => true,
                _ => false,
            };
            let entry = match before.remove(name) {
                Some(entry) if entry.fingerprint == fingerprint && entry.wanted.is_none() && is_over(&entry) => entry,
                _ => Entry::adapted(name, adapter, base, fingerprint),
            };
            adapted.push((name.clone(), entry));
        }
        // Only now: an adapter is over a model, and not over another adapter.
        scan.entries.extend(adapted);
    }

    fn discovered(&self) -> Vec<(String, PathBuf)> {
        let Some(directory) = &self.directory else {
            return Vec::new();
        };
        discover(directory).unwrap_or_else(|error| {
            tracing::warn!(%error, "the models directory cannot be read");
            Vec::new()
        })
    }

    /// Where declared files are, and what they are to be.
    fn place_of(&self, files: &ModelFiles) -> (Option<PathBuf>, Option<FileDigest>) {
        match files {
            ModelFiles::Path(path) => (Some(PathBuf::from(path)), None),
            ModelFiles::Blob(digest) => (self.store.as_ref().map(|store| store.place_of(*digest)), Some(*digest)),
        }
    }
}

impl Wanted {
    fn of(spec: &ModelSpec) -> Self {
        Self { files: spec.source.clone(), format: spec.format, dtype: spec.dtype.clone() }
    }

    /// Whether the files are what was declared of them.
    fn check(&self, source: &ModelSource) -> Result<(), InferError> {
        let differs = |cause: String| InferError::Differs { model: source.info().name.clone(), cause };
        if let Some(format) = self.format.filter(|format| *format != source.format()) {
            let (is, wanted) = (source.format().as_str(), format.as_str());
            return Err(differs(format!("its files are {is}, and `format` says {wanted}")));
        }
        if let Some(dtype) = self.dtype.as_ref().filter(|dtype| !dtype.eq_ignore_ascii_case(source.dtype())) {
            let is = source.dtype();
            return Err(differs(format!("its weights are stored as {is}, and `dtype` says {dtype}")));
        }
        Ok(())
    }
}

/// The entry as it was before, if nothing has changed, else a new one.
fn renewed(
    before: &mut BTreeMap<String, Arc<Entry>>,
    name: &str,
    path: &Path,
    stored: Option<FileDigest>,
    wanted: Option<Wanted>,
) -> Arc<Entry> {
    let fingerprint = match stored {
        Some(_) => of_stored(path),
        None => fingerprint(path),
    };
    match before.remove(name) {
        Some(entry) if entry.fingerprint == fingerprint && entry.wanted == wanted && entry.base.is_none() => entry,
        _ if wanted.is_some() && !path.exists() => {
            let cause = match stored {
                Some(digest) => format!("the store of this node does not have {digest}"),
                None => "there is nothing at its path".to_owned(),
            };
            Entry::missing(name, &cause, wanted)
        }
        _ => Entry::describe(name, path, stored, wanted, fingerprint),
    }
}

impl Entry {
    /// The digest under which it is stored.
    pub(crate) fn digest(&self) -> Option<FileDigest> {
        self.stored.as_ref().map(Verified::digest)
    }

    /// The same, or that of the one that it is an adapter over.
    pub(crate) fn digest_of_weights(&self) -> Option<FileDigest> {
        self.digest().or_else(|| self.base.as_ref()?.digest())
    }

    /// Whether a resource declares it.
    pub(crate) fn is_declared(&self) -> bool {
        self.wanted.is_some()
    }

    /// Checks that a stored model, or the one that it is an adapter over, is what its digest says. May read all files.
    pub(crate) fn check(&self) -> Result<(), InferError> {
        self.stored.as_ref().map_or(Ok(()), |stored| stored.check(&self.name))?;
        self.base.as_ref().map_or(Ok(()), |base| base.check())
    }

    /// Checks that what was read since the last check is what was checked.
    pub(crate) fn check_same(&self) -> Result<(), InferError> {
        self.stored.as_ref().map_or(Ok(()), |stored| stored.check_same(&self.name))?;
        self.base.as_ref().map_or(Ok(()), |base| base.check_same())
    }

    fn missing(name: &str, cause: &str, wanted: Option<Wanted>) -> Arc<Self> {
        let missing = InferError::Missing { model: name.to_owned(), cause: cause.to_owned() };
        Arc::new(Self {
            name: name.to_owned(),
            source: Err(missing),
            wanted,
            stored: None,
            base: None,
            fingerprint: Fingerprint::new(),
        })
    }

    fn describe(
        name: &str,
        path: &Path,
        stored: Option<FileDigest>,
        wanted: Option<Wanted>,
        fingerprint: Fingerprint,
    ) -> Arc<Self> {
        let opened = ModelSource::open(name, path);
        let source = opened.and_then(|source| match &wanted {
            Some(wanted) => wanted.check(&source).map(|()| source),
            None => Ok(source),
        });
        let stored = stored.map(|digest| Verified::new(path.to_owned(), digest));
        Arc::new(Self { wanted, stored, ..Self::new(name, source, fingerprint) })
    }

    fn adapted(name: &str, adapter: &AdapterModel, base: Option<Arc<Self>>, fingerprint: Fingerprint) -> Arc<Self> {
        let source = match base.as_ref().map(|base| &base.source) {
            Some(Ok(base)) => base.adapted(name, &adapter.path),
            Some(Err(cause)) => Err(cause.clone()),
            None => Err(InferError::Unreadable {
                model: name.to_owned(),
                file: "base".to_owned(),
                cause: format!("there is no model `{}`, neither declared nor in the models directory", adapter.base),
            }),
        };
        Arc::new(Self { base, ..Self::new(name, source, fingerprint) })
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
        Self { name: name.to_owned(), source, wanted: None, stored: None, base: None, fingerprint }
    }
}

/// The digest that a model is declared by.
fn blob_of(spec: &ModelSpec) -> Option<FileDigest> {
    match spec.source {
        ModelFiles::Blob(digest) => Some(digest),
        ModelFiles::Path(_) => None,
    }
}

/// Stored files are not changed, and checked before they are read: only another copy in their place is news.
fn of_stored(place: &Path) -> Fingerprint {
    place.metadata().map(|facts| vec![(place.to_owned(), facts.ino(), None)]).unwrap_or_default()
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn fixtures() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../infer/tests/fixtures")
    }

    fn declared(models: &[(&str, &str)]) -> Declared {
        let spec = |text: &str| Arc::new(serde_json::from_str(text).unwrap());
        models.iter().map(|(name, text)| ((*name).to_owned(), spec(text))).collect()
    }

    fn at(path: &Path, more: &str) -> String {
        format!(r#"{{"source":{{"path":{}}}{more}}}"#, serde_json::to_string(path).unwrap())
    }

    fn failure(catalogue: &Catalogue, name: &str) -> String {
        catalogue.find(name).unwrap().source.as_ref().unwrap_err().to_string()
    }

    #[test]
    fn what_is_declared_is_there_and_hides_the_directory() {
        let catalogue = Catalogue::new(Some(fixtures()), None, BTreeMap::new());
        let own = catalogue.find("tiny-chat").unwrap();
        assert!(!own.is_declared());
        let qwen = at(&fixtures().join("tiny-qwen3"), r#","contextTokens":9"#);
        assert!(catalogue.declare(declared(&[("tiny-chat", &qwen), ("second", &qwen)])));
        let found = catalogue.find("tiny-chat").unwrap();
        assert_eq!(found.source.as_ref().unwrap().info().architecture, "qwen3");
        let context = |name: &str| catalogue.models().iter().find(|m| m.name == name).map(|m| m.context_tokens);
        assert_eq!((context("second"), context("tiny-qwen3").map(|tokens| tokens > 9)), (Some(9), Some(true)));
        // What is about the use of a model and not its files leaves it as it is.
        let other = at(&fixtures().join("tiny-qwen3"), r#","priority":"critical","pinned":true"#);
        assert!(catalogue.declare(declared(&[("tiny-chat", &other)])));
        assert!(Arc::ptr_eq(&found, &catalogue.find("tiny-chat").unwrap()));
        assert_eq!(catalogue.pinned(), ["tiny-chat"]);
        assert!(catalogue.find("second").is_none());
        assert!(!catalogue.declare(declared(&[("tiny-chat", &other)])), "nothing has changed");
        catalogue.declare(Declared::new());
        assert_eq!(catalogue.find("tiny-chat").unwrap().source.as_ref().unwrap().info().architecture, "llama");
    }

    #[test]
    fn what_is_not_there_or_otherwise_than_declared_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let store = ModelStore::of_data_dir(dir.path());
        let digest = store.import(&fixtures().join("tiny-chat"), "tiny").unwrap().manifest.digest;
        let catalogue = Catalogue::new(None, Some(store), BTreeMap::new());
        let blob = |digest: &str, more: &str| format!(r#"{{"source":{{"blob":"{digest}"}}{more}}}"#);
        let absent = format!("sha256:{}", "1".repeat(64));
        catalogue.declare(declared(&[
            ("good", &blob(&digest.to_string(), r#","format":"safetensors","dtype":"f32""#)),
            ("absent", &blob(&absent, "")),
            ("nowhere", &at(&dir.path().join("nowhere"), "")),
            ("format", &blob(&digest.to_string(), r#","format":"gguf""#)),
            ("dtype", &blob(&digest.to_string(), r#","dtype":"bf16""#)),
        ]));
        let good = catalogue.find("good").unwrap();
        assert_eq!(good.digest(), Some(digest));
        good.check().unwrap();
        assert!(failure(&catalogue, "absent").starts_with("PV-MODEL-MISSING"));
        assert!(failure(&catalogue, "absent").contains(&absent));
        assert!(failure(&catalogue, "nowhere").starts_with("PV-MODEL-MISSING"));
        assert!(failure(&catalogue, "format").starts_with("PV-MODEL-DIFFERS"));
        assert!(failure(&catalogue, "dtype").contains("stored as f32"));
        let names: Vec<String> = catalogue.models().into_iter().map(|model| model.name).collect();
        assert_eq!(names, ["good"]);
        // A node without a store says so.
        let other = Catalogue::new(None, None, BTreeMap::new());
        other.declare(declared(&[("good", &blob(&digest.to_string(), ""))]));
        assert!(failure(&other, "good").starts_with("PV-MODEL-MISSING"));
    }
}
