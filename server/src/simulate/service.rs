//! The service on the admin listener.

use std::collections::BTreeSet;

use futures::Stream;
use prost::Message;
use provost_control_api::{Caller, ControlNode, Preview, SourceFile};
use provost_types::{Kind, Name};
use provost_wire::admin::{
    ChangeKind, FieldChange, ResourceChange, SimulateBegin, SimulateEnd, SimulatePage, SimulatePageRequest,
    SimulatePart, SimulateRequest, WhyRequest, WhyResponse,
    policy_admin_server::{PolicyAdmin, PolicyAdminServer},
    simulate_part::Part,
};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, service::Routes};

use super::{
    page::action,
    states::{Judges, States},
    visibility::{self, MAX_OBJECTS, Object},
    why,
};
use crate::{
    audit_admin::{AuditAccess, Question, now_ns},
    audit_caller::{invalid, permitted, taken},
};

/// Bytes of one request: as for an apply.
const MAX_REQUEST_BYTES: usize = 16 << 20;
/// Parts that wait for a caller that reads slowly.
const WAITING_PARTS: usize = 4;

/// Both sides of a comparison as this process reaches them.
struct PolicyService {
    control: ControlNode,
    audit: AuditAccess,
}

/// The routes for the admin listener.
pub fn routes(beside: Routes, control: ControlNode, audit: AuditAccess) -> Routes {
    let service = PolicyAdminServer::new(PolicyService { control, audit });
    beside.add_service(service.max_decoding_message_size(MAX_REQUEST_BYTES))
}

/// Parts as they are found.
pub struct Parts(mpsc::Receiver<Result<SimulatePart, Status>>);

impl Stream for Parts {
    type Item = Result<SimulatePart, Status>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.0.poll_recv(context)
    }
}

#[tonic::async_trait]
impl PolicyAdmin for PolicyService {
    type SimulateStream = Parts;

    async fn simulate(&self, request: Request<SimulateRequest>) -> Result<Response<Parts>, Status> {
        let (caller, mut asked) = taken(request)?;
        let documents = std::mem::take(&mut asked.documents);
        let files: Vec<SourceFile> = documents.into_iter().map(|d| SourceFile { path: d.path, text: d.text }).collect();
        let preview = self.control.preview(&caller, &files).await?;
        let tenants = tenants(&preview, &asked.tenant)?;
        for tenant in &tenants {
            permitted(&caller, tenant.as_str())?;
        }
        let (sender, receiver) = mpsc::channel(WAITING_PARTS);
        let comparison = Comparison { caller, asked, preview, tenants, audit: self.audit.clone(), sender };
        tokio::spawn(comparison.run());
        Ok(Response::new(Parts(receiver)))
    }

    async fn why(&self, request: Request<WhyRequest>) -> Result<Response<WhyResponse>, Status> {
        let (caller, asked) = taken(request)?;
        permitted(&caller, &asked.tenant)?;
        let state = self.control.present().await?;
        let tenant = Name::new(&asked.tenant).map_err(|e| invalid("PV-CLI-TENANT", e, "name a tenant"))?;
        let (state, _) = States::of(&tenant, &state, &state).snapshots();
        let answer = why::explain(&self.audit, &caller, asked, state).await?;
        let explanation = serde_json::to_string(&answer).map_err(|e| Status::internal(e.to_string()))?;
        Ok(Response::new(WhyResponse { explanation }))
    }
}

/// The tenants that the documents are about, or the one that was named.
fn tenants(preview: &Preview, named: &str) -> Result<BTreeSet<Name>, Status> {
    if !named.is_empty() {
        let name = Name::new(named).map_err(|e| invalid("PV-CLI-TENANT", e, "name a tenant"))?;
        return Ok([name].into());
    }
    let keys = preview.report.diffs.iter().map(|diff| &diff.key);
    let of = keys.filter_map(|key| match key.kind {
        Kind::Tenant => Some(key.name.clone()),
        _ => key.tenant.clone(),
    });
    Ok(of.collect())
}

/// One comparison under way.
struct Comparison {
    caller: Caller,
    asked: SimulateRequest,
    preview: Preview,
    tenants: BTreeSet<Name>,
    audit: AuditAccess,
    sender: mpsc::Sender<Result<SimulatePart, Status>>,
}

