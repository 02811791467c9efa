//! The way of packages of plugins from the control plane's nodes, over mutual TLS.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use provost_data_tools::{FetchFailed, MAX_PACKAGE_BYTES, PackagePort};
use provost_types::{BoxFuture, Name, PackageDigest};
use provost_wire::packages::{FetchPackageRequest, PackageChunk, package_fetch_client::PackageFetchClient};
use tonic::{Status, transport::Channel};

/// One node gets so long to send what it is asked for.
const SEND_LIMIT: Duration = Duration::from_secs(60);
/// How often each node is asked.
const ROUNDS: usize = 2;

/// Over channels to the control-plane nodes, in turn. What one has sent is not asked for again.
pub struct GrpcPackages {
    nodes: Vec<PackageFetchClient<Channel>>,
}

impl GrpcPackages {
    /// Over channels that reconnect by themselves.
    pub fn new(channels: impl IntoIterator<Item = Channel>) -> Self {
        Self { nodes: channels.into_iter().map(PackageFetchClient::new).collect() }
    }
}

impl PackagePort for GrpcPackages {
    fn fetch<'a>(&'a self, tenant: &'a Name, digest: PackageDigest) -> BoxFuture<'a, Result<Bytes, FetchFailed>> {
        Box::pin(async move {
            let mut got = BytesMut::new();
            let mut last = FetchFailed("no control-plane node is known".to_owned());
            for node in self.nodes.iter().cycle().take(ROUNDS * self.nodes.len()) {
                let (tenant, digest) = (tenant.to_string(), digest.to_string());
                let request = FetchPackageRequest { tenant, digest, offset: got.len() as u64 };
                match tokio::time::timeout(SEND_LIMIT, rest(node.clone(), request, &mut got)).await {
                    Ok(Ok(())) => return Ok(got.freeze()),
                    Ok(Err(cause)) => last = cause,
                    Err(_) => last = FetchFailed(format!("it did not end within {SEND_LIMIT:?}")),
                }
            }
            Err(last)
        })
    }
}

/// What is missing of a package, from one node.
async fn rest(
    mut node: PackageFetchClient<Channel>,
    request: FetchPackageRequest,
    got: &mut BytesMut,
) -> Result<(), FetchFailed> {
    let failed = |status: Status| FetchFailed(format!("{:?}: {}", status.code(), status.message()));
    let mut chunks = node.fetch(request).await.map_err(failed)?.into_inner();
    while let Some(PackageChunk { data, total }) = chunks.message().await.map_err(failed)? {
        let sum = (got.len() + data.len()) as u64;
        if total > MAX_PACKAGE_BYTES || sum > total {
            // Nothing of it can be right: the next node begins anew.
            got.clear();
            return Err(FetchFailed(format!("{sum} bytes of {total}; a package has at most {MAX_PACKAGE_BYTES}")));
        }
        got.extend_from_slice(&data);
        if sum == total {
            return Ok(());
        }
    }
    Err(FetchFailed("it ended too early".to_owned()))
}
