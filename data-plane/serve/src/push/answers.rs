//! What the node made of the states it was sent.

use provost_wire::node::{Ack, Nack, NackProblem, PushUp, push_up::Up};

use super::mirror::Pushed;

/// Problems sent of one refusal.
const MAX_PROBLEMS: usize = 64;
/// Bytes sent of each text in it: with the bound above a refusal fits into one message up.
const MAX_TEXT_BYTES: usize = 512;

/// One state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answered {
    pub(crate) revision: u64,
    pub(crate) hash: [u8; 32],
}

impl From<&Pushed> for Answered {
    fn from(pushed: &Pushed) -> Self {
        Self { revision: pushed.snapshot.revision.0, hash: pushed.hash }
    }
}

/// The newest of each kind: a control-plane node that the client comes to later is told too.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Answers {
    /// What the node runs.
    pub(crate) active: Option<Answered>,
    /// What it cannot run, unless it has run something later.
    pub(crate) refused: Option<(u64, Vec<NackProblem>)>,
}

impl Answers {
    pub(crate) fn active(&mut self, answered: Answered) {
        if self.refused.as_ref().is_some_and(|(refused, _)| *refused <= answered.revision) {
            self.refused = None;
        }
        self.active = Some(answered);
    }

    pub(crate) fn refused(&mut self, revision: u64, mut problems: Vec<NackProblem>) {
        problems.truncate(MAX_PROBLEMS);
        for problem in &mut problems {
            for text in [&mut problem.kind, &mut problem.resource, &mut problem.code, &mut problem.message] {
                text.truncate(text.floor_char_boundary(MAX_TEXT_BYTES));
            }
        }
        self.refused = Some((revision, problems));
    }

    /// The messages that tell what changed since `told`.
    pub(crate) fn since(&self, told: &Self) -> Vec<PushUp> {
        let mut messages = Vec::new();
        if self.active != told.active
            && let Some(Answered { revision, hash }) = &self.active
        {
            messages.push(Up::Ack(Ack { revision: *revision, hash: hash.to_vec().into() }));
        }
        if self.refused != told.refused
            && let Some((revision, problems)) = &self.refused
        {
            messages.push(Up::Nack(Nack { revision: *revision, problems: problems.clone() }));
        }
        messages.into_iter().map(|up| PushUp { up: Some(up) }).collect()
    }
}
