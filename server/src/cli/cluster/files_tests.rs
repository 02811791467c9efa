use std::os::unix::fs::PermissionsExt;

use age::secrecy::ExposeSecret;

use super::*;

fn listing(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn temporary() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn read(path: &Path, identity: Option<&Path>) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path, identity)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn identity(dir: &Path, name: &str) -> (x25519::Recipient, PathBuf) {
    let key = x25519::Identity::generate();
    let path = dir.join(name);
    fs::write(&path, format!("# created for a test\n{}\n", key.to_string().expose_secret())).unwrap();
    (key.to_public(), path)
}

fn code(error: &anyhow::Error) -> String {
    format!("{error:#}").split(':').next().unwrap_or_default().to_owned()
}

#[test]
fn a_file_appears_whole_and_private_or_not_at_all() {
    let dir = temporary();
    let path = dir.path().join("b.pvb");
    let mut file = NewFile::create(&path, &[], false).unwrap();
    file.write(b"half").unwrap();
    assert_eq!(listing(dir.path()), ["b.pvb.part"]);
    drop(file);
    assert!(listing(dir.path()).is_empty());

    fs::write(dir.path().join("b.pvb.part"), "what a killed writer left").unwrap();
    let mut file = NewFile::create(&path, &[], false).unwrap();
    file.write(b"whole").unwrap();
    file.finish().unwrap();
    assert_eq!(listing(dir.path()), ["b.pvb"]);
    assert_eq!(read(&path, None).unwrap(), b"whole");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

    let error = NewFile::create(&path, &[], false).map(drop).unwrap_err();
    assert_eq!(code(&error), "PV-BACKUP-TARGET");
    let mut file = NewFile::create(&path, &[], true).unwrap();
    file.write(b"other").unwrap();
    file.finish().unwrap();
    assert_eq!(read(&path, None).unwrap(), b"other");
}

#[test]
fn what_is_encrypted_opens_for_its_recipients_only() {
    let dir = temporary();
    let path = dir.path().join("b.pvb");
    let ((ann, ann_key), (bob, bob_key)) = (identity(dir.path(), "ann"), identity(dir.path(), "bob"));
    let (_, eve_key) = identity(dir.path(), "eve");
    let text = b"PVBACKUP and what follows".repeat(10_000);
    let mut file = NewFile::create(&path, &[ann, bob], false).unwrap();
    text.chunks(999).for_each(|part| file.write(part).unwrap());
    file.finish().unwrap();
    assert_eq!(read(&path, Some(&ann_key)).unwrap(), text);
    assert_eq!(read(&path, Some(&bob_key)).unwrap(), text);
    for wrong in [None, Some(eve_key.as_path()), Some(Path::new("/no/such/file"))] {
        assert_eq!(code(&read(&path, wrong).unwrap_err()), "PV-BACKUP-IDENTITY");
    }
    let stored = fs::read(&path).unwrap();
    assert!(!stored.windows(8).any(|w| w == b"PVBACKUP"));
    let mut bad = stored.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    for damaged in [&bad[..], &stored[..stored.len() - 1], &stored[..stored.len() - 20_000]] {
        fs::write(&path, damaged).unwrap();
        assert!(read(&path, Some(&ann_key)).is_err(), "{} bytes were taken", damaged.len());
    }
}

#[test]
fn recipients_are_checked_before_anything_is_written() {
    let key = x25519::Identity::generate().to_public().to_string();
    assert!(recipient(&key).is_ok());
    for bad in ["", "age1", &key[..key.len() - 1], "ssh-ed25519 AAAA"] {
        assert!(recipient(bad).is_err(), "{bad} was taken");
    }
}
