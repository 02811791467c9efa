//! Packages at a node: taken from those who may bring them, recorded, named by plugins, given out in parts, and carried by
//! backups.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::sync::{Arc, atomic::Ordering};

use bytes::Bytes;
use common::{ACME, Recorder, admin, file, name, open};
use futures::{StreamExt, TryStreamExt};
use provost_control_api::{
    Caller, ControlConfig, ControlNode, InstallPlugin, LocalFileKey, NoAdmission, RestoreTarget, Scope, restore_backup,
    verify_backup,
};
use provost_control_state::{KEPT_PACKAGES, PackageKey};
use provost_package::{COMPONENT, Manifest, Package, SigningKey, Source};

/// Three parts of the state and more.
const CONTENT_BYTES: usize = 600_000;

fn package(n: u8, key: Option<&SigningKey>) -> Package {
    let manifest = Manifest::new(name("text"), format!("{n}.0.0").parse().unwrap(), name("maker"));
    let source = Source { name: COMPONENT.to_owned(), content: Bytes::from(vec![n; CONTENT_BYTES]) };
    Package::make(manifest, &[source], key).unwrap()
}

fn publisher(key: &SigningKey) -> String {
    let key = key.public();
    format!(
        "apiVersion: provost/v1\nkind: Publisher\nmetadata: {{name: maker, tenant: acme}}\nspec: {{keys: ['{key}']}}\n"
    )
}

fn install(package: &Package) -> InstallPlugin {
    let (tenant, plugin) = (name("acme"), name("text"));
    InstallPlugin { tenant, name: plugin, package: package.digest(), config: None, reason: "a test".into() }
}

async fn world(dir: &std::path::Path, key: &SigningKey) -> (ControlNode, Arc<Recorder>) {
    let (node, recorder) = open(dir).await;
    node.apply(&admin(), &[file("a.yaml", ACME), file("p.yaml", &publisher(key))], "first", false).await.unwrap();
    recorder.taken(&node).await;
    (node, recorder)
}

