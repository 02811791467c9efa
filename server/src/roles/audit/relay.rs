//! What administrators ask at a process that keeps no audit log, handed to one that does.
//!
//! Invariants: a relayed question carries the caller whom the admin listener authenticated; an audit
//! node takes one from members with the role control-plane only, and checks the caller's rights
//! again.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use prost::Message;
use provost_control_api::{Caller, Scope};
use provost_types::{BoxFuture, Name};
use provost_wire::{
    admin::{
        EraseRequest, HoldAddRequest, HoldListRequest, HoldRemoveRequest, NoteReadRequest, PruneRequest,
        ShowBodyRequest, SimulatePageRequest,
    },
    node::{RelayRequest, RelayResponse, audit_relay_client::AuditRelayClient, audit_relay_server::AuditRelay},
    tls,
};
use tonic::{Code, Request, Response, Status, transport::Channel};

use super::callers::Callers;
use crate::audit_admin::{AuditAccess, Elsewhere, Question};

/// One audit node gets so long to answer: an erasure waits for the group.
const RELAY_LIMIT: Duration = Duration::from_secs(8);
/// For a prune, which looks through segments and waits up to 15 s for a checkpoint of its record.
const PRUNE_LIMIT: Duration = Duration::from_secs(25);

/// The audit nodes that are known now; clones share them.
#[derive(Clone, Default)]
pub struct Relays(Arc<ArcSwap<Vec<Channel>>>);

impl Relays {
    /// Replaces them.
    pub fn set(&self, nodes: Vec<Channel>) {
        self.0.store(Arc::new(nodes));
    }
}

impl Elsewhere for Relays {
    fn ask(&self, caller: Caller, question: Question) -> BoxFuture<'_, Result<Vec<u8>, Status>> {
        let limit = if matches!(question, Question::Prune(_)) { PRUNE_LIMIT } else { RELAY_LIMIT };
        let request = to_wire(caller, &question);
        Box::pin(async move {
            let mut last = Status::unavailable("PV-AUDIT-UNAVAILABLE: no node of the audit log is known here yet");
            for node in self.0.load_full().iter() {
                let mut client = AuditRelayClient::new(node.clone());
                match tokio::time::timeout(limit, client.relay(request.clone())).await {
                    Ok(Ok(answer)) => return Ok(answer.into_inner().answer.to_vec()),
                    Ok(Err(status)) if status.code() != Code::Unavailable => return Err(status),
                    Ok(Err(status)) => last = status,
                    Err(_) => {
                        last = Status::unavailable("PV-AUDIT-UNAVAILABLE: a node of the audit log does not answer");
                    }
                }
            }
            Err(last)
        })
    }
}

fn to_wire(caller: Caller, question: &Question) -> RelayRequest {
    let (kind, question) = match question {
        Question::ShowBody(request) => ("show-body", request.encode_to_vec()),
        Question::Erase(request) => ("erase", request.encode_to_vec()),
        Question::NoteRead(request) => ("note-read", request.encode_to_vec()),
        Question::Simulate(request) => ("simulate", request.encode_to_vec()),
        Question::HoldAdd(request) => ("hold-add", request.encode_to_vec()),
        Question::HoldRemove(request) => ("hold-remove", request.encode_to_vec()),
        Question::HoldList(request) => ("hold-list", request.encode_to_vec()),
        Question::Prune(request) => ("prune", request.encode_to_vec()),
    };
    let tenant = match caller.scope {
        Scope::Cluster => String::new(),
        Scope::Tenant(tenant) => tenant.to_string(),
    };
    RelayRequest {
        caller: caller.name,
        authenticated_by: caller.authenticated_by,
        address: caller.address.unwrap_or_default(),
        tenant,
        kind: kind.to_owned(),
        question: question.into(),
    }
}

fn from_wire(request: RelayRequest) -> Result<(Caller, Question), Status> {
    let wrong = |why: String| Status::invalid_argument(format!("PV-ADMIN-REQUEST: {why}"));
    let scope = match request.tenant.as_str() {
        "" => Scope::Cluster,
        name => Scope::Tenant(Name::new(name).map_err(|e| wrong(e.to_string()))?),
    };
    let bytes = request.question.clone();
    let question = match request.kind.as_str() {
        "show-body" => ShowBodyRequest::decode(bytes).map(Question::ShowBody),
        "erase" => EraseRequest::decode(bytes).map(Question::Erase),
        "note-read" => NoteReadRequest::decode(bytes).map(Question::NoteRead),
        "simulate" => SimulatePageRequest::decode(bytes).map(Question::Simulate),
        "hold-add" => HoldAddRequest::decode(bytes).map(Question::HoldAdd),
        "hold-remove" => HoldRemoveRequest::decode(bytes).map(Question::HoldRemove),
        "hold-list" => HoldListRequest::decode(bytes).map(Question::HoldList),
        "prune" => PruneRequest::decode(bytes).map(Question::Prune),
        other => return Err(wrong(format!("`{other}` is no question"))),
    };
    let address = Some(request.address).filter(|address| !address.is_empty());
    let caller = Caller { name: request.caller, scope, authenticated_by: request.authenticated_by, address };
    Ok((caller, question.map_err(|e| wrong(e.to_string()))?))
}

/// Answers what control-plane nodes hand on.
pub struct RelayService {
    pub access: AuditAccess,
    pub callers: Callers,
}

#[tonic::async_trait]
impl AuditRelay for RelayService {
    async fn relay(&self, request: Request<RelayRequest>) -> Result<Response<RelayResponse>, Status> {
        self.callers.with_role(request.extensions(), tls::Role::ControlPlane).await?;
        let (caller, question) = from_wire(request.into_inner())?;
        let answer = self.access.answer_here(&caller, question).await?;
        Ok(Response::new(RelayResponse { answer: answer.into() }))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_question_arrives_with_the_rights_of_its_caller() {
        let asked = EraseRequest { tenant: "acme".to_owned(), subject: "ana".to_owned(), ..EraseRequest::default() };
        for scope in [Scope::Cluster, Scope::Tenant(Name::new("acme").unwrap())] {
            let caller = Caller { scope, address: Some("10.0.0.7:1".to_owned()), ..Caller::internal("x") };
            let (found, question) = from_wire(to_wire(caller.clone(), &Question::Erase(asked.clone()))).unwrap();
            assert_eq!(found, caller);
            assert!(matches!(question, Question::Erase(found) if found == asked));
        }
        let held = HoldAddRequest { id: "case-7".to_owned(), tenant: "acme".to_owned(), ..HoldAddRequest::default() };
        let asked = [
            Question::HoldAdd(held),
            Question::HoldRemove(HoldRemoveRequest::default()),
            Question::HoldList(HoldListRequest {}),
            Question::Prune(PruneRequest { keep_seconds: 1, ..PruneRequest::default() }),
        ];
        for question in asked {
            let sent = to_wire(Caller::internal("x"), &question);
            let (_, found) = from_wire(sent.clone()).unwrap();
            assert_eq!(to_wire(Caller::internal("x"), &found), sent);
        }
        let unknown = RelayRequest { kind: "other".to_owned(), ..RelayRequest::default() };
        assert_eq!(from_wire(unknown).err().map(|s| s.code()), Some(Code::InvalidArgument));
    }
}
