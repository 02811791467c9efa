//! What can go wrong with documents, for the caller to act on.

/// A failure of a plugin of documents. Messages name documents, and hold nothing of their text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RagError {
    /// The tool's arguments are wrong.
    #[error("PV-RAG-ARGUMENTS: {0}")]
    Arguments(String),
    /// There is no such document, or it could not be read.
    #[error("PV-RAG-DOCUMENT: {0}")]
    Document(String),
    /// The folder is not there.
    #[error("PV-RAG-CORPUS: {0}; put the documents there on every node that serves calls")]
    Corpus(String),
    /// There are no vectors without the model.
    #[error("PV-RAG-MODEL: {0}; until there is one no document is read, and `mode: keyword` finds in those that were")]
    Model(String),
    /// The index of this node is damaged, or of another version.
    #[error("PV-RAG-INDEX: {0}; the index is made again")]
    Damaged(String),
    /// The index of this node cannot be read or written.
    #[error("PV-RAG-INDEX: {0}; see the node's disk")]
    Index(String),
}

/// SQLite's result codes of a file that is damaged (`SQLITE_CORRUPT`), and of one that is no database (`SQLITE_NOTADB`).
const DAMAGED: [i32; 2] = [11, 26];
/// An extended result code of SQLite has the plain one in these bits.
const PLAIN_CODE: i32 = 0xff;

/// Whether the file itself is the trouble, and not the disk, a lock or a statement.
fn is_damage(cause: &dyn sqlx::error::DatabaseError) -> bool {
    let code = cause.code().and_then(|code| code.parse::<i32>().ok());
    code.is_some_and(|code| DAMAGED.contains(&(code & PLAIN_CODE)))
}

impl RagError {
    /// Whether it is the index that refuses.
    pub(super) fn is_of_index(&self) -> bool {
        matches!(self, Self::Index(_) | Self::Damaged(_))
    }
}

impl From<sqlx::Error> for RagError {
    fn from(cause: sqlx::Error) -> Self {
        // The database's words speak of statements and files, never of what is in them.
        Self::Index(match cause {
            sqlx::Error::Database(cause) if is_damage(&*cause) => {
                return Self::Damaged(format!("the index cannot be used: {}", cause.message()));
            }
            sqlx::Error::Database(cause) => format!("the index cannot be used: {}", cause.message()),
            sqlx::Error::PoolTimedOut => "the index is busy".to_owned(),
            sqlx::Error::Io(cause) => format!("the index is out of reach: {}", cause.kind()),
            _ => "the index cannot be used".to_owned(),
        })
    }
}
