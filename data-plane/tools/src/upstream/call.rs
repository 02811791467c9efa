//! One upstream call and what may happen on its way to the answer.

use std::time::{Duration, Instant};

use provost_data_pipeline::{ClientFacts, ClientLink};
use provost_mcp::{Era, RawJson, RawObject, RequestId, RpcError};

use super::{
    connection::{Event, Exchange},
    outgoing::level_reaches,
    tasks::prefix_handles,
};
use crate::UpstreamError;

/// The member of a legacy question's `_meta` by which a server may name the input.
const INPUT_KEY: &str = "io.provost/inputKey";
/// Most questions that one call may have open.
const MAX_OPEN_QUESTIONS: usize = 32;

/// A question of a legacy server, not answered yet.
#[derive(Debug)]
struct Question {
    key: String,
    id: RequestId,
    method: String,
    params: RawJson,
}

/// A call whose request was sent.
pub(super) struct Running {
    exchange: Exchange,
    client_token: Option<RawJson>,
    questions: Vec<Question>,
    asked: u32,
    /// Answers that came with the call itself, by key.
    given: RawObject,
}

/// How one stretch of a call ended.
pub(super) enum Ended {
    /// With the answer.
    Answer(Result<RawJson, RpcError>),
    /// The client must be asked: an `inputRequests` object.
    Ask(RawJson),
    /// The caller gave up.
    Cancelled,
    /// The upstream failed, or the deadline passed.
    Failed(UpstreamError),
}

/// What a stretch needs to know.
pub(super) struct Surroundings<'a> {
    pub(super) plugin: &'a str,
    pub(super) client: &'a ClientFacts,
    pub(super) link: &'a dyn ClientLink,
    pub(super) deadline: Instant,
    pub(super) ask_window: Duration,
    /// Whether the operation may end in an `input_required` result.
    pub(super) may_ask: bool,
    /// The level from which on a modern client wants log messages.
    pub(super) log_level: Option<&'a str>,
    /// Told of every notification that is not the call's own.
    pub(super) on_change: &'a (dyn Fn(&str) + Sync),
}

impl Running {
    pub(super) fn new(exchange: Exchange, client_token: Option<RawJson>, given: Option<&RawJson>) -> Self {
        let given = given.and_then(|g| RawObject::parse(g).ok()).unwrap_or_default();
        Self { exchange, client_token, questions: Vec::new(), asked: 0, given }
    }

    /// The upstream request's id.
    pub(super) fn id(&self) -> &RequestId {
        self.exchange.id()
    }

    /// At which of the plugin's endpoints it runs.
    pub(super) fn endpoint(&self) -> usize {
        self.exchange.connection().endpoint()
    }

    /// A retry brings its own progress token.
    pub(super) fn set_client_token(&mut self, token: Option<RawJson>) {
        if token.is_some() {
            self.client_token = token;
        }
    }

    /// Passes the client's answers on. What has none (or none that is an object) stays open.
    pub(super) async fn answer(&mut self, answers: Option<&RawJson>) -> Result<(), UpstreamError> {
        let answers = answers.and_then(|a| RawObject::parse(a).ok()).unwrap_or_default();
        let mut open = Vec::new();
        for question in self.questions.drain(..) {
            match answers.get(&question.key).filter(RawJson::is_object) {
                Some(answer) => {
                    self.exchange.connection().respond(&question.id, Ok(&answer)).await?;
                }
                None => open.push(question),
            }
        }
        self.questions = open;
        Ok(())
    }

