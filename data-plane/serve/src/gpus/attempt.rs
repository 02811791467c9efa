//! One request and the nodes that were asked to serve it.

use provost_types::{InferenceError, InferenceErrorKind};

use super::{
    Nodes, again,
    choose::Wanted,
    counts::Counts,
    seat::{Fault, Seat},
};

/// Nodes that are asked for one request, at most: each that has no place costs a round trip.
const MOST_ASKED: usize = 8;
/// When to come again after a loss, and the least that a caller is told, in milliseconds.
const LEAST_RETRY_MS: u64 = 1_000;

/// Why no node can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nobody {
    /// Those that have the model have no place.
    Full { retry_ms: u64 },
    /// Some have it, or may have, and are not heard or set aside.
    Unreached { retry_ms: u64 },
    /// None has it.
    Unknown,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Attempt {
    tried: Vec<String>,
    /// It was lost, or failed, at a node: that happens once.
    broken: Option<InferenceError>,
    /// The next node is asked because of that.
    is_again: bool,
    /// Of the refusals of nodes without a place, that of the one that has one soonest.
    busy: Option<InferenceError>,
}

impl Attempt {
    /// The node to ask next.
    ///
    /// # Errors
    /// What the caller is told if there is none.
    pub(super) fn next(&mut self, nodes: &Nodes, model: &str, wanted: Wanted) -> Result<Seat, InferenceError> {
        let picked = match self.tried.len() < MOST_ASKED {
            true => nodes.pick(model, wanted, &self.tried),
            false => Err(Nobody::Unknown),
        };
        let seat = picked.map_err(|nobody| self.ended(&nodes.counts, nobody, model))?;
        if std::mem::take(&mut self.is_again) {
            nodes.counts.tried_again();
            again::note();
        }
        self.tried.push(seat.name().to_owned());
        Ok(seat)
    }

    /// Takes in that a node gave no answer, of which nothing was told.
    ///
    /// # Errors
    /// What the caller is told if no other node is to be asked.
    pub(super) fn take(&mut self, counts: &Counts, seat: &Seat, fault: Fault) -> Result<(), InferenceError> {
        match fault {
            Fault::Lost(cause) => {
                note_loss(counts, seat, &cause);
                self.once(lost("before it answered"))
            }
            Fault::Said(error) => match error.kind {
                InferenceErrorKind::Busy => {
                    counts.refused(seat);
                    self.busy = Some(match self.busy.take() {
                        Some(before) if before.retry_after_ms <= error.retry_after_ms => before,
                        _ => error,
                    });
                    Ok(())
                }
                // Its files have gone since it reported.
                InferenceErrorKind::ModelNotFound => Ok(()),
                InferenceErrorKind::InvalidRequest => Err(error),
                // It may be the node, such as one with too little memory, or the request.
                InferenceErrorKind::Failed => {
                    counts.failed(seat);
                    self.once(error)
                }
            },
        }
    }

    fn once(&mut self, error: InferenceError) -> Result<(), InferenceError> {
        if self.broken.is_some() {
            return Err(error);
        }
        (self.broken, self.is_again) = (Some(error), true);
        Ok(())
    }

    /// What the caller is told when nobody is left: when to come again, if that is known.
    fn ended(&mut self, counts: &Counts, nobody: Nobody, model: &str) -> InferenceError {
        if let Some(said) = self.busy.take().or_else(|| self.broken.take()) {
            return said;
        }
        let busy = |text: String, retry_ms: u64| {
            let retry_ms = retry_ms.max(LEAST_RETRY_MS);
            let message = format!("{text}; try again in {} seconds", retry_ms.div_ceil(1_000));
            InferenceError { kind: InferenceErrorKind::Busy, message, retry_after_ms: Some(retry_ms) }
        };
        match nobody {
            Nobody::Full { retry_ms } => {
                counts.full();
                busy(format!("PV-INFERENCE-BUSY: every GPU node that has `{model}` has too many requests"), retry_ms)
            }
            Nobody::Unreached { retry_ms } => {
                counts.unreached();
                busy(format!("PV-GPU-UNREACHED: no GPU node that has `{model}` can be asked just now"), retry_ms)
            }
            Nobody::Unknown => unknown(model),
        }
    }
}

/// What the caller is told of a model that no node has, or that is not there for its tenant.
pub(super) fn unknown(model: &str) -> InferenceError {
    InferenceError {
        kind: InferenceErrorKind::ModelNotFound,
        message: format!("PV-MODEL-NOT-FOUND: no GPU node has a model `{model}`; `/v1/models` lists what there is"),
        retry_after_ms: None,
    }
}

/// What the caller is told of a fault after some of the answer was told.
pub(super) fn too_late(counts: &Counts, seat: &Seat, fault: Fault) -> InferenceError {
    match fault {
        Fault::Lost(cause) => {
            note_loss(counts, seat, &cause);
            lost("in the middle of the answer")
        }
        Fault::Said(error) => {
            counts.failed(seat);
            error
        }
    }
}

fn note_loss(counts: &Counts, seat: &Seat, cause: &str) {
    seat.failed();
    counts.lost(seat);
    tracing::warn!(code = "PV-GPU-LOST", node = seat.name(), cause, "a GPU node was lost while it had a request");
}

fn lost(when: &str) -> InferenceError {
    InferenceError {
        kind: InferenceErrorKind::Failed,
        message: format!("PV-GPU-LOST: the GPU node that ran the model was lost {when}; ask again"),
        retry_after_ms: Some(LEAST_RETRY_MS),
    }
}
