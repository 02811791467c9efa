//! Requests, and the form in which other nodes get them: made once, whoever is asked how often.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use bytes::Bytes;
use provost_types::{ChatRequest, EmbedRequest, InferenceError, InferenceErrorKind, TranscribeRequest};
use serde::Serialize;

use super::choose::Wanted;

/// A request that has not begun after so long is told to try again, whoever was asked.
const BEGINS_WITHIN: Duration = Duration::from_secs(60);
/// A node that is asked late gets so long at least.
const LEAST_WAIT: Duration = Duration::from_secs(1);

/// To continue a conversation.
pub(super) type Chat = Asked<ChatRequest>;
/// To embed texts.
pub(super) type Embed = Asked<EmbedRequest>;
/// To write down what is said.
pub(super) type Transcribe = Asked<TranscribeRequest>;

/// See the module.
pub(super) struct Asked<T> {
    pub(super) request: T,
    pub(super) wanted: Wanted,
    body: OnceLock<Bytes>,
    since: Instant,
}

impl<T: Serialize> Asked<T> {
    pub(super) fn new(request: T, wanted: Wanted) -> Self {
        Self { request, wanted, body: OnceLock::new(), since: Instant::now() }
    }

    /// The request as JSON; sound is no part of it.
    ///
    /// # Errors
    /// When it has a number that is none.
    pub(super) fn body(&self) -> Result<Bytes, InferenceError> {
        if let Some(body) = self.body.get() {
            return Ok(body.clone());
        }
        let body = serde_json::to_vec(&self.request).map_err(|cause| InferenceError {
            kind: InferenceErrorKind::InvalidRequest,
            message: format!("PV-GPU-MESSAGE: the request cannot be written: {cause}"),
            retry_after_ms: None,
        })?;
        Ok(self.body.get_or_init(|| body.into()).clone())
    }

    /// How long the next node may let it wait, in milliseconds.
    pub(super) fn wait_ms(&self) -> u64 {
        let left = BEGINS_WITHIN.saturating_sub(self.since.elapsed()).max(LEAST_WAIT);
        u64::try_from(left.as_millis()).unwrap_or(u64::MAX)
    }
}
