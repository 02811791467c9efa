//! The client's end of a running MCP call.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use futures::future::{join_all, ready};
use provost_data_pipeline::{AskError, ClientLink};
use provost_mcp::{
    LogLevel, RawJson, RawObject, RequestId, capability, meta::key, notification_message, request_message,
};
use provost_types::BoxFuture;
use tokio::{
    sync::Notify,
    time::{Duration, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{asks::Asks, outlet::Outlet, sessions::LocalSession};

/// How long a client (a person, mostly) may take to answer; the call's own deadline is shorter or
/// longer by its plugin.
const ASK_TIMEOUT: Duration = Duration::from_secs(600);

/// How long after its executor began a subscription is acknowledged, if the executor does not do
/// it first: upstream streams open meanwhile, so that what changes after the acknowledgement is
/// heard.
const ACKNOWLEDGE_AFTER: Duration = Duration::from_millis(100);

/// What the client of a call may be sent.
pub(super) enum Manner {
    /// Modern: log messages only from the level that the request names.
    Modern { log_level: Option<LogLevel> },
    /// Modern `subscriptions/listen`.
    Subscription(Subscription),
    /// Legacy, in a session: log messages by the session's level; can be asked.
    Session { session: Arc<LocalSession>, key: Arc<str>, asks: Arc<Asks>, capabilities: RawJson },
    /// Legacy without a session: cannot be asked, since its answer would find no way back.
    Sessionless,
}

/// See [`Manner`].
pub(super) struct CallLink {
    pub(super) outlet: Arc<dyn Outlet>,
    pub(super) cancel: CancellationToken,
    pub(super) manner: Manner,
    /// The client reads events.
    pub(super) accepts_events: bool,
}

impl CallLink {
    fn send(&self, message: &Bytes) {
        if self.accepts_events {
            self.outlet.push(message);
        }
    }
}

impl ClientLink for CallLink {
    fn notify(&self, method: &str, params: RawJson) {
        // Only what MCP knows goes to MCP clients; `provost/…` is between the planes.
        if !method.starts_with("notifications/") {
            return;
        }
        if method == ACKNOWLEDGED && !matches!(self.manner, Manner::Subscription(_)) {
            return;
        }
        let params = match &self.manner {
            Manner::Modern { log_level } => {
                if method == LOG_MESSAGE && !loud_enough(&params, *log_level) {
                    return;
                }
                params
            }
            Manner::Session { session, .. } => {
                let level = session.level.lock().unwrap_or(LogLevel::Debug);
                if method == LOG_MESSAGE && !loud_enough(&params, Some(level)) {
                    return;
                }
                params
            }
            Manner::Sessionless => params,
            Manner::Subscription(subscription) => {
                match subscription.admit(method, params, |message| self.send(message)) {
                    Some(params) => params,
                    None => return,
                }
            }
        };
        self.send(&notification_message(method, Some(&params)));
    }

    fn ask<'a>(&'a self, input_requests: &'a RawJson) -> Option<BoxFuture<'a, Result<RawJson, AskError>>> {
        match &self.manner {
            Manner::Modern { .. } | Manner::Subscription(_) => None,
            Manner::Session { key, asks, capabilities, .. } if self.accepts_events => {
                Some(Box::pin(self.ask_all(input_requests, key, asks, capabilities)))
            }
            Manner::Session { .. } | Manner::Sessionless => {
                let why = "requests to the client (it has no session, or reads no events)";
                Some(Box::pin(ready(Err(AskError::Unsupported(why.to_owned())))))
            }
        }
    }

    fn cancelled(&self) -> BoxFuture<'_, ()> {
        // Whoever waits for the end has begun.
        if let Manner::Subscription(subscription) = &self.manner {
            subscription.begun.notify_one();
        }
        self.outlet.begun();
        Box::pin(self.cancel.cancelled())
    }
}

impl CallLink {
    /// Acknowledges a subscription whose executor has begun and said nothing for a while.
    pub(super) async fn acknowledge_when_begun(&self) {
        let Manner::Subscription(subscription) = &self.manner else { return };
        subscription.begun.notified().await;
        tokio::time::sleep(ACKNOWLEDGE_AFTER).await;
        subscription.acknowledge(|message| self.send(message));
    }

    /// Sends every request, waits for every answer.
    async fn ask_all(
        &self,
        input_requests: &RawJson,
        session: &Arc<str>,
        asks: &Arc<Asks>,
        capabilities: &RawJson,
    ) -> Result<RawJson, AskError> {
        let requests = RawObject::parse(input_requests).unwrap_or_default();
        let mut waiting = Vec::with_capacity(requests.len());
        for (name, request) in requests.iter() {
            let request = RawObject::parse(&request).unwrap_or_default();
            let method = request.get_text("method").unwrap_or_default();
            let params = request.get("params");
            if !capability::may_ask(capabilities, &method, params.as_ref()) {
                return Err(AskError::Unsupported(method));
            }
            let ask =
                asks.open(session).ok_or_else(|| AskError::Unsupported("more requests at this time".to_owned()))?;
            self.send(&request_message(&ask.id, &method, params.as_ref()));
            waiting.push((name.into_owned(), method, ask));
        }
        let answers = join_all(waiting.iter_mut().map(|(_, _, ask)| ask.answered()));
        let answers = tokio::select! {
            answers = timeout(ASK_TIMEOUT, answers) => answers.map_err(|_| AskError::TimedOut)?,
            () = self.cancel.cancelled() => return Err(AskError::Gone),
        };
        let mut responses = RawObject::new();
        for ((name, method, _), answer) in waiting.iter().zip(answers) {
            match answer {
                Some(Ok(result)) => responses.set(name, result),
                Some(Err(error)) => {
                    let said: String = error.message.chars().take(200).collect();
                    return Err(AskError::Unsupported(format!("{method}: it answered {said:?}")));
                }
                None => return Err(AskError::Gone),
            }
        }
        Ok(responses.finish())
    }
}

const LOG_MESSAGE: &str = "notifications/message";
const ACKNOWLEDGED: &str = "notifications/subscriptions/acknowledged";

/// Whether a log message is of the wanted level or above; without a wanted level none is.
fn loud_enough(params: &RawJson, wanted: Option<LogLevel>) -> bool {
    let Some(wanted) = wanted else { return false };
    let level = RawObject::parse(params).ok().and_then(|p| p.get_text("level")).and_then(|l| LogLevel::parse(&l));
    // An unknown level is passed on: better said twice than lost.
    level.is_none_or(|level| level >= wanted)
}

/// A modern subscription: acknowledged first, filtered, every event tagged with its id.
pub(super) struct Subscription {
    id: RequestId,
    /// The client's `notifications` object.
    wanted: RawObject,
    acknowledged: AtomicBool,
    begun: Notify,
}

impl Subscription {
    pub(super) fn new(id: RequestId, params: &RawObject) -> Self {
        let wanted = params.get_object("notifications").unwrap_or_default();
        Self { id, wanted, acknowledged: AtomicBool::new(false), begun: Notify::new() }
    }

    /// The id as the value of `_meta`.
    fn tag(&self, params: RawJson) -> RawJson {
        let mut params = RawObject::parse(&params).unwrap_or_default();
        params.set_in("_meta", key::SUBSCRIPTION_ID, self.id.0.clone());
        params.finish()
    }

    /// The tagged parameters if the client wants the notification. If the executor did not
    /// acknowledge before its first event, `send` gets an acknowledgement of all that was asked.
    fn admit(&self, method: &str, params: RawJson, send: impl Fn(&Bytes)) -> Option<RawJson> {
        if method == ACKNOWLEDGED {
            return (!self.acknowledged.swap(true, Ordering::AcqRel)).then(|| self.tag(params));
        }
        if !self.wants(method, &params) {
            return None;
        }
        self.acknowledge(send);
        Some(self.tag(params))
    }

    /// Acknowledges all that was asked, unless that is done.
    fn acknowledge(&self, send: impl Fn(&Bytes)) {
        if !self.acknowledged.swap(true, Ordering::AcqRel) {
            let mut all = RawObject::new();
            all.set("notifications", self.wanted.clone().finish());
            send(&notification_message(ACKNOWLEDGED, Some(&self.tag(all.finish()))));
        }
    }

    fn wants(&self, method: &str, params: &RawJson) -> bool {
        let is_true = |name: &str| self.wanted.get(name).is_some_and(|v| v.is_true());
        let lists = |list: &str, member: &str| {
            let named = RawObject::parse(params).ok().and_then(|p| p.get_text(member));
            let listed = self.wanted.get(list).and_then(|l| l.parse::<Vec<String>>().ok());
            match (named, listed) {
                (Some(named), Some(listed)) => listed.contains(&named),
                _ => false,
            }
        };
        match method {
            "notifications/tools/list_changed" => is_true("toolsListChanged"),
            "notifications/prompts/list_changed" => is_true("promptsListChanged"),
            "notifications/resources/list_changed" => is_true("resourcesListChanged"),
            "notifications/resources/updated" => lists("resourceSubscriptions", "uri"),
            "notifications/tasks" => lists("taskIds", "taskId"),
            _ => false,
        }
    }
}
