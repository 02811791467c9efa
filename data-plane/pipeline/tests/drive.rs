//! What `drive` promises, against a plane whose every stage can be told to refuse.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use futures::executor::block_on;
use provost_data_pipeline::*;
use provost_mcp::{ProtocolVersion, RawJson, RpcError};
use provost_types::{
    Action, AuditEvent, AuditReceipt, AuditUnavailable, Body, BoxFuture, CallId, CallStatus, Decision, Effect,
    KeptBody, KeyId, Name, Phase, PrincipalRef, Revision,
};

/// What an execution of the plane below keeps in its future.
const HELD_BYTES: usize = 32 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refuse {
    Nothing,
    Authenticate,
    Resolve,
    Policy,
    Limit,
    Schema,
    Guard,
    Body,
    IntentRecord,
    OutcomeRecord,
}

struct FakePlane {
    refuse: Refuse,
    trace: Mutex<Vec<String>>,
    records: Mutex<Vec<AuditEvent>>,
    begun: Arc<AtomicU64>,
    settled: Arc<AtomicU64>,
    freed: Arc<AtomicU64>,
    guard: Option<Arc<FakeGuard>>,
}

/// Lets nothing through on the way; at the end it blocks if told so.
#[derive(Debug, Default)]
struct FakeGuard {
    blocks: bool,
    noted: AtomicU64,
}

impl CallGuard for FakeGuard {
    fn notify(&self, _: &str, _: RawJson, _: &mut dyn FnMut(RawJson)) {
        self.noted.fetch_add(1, Ordering::SeqCst);
    }
    fn question<'a>(&'a self, _: &'a RawJson) -> BoxFuture<'a, Result<RawJson, String>> {
        Box::pin(async { Err("card".to_owned()) })
    }
    fn answer(&self, _: RawJson) -> BoxFuture<'_, Result<RawJson, String>> {
        Box::pin(async { Err("card".to_owned()) })
    }
    fn reply(&self, reply: Reply) -> BoxFuture<'_, Result<GuardedReply, Rejection>> {
        let refusal = Rejection::new(RejectionKind::Guarded, "PV-GUARD-BLOCKED", "told to");
        Box::pin(async move { if self.blocks { Err(refusal) } else { Ok(GuardedReply::untouched(reply)) } })
    }
    fn found(&self) -> Vec<String> {
        vec!["jwt:block=2".to_owned()]
    }
}

/// Writes over one word.
#[derive(Debug)]
struct FakeRecords;

impl RecordGuard for FakeRecords {
    fn clean(&self, text: &str) -> Option<String> {
        text.contains("4111").then(|| text.replace("4111", "****"))
    }
}

#[derive(Debug)]
struct FakeHold {
    begun: Arc<AtomicU64>,
    settled: Arc<AtomicU64>,
    freed: Arc<AtomicU64>,
}

impl Hold for FakeHold {
    fn begin(&self) {
        self.begun.fetch_add(1, Ordering::SeqCst);
    }
    fn settle(&self, usage: &Usage) {
        self.settled.fetch_add(usage.rows, Ordering::SeqCst);
    }
}

impl Drop for FakeHold {
    fn drop(&mut self) {
        self.freed.fetch_add(1, Ordering::SeqCst);
    }
}

impl FakePlane {
    fn new(refuse: Refuse) -> Self {
        Self {
            refuse,
            trace: Mutex::default(),
            records: Mutex::default(),
            begun: Arc::default(),
            settled: Arc::default(),
            freed: Arc::default(),
            guard: None,
        }
    }
    fn step(&self, name: &str) {
        self.trace.lock().unwrap().push(name.to_owned());
    }
    fn refused(&self, at: Refuse, kind: RejectionKind) -> Result<(), Rejection> {
        if self.refuse == at { Err(Rejection::new(kind, "PV-TEST", "told to by 4111")) } else { Ok(()) }
    }
}

impl Plane for FakePlane {
    type Snapshot = Revision;

