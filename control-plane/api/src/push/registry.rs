//! The streams that are open, one a node.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use super::{
    MAX_SUBSCRIBERS, lock,
    messages::Refusal,
    subscriber::{End, Subscription},
};

#[derive(Default)]
pub(crate) struct Registry {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    streams: BTreeMap<String, Arc<Subscription>>,
    stopping: bool,
}

impl Registry {
    /// Takes a stream in. An earlier stream of the same node ends: the node connected anew, or an
    /// older process still runs under its name.
    pub(crate) fn add(&self, subscription: Arc<Subscription>) -> Result<(), Refusal> {
        let mut inner = lock(&self.inner);
        if inner.stopping {
            return Err(Refusal::Stopping);
        }
        match inner.streams.get(&subscription.node) {
            Some(old) if old.epoch > subscription.epoch => return Err(Refusal::Epoch(old.epoch)),
            Some(old) => old.end(End::Refused(Refusal::Replaced)),
            None if inner.streams.len() >= MAX_SUBSCRIBERS => return Err(Refusal::Full),
            None => {}
        }
        inner.streams.insert(subscription.node.clone(), subscription);
        Ok(())
    }

    /// Removes this very stream: the node may have another one by now.
    pub(crate) fn remove(&self, subscription: &Arc<Subscription>) {
        let mut inner = lock(&self.inner);
        if inner.streams.get(&subscription.node).is_some_and(|s| Arc::ptr_eq(s, subscription)) {
            inner.streams.remove(&subscription.node);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        lock(&self.inner).streams.is_empty()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Subscription>> {
        lock(&self.inner).streams.values().cloned().collect()
    }

    /// Ends the stream of a node, if it has one.
    pub(crate) fn end(&self, node: &str, refusal: Refusal) {
        if let Some(subscription) = lock(&self.inner).streams.get(node) {
            subscription.end(End::Refused(refusal));
        }
    }

    /// Ends all streams and takes no more.
    pub(crate) fn stop(&self) {
        let mut inner = lock(&self.inner);
        inner.stopping = true;
        inner.streams.values().for_each(|s| s.end(End::Refused(Refusal::Stopping)));
    }
}
