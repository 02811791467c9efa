//! Finds secrets and personal data in bytes and streams; reports, masks or blocks them.
//!
//! Purpose: given what a call sends or gets back, whole or in chunks, say which kinds of protected
//! values it holds and where, and apply one [`Action`] for each kind.
//!
//! How: three families of detectors look for their own anchor (`@`, a digit, the fixed start of a token)
//! at the speed of memory, and run hand-written checks (check digits, lengths, boundaries, words
//! nearby) only where an anchor is. There is no regular expression to backtrack.
//!
//! Invariants:
//! - What is found does not depend on how a text was cut into chunks. A stream releases only bytes that
//!   no later byte can make part of a finding, and holds back a bounded tail ([`MAX_HELD`]).
//! - Results are kinds, counts and offsets, never a value.
//! - Masking keeps the length of the text, and JSON stays JSON.
//! - Work is linear in the length of the text.
//!
//! The text is looked at as it is on the wire: JSON escapes next to a value are understood (`\n`,
//! `\u00a0`), a value that is itself encoded (base64, percent, `\u0034`) is not.
//!
//! Left out: which guard applies to which call, tokenisation, dictionaries of a tenant, JSON paths.

mod bytes;
mod card;
mod context;
mod detectors;
mod email;
mod finding;
mod guard;
mod iban;
mod kind;
mod mask;
mod national;
mod numbers;
mod phone;
mod stream;
mod tokens;

pub use detectors::{Detectors, MAX_HELD};
pub use finding::Finding;
pub use guard::{Action, Blocked, Guard, Inspection, Rules, Verdict};
pub use kind::{Counts, Kind};
pub use stream::GuardStream;
