//! The table of calls: each is authenticated, made into what the node understands, and answered.

use std::time::Duration;

use provost_types::{Kind, ResourceKey, Revision};
use provost_wire::{admin as wire, admin::admin_server::Admin, convert as keys};
use secrecy::ExposeSecret;
use tonic::{Request, Response, Status};

use super::{
    Service, caller,
    convert::{self, files, invalid, name, report, resource_change, tenant},
    streams::Answers,
};
use crate::{diff_text, explain, schema};

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Admin for Service {
    async fn apply(&self, request: Request<wire::ApplyRequest>) -> Answer<wire::ApplyResponse> {
        let caller = caller(&request)?;
        let wire::ApplyRequest { documents, dry_run, message } = request.into_inner();
        Ok(report(self.node.apply(&caller, &files(documents), &message, dry_run).await?))
    }

    async fn diff(&self, request: Request<wire::DiffRequest>) -> Answer<wire::DiffResponse> {
        let caller = caller(&request)?;
        let report = self.node.diff(&caller, &files(request.into_inner().documents)).await?;
        Ok(Response::new(wire::DiffResponse {
            revision: report.revision.0,
            changes: report.diffs.iter().map(resource_change).collect(),
            text: diff_text(&report.diffs),
        }))
    }

    async fn get(&self, request: Request<wire::GetRequest>) -> Answer<wire::GetResponse> {
        let caller = caller(&request)?;
        let wanted = request.into_inner();
        let filter = convert::filter(&wanted.kind, &wanted.tenant, &wanted.name)?;
        let (revision, found) = self.node.get(&caller, &filter).await?;
        let resources = found.iter().map(|r| convert::view(r)).collect();
        Ok(Response::new(wire::GetResponse { revision: revision.0, resources }))
    }

    async fn delete(&self, request: Request<wire::DeleteRequest>) -> Answer<wire::ApplyResponse> {
        let caller = caller(&request)?;
        let wanted = request.into_inner();
        let kind: Kind = wanted.kind.parse().map_err(invalid)?;
        let tenant = if kind.is_tenanted() { Some(tenant(&caller, &wanted.tenant)?) } else { None };
        let key = ResourceKey { kind, tenant, name: name(&wanted.name)? };
        let done = self.node.delete(&caller, &[key], &wanted.message, wanted.dry_run).await?;
        Ok(report(done))
    }

    async fn history(&self, request: Request<wire::HistoryRequest>) -> Answer<wire::HistoryResponse> {
        let caller = caller(&request)?;
        let wanted = request.into_inner();
        let key = if wanted.resource.is_empty() {
            None
        } else {
            Some(keys::resource_key(&wanted.resource).map_err(invalid)?)
        };
        let limit = usize::try_from(wanted.limit).unwrap_or(usize::MAX);
        let (items, oldest) = self.node.history(&caller, key.as_ref(), limit).await?;
        let entries = items.into_iter().map(|item| wire::HistoryEntry {
            revision: item.entry.revision.0,
            event: item.entry.event.as_str().to_owned(),
            time_ns: item.entry.time_ns,
            author: item.entry.author,
            message: item.entry.message,
            changes: item.diffs.iter().map(resource_change).collect(),
        });
        let entries = entries.collect();
        Ok(Response::new(wire::HistoryResponse { entries, oldest: oldest.0 }))
    }

    async fn rollback(&self, request: Request<wire::RollbackRequest>) -> Answer<wire::ApplyResponse> {
        let caller = caller(&request)?;
        let wire::RollbackRequest { to, message, dry_run } = request.into_inner();
        let to = Revision(to);
        Ok(report(self.node.rollback(&caller, to, &message, dry_run).await?))
    }

    async fn explain(&self, request: Request<wire::ExplainRequest>) -> Answer<wire::ExplainResponse> {
        caller(&request)?;
        let explained = explain(&request.into_inner().path)?;
        let fields = explained.fields.into_iter().map(|f| wire::ExplainField {
            path: f.path,
            r#type: f.type_name,
            required: f.required,
            doc: f.doc,
        });
        Ok(Response::new(wire::ExplainResponse {
            kind: explained.kind.to_string(),
            doc: explained.doc,
            fields: fields.collect(),
        }))
    }

    async fn schema(&self, request: Request<wire::SchemaRequest>) -> Answer<wire::SchemaResponse> {
        caller(&request)?;
        Ok(Response::new(wire::SchemaResponse { json: schema().to_string() }))
    }

    async fn secret_set(&self, request: Request<wire::SecretSetRequest>) -> Answer<wire::ApplyResponse> {
        let caller = caller(&request)?;
        let wanted = request.into_inner();
        let value = zeroize::Zeroizing::new(wanted.value);
        let tenant = tenant(&caller, &wanted.tenant)?;
        let name = name(&wanted.name)?;
        Ok(report(self.node.secret_set(&caller, &tenant, &name, &value, &wanted.message).await?))
    }

    async fn token_create(&self, request: Request<wire::TokenCreateRequest>) -> Answer<wire::TokenCreateResponse> {
        let caller = caller(&request)?;
        let wanted = request.into_inner();
        let tenant = tenant(&caller, &wanted.tenant)?;
        let principal = name(&wanted.principal)?;
        let ttl = (wanted.ttl_seconds > 0).then(|| Duration::from_secs(wanted.ttl_seconds));
        let made = self.node.token_create(&caller, &tenant, &principal, ttl, &wanted.message).await?;
        Ok(Response::new(wire::TokenCreateResponse {
            token: made.token.expose_secret().to_owned(),
            key: made.key.name.to_string(),
            expires: made.expires.unwrap_or_default(),
            revision: made.revision.0,
        }))
    }

    async fn status(&self, request: Request<wire::StatusRequest>) -> Answer<wire::StatusResponse> {
        caller(&request)?;
        let status = self.node.status();
        Ok(Response::new(wire::StatusResponse {
            cluster: status.cluster,
            node: status.node,
            node_id: status.group.node_id,
            role: format!("{:?}", status.group.role).to_lowercase(),
            leader_id: status.group.leader.unwrap_or(0),
            term: status.group.term,
            revision: status.revision.0,
            last_log: status.group.last_log.unwrap_or(0),
            applied: status.group.applied.unwrap_or(0),
            voters: status.group.voters.into_iter().collect(),
            learners: status.group.learners.into_iter().collect(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }))
    }

    type WatchRevisionStream = Answers<wire::WatchRevisionResponse>;

    async fn watch_revision(&self, request: Request<wire::WatchRevisionRequest>) -> Answer<Self::WatchRevisionStream> {
        caller(&request)?;
        Ok(Response::new(self.revisions()))
    }

    type WatchStream = Answers<wire::WatchResponse>;

    async fn watch(&self, request: Request<wire::WatchRequest>) -> Answer<Self::WatchStream> {
        let caller = caller(&request)?;
        Ok(Response::new(self.changes(&caller, request.into_inner()).await?))
    }

    async fn cluster_status(
        &self,
        request: Request<wire::ClusterStatusRequest>,
    ) -> Answer<wire::ClusterStatusResponse> {
        let caller = caller(&request)?;
        Ok(Response::new(self.cluster(&caller).await?))
    }

    async fn audit_checkpoints(
        &self,
        request: Request<wire::AuditCheckpointsRequest>,
    ) -> Answer<wire::AuditCheckpointsResponse> {
        let notes = self.node.audit_notes(&caller(&request)?).await?;
        Ok(Response::new(wire::AuditCheckpointsResponse { notes }))
    }

    async fn join_token(&self, request: Request<wire::JoinTokenRequest>) -> Answer<wire::JoinTokenResponse> {
        let caller = caller(&request)?;
        Ok(Response::new(self.token_to_join(&caller, request.into_inner()).await?))
    }

    async fn remove_node(&self, request: Request<wire::RemoveNodeRequest>) -> Answer<wire::MembershipResponse> {
        let caller = caller(&request)?;
        self.node.remove_node(&caller, &request.into_inner().node).await?;
        Ok(Response::new(self.membership()))
    }

    async fn promote_node(&self, request: Request<wire::PromoteNodeRequest>) -> Answer<wire::MembershipResponse> {
        let caller = caller(&request)?;
        self.node.promote_node(&caller, &request.into_inner().node).await?;
        Ok(Response::new(self.membership()))
    }

    async fn transfer_leader(&self, request: Request<wire::TransferLeaderRequest>) -> Answer<wire::MembershipResponse> {
        let caller = caller(&request)?;
        self.node.transfer_leader(&caller, &request.into_inner().node).await?;
        Ok(Response::new(self.membership()))
    }

    type BackupStream = Answers<wire::BackupPart>;

    async fn backup(&self, request: Request<wire::BackupRequest>) -> Answer<Self::BackupStream> {
        let caller = caller(&request)?;
        Ok(Response::new(self.backup_parts(&caller).await?))
    }

    async fn release(&self, request: Request<wire::ReleaseRequest>) -> Answer<wire::ReleaseResponse> {
        let revision = self.node.release_now(&caller(&request)?).await?;
        Ok(Response::new(wire::ReleaseResponse { revision: revision.0 }))
    }

    async fn rotate_keys(&self, request: Request<wire::RotateKeysRequest>) -> Answer<wire::RotateKeysResponse> {
        let caller = caller(&request)?;
        let done = self.node.rotate_keys(&caller).await?;
        Ok(Response::new(wire::RotateKeysResponse { term: done.term, sealed: done.sealed }))
    }

    async fn authorities(&self, request: Request<wire::AuthoritiesRequest>) -> Answer<wire::AuthoritiesResponse> {
        caller(&request)?;
        Ok(Response::new(self.authorities_of_cluster()?))
    }

    async fn rotate_ca(&self, request: Request<wire::RotateCaRequest>) -> Answer<wire::RotateCaResponse> {
        let caller = caller(&request)?;
        Ok(Response::new(self.change_ca(&caller, &request.into_inner().step).await?))
    }
}
