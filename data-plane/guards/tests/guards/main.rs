//! The detectors on a labelled corpus, streams cut everywhere, and what masks leave.
#![allow(clippy::expect_used, clippy::panic, reason = "a test stops at the first surprise")]

mod cases;
mod corpus;
mod index;
mod json;
mod masks;
mod quality;
mod streams;
mod tokens;
mod words;
