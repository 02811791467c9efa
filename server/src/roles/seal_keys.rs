//! What seals session ids and the like, made from the cluster's data keys.
//!
//! Every data-plane node opens the cluster's secrets, so every one derives the same keys, and `provost
//! cluster rotate-keys` changes these too. A node that cannot open a data key seals with a key of its
//! own and says so: its clients are served by it alone.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use provost_control_api::Secrets;
use provost_data_serve::{SealKeys, push::Pushed};
use tokio::sync::watch;

/// Separates these keys from all others that are made of data keys.
const PURPOSE: &str = "provost 2026 texts that clients of a cluster carry v1";
/// The newest data keys count, which is as many as a rotation keeps; older ones open secrets of long ago only.
const MAX_TERMS: usize = 8;
/// Before a key that did not open is tried again.
const RETRY: Duration = Duration::from_secs(10);

type Ring = Arc<BTreeMap<u64, String>>;

/// Keeps the keys as the ring has them.
pub(super) struct SealKeyring {
    secrets: Arc<Secrets>,
    keys: Arc<SealKeys>,
    /// The ring that the keys are of.
    known: Mutex<Option<Ring>>,
}

impl SealKeyring {
    /// Begins with a key of this node alone.
    pub(super) fn new(secrets: Arc<Secrets>, own: [u8; 32]) -> Arc<Self> {
        Arc::new(Self { secrets, keys: SealKeys::own(own), known: Mutex::default() })
    }

    /// The keys, now and later.
    pub(super) fn keys(&self) -> Arc<SealKeys> {
        self.keys.clone()
    }

    /// Makes the keys of a ring; whether all could be made.
    pub(super) async fn take(self: &Arc<Self>, ring: &Ring) -> bool {
        if self.known.lock().unwrap_or_else(PoisonError::into_inner).as_ref() == Some(ring) {
            return true;
        }
        let (me, terms) = (self.clone(), ring.clone());
        // The provider may ask a network.
        let derived = tokio::task::spawn_blocking(move || {
            let mut made = BTreeMap::new();
            for term in terms.keys().rev().take(MAX_TERMS) {
                match me.secrets.derived_key(*term, PURPOSE) {
                    Ok(key) => drop(made.insert(*term, *key)),
                    // Without the newest there is nothing to seal with that others open.
                    Err(cause) if made.is_empty() => return Err(cause),
                    // The provider may open new ones only (Vault: `min_decryption_version`).
                    Err(cause) => {
                        let code = cause.code();
                        tracing::warn!(code, term, %cause, "what was made from an earlier data key stays closed");
                    }
                }
            }
            Ok(made)
        });
        let derived: Result<BTreeMap<u64, [u8; 32]>, provost_control_api::SecretError> = match derived.await {
            Ok(derived) => derived,
            Err(_) => return false,
        };
        match derived {
            Ok(keys) => {
                self.keys.set(&keys);
                *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(ring.clone());
                true
            }
            Err(cause) => {
                tracing::warn!(code = cause.code(), %cause, "sessions that begin here are served by this node alone");
                false
            }
        }
    }

    /// Follows the ring as it is pushed. Has no end of its own.
    pub(super) async fn follow(self: Arc<Self>, mut states: watch::Receiver<Option<Arc<Pushed>>>) {
        loop {
            let ring = states.borrow_and_update().as_ref().map(|pushed| pushed.key_ring.clone());
            let taken = match ring {
                Some(ring) => self.take(&ring).await,
                None => true,
            };
            let again = async {
                match taken {
                    true => std::future::pending().await,
                    false => tokio::time::sleep(RETRY).await,
                }
            };
            tokio::select! {
                changed = states.changed() => if changed.is_err() { return },
                () = again => {}
            }
        }
    }
}
