//! The gRPC forms: of administrators, who were authenticated before, and of nodes, over mutual TLS.

use std::{pin::Pin, sync::Arc};

use bytes::BytesMut;
use futures::{Stream, StreamExt};
use provost_control_state::PackageKey;
use provost_package::MAX_PACKAGE_BYTES;
use provost_types::{FileDigest, Name, Revision};
use provost_wire::packages::{self as wire, package_fetch_server::PackageFetch, packages_server::Packages};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status, Streaming};

use super::{InstallPlugin, check_scope, progress::plugin_progress};
use crate::{Caller, ControlError, ControlNode, ErrorKind, Scope, Subscribers, service::caller};

/// Packages that are received at a time: each is in memory until it is checked.
const MAX_RECEIVED: usize = 2;
/// Packages that are sent at a time; a node that is refused asks another, or again.
const MAX_SENT: usize = 16;

/// Beside the admin service.
pub(crate) struct PackagesService {
    node: ControlNode,
    nodes: Arc<dyn Subscribers>,
    receiving: Semaphore,
}

impl PackagesService {
    pub(crate) fn new(node: ControlNode, nodes: Arc<dyn Subscribers>) -> Self {
        Self { node, nodes, receiving: Semaphore::new(MAX_RECEIVED) }
    }
}

fn invalid(cause: impl ToString) -> ControlError {
    ControlError::new(ErrorKind::Invalid, "PV-ADMIN-REQUEST", cause.to_string(), "")
}

fn name(text: &str) -> Result<Name, ControlError> {
    Name::new(text).map_err(invalid)
}

fn digest(text: &str) -> Result<FileDigest, ControlError> {
    text.parse().map_err(invalid)
}

/// The tenant that is named, else the caller's own.
fn tenant_of(caller: &Caller, text: &str) -> Result<Name, ControlError> {
    match &caller.scope {
        Scope::Tenant(own) if text.is_empty() => Ok(own.clone()),
        Scope::Cluster if text.is_empty() => Err(invalid("which tenant?")),
        _ => name(text),
    }
}

fn config(text: &str) -> Result<Option<serde_json::Map<String, serde_json::Value>>, ControlError> {
    let parse = |text: &str| serde_json::from_str(text).map_err(|cause| invalid(format!("the configuration: {cause}")));
    if text.is_empty() { Ok(None) } else { parse(text).map(Some) }
}

#[tonic::async_trait]
impl Packages for PackagesService {
    async fn put(
        &self,
        request: Request<Streaming<wire::PutPackageRequest>>,
    ) -> Result<Response<wire::PackageView>, Status> {
        let caller = caller(&request)?;
        let _place = self.receiving.acquire().await.map_err(ControlError::internal)?;
        let mut messages = request.into_inner();
        let (mut tenant, mut bytes) = (None, BytesMut::new());
        while let Some(wire::PutPackageRequest { tenant: named, chunk }) = messages.message().await? {
            if tenant.is_none() {
                let named = tenant_of(&caller, &named)?;
                // Before anything of it is taken into memory.
                check_scope(&caller, &named)?;
                tenant = Some(named);
            }
            if (bytes.len() + chunk.len()) as u64 > MAX_PACKAGE_BYTES {
                let text = format!("a package has at most {MAX_PACKAGE_BYTES} bytes");
                let error = ControlError::new(ErrorKind::Invalid, "PV-PACKAGE-SIZE", text, "");
                return Err(match &tenant {
                    Some(tenant) => self.node.refuse_package(&caller, tenant, error).await.into(),
                    None => error.into(),
                });
            }
            bytes.extend_from_slice(&chunk);
        }
        let tenant = tenant.ok_or_else(|| invalid("no package was sent"))?;
        Ok(Response::new(self.node.package_put(&caller, &tenant, bytes.freeze()).await?))
    }

    async fn list(
        &self,
        request: Request<wire::ListPackagesRequest>,
    ) -> Result<Response<wire::ListPackagesResponse>, Status> {
        let caller = caller(&request)?;
        let wire::ListPackagesRequest { tenant } = request.into_inner();
        let tenant = if tenant.is_empty() { None } else { Some(name(&tenant)?) };
        let packages = self.node.packages(&caller, tenant.as_ref()).await?;
        Ok(Response::new(wire::ListPackagesResponse { packages }))
    }

