//! Whom pseudonyms stand for: known where keys are held, and no longer than they are.

use provost_audit_core::LogId;
use provost_types::Pseudonym;

use crate::{
    AuditNode,
    error::AuditError,
    subject_file::{SubjectFile, SubjectPaths},
};

/// A pseudonym and whom it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The tenant's log.
    pub log: LogId,
    /// As records name the subject.
    pub pseudonym: Pseudonym,
    /// The principal's name.
    pub name: String,
}

impl AuditNode {
    /// Whom the pseudonyms in a log stand for, as far as keys of theirs are held here; for the
    /// cluster's log, those of all tenants.
    pub fn identities(&self, log: &LogId) -> Vec<Identity> {
        let known = self.inner.checkpointer.machine.0.lock().keys.state.identities();
        known.into_iter().filter(|known| known.log == *log || *log == LogId::CLUSTER).collect()
    }
}

/// A pseudonym as records show it: `p-` and 32 hexadecimal digits.
pub(crate) fn read_pseudonym(text: &str) -> Option<Pseudonym> {
    let digits = text.strip_prefix("p-").filter(|digits| digits.len() == 32)?;
    let plain = digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    plain.then(|| u128::from_str_radix(digits, 16).ok()).flatten().map(|number| Pseudonym(number.to_be_bytes()))
}

/// The same of a stopped node, from its files.
pub fn stored_identities(paths: SubjectPaths) -> Result<Vec<Identity>, AuditError> {
    let state = SubjectFile::new(paths).peek()?;
    Ok(state.map(|state| state.identities()).unwrap_or_default())
}
