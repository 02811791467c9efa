use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt, path::Path, sync::Mutex};

use provost_types::{Metadata, Resource, Revision, SecretSpec};
use secrecy::ExposeSecret;

use super::*;
use crate::LocalFileKey;

// Made by another implementation of AES-256-GCM: wrapping key 32 x 0x11, data key 0, 1, … 31.
const WRAPPED: &str = "AQEBAQEBAQEBAQEBRrKC34oGyssJAaPVo7x4so9XMZCi+uy0QBi3lOjFiIqeRq75hLna4HQnTXyRTIAJ";
/// `hunter2` as `Secret|acme|api|3`.
const FORM_1: &str = "AgICAgICAgICAgIC8113z9yrAy9YpjmJLk7DYHW/PrV2atc=";
/// `hunter3` as `prod|Secret|acme|api|4|7`.
const FORM_2: &str = "AwMDAwMDAwMDAwMDhj5Som7gYYEuQeR09TMDG/hSRrO2ul8=";

#[derive(Default)]
struct Pushed {
    secrets: Mutex<BTreeMap<ResourceKey, Arc<Resource>>>,
    ring: Mutex<BTreeMap<u64, String>>,
}

impl Pushed {
    fn put(&self, tenant: &str, name: &str, sealed: Option<SealedSecret>) {
        let metadata = Metadata { name: n(name), tenant: Some(n(tenant)), labels: Default::default() };
        let spec = Spec::Secret(SecretSpec { sealed, ..Default::default() });
        let resource = Resource { metadata, spec, created: Revision(1), modified: Revision(1) };
        self.secrets.lock().unwrap().insert(resource.key(), Arc::new(resource));
    }
}

impl SealedSource for Pushed {
    fn sealed(&self, key: &ResourceKey) -> Option<Arc<Resource>> {
        self.secrets.lock().unwrap().get(key).cloned()
    }
    fn wrapped_key(&self, term: u64) -> Option<String> {
        self.ring.lock().unwrap().get(&term).cloned()
    }
}

fn n(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn local(dir: &Path, byte: u8) -> Arc<dyn KeyProvider> {
    let path = dir.join(format!("key-{byte}"));
    fs::write(&path, [byte; 32]).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    Arc::new(LocalFileKey::open(&path).unwrap())
}

fn sealed(version: u64, key_term: u64, ciphertext: &str) -> Option<SealedSecret> {
    Some(SealedSecret { version, key_term, ciphertext: ciphertext.to_owned() })
}

fn get(secrets: &Secrets, tenant: &str, name: &str) -> Result<String, &'static str> {
    let reference = SecretRef { secret: n(name), prefix: "Bearer ".into() };
    secrets.unseal(&n(tenant), &reference).map(|v| v.expose_secret().to_owned()).map_err(|e| e.code())
}

/// The secret that is sealed here.
fn api() -> ResourceKey {
    ResourceKey { kind: Kind::Secret, tenant: Some(n("acme")), name: n("api") }
}

#[test]
fn values_of_both_forms_open_from_a_snapshot_alone() {
    let dir = tempfile::tempdir().unwrap();
    let pushed = Arc::new(Pushed::default());
    pushed.ring.lock().unwrap().extend([(1, WRAPPED.to_owned()), (7, format!("2|prod|{WRAPPED}"))]);
    pushed.put("acme", "api", sealed(3, 1, FORM_1));
    let secrets = Secrets::new(local(dir.path(), 0x11), pushed.clone());
    assert_eq!(get(&secrets, "acme", "api"), Ok("Bearer hunter2".to_owned()));
    pushed.put("acme", "api", sealed(4, 7, FORM_2));
    assert_eq!(get(&secrets, "acme", "api"), Ok("Bearer hunter3".to_owned()));

    assert_eq!(get(&secrets, "acme", "none"), Err("PV-SECRET-NOT-FOUND"));
    pushed.put("acme", "empty", None);
    assert_eq!(get(&secrets, "acme", "empty"), Err("PV-SECRET-NO-VALUE"));
    let other = Secrets::new(local(dir.path(), 0x12), pushed);
    assert_eq!(get(&other, "acme", "api"), Err("PV-SECRET-KEY"));
}

#[test]
fn a_value_opens_only_as_what_it_was_sealed_as() {
    let dir = tempfile::tempdir().unwrap();
    // What is changed, and the ring's key of term 7 and 8.
    let cases: [(&str, &str, u64, u64, &str); 6] = [
        ("umbra", "api", 4, 7, "2|prod|"),
        ("acme", "other", 4, 7, "2|prod|"),
        ("acme", "api", 5, 7, "2|prod|"),
        ("acme", "api", 4, 8, "2|prod|"),
        ("acme", "api", 4, 7, "2|test|"),
        ("acme", "api", 4, 7, ""),
    ];
    for (tenant, name, version, term, label) in cases {
        let pushed = Arc::new(Pushed::default());
        pushed.ring.lock().unwrap().extend([(7, format!("{label}{WRAPPED}")), (8, format!("{label}{WRAPPED}"))]);
        pushed.put(tenant, name, sealed(version, term, FORM_2));
        let secrets = Secrets::new(local(dir.path(), 0x11), pushed);
        assert_eq!(get(&secrets, tenant, name), Err("PV-SECRET-KEY"), "{tenant} {name} {version} {term} {label}");
    }
}

