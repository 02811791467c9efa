//! The call as a type: its stages, the ports it needs and [`drive`], the only way to run anything.
//!
//! Purpose: one order for every transport and every kind of call:
//! authenticate → resolve → authorise → limit → validate → guard in → **intent** (durable) →
//! execute → guard out → settle → **outcome** (durable) → answer. A denial goes straight to its
//! record.
//! Invariants: `execute` takes only `Call<Intended>` and only this crate makes one, so forgetting
//! the audit does not compile; one snapshot a call; past intent an outcome is always written, so
//! whoever runs `drive` must let it finish when the client goes away (spawn it).
//! Left out: every decision itself (the [`Plane`] makes them) and every byte of IO.

mod answer;
mod call;
mod drive;
mod guard;
mod observed;
mod ports;
mod subject;
mod within;
mod words;

pub use answer::{
    Answer, Effort, Execution, LimitKind, LimitState, Rejection, RejectionKind, Reply, ScopeChallenge, Usage,
};
pub use call::{
    Admitted, Authenticated, Call, Caller, CertificateFacts, ClientFacts, Credential, Executed, Found, Guarded,
    Intended, Limited, Operation, Received, Request, Resolved, Route, Target, TraceFacts, Validated,
};
pub use drive::drive;
pub use guard::{CallGuard, GuardedParams, GuardedReply, RecordGuard};
pub use observed::{Ended, Marks, Stage};
pub use ports::{AskError, Authorization, ClientLink, Hold, Plane, Reservation};
pub use subject::SubjectToken;
pub use within::{ChainCount, MAX_CHAIN_CALLS, Within};
