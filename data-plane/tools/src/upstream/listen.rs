//! What an upstream says between calls.
//!
//! Invariants: a listener hears what it asked for and nothing else, whatever the era of either
//! end; when the upstream's stream ends it is opened again with growing pauses until the listener
//! goes.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use provost_data_pipeline::ClientLink;
use provost_mcp::{RawJson, RawObject};
use serde_json::json;
use tokio::sync::{broadcast, watch};

use super::{
    connection::{Connection, Event},
    handshake::full_capabilities,
    headers::standard_headers,
    outgoing::modern_meta,
    subscriptions::Uris,
    switchboard::{SUBSCRIPTION_ID, Told},
};
use crate::UpstreamError;

/// The first and the longest pause before a stream is opened again.
const REOPEN_MIN: Duration = Duration::from_millis(250);
const REOPEN_MAX: Duration = Duration::from_secs(15);

/// What a listener wants to hear, in the plugin's own names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListenFilter {
    /// `notifications/tools/list_changed`.
    pub tools: bool,
    /// `notifications/prompts/list_changed`.
    pub prompts: bool,
    /// `notifications/resources/list_changed`.
    pub resources: bool,
    /// `notifications/resources/updated` for these.
    pub uris: BTreeSet<String>,
    /// And for those that the client's session subscribed to by `resources/subscribe` (legacy).
    pub session: bool,
}

impl ListenFilter {
    /// What a legacy client's stream carries: every list, and what its session subscribed to.
    pub fn legacy() -> Self {
        Self { tools: true, prompts: true, resources: true, uris: BTreeSet::new(), session: true }
    }

    /// The filter in the params of `subscriptions/listen`.
    pub fn from_params(params: &RawJson) -> Self {
        let wanted = RawObject::parse(params).ok().and_then(|p| p.get_object("notifications")).unwrap_or_default();
        let flag = |key: &str| wanted.get(key).is_some_and(|v| v.is_true());
        Self {
            tools: flag("toolsListChanged"),
            prompts: flag("promptsListChanged"),
            resources: flag("resourcesListChanged"),
            uris: wanted.get("resourceSubscriptions").and_then(|v| v.parse().ok()).unwrap_or_default(),
            session: false,
        }
    }

    fn wants(&self, told: &Told, subscribed: &Uris) -> bool {
        match told.method.as_str() {
            "notifications/tools/list_changed" => self.tools,
            "notifications/prompts/list_changed" => self.prompts,
            "notifications/resources/list_changed" => self.resources,
            "notifications/resources/updated" => {
                let params = told.params.as_ref().and_then(|p| RawObject::parse(p).ok());
                params
                    .and_then(|p| p.get_text("uri"))
                    .is_some_and(|uri| self.uris.contains(&uri) || (self.session && subscribed.contains(&uri)))
            }
            _ => false,
        }
    }

    /// As `params.notifications` of `subscriptions/listen`; `None` if nothing is wanted. A server that does not tell of its
    /// resources is not asked to, since it would refuse all of it.
    fn to_notifications(&self, subscribed: &Uris, tells_of_resources: bool) -> Option<RawJson> {
        let mut uris: BTreeSet<&String> = self.uris.iter().collect();
        if self.session {
            uris.extend(subscribed.iter());
        }
        let mut wanted = serde_json::Map::new();
        for (flag, key) in [
            (self.tools, "toolsListChanged"),
            (self.prompts, "promptsListChanged"),
            (self.resources, "resourcesListChanged"),
        ] {
            if flag {
                wanted.insert(key.to_owned(), true.into());
            }
        }
        if tells_of_resources && !uris.is_empty() {
            wanted.insert("resourceSubscriptions".to_owned(), json!(uris));
        }
        (!wanted.is_empty()).then(|| RawJson::from(serde_json::Value::Object(wanted)))
    }
}

/// How a stretch of listening ended.
pub(super) enum Stretch {
    /// The listener went.
    Cancelled,
    /// The subscriptions changed: open the stream anew.
    Changed,
    /// The upstream's stream ended.
    Ended(UpstreamError),
}

/// Pauses between two openings.
pub(super) struct Pauses(Duration);

impl Pauses {
    pub(super) fn new() -> Self {
        Self(REOPEN_MIN)
    }

    /// Waits; `false` if the listener went meanwhile.
    pub(super) async fn wait(&mut self, link: &dyn ClientLink) -> bool {
        let pause = self.0;
        self.0 = (pause * 2).min(REOPEN_MAX);
        tokio::select! {
            () = link.cancelled() => false,
            () = tokio::time::sleep(pause) => true,
        }
    }
}

