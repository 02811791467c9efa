//! How a corpus stands, for metrics.

use super::service::Rag;

/// How a plugin of documents stands on this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CorpusView {
    /// Documents of the index, those that cannot be read too.
    pub documents: u64,
    /// Documents that cannot be read.
    pub failed: u64,
    /// Pieces that are searched.
    pub pieces: u64,
    /// Documents that wait to be read.
    pub pending: u64,
    /// When a look at the folder last ended well, Unix seconds; 0: never since the start.
    pub looked_s: u64,
    /// Looks at the folder since the start that did not end well.
    pub failures: u64,
}

/// One number of it.
pub struct CorpusMetric {
    /// The metric's name.
    pub name: &'static str,
    /// What it says.
    pub help: &'static str,
    /// Whether it only grows.
    pub is_counter: bool,
    /// Its value.
    pub value: fn(&CorpusView) -> u64,
}

/// All numbers, as metrics with the labels `tenant` and `plugin`.
pub const CORPUS_METRICS: [CorpusMetric; 6] = [
    CorpusMetric {
        name: "provost_rag_documents",
        help: "Documents in the index of a plugin of documents.",
        is_counter: false,
        value: |view| view.documents,
    },
    CorpusMetric {
        name: "provost_rag_documents_failed",
        help: "Documents that cannot be read; the tool `documents` says why.",
        is_counter: false,
        value: |view| view.failed,
    },
    CorpusMetric {
        name: "provost_rag_documents_pending",
        help: "Documents that wait to be read.",
        is_counter: false,
        value: |view| view.pending,
    },
    CorpusMetric {
        name: "provost_rag_pieces",
        help: "Pieces of documents that are searched.",
        is_counter: false,
        value: |view| view.pieces,
    },
    CorpusMetric {
        name: "provost_rag_last_index_timestamp_seconds",
        help: "When the folder was last looked at and the index held what it holds; 0 before that.",
        is_counter: false,
        value: |view| view.looked_s,
    },
    CorpusMetric {
        name: "provost_rag_failures_total",
        help: "Looks at the folder after which the index does not hold what it holds.",
        is_counter: true,
        value: |view| view.failures,
    },
];

impl Rag {
    /// How it stands.
    pub(crate) fn view(&self) -> CorpusView {
        let pieces = self.vectors.count() as u64;
        let standing = self.standing.lock();
        CorpusView {
            documents: standing.documents as u64,
            failed: standing.failed as u64,
            pieces,
            pending: standing.pending as u64,
            looked_s: standing.looked_s,
            failures: standing.failures,
        }
    }
}
