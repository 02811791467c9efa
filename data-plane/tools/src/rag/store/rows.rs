//! Documents and pieces as rows of the index.

use sqlx::{Row as _, sqlite::SqliteRow};

/// A document of the index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::rag) struct Document {
    pub(in crate::rag) id: i64,
    pub(in crate::rag) path: String,
    pub(in crate::rag) bytes: u64,
    /// As its file said; another value: it is looked at again.
    pub(in crate::rag) modified_ns: i64,
    /// `sha256:…` of its file; empty: it could not be read.
    pub(in crate::rag) digest: String,
    pub(in crate::rag) title: String,
    pub(in crate::rag) pages: u32,
    pub(in crate::rag) chunks: usize,
    /// Why it has no pieces.
    pub(in crate::rag) failure: Option<String>,
}

/// A piece with its place.
#[derive(Clone, Debug)]
pub(in crate::rag) struct Passage {
    pub(in crate::rag) id: i64,
    pub(in crate::rag) path: String,
    pub(in crate::rag) title: String,
    pub(in crate::rag) digest: String,
    pub(in crate::rag) headings: Vec<String>,
    pub(in crate::rag) page: Option<u32>,
    pub(in crate::rag) first_line: usize,
    pub(in crate::rag) last_line: usize,
    pub(in crate::rag) text: String,
}

pub(super) fn document(row: &SqliteRow) -> Result<Document, sqlx::Error> {
    Ok(Document {
        id: row.try_get(0)?,
        path: row.try_get(1)?,
        bytes: number(row.try_get(2)?),
        modified_ns: row.try_get(3)?,
        digest: row.try_get(4)?,
        title: row.try_get(5)?,
        pages: number(row.try_get(6)?),
        chunks: number(row.try_get(7)?),
        failure: row.try_get(8)?,
    })
}

pub(super) fn passage(row: &SqliteRow) -> Result<Passage, sqlx::Error> {
    let headings: String = row.try_get(4)?;
    let page: Option<i64> = row.try_get(5)?;
    Ok(Passage {
        id: row.try_get(0)?,
        path: row.try_get(1)?,
        title: row.try_get(2)?,
        digest: row.try_get(3)?,
        headings: serde_json::from_str(&headings).unwrap_or_default(),
        page: page.map(number),
        first_line: number(row.try_get(6)?),
        last_line: number(row.try_get(7)?),
        text: row.try_get(8)?,
    })
}

pub(super) fn integer(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn number<T: TryFrom<i64> + Default>(n: i64) -> T {
    T::try_from(n).unwrap_or_default()
}
