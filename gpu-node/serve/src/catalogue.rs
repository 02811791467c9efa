//! The models that a node knows: those that are declared for all nodes, those of its own directory, which is rescanned
//! when asked but not too often, and adapters over either. One that is declared hides an adapter and one of the directory
//! with its name, and an adapter one of the directory.
//!
//! Headers of files are read beside the catalogue, by one thread at a time, and what was read takes the place of what was known:
//! others go on with that meanwhile. Only who has to see what changed on disk waits.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
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
    /// Held by whoever reads the disk, or changes what is declared. Never taken by who holds `scan`.
    reading: Mutex<()>,
}

/// The models by name.
type Entries = BTreeMap<String, Arc<Entry>>;

#[derive(Debug, Default)]
struct Scan {
    /// When the disk was last read to the end; none: never.
    at: Option<Instant>,
    entries: Entries,
    /// How often it was said that there is something new on disk, and how often that had been when what `entries` holds was read.
    news: u64,
    seen: u64,
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
        Self { directory, store, adapters, copies: Arc::default(), scan: Mutex::default(), reading: Mutex::default() }
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
        self.lock().news += 1;
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

    /// Replaces what is declared. False: it is as it was. Reads the headers of new models; until it has, there are those of before,
    /// by the new rules, but for those that these are not of: they are not found meanwhile.
    pub(crate) fn declare(&self, declared: Declared) -> bool {
        let reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let hidden = {
            let mut scan = self.lock();
            if scan.declared == declared { None } else { Some(scan.redeclare(declared)) }
        };
        let is_new = hidden.is_some();
        if let Some(hidden) = hidden {
            self.read(&reading, hidden);
        }
        self.lock().is_told = true;
        is_new
    }

    /// Whether it was said what is declared.
    pub(crate) fn is_told(&self) -> bool {
        self.lock().is_told
    }

    /// What is on disk, as it was a moment ago at the earliest.
    fn fresh(&self) -> MutexGuard<'_, Scan> {
        let scan = self.lock();
        if scan.is_fresh() {
            return scan;
        }
        let must_see = scan.must_be_read();
        drop(scan);
        let reading = match self.reading.try_lock() {
            Ok(reading) => reading,
            Err(TryLockError::Poisoned(reading)) => reading.into_inner(),
            Err(TryLockError::WouldBlock) if must_see => self.reading.lock().unwrap_or_else(PoisonError::into_inner),
            // Somebody reads it already.
            Err(TryLockError::WouldBlock) => return self.lock(),
        };
        if !self.lock().is_fresh() {
            self.read(&reading, Entries::new());
        }
        self.lock()
    }

    /// Reads the disk, and puts what was read in the place of what was known and of what is `hidden`. Takes long where there are
    /// new models.
    fn read(&self, _: &MutexGuard<'_, ()>, hidden: Entries) {
        let (news, declared, mut before) = {
            let scan = self.lock();
            (scan.news, scan.declared.clone(), scan.entries.clone())
        };
        before.extend(hidden);
        let entries = self.look(&declared, before);
        let gone = {
            let mut scan = self.lock();
            (scan.at, scan.seen) = (Some(Instant::now()), news);
            std::mem::replace(&mut scan.entries, entries)
        };
        drop(gone);
    }

    fn lock(&self) -> MutexGuard<'_, Scan> {
        self.scan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The models, of which those that are as they were before are the same.
    fn look(&self, declared: &Declared, mut before: Entries) -> Entries {
        let mut entries = Entries::new();
        for (name, spec) in declared {
            let wanted = Wanted::of(spec);
            let (place, stored) = self.place_of(&wanted.files);
            let entry = place.map_or_else(
                || Entry::missing(name, "this node has no store of models", Some(wanted.clone())),
                |place| renewed(&mut before, name, &place, stored, Some(wanted.clone())),
            );
            entries.insert(name.clone(), entry);
        }
        for (name, path) in self.discovered() {
            if entries.contains_key(&name) || self.adapters.contains_key(&name) {
                continue;
            }
            let entry = renewed(&mut before, &name, &path, None, None);
            entries.insert(name, entry);
        }
        let mut adapted = Vec::with_capacity(self.adapters.len());
        for (name, adapter) in self.adapters.iter().filter(|(name, _)| !declared.contains_key(*name)) {
            let base = entries.get(&adapter.base).cloned();
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
        entries.extend(adapted);
        entries
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

impl Scan {
    /// Replaces what is declared. Takes out, and gives back, what the new rules of its name are not of: declared models that are
    /// not declared any more or are others now, those that more tenants may see than before, and adapters over any of these,
    /// or with a name that is declared now.
    fn redeclare(&mut self, declared: Declared) -> Entries {
        let before = std::mem::replace(&mut self.declared, declared);
        let declared = &self.declared;
        let is_other = |entry: &Entry| match (before.get(&entry.name), declared.get(&entry.name)) {
            (Some(was), Some(now)) => was.source != now.source || is_seen_by_more(was, now),
            (Some(_), None) => true,
            (None, now) => now.is_some() && entry.base.is_some(),
        };
        let is_hidden = |entry: &Entry| is_other(entry) || entry.base.as_ref().is_some_and(|base| is_other(base));
        let all = std::mem::take(&mut self.entries);
        let (hidden, entries): (Entries, Entries) = all.into_iter().partition(|(_, entry)| is_hidden(entry));
        self.entries = entries;
        hidden
    }

    fn is_fresh(&self) -> bool {
        !self.must_be_read() && self.at.is_some_and(|at| at.elapsed() < RESCAN_AFTER)
    }

    /// What is known is not what whoever asks has to see: nothing was ever read, or there is something new.
    fn must_be_read(&self) -> bool {
        self.at.is_none() || self.seen < self.news
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
    before: &mut Entries,
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

/// Whether there are tenants that see a model `now` and did not see it as it `was` declared.
fn is_seen_by_more(was: &ModelSpec, now: &ModelSpec) -> bool {
    !was.tenants.is_empty() && (now.tenants.is_empty() || !now.tenants.is_subset(&was.tenants))
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
