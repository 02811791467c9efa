//! Backups: online and whole, refused when anything in them is not what was written, restored as a
//! new cluster whose revisions go on.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use common::{ACME, Recorder, admin, file, name, open};
use futures::StreamExt;
use provost_control_api::{
    BackupError, Caller, ControlConfig, ControlNode, LocalFileKey, NoAdmission, ResourceFilter, RestoreTarget,
    RestoredNode, Scope, restore_backup, verify_backup,
};
use provost_types::{ResourceKey, Revision, SecretRef};
use secrecy::ExposeSecret;

async fn backup(node: &ControlNode) -> Vec<u8> {
    let parts = node.backup(&admin()).await.unwrap();
    parts.map(|part| part.unwrap()).collect::<Vec<_>>().await.concat()
}

async fn filled(dir: &Path) -> (ControlNode, Arc<Recorder>) {
    let (node, recorder) = open(dir).await;
    node.apply(&admin(), &[file("a.yaml", ACME)], "first", false).await.unwrap();
    node.secret_set(&admin(), &name("acme"), &name("api"), b"hunter2", "").await.unwrap();
    recorder.taken(&node).await;
    (node, recorder)
}

fn target(dir: &Path) -> RestoreTarget {
    let (cluster, address) = ("second".into(), String::new());
    RestoreTarget { data_dir: dir.to_owned(), cluster, address, secrets_key: None }
}

async fn resources(node: &ControlNode) -> BTreeMap<ResourceKey, (Revision, Revision)> {
    let (_, found) = node.get(&admin(), &ResourceFilter::default()).await.unwrap();
    found.iter().map(|r| (r.key(), (r.created, r.modified))).collect()
}

fn api_key(node: &ControlNode) -> Result<String, &'static str> {
    let reference = SecretRef { secret: name("api"), prefix: String::new() };
    let value = node.secrets().unseal(&name("acme"), &reference);
    value.map(|v| v.expose_secret().to_owned()).map_err(|e| e.code())
}

