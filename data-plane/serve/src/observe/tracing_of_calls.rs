//! Which calls are traced, and the queue to whoever exports them.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use provost_data_pipeline::{Ended, Request, Stage};
use provost_mcp::{RawJson, RawObject, TraceParent, meta::key};
use tokio::sync::mpsc;

use super::trace::{CallTrace, SpanIds, trace_of};

/// The bits of a trace's id that decide: W3C Trace Context, level 2, has these seven bytes random.
const RANDOM_BITS: u32 = 56;

/// The part of the calls that is traced of those whose clients do not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ratio(u64);

impl Ratio {
    /// A share between 0 and 1; `None`: it is not one.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "between 0 and 2^56, which a float holds"
    )]
    pub fn new(share: f64) -> Option<Self> {
        (0.0..=1.0).contains(&share).then_some(Self((share * (1_u64 << RANDOM_BITS) as f64) as u64))
    }

    /// The same for each span of a trace, on whatever node.
    fn takes(self, trace_id: u128) -> bool {
        trace_id & ((1 << RANDOM_BITS) - 1) < u128::from(self.0)
    }
}

/// Calls that were told, and those that could not be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TracingCounts {
    /// Put into the queue.
    pub queued: u64,
    /// Dropped because the queue was full.
    pub dropped: u64,
    /// Taken by the receiver.
    pub sent: u64,
    /// Given up: the receiver did not take them.
    pub lost: u64,
}

/// Tells of calls that are sampled.
#[derive(Debug)]
pub struct Tracing {
    ratio: Ratio,
    queue: mpsc::Sender<CallTrace>,
    queued: AtomicU64,
    dropped: AtomicU64,
    sent: AtomicU64,
    lost: AtomicU64,
}

impl Tracing {
    /// With room for so many calls in the queue, whose other end is given back.
    pub fn new(ratio: Ratio, room: usize) -> (Arc<Self>, mpsc::Receiver<CallTrace>) {
        let (queue, calls) = mpsc::channel(room.max(1));
        let zero = || AtomicU64::new(0);
        let tracing = Self { ratio, queue, queued: zero(), dropped: zero(), sent: zero(), lost: zero() };
        (Arc::new(tracing), calls)
    }

    /// What was told.
    pub fn counts(&self) -> TracingCounts {
        TracingCounts {
            queued: self.queued.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
            sent: self.sent.load(Ordering::Relaxed),
            lost: self.lost.load(Ordering::Relaxed),
        }
    }

    /// So many calls were taken by the receiver.
    pub fn sent(&self, calls: usize) {
        self.sent.fetch_add(calls as u64, Ordering::Relaxed);
    }

    /// So many calls were given up.
    pub fn lost(&self, calls: usize) {
        self.lost.fetch_add(calls as u64, Ordering::Relaxed);
    }

    /// The client's word; where it has none, chance.
    fn samples(&self, trace_id: u128, parent: Option<TraceParent>) -> bool {
        parent.map_or_else(|| self.ratio.takes(trace_id), |parent| parent.is_sampled)
    }

