//! Taking stored models that nothing needs off the disk.
//!
//! Invariants: what a declared model names stays, and so does what a request still uses that began before its model was declared
//! no more; while the node was not told what is declared, nothing goes.

use std::collections::BTreeSet;

use provost_types::FileDigest;

use crate::catalogue::Catalogue;
use crate::orders::ModelRefusal;
use crate::store::{Manifest, ModelStore, StoreError};

/// A stored model, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredModel {
    /// Its digest.
    pub digest: FileDigest,
    /// What it was called when it was imported; empty: that cannot be read.
    pub name: String,
    /// Bytes of its files.
    pub bytes: u64,
    /// The declared models that name it.
    pub used_by: Vec<String>,
    /// Requests use it that began before its model was declared no more.
    pub in_use: bool,
    /// It was removed; or would be, where that was asked.
    pub removed: bool,
}

/// What is to be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removal {
    /// All that nothing uses.
    Unused,
    /// The model of this digest, or that was imported under this name.
    Of(String),
}

/// Looks at the stored models that are meant and, unless this is for show, removes those that nothing uses. Reads and writes the
/// disk. `in_use` are those that requests use though they are not declared.
pub(crate) fn remove(
    catalogue: &Catalogue,
    what: &Removal,
    is_for_show: bool,
    in_use: &BTreeSet<FileDigest>,
) -> Result<Vec<StoredModel>, ModelRefusal> {
    let Some(store) = catalogue.store() else {
        return Err(ModelRefusal(
            "PV-MODEL-NOT-FOUND: this node has no store of models; look at another one".to_owned(),
        ));
    };
    if !catalogue.is_told() {
        let text = "PV-MODEL-STORE-BUSY: the node does not know yet which models are declared; try again in a moment";
        return Err(ModelRefusal(text.to_owned()));
    }
    let mut stored: Vec<StoredModel> = meant(store, what)?
        .into_iter()
        .map(|(digest, name, bytes)| {
            let (used_by, in_use) = (catalogue.named(digest), in_use.contains(&digest));
            StoredModel { digest, name, bytes, removed: used_by.is_empty() && !in_use, used_by, in_use }
        })
        .collect();
    if let (Removal::Of(_), Some(kept)) = (what, stored.iter().find(|model| !model.removed)) {
        return Err(used(kept));
    }
    for model in stored.iter_mut().filter(|model| model.removed && !is_for_show) {
        let digest = model.digest;
        model.removed = store.remove(digest, || catalogue.named(digest).is_empty()).map_err(of_store)?;
        if model.removed {
            tracing::info!(%digest, name = model.name, bytes = model.bytes, "a stored model was removed");
        } else {
            // It was declared just now, or somebody else has removed it.
            model.used_by = catalogue.named(digest);
        }
    }
    Ok(stored)
}

/// Digest, name and bytes of the stored models that are meant.
fn meant(store: &ModelStore, what: &Removal) -> Result<Vec<(FileDigest, String, u64)>, ModelRefusal> {
    let of = |manifest: &Manifest| (manifest.digest, manifest.name.clone(), manifest.bytes());
    let wanted = match what {
        Removal::Unused => return Ok(store.list().map_err(of_store)?.iter().map(of).collect()),
        Removal::Of(wanted) => wanted,
    };
    if let Ok(digest) = wanted.parse::<FileDigest>() {
        return match store.manifest_of(digest) {
            Ok(Some(manifest)) => Ok(vec![of(&manifest)]),
            Ok(None) => Err(unknown(wanted)),
            // Its manifest is damaged: it can be removed by its digest only.
            Err(_) => Ok(vec![(digest, String::new(), 0)]),
        };
    }
    let all = store.list().map_err(of_store)?;
    let called: Vec<_> = all.iter().filter(|manifest| manifest.name == *wanted).map(of).collect();
    match called.len() {
        0 => Err(unknown(wanted)),
        1 => Ok(called),
        several => {
            let digests: Vec<String> = called.iter().map(|(digest, ..)| digest.to_string()).collect();
            let digests = digests.join(", ");
            Err(ModelRefusal(format!(
                "PV-MODEL-AMBIGUOUS: {several} stored models were imported as `{wanted}` ({digests}); name one by its digest"
            )))
        }
    }
}

fn unknown(wanted: &str) -> ModelRefusal {
    ModelRefusal(format!(
        "PV-MODEL-NOT-FOUND: the store of this node has no model `{wanted}`; `provost model prune --dry-run` lists what stores have"
    ))
}

fn used(model: &StoredModel) -> ModelRefusal {
    let digest = model.digest;
    if model.used_by.is_empty() {
        return ModelRefusal(format!(
            "PV-MODEL-IN-USE: requests that began before its model was deleted use {digest}; wait until they have ended"
        ));
    }
    let names: Vec<String> = model.used_by.iter().map(|name| format!("`{name}`")).collect();
    let names = names.join(", ");
    ModelRefusal(format!(
        "PV-MODEL-IN-USE: {digest} is what Model {names} names; delete that first, or name other files there"
    ))
}

