//! What administrators ask of the audit log: bodies, erasures, and that a read be recorded.
//!
//! Invariant: nothing is answered that is not in the log first. A body that was opened and whose
//! reading cannot be recorded is not handed out.

use std::{
    sync::{Arc, OnceLock},
    time::{SystemTime, UNIX_EPOCH},
};

use prost::Message;
use provost_audit_core::LogId;
use provost_audit_store::{AuditNode, BodyError, BodyState, EraseError, EraseOrder};
use provost_control_api::{Caller, Scope};
use provost_types::{
    AuditEvent, AuditSink, AuditUnavailable, BoxFuture, CallId, CallStatus, Impact, Month, Name, Phase, Revision,
    Subject, What, Who, Why,
};
use provost_wire::admin::{
    AuditIdentity, EraseRequest, EraseResponse, Failure, HoldAddRequest, HoldListRequest, HoldRemoveRequest,
    NoteReadRequest, NoteReadResponse, PruneRequest, ShowBodyRequest, ShowBodyResponse, SimulatePage,
    SimulatePageRequest,
    audit_admin_server::{AuditAdmin, AuditAdminServer},
};
use tonic::{Code, Request, Response, Status, service::Routes};

use crate::{
    audit_caller::{failure_of, invalid, permitted, taken, who},
    audit_retention,
    simulate::{self, JudgeCache},
};

/// The longest text that a reader may have recorded of what it asks for.
const MAX_FILTER_CHARS: usize = 512;
/// Names that one answer resolves.
const MAX_IDENTITIES: usize = 100_000;

/// The audit log as the admin API reaches it.
#[derive(Clone)]
pub struct AuditAccess {
    /// Where this process records.
    pub sink: Arc<dyn AuditSink>,
    /// The replica here, once it is open.
    pub node: Arc<OnceLock<AuditNode>>,
    /// Who is asked while there is none.
    pub elsewhere: Arc<dyn Elsewhere>,
    /// The states that were compared last.
    pub judges: Arc<JudgeCache>,
}

/// What an administrator asks.
pub enum Question {
    ShowBody(ShowBodyRequest),
    Erase(EraseRequest),
    NoteRead(NoteReadRequest),
    Simulate(SimulatePageRequest),
    HoldAdd(HoldAddRequest),
    HoldRemove(HoldRemoveRequest),
    HoldList(HoldListRequest),
    Prune(PruneRequest),
}

/// Other processes that keep the log.
pub trait Elsewhere: Send + Sync + 'static {
    /// Has a question answered by one of them; gives the response's bytes.
    fn ask(&self, caller: Caller, question: Question) -> BoxFuture<'_, Result<Vec<u8>, Status>>;
}

/// There are none.
pub struct Nowhere;

impl Elsewhere for Nowhere {
    fn ask(&self, _: Caller, _: Question) -> BoxFuture<'_, Result<Vec<u8>, Status>> {
        Box::pin(std::future::ready(Err(starting())))
    }
}

fn starting() -> Status {
    Failure::new("PV-AUDIT-UNAVAILABLE", "the audit log is starting", "try again").into_status(Code::Unavailable)
}

/// The service for the admin listener.
struct AuditAdminService(AuditAccess);

/// The routes for the admin listener, those of retention with them.
pub fn routes(access: AuditAccess) -> Routes {
    let own = Routes::new(AuditAdminServer::new(AuditAdminService(access.clone())));
    audit_retention::routes(own, access)
}

#[tonic::async_trait]
impl AuditAdmin for AuditAdminService {
    async fn show_body(&self, request: Request<ShowBodyRequest>) -> Result<Response<ShowBodyResponse>, Status> {
        let (caller, asked) = taken(request)?;
        self.0.answer(caller, Question::ShowBody(asked)).await
    }

    async fn erase(&self, request: Request<EraseRequest>) -> Result<Response<EraseResponse>, Status> {
        let (caller, asked) = taken(request)?;
        self.0.answer(caller, Question::Erase(asked)).await
    }

    async fn note_read(&self, request: Request<NoteReadRequest>) -> Result<Response<NoteReadResponse>, Status> {
        let (caller, asked) = taken(request)?;
        self.0.answer(caller, Question::NoteRead(asked)).await
    }
}

impl AuditAccess {
    /// [`AuditAccess::ask`], read as the response that the question has.
    pub async fn answer<T: Message + Default>(
        &self,
        caller: Caller,
        question: Question,
    ) -> Result<Response<T>, Status> {
        let answer = self.ask(caller, question).await?;
        T::decode(answer.as_slice()).map(Response::new).map_err(|e| Status::internal(e.to_string()))
    }

    /// Answers with the replica of this process, or has another one answer.
    pub async fn ask(&self, caller: Caller, question: Question) -> Result<Vec<u8>, Status> {
        match self.node.get() {
            Some(_) => self.answer_here(&caller, question).await,
            None => self.elsewhere.ask(caller, question).await,
        }
    }

