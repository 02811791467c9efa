//! Handles of tasks, bound to whom they were given.
//!
//! Purpose: a task was made by a tool call that policy admitted, for its caller. What upstreams call it says
//! nothing of the caller, so whoever guesses or overhears it could read, answer and cancel another's task.
//! A handle is `PLUGIN.ID~TERM~MAC`: the MAC is over tenant, principal, plugin and id, under keys that all
//! data-plane nodes have, so that any of them checks it and none has to remember it.
//! Invariants: what is not bound to the caller is answered like a task that never was; nothing of it reaches an
//! upstream. A listed task is shown only to whom this node gave its handle: an upstream that lists everybody's
//! tasks under one credential would otherwise have us bind them to whoever asks.
//! Left out: hiding the upstream's own id, which is no secret once it proves nothing.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, OnceLock},
};

use aws_lc_rs::{constant_time::verify_slices_are_equal, rand};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use parking_lot::Mutex;
use provost_data_pipeline::{AskError, Call, ClientLink, Execution, Intended, Operation, Reply};
use provost_data_tools::rewrite_handles;
use provost_mcp::RawJson;
use provost_types::{BoxFuture, Name, PrincipalRef};

use crate::SealKeys;

/// Separates the keys of handles from those of other uses.
const PURPOSE: &str = "provost 2026 mcp task handle v1";
/// Between the parts of a handle; base64url has none.
const SEPARATOR: char = '~';
/// Bytes of a MAC that are kept.
const MAC_LEN: usize = 16;
/// Tasks of one principal with one plugin that are remembered for lists.
const MAX_LISTED: usize = 1_024;
/// Principals with such tasks; beyond it all are forgotten, and lists are short.
const MAX_LISTS: usize = 16_384;

/// Binds and checks handles.
#[derive(Default)]
pub(super) struct TaskHandles {
    keys: OnceLock<Arc<SealKeys>>,
    given: Mutex<HashMap<(PrincipalRef, Name), VecDeque<String>>>,
}

impl TaskHandles {
    /// Uses the keys of the cluster; the first telling counts.
    pub(super) fn keyed(&self, keys: &Arc<SealKeys>) {
        let _ = self.keys.set(keys.clone());
    }

    /// `None`: the machine has no randomness.
    fn keys(&self) -> Option<&SealKeys> {
        if let Some(keys) = self.keys.get() {
            return Some(keys);
        }
        let mut own = [0; 32];
        rand::fill(&mut own).ok()?;
        Some(self.keys.get_or_init(|| SealKeys::own(own)))
    }

    /// `ID~TERM~MAC`.
    pub(super) fn bind(&self, principal: &PrincipalRef, plugin: &Name, id: &str) -> Option<String> {
        let (term, key) = self.keys()?.sealing();
        let mac = BASE64_URL_SAFE_NO_PAD.encode(mac(&key, principal, plugin, id));
        Some(format!("{id}{SEPARATOR}{term:x}{SEPARATOR}{mac}"))
    }

    /// The upstream's id, if the handle was given to this principal for this plugin.
    pub(super) fn open(&self, principal: &PrincipalRef, plugin: &Name, handle: &str) -> Option<String> {
        let (rest, given) = handle.rsplit_once(SEPARATOR)?;
        let (id, term) = rest.rsplit_once(SEPARATOR)?;
        let key = self.keys()?.of(u64::from_str_radix(term, 16).ok()?)?;
        let given = BASE64_URL_SAFE_NO_PAD.decode(given).ok()?;
        verify_slices_are_equal(&given, &mac(&key, principal, plugin, id)).ok()?;
        Some(id.to_owned())
    }

    fn note(&self, principal: &PrincipalRef, plugin: &Name, id: &str) {
        let mut given = self.given.lock();
        let key = (principal.clone(), plugin.clone());
        if given.len() >= MAX_LISTS && !given.contains_key(&key) {
            given.clear();
        }
        let ids = given.entry(key).or_default();
        if !ids.iter().any(|known| known == id) {
            ids.push_back(id.to_owned());
        }
        if ids.len() > MAX_LISTED {
            ids.pop_front();
        }
    }

    fn was_given(&self, principal: &PrincipalRef, plugin: &Name, id: &str) -> bool {
        let given = self.given.lock();
        given.get(&(principal.clone(), plugin.clone())).is_some_and(|ids| ids.iter().any(|known| known == id))
    }
}

fn mac(key: &[u8; 32], principal: &PrincipalRef, plugin: &Name, id: &str) -> [u8; MAC_LEN] {
    let key = blake3::derive_key(PURPOSE, key);
    // Names have no NUL, and the id stands last: no two facts give one text.
    let bound = format!("{}\0{}\0{plugin}\0{id}", principal.tenant, principal.name);
    let mut mac = [0; MAC_LEN];
    mac.copy_from_slice(&blake3::keyed_hash(&key, bound.as_bytes()).as_bytes()[..MAC_LEN]);
    mac
}

/// The handles of one call: what goes to its caller is bound to them.
pub(super) struct CallHandles<'a> {
    handles: &'a TaskHandles,
    principal: &'a PrincipalRef,
    plugin: &'a Name,
    /// The task that is asked for, as the upstream and as the caller call it.
    asked: Option<(&'a str, &'a str)>,
    lists: bool,
}

