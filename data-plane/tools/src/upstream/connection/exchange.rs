//! One request on its way to its answer, and what comes before that.

use std::sync::Arc;

use http::HeaderMap;
use provost_mcp::{Envelope, RawJson, RequestId, RpcError};

use super::{
    super::{
        http::{MessageStream, header_value},
        switchboard::Line,
    },
    Connection, Wire,
};
use crate::UpstreamError;

/// What happens on the way to an answer.
#[derive(Clone, Debug)]
pub(in crate::upstream) enum Event {
    /// The answer; nothing follows.
    Answer(Result<RawJson, RpcError>),
    /// The server asks (legacy).
    Asked { id: RequestId, method: String, params: Option<RawJson> },
    /// The server tells.
    Told { method: String, params: Option<RawJson> },
}

/// Where the answer comes from.
pub(super) enum Source {
    /// One message, not yet taken.
    Message(Option<Envelope>),
    Stream(Box<MessageStream>),
    /// Only the switchboard.
    Line,
}

/// A request on its way to its answer.
pub(in crate::upstream) struct Exchange {
    pub(super) connection: Arc<Connection>,
    pub(super) id: RequestId,
    pub(super) line: Option<Line>,
    pub(super) source: Source,
    pub(super) finished: bool,
}

impl Exchange {
    pub(in crate::upstream) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    pub(in crate::upstream) fn id(&self) -> &RequestId {
        &self.id
    }

    /// Whether the answer came at once and was not taken yet.
    pub(in crate::upstream) fn is_answered(&self) -> bool {
        matches!(self.source, Source::Message(Some(Envelope::Response { .. })))
    }

    /// Takes the answer if it came at once and says that our headers do not fit the body.
    pub(in crate::upstream) fn refused_for_headers(&mut self) -> Option<RpcError> {
        let Source::Message(message) = &mut self.source else { return None };
        match message {
            Some(Envelope::Response { outcome: Err(error), .. }) if error.code == RpcError::HEADER_MISMATCH => {
                self.finished = true;
                Some(error.clone())
            }
            _ => None,
        }
    }

    /// What happens next. Can be dropped and called again without loss.
    pub(in crate::upstream) async fn next(&mut self) -> Result<Event, UpstreamError> {
        let event = self.advance().await;
        if let (Ok(Event::Answer(_)), true) = (&event, matches!(self.source, Source::Stream(_)))
            && let Source::Stream(stream) = std::mem::replace(&mut self.source, Source::Line)
        {
            stream.finish();
        }
        if matches!(event, Ok(Event::Answer(_)) | Err(_)) {
            self.finished = !matches!(event, Err(UpstreamError::Died(_)));
        }
        event
    }

    async fn advance(&mut self) -> Result<Event, UpstreamError> {
        loop {
            match &mut self.source {
                Source::Message(message) => {
                    let Some(message) = message.take() else { return Err(ended()) };
                    return own_event(&self.id, message);
                }
                Source::Line => {
                    let Some(line) = &mut self.line else { return Err(ended()) };
                    return match line_event(line).await {
                        Some(event) => Ok(event),
                        None => Err(self.connection.switchboard.closed().unwrap_or_else(ended)),
                    };
                }
                Source::Stream(stream) => {
                    let message = match &mut self.line {
                        None => stream.next().await?,
                        Some(line) => tokio::select! {
                            biased;
                            message = stream.next() => message?,
                            event = line_event(line) => match event {
                                Some(event) => return Ok(event),
                                None => return Err(
                                    self.connection.switchboard.closed().unwrap_or_else(ended)
                                ),
                            },
                        },
                    };
                    match message {
                        Some(message) => return own_event(&self.id, message),
                        None => self.resume().await?,
                    }
                }
            }
        }
    }

    /// The stream ended before the answer: a legacy server may let us resume it (2025-11-25,
    /// transports, "Resumability and Redelivery").
    async fn resume(&mut self) -> Result<(), UpstreamError> {
        let Source::Stream(stream) = &self.source else { return Err(ended()) };
        let (Some((last_id, pause)), true) = (stream.resume_point(), self.connection.is_legacy()) else {
            return Err(ended());
        };
        tokio::time::sleep(pause).await;
        let Wire::Http { target, .. } = &self.connection.wire else { return Err(ended()) };
        let mut headers = self.connection.headers(HeaderMap::new());
        if let Some(value) = header_value(&last_id) {
            headers.insert("last-event-id", value);
        }
        match target.stream(headers).await? {
            Some(stream) => {
                self.source = Source::Stream(Box::new(stream));
                Ok(())
            }
            None => Err(ended()),
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if self.line.is_some() {
            self.connection.switchboard.forget(&self.id);
        }
        if !self.finished {
            self.connection.cancel(&self.id);
        }
    }
}

fn ended() -> UpstreamError {
    UpstreamError::Died("it closed the connection before it answered".to_owned())
}

/// A message on the request's own response.
fn own_event(id: &RequestId, message: Envelope) -> Result<Event, UpstreamError> {
    Ok(match message {
        // An error may come without id: the server could not read the request.
        Envelope::Response { id: None, outcome: Err(error) } => Event::Answer(Err(error)),
        Envelope::Response { id: Some(answered), outcome } if answered == *id => Event::Answer(outcome),
        Envelope::Response { id: answered, .. } => {
            return Err(UpstreamError::Garbage(format!(
                "it answers request {} where {} was asked",
                answered.as_ref().map_or("null", RequestId::as_str),
                id.as_str()
            )));
        }
        Envelope::Request { id, method, params } => Event::Asked { id, method, params },
        Envelope::Notification { method, params } => Event::Told { method, params },
    })
}

/// The next event on the line: what was told before the answer comes before it. `None`: closed.
async fn line_event(line: &mut Line) -> Option<Event> {
    tokio::select! {
        biased;
        Some(event) = line.events.recv() => Some(event),
        answer = &mut line.answer => answer.ok().map(Event::Answer),
    }
}