fn of_store(cause: StoreError) -> ModelRefusal {
    ModelRefusal(cause.to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::{Path, PathBuf};
    use std::sync::Arc;

    use super::*;

    fn fixture(name: &str) -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../infer/tests/fixtures").join(name)
    }

    fn catalogue(dir: &Path) -> Catalogue {
        Catalogue::new(None, Some(ModelStore::of_data_dir(dir)), BTreeMap::new())
    }

    fn declare(catalogue: &Catalogue, models: &[(&str, FileDigest)]) {
        let spec = |digest: &FileDigest| {
            let text = format!(r#"{{"source":{{"blob":"{digest}"}}}}"#);
            Arc::new(serde_json::from_str(&text).unwrap())
        };
        catalogue.declare(models.iter().map(|(name, digest)| ((*name).to_owned(), spec(digest))).collect());
    }

    fn of(text: &str) -> Removal {
        Removal::Of(text.to_owned())
    }

    #[test]
    fn what_is_named_or_used_stays_and_the_rest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let store = ModelStore::of_data_dir(dir.path());
        let chat = store.import(&fixture("tiny-chat"), "tiny").unwrap().manifest;
        let qwen = store.import(&fixture("tiny-qwen3"), "qwen").unwrap().manifest;
        let (catalogue, nobody) = (catalogue(dir.path()), BTreeSet::new());
        let refusal = |what: &Removal, in_use: &BTreeSet<FileDigest>| {
            remove(&catalogue, what, false, in_use).unwrap_err().to_string()
        };
        assert!(
            refusal(&Removal::Unused, &nobody).starts_with("PV-MODEL-STORE-BUSY"),
            "it was not told what is declared"
        );
        declare(&catalogue, &[("a", chat.digest), ("b", chat.digest)]);
        let refused = refusal(&of("tiny"), &nobody);
        assert!(refused.starts_with("PV-MODEL-IN-USE") && refused.contains("`a`, `b`"), "{refused}");
        assert!(refusal(&of(&chat.digest.to_string()), &nobody).contains("`a`, `b`"));
        let refused = refusal(&of("qwen"), &BTreeSet::from([qwen.digest]));
        assert!(refused.starts_with("PV-MODEL-IN-USE") && refused.contains("requests"), "{refused}");
        for other in ["other", &format!("sha256:{}", "0".repeat(64)), "../blobs"] {
            assert!(refusal(&of(other), &nobody).starts_with("PV-MODEL-NOT-FOUND"), "{other}");
        }
        // It is only said.
        let said = remove(&catalogue, &Removal::Unused, true, &nobody).unwrap();
        let goes = |all: &[StoredModel]| {
            all.iter().filter(|model| model.removed).map(|model| model.digest).collect::<Vec<_>>()
        };
        assert_eq!((said.len(), goes(&said)), (2, vec![qwen.digest]));
        assert!(store.has(qwen.digest));
        let done = remove(&catalogue, &Removal::Unused, false, &nobody).unwrap();
        assert_eq!(goes(&done), [qwen.digest]);
        let gone = done.iter().find(|model| model.removed).unwrap();
        assert_eq!((gone.bytes, gone.name.as_str()), (qwen.bytes(), "qwen"));
        assert!(!store.has(qwen.digest) && store.has(chat.digest));
        declare(&catalogue, &[]);
        assert_eq!(goes(&remove(&catalogue, &of("tiny"), false, &nobody).unwrap()), [chat.digest]);
        assert!(store.list().unwrap().is_empty());
    }

    #[test]
    fn a_name_that_two_were_imported_under_is_not_enough_and_a_damaged_one_goes_by_its_digest() {
        let dir = tempfile::tempdir().unwrap();
        let store = ModelStore::of_data_dir(dir.path());
        let chat = store.import(&fixture("tiny-chat"), "same").unwrap().manifest.digest;
        store.import(&fixture("tiny-qwen3"), "same").unwrap();
        let (catalogue, nobody) = (catalogue(dir.path()), BTreeSet::new());
        declare(&catalogue, &[]);
        let refused = remove(&catalogue, &of("same"), false, &nobody).unwrap_err().to_string();
        assert!(refused.starts_with("PV-MODEL-AMBIGUOUS") && refused.contains(&chat.to_string()), "{refused}");
        std::fs::write(store.place_of(chat).join("manifest.json"), "{").unwrap();
        assert!(remove(&catalogue, &of(&chat.to_string()), false, &nobody).unwrap()[0].removed);
        assert!(!store.has(chat));
    }
}
