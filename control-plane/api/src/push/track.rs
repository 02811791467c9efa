//! The sequence of states that one set of node groups gets.

use std::sync::{Arc, Mutex};

use provost_control_state::State;

use super::{
    batch::{Batch, Point},
    image::{EncodeError, Image},
    lock,
    ring::{After, Ring},
};

/// An image and the deltas that led to it. Two locks: the image is held while a revision is
/// compared and encoded, and streams that are up to date need only the ring.
pub(crate) struct Track {
    image: Mutex<Image>,
    ring: Mutex<Ring>,
}

impl Track {
    pub(crate) fn new(state: Arc<State>) -> Result<Self, EncodeError> {
        let image = Image::new(state)?;
        let ring = Mutex::new(Ring::new(image.point().clone()));
        Ok(Self { image: Mutex::new(image), ring })
    }

    pub(crate) fn state(&self) -> Arc<State> {
        lock(&self.image).state().clone()
    }

    /// Goes to a later state. One caller at a time.
    pub(crate) fn advance(&self, next: Arc<State>) -> Result<(), EncodeError> {
        if let Some(batch) = lock(&self.image).advance(next)? {
            lock(&self.ring).push(Arc::new(batch));
        }
        Ok(())
    }

    /// What a stream at `at` is sent next; `None`: nothing yet. One that is ahead, and no further than
    /// `back`, goes back to this track.
    pub(crate) fn next(&self, at: Option<&Point>, back: Option<u64>) -> Option<Arc<Batch>> {
        let after = at.map(|at| {
            let ring = lock(&self.ring);
            let is_ahead = at.revision > ring.head().revision && Some(at.revision) <= back;
            if is_ahead { After::Whole } else { ring.after(at) }
        });
        match after {
            Some(After::Delta(batch)) => Some(batch),
            Some(After::Nothing) => None,
            Some(After::Whole) | None => {
                // The image can be one step ahead of the ring: the stream may have it already.
                let whole = lock(&self.image).whole();
                (at != Some(&whole.to)).then_some(whole)
            }
        }
    }

    pub(crate) fn head_revision(&self) -> u64 {
        lock(&self.ring).head().revision
    }
}
