//! What a document says of a plugin that answers out of documents.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Name;

/// Documents of a tenant, found by what they mean and by their words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RagPlugin {
    /// The folder that they lie in: its name below `corpora/TENANT` of the data directory, on every node that
    /// serves calls.
    pub folder: Name,
    /// The cluster's embedding model that turns texts into vectors.
    pub model: String,
    /// The pieces that they are cut into.
    #[serde(default, skip_serializing_if = "RagChunk::is_default")]
    pub chunk: RagChunk,
    /// Which files are documents, by their path in the folder: `*` stands for any part of a name, `**` for any
    /// folders (`guides/**/*.md`). Empty: all that end on `.md`, `.markdown`, `.txt`, `.text` or `.pdf`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub include: BTreeSet<String>,
    /// The most results of one search. 0: the default, 20.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub max_results: u32,
}

/// The size of the pieces of a document. Shorter ones are found more exactly, longer ones say more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct RagChunk {
    /// The most words of a piece, 20 to 1000. What is longer than the model reads gets the mean of its parts'
    /// vectors.
    pub words: u32,
    /// How many words of a piece its successor begins with; at most half of `words`. Not given: a fifth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overlap: Option<u32>,
}

impl Default for RagChunk {
    fn default() -> Self {
        Self { words: 160, overlap: None }
    }
}

impl RagChunk {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}
