//! Identities on disk.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::Arc,
    time::Duration,
};

use provost_wire::tls::{Identity, Material, follow_operator};

use crate::authority::{Authority, leaf};

const NODE: &str = "spiffe://acme/control-plane/1";

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn what_is_stored_is_loaded() {
    let (ca, dir) = (Authority::new("ca"), tempfile::tempdir().unwrap());
    let dir = dir.path().join("a/identity");
    assert!(!Material::exists(&dir));
    assert_eq!(Identity::load(&dir).unwrap_err().code(), "PV-TLS-FILE");
    for _ in 0..2 {
        let material = ca.issue(&leaf(NODE));
        material.store(&dir).unwrap();
        let loaded = Material::load(&dir).unwrap();
        assert_eq!(
            (loaded.certificate, loaded.bundle, &*loaded.key),
            (material.certificate, material.bundle, &*material.key)
        );
    }
    assert_eq!((mode(&dir), mode(&dir.join("key.pem"))), (0o700, 0o600));
    let mut files: Vec<_> = fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(files, ["bundle.pem", "cert.pem", "key.pem"]);
    assert_eq!(Identity::load(&dir).unwrap().name().to_string(), NODE);
}

/// Every state that a crash inside `store` can leave loads as the old or the new pair.
#[test]
fn a_crash_between_the_files_leaves_a_pair() {
    let ca = Authority::new("ca");
    let (old, new) = (ca.issue(&leaf(NODE)), ca.issue(&leaf(NODE)));
    // Which steps were done: key.next, certificate, the key in place.
    for (next, certificate, renamed, is_new) in [
        (false, false, false, false),
        (true, false, false, false),
        (true, true, false, true),
        (false, true, true, true),
    ] {
        let dir = tempfile::tempdir().unwrap();
        old.store(dir.path()).unwrap();
        let key_file = |name: &str| {
            fs::write(dir.path().join(name), new.key.as_bytes()).unwrap();
            fs::set_permissions(dir.path().join(name), Permissions::from_mode(0o600)).unwrap();
        };
        if next {
            key_file("key.next");
        }
        if certificate {
            fs::write(dir.path().join("cert.pem"), &new.certificate).unwrap();
        }
        if renamed {
            key_file("key.pem");
        }
        let expected = if is_new { &new } else { &old };
        for _ in 0..2 {
            let loaded = Material::load(dir.path()).unwrap();
            assert_eq!((&loaded.certificate, &*loaded.key), (&expected.certificate, &*expected.key));
            Identity::new(&loaded).unwrap();
            assert!(!dir.path().join("key.next").exists());
        }
    }
    // A half-written one is dropped.
    let dir = tempfile::tempdir().unwrap();
    old.store(dir.path()).unwrap();
    fs::write(dir.path().join("key.next"), &new.key.as_bytes()[..40]).unwrap();
    assert_eq!(*Material::load(dir.path()).unwrap().key, *old.key);
}

#[test]
fn keys_that_others_can_read_are_refused() {
    let (ca, dir) = (Authority::new("ca"), tempfile::tempdir().unwrap());
    let material = ca.issue(&leaf(NODE));
    material.store(dir.path()).unwrap();
    let key = dir.path().join("key.pem");
    for (bits, good) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false), (0o622, false)] {
        fs::set_permissions(&key, Permissions::from_mode(bits)).unwrap();
        let loaded = Identity::load(dir.path());
        assert_eq!(
            loaded.map(drop).map_err(|e| e.code()),
            if good { Ok(()) } else { Err("PV-TLS-KEY-MODE") },
            "{bits:o}"
        );
    }
    let operator = tempfile::tempdir().unwrap();
    write_operator(operator.path(), &material);
    for (bits, good) in [(0o600, true), (0o640, true), (0o644, false)] {
        fs::set_permissions(operator.path().join("key.pem"), Permissions::from_mode(bits)).unwrap();
        let loaded = Identity::load_operator(operator.path());
        assert_eq!(
            loaded.map(drop).map_err(|e| e.code()),
            if good { Ok(()) } else { Err("PV-TLS-KEY-MODE") },
            "{bits:o}"
        );
    }
}

fn write_operator(dir: &Path, material: &Material) {
    fs::write(dir.join("key.pem"), material.key.as_bytes()).unwrap();
    fs::set_permissions(dir.join("key.pem"), Permissions::from_mode(0o600)).unwrap();
    fs::write(dir.join("cert.pem"), &material.certificate).unwrap();
    fs::write(dir.join("ca.pem"), &material.bundle).unwrap();
}

#[test]
fn an_operators_files_must_name_a_node() {
    let (ca, dir) = (Authority::new("ca"), tempfile::tempdir().unwrap());
    let mut nameless = leaf(NODE);
    nameless.uris.clear();
    write_operator(dir.path(), &ca.issue(&nameless));
    let error = Identity::load_operator(dir.path()).unwrap_err();
    assert_eq!(error.code(), "PV-TLS-NAME");
    assert!(error.to_string().contains("spiffe://CLUSTER/ROLES/ID"), "{error}");
    write_operator(dir.path(), &ca.issue(&leaf(NODE)));
    Identity::load_operator(dir.path()).unwrap();
    let refused = || Identity::load_operator(dir.path()).unwrap_err();
    fs::write(dir.path().join("ca.pem"), &Authority::new("other").pem).unwrap();
    assert_eq!(refused().code(), "PV-TLS-CERTIFICATE");
    assert!(refused().to_string().contains("ca.pem"), "{}", refused());
    fs::write(dir.path().join("ca.pem"), "nothing").unwrap();
    assert_eq!(refused().code(), "PV-TLS-CERTIFICATE");
    fs::remove_file(dir.path().join("ca.pem")).unwrap();
    assert_eq!(refused().code(), "PV-TLS-FILE");
    for not_now in [leaf(NODE).ended(), leaf(NODE).not_begun()] {
        write_operator(dir.path(), &ca.issue(&not_now));
        assert_eq!(refused().code(), "PV-TLS-EXPIRED");
    }
    let mut mixed = ca.issue(&leaf(NODE));
    mixed.key = ca.issue(&leaf(NODE)).key;
    write_operator(dir.path(), &mixed);
    assert_eq!(refused().code(), "PV-TLS-CERTIFICATE");
}

#[tokio::test]
async fn an_operators_new_files_are_taken_over_and_bad_ones_are_not() {
    let (ca, dir) = (Authority::new("ca"), tempfile::tempdir().unwrap());
    write_operator(dir.path(), &ca.issue(&leaf(NODE).for_seconds(60)));
    let identity = Arc::new(Identity::load_operator(dir.path()).unwrap());
    let first = identity.expires();
    let follow = follow_operator(identity.clone(), dir.path().to_owned(), Duration::from_millis(20));
    let following = tokio::spawn(follow).abort_handle();
    write_operator(dir.path(), &ca.issue(&leaf("spiffe://acme/control-plane/2").for_seconds(300)));
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(identity.expires(), first);
    write_operator(dir.path(), &ca.issue(&leaf(NODE).for_seconds(600)));
    for _ in 0..1_200 {
        if identity.expires() > first {
            following.abort();
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the new certificate was not taken over");
}
