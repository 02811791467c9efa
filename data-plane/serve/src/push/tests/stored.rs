//! The file: what is written is read back, and nothing else is.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use super::World;
use crate::push::{Pushed, last_good::LastGood, mirror::Mirror};

fn pushed() -> Arc<Pushed> {
    let mut world = World::new();
    world.key_ring.insert(3, "wrapped".into());
    Mirror::default().whole(world.whole()).unwrap().unwrap()
}

#[test]
fn what_is_saved_is_read_back_with_the_later_of_both_moments() {
    let dir = tempfile::tempdir().unwrap();
    let at = |s| Some(UNIX_EPOCH + Duration::from_secs(s));
    let inner = dir.path().join("new/folder");
    let (store, nothing) = LastGood::open(&inner, "test").unwrap();
    assert!(nothing.is_none());
    for (saved, stamped, expect) in
        [(None, None, None), (at(50), None, at(50)), (at(50), at(70), at(70)), (at(90), None, at(90))]
    {
        store.save(&pushed(), saved).unwrap();
        if let Some(stamped) = stamped {
            store.stamp(stamped).unwrap();
        }
        let loaded = LastGood::open(&inner, "test").unwrap().1.unwrap();
        assert_eq!((loaded.pushed, loaded.confirmed), ((*pushed()).clone(), expect));
    }
    assert_eq!(fs::metadata(inner.join("last-good")).unwrap().permissions().mode() & 0o777, 0o600);
    let names: Vec<_> = fs::read_dir(&inner).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
}

#[test]
fn a_damaged_file_is_put_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("last-good");
    let (store, _) = LastGood::open(dir.path(), "test").unwrap();
    store.save(&pushed(), None).unwrap();
    let good = fs::read(&path).unwrap();
    let flipped = (0..good.len()).step_by(7).chain([0, 8, 12, good.len() - 1]).map(|i| {
        let mut bad = good.clone();
        bad[i] ^= 0x10;
        bad
    });
    let cut = [0, 1, 11, 12, 40, good.len() - 1].map(|n| good[..n].to_vec());
    let longer = [good.iter().copied().chain([b'\n']).collect::<Vec<_>>()];
    for bad in flipped.chain(cut).chain(longer) {
        fs::write(&path, &bad).unwrap();
        assert!(LastGood::open(dir.path(), "test").unwrap().1.is_none());
        assert!(!path.exists());
        assert_eq!(fs::read(dir.path().join("last-good.aside")).unwrap(), bad);
    }
    fs::write(&path, &good).unwrap();
    assert!(LastGood::open(dir.path(), "other").unwrap().1.is_none(), "a state of another cluster was taken");
    fs::write(&path, &good).unwrap();
    assert!(LastGood::open(dir.path(), "test").unwrap().1.is_some());
}

#[test]
fn a_crash_while_writing_leaves_the_old_state() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = LastGood::open(dir.path(), "test").unwrap();
    store.save(&pushed(), None).unwrap();
    fs::write(dir.path().join("last-good.tmp"), b"PVSTGOOD and then the power").unwrap();
    assert!(LastGood::open(dir.path(), "test").unwrap().1.is_some());
    store.save(&pushed(), None).unwrap();
    assert!(!dir.path().join("last-good.tmp").exists());
}

#[test]
fn a_folder_that_cannot_be_made_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), b"").unwrap();
    let error = LastGood::open(&dir.path().join("file/folder"), "test").map(drop).unwrap_err();
    assert!(error.to_string().starts_with("PV-PUSH-STORE"), "{error}");
}
