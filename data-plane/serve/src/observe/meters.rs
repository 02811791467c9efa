//! The counters of calls.
//!
//! A call counts in a dozen places. Each thread has counters of its own, so that no two cores wait for each other's.

use std::{
    cell::Cell,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
};

use provost_data_pipeline::{Ended, Operation, RejectionKind, Reply, Stage};

use super::{
    histogram::{Buckets, Histogram},
    kinds::{self, METHODS, REASONS, TRANSPORTS},
    tallies::{NearLimit, Tallies, TenantUse, code_of},
};

/// Sets of counters; threads beyond share.
const SHARDS: usize = 16;

#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard {
    total: Histogram,
    stages: [Histogram; Stage::COUNT],
    requests: [[AtomicU64; TRANSPORTS.len()]; METHODS.len()],
    refused: [AtomicU64; REASONS.len()],
}

thread_local! {
    /// Which counters are this thread's.
    static OWN: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Which counters the next thread takes.
static NEXT: AtomicUsize = AtomicUsize::new(0);

fn own() -> usize {
    OWN.with(|own| {
        own.get().unwrap_or_else(|| {
            let taken = NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS;
            own.set(Some(taken));
            taken
        })
    })
}

/// Everything that is counted of calls.
#[derive(Debug)]
pub(crate) struct Meters {
    shards: Box<[Shard]>,
    tallies: Tallies,
}

impl Default for Meters {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Shard::default()).collect(), tallies: Tallies::default() }
    }
}

/// How long calls took: in all, and each stage of them.
#[derive(Clone, Debug)]
pub struct Durations {
    /// From arrival to the last record.
    pub total: Buckets,
    /// Each stage, in order.
    pub stages: Vec<(Stage, Buckets)>,
}

/// Calls by method and transport, those that came at all.
pub type Requests = Vec<(&'static str, &'static str, u64)>;

