//! What every route shares: bodies, who may address us, and server-sent events.

mod body;
mod doorkeeper;
mod outbox;

pub use body::ResponseBody;
pub(crate) use body::{BodyFault, Refusal, collect, empty, json, pass_over, says_too_long, text};
pub(crate) use doorkeeper::{Doorkeeper, Refused};
pub use outbox::SseBody;
pub(crate) use outbox::{CancelOnDrop, Final, Outbox, OutboxKind, Ready, event_stream, sse_response};