    /// Answers with the replica of this process.
    pub async fn answer_here(&self, caller: &Caller, question: Question) -> Result<Vec<u8>, Status> {
        let node = self.node.get().ok_or_else(starting)?;
        match question {
            Question::ShowBody(asked) => self.show_body(node, caller, asked).await.map(|a| a.encode_to_vec()),
            Question::Erase(asked) => self.erase(node, caller, asked).await.map(|a| a.encode_to_vec()),
            Question::NoteRead(asked) => self.note_read(node, caller, asked).await.map(|a| a.encode_to_vec()),
            Question::Simulate(asked) => self.simulate(node, caller, asked).await.map(|a| a.encode_to_vec()),
            keeping => self.keep(node, caller, keeping).await,
        }
    }

    /// Answers what is asked of holds and pruning.
    async fn keep(&self, node: &AuditNode, caller: &Caller, question: Question) -> Result<Vec<u8>, Status> {
        let kept = node.retention(self.sink.clone());
        match question {
            Question::HoldAdd(asked) => {
                audit_retention::hold_add(&kept, caller, asked).await.map(|a| a.encode_to_vec())
            }
            Question::HoldRemove(asked) => {
                audit_retention::hold_remove(&kept, caller, asked).await.map(|a| a.encode_to_vec())
            }
            Question::HoldList(_) => Ok(audit_retention::hold_list(&kept, caller).encode_to_vec()),
            Question::Prune(asked) => audit_retention::prune(&kept, caller, asked).await.map(|a| a.encode_to_vec()),
            _ => Err(Status::internal("this is no question of retention")),
        }
    }

    async fn show_body(
        &self,
        node: &AuditNode,
        caller: &Caller,
        ShowBodyRequest { tenant, index }: ShowBodyRequest,
    ) -> Result<ShowBodyResponse, Status> {
        let log = permitted(caller, &tenant)?;
        let (node, asked) = (node.clone(), log.clone());
        let shown = tokio::task::spawn_blocking(move || node.open_body(&asked, index)).await;
        let shown = shown.map_err(|e| Status::internal(e.to_string()))?.map_err(body_failed)?;
        let key = shown.found.record.body_key.map(|key| format!("key:{key}"));
        let objects = std::iter::once(format!("record:{index}")).chain(key).collect();
        let (state, body, detail) = match shown.body {
            BodyState::Opened(body) => ("opened", body.to_vec(), String::new()),
            BodyState::Erased(time_ns) => ("erased", Vec::new(), time_ns.to_string()),
            BodyState::Omitted(why) => ("omitted", Vec::new(), why),
            BodyState::None => ("none", Vec::new(), String::new()),
        };
        self.record(caller, &log, ("audit.read", objects, format!("body: {state}"))).await?;
        let (record, leaf_hash) = (shown.found.leaf, shown.found.leaf_hash.to_string());
        Ok(ShowBodyResponse { record, leaf_hash, state: state.to_owned(), body, detail })
    }

    async fn erase(
        &self,
        node: &AuditNode,
        caller: &Caller,
        EraseRequest { tenant, subject, before, reason }: EraseRequest,
    ) -> Result<EraseResponse, Status> {
        let LogId(Some(tenant)) = permitted(caller, &tenant)? else {
            return Err(invalid("PV-CLI-TENANT", "bodies belong to a tenant", "give --tenant NAME"));
        };
        let before = match before.as_str() {
            "" => None,
            text => Some(text.parse::<Month>().map_err(|e| invalid("PV-AUDIT-ERASE", e, "write --before 2026-11"))?),
        };
        let order = EraseOrder { tenant, subject, before, reason, by: who(caller) };
        let erased = node.erase(&*self.sink, order).await.map_err(|cause| erase_failed(&cause))?;
        let keys = erased.keys.iter().map(ToString::to_string).collect();
        let pseudonym = erased.pseudonym.map(|p| p.to_string()).unwrap_or_default();
        Ok(EraseResponse { pseudonym, keys })
    }

    async fn note_read(
        &self,
        node: &AuditNode,
        caller: &Caller,
        NoteReadRequest { command, tenant, filter }: NoteReadRequest,
    ) -> Result<NoteReadResponse, Status> {
        let log = permitted(caller, &tenant)?;
        if !["query", "show", "export", "tail"].contains(&command.as_str()) {
            return Err(invalid("PV-ADMIN-REQUEST", format!("`{command}` is no command that reads"), ""));
        }
        let filter = filter.chars().take(MAX_FILTER_CHARS).collect();
        self.note(node, caller, &log, ("audit.read", vec![format!("command:{command}")], filter)).await?;
        let known = node.identities(&log).into_iter().take(MAX_IDENTITIES);
        let known = known.map(|known| AuditIdentity { pseudonym: known.pseudonym.to_string(), name: known.name });
        Ok(NoteReadResponse { identities: known.collect() })
    }