    fn snapshot(&self) -> Arc<Revision> {
        self.step("snapshot");
        Arc::new(Revision(7))
    }
    fn revision(&self, snapshot: &Revision) -> Revision {
        *snapshot
    }
    fn now_ns(&self) -> u64 {
        5_000
    }
    fn authenticate(&self, _: &Revision, _: &Call<Received>) -> Result<Arc<Caller>, Rejection> {
        self.step("authenticate");
        self.refused(Refuse::Authenticate, RejectionKind::Unauthenticated)?;
        Ok(Arc::new(Caller {
            token: None,
            principal: PrincipalRef { tenant: Name::new("acme").unwrap(), name: Name::new("ana").unwrap() },
            authenticated_by: "api_key:k".into(),
            subject: None,
        }))
    }
    async fn resolve(&self, _: &Arc<Revision>, call: &Call<Authenticated>) -> Result<Target, Rejection> {
        self.step("resolve");
        self.refused(Refuse::Resolve, RejectionKind::NotFound)?;
        Ok(Target {
            plugin: Name::new("p").ok(),
            local: "t".into(),
            full: call.request().operation.target().unwrap().to_owned(),
            action: Some(Action::CallTool),
            plugin_digest: None,
            secrets: ["db-password".to_owned()].into(),
            found: Found::default(),
        })
    }
    fn authorise(&self, snapshot: &Revision, _: &Call<Resolved>) -> Decision {
        self.step("authorise");
        let effect = if self.refuse == Refuse::Policy { Effect::Deny } else { Effect::Allow };
        Decision {
            effect,
            policies: vec!["role:analyst".into()],
            observed: vec!["watch/0".into()],
            reason: "policy no-drop forbids it".into(),
            revision: *snapshot,
        }
    }
    async fn limit(&self, _: &Revision, _: &Call<Admitted>) -> Result<Reservation, Rejection> {
        self.step("limit");
        self.refused(Refuse::Limit, RejectionKind::Limited)?;
        let hold = FakeHold { begun: self.begun.clone(), settled: self.settled.clone(), freed: self.freed.clone() };
        Ok(Reservation(vec![Box::new(hold)]))
    }
    fn validate(&self, _: &Revision, _: &Call<Limited>) -> Result<(), Rejection> {
        self.step("validate");
        self.refused(Refuse::Schema, RejectionKind::Invalid)
    }
    async fn guard_in(&self, _: &Revision, call: &Call<Validated>) -> Result<GuardedParams, Rejection> {
        self.step("guard_in");
        self.refused(Refuse::Guard, RejectionKind::Guarded)?;
        let mut guarded = GuardedParams::untouched(call.request().params.clone());
        if self.guard.is_some() {
            guarded.params = RawJson::from(serde_json::json!({ "masked": true }));
            guarded.found = vec!["card:mask=1".to_owned()];
            guarded.guard = self.guard.clone().map(|guard| guard as Arc<dyn CallGuard>);
            guarded.records = Some(Arc::new(FakeRecords));
        }
        Ok(guarded)
    }
    fn guard_refused(&self, _: &Revision, _: &Caller, target: Option<&Target>, request: &Request) -> GuardedParams {
        let target = target.map(|_| "p.***".to_owned());
        GuardedParams {
            target,
            found: vec!["iban:mask=1".to_owned()],
            records: Some(Arc::new(FakeRecords)),
            ..GuardedParams::untouched(request.params.clone())
        }
    }
    async fn execute(&self, _: &Arc<Revision>, call: &Call<Intended>, link: &dyn ClientLink) -> Execution {
        self.step("execute");
        link.notify("notifications/progress", RawJson::EMPTY_OBJECT);
        assert_eq!(call.intent().index, 0, "the intent is durable before execution");
        assert_eq!(self.begun.load(Ordering::SeqCst), 1, "what is held counts before execution");
        let held = [0_u8; HELD_BYTES];
        std::future::ready(()).await;
        std::hint::black_box(&held);
        let mut execution = Execution::result(RawJson::from(serde_json::json!({"a":1})), false);
        execution.usage.rows = 3;
        execution
    }
    async fn record(&self, event: Box<AuditEvent>) -> Result<AuditReceipt, AuditUnavailable> {
        self.step(&format!("record {:?}", event.phase));
        let fails = match event.phase {
            Phase::Intent => self.refuse == Refuse::IntentRecord,
            Phase::Outcome => self.refuse == Refuse::OutcomeRecord,
            _ => false,
        };
        if fails {
            return Err(AuditUnavailable("no quorum".into()));
        }
        let mut records = self.records.lock().unwrap();
        let index = records.len() as u64;
        records.push(*event);
        Ok(AuditReceipt { log: "provost/acme".into(), index, leaf_hash: [0; 32] })
    }
    fn ended(&self, ended: &Ended<'_>) {
        let stages: Vec<&str> = ended.marks.stages(0).map(|(stage, ..)| stage.as_str()).collect();
        self.step(&format!("ended {}", stages.join(" ")));
    }
    async fn protect(
        &self,
        principal: &PrincipalRef,
        event: &mut AuditEvent,
        body: Option<&[u8]>,
    ) -> Result<(), AuditUnavailable> {
        if self.refuse == Refuse::Body {
            return Err(AuditUnavailable("no key".into()));
        }
        assert_eq!(event.who.principal, principal.name.as_str());
        event.who.principal = "p-ana".to_owned();
        let Some(body) = body else { return Ok(()) };
        let commit = [u8::try_from(body.len()).unwrap(); 32];
        let (key, len) = (KeyId([1; 16]), body.len() as u64);
        event.body = Some(Body { commit, key, len, redaction: None, kept: KeptBody::CommitmentOnly });
        Ok(())
    }
}

