//! The index kept in step with the folder.
//!
//! This is the node's own work, under nobody's name: it counts in no quota and makes no record, it asks the model for
//! few texts at a time and for those of one document after the other, and it waits where the model is busy with callers.
//! Invariants: a file is read again when its size or time changes, and its pieces are made again only if its content
//! did; a document that fails is kept with its reason and tried again when its file changes; one that went is gone from
//! the next answer on.

use std::{
    collections::BTreeMap,
    fs, io,
    path::Path,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use provost_types::{FileDigest, ModelInfo};
use sha2::{Digest as _, Sha256};

use super::{
    RagError, chunk,
    embed::{self, Failed},
    folder::{Found, Listing},
    globs::Format,
    pdf,
    service::{Rag, Standing},
    store::{self, Document, Store},
    text::{self, MAX_FILE_BYTES, Text},
    vectors::Segment,
};

/// Pieces of one corpus. With vectors of 384 numbers they take 300 MB of memory.
const MAX_CHUNKS: usize = 200_000;
/// A file that changed so lately may change again without another time.
const SETTLED: Duration = Duration::from_secs(2);
/// A time that no file has: the document is looked at again.
const AGAIN: i64 = -1;
/// What the reader of a file gets beyond its time before nobody waits for it any more.
const GRACE: Duration = Duration::from_secs(5);

/// What became of a file.
enum Read {
    Text {
        digest: String,
        text: Text,
        chunks: Vec<chunk::Chunk>,
    },
    /// As it was.
    Same,
    Failed {
        digest: String,
        reason: String,
    },
    /// It could not be opened; that may end without a change of it.
    Unread(String),
}

/// Looks at all files once, and takes in what changed; whether the index refused it.
pub(super) async fn pass(rag: &Arc<Rag>) -> bool {
    let is_damaged = std::mem::take(&mut rag.standing.lock().is_damaged);
    if is_damaged {
        rag.throw_away().await;
    }
    let ended = take_all(rag).await;
    let trouble = ended.err().filter(|_| !rag.stop.is_cancelled());
    if let Some(cause) = &trouble {
        rag.notice(cause);
    }
    let is_refused = trouble.as_ref().is_some_and(RagError::is_of_index);
    let mut standing = rag.standing.lock();
    match &trouble {
        Some(_) => standing.failures += 1,
        None => standing.looked_s = now().as_secs(),
    }
    if let Some(cause) = trouble.as_ref().filter(|cause| standing.trouble.as_ref() != Some(*cause)) {
        let (plugin, tenant) = (&rag.name, &rag.tenant);
        tracing::warn!(%plugin, %tenant, %cause, "documents are not read");
    }
    standing.trouble = trouble;
    is_refused
}

async fn take_all(rag: &Arc<Rag>) -> Result<(), RagError> {
    let store = rag.store().await?;
    let Listing { found, left_out, .. } = list(rag).await?;
    for reason in left_out.iter().filter(|reason| !rag.standing.lock().left_out.contains(*reason)) {
        let (plugin, tenant) = (&rag.name, &rag.tenant);
        tracing::warn!(%plugin, %tenant, reason = %reason.escape_debug(), "a file is no document");
    }
    rag.standing.lock().left_out = left_out;
    let model = embed::model(&*rag.inference, &rag.tenant, &rag.model);
    if let Ok(model) = &model
        && !store.belongs_to(&made_by(model)).await?
    {
        rag.vectors.replace(BTreeMap::new());
        set(rag, |standing| standing.is_complete = false);
    }
    let mut known = store.documents().await?;
    // The plugin as it was before a change may have put one more since the vectors were loaded.
    if rag.vectors.lacks_any(known.values().filter(|document| document.chunks > 0).map(|document| document.id)) {
        rag.vectors.replace(store.segments().await?);
    }
    let mut changed = Vec::new();
    for file in found {
        match known.remove(&file.path) {
            Some(document) if (document.bytes, document.modified_ns) == (file.bytes, file.modified_ns) => {}
            before => changed.push((file, before)),
        }
    }
    // What is left is gone, and goes whether there is a model or not.
    for document in known.into_values() {
        store.remove(&document.path).await?;
        rag.vectors.remove(document.id);
    }
    let is_changed = !changed.is_empty();
    set(rag, |standing| standing.pending = changed.len());
    count(rag, &store.documents().await?);
    let model = model?;
    for (file, before) in changed {
        if rag.stop.is_cancelled() {
            return Ok(());
        }
        take(rag, &store, &model, file, before).await?;
        set(rag, |standing| standing.pending = standing.pending.saturating_sub(1));
    }
    if is_changed {
        count(rag, &store.documents().await?);
    }
    set(rag, |standing| standing.is_complete = true);
    Ok(())
}

/// Notes how many documents there are.
fn count(rag: &Rag, documents: &BTreeMap<String, Document>) {
    let failed = documents.values().filter(|document| document.failure.is_some()).count();
    set(rag, |standing| (standing.documents, standing.failed) = (documents.len(), failed));
}

/// What vectors are made by, as the index names it.
fn made_by(model: &ModelInfo) -> String {
    format!("{} {} {} {}", model.name, model.architecture, model.dimensions, model.created)
}

fn set(rag: &Rag, change: impl FnOnce(&mut Standing)) {
    change(&mut rag.standing.lock());
}

async fn list(rag: &Arc<Rag>) -> Result<Listing, RagError> {
    let of = rag.clone();
    let listing = blocking(move || of.folder.list(&|path| of.globs.format(path).is_some())).await.flatten();
    listing.map_err(|cause| {
        RagError::Corpus(format!("the folder `{}` cannot be read: {}", rag.folder.shown(), cause.kind()))
    })
}

/// Takes in one file.
async fn take(
    rag: &Arc<Rag>,
    store: &Store,
    model: &ModelInfo,
    file: Found,
    before: Option<Document>,
) -> Result<(), RagError> {
    let modified_ns = if is_settled(file.modified_ns) { file.modified_ns } else { AGAIN };
    let mut document = Document { path: file.path, bytes: file.bytes, modified_ns, ..Document::default() };
    let read = open(rag, &document, before.as_ref().map(|before| before.digest.clone())).await;
    match read {
        Read::Same => {
            let id = before.map(|before| before.id).unwrap_or_default();
            store.touch(id, document.bytes, document.modified_ns).await
        }
        Read::Unread(reason) => {
            document.modified_ns = AGAIN;
            fail(rag, store, document, before, reason).await
        }
        Read::Failed { digest, reason } => {
            document.digest = digest;
            fail(rag, store, document, before, reason).await
        }
        Read::Text { digest, text, chunks } => {
            (document.digest, document.title, document.pages) = (digest, text.title.clone(), text.pages);
            let others = rag.vectors.count().saturating_sub(before.as_ref().map_or(0, |before| before.chunks));
            if others + chunks.len() > MAX_CHUNKS {
                let reason = format!("the corpus has no room for it: at most {MAX_CHUNKS} pieces");
                return fail(rag, store, document, before, reason).await;
            }
            let texts: Vec<String> = chunks.iter().map(|chunk| chunk.embedded(&text.title)).collect();
            let made_by = made_by(model);
            let vectors = match rag.take_made(&document, &made_by) {
                Some(vectors) => vectors,
                None => match vectors_of(rag, model, &texts).await {
                    Ok(vectors) => vectors,
                    // Others may well fit.
                    Err(Failed::Text(reason)) => return fail(rag, store, document, before, reason).await,
                    Err(Failed::Model(cause)) => return Err(cause),
                },
            };
            // The plugin as it is now goes on with it.
            if rag.stop.is_cancelled() {
                return Ok(());
            }
            let lines = text.lines.join("\n");
            let kept = put(rag, store, &document, before, (&lines, &chunks, &vectors)).await;
            if kept.is_err() {
                rag.keep_made(&document, made_by, vectors);
            }
            kept
        }
    }
}

/// The vectors of texts, as far as they were made before it was to stop.
async fn vectors_of(rag: &Rag, model: &ModelInfo, texts: &[String]) -> Result<Vec<Vec<f32>>, Failed> {
    let mut vectors = Vec::with_capacity(texts.len());
    for batch in texts.chunks(embed::BATCH) {
        // Never closed.
        let _turn = rag.turns.acquire().await;
        if rag.stop.is_cancelled() {
            break;
        }
        vectors.extend(embed::texts(&*rag.inference, &rag.tenant, model, batch, &rag.stop).await?);
    }
    Ok(vectors)
}

/// Keeps a document that cannot be searched, with the reason.
async fn fail(
    rag: &Arc<Rag>,
    store: &Store,
    mut document: Document,
    before: Option<Document>,
    reason: String,
) -> Result<(), RagError> {
    document.title = document.path.rsplit('/').next().unwrap_or_default().to_owned();
    if let Some(before) = &before
        && before.failure.as_ref() == Some(&reason)
        && before.digest == document.digest
    {
        if (before.bytes, before.modified_ns) == (document.bytes, document.modified_ns) {
            return Ok(());
        }
        return store.touch(before.id, document.bytes, document.modified_ns).await;
    }
    let (plugin, tenant) = (&rag.name, &rag.tenant);
    // Names and reasons are those of others: no line break of theirs makes a line of the log.
    let (path, why) = (document.path.escape_debug(), reason.escape_debug());
    tracing::warn!(%plugin, %tenant, document = %path, reason = %why, "a document cannot be read");
    document.failure = Some(reason);
    put(rag, store, &document, before, ("", &[], &[])).await
}

async fn put(
    rag: &Arc<Rag>,
    store: &Store,
    document: &Document,
    before: Option<Document>,
    (text, chunks, vectors): (&str, &[chunk::Chunk], &[Vec<f32>]),
) -> Result<(), RagError> {
    let (id, ids) = store.put(document, text, chunks, vectors).await?;
    if let Some(before) = before {
        rag.vectors.remove(before.id);
    }
    if !ids.is_empty() {
        rag.vectors.put(id, Segment { chunks: ids, values: vectors.concat() });
    }
    Ok(())
}

/// Opens and reads a file, unless it holds what it held.
async fn open(rag: &Arc<Rag>, document: &Document, before: Option<String>) -> Read {
    if document.bytes > MAX_FILE_BYTES {
        // Known without reading it again and again.
        return Read::Failed { digest: String::new(), reason: format!("it has more than {MAX_FILE_BYTES} bytes") };
    }
    let (of, name) = (rag.clone(), document.path.clone());
    let until = Instant::now() + pdf::MAX_TIME;
    let reading = blocking(move || {
        let bytes = match of.folder.read(&name, MAX_FILE_BYTES) {
            Ok(bytes) => bytes,
            Err(cause) => return Read::Unread(cause.to_string()),
        };
        let digest = FileDigest::from_bytes(Sha256::digest(&bytes).into()).to_string();
        if before.as_ref() == Some(&digest) {
            return Read::Same;
        }
        let format = of.globs.format(&name).unwrap_or(Format::Text);
        match text::read(&name, format, &bytes, until) {
            Ok(text) => Read::Text { digest, chunks: chunk::cut(&text, of.size), text },
            Err(reason) => Read::Failed { digest, reason },
        }
    });
    match tokio::time::timeout(pdf::MAX_TIME + GRACE, reading).await {
        Ok(Ok(read)) => read,
        // A panic of a reader, which ended its task and nothing else. It would come again.
        Ok(Err(_)) => Read::Failed { digest: String::new(), reason: "its reader failed".to_owned() },
        Err(_) => Read::Failed { digest: String::new(), reason: "it takes too long to read".to_owned() },
    }
}

/// Runs what blocks or computes; `Err`: it panicked.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|_| io::Error::other("it ended before its time"))
}

/// Since the Unix epoch.
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Whether a change from now on would have another time. One that is yet to come tells nothing.
fn is_settled(modified_ns: i64) -> bool {
    let age = i128::try_from(now().as_nanos()).unwrap_or(i128::MAX).saturating_sub(i128::from(modified_ns));
    age < 0 || age.unsigned_abs() > SETTLED.as_nanos()
}

/// Removes the indexes that the plugin had with other settings.
pub(super) fn remove_others(index: &Path) {
    let Some((folder, own)) = index.parent().zip(index.file_name()) else { return };
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|end| end == "db") && path.file_name() != Some(own) {
            store::remove(&path);
        }
    }
}
