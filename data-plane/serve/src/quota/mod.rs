//! Quotas of this node: the client of the ledger, and the gate that calls pass.
//!
//! Purpose: keep the leases of [`provost_data_policy::quota`] supplied by exchanges with the
//! control plane, let calls wait a bounded time for units, and say why a call is denied.
//! Invariants: a call that a quota covers runs only with units of a lease; where the control plane
//! cannot be reached the leases at hand are spent and then calls are denied, never let through; an
//! exchange is sent again unchanged until it is answered, so nothing is lost or counted twice.
//! Left out: how exchanges travel (a [`LeasePort`]), and how an answer looks on each transport.

mod client;
mod denial;
mod gate;
mod hold;
mod port;

#[cfg(test)]
mod tests;

pub use client::Quotas;
pub use port::{GrpcLeases, LeasePort, LeaseUnavailable};

pub(crate) use denial::no_client;