struct NoLink;
impl ClientLink for NoLink {
    fn notify(&self, _: &str, _: RawJson) {}
    fn ask<'a>(&'a self, _: &'a RawJson) -> Option<BoxFuture<'a, Result<RawJson, AskError>>> {
        None
    }
    fn cancelled(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }
}

fn call() -> Call<Received> {
    Call::received(Request {
        call_id: CallId(1),
        arrived_ns: 1_000,
        credential: Credential::Anonymous,
        route: Route::Merged,
        operation: Operation::CallTool("p.t".into()),
        params: RawJson::EMPTY_OBJECT,
        client: ClientFacts {
            protocol_version: ProtocolVersion::LATEST,
            info: Some(RawJson::from(serde_json::json!({"name":"x","version":"1"}))),
            capabilities: RawJson::EMPTY_OBJECT,
            session: None,
            address: None,
            transport: "http",
        },
        trace: TraceFacts::default(),
        sound: None,
        within: None,
    })
}

#[test]
fn a_call_takes_every_stage_in_order_and_is_recorded_twice() {
    let plane = FakePlane::new(Refuse::Nothing);
    let answer = block_on(drive(&plane, call(), &NoLink));
    assert!(matches!(answer.outcome, Ok(Reply::Result { .. })));
    assert_eq!(answer.receipt.unwrap().index, 1);
    let expect = "snapshot,authenticate,resolve,authorise,limit,validate,guard_in,record Intent,\
                  execute,record Outcome,\
                  ended authenticate resolve authorise limit guard_in intent execute guard_out outcome";
    assert_eq!(plane.trace.lock().unwrap().join(","), expect);
    let records = plane.records.lock().unwrap();
    let (intent, outcome) = (&records[0], &records[1]);
    assert_eq!(intent.call_id, outcome.call_id);
    assert_eq!(intent.policies, ["role:analyst", "observe:watch/0"]);
    assert_eq!(intent.who.agent.as_deref(), Some("x/1"));
    assert_eq!(outcome.status, Some(CallStatus::Ok));
    assert_eq!(outcome.impact.rows, 3);
    assert_eq!(outcome.impact.duration_us, 4);
    let kept = |event: &AuditEvent| event.body.as_ref().map(|b| b.len);
    assert_eq!((kept(intent), kept(outcome)), (Some(2), Some(7)), "arguments and answer");
    assert_eq!((intent.who.principal.as_str(), outcome.who.principal.as_str()), ("p-ana", "p-ana"));
    assert_eq!((&intent.what.secrets, &outcome.what.secrets), (&vec!["db-password".to_owned()], &intent.what.secrets));
    assert_eq!(outcome.revision, Revision(7));
    assert_eq!(plane.settled.load(Ordering::SeqCst), 3);
    assert_eq!(plane.freed.load(Ordering::SeqCst), 1);
}