/// Listens on a modern upstream until something ends it.
pub(super) async fn listen_modern(
    connection: &Arc<Connection>,
    filter: &ListenFilter,
    subscribed: &mut watch::Receiver<Uris>,
    hear: &(dyn Fn(&Told) + Sync),
    link: &dyn ClientLink,
) -> Stretch {
    let uris = subscribed.borrow_and_update().clone();
    let mut cancelled = link.cancelled();
    let Some(notifications) = filter.to_notifications(&uris, connection.facts.tells_of_resources()) else {
        return tokio::select! {
            () = &mut cancelled => Stretch::Cancelled,
            _ = subscribed.changed() => Stretch::Changed,
        };
    };
    let mut params = RawObject::new();
    params.set("notifications", notifications);
    params.set("_meta", modern_meta(RawObject::new(), &full_capabilities(), None).finish());
    let method = "subscriptions/listen";
    let headers = standard_headers(method, None);
    let params = params.finish();
    let start = connection.start(connection.next_id(), method, &params, headers);
    let mut exchange = match start.await {
        Ok(exchange) => exchange,
        Err(cause) => return Stretch::Ended(cause),
    };
    loop {
        let event = tokio::select! {
            () = &mut cancelled => return Stretch::Cancelled,
            _ = subscribed.changed() => return Stretch::Changed,
            event = exchange.next() => event,
        };
        match event {
            Ok(Event::Told { method, params }) => {
                let told = Told { method, params: params.map(without_subscription_id) };
                if filter.wants(&told, &uris) {
                    hear(&told);
                }
            }
            Ok(Event::Asked { id, method, .. }) => {
                if let Err(cause) = connection.refuse(&id, &method).await {
                    return Stretch::Ended(cause);
                }
            }
            Ok(Event::Answer(Err(error))) => return Stretch::Ended(UpstreamError::Rpc(error)),
            Ok(Event::Answer(Ok(_))) => {
                return Stretch::Ended(UpstreamError::Died("it closed the subscription".to_owned()));
            }
            Err(cause) => return Stretch::Ended(cause),
        }
    }
}

/// Listens on a legacy connection until something ends it. On a `private` one, of this listener
/// alone, log messages between calls are passed on to legacy clients.
pub(super) async fn listen_legacy(
    connection: &Arc<Connection>,
    filter: &ListenFilter,
    subscribed: &watch::Receiver<Uris>,
    private: bool,
    hear: &(dyn Fn(&Told) + Sync),
    link: &dyn ClientLink,
) -> Stretch {
    let mut told = connection.switchboard().subscribe();
    connection.open_stream();
    for uri in &filter.uris {
        let params = RawJson::from(json!({"uri": uri}));
        let asked = connection.request("resources/subscribe", &params, http::HeaderMap::new());
        if let Err(cause) = asked.await {
            tracing::info!(uri, %cause, "an upstream resource cannot be subscribed to");
        }
    }
    let ended = connection.switchboard().ended();
    let mut cancelled = link.cancelled();
    loop {
        tokio::select! {
            () = &mut cancelled => return Stretch::Cancelled,
            () = ended.cancelled() => {
                let cause = connection.switchboard().closed();
                return Stretch::Ended(cause.unwrap_or(UpstreamError::SessionGone));
            }
            heard = told.recv() => match heard {
                Ok(told) => {
                    let uris = subscribed.borrow().clone();
                    let log = private && filter.session && told.method == "notifications/message";
                    if log || filter.wants(&told, &uris) {
                        hear(&told);
                    }
                }
                Err(broadcast::error::RecvError::Lagged(lost)) => {
                    tracing::warn!(lost, "a listener lost notifications");
                }
                Err(broadcast::error::RecvError::Closed) => {
                    return Stretch::Ended(UpstreamError::SessionGone);
                }
            },
        }
    }
}

/// The upstream's own subscription id means nothing to our clients.
fn without_subscription_id(params: RawJson) -> RawJson {
    let Ok(mut object) = RawObject::parse(&params) else { return params };
    let Some(mut meta) = object.get_object("_meta") else { return params };
    if meta.remove(SUBSCRIPTION_ID).is_none() {
        return params;
    }
    if meta.is_empty() {
        object.remove("_meta");
    } else {
        object.set("_meta", meta.finish());
    }
    object.finish()
}
