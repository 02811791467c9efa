//! What the group agrees on about keeping records: what was pruned, and what must not be.
//!
//! Invariants: pure, so that every replica decides alike; a prune is refused, never narrowed, when
//! anything speaks against it, and so is an erasure; nothing that no checkpoint covers is pruned, nor what the node still
//! needs itself.

use std::collections::BTreeMap;

use provost_audit_core::{LogId, SEGMENT_LEAVES};
use provost_types::Pseudonym;
use serde::{Deserialize, Serialize};

/// Holds that there may be at once.
pub const MAX_HOLDS: usize = 4_096;
/// The longest reason, bytes.
pub const MAX_REASON: usize = 1_024;
/// The longest name of a principal or a person, bytes.
pub const MAX_NAME: usize = 256;

/// Records that must be kept, for a matter that somebody answers for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Names it.
    pub id: String,
    /// Whose records.
    pub log: LogId,
    /// Only this principal's. A segment holds many principals', so nothing of those times is
    /// pruned; bodies of others may be erased.
    pub principal: Option<String>,
    /// The same as keys of bodies know it, so that the group can tell whose bodies it keeps; none in the
    /// cluster's log, which has no bodies.
    pub subject: Option<Pseudonym>,
    /// Not before, nanoseconds since the Unix epoch.
    pub since_ns: u64,
    /// Before, likewise; the largest number: without an end.
    pub until_ns: u64,
    /// Why.
    pub reason: String,
    /// Who placed it.
    pub by: String,
    /// When.
    pub time_ns: u64,
}

impl Hold {
    fn is_sound(&self) -> bool {
        let short = |text: &str, max: usize| !text.is_empty() && text.len() <= max;
        short(&self.id, MAX_NAME)
            && short(&self.reason, MAX_REASON)
            && self.by.len() <= MAX_NAME
            && self.principal.as_deref().is_none_or(|p| short(p, MAX_NAME))
            && self.since_ns < self.until_ns
    }

    /// Why something must be kept.
    pub(crate) fn says(&self) -> String {
        format!("{} must be kept: hold `{}` by {} ({})", self.log, self.id, self.by, self.reason)
    }

    fn covers(&self, log: &LogId, times: (u64, u64)) -> bool {
        self.log == *log && times.1 >= self.since_ns && times.0 < self.until_ns
    }
}

/// An order to prune the records before `to`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PruneOrder {
    /// The log.
    pub log: LogId,
    /// The first record to be kept; the first of its segment.
    pub to: u64,
    /// Index of the record that says so.
    pub record: u64,
    /// Earliest and latest time of what goes.
    pub times: (u64, u64),
}

/// An entry of the group about keeping records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RetentionCommand {
    /// Prune.
    Prune(PruneOrder),
    /// From now on these records must be kept.
    Hold(Hold),
    /// They need not be kept any more: log and id.
    Release(LogId, String),
}

/// What the machine says to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RetentionReply {
    /// It is so, now or already.
    Done,
    /// A hold covers what was to go.
    Held(Hold),
    /// There is no such hold.
    NoHold,
    /// It contradicts what the log is.
    Refused(String),
}

/// What a prune must respect, of one log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogFacts {
    /// Records that the checkpoint in consensus covers.
    pub signed: u64,
    /// The first record of the tail: segments behind it are no longer needed to go on.
    pub tail_first: u64,
    /// The oldest intent without outcome: the next start reads it.
    pub oldest_intent: Option<u64>,
}

/// A log's pruned part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pruned {
    /// The first record that is kept.
    pub to: u64,
    /// Index of the record that says so.
    pub record: u64,
}

/// The part of the machine's state that this is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RetentionState {
    pub pruned: BTreeMap<LogId, Pruned>,
    pub holds: BTreeMap<(LogId, String), Hold>,
}

impl RetentionCommand {
    /// The log that it speaks of.
    pub(crate) fn log(&self) -> &LogId {
        match self {
            Self::Prune(order) => &order.log,
            Self::Hold(hold) => &hold.log,
            Self::Release(log, _) => log,
        }
    }
}

impl RetentionState {
    pub(crate) fn apply(&mut self, command: RetentionCommand, facts: LogFacts) -> RetentionReply {
        match command {
            RetentionCommand::Prune(order) => self.prune(&order, facts),
            RetentionCommand::Hold(hold) => {
                let key = (hold.log.clone(), hold.id.clone());
                if !hold.is_sound() {
                    return RetentionReply::Refused("the hold is not well-formed".to_owned());
                }
                if self.holds.len() >= MAX_HOLDS && !self.holds.contains_key(&key) {
                    return RetentionReply::Refused(format!("there are {MAX_HOLDS} holds already"));
                }
                self.holds.insert(key, hold);
                RetentionReply::Done
            }
            RetentionCommand::Release(log, id) => match self.holds.remove(&(log, id)) {
                Some(_) => RetentionReply::Done,
                None => RetentionReply::NoHold,
            },
        }
    }

    fn prune(&mut self, order: &PruneOrder, facts: LogFacts) -> RetentionReply {
        let known = self.pruned.get(&order.log).map_or(0, |p| p.to);
        if order.to <= known {
            return RetentionReply::Done;
        }
        if let Some(hold) = self.hold_on(&order.log, order.times) {
            return RetentionReply::Held(hold.clone());
        }
        let wrong = [
            (!order.to.is_multiple_of(SEGMENT_LEAVES), "only whole segments can be pruned"),
            (order.to > facts.signed, "no checkpoint covers all of it"),
            (order.record < order.to || order.record >= facts.signed, "no checkpoint covers its record"),
            (order.to > facts.tail_first, "the newest segment cannot be pruned"),
            (facts.oldest_intent.is_some_and(|i| i < order.to), "a call in it has not ended"),
        ];
        if let Some((_, why)) = wrong.iter().find(|(wrong, _)| *wrong) {
            return RetentionReply::Refused((*why).to_owned());
        }
        self.pruned.insert(order.log.clone(), Pruned { to: order.to, record: order.record });
        RetentionReply::Done
    }

