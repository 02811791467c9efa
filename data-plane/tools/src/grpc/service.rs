//! A plugin whose tools are the methods of gRPC services.
//!
//! Invariants: what the plugin gives (metadata, tokens) is put on after everything that comes from a caller, and taken out
//! of what comes back; a call ends with its deadline, or when its caller gives up; what was listed is what runs.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::HeaderValue;
use provost_data_pipeline::{ClientLink, Execution};
use provost_mcp::{JsonLimits, RawJson, RawObject};
use serde_json::{Value, json};

use super::{
    catalogue::{Catalogue, Filter},
    descriptors::{Files, caught},
    frame,
    line::{Answer, Asked, Line, Take},
    message,
    method::Call,
    reading,
    reflection::Asker,
};
use crate::{
    Definitions, ExecuteRequest, Limits, UpstreamError,
    listed::{Listed, in_time, tool_of},
    oauth::{Authorizer, Behalf},
    openapi::{arguments, as_object, refusal},
    redact::Redactor,
    trace_headers::TraceHeaders,
};

/// Bytes of the messages of one answer. A message takes up to fifty times its bytes while it is read, so that this is less
/// than what others may send.
const MAX_ANSWER_BYTES: usize = 2 * 1024 * 1024;
/// Nesting of an answer. The result around it takes a few levels of what is read in the end.
const MAX_DEPTH: u32 = 100;
/// How long descriptors that were asked for are used before they are asked for again.
const DESCRIPTOR_TTL: Duration = Duration::from_secs(300);
/// What is said of a tool whose definition is another one now.
const CHANGED: &str = "its descriptors have just changed";
/// What is said of descriptors that no compiler wrote.
const UNUSABLE: &str = "its descriptors cannot be used";
/// What is said beside messages of a stream that may have more.
const MORE_MESSAGES: &str = "The stream may have more messages; it was ended here.";

/// The plugin.
pub(crate) struct Grpc {
    plugin: String,
    line: Line,
    auth: Option<Arc<Authorizer>>,
    redactor: Redactor,
    source: Listed<Catalogue, Filter>,
    limits: Limits,
}

/// An answer, and what is written over in it.
struct Answered {
    answer: Answer,
    redactor: Redactor,
}

impl Grpc {
    /// Reads the descriptors, if they are there; connects to nothing yet.
    pub(crate) fn new(
        plugin: &str,
        (line, auth, redactor): (Line, Option<Arc<Authorizer>>, Redactor),
        descriptor: Option<&str>,
        filter: Filter,
        limits: &Limits,
    ) -> Result<Self, UpstreamError> {
        let source = match descriptor {
            Some(text) => {
                let read = || {
                    let files = Files::of_base64(text)?;
                    Ok::<_, String>(caught(|| Catalogue::read(files, &filter, limits.max_definitions)))
                };
                let catalogue = reading::of_document(text, read);
                let catalogue = catalogue.map_err(|cause| UpstreamError::Config(format!("the descriptor: {cause}")))?;
                let catalogue = catalogue.ok_or_else(|| UpstreamError::Config(UNUSABLE.to_owned()))?;
                catalogue.log(plugin);
                Listed::Inline(catalogue)
            }
            None => Listed::asked(filter),
        };
        Ok(Self { plugin: plugin.to_owned(), line, auth, redactor, source, limits: limits.clone() })
    }

    /// What gives the plugin's tokens, if it acts in its users' names.
    pub(crate) fn consents(&self) -> Option<&Authorizer> {
        self.auth.as_deref().filter(|auth| auth.is_per_user())
    }

    /// Its tools as far as they are known without asking.
    pub(crate) fn at_hand(&self) -> Option<Definitions> {
        self.source.at_hand()
    }

    /// Its tools; the service is asked if they are too old.
    pub(crate) async fn tools(&self) -> Result<Definitions, UpstreamError> {
        match &self.source {
            Listed::Inline(catalogue) => Ok(catalogue.definitions.clone()),
            Listed::Asked { from, kept } => {
                kept.tools(&self.limits, DESCRIPTOR_TTL, || Box::pin(self.reflected(from))).await
            }
        }
    }

    /// What the service says of itself now, to the plugin itself.
    async fn reflected(&self, filter: &Filter) -> Result<Catalogue, UpstreamError> {
        let token = match &self.auth {
            Some(auth) => auth.own_header().await?,
            None => None,
        };
        let redactor = with_token(&self.redactor, token.as_ref());
        let deadline = Instant::now() + self.limits.list_timeout;
        let asker = Asker { line: &self.line, token: token.as_ref(), redactor: &redactor, deadline };
        let files = match asker.files(&filter.services, |name| filter.takes_service(name)).await {
            Err(UpstreamError::Unauthorized(status)) => {
                if let (Some(auth), Some(token)) = (&self.auth, &token) {
                    auth.refused(None, token);
                }
                return Err(UpstreamError::Unauthorized(status));
            }
            files => files?,
        };
        let catalogue = reading::of_files(files, filter, self.limits.max_definitions).await;
        let catalogue = catalogue.ok_or_else(|| UpstreamError::Garbage(UNUSABLE.to_owned()))?;
        catalogue.log(&self.plugin);
        Ok(catalogue)
    }

