//! Models that are declared, there, missing and slow to read.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs::OpenOptions;
use std::process::Command;
use std::sync::mpsc;

use super::*;

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../infer/tests/fixtures")
}

fn declared(models: &[(&str, &str)]) -> Declared {
    let spec = |text: &str| Arc::new(serde_json::from_str(text).unwrap());
    models.iter().map(|(name, text)| ((*name).to_owned(), spec(text))).collect()
}

fn at(path: &Path, more: &str) -> String {
    format!(r#"{{"source":{{"path":{}}}{more}}}"#, serde_json::to_string(path).unwrap())
}

fn failure(catalogue: &Catalogue, name: &str) -> String {
    catalogue.find(name).unwrap().source.as_ref().unwrap_err().to_string()
}

#[test]
fn what_is_declared_is_there_and_hides_the_directory() {
    let catalogue = Catalogue::new(Some(fixtures()), None, BTreeMap::new());
    let own = catalogue.find("tiny-chat").unwrap();
    assert!(!own.is_declared());
    let qwen = at(&fixtures().join("tiny-qwen3"), r#","contextTokens":9"#);
    assert!(catalogue.declare(declared(&[("tiny-chat", &qwen), ("second", &qwen)])));
    let found = catalogue.find("tiny-chat").unwrap();
    assert_eq!(found.source.as_ref().unwrap().info().architecture, "qwen3");
    let context = |name: &str| catalogue.models().iter().find(|m| m.name == name).map(|m| m.context_tokens);
    assert_eq!((context("second"), context("tiny-qwen3").map(|tokens| tokens > 9)), (Some(9), Some(true)));
    // What is about the use of a model and not its files leaves it as it is.
    let other = at(&fixtures().join("tiny-qwen3"), r#","priority":"critical","pinned":true"#);
    assert!(catalogue.declare(declared(&[("tiny-chat", &other)])));
    assert!(Arc::ptr_eq(&found, &catalogue.find("tiny-chat").unwrap()));
    assert_eq!(catalogue.pinned(), ["tiny-chat"]);
    assert!(catalogue.find("second").is_none());
    assert!(!catalogue.declare(declared(&[("tiny-chat", &other)])), "nothing has changed");
    catalogue.declare(Declared::new());
    assert_eq!(catalogue.find("tiny-chat").unwrap().source.as_ref().unwrap().info().architecture, "llama");
}

#[test]
fn what_is_there_is_found_while_the_headers_of_another_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("slow.gguf");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let catalogue = Arc::new(Catalogue::new(Some(fixtures()), None, BTreeMap::new()));
    assert!(catalogue.find("tiny-chat").is_some());
    let (of_declare, slow) = (catalogue.clone(), declared(&[("slow", &at(&pipe, ""))]));
    let declaring = std::thread::spawn(move || of_declare.declare(slow));
    // From then on it reads headers, and it cannot open the pipe before its other end is.
    while catalogue.declared("slow").is_none() {
        std::thread::yield_now();
    }
    let (of_find, (said, heard)) = (catalogue.clone(), mpsc::channel());
    std::thread::spawn(move || {
        let found = ["tiny-chat", "slow"].map(|name| of_find.find(name).is_some());
        said.send((found, of_find.declared("slow").is_some(), of_find.is_told())).unwrap();
    });
    let found = heard.recv_timeout(Duration::from_secs(60)).expect("the catalogue is locked while a header is read");
    assert_eq!(found, ([true, false], true, false));
    drop(OpenOptions::new().write(true).open(&pipe).unwrap());
    assert!(declaring.join().unwrap());
    assert!(catalogue.is_told());
    assert!(catalogue.lock().entries.get("slow").is_some_and(|slow| slow.source.is_err()));
}

#[test]
fn what_was_for_some_is_there_for_nobody_by_other_rules_while_headers_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("slow.gguf");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let tuned = AdapterModel { base: "gone".to_owned(), path: dir.path().join("tuned") };
    let hidden = AdapterModel { base: "stays".to_owned(), path: dir.path().join("hidden") };
    let adapters = BTreeMap::from([("tuned".to_owned(), tuned), ("hidden".to_owned(), hidden)]);
    let catalogue = Arc::new(Catalogue::new(Some(fixtures()), None, adapters));
    let (chat, qwen) = (fixtures().join("tiny-chat"), fixtures().join("tiny-qwen3"));
    let (of_acme, of_all) = (at(&chat, r#","tenants":["acme"]"#), at(&chat, ""));
    let before = [("gone", &*of_acme), ("opened", &*of_acme), ("replaced", &*of_acme), ("stays", &*of_acme)];
    assert!(catalogue.declare(declared(&before)));
    let names = ["gone", "tuned", "opened", "replaced", "hidden", "stays", "tiny-chat"];
    assert!(names.iter().all(|name| catalogue.find(name).is_some()));
    let opened = catalogue.find("opened").unwrap();
    let (other, slow) = (at(&qwen, ""), at(&pipe, ""));
    let after =
        [("hidden", &*other), ("opened", &*of_all), ("replaced", &*other), ("slow", &*slow), ("stays", &*of_acme)];
    let (of_declare, after) = (Arc::clone(&catalogue), declared(&after));
    let declaring = std::thread::spawn(move || of_declare.declare(after));
    // From then on it reads headers, and it cannot open the pipe before its other end is.
    while catalogue.declared("slow").is_none() {
        std::thread::yield_now();
    }
    let found = names.map(|name| catalogue.find(name).is_some());
    assert_eq!(found, [false, false, false, false, false, true, true]);
    assert!(catalogue.is_seen_by("stays", "acme") && !catalogue.is_seen_by("stays", "umbra"));
    drop(OpenOptions::new().write(true).open(&pipe).unwrap());
    assert!(declaring.join().unwrap());
    let scan = catalogue.lock();
    let found = names.map(|name| scan.entries.contains_key(name));
    assert_eq!(found, [false, true, true, true, true, true, true]);
    assert!(scan.entries.get("opened").is_some_and(|now| Arc::ptr_eq(now, &opened)), "its files are what they were");
}

#[test]
fn what_came_is_seen_by_the_next_who_asks() {
    let dir = tempfile::tempdir().unwrap();
    let catalogue = Catalogue::new(Some(dir.path().to_owned()), None, BTreeMap::new());
    assert!(catalogue.find("tiny-chat").is_none());
    let model = dir.path().join("tiny-chat");
    std::fs::create_dir(&model).unwrap();
    for file in std::fs::read_dir(fixtures().join("tiny-chat")).unwrap().flatten().map(|file| file.path()) {
        std::fs::copy(&file, model.join(file.file_name().unwrap())).unwrap();
    }
    catalogue.look_again();
    let found = catalogue.find("tiny-chat").unwrap();
    assert!(found.source.is_ok());
    catalogue.look_again();
    assert!(Arc::ptr_eq(&found, &catalogue.find("tiny-chat").unwrap()), "it has not changed");
}

#[test]
fn what_is_not_there_or_otherwise_than_declared_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let store = ModelStore::of_data_dir(dir.path());
    let digest = store.import(&fixtures().join("tiny-chat"), "tiny").unwrap().manifest.digest;
    let catalogue = Catalogue::new(None, Some(store), BTreeMap::new());
    let blob = |digest: &str, more: &str| format!(r#"{{"source":{{"blob":"{digest}"}}{more}}}"#);
    let absent = format!("sha256:{}", "1".repeat(64));
    catalogue.declare(declared(&[
        ("good", &blob(&digest.to_string(), r#","format":"safetensors","dtype":"f32""#)),
        ("absent", &blob(&absent, "")),
        ("nowhere", &at(&dir.path().join("nowhere"), "")),
        ("format", &blob(&digest.to_string(), r#","format":"gguf""#)),
        ("dtype", &blob(&digest.to_string(), r#","dtype":"bf16""#)),
    ]));
    let good = catalogue.find("good").unwrap();
    assert_eq!(good.digest(), Some(digest));
    good.check().unwrap();
    assert!(failure(&catalogue, "absent").starts_with("PV-MODEL-MISSING"));
    assert!(failure(&catalogue, "absent").contains(&absent));
    assert!(failure(&catalogue, "nowhere").starts_with("PV-MODEL-MISSING"));
    assert!(failure(&catalogue, "format").starts_with("PV-MODEL-DIFFERS"));
    assert!(failure(&catalogue, "dtype").contains("stored as f32"));
    let names: Vec<String> = catalogue.models().into_iter().map(|model| model.name).collect();
    assert_eq!(names, ["good"]);
    // A node without a store says so.
    let other = Catalogue::new(None, None, BTreeMap::new());
    other.declare(declared(&[("good", &blob(&digest.to_string(), ""))]));
    assert!(failure(&other, "good").starts_with("PV-MODEL-MISSING"));
}