impl<'a> CallHandles<'a> {
    pub(super) fn of(handles: &'a TaskHandles, call: &'a Call<Intended>, plugin: &'a Name) -> Self {
        let (asked, lists) = match &call.request().operation {
            Operation::Task { task, .. } if task.is_empty() => (None, true),
            Operation::Task { task, .. } => (Some((call.target().local.as_str(), task.as_str())), false),
            _ => (None, false),
        };
        Self { handles, principal: &call.caller().principal, plugin, asked, lists }
    }

    /// The handle of a task, from what the executor calls it (`PLUGIN.ID`).
    fn handle(&self, given: &str) -> Option<String> {
        let id = given.strip_prefix(self.plugin.as_str()).and_then(|rest| rest.strip_prefix('.'))?;
        match self.asked {
            // The same text whatever key seals now: clients compare.
            Some((local, written)) if local == id => return Some(written.to_owned()),
            _ if self.lists && !self.handles.was_given(self.principal, self.plugin, id) => return None,
            _ => {}
        }
        self.handles.note(self.principal, self.plugin, id);
        Some(format!("{}.{}", self.plugin, self.handles.bind(self.principal, self.plugin, id)?))
    }

    fn rewrite(&self, body: RawJson) -> RawJson {
        rewrite_handles(body, &|given| self.handle(given))
    }

    /// The execution with the caller's own handles.
    pub(super) fn own(&self, mut execution: Execution) -> Execution {
        if let Reply::Result { body, .. } = &mut execution.reply {
            *body = self.rewrite(std::mem::replace(body, RawJson::EMPTY_OBJECT));
        }
        execution
    }
}

/// A caller's link that is told of tasks by the caller's own handles.
pub(super) struct TaskLink<'a> {
    pub(super) link: &'a dyn ClientLink,
    pub(super) handles: &'a CallHandles<'a>,
}

impl ClientLink for TaskLink<'_> {
    fn notify(&self, method: &str, params: RawJson) {
        self.link.notify(method, self.handles.rewrite(params));
    }

    fn ask<'a>(&'a self, input_requests: &'a RawJson) -> Option<BoxFuture<'a, Result<RawJson, AskError>>> {
        self.link.ask(input_requests)
    }

    fn cancelled(&self) -> BoxFuture<'_, ()> {
        self.link.cancelled()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn who(tenant: &str, principal: &str) -> PrincipalRef {
        PrincipalRef { tenant: name(tenant), name: name(principal) }
    }

    #[test]
    fn a_handle_is_its_callers_alone_at_every_node() {
        let keys = SealKeys::own([7; 32]);
        let (here, there) = (TaskHandles::default(), TaskHandles::default());
        here.keyed(&keys);
        there.keyed(&keys);
        let (ann, up) = (who("acme", "ann"), name("up"));
        for id in ["786f4e", "a~b~c", "", "über.ID with spaces"] {
            let handle = here.bind(&ann, &up, id).unwrap();
            assert_eq!(there.open(&ann, &up, &handle).as_deref(), Some(id), "{handle}");
            let (bare, mac) = handle.rsplit_once('~').unwrap();
            let table = [
                ("another principal", there.open(&who("acme", "bob"), &up, &handle)),
                ("of another tenant", there.open(&who("blue", "ann"), &up, &handle)),
                ("another plugin", there.open(&ann, &name("other"), &handle)),
                ("the bare id", there.open(&ann, &up, id)),
                ("another id", there.open(&ann, &up, &format!("x{handle}"))),
                ("no mac", there.open(&ann, &up, &format!("{bare}~"))),
                ("half of it", there.open(&ann, &up, &format!("{bare}~{}", &mac[..11]))),
                ("another key", there.open(&ann, &up, &format!("{id}~1~{mac}"))),
                ("another cluster", TaskHandles::default().open(&ann, &up, &handle)),
            ];
            for (case, opened) in table {
                assert_eq!(opened, None, "{case}: {handle}");
            }
        }
    }

    #[test]
    fn a_handle_outlives_a_rotation() {
        let keys = SealKeys::own([7; 32]);
        let handles = TaskHandles::default();
        handles.keyed(&keys);
        let (ann, up) = (who("acme", "ann"), name("up"));
        let before = handles.bind(&ann, &up, "1").unwrap();
        keys.set(&BTreeMap::from([(1, [1; 32])]));
        let after = handles.bind(&ann, &up, "1").unwrap();
        assert_ne!(before, after);
        assert_eq!(handles.open(&ann, &up, &before), handles.open(&ann, &up, &after));
        assert_eq!(handles.open(&ann, &up, &after).as_deref(), Some("1"));
    }

    #[test]
    fn what_is_remembered_for_lists_is_bounded() {
        let (handles, up) = (TaskHandles::default(), name("up"));
        for n in 0..MAX_LISTED + 10 {
            handles.note(&who("acme", "ann"), &up, &n.to_string());
        }
        assert!(!handles.was_given(&who("acme", "ann"), &up, "3"));
        assert!(handles.was_given(&who("acme", "ann"), &up, "1000"));
        assert!(!handles.was_given(&who("acme", "bob"), &up, "1000"));
        for n in 0..MAX_LISTS + 10 {
            handles.note(&who("acme", &format!("p{n}")), &up, "1");
        }
        assert!(handles.given.lock().len() <= MAX_LISTS);
    }
}
