//! A key is on the disks of a majority of the replicas before the group notes that it signs.
//!
//! The leader gives it to the others over mutual TLS, as a new replica gets the key that signs; each keeps it in
//! a file of its own and answers once that is durable. So the key outlives the leader's disk. A replica
//! that sees the key noted moves the file (see [`crate::rotation`]).
//! A crash before the key is noted leaves a file that nothing reads; the next offer replaces it.
//! Left out: replicas that are away. They ask the others when they come back.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use provost_audit_core::NoteSigner;

use crate::{checkpointer::Checkpointer, client::offer_key, error::AuditError, key::CheckpointKey};

/// How long an offer waits for a look at the keys that is under way here; every replica takes one at each turn.
const TURN_LIMIT: Duration = Duration::from_secs(1);

/// Where the key waits with which another replica is about to sign.
pub(crate) fn offered_key_file(key_file: &Path) -> PathBuf {
    let mut path = key_file.as_os_str().to_owned();
    path.push(".offered");
    PathBuf::from(path)
}

impl Checkpointer {
    /// Gives the key to the other replicas; an error until a majority of the voters keep it.
    pub(crate) async fn offer(&self, next: &CheckpointKey) -> Result<(), AuditError> {
        let metrics = self.group.metrics();
        let pkcs8 = next.secret_pkcs8()?;
        let others = self.replicas.as_ref().map(|replicas| replicas()).unwrap_or_default();
        let offers = others.into_iter().map(|(name, channel)| {
            let pkcs8 = pkcs8.clone();
            async move { (name, offer_key(channel, pkcs8).await) }
        });
        let mut keepers = BTreeSet::from([metrics.node_id]);
        for (name, answer) in futures::future::join_all(offers).await {
            match answer {
                Ok(node_id) => drop(keepers.insert(node_id)),
                Err(status) => tracing::debug!(to = name, error = status.message(), "does not keep the new key yet"),
            }
        }
        let (kept, voters) = (keepers.intersection(&metrics.voters).count(), metrics.voters.len());
        if kept * 2 > voters {
            return Ok(());
        }
        Err(AuditError::Unavailable(format!("{kept} of {voters} audit nodes keep the new key, no majority")))
    }

    /// Keeps a key that another replica is about to sign with; it is durable when this returns.
    pub(crate) async fn keep_offered(&self, pkcs8: &[u8]) -> Result<(), AuditError> {
        // Two replicas that both take themselves for the leader do not wait for each other for ever.
        let turn = tokio::time::timeout(TURN_LIMIT, self.rotating.lock()).await;
        let Ok(_one) = turn else {
            return Err(AuditError::Unavailable("the key is being changed here".to_owned()));
        };
        // One that was offered before and signs already is not lost to the next.
        if !self.take_over_noted()? {
            return Err(AuditError::Unavailable("the replica takes a snapshot".to_owned()));
        }
        let Some(offered) = CheckpointKey::public_half(pkcs8) else {
            return Err(AuditError::Unavailable("what was offered is no Ed25519 key".to_owned()));
        };
        if offered == self.key.read().public_key() {
            return Ok(());
        }
        CheckpointKey::write(&offered_key_file(&self.key_file), pkcs8)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;
    use crate::{AuditLogConfig, open};

    #[tokio::test(flavor = "multi_thread")]
    async fn an_offered_key_signs_nothing_until_it_is_noted_and_then_takes_over() {
        let dir = tempfile::tempdir().unwrap();
        let config = || AuditLogConfig { deadline: Duration::from_secs(60), ..AuditLogConfig::new(dir.path(), "n") };
        let (key_file, offered) = (config().key_file, offered_key_file(&config().key_file));
        let log = open(config()).await.unwrap();
        let checkpointer = log.node().checkpointer();
        let old = fs::read(&key_file).unwrap();
        let key = |name: &str| CheckpointKey::open(&dir.path().join(name)).unwrap().secret_pkcs8().unwrap();
        assert!(checkpointer.keep_offered(b"no key").await.is_err());
        checkpointer.keep_offered(&old).await.unwrap();
        assert!(!offered.exists(), "the key that signs needs no second copy");
        // Of two offers the later one counts: the earlier did not come to an end.
        for next in [key("given-up"), key("next")] {
            checkpointer.keep_offered(&next).await.unwrap();
            assert_eq!(fs::read(&offered).unwrap(), next);
        }
        assert_eq!(fs::metadata(&offered).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(checkpointer.take_over_noted().unwrap(), "nothing is known of the key");
        assert_eq!(fs::read(&key_file).unwrap(), old);

        // The group notes it, and this replica has it from the offer alone.
        let whole = dir.path().join("whole");
        fs::copy(dir.path().join("next"), &whole).unwrap();
        fs::rename(whole, crate::next_key_file(&key_file)).unwrap();
        log.rotate_if_asked().await.unwrap();
        assert!(!crate::next_key_file(&key_file).exists());
        assert_eq!(fs::read(&key_file).unwrap(), key("next"));
        log.close().await.unwrap();
        drop(log);
        fs::write(&key_file, &old).unwrap();
        let log = open(config()).await.unwrap();
        assert_eq!(fs::read(&key_file).unwrap(), key("next"));
        assert!(log.node().has_signing_key() && !offered.exists());
        log.close().await.unwrap();
    }
}
