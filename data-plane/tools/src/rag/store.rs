//! The index of one corpus on this node: one SQLite file.
//!
//! Invariants: a document is in it whole or not at all, with its pieces, their words and their vectors; everything in
//! it can be made again from the files, so that a file that SQLite calls damaged, or of another version, is thrown away:
//! not one that cannot be opened or written now. After a crash the last documents may be missing, and are read again.

mod rows;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::TryStreamExt as _;
use sqlx::{
    ConnectOptions as _, Row as _, SqliteConnection, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

pub(super) use self::rows::{Document, Passage};
use self::rows::{document, integer, passage};
use super::{RagError, chunk::Chunk, vectors::Segment};

/// Connections: searches that run at once, beside the one that writes.
const MAX_CONNECTIONS: u32 = 4;
/// A change waits at its beginning for the one before.
const WRITE: &str = "BEGIN IMMEDIATE";
/// How long one waits for another.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Ids are never given twice: a search that runs may know those of what went. Words are those of Unicode, without
/// accents, by their English stem: the same for documents and questions. The text itself is in `chunks`.
const SCHEMA: [&str; 5] = [
    "CREATE TABLE IF NOT EXISTS about (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT",
    "CREATE TABLE IF NOT EXISTS documents (
        id INTEGER PRIMARY KEY AUTOINCREMENT, path TEXT NOT NULL UNIQUE, bytes INTEGER NOT NULL,
        modified_ns INTEGER NOT NULL, digest TEXT NOT NULL, title TEXT NOT NULL, pages INTEGER NOT NULL,
        chunks INTEGER NOT NULL, failure TEXT, text TEXT NOT NULL) STRICT",
    "CREATE TABLE IF NOT EXISTS chunks (
        id INTEGER PRIMARY KEY AUTOINCREMENT, document INTEGER NOT NULL, place INTEGER NOT NULL, headings TEXT NOT NULL,
        page INTEGER, first_line INTEGER NOT NULL, last_line INTEGER NOT NULL, text TEXT NOT NULL,
        vector BLOB NOT NULL) STRICT",
    "CREATE INDEX IF NOT EXISTS chunks_of ON chunks (document, place)",
    "CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5(
        headings, text, content='', contentless_delete=1, tokenize='porter unicode61 remove_diacritics 2')",
];

/// The version of what `SCHEMA` makes. 0 is noted in files from before there were versions, which are the same.
const VERSION: i64 = 1;
const SET_VERSION: &str = "PRAGMA user_version = 1";

/// An open index.
#[derive(Clone)]
pub(super) struct Store {
    pool: SqlitePool,
}

impl Store {
    /// Opens the file, or begins one. Needs a runtime.
    pub(super) async fn open(path: &Path) -> Result<Self, RagError> {
        let folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
        // What documents say is for the node alone.
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .map_err(|cause| RagError::Index(format!("the folder of indexes cannot be made: {}", cause.kind())))?;
        match Self::try_open(path).await {
            Err(cause @ RagError::Damaged(_)) => {
                tracing::warn!(%cause, index = %path.display(), "an index of documents cannot be used and is made again");
                remove(path);
                Self::try_open(path).await
            }
            opened => opened,
        }
    }