    async fn remove(
        &self,
        request: Request<wire::RemovePackageRequest>,
    ) -> Result<Response<wire::RemovePackageResponse>, Status> {
        let caller = caller(&request)?;
        let wire::RemovePackageRequest { tenant, digest: text } = request.into_inner();
        let key = PackageKey { tenant: tenant_of(&caller, &tenant)?, digest: digest(&text)? };
        self.node.package_remove(&caller, key).await?;
        Ok(Response::new(wire::RemovePackageResponse {}))
    }

    async fn install(
        &self,
        request: Request<wire::InstallPluginRequest>,
    ) -> Result<Response<wire::InstalledPluginResponse>, Status> {
        let caller = caller(&request)?;
        let wire::InstallPluginRequest { tenant, name: plugin, digest: package, config: given, reason } =
            request.into_inner();
        let wanted = InstallPlugin {
            tenant: tenant_of(&caller, &tenant)?,
            name: name(&plugin)?,
            package: digest(&package)?,
            config: config(&given)?,
            reason,
        };
        Ok(Response::new(self.node.plugin_install(&caller, wanted).await?))
    }

    async fn rollback(
        &self,
        request: Request<wire::GovernPluginRequest>,
    ) -> Result<Response<wire::InstalledPluginResponse>, Status> {
        let caller = caller(&request)?;
        let wire::GovernPluginRequest { tenant, name: plugin, reason } = request.into_inner();
        let (tenant, plugin) = (tenant_of(&caller, &tenant)?, name(&plugin)?);
        Ok(Response::new(self.node.plugin_rollback(&caller, (&tenant, &plugin), &reason).await?))
    }

    async fn reload(
        &self,
        request: Request<wire::GovernPluginRequest>,
    ) -> Result<Response<wire::InstalledPluginResponse>, Status> {
        let caller = caller(&request)?;
        let wire::GovernPluginRequest { tenant, name: plugin, reason } = request.into_inner();
        let (tenant, plugin) = (tenant_of(&caller, &tenant)?, name(&plugin)?);
        Ok(Response::new(self.node.plugin_reload(&caller, (&tenant, &plugin), &reason).await?))
    }

    async fn progress(
        &self,
        request: Request<wire::PluginProgressRequest>,
    ) -> Result<Response<wire::PluginProgressResponse>, Status> {
        let caller = caller(&request)?;
        let wire::PluginProgressRequest { tenant, name: plugin, revision } = request.into_inner();
        let (tenant, plugin) = (tenant_of(&caller, &tenant)?, name(&plugin)?);
        let nodes = plugin_progress(&caller, &*self.nodes, (&tenant, &plugin), Revision(revision)).await?;
        Ok(Response::new(wire::PluginProgressResponse { nodes }))
    }
}

/// For nodes with a certificate; who may ask was checked before.
pub(crate) struct FetchService {
    node: ControlNode,
    sending: Arc<Semaphore>,
}

impl FetchService {
    pub(crate) fn new(node: ControlNode) -> Self {
        Self { node, sending: Arc::new(Semaphore::new(MAX_SENT)) }
    }
}

#[tonic::async_trait]
impl PackageFetch for FetchService {
    type FetchStream = Pin<Box<dyn Stream<Item = Result<wire::PackageChunk, Status>> + Send>>;

    async fn fetch(&self, request: Request<wire::FetchPackageRequest>) -> Result<Response<Self::FetchStream>, Status> {
        let wire::FetchPackageRequest { tenant, digest: text, offset } = request.into_inner();
        let place = self.sending.clone().try_acquire_owned().map_err(|_| {
            let text = format!("{MAX_SENT} packages are being sent already");
            ControlError::new(ErrorKind::Unavailable, "PV-PACKAGE-BUSY", text, "")
        })?;
        let (total, parts) = self.node.package_parts(&name(&tenant)?, digest(&text)?, offset)?;
        let chunks = parts.map(move |part| {
            // Held as long as there is something to send.
            let _place = &place;
            part.map(|data| wire::PackageChunk { data, total }).map_err(Status::from)
        });
        Ok(Response::new(Box::pin(chunks) as Self::FetchStream))
    }
}
