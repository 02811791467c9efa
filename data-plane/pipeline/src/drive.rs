//! The one path of a call.

use std::{pin::pin, sync::Arc};

use provost_mcp::{RawJson, RpcError};
use provost_types::{
    AuditEvent, AuditReceipt, AuditUnavailable, CallStatus, Effect, Impact, Phase, Revision, What, Who, Why,
};

use crate::{
    Admitted, Answer, Authenticated, Call, Caller, ClientLink, Effort, Ended, Executed, Execution, Guarded,
    GuardedParams, GuardedReply, Intended, Limited, Marks, Operation, Plane, Received, RecordGuard, Rejection,
    RejectionKind, Reply, Request, Resolved, Stage, Target, Usage, Validated,
    guard::{GuardedLink, beside},
    words::Words,
};

/// Runs one call from arrival to its durable end.
///
/// Cancel safety: dropping the future before the intent is durable leaves nothing but, at most, an
/// intent that recovery turns into `unknown`. Dropping it later does the same to a call that ran,
/// so transports spawn it and never drop it.
pub async fn drive<P: Plane>(plane: &P, call: Call<Received>, link: &dyn ClientLink) -> Answer {
    plane.catch_up(call.request()).await;
    let snapshot = plane.snapshot();
    let mut facts = Facts::new(plane, &snapshot, call.shared_request());
    let answer = match admit(plane, &snapshot, call, &mut facts).await {
        Ok(call) => {
            facts.guarded(&call.stage.guarded);
            let intended = intend(plane, call, &facts).await;
            facts.passed(plane, Stage::Intent);
            match intended {
                Ok(call) => finish(plane, &snapshot, call, link, &mut facts).await,
                Err(rejection) => Answer::refused(rejection, None),
            }
        }
        Err(rejection) => refuse(plane, &snapshot, rejection, &mut facts).await,
    };
    facts.passed(plane, Stage::Outcome);
    plane.ended(&facts.ended(&answer));
    answer
}

/// Everything up to the intent. Pure decisions but for `resolve`, which may ask an upstream, and
/// `limit`, which may wait for units.
async fn admit<P: Plane>(
    plane: &P,
    snapshot: &Arc<P::Snapshot>,
    call: Call<Received>,
    facts: &mut Facts,
) -> Result<Call<Guarded>, Rejection> {
    plane.prepare(snapshot, &call.request().credential).await;
    let caller = plane.authenticate(snapshot, &call)?;
    facts.caller = Some(caller.clone());
    facts.passed(plane, Stage::Authenticate);
    let call: Call<Authenticated> = call.into_stage(|_| Authenticated { caller });

    let target = Arc::new(plane.resolve(snapshot, &call).await?);
    facts.target = Some(target.clone());
    facts.passed(plane, Stage::Resolve);
    let call: Call<Resolved> = call.into_stage(|s| Resolved { caller: s.caller, target });

    plane.stop(snapshot, &call)?;
    let decision = plane.authorise(snapshot, &call);
    facts.note(&decision);
    if !decision.is_allow() {
        plane.unreadable(snapshot, &call)?;
        let reason = decision.reason;
        let denied = Rejection::new(RejectionKind::Denied, "PV-POLICY-DENIED", reason);
        return Err(denied.with_scopes(plane.scopes_needed(snapshot, &call)));
    }
    let call: Call<Admitted> = call.into_stage(|resolved| Admitted { resolved, decision });
    facts.passed(plane, Stage::Authorise);

    let reservation = plane.limit(snapshot, &call).await?;
    facts.passed(plane, Stage::Limit);
    let call: Call<Limited> = call.into_stage(|admitted| Limited { admitted, reservation });

    plane.validate(snapshot, &call)?;
    let call: Call<Validated> = call.into_stage(|limited| Validated { limited });

    let guarded = plane.guard_in(snapshot, &call).await?;
    facts.passed(plane, Stage::GuardIn);
    Ok(call.into_stage(|v| Guarded { limited: v.limited, guarded }))
}