#[test]
fn a_key_of_another_ring_under_the_same_term_is_another_key() {
    let dir = tempfile::tempdir().unwrap();
    let pushed = Arc::new(Pushed::default());
    let secrets = Secrets::new(local(dir.path(), 0x11), pushed.clone());
    let state = State::default();
    let (first, key) = secrets.seal("a", &state, &api(), 1, b"one").unwrap();
    pushed.ring.lock().unwrap().insert(1, key.unwrap().wrapped);
    pushed.put("acme", "api", Some(first));
    assert_eq!(get(&secrets, "acme", "api"), Ok("Bearer one".to_owned()));
    let (second, key) = secrets.seal("a", &state, &api(), 1, b"two").unwrap();
    pushed.ring.lock().unwrap().insert(1, key.unwrap().wrapped);
    pushed.put("acme", "api", Some(second));
    assert_eq!(get(&secrets, "acme", "api"), Ok("Bearer two".to_owned()));
}

#[test]
fn a_cluster_seals_with_a_key_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let secrets = Secrets::new(local(dir.path(), 0x11), Arc::new(Pushed::default()));
    let ring = |keys: &[(u64, &str)]| {
        let keys = keys.iter().map(|(term, label)| (*term, format!("{label}{WRAPPED}"))).collect();
        State::from_parts(Revision(9), [], [], Revision(0), keys)
    };
    let term = |state: &State| {
        let (sealed, new) = secrets.seal("prod", state, &api(), 1, b"x").unwrap();
        (sealed.key_term, new.map(|k| k.term))
    };
    assert_eq!(term(&ring(&[(1, "2|prod|"), (5, "2|prod|")])), (5, None));
    assert_eq!(term(&ring(&[])), (1, Some(1)));
    // A key of the first form, or of the cluster that this one was restored from.
    assert_eq!(term(&ring(&[(1, "")])), (2, Some(2)));
    assert_eq!(term(&ring(&[(1, "2|prod|"), (5, "2|older|")])), (6, Some(6)));
}

#[test]
fn bytes_open_only_in_their_context() {
    let dir = tempfile::tempdir().unwrap();
    let secrets = Secrets::new(local(dir.path(), 0x11), Arc::new(Pushed::default()));
    let sealed = secrets.seal_bytes("prod|ca|1", b"a key").unwrap();
    assert_eq!(**secrets.open_bytes("prod|ca|1", &sealed).unwrap(), *b"a key");
    assert!(secrets.open_bytes("prod|ca|2", &sealed).is_err());
    for at in 0..sealed.len() {
        let mut bad = sealed.clone();
        bad[at] ^= 1;
        assert!(secrets.open_bytes("prod|ca|1", &bad).is_err(), "byte {at}");
        assert!(secrets.open_bytes("prod|ca|1", &sealed[..at]).is_err(), "cut at {at}");
    }
}

#[test]
fn a_key_file_is_made_once_kept_private_and_never_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (dir.path().join("one.key"), dir.path().join("two.key"));
    let wrapped = LocalFileKey::open(&one).unwrap().wrap(&[7; 32]).unwrap();
    LocalFileKey::copy(&one, &two).unwrap();
    assert_eq!(**LocalFileKey::open(&two).unwrap().unwrap(&wrapped).unwrap(), [7; 32]);
    assert_eq!(fs::metadata(&two).unwrap().permissions().mode() & 0o777, 0o600);
    let other = dir.path().join("other.key");
    LocalFileKey::open(&other).unwrap();
    assert!(LocalFileKey::copy(&other, &two).is_err());
    assert_eq!(fs::read(&one).unwrap(), fs::read(&two).unwrap());
    fs::set_permissions(&two, fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(LocalFileKey::open(&two).map(drop).unwrap_err().code(), "PV-SECRET-PROVIDER");
    // Where it must be there, none is made, and the error names the file.
    let none = dir.path().join("none.key");
    let missing = LocalFileKey::open_present(&none).map(drop).unwrap_err();
    assert!(missing.code() == "PV-SECRET-PROVIDER" && missing.to_string().contains("none.key"), "{missing}");
    assert!(!none.exists());
}

#[test]
fn nodes_with_the_same_ring_and_provider_derive_the_same_key_for_a_purpose() {
    let dir = tempfile::tempdir().unwrap();
    let pushed = Arc::new(Pushed::default());
    pushed.ring.lock().unwrap().extend([(1, WRAPPED.to_owned()), (7, format!("2|prod|{WRAPPED}"))]);
    let (one, two) = (Secrets::new(local(dir.path(), 0x11), pushed.clone()), {
        Secrets::new(local(dir.path(), 0x11), pushed.clone())
    });
    let a = one.derived_key(7, "a").unwrap();
    assert_eq!(*a, *two.derived_key(7, "a").unwrap());
    assert_ne!(*a, *one.derived_key(7, "b").unwrap());
    assert!((*a)[..] != (0..32).collect::<Vec<u8>>()[..], "the data key itself does not leave");
    assert_eq!(one.derived_key(8, "a").unwrap_err().code(), "PV-SECRET-KEY");
    let other = Secrets::new(local(dir.path(), 0x12), pushed);
    assert_eq!(other.derived_key(7, "a").unwrap_err().code(), "PV-SECRET-KEY");
}
