//! Indexes that are written, damaged and of other versions.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::rag::words::question;

fn chunk(heading: &str, text: &str) -> Chunk {
    Chunk { headings: vec![heading.to_owned()], page: Some(2), first_line: 3, last_line: 4, text: text.to_owned() }
}

fn file(path: &str) -> Document {
    Document { path: path.to_owned(), bytes: 9, modified_ns: 7, title: "T".to_owned(), ..Document::default() }
}

async fn found(store: &Store, text: &str) -> Vec<String> {
    let ids: Vec<i64> =
        store.matching(&question(text).unwrap(), 10).await.unwrap().into_iter().map(|(id, _)| id).collect();
    let passages = store.passages(&ids).await.unwrap();
    let text = |id: &i64| passages.iter().find(|p| p.id == *id).map(|p| p.text.clone());
    ids.iter().filter_map(text).collect()
}

#[tokio::test]
async fn a_document_is_there_whole_and_goes_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b/index.db");
    let store = Store::open(&path).await.unwrap();
    assert!(!store.belongs_to("m 1").await.unwrap() && store.belongs_to("m 1").await.unwrap());
    let chunks = [chunk("Keys", "Rotating a key"), chunk("Other", "cafés and \"quotes\"")];
    let vectors = [vec![1.0, 0.0], vec![0.0, -1.5]];
    let (id, ids) = store.put(&file("x.md"), "whole text", &chunks, &vectors).await.unwrap();
    assert_eq!(found(&store, "how are keys rotated?").await, ["Rotating a key"], "by the stem");
    assert_eq!(found(&store, "cafe").await, ["cafés and \"quotes\""]);
    assert_eq!(found(&store, "\"quotes\" OR NOT (").await, ["cafés and \"quotes\""]);
    assert!(found(&store, "absent").await.is_empty());
    let passages = store.passages(&ids).await.unwrap();
    let first = passages.first().unwrap();
    assert_eq!((first.path.as_str(), first.page, first.last_line), ("x.md", Some(2), 4));
    assert_eq!(first.headings, ["Keys"]);
    assert_eq!(store.text("x.md").await.unwrap().unwrap().1, "whole text");
    assert!(store.text("y.md").await.unwrap().is_none());

    // It is the same when it is opened again.
    drop(store);
    let store = Store::open(&path).await.unwrap();
    let segments = store.segments().await.unwrap();
    let segment = segments.get(&id).unwrap();
    assert_eq!((segment.chunks.clone(), segment.values.clone()), (ids, vec![1.0, 0.0, 0.0, -1.5]));

    // Another version of it leaves nothing of the one before.
    store.put(&file("x.md"), "new", &[chunk("New", "renewed")], &[vec![1.0, 0.0]]).await.unwrap();
    assert!(found(&store, "rotating").await.is_empty());
    assert_eq!(found(&store, "renewed").await, ["renewed"]);
    store.remove("x.md").await.unwrap();
    assert!(found(&store, "renewed").await.is_empty() && store.documents().await.unwrap().is_empty());

    store.put(&file("x.md"), "new", &[chunk("New", "renewed")], &[vec![1.0, 0.0]]).await.unwrap();
    assert!(!store.belongs_to("m 2").await.unwrap(), "vectors of another model are of no use");
    assert!(found(&store, "renewed").await.is_empty() && store.segments().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_file_that_is_no_index_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index.db");
    fs::write(&path, vec![b'x'; 10_000]).unwrap();
    let store = Store::open(&path).await.unwrap();
    assert!(store.documents().await.unwrap().is_empty());
}

#[tokio::test]
async fn an_index_is_thrown_away_only_if_it_is_damaged_or_of_another_version() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index.db");
    let store = Store::open(&path).await.unwrap();
    store.put(&file("x.md"), "text", &[chunk("A", "b")], &[vec![1.0, 0.0]]).await.unwrap();
    // What goes wrong otherwise is not the file's fault.
    let refused = store.run("INSERT INTO nowhere VALUES (1)").await.unwrap_err();
    assert!(matches!(refused, RagError::Index(_)), "{refused}");
    store.close().await;
    // From before there were versions: it stays.
    let store = Store::open(&path).await.unwrap();
    assert_eq!(store.documents().await.unwrap().len(), 1);
    store.run("PRAGMA user_version = 0").await.unwrap();
    store.close().await;
    let store = Store::open(&path).await.unwrap();
    assert_eq!(store.documents().await.unwrap().len(), 1);
    store.run("PRAGMA user_version = 99").await.unwrap();
    store.close().await;
    let store = Store::open(&path).await.unwrap();
    assert!(store.documents().await.unwrap().is_empty(), "another version");
    store.put(&file("x.md"), "text", &[chunk("A", "b")], &[vec![1.0, 0.0]]).await.unwrap();
    store.close().await;
    // All pages but the first are garbage.
    let mut bytes = fs::read(&path).unwrap();
    assert!(bytes.len() > 8_192, "{}", bytes.len());
    bytes[4_096..].fill(0xa5);
    fs::write(&path, bytes).unwrap();
    let store = Store::open(&path).await.unwrap();
    assert!(store.documents().await.unwrap().is_empty(), "damaged");

    // Something else in its place: that cannot be opened, and stays.
    let folder = dir.path().join("folder.db");
    fs::create_dir(&folder).unwrap();
    let refused = Store::open(&folder).await.err().unwrap();
    assert!(matches!(refused, RagError::Index(_)) && folder.exists(), "{refused}");
    assert_eq!(SET_VERSION, format!("PRAGMA user_version = {VERSION}"));
}
