//! The part of `[audit]` that concerns others: who cosigns checkpoints, and who reads the logs over HTTP.

use std::{net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::audit::AuditFile;
use crate::witness::ask::{WITNESSES_VARIABLE, WitnessAddress};

/// One of `[[audit.witnesses]]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct WitnessFile {
    /// Its C2SP vkey, as `provost audit witness key` prints it.
    pub key: String,
    /// Its submission prefix, `http://…` or `https://…`.
    pub url: String,
}

/// That part, checked.
pub struct Outside {
    /// Each is a key and a URL.
    pub witnesses: Vec<WitnessFile>,
    /// Where tiles are served.
    pub listen: Option<SocketAddr>,
    /// To whom.
    pub readers: Option<PathBuf>,
}

/// Checks the section; the environment's list of witnesses, if there is one, replaces the file's.
pub fn check(file: &AuditFile, say: &mut impl FnMut(&'static str, String)) -> Outside {
    let mut witnesses = file.witnesses.clone();
    match std::env::var(WITNESSES_VARIABLE).map(|text| WitnessAddress::parse_list(&text)) {
        Ok(Ok(list)) => {
            let entry = |w: WitnessAddress| WitnessFile { key: w.key.to_text(), url: w.url };
            witnesses = list.into_iter().map(entry).collect();
        }
        Ok(Err(why)) => say("audit.witnesses", format!("{WITNESSES_VARIABLE}: {why}")),
        Err(_) => {}
    }
    for witness in &witnesses {
        if let Err(why) = WitnessAddress::parse(&witness.key, &witness.url) {
            say("audit.witnesses", format!("has a wrong entry: {why}"));
        }
    }
    let mut keys: Vec<&str> = witnesses.iter().map(|w| w.key.as_str()).collect();
    keys.sort_unstable();
    if keys.windows(2).any(|pair| pair.first() == pair.last()) {
        say("audit.witnesses", "names one witness twice: it would count once".to_owned());
    }
    let (mut listen, mut readers) = (file.listen, file.readers.clone());
    match crate::tiles::from_environment() {
        Ok(Some(tiles)) => {
            listen = Some(tiles.listen);
            readers = tiles.readers.or(readers);
        }
        Ok(None) => {}
        Err(why) => say("audit.listen", why.to_string()),
    }
    Outside { witnesses, listen, readers }
}
