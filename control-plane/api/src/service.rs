//! The gRPC form of the node's operations. Every call is authenticated by an interceptor before
//! it reaches a method, and a method without a caller refuses.

use std::{net::SocketAddr, pin::Pin, time::Duration};

use futures::{Stream, StreamExt};
use provost_control_state::ChangeKind;
use provost_types::{Kind, Name, ResourceKey};
use provost_wire::{admin as wire, admin::admin_server::Admin, admin::admin_server::AdminServer, convert};
use secrecy::ExposeSecret;
use tokio::{net::TcpListener, sync::watch};
use tokio_stream::wrappers::{TcpListenerStream, WatchStream};
use tonic::{
    Request, Response, Status,
    transport::{Server, server::TcpConnectInfo},
};

use crate::{
    AdminToken, Caller, ChangeReport, ControlError, ControlNode, ErrorKind, ResourceDiff, ResourceFilter, Scope,
    SourceFile, diff_text, document_json, document_yaml, explain, schema, summary,
};

/// Bytes of one request.
const MAX_REQUEST_BYTES: usize = 16 << 20;
/// Requests at once on one connection.
const MAX_STREAMS: u32 = 64;
/// Pings find connections that are gone.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// The longest time for one unary call.
const CALL_LIMIT: Duration = Duration::from_secs(60);

impl ControlNode {
    /// Serves the admin API until `stop` resolves; calls under way are finished first.
    pub async fn serve(
        &self,
        listener: TcpListener,
        admins: Vec<AdminToken>,
        stop: impl Future<Output = ()>,
    ) -> Result<(), ControlError> {
        let authenticator = self.authenticator(admins);
        let authenticate = move |mut request: Request<()>| {
            let header = request.metadata().get("authorization").and_then(|v| v.to_str().ok());
            let caller = authenticator.authenticate(header, peer(&request))?;
            request.extensions_mut().insert(caller);
            Ok::<_, Status>(request)
        };
        let (stopping, stopped) = watch::channel(());
        let service =
            AdminServer::new(Service { node: self.clone(), stopped }).max_decoding_message_size(MAX_REQUEST_BYTES);
        let service = tonic::service::interceptor::InterceptedService::new(service, authenticate);
        Server::builder()
            .timeout(CALL_LIMIT)
            .max_concurrent_streams(MAX_STREAMS)
            .http2_keepalive_interval(Some(KEEPALIVE))
            .add_service(service)
            .serve_with_incoming_shutdown(TcpListenerStream::new(listener), async move {
                stop.await;
                // Open streams would hold the connections for ever.
                drop(stopping);
            })
            .await
            .map_err(ControlError::internal)
    }
}

fn peer(request: &Request<()>) -> Option<SocketAddr> {
    request.extensions().get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr)
}

struct Service {
    node: ControlNode,
    /// Closes when the server stops.
    stopped: watch::Receiver<()>,
}

type Answer<T> = Result<Response<T>, Status>;

fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    request.extensions().get::<Caller>().cloned().ok_or_else(|| {
        let text = "the request was not authenticated";
        ControlError::new(ErrorKind::Unauthenticated, "PV-ADMIN-NO-TOKEN", text, "").into()
    })
}

fn invalid(error: impl std::fmt::Display) -> ControlError {
    ControlError::new(ErrorKind::Invalid, "PV-ADMIN-REQUEST", error.to_string(), "")
}

fn name(text: &str) -> Result<Name, ControlError> {
    Name::new(text).map_err(invalid)
}

fn optional_name(text: &str) -> Result<Option<Name>, ControlError> {
    if text.is_empty() { Ok(None) } else { name(text).map(Some) }
}

/// A tenant's administrator need not name the tenant.
fn tenant(caller: &Caller, text: &str) -> Result<Name, ControlError> {
    match (&caller.scope, text) {
        (Scope::Tenant(own), "") => Ok(own.clone()),
        (Scope::Cluster, "") => Err(invalid("which tenant? name it with `--tenant`")),
        (_, text) => name(text),
    }
}

fn files(documents: Vec<wire::Document>) -> Vec<SourceFile> {
    documents.into_iter().map(|d| SourceFile { path: d.path, text: d.text }).collect()
}

fn change_kind(kind: ChangeKind) -> i32 {
    let kind = match kind {
        ChangeKind::Created => wire::ChangeKind::Created,
        ChangeKind::Updated => wire::ChangeKind::Updated,
        ChangeKind::Deleted => wire::ChangeKind::Deleted,
        ChangeKind::Unchanged => wire::ChangeKind::Unchanged,
    };
    kind.into()
}

fn resource_change(diff: &ResourceDiff) -> wire::ResourceChange {
    let text = |v: &Option<serde_json::Value>| v.as_ref().map_or(String::new(), |v| v.to_string());
    wire::ResourceChange {
        resource: diff.key.to_string(),
        kind: change_kind(diff.kind),
        fields: diff
            .fields
            .iter()
            .map(|f| wire::FieldChange { field: f.field.clone(), old: text(&f.old), new: text(&f.new) })
            .collect(),
    }
}

fn report(report: ChangeReport) -> Response<wire::ApplyResponse> {
    Response::new(wire::ApplyResponse {
        revision: report.revision.0,
        changes: report.diffs.iter().map(resource_change).collect(),
        dry_run: report.dry_run,
    })
}

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
        let kind = if wanted.kind.is_empty() { None } else { Some(wanted.kind.parse::<Kind>().map_err(invalid)?) };
        let filter =
            ResourceFilter { kind, tenant: optional_name(&wanted.tenant)?, name: optional_name(&wanted.name)? };
        let (revision, found) = self.node.get(&caller, &filter).await?;
        let view = |r: &std::sync::Arc<provost_types::Resource>| wire::ResourceView {
            kind: r.spec.kind().to_string(),
            tenant: r.metadata.tenant.as_ref().map_or(String::new(), |t| t.to_string()),
            name: r.metadata.name.to_string(),
            json: document_json(r).to_string(),
            yaml: document_yaml(r),
            summary: summary(r),
            created: r.created.0,
            modified: r.modified.0,
        };
        let resources = found.iter().map(view).collect();
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
            Some(convert::resource_key(&wanted.resource).map_err(invalid)?)
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
        let to = provost_types::Revision(to);
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

    type WatchRevisionStream = Pin<Box<dyn Stream<Item = Result<wire::WatchRevisionResponse, Status>> + Send>>;

    async fn watch_revision(&self, request: Request<wire::WatchRevisionRequest>) -> Answer<Self::WatchRevisionStream> {
        caller(&request)?;
        let mut stopped = self.stopped.clone();
        let revisions = WatchStream::new(self.node.snapshots())
            .map(|s| Ok(wire::WatchRevisionResponse { revision: s.revision.0 }))
            .take_until(async move { while stopped.changed().await.is_ok() {} });
        Ok(Response::new(Box::pin(revisions)))
    }
}