    /// Calls one method.
    pub(crate) async fn execute(
        &self,
        request: &ExecuteRequest<'_>,
        link: &dyn ClientLink,
    ) -> Result<Execution, UpstreamError> {
        let tool = tool_of(request)?;
        in_time(request, link, Box::pin(self.called(tool, request))).await
    }

    async fn called(&self, tool: &str, request: &ExecuteRequest<'_>) -> Result<Execution, UpstreamError> {
        if matches!(self.source, Listed::Asked { .. }) {
            // The first call of a node that was asked for no list yet.
            self.tools().await?;
        }
        let call = self.source.call_of(tool, CHANGED)?;
        let (message, count) = message::written(&call, &arguments(&request.params)?)?;
        let body = frame::written([&message[..]])?;
        let take = if call.messages.is_some() { Take::First(count) } else { Take::All(1) };
        let Answered { answer, redactor } = self.asked(&call, body, take, request).await?;
        if let Some(failure) = answer.status.failure(&redactor) {
            return Err(failure);
        }
        if !answer.status.is_ok() {
            let text = answer.status.refusal(call.output.parent_pool(), &redactor);
            return Ok(Execution::result(refusal(&text), true));
        }
        Ok(Execution::result(self.result(&call, &answer, &redactor)?, false))
    }

    /// An answer as the result of a tool.
    fn result(&self, call: &Call, answer: &Answer, redactor: &Redactor) -> Result<RawJson, UpstreamError> {
        let max_bytes = self.limits.max_answer_bytes;
        let whole = match (&call.messages, answer.messages.first()) {
            (None, Some(message)) => message::json(&call.output, message, max_bytes)?,
            (None, None) => return Err(UpstreamError::Garbage("it ended well without a message".to_owned())),
            (Some(_), _) => {
                let mut list = vec![b'['];
                for message in &answer.messages {
                    if list.len() > 1 {
                        list.push(b',');
                    }
                    let left = max_bytes.saturating_sub(list.len());
                    list.extend(message::json(&call.output, message, left)?);
                }
                list.push(b']');
                list
            }
        };
        let limits = JsonLimits { max_bytes, max_depth: MAX_DEPTH };
        let json = RawJson::check(redactor.message(Bytes::from(whole)), &limits)?;
        let mut blocks = vec![json!({"type": "text", "text": json.as_str()})];
        if answer.is_cut {
            blocks.push(json!({"type": "text", "text": MORE_MESSAGES}));
        }
        let mut result = RawObject::new();
        result.set("content", RawJson::from(Value::Array(blocks)));
        result.set("structuredContent", as_object(json));
        Ok(result.finish())
    }

    /// Calls the method, with another token if the first one is refused: the service did not look at the call then.
    async fn asked(
        &self,
        call: &Call,
        body: Bytes,
        take: Take,
        request: &ExecuteRequest<'_>,
    ) -> Result<Answered, UpstreamError> {
        let Some(auth) = &self.auth else { return self.sent(call, body, take, request, None).await };
        let behalf = auth.behalf(request.principal, request.subject)?;
        let Some(token) = token(auth, behalf.as_ref()).await? else {
            return self.sent(call, body, take, request, None).await;
        };
        match self.sent(call, body.clone(), take, request, Some(&token)).await {
            Ok(answered) if answered.answer.status.is_unauthenticated() => {}
            Err(UpstreamError::Unauthorized(401)) => {}
            ended => return ended,
        }
        auth.refused(behalf.as_ref(), &token);
        let next = self::token(auth, behalf.as_ref()).await?.unwrap_or(token);
        self.sent(call, body, take, request, Some(&next)).await
    }

    async fn sent(
        &self,
        call: &Call,
        body: Bytes,
        take: Take,
        request: &ExecuteRequest<'_>,
        token: Option<&HeaderValue>,
    ) -> Result<Answered, UpstreamError> {
        let max_bytes = self.limits.max_answer_bytes.min(MAX_ANSWER_BYTES);
        let trace = TraceHeaders::of_params(&request.params);
        let asked = Asked { path: &call.path, body, token, deadline: request.deadline, take, max_bytes, trace };
        let answer = self.line.ask(asked).await?;
        Ok(Answered { answer, redactor: with_token(&self.redactor, token) })
    }
}

/// Finds the token too.
fn with_token(redactor: &Redactor, token: Option<&HeaderValue>) -> Redactor {
    let value = token.and_then(|token| token.to_str().ok()).and_then(|text| text.split_once(' '));
    value.map_or_else(|| redactor.clone(), |(_, value)| redactor.and(value))
}

/// The `authorization` header of a call; `None`: it has none.
async fn token(auth: &Authorizer, behalf: Option<&Behalf<'_>>) -> Result<Option<HeaderValue>, UpstreamError> {
    match behalf {
        Some(behalf) => auth.header(behalf).await.map(Some),
        None => auth.own_header().await,
    }
}
