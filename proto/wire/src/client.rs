//! A client of the admin service that carries its token.

use std::{fmt, time::Duration};

use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

use crate::{
    AdminClient,
    admin::{Failure, audit_admin_client::AuditAdminClient, policy_admin_client::PolicyAdminClient},
    governance::governance_client::GovernanceClient,
    models::models_client::ModelsClient,
    packages::packages_client::PackagesClient,
};

/// The longest wait for a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Probes find a server that is gone while a watch is quiet.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// Bytes of one answer.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// Bytes of an error with its problems: they travel as trailers, which HTTP/2 keeps small by default.
const MAX_FAILURE_BYTES: u32 = 4 << 20;

/// A connected client that sends its token with every call.
pub type AdminConnection = AdminClient<InterceptedService<Channel, BearerToken>>;

/// Adds `authorization: Bearer …` to each call. Never printed.
#[derive(Clone)]
pub struct BearerToken(MetadataValue<Ascii>);

impl fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BearerToken")
    }
}

impl BearerToken {
    /// A token as it was handed out.
    pub fn new(token: &str) -> Result<Self, Failure> {
        let mut value: MetadataValue<Ascii> = format!("Bearer {token}").parse().map_err(|_| {
            let hint = "a token is one word, as `provost token create` prints it";
            Failure::new("PV-ADMIN-BAD-TOKEN", "the token has characters that none has", hint)
        })?;
        value.set_sensitive(true);
        Ok(Self(value))
    }
}

impl Interceptor for BearerToken {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// Connects to a node's admin address (`host:port`) with a token, without TLS.
pub async fn connect_admin(address: &str, token: &str) -> Result<AdminConnection, Failure> {
    let token = BearerToken::new(token)?;
    Ok(admin_over(connect_plain(address).await?, token))
}

/// A connection to a node's admin address, without TLS.
pub async fn connect_plain(address: &str) -> Result<Channel, Failure> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|e| {
        let hint = "write it as host:port";
        Failure::new("PV-ADMIN-ADDRESS", format!("`{address}` is not an address: {e}"), hint)
    })?;
    let endpoint = endpoint
        .connect_timeout(CONNECT_LIMIT)
        .http2_max_header_list_size(MAX_FAILURE_BYTES)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL);
    endpoint.connect().await.map_err(|_| {
        let hint = "is `provost dev` or the server running, and is the address right?";
        Failure::new("PV-ADMIN-UNREACHABLE", format!("no control plane answers at {address}"), hint)
    })
}

/// A connected client of the audit log's part of the admin service.
pub type AuditConnection = AuditAdminClient<InterceptedService<Channel, BearerToken>>;

/// The audit log's part, over a connection that was made elsewhere.
pub fn audit_over(channel: Channel, token: BearerToken) -> AuditConnection {
    AuditAdminClient::with_interceptor(channel, token).max_decoding_message_size(MAX_ANSWER_BYTES)
}

/// A connected client of what governs calls.
pub type GovernanceConnection = GovernanceClient<InterceptedService<Channel, BearerToken>>;

/// What governs calls, over a connection that was made elsewhere.
pub fn governance_over(channel: Channel, token: BearerToken) -> GovernanceConnection {
    GovernanceClient::with_interceptor(channel, token).max_decoding_message_size(MAX_ANSWER_BYTES)
}

/// A connected client of what is said of models.
pub type ModelsConnection = ModelsClient<InterceptedService<Channel, BearerToken>>;

/// What is said of models, over a connection that was made elsewhere.
pub fn models_over(channel: Channel, token: BearerToken) -> ModelsConnection {
    ModelsClient::with_interceptor(channel, token).max_decoding_message_size(MAX_ANSWER_BYTES)
}

/// A connected client of plugin packages.
pub type PackagesConnection = PackagesClient<InterceptedService<Channel, BearerToken>>;

/// Plugin packages, over a connection that was made elsewhere.
pub fn packages_over(channel: Channel, token: BearerToken) -> PackagesConnection {
    PackagesClient::with_interceptor(channel, token).max_decoding_message_size(MAX_ANSWER_BYTES)
}

/// A connected client of what answers questions about policy.
pub type PolicyConnection = PolicyAdminClient<InterceptedService<Channel, BearerToken>>;

/// What answers questions about policy, over a connection that was made elsewhere.
pub fn policy_over(channel: Channel, token: BearerToken) -> PolicyConnection {
    PolicyAdminClient::with_interceptor(channel, token).max_decoding_message_size(MAX_ANSWER_BYTES)
}

/// The client over a connection that was made elsewhere, such as one with TLS.
pub fn admin_over(channel: Channel, token: BearerToken) -> AdminConnection {
    AdminClient::with_interceptor(channel, token).max_decoding_message_size(MAX_ANSWER_BYTES)
}
