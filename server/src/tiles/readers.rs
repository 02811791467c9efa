//! Who may read which log: a file of token hashes, one a line.
//!
//! ```text
//! # SHA-256 of the token   log: a tenant, `cluster`, or `*`
//! 9f86d081884c7d65…        acme
//! ```
//!
//! The file is read for each request, so that a line that is taken out counts at once. It holds no
//! secret. Default deny: without the file, or a line, nobody reads.

use std::{fs, path::Path};

use provost_audit_core::{Hash, LogId};
use secrecy::{ExposeSecret, SecretString};

use crate::failure::Failure;

/// Bytes of a readers' file.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// Marks our tokens, so that scanners find one that leaked.
const TOKEN_MARK: &str = "pva_";
/// Every log.
const ALL: &str = "*";

/// Which logs a token is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rights(Vec<String>);

impl Rights {
    /// Of this token, by the file. A file that cannot be read gives nobody anything.
    pub fn of(path: Option<&Path>, token: &str) -> Self {
        let text = path.filter(|path| fs::metadata(path).is_ok_and(|m| m.len() <= MAX_FILE_BYTES));
        let text = text.and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default();
        Self::in_text(&text, token)
    }

    fn in_text(text: &str, token: &str) -> Self {
        // Hashes are compared, so the time says nothing about the token.
        let wanted = Hash::of(token.as_bytes()).to_string();
        let words = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let log = |words: Vec<&str>| match words.as_slice() {
            [hash, log] if *hash == wanted => Some((*log).to_owned()),
            _ => None,
        };
        Self(words.filter_map(log).collect())
    }

    /// Whether the token is known at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it may read this log.
    pub fn may_read(&self, log: &LogId) -> bool {
        let name = log.0.as_ref().map_or("cluster", |tenant| tenant.as_str());
        self.0.iter().any(|listed| listed == ALL || listed == name)
    }
}

/// A new token, and the line for the file.
pub fn new_token(log: &str) -> anyhow::Result<(SecretString, String)> {
    let named = log == ALL || log == "cluster" || provost_types::Name::new(log).is_ok();
    if !named {
        let text = format!("`{log}` is no log");
        return Err(Failure::new("PV-CLI-TENANT", text, "name a tenant, `cluster`, or `*` for all").into());
    }
    let token: [u8; 32] = rand::random();
    let token = format!("{TOKEN_MARK}{}", Hash(token));
    let line = format!("{} {log}", Hash::of(token.as_bytes()));
    let token = SecretString::from(token);
    debug_assert!(token.expose_secret().starts_with(TOKEN_MARK), "marked");
    Ok((token, line))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_what_its_lines_name() {
        let (token, line) = new_token("acme").unwrap();
        let token = token.expose_secret();
        let log = |name: &str| LogId(provost_types::Name::new(name).ok());
        let rights = |text: &str| Rights::in_text(text, token);
        let one = rights(&format!("# readers\n\n{line}\n"));
        assert!(one.may_read(&log("acme")) && !one.may_read(&log("beta")) && !one.may_read(&LogId::CLUSTER));
        let two = rights(&format!("{line}\n{}\n", line.replace("acme", "cluster")));
        assert!(two.may_read(&log("acme")) && two.may_read(&LogId::CLUSTER) && !two.may_read(&log("beta")));
        assert!(rights(&line.replace("acme", "*")).may_read(&log("beta")));
        for nobody in ["", "acme", &line.replace(' ', ""), &format!("{line} more"), &line.to_uppercase()] {
            assert!(rights(nobody).is_empty(), "{nobody}");
        }
        assert!(Rights::in_text(&line, "other").is_empty() && Rights::in_text(&line, "").is_empty());
        assert!(Rights::of(None, token).is_empty(), "no file");
        assert!(new_token("not a name").is_err());
    }
}
