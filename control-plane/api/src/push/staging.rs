//! Staged release: some node groups take a revision first.
//!
//! What is released is data that comes in from outside, so that all control-plane nodes can agree
//! on it (it belongs in the replicated state). A halt stops there: nodes that run the revision keep
//! it until a later one, such as a rollback, replaces it; the others never see it.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use provost_control_state::State;
use provost_types::Revision;

use super::{KEPT_STATES, Subscriber};

/// Who goes first, and how far the others may go. The default stages nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Staging {
    /// Node groups that take each revision at once; empty: all do.
    pub first: BTreeSet<String>,
    /// The newest revision that the others may take. One that this node did not keep is passed
    /// over for the newest kept before it; what nodes have is never taken back.
    pub released: Revision,
}

impl Staging {
    /// A receiver that stages nothing, ever.
    pub fn none() -> tokio::sync::watch::Receiver<Self> {
        tokio::sync::watch::channel(Self::default()).1
    }

    /// Whether a group may take a revision.
    pub fn allows(&self, group: &str, revision: Revision) -> bool {
        self.first.is_empty() || self.first.contains(group) || revision <= self.released
    }
}

/// States that wait for their release, oldest first.
#[derive(Default)]
pub(crate) struct Kept(VecDeque<Arc<State>>);

impl Kept {
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn push(&mut self, state: Arc<State>) {
        if self.0.back().is_some_and(|last| Arc::ptr_eq(last, &state)) {
            return;
        }
        if self.0.len() == KEPT_STATES {
            self.0.pop_front();
        }
        self.0.push_back(state);
    }

    /// The newest released state; those before it are forgotten.
    pub(crate) fn release(&mut self, released: Revision) -> Option<Arc<State>> {
        let count = self.0.partition_point(|s| s.revision() <= released);
        self.0.drain(..count).next_back()
    }
}

/// When a revision is good enough for everybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageRules {
    /// How long the first groups run it before the others get it.
    pub soak: Duration,
    /// Calls below which rates say nothing.
    pub min_calls: u64,
    /// How much the share of denied calls may grow, in thousandths of all calls.
    pub max_denial_rise_permille: u64,
    /// How much the share of failed calls may grow, in thousandths of all calls.
    pub max_error_rise_permille: u64,
}

impl Default for StageRules {
    fn default() -> Self {
        Self {
            soak: Duration::from_secs(60),
            min_calls: 100,
            max_denial_rise_permille: 50,
            max_error_rise_permille: 20,
        }
    }
}

/// What becomes of a staged revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StageVerdict {
    /// Too early to say.
    Wait {
        /// What is missing.
        why: String,
    },
    /// The others may have it.
    Release,
    /// The others must not have it.
    Halt {
        /// Everything that speaks against it.
        reasons: Vec<String>,
    },
}

/// Weighs what nodes said of `candidate`, which the first groups got `age` ago. `nodes` must be
/// those of all control-plane nodes: each knows only its own.
pub fn judge(
    rules: &StageRules,
    staging: &Staging,
    candidate: Revision,
    age: Duration,
    nodes: &[Subscriber],
) -> StageVerdict {
    let (first, rest): (Vec<_>, Vec<_>) = nodes.iter().partition(|n| staging.first.contains(&n.group));
    let mut reasons: Vec<_> = first.iter().filter(|n| n.nacked == Some(candidate)).map(|n| refusal(n)).collect();
    let on_candidate: Vec<_> = first.iter().copied().filter(|n| n.active >= Some(candidate)).collect();
    let (now, before) = (Rates::of(&on_candidate), Rates::of(&rest));
    if now.calls >= rules.min_calls && before.calls >= rules.min_calls {
        reasons.extend(rise("denied", now.denials, before.denials, rules.max_denial_rise_permille));
        reasons.extend(rise("failed", now.errors, before.errors, rules.max_error_rise_permille));
    }
    if !reasons.is_empty() {
        return StageVerdict::Halt { reasons };
    }
    let wait = |why: String| StageVerdict::Wait { why };
    match first.len() - on_candidate.len() {
        _ if first.is_empty() => wait("no node of the first groups is connected".to_owned()),
        0 if age < rules.soak => wait(format!("it runs since {} s of {} s", age.as_secs(), rules.soak.as_secs())),
        0 => StageVerdict::Release,
        missing => wait(format!("{missing} of {} nodes do not run it yet", first.len())),
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
    /// Counts that a node sent before it ran its present revision say nothing of that.
    fn of(nodes: &[&Subscriber]) -> Self {
        let mut sums = [0_u64; 3];
        for node in nodes {
            let Some(health) = node.health.filter(|h| Some(Revision(h.revision)) == node.active) else { continue };
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
    let text = || format!("{now} of 1000 calls were {what} under it, {before} elsewhere");
    (now.saturating_sub(before) > limit).then(text)
}
