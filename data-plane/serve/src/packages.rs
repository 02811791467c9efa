//! The way of packages of plugins from the control plane's nodes, over mutual TLS.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use provost_data_tools::{FetchFailed, MAX_PACKAGE_BYTES, PackagePort};
use provost_types::{BoxFuture, FileDigest, Name};
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
    fn fetch<'a>(&'a self, tenant: &'a Name, digest: FileDigest) -> BoxFuture<'a, Result<Bytes, FetchFailed>> {
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{
        pin::Pin,
        sync::{Arc, Mutex},
    };

    use futures::{Stream, stream};
    use provost_wire::packages::package_fetch_server::{PackageFetch, PackageFetchServer};
    use tokio::net::TcpListener;
    use tonic::{
        Request, Response,
        transport::{Endpoint, Server, server::TcpIncoming},
    };

    use super::*;

    const WHOLE: &[u8] = b"0123456789";
    const CHUNK: usize = 4;

    /// How many chunks a node sends before it stops in the middle, `None`: all; and from where it was asked.
    #[derive(Clone)]
    struct Scripted {
        stops_after: Option<usize>,
        total: u64,
        asked: Arc<Mutex<Vec<u64>>>,
    }

    #[tonic::async_trait]
    impl PackageFetch for Scripted {
        type FetchStream = Pin<Box<dyn Stream<Item = Result<PackageChunk, Status>> + Send>>;

        async fn fetch(&self, request: Request<FetchPackageRequest>) -> Result<Response<Self::FetchStream>, Status> {
            let from = request.into_inner().offset;
            self.asked.lock().unwrap().push(from);
            let rest = WHOLE[usize::try_from(from).unwrap()..].to_vec();
            let total = self.total;
            let chunk = |data: &[u8]| Ok(PackageChunk { data: Bytes::copy_from_slice(data), total });
            let sent = self.stops_after.unwrap_or(usize::MAX);
            let mut chunks: Vec<Result<PackageChunk, Status>> = rest.chunks(CHUNK).take(sent).map(chunk).collect();
            chunks.extend(self.stops_after.map(|_| Err(Status::unavailable("it went away"))));
            Ok(Response::new(Box::pin(stream::iter(chunks)) as Self::FetchStream))
        }
    }

    async fn serve(node: Scripted) -> Channel {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = PackageFetchServer::new(node);
        tokio::spawn(Server::builder().add_service(service).serve_with_incoming(TcpIncoming::from(listener)));
        Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy()
    }

    async fn fetch(nodes: &[Scripted]) -> Result<Bytes, FetchFailed> {
        let mut channels = Vec::new();
        for node in nodes {
            channels.push(serve(node.clone()).await);
        }
        let tenant = Name::new("acme").unwrap();
        GrpcPackages::new(channels).fetch(&tenant, FileDigest::from_bytes([1; 32])).await
    }

    fn scripted(stops_after: Option<usize>, total: u64) -> Scripted {
        Scripted { stops_after, total, asked: Arc::default() }
    }

    #[tokio::test]
    async fn what_one_node_has_sent_is_not_asked_of_the_next() {
        let nodes = [scripted(Some(1), 10), scripted(None, 10)];
        assert_eq!(fetch(&nodes).await.unwrap(), WHOLE);
        let asked = nodes.map(|node| node.asked.lock().unwrap().clone());
        assert_eq!(asked, [vec![0], vec![4]]);
    }

    #[tokio::test]
    async fn what_is_too_much_or_too_little_is_no_package() {
        let short = fetch(&[scripted(None, 11)]).await.unwrap_err();
        assert!(short.0.contains("too early"), "{short}");
        let much = fetch(&[scripted(None, 9)]).await.unwrap_err();
        assert!(much.0.contains("of 9"), "{much}");
        let vast = fetch(&[scripted(None, MAX_PACKAGE_BYTES + 1)]).await.unwrap_err();
        assert!(vast.0.contains("at most"), "{vast}");
        assert_eq!(fetch(&[]).await.unwrap_err().0, "no control-plane node is known");
    }
}
