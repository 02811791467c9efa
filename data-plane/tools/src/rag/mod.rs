//! Documents of a tenant as a source of tools: `search`, `documents`, `read`.
//!
//! Purpose: files of a folder of this node are read, cut into pieces, and found again by what they mean (vectors of the
//! cluster's own model) and by their words; an answer says where each piece stands.
//! - `folder`, `globs`: the files, and which of them are documents.
//! - `text`, `markdown`, `pdf`, `pdf_map`: a file as text with its parts. `chunk`: the pieces.
//! - `embed`: texts to vectors. `vectors`: which are near. `words`: a question for the index of words. `fusion`: both.
//! - `store`, `indexes`: the index on disk, and what all of a node share.
//! - `trouble`: an index that cannot be written or is damaged. `view`: numbers for metrics.
//! - `ingest`: keeps the index in step with the folder. `search`, `answer`, `service`: the tools.
//!
//! Invariants: a plugin sees the folder of its tenant and nothing beside it, and its index is its own; an index is made
//! of the files alone, so that nodes with the same files give the same answers, and it can be thrown away; a document
//! that cannot be read says why and stops no other; a caller's words reach the index as data.
//! Left out: how files come to the nodes; recognition of text in pictures; who may search what (policy: a document is
//! for all who may call the plugin).

mod answer;
mod chunk;
mod embed;
mod error;
mod folder;
mod fusion;
mod globs;
mod indexes;
mod ingest;
mod markdown;
mod pdf;
mod pdf_map;
mod search;
mod service;
mod store;
mod text;
mod trouble;
mod vectors;
mod view;
mod words;

use error::RagError;
pub(crate) use indexes::Indexes;
pub(crate) use service::Rag;
pub use view::{CORPUS_METRICS, CorpusMetric, CorpusView};
