//! What the indexes of a node share: where they lie, and their turns at the model.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use provost_types::Name;
use tokio::sync::Semaphore;

/// Where they lie below the data directory.
const FOLDER: &str = "corpora-index";
/// Requests of indexing to the model that run at once on a node: callers' requests come between them.
const TURNS: usize = 1;

/// All indexes of a node.
pub(crate) struct Indexes {
    pub(super) data_dir: PathBuf,
    pub(super) turns: Arc<Semaphore>,
    /// Those that were there at the last sweep.
    swept: Mutex<Option<BTreeSet<(Name, Name)>>>,
}

impl Indexes {
    pub(crate) fn new(data_dir: &Path) -> Self {
        Self { data_dir: data_dir.to_owned(), turns: Arc::new(Semaphore::new(TURNS)), swept: Mutex::default() }
    }

    /// The file of a plugin's index. Other settings have another file.
    pub(super) fn file(&self, tenant: &Name, plugin: &Name, settings: &str) -> PathBuf {
        self.data_dir.join(FOLDER).join(tenant.as_str()).join(plugin.as_str()).join(format!("{settings}.db"))
    }

    /// Removes the indexes of plugins that there are no more: by tenant and name, those that there are.
    pub(crate) fn sweep(&self, plugins: BTreeSet<(Name, Name)>) {
        let mut swept = self.swept.lock();
        if swept.as_ref() == Some(&plugins) {
            return;
        }
        for tenant in folders(&self.data_dir.join(FOLDER)) {
            for plugin in folders(&tenant) {
                let is_wanted = named(&tenant).zip(named(&plugin)).is_some_and(|key| plugins.contains(&key));
                if !is_wanted && let Err(cause) = fs::remove_dir_all(&plugin) {
                    tracing::warn!(%cause, index = %plugin.display(), "an index of documents cannot be removed");
                }
            }
            // Stays if there is something in it.
            let _ = fs::remove_dir(&tenant);
        }
        *swept = Some(plugins);
    }
}

fn folders(of: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(of).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

fn named(folder: &Path) -> Option<Name> {
    Name::new(folder.file_name()?.to_str()?).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_has_any_more_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let name = |text: &str| Name::new(text).unwrap();
        let indexes = Indexes::new(dir.path());
        let files = [("acme", "docs"), ("acme", "gone"), ("left", "docs")].map(|(tenant, plugin)| {
            let file = indexes.file(&name(tenant), &name(plugin), "s");
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, "x").unwrap();
            file
        });
        indexes.sweep([(name("acme"), name("docs"))].into());
        assert_eq!(files.map(|file| file.exists()), [true, false, false]);
        assert!(!dir.path().join(FOLDER).join("left").exists());
    }
}
