//! How far one receiver has taken the logs: a small file that is replaced as a whole.
//!
//! After a crash the file holds the positions before or after the last batch, never a mixture. A
//! file that cannot be read is an error, because starting anew would send everything again, or
//! nothing.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use provost_audit_core::LogId;
use provost_types::Name;
use serde::{Deserialize, Serialize};

use crate::{
    export::log_name,
    persist::{replace, sync_dir},
};

/// The form's version.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CursorFile {
    v: u32,
    /// The next record to be sent, by log.
    next: BTreeMap<String, u64>,
}

pub(super) struct Cursor {
    path: PathBuf,
    positions: Option<BTreeMap<LogId, u64>>,
}

impl Cursor {
    /// Reads `DIR/NAME.cursor`, which is absent before the first start.
    pub(super) fn open(dir: &Path, name: &str) -> Result<Self, String> {
        fs::create_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        let path = dir.join(format!("{name}.cursor"));
        let wrong = |why: String| {
            format!(
                "the cursor {} cannot be used: {why}; restore it, or remove it to send everything again",
                path.display()
            )
        };
        let positions = match fs::read(&path) {
            Ok(bytes) => Some(read(&bytes).map_err(wrong)?),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(wrong(e.to_string())),
        };
        Ok(Self { path, positions })
    }

    /// Where it stood; `None` before the first start.
    pub(super) fn positions(&self) -> Option<&BTreeMap<LogId, u64>> {
        self.positions.as_ref()
    }

    /// Makes these positions durable.
    pub(super) async fn save(&mut self, positions: &BTreeMap<LogId, u64>) -> Result<(), String> {
        if self.positions.as_ref() == Some(positions) {
            return Ok(());
        }
        let next = positions.iter().map(|(log, next)| (log_name(log).to_owned(), *next)).collect();
        let bytes = serde_json::to_vec(&CursorFile { v: VERSION, next }).map_err(|e| e.to_string())?;
        let path = self.path.clone();
        let write = move || {
            replace(&path, &bytes)?;
            sync_dir(path.parent().unwrap_or(Path::new(".")))
        };
        let written = tokio::task::spawn_blocking(write).await.map_err(|e| e.to_string())?;
        written.map_err(|e| format!("the cursor {}: {e}", self.path.display()))?;
        self.positions = Some(positions.clone());
        Ok(())
    }
}

fn read(bytes: &[u8]) -> Result<BTreeMap<LogId, u64>, String> {
    let file: CursorFile = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    if file.v != VERSION {
        return Err(format!("its version is {}", file.v));
    }
    let position = |(name, next): (String, u64)| match name.as_str() {
        "cluster" => Ok((LogId::CLUSTER, next)),
        tenant => Name::new(tenant).map(|name| (LogId(Some(name)), next)).map_err(|e| e.to_string()),
    };
    file.next.into_iter().map(position).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn positions_are_kept_and_damage_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let mut cursor = Cursor::open(dir.path(), "siem").unwrap();
        assert_eq!(cursor.positions(), None);
        let acme = LogId(Name::new("acme").ok());
        let positions = BTreeMap::from([(LogId::CLUSTER, 3), (acme, u64::MAX)]);
        cursor.save(&positions).await.unwrap();
        assert_eq!(Cursor::open(dir.path(), "siem").unwrap().positions(), Some(&positions));
        for damaged in ["", "{}", "{\"v\":2,\"next\":{}}", "{\"v\":1,\"next\":{\"A B\":1}}"] {
            fs::write(dir.path().join("siem.cursor"), damaged).unwrap();
            let why = Cursor::open(dir.path(), "siem").err().unwrap();
            assert!(why.contains("cannot be used"), "{damaged}: {why}");
        }
    }
}
