//! Calls within calls.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Instant,
};

use provost_types::{CallId, Name};

/// Most calls that one call of a caller's may lead to, at all depths together. A plugin may make 32 in one call, and
/// what it calls may be plugins.
pub const MAX_CHAIN_CALLS: u32 = 256;

/// Where a call stands that a plugin's guest makes in the name of who called the plugin. It goes the way of every call;
/// this only adds to what it has to keep to.
#[derive(Clone, Debug)]
pub struct Within {
    /// The call of the caller's own that led to it, directly or by other plugins: its records name it.
    pub root: CallId,
    /// The plugin that makes it.
    pub plugin: Name,
    /// How many plugins stand above it: at least 1.
    pub depth: u8,
    /// When the call that makes it ends.
    pub deadline: Instant,
    /// The tools that the plugin may call, by their full names; `*` ends a prefix.
    pub granted: Arc<BTreeSet<String>>,
    /// The calls that the root led to so far.
    pub made: ChainCount,
}

impl Within {
    /// Whether the plugin that makes the call was let call this tool.
    pub fn grants(&self, full: &str) -> bool {
        self.granted.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(prefix) => full.starts_with(prefix),
            None => pattern == full,
        })
    }
}

/// Counts the calls that one call of a caller's leads to.
#[derive(Clone, Debug, Default)]
pub struct ChainCount(Arc<AtomicU32>);

impl ChainCount {
    /// One more; `false`: that is more than [`MAX_CHAIN_CALLS`].
    pub fn one_more(&self) -> bool {
        // The first that is too many is counted, so that those after it are known.
        let more = |n: u32| (n <= MAX_CHAIN_CALLS).then_some(n + 1);
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok_and(|before| before < MAX_CHAIN_CALLS)
    }

    /// Whether one was refused already.
    pub fn is_over(&self) -> bool {
        self.0.load(Ordering::Acquire) > MAX_CHAIN_CALLS
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_one_too_many_is_known_from_then_on() {
        let made = ChainCount::default();
        for _ in 0..MAX_CHAIN_CALLS {
            assert!(made.one_more() && !made.is_over());
        }
        for _ in 0..3 {
            assert!(!made.one_more() && made.is_over());
        }
    }

    #[test]
    fn a_grant_is_a_name_or_a_prefix_and_nothing_is_granted_by_itself() {
        let table: [(&[&str], &str, bool); 6] = [
            (&[], "crm.read", false),
            (&["crm.read"], "crm.read", true),
            (&["crm.read"], "crm.read_all", false),
            (&["sql.*", "crm.*"], "crm.read", true),
            (&["crm.*"], "crm", false),
            (&["*"], "anything.at_all", true),
        ];
        for (granted, full, expect) in table {
            let within = Within {
                root: CallId(1),
                plugin: Name::new("text").unwrap(),
                depth: 1,
                deadline: Instant::now(),
                granted: Arc::new(granted.iter().map(|&pattern| pattern.to_owned()).collect()),
                made: ChainCount::default(),
            };
            assert_eq!(within.grants(full), expect, "{granted:?} {full}");
        }
    }

    #[test]
    fn a_chain_is_counted_over_all_who_hold_it() {
        let count = ChainCount::default();
        let other = count.clone();
        let made = (0..MAX_CHAIN_CALLS).filter(|n| if n % 2 == 0 { count.one_more() } else { other.one_more() });
        assert_eq!(made.count(), MAX_CHAIN_CALLS as usize);
        assert!(!count.one_more() && !other.one_more());
    }
}