impl Comparison {
    async fn run(self) {
        if let Err(cause) = self.compare().await {
            // Nobody may be there any more.
            let _ = self.sender.send(Err(cause)).await;
        }
    }

    async fn compare(&self) -> Result<(), Status> {
        let begin = SimulateBegin {
            revision: self.preview.report.revision.0,
            changes: self.preview.report.diffs.iter().map(change).collect(),
            tenants: self.tenants.iter().map(ToString::to_string).collect(),
        };
        if !self.send(Part::Begin(begin)).await {
            return Ok(());
        }
        let mut left = self.asked.limit;
        let mut end = SimulateEnd::default();
        for tenant in &self.tenants {
            let states = States::of(tenant, &self.preview.current, &self.preview.candidate);
            let Some(objects) = self.walk(tenant, states.encode()?, &mut left, &mut end).await? else { return Ok(()) };
            let (tenant, mut so_far) = (tenant.clone(), std::mem::take(&mut end));
            let compared = tokio::task::spawn_blocking(move || {
                let (current, candidate) = states.snapshots();
                let judges = Judges::new(&current, &candidate)?;
                visibility::compare(&tenant, (&current, &candidate), &judges, &objects, now_ns(), &mut so_far);
                Ok::<_, Status>(so_far)
            });
            end = compared.await.map_err(|e| Status::internal(e.to_string()))??;
            if self.asked.limit > 0 && left == 0 {
                break;
            }
        }
        self.send(Part::End(end)).await;
        Ok(())
    }

    /// Page after page of one tenant's calls. What was called; `None`: nobody listens any more.
    async fn walk(
        &self,
        tenant: &Name,
        states: Vec<u8>,
        left: &mut u64,
        end: &mut SimulateEnd,
    ) -> Result<Option<BTreeSet<Object>>, Status> {
        let mut objects = BTreeSet::new();
        let mut request = SimulatePageRequest {
            tenant: tenant.to_string(),
            states,
            from: 0,
            since_ns: self.asked.since_ns,
            until_ns: self.asked.until_ns,
            principal: self.asked.principal.clone(),
            tool: self.asked.tool.clone(),
            limit: *left,
            each: self.asked.each,
        };
        loop {
            let answer = self.audit.ask(self.caller.clone(), Question::Simulate(request.clone())).await?;
            let mut page = SimulatePage::decode(answer.as_slice()).map_err(|e| Status::internal(e.to_string()))?;
            for seen in std::mem::take(&mut page.seen) {
                let Some(action) = action(&seen.action) else { continue };
                if objects.len() >= MAX_OBJECTS {
                    end.visibility_cut = true;
                    break;
                }
                objects.insert((action, Some(seen.plugin).filter(|p| !p.is_empty()), seen.target));
            }
            *left = left.saturating_sub(page.looked_at);
            let next = page.next.filter(|_| self.asked.limit == 0 || *left > 0);
            if !self.send(Part::Page(page)).await {
                return Ok(None);
            }
            match next {
                Some(next) => (request.from, request.limit) = (next, *left),
                None => return Ok(Some(objects)),
            }
        }
    }

    async fn send(&self, part: Part) -> bool {
        self.sender.send(Ok(SimulatePart { part: Some(part) })).await.is_ok()
    }
}

fn change(diff: &provost_control_api::ResourceDiff) -> ResourceChange {
    use provost_control_state::ChangeKind as Kind;
    let kind = match diff.kind {
        Kind::Created => ChangeKind::Created,
        Kind::Updated => ChangeKind::Updated,
        Kind::Deleted => ChangeKind::Deleted,
        Kind::Unchanged => ChangeKind::Unchanged,
    };
    let text = |value: &Option<serde_json::Value>| value.as_ref().map_or(String::new(), ToString::to_string);
    let fields = diff.fields.iter();
    let fields = fields.map(|f| FieldChange { field: f.field.clone(), old: text(&f.old), new: text(&f.new) });
    ResourceChange { resource: diff.key.to_string(), kind: kind.into(), fields: fields.collect() }
}
