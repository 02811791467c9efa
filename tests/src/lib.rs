//! Black-box tests of the binary and the fixtures they use.

pub mod everything;
pub mod tickets;
