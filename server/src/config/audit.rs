//! `[audit]`: who cosigns the log's checkpoints, and who reads the logs over HTTP.

use std::{net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::witness::ask::{WITNESSES_VARIABLE, WitnessAddress};

/// `[audit]` as people write it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuditFile {
    /// Witnesses that are asked to cosign the cluster log's checkpoints. Name those that auditors
    /// run; write the same on every audit node. Default: none.
    pub witnesses: Vec<WitnessFile>,
    /// Serves tiles and proofs of the logs here, read-only: plain HTTP on loopback, else TLS with the
    /// node's certificate. Set it for monitors that follow a log. Default: not served.
    pub listen: Option<SocketAddr>,
    /// The file that lists who may read which log. Default: nobody.
    pub readers: Option<PathBuf>,
}

/// One of `[[audit.witnesses]]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct WitnessFile {
    /// Its C2SP vkey, as `provost audit witness key` prints it.
    pub key: String,
    /// Its submission prefix, `http://…` or `https://…`.
    pub url: String,
}

/// `[audit]`, checked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AuditConfig {
    /// Each is a key and a URL.
    pub witnesses: Vec<WitnessFile>,
    /// Where tiles are served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// To whom.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readers: Option<PathBuf>,
}

impl AuditConfig {
    /// The witnesses, ready to be asked.
    pub fn witness_addresses(&self) -> Vec<WitnessAddress> {
        self.witnesses.iter().filter_map(|w| WitnessAddress::parse(&w.key, &w.url).ok()).collect()
    }
}

/// Checks the section; the environment's list of witnesses, if there is one, replaces the file's.
pub fn check(file: &AuditFile, say: &mut impl FnMut(&'static str, String)) -> AuditConfig {
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
    AuditConfig { witnesses, listen, readers }
}
