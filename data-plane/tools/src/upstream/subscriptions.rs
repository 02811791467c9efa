//! Which resources the legacy clients of this plugin subscribed to.
//!
//! Purpose: a legacy client subscribes with one request and hears on another stream; a modern
//! upstream wants the whole list on the stream itself, and a shared legacy connection tells of
//! everyone's. This book joins the two ends.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::UpstreamError;

/// Most resources that one caller may subscribe to on one plugin.
const MAX_URIS: usize = 1_024;
/// Most callers with subscriptions on one plugin.
const MAX_CALLERS: usize = 8_192;

/// A caller's subscribed URIs.
pub(super) type Uris = Arc<BTreeSet<String>>;

/// The subscriptions of one plugin's legacy clients, by caller.
#[derive(Default)]
pub(super) struct SubscriptionBook {
    callers: Mutex<HashMap<String, watch::Sender<Uris>>>,
}

impl SubscriptionBook {
    pub(super) fn add(&self, caller: &str, uri: &str) -> Result<(), UpstreamError> {
        let mut callers = self.callers.lock();
        if callers.len() >= MAX_CALLERS && !callers.contains_key(caller) {
            callers.retain(|_, uris| uris.receiver_count() > 0);
        }
        let sender = callers.entry(caller.to_owned()).or_insert_with(|| watch::channel(Uris::default()).0);
        let mut uris = (**sender.borrow()).clone();
        if uris.len() >= MAX_URIS {
            return Err(UpstreamError::Busy(format!("{MAX_URIS} resources are subscribed to")));
        }
        if uris.insert(uri.to_owned()) {
            sender.send_replace(Arc::new(uris));
        }
        Ok(())
    }

    pub(super) fn remove(&self, caller: &str, uri: &str) {
        if let Some(sender) = self.callers.lock().get(caller) {
            let mut uris = (**sender.borrow()).clone();
            if uris.remove(uri) {
                sender.send_replace(Arc::new(uris));
            }
        }
    }

    /// The caller's subscriptions, now and as they change.
    pub(super) fn watch(&self, caller: &str) -> watch::Receiver<Uris> {
        let mut callers = self.callers.lock();
        callers.entry(caller.to_owned()).or_insert_with(|| watch::channel(Uris::default()).0).subscribe()
    }
}