/// No durable intent, no execution.
async fn intend<P: Plane>(plane: &P, call: Call<Guarded>, facts: &Facts) -> Result<Call<Intended>, Rejection> {
    let event = facts.event(Phase::Intent, facts.request.arrived_ns);
    let params = call.stage.guarded.params.clone();
    match record_with(plane, facts, event, Some(&params)).await {
        Ok(receipt) => Ok(call.into_stage(|guarded| Intended { guarded, receipt })),
        Err(cause) => Err(audit_unavailable(&cause.to_string())),
    }
}

/// Execute, guard, settle, record. If the process dies in here the intent stands alone and
/// recovery writes `unknown`: the call may have run.
async fn finish<P: Plane>(
    plane: &P,
    snapshot: &Arc<P::Snapshot>,
    call: Call<Intended>,
    link: &dyn ClientLink,
    facts: &mut Facts,
) -> Answer {
    call.reservation().begin();
    let execution = {
        let guarded = call.guard().map(|guard| GuardedLink { link, guard });
        let towards: &dyn ClientLink = match &guarded {
            Some(guarded) => guarded,
            None => link,
        };
        // Pinned where it is made: it is the largest part of a call, and each move would copy all of it.
        let mut running = pin!(plane.execute(snapshot, &call, towards));
        match call.guard().and_then(|guard| guard.relay(link)) {
            Some(relay) => beside(running.as_mut(), relay).await,
            None => running.as_mut().await,
        }
    };
    if let Some(flush) = call.guard().and_then(|guard| guard.flush(link)) {
        flush.await;
    }
    facts.passed(plane, Stage::Execute);
    let Execution { reply, status, usage, effort } = execution;
    (facts.usage, facts.attempts) = (usage, effort.attempts);
    let replied = match call.guard() {
        Some(guard) => guard.reply(reply).await,
        None => Ok(GuardedReply::untouched(reply)),
    };
    let (replied, kept) = match replied {
        Ok(GuardedReply { reply, kept }) => (Ok(reply), kept),
        Err(held_back) => (Err(held_back), None),
    };
    call.reservation().settle(&usage);
    let limits = call.reservation().limits();
    let now = facts.passed(plane, Stage::GuardOut);

    let mut event = outcome(now, facts, &replied, (status, usage, effort));
    event.guards = call.guard().map(|guard| guard.found()).unwrap_or_default();
    let call: Call<Executed> = call.into_stage(|intended| Executed { intended });
    let body = kept.as_ref().or_else(|| replied.as_ref().ok().and_then(body_of));
    match record_with(plane, facts, event, body).await {
        Ok(receipt) => Answer { outcome: replied, receipt: Some(receipt), limits },
        // The effect may stand, but an answer without a durable outcome must not leave.
        Err(cause) => Answer::refused(audit_unavailable(&cause.to_string()), Some(call.stage.intended.receipt)),
    }
}

/// A reply that a guard holds back is an error to the caller, and the call has run all the same.
fn outcome(
    now: u64,
    facts: &Facts,
    replied: &Result<Reply, Rejection>,
    (status, usage, effort): (CallStatus, Usage, Effort),
) -> Box<AuditEvent> {
    let mut event = facts.event(Phase::Outcome, now);
    event.status = Some(status);
    event.why.attempt = effort.attempts;
    event.reason = effort.cached_ms.map(|ms| format!("cached: the answer was given {ms} ms before"));
    match replied {
        // Ended from outside: the record says by what, and not what a caller's own cancelling says.
        Ok(Reply::Error(error)) if status == CallStatus::Cancelled && error.code == RpcError::POLICY_DENIED => {
            event.error = error.stable_code();
            event.reason = Some(error.message.clone());
        }
        Ok(Reply::Error(error)) => event.error = Some(error.code.to_string()),
        Ok(_) => {}
        Err(held_back) => {
            event.status = Some(CallStatus::RpcError);
            event.error = Some(held_back.code.to_owned());
            event.reason = Some(held_back.error.message.clone());
        }
    }
    event.impact = Impact {
        bytes_out: replied.as_ref().ok().and_then(body_of).map_or(0, |b| b.as_bytes().len() as u64),
        rows: usage.rows,
        tokens_in: usage.tokens_in,
        tokens_out: usage.tokens_out,
        cost_micro: usage.cost_micro,
        duration_us: now.saturating_sub(facts.request.arrived_ns) / 1_000,
        ..event.impact
    };
    event
}

