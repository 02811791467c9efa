//! The token that keeps bytes in place.

/// Pins weights, or a budget of bytes, until it is given back.
///
/// It cannot be copied: whoever holds it must hand it to
/// [`DeviceMemory::release`](crate::DeviceMemory::release). Dropping it without that leaves the
/// bytes booked for as long as the machine lives: safe, but wasteful, hence `must_use`.
#[must_use = "a lease that is not released stays booked"]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    pub(crate) id: u64,
}