    async fn try_open(path: &Path) -> Result<Self, RagError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(BUSY_TIMEOUT)
            .pragma("trusted_schema", "OFF")
            .pragma("secure_delete", "ON")
            .disable_statement_logging();
        let pool = SqlitePoolOptions::new()
            .max_connections(MAX_CONNECTIONS)
            .acquire_timeout(BUSY_TIMEOUT)
            .connect_with(options)
            .await?;
        let store = Self { pool };
        match store.prepare().await {
            Ok(()) => Ok(store),
            Err(cause) => {
                store.close().await;
                Err(cause)
            }
        }
    }

    async fn prepare(&self) -> Result<(), RagError> {
        // Together: whoever opens it at the same time finds all of it or nothing.
        let mut change = self.pool.begin_with(WRITE).await?;
        let row = sqlx::query("PRAGMA user_version").fetch_one(&mut *change).await?;
        let version: i64 = row.try_get(0)?;
        if !(0..=VERSION).contains(&version) {
            return Err(RagError::Damaged(format!("the index is of version {version}, and {VERSION} is used")));
        }
        for statement in SCHEMA {
            sqlx::query(statement).execute(&mut *change).await?;
        }
        // Not again: a disk that is full keeps nobody from reading.
        if version != VERSION {
            sqlx::query(SET_VERSION).execute(&mut *change).await?;
        }
        change.commit().await?;
        // What a damaged file would say later, it says here.
        let counts =
            "SELECT (SELECT count(*) FROM chunks), (SELECT count(*) FROM documents), (SELECT count(*) FROM about)";
        sqlx::query(counts).fetch_one(&self.pool).await?;
        Ok(())
    }

    /// Runs a statement, to bring the index into a state.
    #[cfg(test)]
    pub(super) async fn run(&self, statement: &'static str) -> Result<(), RagError> {
        sqlx::query(statement).execute(&self.pool).await?;
        Ok(())
    }

    /// Closes the file. Before it is removed to be made again: whoever closes last removes what lies beside it, by name.
    pub(super) async fn close(&self) {
        self.pool.close().await;
    }

    /// Empties the index unless its vectors are of this model; whether it was another's.
    pub(super) async fn belongs_to(&self, model: &str) -> Result<bool, RagError> {
        let row = sqlx::query("SELECT value FROM about WHERE key = 'model'").fetch_optional(&self.pool).await?;
        let before: Option<String> = row.map(|row| row.try_get(0)).transpose()?;
        if before.as_deref() == Some(model) {
            return Ok(true);
        }
        let mut change = self.pool.begin_with(WRITE).await?;
        for statement in
            ["INSERT INTO words (words) VALUES ('delete-all')", "DELETE FROM chunks", "DELETE FROM documents"]
        {
            sqlx::query(statement).execute(&mut *change).await?;
        }
        sqlx::query("INSERT OR REPLACE INTO about (key, value) VALUES ('model', ?)")
            .bind(model.to_owned())
            .execute(&mut *change)
            .await?;
        change.commit().await?;
        Ok(false)
    }

    /// All documents, by path.
    pub(super) async fn documents(&self) -> Result<BTreeMap<String, Document>, RagError> {
        let rows = sqlx::query(
            "SELECT id, path, bytes, modified_ns, digest, title, pages, chunks, failure FROM documents ORDER BY path",
        );
        let rows = rows.fetch_all(&self.pool).await?;
        let documents = rows.iter().map(|row| document(row).map(|document| (document.path.clone(), document)));
        Ok(documents.collect::<Result<_, sqlx::Error>>()?)
    }

    /// The vectors of all documents.
    pub(super) async fn segments(&self) -> Result<BTreeMap<i64, Arc<Segment>>, RagError> {
        let mut segments: BTreeMap<i64, Segment> = BTreeMap::new();
        let mut rows =
            sqlx::query("SELECT document, id, vector FROM chunks ORDER BY document, place").fetch(&self.pool);
        while let Some(row) = rows.try_next().await? {
            let segment =
                segments.entry(row.try_get(0)?).or_insert_with(|| Segment { chunks: Vec::new(), values: Vec::new() });
            segment.chunks.push(row.try_get(1)?);
            let bytes: Vec<u8> = row.try_get(2)?;
            segment.values.extend(bytes.as_chunks::<4>().0.iter().map(|value| f32::from_le_bytes(*value)));
        }
        Ok(segments.into_iter().map(|(id, segment)| (id, Arc::new(segment))).collect())
    }

    /// Puts a document in the place of the one of its path; its id, and the ids of its pieces.
    pub(super) async fn put(
        &self,
        document: &Document,
        text: &str,
        chunks: &[Chunk],
        vectors: &[Vec<f32>],
    ) -> Result<(i64, Vec<i64>), RagError> {
        let mut change = self.pool.begin_with(WRITE).await?;
        forget(&mut change, &document.path).await?;
        let insert = "INSERT INTO documents
            (path, bytes, modified_ns, digest, title, pages, chunks, failure, text) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";
        let id = sqlx::query(insert)
            .bind(document.path.clone())
            .bind(integer(document.bytes))
            .bind(document.modified_ns)
            .bind(document.digest.clone())
            .bind(document.title.clone())
            .bind(i64::from(document.pages))
            .bind(integer(chunks.len() as u64))
            .bind(document.failure.clone())
            .bind(text.to_owned())
            .execute(&mut *change)
            .await?
            .last_insert_rowid();
        let mut ids = Vec::with_capacity(chunks.len());
        for (place, (chunk, vector)) in chunks.iter().zip(vectors).enumerate() {
            let insert = "INSERT INTO chunks (document, place, headings, page, first_line, last_line, text, vector)
                VALUES (?, ?, ?, ?, ?, ?, ?, ?)";
            let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
            let row = sqlx::query(insert)
                .bind(id)
                .bind(integer(place as u64))
                .bind(serde_json::to_string(&chunk.headings).unwrap_or_default())
                .bind(chunk.page.map(i64::from))
                .bind(integer(chunk.first_line as u64))
                .bind(integer(chunk.last_line as u64))
                .bind(chunk.text.clone())
                .bind(bytes)
                .execute(&mut *change)
                .await?
                .last_insert_rowid();
            sqlx::query("INSERT INTO words (rowid, headings, text) VALUES (?, ?, ?)")
                .bind(row)
                .bind(format!("{} {}", document.title, chunk.headings.join(" ")))
                .bind(chunk.text.clone())
                .execute(&mut *change)
                .await?;
            ids.push(row);
        }
        change.commit().await?;
        Ok((id, ids))
    }

    /// Notes that a file was looked at and holds what it held.
    pub(super) async fn touch(&self, id: i64, bytes: u64, modified_ns: i64) -> Result<(), RagError> {
        sqlx::query("UPDATE documents SET bytes = ?, modified_ns = ? WHERE id = ?")
            .bind(integer(bytes))
            .bind(modified_ns)
            .bind(id)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Forgets a document.
    pub(super) async fn remove(&self, path: &str) -> Result<(), RagError> {
        let mut change = self.pool.begin_with(WRITE).await?;
        forget(&mut change, path).await?;
        change.commit().await?;
        Ok(())
    }

    /// The pieces with words of a question (see `words`), best first: BM25 as SQLite gives it, where less is better.
    /// A word in a heading counts twice.
    pub(super) async fn matching(&self, question: &str, count: usize) -> Result<Vec<(i64, f64)>, RagError> {
        let select = "SELECT chunks.id, bm25(words, 2.0, 1.0) AS score FROM words
            JOIN chunks ON chunks.id = words.rowid JOIN documents ON documents.id = chunks.document
            WHERE words MATCH ? ORDER BY score, documents.path, chunks.place LIMIT ?";
        let rows = sqlx::query(select).bind(question.to_owned()).bind(integer(count as u64));
        let rows = rows.fetch_all(&self.pool).await?;
        let found = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
        Ok(found.collect::<Result<_, sqlx::Error>>()?)
    }

    /// Pieces by their ids, in the order of the documents.
    pub(super) async fn passages(&self, ids: &[i64]) -> Result<Vec<Passage>, RagError> {
        let select = "SELECT chunks.id, path, title, digest, headings, page, first_line, last_line, chunks.text
            FROM chunks JOIN documents ON documents.id = chunks.document
            WHERE chunks.id IN (SELECT value FROM json_each(?)) ORDER BY path, place";
        let ids = serde_json::to_string(ids).unwrap_or_default();
        let rows = sqlx::query(select).bind(ids).fetch_all(&self.pool).await?;
        Ok(rows.iter().map(passage).collect::<Result<_, sqlx::Error>>()?)
    }

    /// A document and its text.
    pub(super) async fn text(&self, path: &str) -> Result<Option<(Document, String)>, RagError> {
        let select = "SELECT id, path, bytes, modified_ns, digest, title, pages, chunks, failure, text
            FROM documents WHERE path = ?";
        let row = sqlx::query(select).bind(path.to_owned()).fetch_optional(&self.pool).await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some((document(&row)?, row.try_get(9)?)))
    }
}

async fn forget(connection: &mut SqliteConnection, path: &str) -> Result<(), sqlx::Error> {
    let select = "SELECT chunks.id FROM chunks JOIN documents ON documents.id = chunks.document WHERE path = ?";
    for row in sqlx::query(select).bind(path.to_owned()).fetch_all(&mut *connection).await? {
        let id: i64 = row.try_get(0)?;
        sqlx::query("DELETE FROM words WHERE rowid = ?").bind(id).execute(&mut *connection).await?;
        sqlx::query("DELETE FROM chunks WHERE id = ?").bind(id).execute(&mut *connection).await?;
    }
    sqlx::query("DELETE FROM documents WHERE path = ?").bind(path.to_owned()).execute(&mut *connection).await?;
    Ok(())
}

/// Removes an index; one that is open stays good for those who have it open.
pub(super) fn remove(path: &Path) {
    for end in ["", "-wal", "-shm", "-journal"] {
        let mut file = path.as_os_str().to_owned();
        file.push(end);
        let _ = fs::remove_file(PathBuf::from(file));
    }
}
