//! What watches one call while it runs.

use std::{fmt, sync::Arc};

use parking_lot::Mutex;
use provost_data_guards::{Blocked, Guard, JsonInspection, Layout, Tally, Vault};
use provost_data_pipeline::{CallGuard, ClientLink, GuardedReply, Operation, Rejection, RejectionKind, Reply};
use provost_mcp::{RawJson, RawObject, RpcError};
use provost_types::BoxFuture;
use provost_wire::guard::Part;

use super::{
    calls::Calls,
    chat::ChatStreams,
    counts::{GuardCounts, written},
    external::{Checked, Outside, Queue, Stop, Waiting, Windows},
    layouts,
};
use crate::node::CHUNK;

/// The guards of a call, one way each.
#[derive(Default)]
pub(crate) struct Ways {
    pub(super) arguments: Option<Arc<Guard>>,
    pub(super) results: Option<Arc<Guard>>,
    pub(super) outside_arguments: Option<Outside>,
    pub(super) outside_results: Option<Outside>,
    /// What tokens are made with, where any are.
    pub(super) vault: Option<Arc<dyn Vault>>,
}

impl Ways {
    pub(super) fn is_empty(&self) -> bool {
        self.arguments.is_none()
            && self.results.is_none()
            && self.outside_arguments.is_none()
            && self.outside_results.is_none()
    }
}

/// The guards of a call, and what they found so far.
pub(super) struct Watch {
    ways: Ways,
    result: &'static Layout,
    counts: Arc<GuardCounts>,
    state: Mutex<State>,
    /// What waits for external guards before it goes to the client.
    queue: Queue,
}

/// A part of the exchange that may go on.
struct Passed {
    sent: RawJson,
    /// For the log, where that is another.
    kept: Option<RawJson>,
}

impl Passed {
    fn untouched(json: &RawJson) -> Self {
        Self { sent: json.clone(), kept: None }
    }
}

#[derive(Default)]
struct State {
    /// In everything but streamed texts and the reply.
    tally: Tally,
    /// In all of it, once there was a reply.
    whole: Tally,
    calls: Calls,
    chat: ChatStreams,
    windows: Windows,
    /// Why of a stream nothing leaves any more.
    stop: Option<Stop>,
}

/// Why something does not pass.
enum Held {
    Inside(Blocked),
    Outside(Stop),
}

impl From<Blocked> for Held {
    fn from(blocked: Blocked) -> Self {
        Held::Inside(blocked)
    }
}

impl Held {
    /// As a question's asker reads it.
    fn kind(&self) -> String {
        match self {
            Held::Inside(blocked) => blocked.kind.to_string(),
            Held::Outside(_) => "external".to_owned(),
        }
    }

    fn rejection(&self) -> Rejection {
        match self {
            Held::Inside(blocked) => Rejection::new(
                RejectionKind::Guarded,
                "PV-GUARD-BLOCKED",
                format!(
                    "the call ran, and its answer is held back: it holds a value of kind {}, which a guard lets \
                     nobody receive here",
                    blocked.kind
                ),
            ),
            Held::Outside(stop) => stop.rejection(true),
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watch")
    }
}

impl Watch {
    /// `None`: nothing that comes back holds content.
    pub(super) fn new(operation: &Operation, ways: Ways, counts: Arc<GuardCounts>) -> Option<Self> {
        let result = layouts::result(operation)?;
        let state = State { chat: ChatStreams::new(ways.vault.clone()), ..State::default() };
        Some(Self { ways, result, counts, state: Mutex::new(state), queue: Queue::default() })
    }

    /// Looks at a part of the exchange; what it may go on as.
    fn look(&self, guard: Option<&Guard>, json: &RawJson, layout: &Layout) -> Result<Passed, Blocked> {
        let Some(guard) = guard else { return Ok(Passed::untouched(json)) };
        let inspection = guard.inspect_json_with(json, layout, self.ways.vault.as_deref());
        let JsonInspection { tally, blocked, rewritten, sent } = inspection;
        self.state.lock().tally.merge(&tally);
        blocked.map_or(Ok(()), Err)?;
        let kept = rewritten.unwrap_or_else(|| json.clone());
        Ok(match sent {
            Some(sent) => Passed { sent, kept: Some(kept) },
            None => Passed { sent: kept, kept: None },
        })
    }

