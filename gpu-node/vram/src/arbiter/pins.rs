//! Weights that stay, and where weights stand for those who watch.

use super::Arbiter;
use crate::{Request, Standing, WeightsKey};

impl Arbiter {
    /// Keeps weights in memory once they are there, or lets them go as others again. Nobody's need displaces weights that are
    /// kept, a critical one neither, and the device filling up neither; exclusive use does, for its time, and so does
    /// [`Arbiter::unload`]. It loads nothing.
    pub fn pin(&mut self, key: WeightsKey, stays: bool) {
        if stays {
            self.pinned.insert(key);
        } else {
            self.pinned.remove(&key);
        }
    }

    /// Whether weights stay.
    pub fn is_pinned(&self, key: WeightsKey) -> bool {
        self.pinned.contains(&key)
    }

    /// Whether there is room for a request beside the weights that stay and what is set aside, once all else has gone.
    pub(super) fn can_have_room(&self, request: &Request) -> bool {
        let others =
            self.ready().into_iter().filter(|ready| ready.key != request.weights.key && self.is_pinned(ready.key));
        let kept = others.map(|ready| ready.bytes).fold(0, u64::saturating_add);
        let capacity = self.memory.usage().capacity;
        request.needed() <= capacity.saturating_sub(kept).saturating_sub(self.memory.aside())
    }

    /// Where weights stand.
    pub fn standing(&self, key: WeightsKey) -> Standing {
        self.memory.standing(key)
    }
}