#[test]
fn what_a_plugin_calls_names_the_call_that_led_to_it() {
    for (refuse, count) in [(Refuse::Nothing, 2), (Refuse::Policy, 1)] {
        let plane = FakePlane::new(refuse);
        let mut request = Request::clone(call().request());
        request.within = Some(Within {
            root: CallId(9),
            plugin: Name::new("text").unwrap(),
            depth: 1,
            deadline: std::time::Instant::now(),
            granted: Arc::default(),
            made: ChainCount::default(),
        });
        block_on(drive(&plane, Call::received(request), &NoLink));
        let records = plane.records.lock().unwrap();
        assert_eq!(records.len(), count);
        assert!(records.iter().all(|record| record.why.root_call == Some(CallId(9)) && record.call_id == CallId(1)));
    }
    let plane = FakePlane::new(Refuse::Nothing);
    block_on(drive(&plane, call(), &NoLink));
    assert!(plane.records.lock().unwrap().iter().all(|record| record.why.root_call.is_none()));
}

#[test]
fn a_refusal_at_any_stage_is_recorded_once_never_executed_and_holds_nothing() {
    let cases = [
        (Refuse::Authenticate, RejectionKind::Unauthenticated, None, 0, 0),
        (Refuse::Resolve, RejectionKind::NotFound, Some("acme"), 0, 1),
        (Refuse::Policy, RejectionKind::Denied, Some("acme"), 0, 2),
        (Refuse::Limit, RejectionKind::Limited, Some("acme"), 0, 3),
        (Refuse::Schema, RejectionKind::Invalid, Some("acme"), 1, 4),
        (Refuse::Guard, RejectionKind::Guarded, Some("acme"), 1, 4),
    ];
    for (at, kind, tenant, freed, passed) in cases {
        let plane = FakePlane::new(at);
        let answer = block_on(drive(&plane, call(), &NoLink));
        assert_eq!(answer.outcome.unwrap_err().kind, kind, "{at:?}");
        assert!(answer.receipt.is_some(), "{at:?}");
        let trace = plane.trace.lock().unwrap();
        assert!(!trace.iter().any(|s| s == "execute"), "{at:?} ran");
        // The stage that refused took time too.
        let told: Vec<&str> = trace.last().unwrap().split(' ').collect();
        assert_eq!((told.first(), told.last(), told.len()), (Some(&"ended"), Some(&"outcome"), passed + 3), "{at:?}");
        let records = plane.records.lock().unwrap();
        assert_eq!(records.len(), 1, "{at:?}");
        assert_eq!(records[0].phase, Phase::Denied, "{at:?}");
        assert_eq!(records[0].tenant.as_ref().map(Name::as_str), tenant, "{at:?}");
        assert_eq!(records[0].status, Some(CallStatus::Denied), "{at:?}");
        assert!(records[0].reason.is_some(), "{at:?}");
        assert_eq!(records[0].body.is_some(), tenant.is_some(), "{at:?}: nothing is kept of an unknown caller");
        assert_eq!(plane.freed.load(Ordering::SeqCst), freed, "{at:?} kept its reservation");
        assert_eq!(plane.begun.load(Ordering::SeqCst), 0, "{at:?} counts");
        let guarded = tenant.is_some() && at != Refuse::Resolve;
        assert_eq!(records[0].guards.is_empty(), tenant.is_none(), "{at:?}");
        assert_eq!(records[0].what.target.as_deref() == Some("p.***"), guarded, "{at:?}");
    }
}

/// Fails the test if a notification reaches the client.
struct DeafLink;
impl ClientLink for DeafLink {
    fn notify(&self, method: &str, _: RawJson) {
        panic!("{method} passed by the guard");
    }
    fn ask<'a>(&'a self, _: &'a RawJson) -> Option<BoxFuture<'a, Result<RawJson, AskError>>> {
        None
    }
    fn cancelled(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }
}

#[test]
fn a_guarded_call_is_recorded_as_the_guards_left_it_and_all_of_it_passes_them() {
    for blocks in [false, true] {
        let mut plane = FakePlane::new(Refuse::Nothing);
        let guard = Arc::new(FakeGuard { blocks, ..FakeGuard::default() });
        plane.guard = Some(guard.clone());
        let answer = block_on(drive(&plane, call(), &DeafLink));
        assert_eq!(guard.noted.load(Ordering::SeqCst), 1);
        let records = plane.records.lock().unwrap();
        let (intent, outcome) = (&records[0], &records[1]);
        let kept = |event: &AuditEvent| event.body.as_ref().map(|b| b.len);
        assert_eq!((kept(intent), &intent.guards), (Some(15), &vec!["card:mask=1".to_owned()]));
        assert_eq!(outcome.guards, ["jwt:block=2"]);
        if blocks {
            assert_eq!(answer.outcome.unwrap_err().code, "PV-GUARD-BLOCKED");
            assert_eq!((outcome.phase, outcome.status), (Phase::Outcome, Some(CallStatus::RpcError)));
            assert_eq!((outcome.error.as_deref(), kept(outcome)), (Some("PV-GUARD-BLOCKED"), None));
        } else {
            assert!(matches!(answer.outcome, Ok(Reply::Result { .. })));
            assert_eq!((outcome.status, kept(outcome)), (Some(CallStatus::Ok), Some(7)));
        }
        assert_eq!(plane.settled.load(Ordering::SeqCst), 3, "what ran is charged");
    }
}

