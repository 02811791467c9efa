//! A corpus made by rule: labelled values of every kind in the places where they occur, and what is
//! easily taken for them.
//!
//! The same seed gives the same corpus on every machine; `corpus.rs` pins its digest, so the generator is
//! the corpus. It shares no code with the detectors: check digits are computed here a second time.

#![allow(dead_code, reason = "the bench and the tests use different parts")]

pub mod negatives;
pub mod rng;
pub mod rows;
pub mod values;