    /// Goes on until the answer, a question, cancellation, failure or the deadline.
    pub(super) async fn advance(&mut self, around: &Surroundings<'_>) -> Ended {
        if !self.questions.is_empty() {
            return Ended::Ask(self.input_requests());
        }
        // Mostly the answer came at once and whole, and nothing is waited for.
        if self.exchange.is_answered() {
            match self.exchange.next().await {
                Ok(Event::Answer(outcome)) => return Ended::Answer(outcome),
                Err(cause) => return Ended::Failed(cause),
                // Nothing else is an answer.
                Ok(Event::Asked { .. } | Event::Told { .. }) => {}
            }
        }
        let mut cancelled = around.link.cancelled();
        let deadline = tokio::time::sleep_until(around.deadline.into());
        tokio::pin!(deadline);
        let mut ask_at: Option<Instant> = None;
        loop {
            let window = async {
                match ask_at {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            let event = tokio::select! {
                biased;
                () = &mut cancelled => return Ended::Cancelled,
                event = self.exchange.next() => event,
                () = window => return Ended::Ask(self.input_requests()),
                () = &mut deadline => return Ended::Failed(UpstreamError::Deadline),
            };
            match event {
                Err(cause) => return Ended::Failed(cause),
                Ok(Event::Answer(outcome)) => {
                    self.drop_questions().await;
                    return Ended::Answer(outcome);
                }
                Ok(Event::Told { method, params }) => self.told(around, &method, params),
                Ok(Event::Asked { id, method, params }) => {
                    if let Err(cause) = self.asked(around, id, method, params).await {
                        return Ended::Failed(cause);
                    }
                    if !self.questions.is_empty() {
                        ask_at = Some(Instant::now() + around.ask_window);
                    }
                }
            }
        }
    }

    fn told(&self, around: &Surroundings<'_>, method: &str, params: Option<RawJson>) {
        let params = params.unwrap_or(RawJson::EMPTY_OBJECT);
        match method {
            "notifications/progress" => {
                // A client that gave no token wants no reports.
                let Some(token) = &self.client_token else { return };
                let Ok(mut object) = RawObject::parse(&params) else { return };
                object.set("progressToken", token.clone());
                around.link.notify(method, object.finish());
            }
            "notifications/message" => {
                if wants_message(around, &params) {
                    around.link.notify(method, params);
                }
            }
            "notifications/tasks/status" => {
                around.link.notify(method, prefix_handles(around.plugin, params));
            }
            "notifications/elicitation/complete" => around.link.notify(method, params),
            other => (around.on_change)(other),
        }
    }

    async fn asked(
        &mut self,
        around: &Surroundings<'_>,
        id: RequestId,
        method: String,
        params: Option<RawJson>,
    ) -> Result<(), UpstreamError> {
        let connection = self.exchange.connection().clone();
        let capability = match method.as_str() {
            "elicitation/create" => "elicitation",
            "sampling/createMessage" => "sampling",
            "roots/list" => "roots",
            _ => return connection.refuse(&id, &method).await,
        };
        let declared = RawObject::parse(&around.client.capabilities).unwrap_or_default();
        let refusal = if !declared.has(capability) {
            // Never ask for what the client did not declare.
            Some(format!("the client did not declare `{capability}`"))
        } else if !around.may_ask {
            Some("the client cannot be asked during this request".to_owned())
        } else if self.questions.len() >= MAX_OPEN_QUESTIONS {
            Some("too many questions are open".to_owned())
        } else {
            None
        };
        if let Some(refusal) = refusal {
            let error = RpcError::new(RpcError::INVALID_REQUEST, refusal);
            return connection.respond(&id, Err(&error)).await;
        }
        self.asked += 1;
        let params = params.unwrap_or(RawJson::EMPTY_OBJECT);
        let params = without_progress_token(&params).unwrap_or(params);
        let (key, params) = match named_key(&params) {
            Some((key, rest)) if self.questions.iter().all(|q| q.key != key) => (key, rest),
            _ => (format!("{capability}-{}", self.asked), params),
        };
        if let Some(answer) = self.given.remove(&key).filter(RawJson::is_object) {
            return connection.respond(&id, Ok(&answer)).await;
        }
        self.questions.push(Question { key, id, method, params });
        Ok(())
    }

    /// The call was answered without waiting for these; their server must not wait either.
    async fn drop_questions(&mut self) {
        let error = RpcError::new(RpcError::INVALID_REQUEST, "the call is over");
        for question in self.questions.drain(..) {
            let told = self.exchange.connection().respond(&question.id, Err(&error)).await;
            if let Err(cause) = told {
                tracing::debug!(%cause, "a dropped question was not refused");
            }
        }
    }

    fn input_requests(&self) -> RawJson {
        let mut requests = RawObject::new();
        for question in &self.questions {
            let mut request = RawObject::new();
            request.set_text("method", &question.method);
            request.set("params", question.params.clone());
            requests.set(&question.key, request.finish());
        }
        requests.finish()
    }
}

/// A legacy client gets what the upstream sends (its level is kept there); a modern one only what
/// this very request asked for.
fn wants_message(around: &Surroundings<'_>, params: &RawJson) -> bool {
    if around.client.protocol_version.era() == Era::Legacy {
        return true;
    }
    let Some(wanted) = around.log_level else { return false };
    let level = RawObject::parse(params).ok().and_then(|p| p.get_text("level")).unwrap_or_default();
    level_reaches(&level, wanted)
}

/// The parameters without the server's progress token, if there is one: nobody passes on the
/// progress of an answer, so no client should report it.
fn without_progress_token(params: &RawJson) -> Option<RawJson> {
    let mut object = RawObject::parse(params).ok()?;
    let mut meta = object.get_object("_meta")?;
    meta.remove("progressToken")?;
    if meta.is_empty() {
        object.remove("_meta");
    } else {
        object.set("_meta", meta.finish());
    }
    Some(object.finish())
}

/// The key that the server gave the input, and the parameters without it.
fn named_key(params: &RawJson) -> Option<(String, RawJson)> {
    const MAX_KEY_CHARS: usize = 64;
    let mut object = RawObject::parse(params).ok()?;
    let mut meta = object.get_object("_meta")?;
    let key = meta.remove(INPUT_KEY)?.as_text()?.into_owned();
    if key.is_empty() || key.chars().count() > MAX_KEY_CHARS {
        return None;
    }
    if meta.is_empty() {
        object.remove("_meta");
    } else {
        object.set("_meta", meta.finish());
    }
    Some((key, object.finish()))
}