async fn open_as(dir: &Path, cluster: &str, node_id: u64) -> ControlNode {
    let mut config = ControlConfig::new(dir, cluster, "node-1");
    config.node_id = node_id;
    ControlNode::open(config, Arc::new(NoAdmission), Arc::new(Recorder::default())).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_cluster_goes_on_where_the_backup_was_taken() {
    let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (node, recorder) = filled(old.path()).await;
    let before = resources(&node).await;
    let bytes = backup(&node).await;
    assert_eq!(recorder.take(), ["cluster.backup None None", "cluster.backup Some(Ok) None"]);
    // What comes after the backup is not in it.
    let later = "apiVersion: provost/v1\nkind: Tenant\nmetadata: {name: later}\n";
    node.apply(&admin(), &[file("l.yaml", later)], "", false).await.unwrap();
    let (history, _) = node.history(&admin(), None, 0).await.unwrap();
    node.shutdown().await.unwrap();

    let summary = verify_backup(bytes.as_slice()).unwrap();
    assert_eq!((summary.header.cluster.as_str(), summary.header.node.as_str()), ("test", "node-1"));
    assert_eq!((summary.resources, summary.history), (5, 2));
    assert_eq!(summary.bytes, bytes.len() as u64);

    let restored = restore_backup(bytes.as_slice(), &target(new.path())).unwrap();
    assert_eq!((restored.node.node_id, &restored.summary), (1, &summary));
    assert_eq!(RestoredNode::read(new.path()).unwrap(), Some(restored.node.clone()));
    assert_eq!(RestoredNode::read(old.path()).unwrap(), None);
    LocalFileKey::copy(&old.path().join("secrets.key"), &new.path().join("secrets.key")).unwrap();
    let node = open_as(new.path(), "second", 1).await;
    assert_eq!(resources(&node).await, before);
    assert_eq!(node.snapshots().borrow().revision, summary.header.revision);
    let (same, _) = node.history(&admin(), None, 0).await.unwrap();
    assert_eq!(same, history[1..], "all but the last change");
    assert_eq!(api_key(&node), Ok("hunter2".to_owned()));

    // New revisions are greater than any of the old cluster's; new secrets have a key of its own.
    let report = node.apply(&admin(), &[file("l.yaml", later)], "", false).await.unwrap();
    assert!(report.revision.0 > restored.summary.header.index, "{report:?}");
    node.secret_set(&admin(), &name("acme"), &name("other"), b"x", "").await.unwrap();
    assert_eq!(node.rotate_keys(&admin()).await.unwrap().term, 3);
    assert_eq!(api_key(&node), Ok("hunter2".to_owned()));
    let at = resources(&node).await;
    node.shutdown().await.unwrap();
    // It lasts, under its own name only.
    let other = ControlConfig::new(new.path(), "test", "node-1");
    let refused = ControlNode::open(other, Arc::new(NoAdmission), Arc::new(Recorder::default())).await;
    assert_eq!(refused.map(drop).unwrap_err().code(), "PV-RAFT-IDENTITY");
    let node = open_as(new.path(), "second", 1).await;
    assert_eq!(resources(&node).await, at);
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_damage_is_found_with_its_place_and_nothing_is_written() {
    let old = tempfile::tempdir().unwrap();
    let (node, _) = filled(old.path()).await;
    let bytes = backup(&node).await;
    node.shutdown().await.unwrap();
    let new = tempfile::tempdir().unwrap();
    let data_dir = new.path().join("data");
    let refused = |bytes: &[u8], what: &str| {
        let error = restore_backup(bytes, &target(&data_dir)).expect_err(what);
        assert!(!data_dir.exists(), "{what}: something was written");
        error
    };
    for at in 0..bytes.len() {
        let mut bad = bytes.clone();
        bad[at] ^= 1;
        let error = refused(&bad, "a flipped bit was taken");
        match error {
            BackupError::Damaged { from, to, .. } => {
                let at = at as u64;
                assert!((from..to).contains(&at), "byte {at} is said to be in {from}..{to}");
            }
            BackupError::Format(_) => assert!(at < 12, "byte {at} is in neither magic nor version"),
            other => panic!("byte {at}: {other}"),
        }
    }
    for length in (0..bytes.len()).step_by(7) {
        match refused(&bytes[..length], "a cut file was taken") {
            BackupError::Damaged { to, .. } => assert_eq!(to, length as u64),
            BackupError::Format(_) => assert!(length < 8),
            other => panic!("cut at {length}: {other}"),
        }
    }
    refused(&[&bytes[..], b"x"].concat(), "something follows");
    refused(&[&bytes[..], &bytes].concat(), "a second one follows");
    refused(b"", "nothing");
    refused(b"apiVersion: provost/v1", "another file");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_an_empty_folder_a_new_name_and_the_right_key_are_taken() {
    let old = tempfile::tempdir().unwrap();
    let (node, _) = filled(old.path()).await;
    let bytes = backup(&node).await;
    let listing = |dir: &Path| fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect::<Vec<_>>();
    let code = |result: Result<_, BackupError>| result.map(drop).map_err(|e| e.code());

    let before = listing(old.path());
    assert_eq!(code(restore_backup(bytes.as_slice(), &target(old.path()))), Err("PV-BACKUP-TARGET"));
    assert_eq!(listing(old.path()), before);
    let new = tempfile::tempdir().unwrap();
    for cluster in ["test", "", "No Name"] {
        let target = RestoreTarget { cluster: cluster.into(), ..target(new.path()) };
        assert_eq!(code(restore_backup(bytes.as_slice(), &target)), Err("PV-BACKUP-TARGET"), "{cluster}");
        assert!(listing(new.path()).is_empty());
    }
    // Nor is a key that opens nothing of what is in it, while the right one can still be looked for.
    let other = old.path().join("other.key");
    LocalFileKey::open(&other).unwrap();
    let with = |key| RestoreTarget { secrets_key: Some(key), ..target(new.path()) };
    for (key, refused) in [(other, "PV-SECRET-KEY"), (old.path().join("none.key"), "PV-SECRET-PROVIDER")] {
        assert_eq!(code(restore_backup(bytes.as_slice(), &with(key))), Err(refused));
        assert!(listing(new.path()).is_empty());
    }
    let right = with(old.path().join("secrets.key"));
    assert_eq!(code(restore_backup(bytes.as_slice(), &right)), Ok(()));
    assert_eq!(code(restore_backup(bytes.as_slice(), &target(new.path()))), Err("PV-BACKUP-TARGET"));
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_of_one_revision_while_others_write() {
    let dir = tempfile::tempdir().unwrap();
    let (node, _) = filled(dir.path()).await;
    let writer = {
        let node = node.clone();
        tokio::spawn(async move {
            for n in 0..40 {
                let text = format!("apiVersion: provost/v1\nkind: Tenant\nmetadata: {{name: t{n}}}\n");
                node.apply(&admin(), &[file("t.yaml", &text)], "", false).await.unwrap();
            }
        })
    };
    let mut taken = Vec::new();
    while !writer.is_finished() {
        taken.push(backup(&node).await);
    }
    writer.await.unwrap();
    let (history, _) = node.history(&admin(), None, 1_000).await.unwrap();
    for bytes in &taken {
        let summary = verify_backup(bytes.as_slice()).unwrap();
        // Each of these changes made one resource.
        let until = history.iter().filter(|h| h.entry.revision <= summary.header.revision);
        let made: usize = until.map(|h| h.entry.changes.iter().filter(|c| c.old.is_none()).count()).sum();
        assert_eq!(summary.resources, made as u64, "at revision {}", summary.header.revision);
    }
    assert!(taken.len() > 1, "no backup was taken meanwhile");
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_the_clusters_business_and_recorded_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (node, recorder) = filled(dir.path()).await;
    let tenants = Caller { scope: Scope::Tenant(name("acme")), ..Caller::internal("ann") };
    assert_eq!(node.backup(&tenants).await.map(drop).unwrap_err().code(), "PV-ADMIN-SCOPE");
    recorder.refuse.store(true, std::sync::atomic::Ordering::Relaxed);
    let mut parts = node.backup(&admin()).await.unwrap();
    assert_eq!(parts.next().await.unwrap().unwrap_err().code(), "PV-ADMIN-AUDIT");
    assert!(parts.next().await.is_none());
    recorder.refuse.store(false, std::sync::atomic::Ordering::Relaxed);
    // A reader that goes away ends it, and the record says so.
    drop(node.backup(&admin()).await.unwrap());
    let told = async {
        loop {
            let lines = recorder.take();
            if lines.iter().any(|l| l == "cluster.backup Some(RpcError) None") {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), told).await.unwrap();
    node.shutdown().await.unwrap();
}