#[test]
fn what_a_caller_says_beside_the_parameters_is_recorded_as_guards_left_it() {
    for (refuse, reasons) in [(Refuse::Nothing, vec![None, None]), (Refuse::Schema, vec![Some("told to by ****")])] {
        let mut plane = FakePlane::new(refuse);
        plane.guard = Some(Arc::default());
        let mut request = Request::clone(call().request());
        request.client.info = Some(RawJson::from(serde_json::json!({"name":"x-4111","version":"1"})));
        request.trace.request_id = Some("\"4111\"".to_owned());
        request.trace.workflow = Some("w-4111".to_owned());
        block_on(drive(&plane, Call::received(request), &NoLink));
        let records = plane.records.lock().unwrap();
        assert_eq!(records.iter().map(|record| record.reason.as_deref()).collect::<Vec<_>>(), reasons);
        for record in records.iter() {
            assert_eq!(record.who.agent.as_deref(), Some("x-****/1"));
            assert_eq!(record.what.request_id.as_deref(), Some("\"****\""));
            assert_eq!(record.why.workflow.as_deref(), Some("w-****"));
        }
    }
}

#[test]
fn of_somebody_unknown_no_workflow_is_recorded() {
    let plane = FakePlane::new(Refuse::Authenticate);
    let mut request = Request::clone(call().request());
    request.trace.workflow = Some("w-4111".to_owned());
    block_on(drive(&plane, Call::received(request), &NoLink));
    let records = plane.records.lock().unwrap();
    assert_eq!(records.len(), 1);
    assert!(records.iter().all(|record| record.why.workflow.is_none()));
}

#[test]
fn without_a_durable_intent_nothing_runs() {
    for at in [Refuse::IntentRecord, Refuse::Body] {
        nothing_runs(at);
    }
}

fn nothing_runs(at: Refuse) {
    let plane = FakePlane::new(at);
    let answer = block_on(drive(&plane, call(), &NoLink));
    let rejection = answer.outcome.unwrap_err();
    assert_eq!(rejection.kind, RejectionKind::AuditUnavailable);
    assert_eq!(rejection.error.code, RpcError::AUDIT_UNAVAILABLE);
    assert!(answer.receipt.is_none());
    assert!(!plane.trace.lock().unwrap().iter().any(|s| s == "execute"));
    assert_eq!(plane.freed.load(Ordering::SeqCst), 1);
    assert_eq!(plane.begun.load(Ordering::SeqCst), 0);
}

#[test]
fn without_a_durable_outcome_no_answer_leaves() {
    let plane = FakePlane::new(Refuse::OutcomeRecord);
    let answer = block_on(drive(&plane, call(), &NoLink));
    assert_eq!(answer.outcome.unwrap_err().kind, RejectionKind::AuditUnavailable);
    assert_eq!(answer.receipt.unwrap().index, 0, "the caller keeps its proof of the intent");
}

#[test]
fn what_runs_a_call_has_one_place_in_its_future() {
    let plane = FakePlane::new(Refuse::Nothing);
    let driven = drive(&plane, call(), &NoLink);
    let bytes = size_of_val(&driven);
    assert!((HELD_BYTES..2 * HELD_BYTES).contains(&bytes), "{bytes} bytes");
}

#[test]
fn what_was_found_is_held_for_who_knows_its_kind() {
    let found = Found::new(Arc::new(7_u32));
    assert_eq!(found.clone().get::<u32>().as_deref(), Some(&7));
    assert!(found.get::<String>().is_none() && Found::default().get::<u32>().is_none());
    assert_eq!(format!("{found:?} {:?}", Found::default()), "Found(…) Found()");
}
