//! Which values stand at protected places, while JSON is walked from its root.
//!
//! A path is followed by remembering how many of its steps have been taken; a step down tries the next
//! one of each. So the work is at most the number of paths for each value.

use provost_types::{ContentPath, PathStep};

use crate::guard::Action;

/// Protected places, each with what is done about what stands there.
#[derive(Debug, Clone, Default)]
pub struct Paths(Vec<(ContentPath, Action)>);

impl Paths {
    /// These places.
    pub fn new(paths: impl IntoIterator<Item = (ContentPath, Action)>) -> Paths {
        Paths(paths.into_iter().collect())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The strictest of what is done at any of them.
    pub(crate) fn strictest(&self) -> Option<Action> {
        self.0.iter().map(|(_, action)| *action).max()
    }

    pub(crate) fn any(&self, wanted: Action) -> bool {
        self.0.iter().any(|(_, action)| *action == wanted)
    }

    /// Whether what stands at any of them is given back.
    pub(crate) fn reveal(&self) -> bool {
        self.any(Action::Reveal)
    }

    /// Nothing taken yet: what holds at `$`.
    pub(crate) fn root(&self) -> Taken {
        Taken((0..self.0.len()).map(|path| (path, 0)).collect())
    }

    /// One step down, to the member of this name or (without one) to an item.
    pub(crate) fn step(&self, taken: &Taken, name: Option<&[u8]>) -> Below {
        let mut below = Below::default();
        for (path, at) in &taken.0 {
            let Some((whole, action)) = self.0.get(*path) else { continue };
            let is_named = |wanted: &str| name == Some(wanted.as_bytes());
            let (stays, goes_on) = match whole.steps().get(*at) {
                Some(PathStep::Member(wanted)) => (false, is_named(wanted)),
                Some(PathStep::Any) => (false, true),
                Some(PathStep::Descendant(wanted)) => (true, is_named(wanted)),
                None => (false, false),
            };
            if stays {
                below.taken.0.push((*path, *at));
            }
            if !goes_on {
                continue;
            }
            if at + 1 == whole.steps().len() {
                below.hit = below.hit.max(Some(*action));
            } else {
                below.taken.0.push((*path, at + 1));
            }
        }
        below.taken.0.sort_unstable();
        below.taken.0.dedup();
        below
    }
}

/// Paths of which the first so many steps have been taken.
#[derive(Debug, Clone, Default)]
pub(crate) struct Taken(Vec<(usize, usize)>);

impl Taken {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What holds one step down.
#[derive(Debug, Default)]
pub(crate) struct Below {
    pub(crate) taken: Taken,
    /// The strictest action of the paths that end here.
    pub(crate) hit: Option<Action>,
}