    /// A hold on any record of these times.
    pub(crate) fn hold_on(&self, log: &LogId, times: (u64, u64)) -> Option<&Hold> {
        self.holds.values().find(|hold| hold.covers(log, times))
    }

    /// A hold on anything of this subject. One that does not say whose subject it is keeps everybody's.
    pub(crate) fn hold_on_subject(&self, log: &LogId, subject: Pseudonym) -> Option<&Hold> {
        let keeps = |hold: &Hold| hold.principal.is_none() || hold.subject.is_none_or(|held| held == subject);
        self.holds.values().find(|hold| hold.log == *log && keeps(hold))
    }

    /// A hold on everybody, or on a principal of this name: for a tenant that has no subjects yet.
    pub(crate) fn hold_on_name(&self, log: &LogId, principal: &str) -> Option<&Hold> {
        let of = |hold: &&Hold| hold.log == *log && hold.principal.as_deref().is_none_or(|p| p == principal);
        self.holds.values().find(of)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn hold(id: &str, since_ns: u64, until_ns: u64) -> Hold {
        Hold {
            id: id.to_owned(),
            log: LogId::CLUSTER,
            principal: None,
            subject: None,
            since_ns,
            until_ns,
            reason: "case 7".to_owned(),
            by: "ana".to_owned(),
            time_ns: 1,
        }
    }

    #[test]
    fn whatever_speaks_against_a_prune_refuses_it() {
        const SEGMENT: u64 = SEGMENT_LEAVES;
        let good = PruneOrder { log: LogId::CLUSTER, to: SEGMENT, record: 3 * SEGMENT, times: (100, 200) };
        let facts = LogFacts { signed: 3 * SEGMENT + 1, tail_first: 2 * SEGMENT, oldest_intent: Some(2 * SEGMENT) };
        let refused = |why: &str| RetentionReply::Refused(why.to_owned());
        let cases = [
            (good.clone(), facts, None, RetentionReply::Done),
            (PruneOrder { to: 256, ..good.clone() }, facts, None, refused("only whole segments can be pruned")),
            (good.clone(), LogFacts { signed: 5, ..facts }, None, refused("no checkpoint covers all of it")),
            (good.clone(), LogFacts { signed: 3 * SEGMENT, ..facts }, None, refused("no checkpoint covers its record")),
            (PruneOrder { record: 7, ..good.clone() }, facts, None, refused("no checkpoint covers its record")),
            (good.clone(), LogFacts { tail_first: 9, ..facts }, None, refused("the newest segment cannot be pruned")),
            (good.clone(), LogFacts { oldest_intent: Some(3), ..facts }, None, refused("a call in it has not ended")),
            (good.clone(), facts, Some((150, 160)), RetentionReply::Held(hold("h", 150, 160))),
            (good.clone(), facts, Some((0, 101)), RetentionReply::Held(hold("h", 0, 101))),
            (good.clone(), facts, Some((201, u64::MAX)), RetentionReply::Done),
            (good.clone(), facts, Some((0, 100)), RetentionReply::Done),
        ];
        for (n, (order, facts, times, wanted)) in cases.into_iter().enumerate() {
            let mut state = RetentionState::default();
            if let Some((since, until)) = times {
                assert_eq!(state.apply(RetentionCommand::Hold(hold("h", since, until)), facts), RetentionReply::Done);
            }
            assert_eq!(state.apply(RetentionCommand::Prune(order.clone()), facts), wanted, "case {n}");
            let pruned = wanted == RetentionReply::Done;
            assert_eq!(state.pruned.contains_key(&LogId::CLUSTER), pruned, "case {n}");
            // Once done, it is done, whatever comes after.
            if pruned {
                let again = state.apply(RetentionCommand::Prune(order), LogFacts::default());
                assert_eq!(again, RetentionReply::Done);
            }
        }
    }

    #[test]
    fn holds_are_placed_and_released() {
        let mut state = RetentionState::default();
        let facts = LogFacts::default();
        let (ana, sue) = (Pseudonym([1; 16]), Pseudonym([2; 16]));
        let only_ana = Hold { principal: Some("ana".to_owned()), subject: Some(ana), ..hold("h", 0, u64::MAX) };
        let nobody_known = Hold { subject: None, ..only_ana.clone() };
        for (held, keeps_sue) in [(nobody_known, true), (hold("h", 0, 9), true), (only_ana, false)] {
            assert_eq!(state.apply(RetentionCommand::Hold(held), facts), RetentionReply::Done);
            assert!(state.hold_on_subject(&LogId::CLUSTER, ana).is_some());
            assert_eq!(state.hold_on_subject(&LogId::CLUSTER, sue).is_some(), keeps_sue);
        }
        assert!(state.hold_on_name(&LogId::CLUSTER, "ana").is_some());
        assert!(state.hold_on_name(&LogId::CLUSTER, "sue").is_none());
        assert!(state.hold_on(&LogId::CLUSTER, (1, 2)).is_some(), "a segment holds hers too");
        let empty = Hold { reason: String::new(), ..hold("i", 0, 9) };
        assert!(matches!(state.apply(RetentionCommand::Hold(empty), facts), RetentionReply::Refused(_)));
        let release = |id: &str| RetentionCommand::Release(LogId::CLUSTER, id.to_owned());
        assert_eq!(state.apply(release("i"), facts), RetentionReply::NoHold);
        assert_eq!(state.apply(release("h"), facts), RetentionReply::Done);
        assert!(state.holds.is_empty());
    }
}
