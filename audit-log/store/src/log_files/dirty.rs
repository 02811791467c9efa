//! What is written and not durable yet.

use std::{path::PathBuf, sync::Arc};

use crate::disk::StoreFile;

/// What the next persist must make durable, and may then remove.
#[derive(Default)]
pub(crate) struct Dirty {
    pub files: Vec<Arc<StoreFile>>,
    pub dirs: Vec<PathBuf>,
    pub remove: Vec<PathBuf>,
}

impl Dirty {
    pub(crate) fn add(&mut self, file: &Arc<StoreFile>) {
        if !self.files.iter().any(|known| Arc::ptr_eq(known, file)) {
            self.files.push(file.clone());
        }
    }

    pub(crate) fn merge(&mut self, other: Dirty) {
        self.files.extend(other.files);
        self.remove.extend(other.remove);
        self.dirs.extend(other.dirs);
        self.dirs.sort();
        self.dirs.dedup();
    }
}
