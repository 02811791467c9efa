//! Finds secrets and personal data in bytes and streams; reports, masks, tokenises or blocks them.
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
//! - Masking keeps the length of a plain text, and JSON stays JSON ([`Guard::inspect_json`]).
//! - What was tokenised comes back as it was, and only out of a token that the tenant's [`Vault`] opens.
//! - Work is linear in the length of the text.
//!
//! A plain text is looked at as it is: JSON escapes next to a value are understood (`\n`, `\u00a0`), a
//! value that is itself encoded (base64, percent, `\u0034`) is not. JSON under [`Guard::inspect_json`] is
//! looked at decoded where its escapes may hide something.
//!
//! Left out: calls, their records and what is sent on, keys of tokens (`provost-data-serve`).

mod bytes;
mod card;
mod context;
mod detectors;
mod edit;
mod email;
mod finding;
mod guard;
mod iban;
mod index;
mod json;
mod kind;
mod mask;
mod national;
mod numbers;
mod paths;
mod phone;
mod replace;
mod spread;
mod stand_in;
mod stream;
mod tally;
mod tokens;
mod words;

pub use detectors::{Detectors, MAX_HELD};
pub use finding::Finding;
pub use guard::{Action, Blocked, Guard, Inspection, Rules, Verdict};
pub use index::{ExternalGuard, GuardCall, GuardIndex, GuardTarget, HoldsRole};
pub use json::{JsonInspection, Layout, Root, mask_spans};
pub use kind::{Counts, Kind};
pub use paths::Paths;
pub use stand_in::Vault;
pub use stream::GuardStream;
pub use tally::Tally;
pub use words::Words;