async fn put(node: &ControlNode, caller: &Caller, package: &Package) -> Result<bool, String> {
    let put = node.package_put(caller, &name("acme"), package.bytes().clone()).await;
    put.map(|view| view.was_stored).map_err(|e| e.code().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_publisher_signed_is_stored_run_put_back_and_carried_by_a_backup() {
    let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let key = SigningKey::generate().unwrap();
    let (node, recorder) = world(old.path(), &key).await;
    let [first, second] = [1, 2].map(|n| package(n, Some(&key)));
    let ann = Caller { scope: Scope::Tenant(name("acme")), ..Caller::internal("ann") };
    assert_eq!(put(&node, &ann, &first).await, Ok(false));
    let lines = recorder.take();
    assert_eq!(lines, ["package.put None Some(\"acme\")", "package.put Some(Ok) Some(\"acme\")"]);
    assert_eq!(put(&node, &admin(), &first).await, Ok(true), "it is there");
    assert_eq!(put(&node, &admin(), &second).await, Ok(false));

    // Whole, and from any byte on.
    assert_eq!(node.package(&name("acme"), first.digest()).await.unwrap(), first.bytes());
    for offset in [1, 262_144, 300_000, first.bytes().len()] {
        let (total, parts) = node.package_parts(&name("acme"), first.digest(), offset as u64).unwrap();
        let rest: Vec<Bytes> = parts.try_collect().await.unwrap();
        assert_eq!((total, rest.concat()), (first.bytes().len() as u64, first.bytes()[offset..].to_vec()), "{offset}");
    }

    let done = node.plugin_install(&ann, install(&first)).await.unwrap();
    assert!(done.created && done.changed && done.package.unwrap().plugins == ["text"]);
    let nowhere = node.plugin_rollback(&ann, (&name("acme"), &name("text")), "").await;
    assert_eq!(nowhere.unwrap_err().code(), "PV-PACKAGE-NONE-BEFORE");
    let done = node.plugin_install(&ann, install(&second)).await.unwrap();
    assert_eq!((done.created, done.package.unwrap().version), (false, "2.0.0".to_owned()));
    let done = node.plugin_rollback(&ann, (&name("acme"), &name("text")), "").await.unwrap();
    assert_eq!(done.package.unwrap().version, "1.0.0");
    let done = node.plugin_reload(&ann, (&name("acme"), &name("text")), "").await.unwrap();
    assert!(done.changed, "{done:?}");
    let in_use = PackageKey { tenant: name("acme"), digest: first.digest() };
    assert_eq!(node.package_remove(&ann, in_use).await.unwrap_err().code(), "PV-PACKAGE-IN-USE");

    let parts = node.backup(&admin()).await.unwrap();
    let bytes = parts.map(|part| part.unwrap()).collect::<Vec<_>>().await.concat();
    node.shutdown().await.unwrap();
    verify_backup(bytes.as_slice()).unwrap();
    let (data_dir, cluster, address) = (new.path().to_owned(), "other".into(), String::new());
    let target = RestoreTarget { data_dir, cluster, address, secrets_key: None };
    let restored = restore_backup(bytes.as_slice(), &target).unwrap();
    LocalFileKey::copy(&old.path().join("secrets.key"), &new.path().join("secrets.key")).unwrap();
    let mut config = ControlConfig::new(new.path(), "other", "node-1");
    config.node_id = restored.node.node_id;
    let node = ControlNode::open(config, Arc::new(NoAdmission), Arc::new(Recorder::default())).await.unwrap();
    for package in [&first, &second] {
        assert_eq!(node.package(&name("acme"), package.digest()).await.unwrap(), package.bytes());
    }
    assert_eq!(node.packages(&admin(), None).await.unwrap().len(), 2);
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_makes_room_for_another_is_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let key = SigningKey::generate().unwrap();
    let (node, recorder) = world(dir.path(), &key).await;
    let count = u8::try_from(KEPT_PACKAGES).unwrap() + 2;
    for n in 1..=count {
        assert_eq!(put(&node, &admin(), &package(n, Some(&key))).await, Ok(false), "{n}");
    }
    let lines = recorder.taken(&node).await;
    let dropped = lines.iter().filter(|line| **line == "package.drop Some(Ok) Some(\"acme\")").count();
    assert_eq!(dropped, 1, "{lines:?}");
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_bring_it_and_what_nobody_vouches_for_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (key, stranger) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
    let (node, recorder) = world(dir.path(), &key).await;
    let good = package(1, Some(&key));
    let foreign = Caller { scope: Scope::Tenant(name("umbra")), ..Caller::internal("eve") };
    assert_eq!(put(&node, &foreign, &good).await, Err("PV-ADMIN-SCOPE".to_owned()));
    assert_eq!(put(&node, &admin(), &package(1, None)).await, Err("PV-PACKAGE-SIGNATURE".to_owned()));
    assert_eq!(put(&node, &admin(), &package(1, Some(&stranger))).await, Err("PV-PACKAGE-PUBLISHER".to_owned()));
    let mut bytes = good.bytes().to_vec();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    let tampered = node.package_put(&admin(), &name("acme"), bytes.into()).await;
    assert_eq!(tampered.unwrap_err().code(), "PV-PACKAGE-DIGEST");
    // Who brought it is recorded, in the log of the tenant; not who has no business there.
    assert_eq!(recorder.take(), ["package.put Some(RpcError) Some(\"acme\")"; 3]);
    // What cannot be recorded is not done.
    recorder.refuse.store(true, Ordering::Relaxed);
    assert_eq!(put(&node, &admin(), &good).await, Err("PV-ADMIN-AUDIT".to_owned()));
    recorder.refuse.store(false, Ordering::Relaxed);
    assert!(node.packages(&admin(), None).await.unwrap().is_empty());
    // A document does not name it before it is there.
    let missing = node.plugin_install(&admin(), install(&good)).await.unwrap_err();
    assert_eq!(missing.failure.problems[0].code, "PV-PACKAGE-MISSING");
    assert_eq!(put(&node, &admin(), &good).await, Ok(false));
    // Nor may it be a plugin of another kind.
    let server = "apiVersion: provost/v1\nkind: Plugin\nmetadata: {name: text, tenant: acme}\n\
                  spec: {source: {builtin: {name: echo}}}\n";
    node.apply(&admin(), &[file("b.yaml", server)], "", false).await.unwrap();
    let other = node.plugin_install(&admin(), install(&good)).await.unwrap_err();
    assert_eq!(other.code(), "PV-PACKAGE-PLUGIN");
    assert!(node.packages(&foreign, None).await.unwrap().is_empty(), "another tenant's are not shown");
    node.shutdown().await.unwrap();
}