    /// The same, and asks external guards. What they change is not opened.
    async fn pass(
        &self,
        (guard, outside): (Option<&Guard>, Option<&Outside>),
        (part, layout): (Part, &Layout),
        json: &RawJson,
    ) -> Result<Passed, Held> {
        let passed = self.look(guard, json, layout)?;
        let Some(outside) = outside else { return Ok(passed) };
        // In a box: to ask others is a large future, and most guards ask nobody.
        let checking = Box::pin(outside.check(part, passed.kept.as_ref().unwrap_or(&passed.sent), layout));
        let Checked { changed, tally, stop } = checking.await;
        self.state.lock().tally.merge(&tally);
        stop.map_or(Ok(()), |stop| Err(Held::Outside(stop)))?;
        Ok(changed.map_or(passed, |changed| Passed { sent: changed, kept: None }))
    }

    fn results(&self) -> (Option<&Guard>, Option<&Outside>) {
        (self.ways.results.as_deref(), self.ways.outside_results.as_ref())
    }

    async fn error(&self, error: RpcError) -> Result<RpcError, Held> {
        let mut object = RawObject::new();
        object.set("message", RawJson::from_text(&error.message));
        if let Some(data) = &error.data {
            object.set("data", data.clone());
        }
        let passed = self.pass(self.results(), (Part::Error, &layouts::EXCHANGE), &object.finish()).await?;
        let object = RawObject::parse(&passed.sent).unwrap_or_default();
        let message = object.get_text("message").unwrap_or_default();
        Ok(RpcError { code: error.code, message, data: object.get("data") })
    }

    async fn judge(&self, reply: Reply) -> Result<GuardedReply, Held> {
        let how = (Part::Result, self.result);
        match reply {
            Reply::Result { body, is_error } => {
                let Passed { sent: body, kept } = self.pass(self.results(), how, &body).await?;
                Ok(GuardedReply { reply: Reply::Result { body, is_error }, kept })
            }
            Reply::InputRequired(body) => {
                let Passed { sent, kept } = self.pass(self.results(), how, &body).await?;
                Ok(GuardedReply { reply: Reply::InputRequired(sent), kept })
            }
            Reply::Error(error) => self.error(error).await.map(Reply::Error).map(GuardedReply::untouched),
        }
    }

    /// What external guards leave of a notification.
    async fn check_waiting(&self, outside: &Outside, waiting: &Waiting) -> Vec<RawJson> {
        if waiting.method != CHUNK {
            let Checked { changed, tally, stop } =
                outside.check(Part::Notification, &waiting.params, &layouts::NOTIFICATION).await;
            self.state.lock().tally.merge(&tally);
            // One that may not pass is left out: the call goes on, and its record counts it.
            return match stop {
                Some(_) => Vec::new(),
                None => vec![changed.unwrap_or_else(|| waiting.params.clone())],
            };
        }
        let looked = {
            let state = self.state.lock();
            if state.stop.is_some() {
                return Vec::new();
            }
            state.windows.look(&waiting.params)
        };
        let Some(piece) = looked else { return vec![waiting.params.clone()] };
        let mut changed = None;
        if let Some(window) = &piece.window {
            let checked = outside.check(Part::Stream, window, &layouts::EXCHANGE).await;
            let mut state = self.state.lock();
            state.tally.merge(&checked.tally);
            if checked.stop.is_some() {
                state.stop = checked.stop;
                return Vec::new();
            }
            changed = checked.changed;
        }
        self.state.lock().windows.pass(piece, changed)
    }

