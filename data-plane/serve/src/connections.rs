//! The way of what users consented to: to a control plane in this process, or to any of its nodes.
//!
//! Left out: what connections are (`provost-data-tools`), and what is taken of them (the control plane).

use provost_data_tools::{ConnectionPort, Keep, KeepFailed};
use provost_types::{BoxFuture, Name, PrincipalRef};
use provost_wire::governance::{
    ConnectionMade, ConnectionRefreshed, KeepConnectionRequest, connections_client::ConnectionsClient,
    keep_connection_request::What,
};
use secrecy::{ExposeSecret, SecretString};
use tonic::transport::Channel;

/// What is asked of the control plane in the name of `node`.
pub fn keep_request(node: &str, principal: &PrincipalRef, plugin: &Name, keep: Keep) -> KeepConnectionRequest {
    let bytes = |tokens: &SecretString| tokens.expose_secret().as_bytes().to_vec();
    let mut note = String::new();
    let what = match keep {
        Keep::Made { authority, scope, began_ns, tokens } => {
            What::Made(ConnectionMade { authority, scope, began_ns, tokens: bytes(&tokens) })
        }
        Keep::Claimed(version) => What::Claimed(version),
        Keep::Refreshed { version, scope, tokens } => {
            What::Refreshed(ConnectionRefreshed { version, scope, tokens: bytes(&tokens) })
        }
        Keep::Released(version) => What::Released(version),
        Keep::Ended { version, note: why } => {
            note = why;
            What::Ended(version)
        }
    };
    KeepConnectionRequest {
        node: node.to_owned(),
        tenant: principal.tenant.to_string(),
        principal: principal.name.to_string(),
        plugin: plugin.to_string(),
        what: Some(what),
        note,
    }
}

/// Over channels to the control-plane nodes, in turn until one answers.
pub struct GrpcConnections {
    node: String,
    nodes: Vec<ConnectionsClient<Channel>>,
}

impl GrpcConnections {
    /// In the name of `node`, over channels that reconnect by themselves.
    pub fn new(node: impl Into<String>, channels: impl IntoIterator<Item = Channel>) -> Self {
        Self { node: node.into(), nodes: channels.into_iter().map(ConnectionsClient::new).collect() }
    }
}

impl ConnectionPort for GrpcConnections {
    fn keep<'a>(
        &'a self,
        principal: &'a PrincipalRef,
        plugin: &'a Name,
        keep: Keep,
    ) -> BoxFuture<'a, Result<bool, KeepFailed>> {
        let request = keep_request(&self.node, principal, plugin, keep);
        Box::pin(async move {
            let mut last = KeepFailed("no control-plane node is known".to_owned());
            for node in &self.nodes {
                match node.clone().keep(request.clone()).await {
                    Ok(kept) => return Ok(kept.into_inner().taken),
                    Err(status) => last = KeepFailed(format!("{:?}: {}", status.code(), status.message())),
                }
            }
            Err(last)
        })
    }
}