/// A refusal is an outcome: it is recorded before it is answered. An unknown caller's refusal goes
/// to the cluster's log, since no tenant is known.
async fn refuse<P: Plane>(plane: &P, snapshot: &P::Snapshot, rejection: Rejection, facts: &mut Facts) -> Answer {
    let now = plane.now_ns();
    facts.marks.refused(now);
    let mut params = facts.request.params.clone();
    match &facts.caller {
        Some(caller) => {
            let guarded = plane.guard_refused(snapshot, caller, facts.target.as_deref(), &facts.request);
            facts.guarded(&guarded);
            params = guarded.params;
        }
        // Whose guards hold is known with the caller only, and the cluster's log is nobody's notebook.
        None => facts.words.workflow = None,
    }
    if let Some(found) = rejection.withheld() {
        facts.found.extend(found.iter().cloned());
        params = RawJson::EMPTY_OBJECT;
    }
    let mut event = facts.event(Phase::Denied, now);
    event.decision = Some(Effect::Deny);
    event.status = Some(CallStatus::Denied);
    event.error = Some(rejection.code.to_owned());
    event.reason = Some(facts.clean(facts.without_target(&rejection.error.message)));
    event.impact.duration_us = now.saturating_sub(facts.request.arrived_ns) / 1_000;
    match record_with(plane, facts, event, Some(&params)).await {
        Ok(receipt) => Answer::refused(rejection, Some(receipt)),
        Err(cause) => Answer::refused(audit_unavailable(&cause.to_string()), None),
    }
}

/// The answer's body, where it has one.
fn body_of(reply: &Reply) -> Option<&RawJson> {
    match reply {
        Reply::Result { body, .. } | Reply::InputRequired(body) => Some(body),
        Reply::Error(_) => None,
    }
}

/// Records an event with what is to be kept of its body. Nothing is kept of an unknown caller's:
/// there is nobody under whose key.
async fn record_with<P: Plane>(
    plane: &P,
    facts: &Facts,
    mut event: Box<AuditEvent>,
    body: Option<&RawJson>,
) -> Result<AuditReceipt, AuditUnavailable> {
    if let Some(caller) = &facts.caller {
        plane.protect(&caller.principal, &mut event, body.map(RawJson::as_bytes)).await?;
    }
    plane.record(event).await
}

/// Bytes that came with the call.
fn bytes_in(request: &Request) -> u64 {
    let sound = request.sound.as_ref().map_or(0, |sound| sound.bytes().len());
    (request.params.as_bytes().len() + sound) as u64
}

fn audit_unavailable(cause: &str) -> Rejection {
    Rejection::new(
        RejectionKind::AuditUnavailable,
        "PV-AUDIT-UNAVAILABLE",
        format!("{cause}; the call was refused, try again"),
    )
}

/// What is known of the call so far, for its records.
struct Facts {
    request: Arc<Request>,
    caller: Option<Arc<Caller>>,
    target: Option<Arc<Target>>,
    decision: Option<Effect>,
    policies: Vec<String>,
    revision: Revision,
    /// What guards found in the parameters.
    found: Vec<String>,
    /// What to say that was called, where that is protected itself.
    shown: Option<String>,
    /// What the caller says of itself and of the request, as records may have it.
    words: Words,
    /// What guards make of such words.
    records: Option<Arc<dyn RecordGuard>>,
    /// When each stage ended.
    marks: Marks,
    usage: Usage,
    attempts: u32,
}

impl Facts {
    fn new<P: Plane>(plane: &P, snapshot: &P::Snapshot, request: Arc<Request>) -> Self {
        Self {
            words: Words::of(&request),
            records: None,
            request,
            caller: None,
            target: None,
            decision: None,
            policies: Vec::new(),
            revision: plane.revision(snapshot),
            found: Vec::new(),
            shown: None,
            marks: Marks::default(),
            usage: Usage::default(),
            attempts: 0,
        }
    }