impl Meters {
    /// A call is over.
    pub(crate) fn ended(&self, ended: &Ended<'_>) {
        let request = ended.request;
        if let Some(shard) = self.shards.get(own()) {
            let row = shard.requests.get(kinds::method(&request.operation));
            if let Some(count) = row.and_then(|row| row.get(kinds::transport(request.client.transport))) {
                count.fetch_add(1, Ordering::Relaxed);
            }
            // A subscription runs as long as its client listens.
            if !matches!(request.operation, Operation::Listen) {
                let mut last = request.arrived_ns;
                for (stage, begin, end) in ended.marks.stages(request.arrived_ns) {
                    if let Some(histogram) = shard.stages.get(stage as usize) {
                        histogram.add(end - begin);
                    }
                    last = end;
                }
                shard.total.add(last - request.arrived_ns);
            }
            if let Err(rejection) = &ended.answer.outcome
                && let Some(count) = shard.refused.get(kinds::reason(rejection.kind))
            {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
        match &ended.answer.outcome {
            Ok(Reply::Result { .. } | Reply::InputRequired(_)) => {}
            Ok(Reply::Error(error)) => self.tallies.error(code_of(error).as_deref()),
            Err(rejection) => {
                self.tallies.refused(rejection.code);
                // Of one that could not be asked for (`LimitUnknown`) nobody knows whether it is used up.
                if let Some(limit) = rejection.limit.as_ref().filter(|_| rejection.kind == RejectionKind::Limited) {
                    self.tallies.limit_hit(&limit.quota);
                    self.tallies.left(limit);
                }
            }
        }
        ended.answer.limits.iter().for_each(|limit| self.tallies.left(limit));
        if let Some(caller) = ended.caller {
            self.tallies.used(&caller.principal.tenant, &ended.usage);
        }
    }

    /// How long calls took.
    pub(crate) fn durations(&self) -> Durations {
        let mut durations =
            Durations { total: Buckets::default(), stages: Stage::ALL.map(|stage| (stage, Buckets::default())).into() };
        for shard in &self.shards {
            shard.total.read_into(&mut durations.total);
            for ((_, sum), stage) in durations.stages.iter_mut().zip(&shard.stages) {
                stage.read_into(sum);
            }
        }
        durations
    }

    /// Calls by method and transport.
    pub(crate) fn requests(&self) -> Requests {
        let mut requests = Vec::new();
        for (row, method) in METHODS.into_iter().enumerate() {
            for (column, transport) in TRANSPORTS.into_iter().enumerate() {
                let of = |shard: &Shard| Some(shard.requests.get(row)?.get(column)?.load(Ordering::Relaxed));
                let count: u64 = self.shards.iter().filter_map(of).sum();
                if count > 0 {
                    requests.push((method, transport, count));
                }
            }
        }
        requests
    }

    /// Refusals by reason.
    pub(crate) fn refusals(&self) -> Vec<(&'static str, u64)> {
        let of = |at: usize| {
            self.shards.iter().filter_map(|shard| Some(shard.refused.get(at)?.load(Ordering::Relaxed))).sum::<u64>()
        };
        REASONS.into_iter().enumerate().map(|(at, reason)| (reason, of(at))).collect()
    }

    /// Errors and refusals by code.
    pub(crate) fn errors(&self) -> Vec<(String, u64)> {
        self.tallies.errors()
    }

    /// Refusals by the quota that was used up.
    pub(crate) fn limit_hits(&self) -> Vec<(String, u64)> {
        self.tallies.limit_hits()
    }

    /// Quotas of which little is left.
    pub(crate) fn near_limits(&self) -> Vec<NearLimit> {
        self.tallies.near()
    }

    /// What tenants used.
    pub(crate) fn tenants(&self) -> Vec<(String, TenantUse)> {
        self.tallies.tenants()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use provost_data_pipeline::{
        Answer, ClientFacts, Credential, LimitKind, LimitState, Marks, Rejection, Request, Route, TraceFacts, Usage,
    };
    use provost_mcp::{ProtocolVersion, RawJson};
    use provost_types::{CallId, QuotaUnit};

    use super::*;

    fn request(operation: Operation) -> Arc<Request> {
        Arc::new(Request {
            call_id: CallId(7),
            arrived_ns: 1_000,
            credential: Credential::Anonymous,
            route: Route::Merged,
            operation,
            params: RawJson::EMPTY_OBJECT,
            client: ClientFacts {
                protocol_version: ProtocolVersion::LATEST,
                info: None,
                capabilities: RawJson::EMPTY_OBJECT,
                session: None,
                address: None,
                transport: "ws",
            },
            trace: TraceFacts::default(),
            sound: None,
            within: None,
        })
    }

    #[test]
    fn calls_of_all_threads_are_counted_together() {
        let meters = Meters::default();
        let count = |operation: Operation, outcome: Result<Reply, Rejection>| {
            let request = request(operation);
            let mut marks = Marks::default();
            marks.end(Stage::Authenticate, 61_000);
            marks.end(Stage::Outcome, 200_000);
            let answer = Answer { outcome, receipt: None, limits: Vec::new() };
            meters.ended(&Ended {
                request: &request,
                caller: None,
                target: None,
                is_target_hidden: false,
                marks: &marks,
                usage: Usage::default(),
                attempts: 0,
                answer: &answer,
            });
        };
        let fine = || Ok(Reply::Result { body: RawJson::EMPTY_OBJECT, is_error: false });
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| count(Operation::ListTools, fine()));
            }
            let denied = || Err(Rejection::new(RejectionKind::Denied, "PV-POLICY-DENIED", "no"));
            scope.spawn(move || count(Operation::CallTool("a.b".to_owned()), denied()));
            scope.spawn(|| count(Operation::Listen, fine()));
        });
        let expect = [("tools/list", "ws", 3), ("tools/call", "ws", 1), ("subscriptions/listen", "ws", 1)];
        assert_eq!(meters.requests(), expect);
        let durations = meters.durations();
        // 200 µs in all, of which 60 µs were the first stage; subscriptions have no length.
        let filled = |buckets: &Buckets| buckets.counts.iter().position(|count| *count == 4);
        assert_eq!((filled(&durations.total), durations.total.sum_ns), (Some(2), 4 * 199_000));
        assert_eq!(durations.stages.first().and_then(|(_, buckets)| filled(buckets)), Some(1));
        assert_eq!(meters.errors(), [("PV-POLICY-DENIED".to_owned(), 1)]);
        let refused: Vec<_> = meters.refusals().into_iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(refused, [("policy", 1)]);
    }

    #[test]
    fn a_limit_that_could_not_be_asked_is_not_one_that_was_hit() {
        let meters = Meters::default();
        let request = request(Operation::CallTool("a.b".to_owned()));
        for (kind, code, quota) in [
            (RejectionKind::LimitUnknown, "PV-QUOTA-UNREACHABLE", "acme/far"),
            (RejectionKind::Limited, "PV-QUOTA-EXCEEDED", "acme/used"),
        ] {
            let mut rejection = Rejection::new(kind, code, "no");
            rejection.limit = Some(Box::new(LimitState {
                quota: quota.to_owned(),
                kind: LimitKind::Consumable,
                unit: QuotaUnit::Calls,
                limit: 10,
                remaining: 0,
                reset_ms: None,
            }));
            let answer = Answer { outcome: Err(rejection), receipt: None, limits: Vec::new() };
            meters.ended(&Ended {
                request: &request,
                caller: None,
                target: None,
                is_target_hidden: false,
                marks: &Marks::default(),
                usage: Usage::default(),
                attempts: 0,
                answer: &answer,
            });
        }
        assert_eq!(meters.limit_hits(), [("acme/used".to_owned(), 1)]);
        let near: Vec<_> = meters.near_limits().into_iter().map(|near| near.quota).collect();
        assert_eq!(near, ["acme/used"]);
        assert_eq!(meters.errors().len(), 2, "each is told by its code");
        let refused: Vec<_> = meters.refusals().into_iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(refused, [("limit", 1), ("limit_unknown", 1)]);
    }
}