    async fn simulate(
        &self,
        node: &AuditNode,
        caller: &Caller,
        asked: SimulatePageRequest,
    ) -> Result<SimulatePage, Status> {
        let log = permitted(caller, &asked.tenant)?;
        let (replica, judges) = (node.clone(), self.judges.clone());
        let (from, filter) = (asked.from, format!("principal={} tool={}", asked.principal, asked.tool));
        let done = tokio::task::spawn_blocking(move || simulate::page(&replica, &judges, &asked)).await;
        let page = done.map_err(|e| Status::internal(e.to_string()))??;
        let objects = vec!["command:simulate".to_owned(), format!("records from:{from}")];
        let detail = format!("{filter}; calls: {}, bodies opened: {}", page.looked_at, page.opened);
        let detail = detail.chars().take(MAX_FILTER_CHARS).collect();
        self.note(node, caller, &log, ("audit.read", objects, detail)).await?;
        Ok(page)
    }

    /// Records a read that names its log before anything was found there. A log is for ever, and one that
    /// no kept checkpoint covers spoils every proof: a name that was mistyped begins none. Such a read is
    /// one of the cluster's, which says what was asked for.
    async fn note(
        &self,
        node: &AuditNode,
        caller: &Caller,
        log: &LogId,
        (event, mut objects, detail): (&str, Vec<String>, String),
    ) -> Result<(), Status> {
        // A tenant that has administrators of its own is one.
        let own = matches!(caller.scope, Scope::Tenant(_));
        if own || *log == LogId::CLUSTER || node.has_log(log) {
            return self.record(caller, log, (event, objects, detail)).await;
        }
        objects.push(format!("log:{}", log.tenant()));
        self.record(caller, &LogId::CLUSTER, (event, objects, detail)).await
    }

    async fn record(
        &self,
        caller: &Caller,
        log: &LogId,
        (event, objects, detail): (&str, Vec<String>, String),
    ) -> Result<(), Status> {
        let subject = Subject { event: event.to_owned(), objects, detail };
        let event = admin_event(log.0.clone(), who(caller), subject, Some(CallStatus::Ok));
        self.sink.record(event).await.map(drop).map_err(|cause| unavailable(&cause))
    }
}

/// Nanoseconds since the Unix epoch.
pub fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// An event of the admin API.
pub fn admin_event(tenant: Option<Name>, who: Who, subject: Subject, status: Option<CallStatus>) -> AuditEvent {
    let time_ns = now_ns();
    // UUID version 7 (RFC 9562): milliseconds, then randomness.
    let random = rand::random::<u128>() & 0x0000_0000_0000_0fff_3fff_ffff_ffff_ffff;
    let call_id = CallId((u128::from(time_ns / 1_000_000) << 80) | (7 << 76) | (2 << 62) | random);
    AuditEvent {
        phase: Phase::Event,
        call_id,
        tenant,
        time_ns,
        who,
        what: What {
            method: format!("admin/{}", subject.event),
            transport: "admin".to_owned(),
            subject: Some(subject),
            ..What::default()
        },
        why: Why { attempt: 1, ..Why::default() },
        decision: None,
        policies: Vec::new(),
        revision: Revision::default(),
        status,
        error: None,
        reason: None,
        guards: Vec::new(),
        body: None,
        impact: Impact::default(),
    }
}

fn unavailable(cause: &AuditUnavailable) -> Status {
    let text = format!("{cause}; nothing is shown that is not recorded");
    Failure::new("PV-AUDIT-UNAVAILABLE", text, "try again").into_status(Code::Unavailable)
}

fn body_failed(cause: BodyError) -> Status {
    let code = match &cause {
        BodyError::Query(_) => Code::NotFound,
        BodyError::NoKey(_) => Code::FailedPrecondition,
        BodyError::Damaged { .. } => Code::DataLoss,
    };
    failure_of(&cause.to_string(), "PV-AUDIT-READ").into_status(code)
}

fn erase_failed(cause: &EraseError) -> Status {
    let code = match cause {
        EraseError::Held(_) => Code::FailedPrecondition,
        EraseError::Reason => Code::InvalidArgument,
        EraseError::Unavailable(_) => Code::Unavailable,
    };
    failure_of(&cause.to_string(), "PV-AUDIT-READ").into_status(code)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn errors_keep_their_code_cause_and_hint() {
        let failure = Failure::of(&erase_failed(&EraseError::Held("case 7".to_owned())));
        assert_eq!((failure.code.as_str(), failure.message.as_str()), ("PV-AUDIT-HELD", "case 7"));
        assert!(failure.hint.starts_with("release the hold"), "{}", failure.hint);
    }
}
