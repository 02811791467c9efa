//! A node's side of joining.

use std::{sync::Arc, time::Duration};

use provost_types::Name;
use provost_wire::{
    admin::Failure,
    node::{JoinRequest, JoinResponse, join_client::JoinClient},
    tls::{
        Certified, Expect, Identity, Material, NodeName, Role, Roles, TlsError, certificate_hash, certificates,
        channel, join_channel,
    },
    wire_version,
};
use secrecy::ExposeSecret;
use tonic::{Code, transport::Channel};

use super::{IdentityError, JoinSecret, KeyRequest};

/// How often the same key shows the same token when no answer comes.
const ATTEMPTS: u32 = 5;
/// The pause between them.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest wait for one answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// A node that was taken in. Store the material before anything else: without it the node is lost.
#[derive(Debug)]
pub struct Joined {
    /// Certificate, key and bundle.
    pub material: Material,
    /// What the certificate says.
    pub certified: Certified,
    /// The node's number.
    pub node_id: u64,
    /// The node's name.
    pub name: Name,
    /// The whole answer: among others, the control-plane nodes.
    pub response: JoinResponse,
}

/// Joins by way of a control-plane node at `address` (`host:port`). `own_address` is where peers
/// reach this node; empty: nowhere. It becomes whom the token names.
pub async fn join(address: &str, token: &str, own_address: &str) -> Result<Joined, IdentityError> {
    join_as(address, token, own_address, ("", "")).await
}

/// The same for a node that knows who it is: its name, and its roles separated by commas. A token for another one is
/// refused, and not used up.
pub async fn join_as(
    address: &str,
    token: &str,
    own_address: &str,
    (node, roles): (&str, &str),
) -> Result<Joined, IdentityError> {
    let secret = JoinSecret::parse(token)?;
    if secret.is_by_operator() {
        return Err(IdentityError::Token("its cluster has no CA: set tls.dir to certificates of your own"));
    }
    let key = KeyRequest::make()?;
    let request = JoinRequest {
        token: secret.text().expose_secret().to_owned(),
        csr: key.request.clone().into(),
        address: own_address.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        wire_version: wire_version(),
        node: node.to_owned(),
        roles: roles.to_owned(),
    };
    let response = ask(request, address, Trusted::Ca(secret.ca_hash())).await?;
    let material =
        Material { certificate: response.certificate.clone(), key: key.key, bundle: response.bundle.clone() };
    let (certified, name) = check(&secret, &response, &material)?;
    Ok(Joined { material, certified, node_id: response.node_id, name, response })
}

/// Joins as a node that its operator certified. Gives the node's number: store it before anything
/// else, without it the node is lost. The key that is sent certifies nothing: it lets the token be
/// shown again after a lost answer, and not by a later node on an empty disk.
pub async fn join_certified(
    address: &str,
    token: &str,
    own_address: &str,
    identity: &Arc<Identity>,
) -> Result<u64, IdentityError> {
    let secret = JoinSecret::parse(token)?;
    if !secret.is_by_operator() {
        return Err(IdentityError::Token("its cluster has a CA of its own: leave out tls.dir"));
    }
    let request = JoinRequest {
        token: secret.text().expose_secret().to_owned(),
        csr: KeyRequest::make()?.request.into(),
        address: own_address.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        wire_version: wire_version(),
        // The certificate says them.
        node: String::new(),
        roles: String::new(),
    };
    let response = ask(request, address, Trusted::Bundle(identity)).await?;
    if response.node_id == 0 || response.node != identity.name().id() {
        let text = format!("it is for node {} ({}), not {}", response.node, response.node_id, identity.name());
        return Err(IdentityError::Answer(text));
    }
    Ok(response.node_id)
}

/// How the node that joins knows the control plane.
enum Trusted<'a> {
    /// By the CA that the token names; it has no certificate itself.
    Ca([u8; 32]),
    /// By its operator's authorities; it shows its certificate.
    Bundle(&'a Arc<Identity>),
}

impl Trusted<'_> {
    async fn connect(&self, address: &str) -> Result<Channel, TlsError> {
        match self {
            Self::Ca(hash) => join_channel(address, *hash).await,
            Self::Bundle(identity) => channel(Arc::clone(identity), address, Expect::role(Role::ControlPlane)),
        }
    }
}

async fn ask(request: JoinRequest, address: &str, trusted: Trusted<'_>) -> Result<JoinResponse, IdentityError> {
    let mut attempt = 1;
    loop {
        let channel = trusted.connect(address).await?;
        let mut call = tonic::Request::new(request.clone());
        call.set_timeout(ANSWER_LIMIT);
        match JoinClient::new(channel).join(call).await {
            Ok(response) => return Ok(response.into_inner()),
            // The token may have been used all the same: only this key can use it again.
            Err(status)
                if attempt < ATTEMPTS
                    && matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled) =>
            {
                let error = Failure::of(&status);
                tracing::info!(%address, code = error.code, %error, attempt, "not joined yet; asking again");
                attempt += 1;
                tokio::time::sleep(PAUSE).await;
            }
            Err(status) => return Err(IdentityError::Refused(Failure::of(&status))),
        }
    }
}

/// The answer must fit together and come from the CA of the token.
fn check(
    secret: &JoinSecret,
    response: &JoinResponse,
    material: &Material,
) -> Result<(Certified, Name), IdentityError> {
    let answer = |cause: &str| IdentityError::Answer(cause.to_owned());
    let certified = Identity::new(material)?.certified();
    let bundle = certificates("the bundle", &response.bundle)?;
    if !bundle.iter().any(|ca| certificate_hash(ca) == secret.ca_hash()) {
        return Err(answer("the bundle has not the CA that the token names"));
    }
    let name = Name::new(&response.node).map_err(|e| IdentityError::Answer(e.to_string()))?;
    let cluster = Name::new(&response.cluster).map_err(|e| IdentityError::Answer(e.to_string()))?;
    let roles: Roles = response.role.parse().map_err(|_| answer("it gives roles that this build does not know"))?;
    let expected = NodeName::of_member(cluster, roles, response.node_id, name.clone())
        .map_err(|e| IdentityError::Answer(e.to_string()))?;
    if certified.name != expected {
        return Err(IdentityError::Answer(format!("its certificate is for {}, not {expected}", certified.name)));
    }
    Ok((certified, name))
}