    /// A call is over.
    pub(crate) fn ended(&self, ended: &Ended<'_>) {
        let (trace_id, parent) = trace_of(ended.request);
        let samples = match ended.caller {
            Some(_) => self.samples(trace_id, parent),
            // Who is not known does not fill the queue beyond its share: neither by the flag nor by choosing the trace's id.
            None => self.ratio.takes(ended.request.call_id.0),
        };
        if !samples {
            return;
        }
        match self.queue.try_reserve() {
            Ok(place) => {
                place.send(CallTrace::new(ended));
                self.queued.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// What spans of an upstream, and calls that its guest makes, belong to.
    pub(crate) fn onward(&self, request: &Request) -> TraceParent {
        let (trace_id, parent) = trace_of(request);
        TraceParent {
            trace_id,
            span_id: SpanIds::of(request.call_id).stage(Stage::Execute),
            is_sampled: self.samples(trace_id, parent),
        }
    }

    /// The parameters as an upstream gets them: their `_meta` has our span in the place of the client's.
    pub(crate) fn carried(&self, request: &Request, params: RawJson) -> RawJson {
        let Ok(mut object) = RawObject::parse(&params) else { return params };
        let mut meta = object.get_object("_meta").unwrap_or_default();
        meta.set_text(key::TRACEPARENT, &self.onward(request).to_string());
        // What others added belongs to the trace that it came with.
        meta.remove(key::TRACESTATE);
        if let (_, Some(_)) = trace_of(request)
            && let Some(state) = &request.trace.tracestate
        {
            meta.set_text(key::TRACESTATE, state);
        }
        object.set("_meta", meta.finish());
        object.finish()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use provost_data_pipeline::{
        Answer, Caller, ClientFacts, Credential, Found, Marks, Operation, Reply, Route, Target, TraceFacts, Usage,
    };
    use provost_mcp::ProtocolVersion;
    use provost_types::{CallId, Name, PrincipalRef};
    use serde_json::json;

    use super::{
        super::trace::{TraceEnd, TraceSubject},
        *,
    };

    const TRACE: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;

    fn request(traceparent: Option<&str>, tracestate: Option<&str>) -> Arc<Request> {
        Arc::new(Request {
            call_id: CallId((7 << 64) | 9),
            arrived_ns: 1_000,
            credential: Credential::Bearer("secret".into()),
            route: Route::Merged,
            operation: Operation::CallTool("crm.read".to_owned()),
            params: RawJson::from(json!({ "name": "crm.read", "arguments": { "ssn": "secret" } })),
            client: ClientFacts {
                protocol_version: ProtocolVersion::LATEST,
                info: None,
                capabilities: RawJson::EMPTY_OBJECT,
                session: None,
                address: Some("192.0.2.7".to_owned()),
                transport: "http",
            },
            trace: TraceFacts {
                traceparent: traceparent.map(str::to_owned),
                tracestate: tracestate.map(str::to_owned),
                ..TraceFacts::default()
            },
            sound: None,
            within: None,
        })
    }

    fn ana() -> Arc<Caller> {
        let principal = PrincipalRef { tenant: Name::new("acme").unwrap(), name: Name::new("ana").unwrap() };
        Arc::new(Caller { principal, authenticated_by: "api_key:secret".to_owned(), token: None, subject: None })
    }

    fn tell(tracing: &Tracing, request: &Arc<Request>, is_target_hidden: bool) {
        tell_of(tracing, request, Some(&ana()), is_target_hidden);
    }

    fn tell_of(tracing: &Tracing, request: &Arc<Request>, caller: Option<&Arc<Caller>>, is_target_hidden: bool) {
        tell_tool(tracing, request, caller, (is_target_hidden, "read"));
    }

    fn tell_tool(
        tracing: &Tracing,
        request: &Arc<Request>,
        caller: Option<&Arc<Caller>>,
        (is_target_hidden, local): (bool, &str),
    ) {
        let target = Arc::new(Target {
            plugin: Name::new("crm").ok(),
            local: local.to_owned(),
            full: format!("crm.{local}"),
            action: None,
            plugin_digest: None,
            secrets: [].into(),
            found: Found::default(),
        });
        let outcome = Ok(Reply::Result { body: RawJson::from(json!({ "it": "secret" })), is_error: true });
        let answer = Answer { outcome, receipt: None, limits: Vec::new() };
        let (target, marks, usage) = (Some(&target), &Marks::default(), Usage::default());
        let answer = &answer;
        tracing.ended(&Ended { request, caller, target, is_target_hidden, marks, usage, attempts: 1, answer });
    }

    fn text(sampled: bool) -> String {
        TraceParent { trace_id: TRACE, span_id: 5, is_sampled: sampled }.to_string()
    }

    #[test]
    fn the_client_says_whether_and_else_chance() {
        let ratio = |share: f64| Ratio::new(share).unwrap();
        let cases = [(1.0, None, 1), (0.0, None, 0), (0.0, Some(text(true)), 1), (1.0, Some(text(false)), 0)];
        for (share, parent, expect) in cases {
            let (tracing, mut calls) = Tracing::new(ratio(share), 4);
            tell(&tracing, &request(parent.as_deref(), None), false);
            assert_eq!(
                tracing.counts(),
                TracingCounts { queued: expect, ..TracingCounts::default() },
                "{share} {parent:?}"
            );
            assert_eq!(calls.try_recv().is_ok(), expect == 1);
        }
        assert!([-0.1, 1.1, f64::NAN].into_iter().all(|share| Ratio::new(share).is_none()));
        let half = ratio(0.5);
        let taken = (0..1_000_u64).filter(|n| half.takes(u128::from(SpanIds::of(CallId((*n).into())).call())));
        assert!((400..600).contains(&taken.count()));
    }

    #[test]
    fn who_is_not_known_has_no_say() {
        for (share, sampled, expect) in [(0.0, true, 0), (1.0, false, 1)] {
            let (tracing, _calls) = Tracing::new(Ratio::new(share).unwrap(), 4);
            tell_of(&tracing, &request(Some(&text(sampled)), None), None, false);
            assert_eq!(tracing.counts().queued, expect, "{share} {sampled}");
        }
    }

    #[test]
    fn a_full_queue_drops_and_counts() {
        let (tracing, mut calls) = Tracing::new(Ratio::new(1.0).unwrap(), 1);
        (0..3).for_each(|_| tell(&tracing, &request(None, None), false));
        assert_eq!(tracing.counts(), TracingCounts { queued: 1, dropped: 2, ..TracingCounts::default() });
        let call = calls.try_recv().unwrap();
        assert_eq!((call.trace_id, call.parent), (CallId((7 << 64) | 9).0, None));
        assert_eq!(call.error, Some(TraceEnd { code: String::new(), rpc_code: None }));
    }

    #[test]
    fn a_trace_holds_no_secret_and_no_name_that_the_log_hides() {
        let (tracing, mut calls) = Tracing::new(Ratio::new(1.0).unwrap(), 2);
        let request = request(Some(&text(true)), Some("a=b"));
        tell(&tracing, &request, false);
        tell(&tracing, &request, true);
        let shown = calls.try_recv().unwrap();
        assert_eq!(shown.subject, TraceSubject::Tool("crm.read".to_owned()));
        assert_eq!((shown.trace_id, shown.parent, shown.local.as_str()), (TRACE, Some(5), "read"));
        let hidden = calls.try_recv().unwrap();
        assert_eq!((hidden.subject.clone(), hidden.local.as_str()), (TraceSubject::Unnamed, ""));
        for call in [shown, hidden] {
            let all = format!("{call:?}");
            assert!(["secret", "192.0.2.7", "\"ana\""].iter().all(|hidden| !all.contains(hidden)), "{all}");
        }
    }

    #[test]
    fn what_waits_to_be_sent_has_a_bound_whatever_a_caller_writes() {
        let (tracing, mut calls) = Tracing::new(Ratio::new(1.0).unwrap(), 1);
        // As while an upstream does not say what tools it has.
        tell_tool(&tracing, &request(Some(&text(true)), Some("a=b")), Some(&ana()), (false, &"n".repeat(1 << 20)));
        let all = format!("{:?}", calls.try_recv().unwrap());
        assert!(all.len() < 4_096, "{} bytes", all.len());
    }

    #[test]
    fn upstreams_get_our_span_in_the_place_of_the_clients() {
        let (tracing, _calls) = Tracing::new(Ratio::new(0.0).unwrap(), 1);
        let request = request(Some(&text(true)), Some("a=b"));
        let params = json!({ "name": "x", "_meta": { "traceparent": "old", "tracestate": "old", "k": 1 } });
        let carried = tracing.carried(&request, RawJson::from(params));
        let span = SpanIds::of(request.call_id).stage(Stage::Execute);
        let parent = TraceParent { trace_id: TRACE, span_id: span, is_sampled: true }.to_string();
        let expect = json!({ "name": "x", "_meta": { "traceparent": parent, "tracestate": "a=b", "k": 1 } });
        assert_eq!(carried.parse::<serde_json::Value>().unwrap(), expect);
        // A trace that begins here has no state of another's.
        let own = self::request(Some("broken"), Some("a=b"));
        let carried = tracing.carried(&own, RawJson::EMPTY_OBJECT);
        let meta = carried.parse::<serde_json::Value>().unwrap()["_meta"].clone();
        assert_eq!(meta.as_object().map(|meta| meta.len()), Some(1));
        let begun = TraceParent::parse(meta["traceparent"].as_str().unwrap()).unwrap();
        assert_eq!((begun.trace_id, begun.is_sampled), (own.call_id.0, false));
    }
}
