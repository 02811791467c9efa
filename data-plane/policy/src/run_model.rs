//! The model that runs for a call, as prices and quotas see it.

/// A model that runs for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunModel<'a> {
    /// Its name.
    pub name: &'a str,
    /// The model that it is an adapter over, if it is one: what holds for that holds for the adapter, too.
    pub base: Option<&'a str>,
}

impl<'a> RunModel<'a> {
    /// One that is no adapter.
    pub fn plain(name: &'a str) -> Self {
        Self { name, base: None }
    }

    /// Its name, then that of its base.
    pub(crate) fn names(self) -> impl Iterator<Item = &'a str> {
        std::iter::once(self.name).chain(self.base)
    }
}