    /// Sends what waits.
    async fn send_waiting(&self, outside: &Outside, link: &dyn ClientLink) {
        while let Some(waiting) = self.queue.first() {
            let passed = self.check_waiting(outside, &waiting).await;
            self.queue.take();
            passed.into_iter().for_each(|params| link.notify(&waiting.method, params));
        }
    }

    /// Sends at once, or when external guards have seen it.
    fn pass_on(&self, method: &str, params: RawJson, send: &mut dyn FnMut(RawJson)) {
        if self.ways.outside_results.is_none() {
            return send(params);
        }
        if !self.queue.push(method, params) && method == CHUNK {
            // A text with a hole is another text.
            let mut state = self.state.lock();
            state.stop.get_or_insert(Stop::TooFast);
        }
    }
}

impl CallGuard for Watch {
    fn notify(&self, method: &str, params: RawJson, send: &mut dyn FnMut(RawJson)) {
        if method == CHUNK {
            if self.ways.results.is_none() && self.ways.outside_results.is_none() {
                return send(params);
            }
            let mut passed = Vec::new();
            {
                let mut state = self.state.lock();
                for chunk in state.calls.join(params) {
                    match &self.ways.results {
                        Some(guard) => state.chat.pass(guard, chunk, &mut |chunk| passed.push(chunk)),
                        None => passed.push(chunk),
                    }
                }
            }
            return passed.into_iter().for_each(|chunk| self.pass_on(method, chunk, send));
        }
        // One that may not pass is left out: the call goes on, and its record counts it.
        if let Ok(passed) = self.look(self.ways.results.as_deref(), &params, &layouts::NOTIFICATION) {
            self.pass_on(method, passed.sent, send);
        }
    }

    fn relay<'a>(&'a self, link: &'a dyn ClientLink) -> Option<BoxFuture<'a, ()>> {
        let outside = self.ways.outside_results.as_ref()?;
        Some(Box::pin(async move {
            loop {
                self.send_waiting(outside, link).await;
                self.queue.came().await;
            }
        }))
    }

    fn flush<'a>(&'a self, link: &'a dyn ClientLink) -> Option<BoxFuture<'a, ()>> {
        let outside = self.ways.outside_results.as_ref()?;
        Some(Box::pin(self.send_waiting(outside, link)))
    }

    fn question<'a>(&'a self, input_requests: &'a RawJson) -> BoxFuture<'a, Result<RawJson, String>> {
        Box::pin(async move {
            let how = (Part::Question, &layouts::EXCHANGE);
            let passed = self.pass(self.results(), how, input_requests).await;
            passed.map(|passed| passed.sent).map_err(|held| held.kind())
        })
    }

    fn answer(&self, input_responses: RawJson) -> BoxFuture<'_, Result<RawJson, String>> {
        Box::pin(async move {
            let ways = (self.ways.arguments.as_deref(), self.ways.outside_arguments.as_ref());
            let passed = self.pass(ways, (Part::Answer, &layouts::EXCHANGE), &input_responses).await;
            passed.map(|passed| passed.sent).map_err(|held| held.kind())
        })
    }

    fn reply(&self, reply: Reply) -> BoxFuture<'_, Result<GuardedReply, Rejection>> {
        Box::pin(async move {
            let whole_text = matches!(reply, Reply::Result { .. });
            let judged = self.judge(reply).await;
            let mut state = self.state.lock();
            state.whole = state.tally.clone();
            // A reply holds all that was streamed; an error does not.
            if !whole_text {
                let streamed = state.chat.tally();
                state.whole.merge(&streamed);
            }
            self.counts.add(&state.whole);
            let streamed = match (state.chat.blocked(), state.stop.take()) {
                (Some(blocked), _) => Err(Held::Inside(blocked)),
                (None, Some(stop)) => Err(Held::Outside(stop)),
                (None, None) => Ok(()),
            };
            streamed.and(judged).map_err(|held| held.rejection())
        })
    }

    fn found(&self) -> Vec<String> {
        written(&self.state.lock().whole)
    }
}