    /// A stage ended now: when that is.
    fn passed<P: Plane>(&mut self, plane: &P, stage: Stage) -> u64 {
        let now = plane.now_ns();
        self.marks.end(stage, now);
        now
    }

    /// What is told of the call now that it is over.
    fn ended<'a>(&'a self, answer: &'a Answer) -> Ended<'a> {
        Ended {
            request: &self.request,
            caller: self.caller.as_ref(),
            target: self.target.as_ref(),
            is_target_hidden: self.shown.is_some(),
            marks: &self.marks,
            usage: self.usage,
            attempts: self.attempts,
            answer,
        }
    }

    fn guarded(&mut self, guarded: &GuardedParams) {
        self.found.clone_from(&guarded.found);
        self.shown.clone_from(&guarded.target);
        self.records.clone_from(&guarded.records);
        if let Some(records) = &self.records {
            self.words = std::mem::take(&mut self.words).cleaned(&**records);
        }
    }

    /// A text as records may have it.
    fn clean(&self, text: String) -> String {
        self.records.as_ref().and_then(|records| records.clean(&text)).unwrap_or(text)
    }

    /// A sentence that may name what was called, without that where it is protected.
    fn without_target(&self, text: &str) -> String {
        let (Some(shown), Some(written)) = (&self.shown, self.request.operation.target()) else {
            return text.to_owned();
        };
        let text = text.replace(written, shown);
        // A resource may have been asked for as `provost:PLUGIN:URI`: what is said of it names its URI alone.
        match self.target.as_deref() {
            Some(target) if !target.full.is_empty() && !shown.contains(&target.full) => {
                text.replace(&target.full, shown)
            }
            _ => text,
        }
    }

    fn note(&mut self, decision: &provost_types::Decision) {
        self.decision = Some(decision.effect);
        self.policies.clone_from(&decision.policies);
        // A tool may be called by an alias: the record names what was called, and here how.
        if let (Operation::CallTool(written), Some(target)) = (&self.request.operation, &self.target)
            && *written != target.full
            && *written != target.local
        {
            self.policies.push(format!("alias:{written}"));
        }
        self.policies.extend(decision.observed.iter().map(|id| format!("observe:{id}")));
    }

    /// Boxed: an event is large, and each future that it passes through would have room for it, and be copied with it.
    fn event(&self, phase: Phase, time_ns: u64) -> Box<AuditEvent> {
        let request = &*self.request;
        let (client, trace) = (&request.client, &request.trace);
        let Words { agent, request_id, workflow } = self.words.clone();
        let caller = self.caller.as_deref();
        let target = self.target.as_deref();
        Box::new(AuditEvent {
            phase,
            call_id: request.call_id,
            tenant: caller.map(|c| c.principal.tenant.clone()),
            time_ns,
            who: Who {
                principal: caller.map(|c| c.principal.name.to_string()).unwrap_or_default(),
                agent,
                client_address: client.address.clone(),
                authenticated_by: caller.map(|c| c.authenticated_by.clone()).unwrap_or_default(),
            },
            what: What {
                method: request.operation.method().to_owned(),
                target: match target {
                    _ if self.shown.is_some() => self.shown.clone(),
                    Some(t) if !t.full.is_empty() => Some(t.full.clone()),
                    _ => request.operation.target().map(str::to_owned),
                },
                plugin: target.and_then(|t| t.plugin.as_ref()).map(ToString::to_string),
                plugin_digest: target.and_then(|t| t.plugin_digest.as_deref()).map(str::to_owned),
                request_id,
                protocol_version: Some(client.protocol_version.to_string()),
                transport: client.transport.to_owned(),
                secrets: target.map(|t| t.secrets.to_vec()).unwrap_or_default(),
                subject: None,
            },
            why: Why {
                workflow,
                traceparent: trace.traceparent.clone(),
                root_call: request.within.as_ref().map(|within| within.root),
                attempt: 1,
            },
            decision: self.decision,
            policies: self.policies.clone(),
            revision: self.revision,
            status: None,
            error: None,
            reason: None,
            guards: if phase == Phase::Outcome { Vec::new() } else { self.found.clone() },
            body: None,
            impact: Impact { bytes_in: bytes_in(request), ..Impact::default() },
        })
    }
}
