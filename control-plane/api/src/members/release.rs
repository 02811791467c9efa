//! The leader decides on held changes: released, or halted.
//!
//! Purpose: each second, where a node group holds a change back, ask all control-plane nodes what
//! their nodes say, weigh it ([`judge`]), and propose the decision. Only what was decided is
//! replicated; how long the group has run a change is not, so a new leader begins to count anew: a
//! change of leader makes a hold longer and never shorter. What the group did before the change is
//! noted by every control-plane node; one that starts while a change is held knows only what the
//! other nodes do meanwhile. Several leaders at once cannot harm: a
//! decision about anything but the newest revision changes nothing.
//! A stream of changes does not starve: a round waits for one revision, and releases that one.
//! Without a node group this task looks at the state once a second and does nothing.

use std::time::Duration;

use provost_control_raft::Role;
use provost_control_state::{ReleaseCommand, ReleaseReply, StoredCommand};
use provost_types::Revision;
use tokio::time::Instant;

use super::{Deed, standing::Standings};
use crate::{
    Caller, ControlError, ControlNode,
    machine::Reply,
    push::{Before, StageVerdict, Subscriber, judge},
    record::now_ns,
};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// While nothing is held the group's rates are noted each so many looks: nodes report as seldom.
const NOTE_EVERY: u32 = 5;

/// Waiting for one revision.
#[derive(Debug, Default)]
struct Round {
    candidate: Revision,
    /// Since when the whole group runs it.
    since: Option<Instant>,
}

/// Runs until it is aborted.
pub(crate) async fn decide_releases(node: ControlNode, standings: Standings) {
    let (mut round, mut before, mut looks) = (Round::default(), Before::default(), 0_u32);
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        looks = looks.wrapping_add(1);
        let state = node.inner.published.state.load_full();
        let (Some(group), Some(release)) = (state.node_group(), state.release()) else { continue };
        let (head, released) = (state.revision(), release.released);
        let holds = released < head && release.halted.is_none();
        if !holds || node.inner.group.metrics().role != Role::Leader {
            round = Round::default();
            standings.note(String::new());
            // Not the leader alone: whoever leads next must know what was before the change.
            if released >= head && looks.is_multiple_of(NOTE_EVERY) {
                before.note(released, &all(standings.gather().await));
            }
            continue;
        }
        if round.candidate <= released {
            round = Round { candidate: head, since: None };
        }
        let nodes = all(standings.gather().await);
        let ran = round.since.map(|since| since.elapsed());
        let verdict = judge(group, (round.candidate, head), ran, &before, &nodes);
        let decided = match verdict {
            StageVerdict::Wait { why } => {
                round.since = None;
                standings.note(why);
                continue;
            }
            StageVerdict::Hold { why } => {
                round.since.get_or_insert_with(Instant::now);
                standings.note(why);
                continue;
            }
            StageVerdict::Release => node.advance_release(&Caller::internal("staged release"), round.candidate).await,
            StageVerdict::Halt { reasons } => node.halt_release(head, reasons).await,
        };
        match decided {
            Ok(()) => round = Round::default(),
            Err(error) => tracing::warn!(code = error.code(), "a held change is not decided yet: {error}"),
        }
    }
}

fn all(gathered: super::Gathered) -> Vec<Subscriber> {
    gathered.nodes.into_iter().map(|(_, node)| node).collect()
}

impl ControlNode {
    /// Lets every node run the newest revision now; that revision.
    pub async fn release_now(&self, caller: &Caller) -> Result<Revision, ControlError> {
        caller.needs_cluster("releasing changes to all nodes")?;
        self.inner.group.read_barrier().await?;
        let revision = self.inner.published.state.load().revision();
        self.advance_release(caller, revision).await?;
        Ok(revision)
    }

    async fn advance_release(&self, caller: &Caller, revision: Revision) -> Result<(), ControlError> {
        let held = |node: &Self| node.inner.published.state.load().release().is_some_and(|r| r.released < revision);
        if !held(self) {
            return Ok(());
        }
        let deed = Deed::new("release.advance", vec![format!("revision {revision}")], "to all nodes");
        let node = self.clone();
        self.recorded(caller, deed, async move { node.decide(ReleaseCommand::Advance { revision }).await }).await?;
        tracing::info!(%revision, "released to all nodes");
        Ok(())
    }

    async fn halt_release(&self, revision: Revision, reasons: Vec<String>) -> Result<(), ControlError> {
        tracing::warn!(code = "PV-RELEASE-HALTED", %revision, "the group goes back: {}", reasons.join("; "));
        let deed = Deed::new("release.halt", vec![format!("revision {revision}")], reasons.join("; "));
        let node = self.clone();
        let command = ReleaseCommand::Halt { revision, reasons, time_ns: now_ns() };
        self.recorded(&Caller::internal("staged release"), deed, async move { node.decide(command).await }).await
    }

    /// A decision that came too late is none: the next look decides anew.
    async fn decide(&self, command: ReleaseCommand) -> Result<(), ControlError> {
        match self.propose_command(&StoredCommand::Release1 { command }).await? {
            Reply::Release { reply: ReleaseReply::Done | ReleaseReply::Stale } => Ok(()),
            other => Err(ControlError::internal(format!("a decision on a release was answered by {other:?}"))),
        }
    }
}
