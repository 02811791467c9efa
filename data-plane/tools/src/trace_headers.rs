//! The trace of a call as headers of what is sent for it.
//!
//! Invariant: a header is made only of a `traceparent` that is one, so nothing else of `_meta` leaves in a header.

use http::{HeaderMap, HeaderName, HeaderValue};
use memchr::memmem;
use provost_mcp::{RawJson, RawObject, TraceParent, meta::key};

const PARENT: HeaderName = HeaderName::from_static("traceparent");
const STATE: HeaderName = HeaderName::from_static("tracestate");

/// What a request's `_meta` says of the trace that its call belongs to; nothing, where it says nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct TraceHeaders {
    parent: Option<HeaderValue>,
    state: Option<HeaderValue>,
}

impl TraceHeaders {
    /// Of a `_meta` that is taken apart already.
    pub(crate) fn of_meta(meta: &RawObject) -> Self {
        let Some((parent, state)) = TraceParent::of_meta(meta) else { return Self::default() };
        let value = |text: &str| HeaderValue::from_str(text).ok();
        Self { parent: value(&parent.to_string()), state: state.as_deref().and_then(value) }
    }

    /// Of the parameters. They are taken apart only where they can have one.
    pub(crate) fn of_params(params: &RawJson) -> Self {
        if memmem::find(params.as_bytes(), key::TRACEPARENT.as_bytes()).is_none() {
            return Self::default();
        }
        let meta = RawObject::parse(params).ok().and_then(|params| params.get_object("_meta"));
        meta.map(|meta| Self::of_meta(&meta)).unwrap_or_default()
    }

    /// Leaves in the `_meta` that they were read of, under the names of a trace, nothing else: guards do not look there.
    pub(crate) fn keep_in(&self, meta: &mut RawObject) {
        match self.parent.as_ref().and_then(|parent| parent.to_str().ok()) {
            // Of a later version the part that is known goes on.
            Some(parent) if meta.get_text(key::TRACEPARENT).as_deref() != Some(parent) => {
                meta.set_text(key::TRACEPARENT, parent);
            }
            Some(_) => {}
            None => drop(meta.remove(key::TRACEPARENT)),
        }
        if self.state.is_none() {
            meta.remove(key::TRACESTATE);
        }
    }

    /// Adds them to headers that have none of these.
    pub(crate) fn add_to(&self, headers: &mut HeaderMap) {
        let Some(parent) = &self.parent else { return };
        if headers.contains_key(&PARENT) {
            return;
        }
        headers.insert(PARENT, parent.clone());
        if let Some(state) = &self.state {
            headers.insert(STATE, state.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_trace_that_is_one_becomes_a_header_and_none_is_replaced() {
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let of = |meta: serde_json::Value| {
            let mut headers = HeaderMap::new();
            TraceHeaders::of_params(&RawJson::from(json!({ "name": "t", "_meta": meta }))).add_to(&mut headers);
            headers
        };
        let both = of(json!({ "traceparent": parent, "tracestate": "a=b", "baggage": "user=ann" }));
        assert_eq!((both.len(), both.get(PARENT).map(HeaderValue::as_bytes)), (2, Some(parent.as_bytes())));
        for none in [json!({}), json!({ "traceparent": "secret" }), json!({ "tracestate": "a=b" }), json!(3)] {
            assert!(of(none.clone()).is_empty(), "{none}");
        }
        let mut own = HeaderMap::new();
        own.insert(PARENT, HeaderValue::from_static("own"));
        TraceHeaders::of_params(&RawJson::from(json!({ "_meta": { "traceparent": parent } }))).add_to(&mut own);
        assert_eq!(own.get(PARENT).map(HeaderValue::as_bytes), Some(&b"own"[..]));
    }

    #[test]
    fn nothing_but_a_trace_goes_on_under_the_names_of_one() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let parent = format!("00-{trace}");
        for (given, expect) in [
            (
                json!({ "traceparent": parent, "tracestate": "a=b", "k": 1 }),
                json!({ "traceparent": parent, "tracestate": "a=b", "k": 1 }),
            ),
            (json!({ "traceparent": "ann@example.org", "tracestate": "a=b", "k": 1 }), json!({ "k": 1 })),
            (json!({ "traceparent": format!("cc-{trace}-ann@example.org") }), json!({ "traceparent": parent })),
            (json!({ "traceparent": parent, "tracestate": "x".repeat(513) }), json!({ "traceparent": parent })),
            (json!({ "traceparent": 5, "tracestate": { "a": "b" } }), json!({})),
        ] {
            let mut meta = RawObject::parse(&RawJson::from(given)).unwrap();
            TraceHeaders::of_meta(&meta).keep_in(&mut meta);
            assert_eq!(meta.finish().parse::<serde_json::Value>().unwrap(), expect);
        }
    }
}
