use super::*;
use crate::store::verify::Verified;

fn tiny() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../infer/tests/fixtures/tiny-chat")
}

fn store() -> (tempfile::TempDir, ModelStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = ModelStore::of_data_dir(dir.path());
    (dir, store)
}

/// Names of everything under a folder that is no folder.
fn files(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

#[test]
fn what_is_imported_is_whole_and_is_there_once() {
    let (dir, store) = store();
    let mut read = 0;
    let first = store.import_telling(&tiny(), "tiny", &mut |bytes| read += bytes).unwrap();
    assert!(!first.was_there);
    assert_eq!(read, 2 * first.manifest.bytes());
    let place = store.place_of(first.manifest.digest);
    for name in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"] {
        assert_eq!(fs::read(place.join(name)).unwrap(), fs::read(tiny().join(name)).unwrap(), "{name}");
    }
    assert_eq!((first.manifest.format.as_str(), first.manifest.dtype.as_str()), ("safetensors", "f32"));
    let before = files(dir.path());
    let again = store.import(&tiny(), "other").unwrap();
    assert!(again.was_there);
    assert_eq!((again.manifest.digest, files(dir.path())), (first.manifest.digest, before));
    assert_eq!(store.list().unwrap(), std::slice::from_ref(&first.manifest), "and keeps the name that it had");
    // It is a model by itself.
    ModelSource::open("tiny", &place).unwrap().load_chat_text().unwrap();
}

#[test]
fn what_an_import_left_that_ended_early_is_no_model_and_goes() {
    let (dir, store) = store();
    let manifest = store.import(&tiny(), "tiny").unwrap().manifest;
    // As a process leaves it that was killed while it copied, or before it renamed.
    fs::rename(store.place_of(manifest.digest), store.staging().join("coming")).unwrap();
    assert!(store.list().unwrap().is_empty());
    assert!(!store.place_of(manifest.digest).exists());
    fs::remove_file(store.staging().join("coming").join(MANIFEST)).unwrap();
    let again = store.import(&tiny(), "tiny").unwrap();
    assert!(!again.was_there);
    assert_eq!(files(&dir.path().join("models/staging")), Vec::<PathBuf>::new());
    check_files(&store.place_of(manifest.digest), manifest.digest).unwrap();
}

#[test]
fn what_is_no_model_leaves_nothing() {
    let (dir, store) = store();
    let from = tempfile::tempdir().unwrap();
    fs::write(from.path().join("config.json"), "{}").unwrap();
    let refused = store.import(from.path(), "bad").unwrap_err().to_string();
    assert!(refused.starts_with("PV-MODEL-"), "{refused}");
    assert_eq!(files(dir.path()), Vec::<PathBuf>::new());
    let refused = store.import(&from.path().join("nowhere"), "bad").unwrap_err().to_string();
    assert!(refused.starts_with("PV-MODEL-UNREADABLE"), "{refused}");
}

#[test]
fn a_copy_that_does_not_come_to_an_end_leaves_nothing() {
    let (dir, store) = store();
    let source = ModelSource::open("tiny", &tiny()).unwrap();
    let mut manifest = describe(&source, "tiny", &mut |_| {}).unwrap();
    manifest.files[0].bytes += 1;
    let staged = Staged(store.staging().join("coming"));
    let copied = copy(&source, &manifest, &staged.0, &mut |_| {});
    let changed = of_write(copied.err().unwrap(), &manifest, dir.path());
    assert!(matches!(changed, StoreError::Changed { .. }), "{changed}");
    drop(staged);
    assert_eq!(files(dir.path()), Vec::<PathBuf>::new());
    let full = of_write(Writing::Io(io::ErrorKind::StorageFull.into()), &manifest, dir.path()).to_string();
    assert!(full.starts_with("PV-MODEL-STORE-FULL") && full.contains(&manifest.bytes().to_string()), "{full}");
}

#[test]
fn one_import_at_a_time() {
    let (_dir, store) = store();
    make_dir(&store.root).unwrap();
    let lock = store.take_lock().unwrap();
    let refused = store.import(&tiny(), "tiny").unwrap_err();
    assert!(matches!(refused, StoreError::Busy { .. }), "{refused}");
    drop(lock);
    store.import(&tiny(), "tiny").unwrap();
}

/// Does something to a stored model.
type Damage = fn(&Path);

#[test]
fn what_was_changed_is_found_and_an_import_mends_it() {
    let (_dir, store) = store();
    let manifest = store.import(&tiny(), "tiny").unwrap().manifest;
    let place = store.place_of(manifest.digest);
    let verified = Verified::new(place.clone(), manifest.digest);
    verified.check("tiny").unwrap();
    let damages: [(&str, Damage); 5] = [
        ("model.safetensors is not what was imported", |place| {
            let path = place.join("model.safetensors");
            let mut bytes = fs::read(&path).unwrap();
            *bytes.last_mut().unwrap() ^= 1;
            let written = fs::metadata(&path).unwrap().modified().unwrap();
            fs::write(&path, bytes).unwrap();
            // The time of the change does not give it away.
            File::options().write(true).open(&path).unwrap().set_modified(written).unwrap();
        }),
        ("generation_config.json does not belong to it", |place| {
            fs::write(place.join("generation_config.json"), "{}").unwrap();
        }),
        ("tokenizer.json is not there", |place| fs::remove_file(place.join("tokenizer.json")).unwrap()),
        ("its manifest is not that of", |place| {
            let text = fs::read_to_string(place.join(MANIFEST)).unwrap();
            fs::write(place.join(MANIFEST), text.replacen("\"bytes\": ", "\"bytes\": 1", 1)).unwrap();
        }),
        ("config.json is no file", |place| {
            fs::remove_file(place.join("config.json")).unwrap();
            std::os::unix::fs::symlink(tiny().join("config.json"), place.join("config.json")).unwrap();
        }),
    ];
    for (said, damage) in damages {
        // The clock of a file system may tick a few hundred times a second only.
        std::thread::sleep(std::time::Duration::from_millis(20));
        damage(&place);
        let found = verified.check("tiny").unwrap_err().to_string();
        assert!(found.starts_with("PV-MODEL-DIGEST") && found.contains(said), "{found}");
        assert!(!store.import(&tiny(), "tiny").unwrap().was_there, "{said}");
        verified.check("tiny").unwrap();
    }
}

#[test]
fn what_changes_after_it_was_checked_is_noticed_once_it_was_read() {
    let (_dir, store) = store();
    let digest = store.import(&tiny(), "tiny").unwrap().manifest.digest;
    let stored = Verified::new(store.place_of(digest), digest);
    assert!(stored.check_same("tiny").is_err(), "nothing was checked");
    stored.check("tiny").unwrap();
    stored.check_same("tiny").unwrap();
    // Another file in its place, and the first one again: what was read between is anything.
    let file = store.place_of(digest).join("config.json");
    let right = fs::read(&file).unwrap();
    fs::rename(&file, store.root().join("aside")).unwrap();
    fs::write(&file, &right).unwrap();
    let told = stored.check_same("tiny").unwrap_err().to_string();
    assert!(told.starts_with("PV-MODEL-DIGEST") && told.contains("while they were read"), "{told}");
    stored.check("tiny").unwrap();
    stored.check_same("tiny").unwrap();
}
