//! Staged release: the nodes of a group run a change first.
//!
//! What is released is in the replicated state ([`provost_control_state::Release`]), so every
//! control-plane node pushes the same, and goes on with it after a change of leader. Here is where a
//! node's stream goes by it, and what is made of the answers of the group. A halted change is taken
//! back: the group gets the released state again, marked so that nodes take it although it is older.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use provost_types::{NodeGroupSpec, Revision};

use super::{Health, Subscriber, track::Track};

/// What streams need to know of the release.
pub(crate) struct Stage {
    pub(crate) group: NodeGroupSpec,
    /// Whether something is not released.
    pub(crate) holds: bool,
    /// The revision that was found bad.
    pub(crate) halted: Option<u64>,
    /// What the group gets; `None`: what all get.
    pub(crate) first: Option<Arc<Track>>,
}

/// Where a stream goes.
pub(crate) struct Place {
    pub(crate) track: Arc<Track>,
    pub(crate) part: Part,
    /// A node at this revision or below goes back to the track.
    pub(crate) back: Option<u64>,
}

/// A node's part in a staged release.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// It runs what everybody runs.
    #[default]
    All,
    /// It takes changes first.
    Canary,
    /// It takes changes first, and the newest was halted.
    Returned,
    /// A newer revision waits for its release.
    Held,
}

impl Part {
    /// As on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Part::All => "",
            Part::Canary => "canary",
            Part::Returned => "returned",
            Part::Held => "held",
        }
    }

    /// From the wire; what a later release says is taken for [`Part::All`].
    pub fn read(text: &str) -> Self {
        [Part::Canary, Part::Returned, Part::Held].into_iter().find(|p| p.as_str() == text).unwrap_or_default()
    }

    fn is_first(self) -> bool {
        matches!(self, Part::Canary | Part::Returned)
    }
}

/// What the group did before the change, by node: rates are compared with it.
#[derive(Clone, Debug, Default)]
pub struct Before(BTreeMap<String, Health>);

impl Before {
    /// Notes what nodes of the group do while nothing is held. Nodes that are away keep their note.
    pub fn note(&mut self, released: Revision, nodes: &[Subscriber]) {
        for node in nodes.iter().filter(|n| n.part.is_first()) {
            if let Some(health) = node.health.filter(|h| h.calls > 0 && Revision(h.revision) <= released) {
                self.0.insert(node.node.clone(), health);
            }
        }
    }
}

/// What becomes of a held change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StageVerdict {
    /// The group does not run it yet.
    Wait {
        /// What is missing.
        why: String,
    },
    /// The group runs it, and not for long enough.
    Hold {
        /// How long, and of how long.
        why: String,
    },
    /// Every node may have it.
    Release,
    /// No node may have it.
    Halt {
        /// Everything that speaks against it.
        reasons: Vec<String>,
    },
}

/// Weighs what nodes said of `candidate`, which the whole group has run for `ran`. What is wrong is
/// wrong of `head`, the newest revision: the group runs that or is about to. `nodes` must be those
/// of all control-plane nodes: each knows only its own.
pub fn judge(
    group: &NodeGroupSpec,
    (candidate, head): (Revision, Revision),
    ran: Option<Duration>,
    before: &Before,
    nodes: &[Subscriber],
) -> StageVerdict {
    let (first, rest): (Vec<_>, Vec<_>) = nodes.iter().partition(|n| group.selects(&n.node, &n.role));
    let mut reasons: Vec<_> = first.iter().filter(|n| n.nacked == Some(head)).map(|n| refusal(n)).collect();
    let current = |n: &&Subscriber| n.health.filter(|h| Some(Revision(h.revision)) == n.active);
    let now = Rates::of(first.iter().filter(|n| n.active >= Some(candidate)).filter_map(current));
    let earlier = Rates::of(rest.iter().filter_map(current).chain(before.0.values().copied()));
    let least = group.min_calls.max(1);
    if now.calls >= least && earlier.calls >= least {
        reasons.extend(rise("denied", now.denials, earlier.denials, group.max_denial_rise_permille));
        reasons.extend(rise("failed", now.errors, earlier.errors, group.max_error_rise_permille));
    }
    if !reasons.is_empty() {
        return StageVerdict::Halt { reasons };
    }
    let missing = first.iter().filter(|n| n.active < Some(candidate)).count();
    let (ran, hold) = (ran.unwrap_or_default(), Duration::from_secs(group.hold_s));
    match first.len() {
        0 => StageVerdict::Wait { why: "no node of the group is connected".to_owned() },
        all if missing > 0 => StageVerdict::Wait { why: format!("{missing} of {all} nodes do not run it yet") },
        _ if ran < hold => {
            StageVerdict::Hold { why: format!("the group has run it for {} s of {} s", ran.as_secs(), hold.as_secs()) }
        }
        _ => StageVerdict::Release,
    }
}

fn refusal(node: &Subscriber) -> String {
    let why = node.problems.first().map(|p| format!(": {}: {}", p.code, p.message)).unwrap_or_default();
    format!("node {} cannot run it{why}", node.node)
}

/// Shares of calls in thousandths.
struct Rates {
    calls: u64,
    denials: u64,
    errors: u64,
}

impl Rates {
    fn of(health: impl Iterator<Item = Health>) -> Self {
        let mut sums = [0_u64; 3];
        for health in health {
            for (sum, n) in sums.iter_mut().zip([health.calls, health.denials, health.errors]) {
                *sum = sum.saturating_add(n);
            }
        }
        let [calls, denials, errors] = sums;
        let share = |n: u64| n.saturating_mul(1_000) / calls.max(1);
        Self { calls, denials: share(denials), errors: share(errors) }
    }
}

fn rise(what: &str, now: u64, before: u64, limit: u64) -> Option<String> {
    let text = || format!("{now} of 1000 calls were {what} under it, {before} elsewhere and before");
    (now.saturating_sub(before) > limit).then(text)
}
