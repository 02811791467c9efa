//! One list of tools, hashed.

use std::{collections::HashMap, sync::Arc};

use provost_data_tools::{Definitions, definition_hash};

/// The tools of one list with their hashes.
#[derive(Debug)]
pub(crate) struct SeenTools {
    definitions: Definitions,
    hashes: HashMap<String, String>,
}

impl SeenTools {
    pub(crate) fn of(definitions: Definitions) -> Self {
        let hash = |d: &provost_data_tools::Definition| (d.name.clone(), definition_hash(&d.canonical()));
        let hashes = definitions.iter().map(hash).collect();
        Self { definitions, hashes }
    }

    /// Whether this is that very list.
    pub(crate) fn is(&self, definitions: &Definitions) -> bool {
        Arc::ptr_eq(&self.definitions, definitions)
    }

    pub(crate) fn definitions(&self) -> &Definitions {
        &self.definitions
    }

    pub(crate) fn hash(&self, tool: &str) -> Option<&str> {
        self.hashes.get(tool).map(String::as_str)
    }
}
