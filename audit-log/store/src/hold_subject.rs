//! Whose bodies a hold on a principal keeps.
//!
//! Keys of bodies, and the orders that destroy them, know subjects by pseudonym. A hold does too, from the
//! moment on that it is proposed, so that every replica can tell which erasures it forbids.

use provost_audit_core::LogId;
use provost_types::Pseudonym;

use crate::{
    retention::{Retention, RetentionError},
    retention_state::Hold,
    subject_names::read_pseudonym,
};

/// How often the tenant's key of pseudonyms is looked for, and made.
const TRIES: u32 = 5;

impl Retention {
    /// The subject that `principal` is, by its name or by its pseudonym. A tenant without a key of pseudonyms
    /// gets one, so that what is sealed later is held too.
    pub(crate) async fn subject_of(&self, log: &LogId, principal: &str) -> Result<Option<Pseudonym>, RetentionError> {
        if *log == LogId::CLUSTER {
            return Ok(None);
        }
        let unavailable = |why: String| RetentionError::Unavailable(why);
        for _ in 0..TRIES {
            self.checkpointer.group.read_barrier().await.map_err(|e| unavailable(e.to_string()))?;
            let meant = self.checkpointer.machine.0.lock().keys.state.meant(log, principal);
            match (meant, read_pseudonym(principal)) {
                (Some(subject), Some(shown)) if shown != subject => {
                    let why = format!("no key of {principal} is held in the log of {log}; look the pseudonym up again");
                    return Err(RetentionError::Refused(why));
                }
                (Some(subject), _) => return Ok(Some(subject)),
                (None, _) => self.keys.name_subjects(log).await.map_err(|e| unavailable(e.0))?,
            }
        }
        Err(unavailable(format!("this node cannot tell the subjects of {log} (PV-AUDIT-KEYS)")))
    }

    /// Why the bodies of a principal must be kept, if they must: asked before an erasure.
    pub fn held(&self, log: &LogId, principal: &str) -> Option<String> {
        self.checkpointer.machine.0.lock().held(log, principal).1.map(Hold::says)
    }

    /// Whether a key is held of whom this hold is about: a name of which nothing was ever sealed may be a
    /// misspelt one.
    pub fn knows(&self, hold: &Hold) -> bool {
        let machine = self.checkpointer.machine.0.lock();
        hold.subject.is_none_or(|subject| machine.keys.state.knows(&hold.log, subject))
    }
}
