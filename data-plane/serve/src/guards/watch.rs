//! What watches one call while it runs.

use std::{fmt, sync::Arc};

use parking_lot::Mutex;
use provost_data_guards::{Blocked, Guard, JsonInspection, Layout, Tally, Vault};
use provost_data_pipeline::{CallGuard, GuardedReply, Operation, Rejection, RejectionKind, Reply};
use provost_mcp::{RawJson, RpcError};

use super::{
    chat::ChatStreams,
    counts::{GuardCounts, written},
    layouts,
};
use crate::node::CHUNK;

/// The guards of a call, and what they found so far.
pub(super) struct Watch {
    arguments: Option<Arc<Guard>>,
    results: Option<Arc<Guard>>,
    /// What tokens are made with, where any are.
    vault: Option<Arc<dyn Vault>>,
    result: &'static Layout,
    counts: Arc<GuardCounts>,
    state: Mutex<State>,
}

/// A part of the exchange that may go on.
struct Passed {
    sent: RawJson,
    /// For the log, where that is another.
    kept: Option<RawJson>,
}

#[derive(Default)]
struct State {
    /// In everything but streamed texts and the reply.
    tally: Tally,
    /// In all of it, once there was a reply.
    whole: Tally,
    chat: ChatStreams,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watch")
    }
}

impl Watch {
    /// `None`: nothing that comes back holds content.
    pub(super) fn new(
        operation: &Operation,
        arguments: Option<Arc<Guard>>,
        results: Option<Arc<Guard>>,
        vault: Option<Arc<dyn Vault>>,
        counts: Arc<GuardCounts>,
    ) -> Option<Self> {
        let result = layouts::result(operation)?;
        let state = State { chat: ChatStreams::new(vault.clone()), ..State::default() };
        Some(Self { arguments, results, vault, result, counts, state: Mutex::new(state) })
    }

    /// Looks at a part of the exchange; what it may go on as.
    fn look(&self, guard: &Guard, json: &RawJson, layout: &Layout) -> Result<Passed, Blocked> {
        let inspection = guard.inspect_json_with(json, layout, self.vault.as_deref());
        let JsonInspection { tally, blocked, rewritten, sent } = inspection;
        self.state.lock().tally.merge(&tally);
        blocked.map_or(Ok(()), Err)?;
        let kept = rewritten.unwrap_or_else(|| json.clone());
        Ok(match sent {
            Some(sent) => Passed { sent, kept: Some(kept) },
            None => Passed { sent: kept, kept: None },
        })
    }

    /// The same of what is not recorded.
    fn pass(&self, guard: Option<&Guard>, json: &RawJson, layout: &Layout) -> Result<RawJson, Blocked> {
        match guard {
            Some(guard) => self.look(guard, json, layout).map(|passed| passed.sent),
            None => Ok(json.clone()),
        }
    }

    fn error(&self, guard: &Guard, error: RpcError) -> Result<RpcError, Blocked> {
        let message = self.pass(Some(guard), &RawJson::from_text(&error.message), &layouts::EXCHANGE)?;
        let data = error.data.as_ref().map(|data| self.pass(Some(guard), data, &layouts::EXCHANGE)).transpose()?;
        let message = message.as_text().map(|text| text.into_owned()).unwrap_or_default();
        Ok(RpcError { code: error.code, message, data })
    }

    fn judge(&self, guard: &Guard, reply: Reply) -> Result<GuardedReply, Blocked> {
        match reply {
            Reply::Result { body, is_error } => {
                let Passed { sent: body, kept } = self.look(guard, &body, self.result)?;
                Ok(GuardedReply { reply: Reply::Result { body, is_error }, kept })
            }
            Reply::InputRequired(body) => {
                let Passed { sent, kept } = self.look(guard, &body, self.result)?;
                Ok(GuardedReply { reply: Reply::InputRequired(sent), kept })
            }
            Reply::Error(error) => self.error(guard, error).map(Reply::Error).map(GuardedReply::untouched),
        }
    }
}

impl CallGuard for Watch {
    fn notify(&self, method: &str, params: RawJson, send: &mut dyn FnMut(RawJson)) {
        let Some(guard) = &self.results else { return send(params) };
        if method == CHUNK {
            return self.state.lock().chat.pass(guard, params, send);
        }
        // One that may not pass is left out: the call goes on, and its record counts it.
        if let Ok(params) = self.pass(Some(guard), &params, &layouts::NOTIFICATION) {
            send(params);
        }
    }

    fn question(&self, input_requests: &RawJson) -> Result<RawJson, String> {
        let passed = self.pass(self.results.as_deref(), input_requests, &layouts::EXCHANGE);
        passed.map_err(|blocked| blocked.kind.to_string())
    }

    fn answer(&self, input_responses: RawJson) -> Result<RawJson, String> {
        let passed = self.pass(self.arguments.as_deref(), &input_responses, &layouts::EXCHANGE);
        passed.map_err(|blocked| blocked.kind.to_string())
    }

    fn reply(&self, reply: Reply) -> Result<GuardedReply, Rejection> {
        let whole_text = matches!(reply, Reply::Result { .. });
        let judged = match &self.results {
            Some(guard) => self.judge(guard, reply),
            None => Ok(GuardedReply::untouched(reply)),
        };
        let mut state = self.state.lock();
        state.whole = state.tally.clone();
        // A reply holds all that was streamed; an error does not.
        if !whole_text {
            let streamed = state.chat.tally();
            state.whole.merge(&streamed);
        }
        self.counts.add(&state.whole);
        let judged = match state.chat.blocked() {
            Some(blocked) => Err(blocked),
            None => judged,
        };
        judged.map_err(|blocked| {
            Rejection::new(
                RejectionKind::Guarded,
                "PV-GUARD-BLOCKED",
                format!(
                    "the call ran, and its answer is held back: it holds a value of kind {}, which a guard lets \
                     nobody receive here",
                    blocked.kind
                ),
            )
        })
    }

    fn found(&self) -> Vec<String> {
        written(&self.state.lock().whole)
    }
}
