//! What a witness keeps: its name, its key, and the last checkpoint that it cosigned of each log.
//!
//! ```text
//! STATE/name              the witness's name
//! STATE/key               its Ed25519 key, PKCS#8, mode 600
//! STATE/logs/HASH         the last cosigned checkpoint, a signed note; HASH: SHA-256 of the origin
//! ```
//!
//! Invariants: a new checkpoint is on disk (file and folder fsynced) before its cosignature leaves;
//! state that cannot be read stops the witness, because one that forgot would cosign a fork. For the
//! same reason a key whose `logs` folder is gone is refused: make a new witness, under a new key.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use provost_audit_core::{AddCheckpoint, VerifierKey};
use provost_audit_core::{CosignerKey, Hash, NoteSigner, Refusal, SignedNote, TreeHead, WitnessPolicy};
use provost_audit_store::CheckpointKey;
use provost_audit_verify::Ed25519;

use crate::failure::Failure;

const NAME_FILE: &str = "name";
const KEY_FILE: &str = "key";
const LOGS_DIR: &str = "logs";

/// A witness's key under its name.
pub struct WitnessKey {
    name: String,
    key: CheckpointKey,
}

impl WitnessKey {
    /// Makes the key of a new witness, or opens the one that is there.
    pub fn make(dir: &Path, name: Option<&str>) -> anyhow::Result<Self> {
        if dir.join(KEY_FILE).exists() {
            let found = Self::open(dir)?;
            if name.is_some_and(|name| name != found.name) {
                let text = format!("the witness in {} is called {}", dir.display(), found.name);
                return Err(
                    Failure::new("PV-WITNESS-STATE", text, "a new name is a new witness: use a new --state").into()
                );
            }
            return Ok(found);
        }
        let Some(name) = name else {
            let text = format!("there is no witness in {} yet", dir.display());
            return Err(Failure::new(
                "PV-WITNESS-STATE",
                text,
                "make one: give --name, such as witness.example.com/w1",
            )
            .into());
        };
        if name.is_empty() || name.contains('+') || name.chars().any(|c| c.is_whitespace() || c.is_control()) {
            let text = format!("`{name}` is no name of a key: it may hold neither spaces nor `+`");
            return Err(Failure::new("PV-WITNESS-STATE", text, "write one such as witness.example.com/w1").into());
        }
        fs::create_dir_all(dir.join(LOGS_DIR)).map_err(|e| state_error(dir, &e))?;
        replace(&dir.join(NAME_FILE), format!("{name}\n").as_bytes()).map_err(|e| state_error(dir, &e))?;
        // The key comes last: with it the rest is there.
        Ok(Self { name: name.to_owned(), key: CheckpointKey::open(&dir.join(KEY_FILE))? })
    }

    /// Opens a witness that was made.
    pub fn open(dir: &Path) -> anyhow::Result<Self> {
        if !dir.join(KEY_FILE).exists() {
            let text = format!("there is no witness in {}", dir.display());
            let hint = "make one with `provost audit witness key --state DIR --name NAME`";
            return Err(Failure::new("PV-WITNESS-STATE", text, hint).into());
        }
        if !dir.join(LOGS_DIR).is_dir() {
            let text = format!("{} has a key, but what it cosigned is gone", dir.display());
            let hint = "restore the whole folder, or retire this witness and make another under a new key: this one \
                        could cosign a fork";
            return Err(Failure::new("PV-WITNESS-STATE", text, hint).into());
        }
        let name = fs::read_to_string(dir.join(NAME_FILE)).map_err(|e| state_error(&dir.join(NAME_FILE), &e))?;
        Ok(Self { name: name.trim_end().to_owned(), key: CheckpointKey::open(&dir.join(KEY_FILE))? })
    }

    /// The public half, for policies.
    pub fn public(&self) -> CosignerKey {
        CosignerKey { name: self.name.clone(), public_key: self.key.public_key() }
    }
}

/// A witness: decides and remembers. One request at a time; the caller sees to that.
pub struct Witness {
    dir: PathBuf,
    key: WitnessKey,
    policy: WitnessPolicy,
}

/// Why there is no cosignature.
#[derive(Debug, thiserror::Error)]
pub enum WitnessError {
    /// The request is refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The state cannot be read or written; nothing is cosigned.
    #[error("PV-WITNESS-STATE: {path}: {why}")]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

impl Witness {
    /// Opens the witness in `dir` for the logs of `policy`.
    pub fn open(dir: &Path, policy: WitnessPolicy) -> anyhow::Result<Self> {
        let key = WitnessKey::open(dir)?;
        if policy.logs.is_empty() {
            let hint = "write a line `log VKEY` for each log to be witnessed";
            return Err(Failure::new("PV-WITNESS-POLICY", "the policy lists no log".to_owned(), hint).into());
        }
        Ok(Self { dir: dir.to_owned(), key, policy })
    }

    /// The public half of its key.
    pub fn public(&self) -> CosignerKey {
        self.key.public()
    }

    /// Answers a request body: the cosignature line, made after the new state is on disk.
    pub fn add_checkpoint(&self, body: &[u8], now_s: u64) -> Result<String, WitnessError> {
        let request = AddCheckpoint::parse(body)?;
        let origin = request.origin().to_owned();
        let logs = self.policy.logs.iter().map(|log| &log.key);
        let keys: Vec<VerifierKey> = logs.filter(|key| key.name == origin).cloned().collect();
        // An unknown log leaves no trace on disk.
        if keys.is_empty() {
            return Err(Refusal::UnknownLog(origin).into());
        }
        let path = self.dir.join(LOGS_DIR).join(Hash::of(origin.as_bytes()).to_string());
        let held = read(&path, &origin)?;
        let (head, text) = request.check(&keys, held.as_ref(), &Ed25519)?;
        let line = CosignerKey::cosign(&self.key.name, text, now_s, &self.key.key);
        let kept = format!("{}{line}", request.note);
        let state = |e: io::Error| WitnessError::State { path: path.clone(), why: e.to_string() };
        replace(&path, kept.as_bytes()).map_err(state)?;
        tracing::info!(log = origin, size = head.size, root = %head.root, "cosigned");
        Ok(line)
    }
}

/// What was cosigned last, or none.
fn read(path: &Path, origin: &str) -> Result<Option<TreeHead>, WitnessError> {
    let wrong = |why: String| WitnessError::State { path: path.to_owned(), why };
    let note = match fs::read_to_string(path) {
        Ok(note) => note,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(wrong(e.to_string())),
    };
    let head = SignedNote::parse(&note).map_err(|e| wrong(e.to_string()))?;
    let head = TreeHead::parse_text(head.text).map_err(|e| wrong(e.to_string()))?;
    if head.origin != origin {
        return Err(wrong(format!("it is of {}", head.origin)));
    }
    Ok(Some(head))
}

/// Replaces a file so that after any crash the old or the new one is there, and the new one when
/// this returns.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

fn state_error(path: &Path, cause: &io::Error) -> anyhow::Error {
    let text = format!("{}: {cause}", path.display());
    Failure::new("PV-WITNESS-STATE", text, "check space and permissions of the state folder").into()
}
