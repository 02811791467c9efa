//! Rotation of data keys, and where a secret's value must never be.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{
    fs,
    io::Write,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use common::{ACME, Recorder, admin, file, name, open};
use futures::StreamExt;
use provost_control_api::{
    Caller, ControlConfig, ControlNode, KeyProvider, KeyRotation, LocalFileKey, NoAdmission, Scope, SecretError,
};
use provost_types::{Kind, ResourceKey, SecretRef, Spec};
use secrecy::ExposeSecret;
use tracing_subscriber::fmt::MakeWriter;
use zeroize::Zeroizing;

const CANARY: &str = "canary-9b2e7f4410d3";

fn value_of(node: &ControlNode, tenant: &str, secret: &str) -> Result<String, &'static str> {
    let reference = SecretRef { secret: name(secret), prefix: String::new() };
    let value = node.secrets().unseal(&name(tenant), &reference);
    value.map(|v| v.expose_secret().to_owned()).map_err(|e| e.code())
}

async fn set(node: &ControlNode, tenant: &str, secret: &str, value: &str) {
    node.secret_set(&admin(), &name(tenant), &name(secret), value.as_bytes(), "").await.unwrap();
}

fn term_of(node: &ControlNode, tenant: &str, secret: &str) -> (u64, u64) {
    let key = ResourceKey { kind: Kind::Secret, tenant: Some(name(tenant)), name: name(secret) };
    match &node.snapshots().borrow().get(&key).unwrap().spec {
        Spec::Secret(spec) => spec.sealed.as_ref().map(|s| (s.key_term, s.version)).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_seals_everything_again_and_changes_no_value() {
    let dir = tempfile::tempdir().unwrap();
    let (node, recorder) = open(dir.path()).await;
    let other = ACME.replace("acme", "umbra");
    node.apply(&admin(), &[file("a", ACME), file("b", &other)], "", false).await.unwrap();
    // Without secrets there is a key all the same.
    assert_eq!(node.rotate_keys(&admin()).await.unwrap(), KeyRotation { term: 1, sealed: 0 });
    // More than one batch.
    for n in 0..120 {
        set(&node, "acme", &format!("s{n}"), &format!("value {n}")).await;
    }
    set(&node, "umbra", "api", "other").await;
    set(&node, "umbra", "api", "newer").await;
    recorder.taken(&node).await;

    assert_eq!(node.rotate_keys(&admin()).await.unwrap(), KeyRotation { term: 2, sealed: 121 });
    assert_eq!(recorder.take(), ["keys.rotate None None", "keys.rotate Some(Ok) None"]);
    for n in 0..120 {
        assert_eq!(value_of(&node, "acme", &format!("s{n}")), Ok(format!("value {n}")));
        assert_eq!(term_of(&node, "acme", &format!("s{n}")), (2, 1));
    }
    // The count of values set does not move.
    assert_eq!((value_of(&node, "umbra", "api"), term_of(&node, "umbra", "api")), (Ok("newer".into()), (2, 2)));
    set(&node, "acme", "s0", "after").await;
    assert_eq!(term_of(&node, "acme", "s0"), (2, 2));
    let tenants = Caller { scope: Scope::Tenant(name("acme")), ..Caller::internal("ann") };
    assert_eq!(node.rotate_keys(&tenants).await.unwrap_err().code(), "PV-ADMIN-SCOPE");
    node.shutdown().await.unwrap();
    let (node, _) = open(dir.path()).await;
    assert_eq!(value_of(&node, "acme", "s0"), Ok("after".to_owned()));
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_set_during_a_rotation_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (node, _) = open(dir.path()).await;
    node.apply(&admin(), &[file("a", ACME)], "", false).await.unwrap();
    for n in 0..10 {
        set(&node, "acme", &format!("s{n}"), "first").await;
    }
    let rotated = Arc::new(AtomicBool::new(false));
    let writer = {
        let (node, rotated) = (node.clone(), rotated.clone());
        tokio::spawn(async move {
            let mut round = 0;
            while round < 15 || !rotated.load(Ordering::SeqCst) {
                set(&node, "acme", &format!("s{}", round % 10), &format!("round {round}")).await;
                round += 1;
            }
            round
        })
    };
    let mut terms = Vec::new();
    for _ in 0..3 {
        terms.push(node.rotate_keys(&admin()).await.unwrap().term);
    }
    rotated.store(true, Ordering::SeqCst);
    let rounds = writer.await.unwrap();
    assert!(terms.is_sorted_by(|a, b| a < b), "{terms:?}");
    for n in 0..10 {
        let last = (0..rounds).rev().find(|round| round % 10 == n).unwrap();
        assert_eq!(value_of(&node, "acme", &format!("s{n}")), Ok(format!("round {last}")));
    }
    node.shutdown().await.unwrap();
}

/// Wraps with whatever key it holds at the moment: what was wrapped with an earlier one is lost.
struct Forgetful(Mutex<Arc<LocalFileKey>>);

impl KeyProvider for Forgetful {
    fn wrap(&self, key: &[u8]) -> Result<Vec<u8>, SecretError> {
        self.0.lock().unwrap().wrap(key)
    }
    fn unwrap(&self, wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, SecretError> {
        self.0.lock().unwrap().unwrap(wrapped)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_that_do_not_open_are_listed_and_the_others_sealed() {
    let dir = tempfile::tempdir().unwrap();
    let key = |n: u32| Arc::new(LocalFileKey::open(&dir.path().join(format!("{n}.key"))).unwrap());
    let provider = Arc::new(Forgetful(Mutex::new(key(1))));
    let config = || {
        let mut config = ControlConfig::new(dir.path().join("data"), "test", "node-1");
        config.key_provider = Some(provider.clone());
        config
    };
    let open =
        async || ControlNode::open(config(), Arc::new(NoAdmission), Arc::new(Recorder::default())).await.unwrap();
    let node = open().await;
    node.apply(&admin(), &[file("a", ACME)], "", false).await.unwrap();
    set(&node, "acme", "lost", "x").await;
    node.shutdown().await.unwrap();

    *provider.0.lock().unwrap() = key(2);
    let node = open().await;
    let error = node.rotate_keys(&admin()).await.unwrap_err();
    assert_eq!(error.code(), "PV-SECRET-KEY");
    assert_eq!(error.failure.problems.len(), 1, "{error}");
    assert_eq!(error.failure.problems[0].resource, "Secret/acme/lost");
    set(&node, "acme", "new", "y").await;
    let error = node.rotate_keys(&admin()).await.unwrap_err();
    assert!(error.failure.message.contains("1 secrets are under it; 1 do not open"), "{error}");
    assert_eq!(value_of(&node, "acme", "new"), Ok("y".to_owned()));
    set(&node, "acme", "lost", "found").await;
    assert_eq!(node.rotate_keys(&admin()).await.unwrap().sealed, 2);
    node.shutdown().await.unwrap();
}

#[derive(Clone, Default)]
struct Logged(Arc<Mutex<Vec<u8>>>);

impl Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Logged {
    type Writer = Self;
    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

fn contains(haystack: &[u8], needle: &str) -> bool {
    haystack.windows(needle.len()).any(|w| w == needle.as_bytes())
}

/// Every file under a folder that holds the text.
fn holding(dir: &Path, needle: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(holding(&path, needle));
        } else if contains(&fs::read(&path).unwrap(), needle) {
            found.push(path.display().to_string());
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_is_in_no_log_state_snapshot_backup_or_output() {
    let logged = Logged::default();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(logged.clone());
    tracing::subscriber::set_global_default(subscriber.finish()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (node, recorder) = open(dir.path()).await;
    let acme = ACME.replace("displayName: Acme", "displayName: a-visible-name");
    node.apply(&admin(), &[file("a", &acme)], "", false).await.unwrap();
    set(&node, "acme", "api", CANARY).await;
    assert_eq!(value_of(&node, "acme", "api"), Ok(CANARY.to_owned()));
    node.rotate_keys(&admin()).await.unwrap();
    assert_eq!(value_of(&node, "acme", "api"), Ok(CANARY.to_owned()));
    let parts = node.backup(&admin()).await.unwrap();
    let backup = parts.map(|p| p.unwrap()).collect::<Vec<_>>().await.concat();
    node.group().snapshot_now().await.unwrap();
    let snapshots = dir.path().join("control/snapshots");
    let written = async {
        while !holding(&snapshots, "a-visible-name").iter().any(|f| f.ends_with(".snapshot")) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), written).await.unwrap();
    let records = format!("{:?}", recorder.events.lock().unwrap());
    node.shutdown().await.unwrap();

    // Each place is one that the search would see it in.
    let visible = holding(dir.path(), "a-visible-name");
    for place in ["control/raft/", "control/state-", "control/snapshots/"] {
        assert!(visible.iter().any(|f| f.contains(place)), "{place} is not searched: {visible:?}");
    }
    assert!(records.contains("secret.set"));
    assert!(!logged.0.lock().unwrap().is_empty());
    let restored = tempfile::tempdir().unwrap();
    let target = provost_control_api::RestoreTarget {
        data_dir: restored.path().to_owned(),
        cluster: "second".into(),
        address: String::new(),
        secrets_key: None,
    };
    provost_control_api::restore_backup(backup.as_slice(), &target).unwrap();
    assert!(!holding(restored.path(), "a-visible-name").is_empty(), "the backup's contents are not searched");

    assert_eq!(holding(dir.path(), CANARY), Vec::<String>::new());
    assert_eq!(holding(restored.path(), CANARY), Vec::<String>::new());
    assert!(!contains(&backup, CANARY), "in the backup");
    assert!(!contains(&logged.0.lock().unwrap(), CANARY), "in the log output");
    assert!(!records.contains(CANARY), "in the audit records");
}
