//! Making a pushed state active, and saying how that ended.

use std::sync::Arc;

use provost_types::BoxFuture;
use provost_wire::node::NackProblem;

use super::{answers::Answered, client::Shared, mirror::Pushed};

/// Makes states active; the node.
pub trait Activate: Send + Sync {
    /// Runs `pushed` from now on, or keeps what it runs and says everything that is wrong.
    fn activate(&self, pushed: Arc<Pushed>) -> BoxFuture<'_, Result<(), Vec<NackProblem>>>;
}

/// Says what became of a state. Clones are the same.
#[derive(Clone)]
pub struct Activation {
    pub(crate) shared: Arc<Shared>,
}

impl Activation {
    /// The node runs it: the control plane is told, and it becomes the last good state.
    pub fn active(&self, pushed: &Arc<Pushed>) {
        let shared = &self.shared;
        *shared.counts_before.lock() = (shared.counts)();
        shared.answers.send_modify(|answers| answers.active(Answered::from(&**pushed)));
        shared.active.send_replace(Some(pushed.clone()));
    }

    /// The node cannot run it and keeps what it runs.
    pub fn refused(&self, pushed: &Pushed, problems: Vec<NackProblem>) {
        self.shared.answers.send_modify(|answers| answers.refused(pushed.snapshot.revision.0, problems));
    }

    /// Makes each state active until the client ends, the newest where several came meanwhile.
    pub async fn drive(&self, node: &dyn Activate) {
        let mut states = self.shared.pushed.subscribe();
        loop {
            let pushed = states.borrow_and_update().clone();
            if let Some(pushed) = pushed {
                match node.activate(pushed.clone()).await {
                    Ok(()) => self.active(&pushed),
                    Err(problems) => self.refused(&pushed, problems),
                }
            }
            tokio::select! {
                changed = states.changed() => if changed.is_err() { return },
                () = self.shared.ended() => return,
            }
        }
    }
}
