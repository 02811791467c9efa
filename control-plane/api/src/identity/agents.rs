//! Certificates by which agents know data-plane nodes, from the cluster's own CA.
//!
//! They are issued like those of nodes: to a member, for a key that it has proven, for as long, renewed at
//! two thirds. Names are those that [`super::AgentNames`] gives the node. Each renewal makes a new key, and
//! the new pair is durable before it is used: a node that starts while no control plane answers serves
//! agents with what it had.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use provost_types::Name;
use provost_wire::{
    admin::Failure,
    node::{CertifyAgentsRequest, identity_client::IdentityClient},
    tls::{Expect, HostName, Material, Role, TlsError, certificates, channel, validity_of},
};
use rustls::{
    client::verify_server_cert_signed_by_trust_anchor, crypto::aws_lc_rs::default_provider, pki_types::UnixTime,
    server::ParsedCertificate,
};

use super::{
    Certifier, IdentityError, Issued, KeyRequest, LocalRenewer, NodeKey, NodeRecord, NotMember, RemoteRenewer,
    renew::{ANSWER_LIMIT, jitter, renewal_in, until_retry},
    standing,
};
use crate::{ControlError, ErrorKind};

impl Certifier {
    /// A certificate for agents of this node, if its operator allows it these names.
    pub fn certify_agents(
        &self,
        node: &NodeRecord,
        key: &NodeKey,
        names: &[HostName],
        now: SystemTime,
    ) -> Result<Issued, ControlError> {
        if !node.roles.has(Role::DataPlane) {
            let text = format!("node {} serves no agents: it has not the role data-plane", node.name);
            return Err(ControlError::new(ErrorKind::Forbidden, "PV-TLS-ROLE", text, "ask as a data-plane node"));
        }
        self.agent_names().check(&node.name, names)?;
        let of: (&Name, u64) = (&node.name, node.node_id);
        let certificate = self.signing()?.issue_for_agents(key, of, names, self.life(), now)?;
        let bundle = self.registry().cluster().bundle();
        Ok(Issued { certificate, bundle, control_plane: BTreeMap::new() })
    }
}

/// Gets such a certificate for a key.
#[tonic::async_trait]
pub trait CertifyAgents: Send + Sync {
    /// `request` is PKCS #10, DER.
    async fn certify_agents(&self, request: Vec<u8>, names: &[HostName]) -> Result<Issued, IdentityError>;
}

#[tonic::async_trait]
impl CertifyAgents for RemoteRenewer {
    async fn certify_agents(&self, request: Vec<u8>, names: &[HostName]) -> Result<Issued, IdentityError> {
        let address = self.addresses().front().cloned().unwrap_or_default();
        let asked = async {
            let channel = channel(self.identity.clone(), &address, Expect::role(Role::ControlPlane))?;
            let names = names.iter().map(ToString::to_string).collect();
            let mut call = tonic::Request::new(CertifyAgentsRequest { csr: request.into(), names });
            call.set_timeout(ANSWER_LIMIT);
            let answer = IdentityClient::new(channel).certify_agents(call).await;
            let answer = answer.map_err(|status| IdentityError::Refused(Failure::of(&status)))?.into_inner();
            Ok(Issued { certificate: answer.certificate, bundle: answer.bundle, control_plane: BTreeMap::new() })
        };
        let asked = asked.await;
        if asked.is_err() {
            // Another one next time: this one may be away, or older than such certificates.
            self.addresses().rotate_left(1);
        }
        asked
    }
}

#[tonic::async_trait]
impl CertifyAgents for LocalRenewer {
    async fn certify_agents(&self, request: Vec<u8>, names: &[HostName]) -> Result<Issued, IdentityError> {
        let cluster = self.certifier.registry().cluster();
        let unknown = || ControlError::from(NotMember::Unknown);
        let node_id = standing(&cluster, &self.identity.certified()).map_err(ControlError::from)?;
        let node_id = node_id.ok_or_else(unknown)?;
        let member = cluster.members().get(&node_id).ok_or_else(unknown)?;
        let (key, node) = (NodeKey::of_request(&request)?, NodeRecord::of(node_id, member)?);
        Ok(self.certifier.certify_agents(&node, &key, names, SystemTime::now())?)
    }
}

/// A certificate with its key, and how long it holds.
#[derive(Clone, Debug)]
pub struct HeldCertificate {
    /// Certificate, key, and every CA to trust.
    pub material: Material,
    validity: (SystemTime, SystemTime),
}

impl HeldCertificate {
    fn new(material: Material, names: &[HostName]) -> Result<Self, IdentityError> {
        let chain = certificates("the certificate for agents", &material.certificate)?;
        let (leaf, above) =
            chain.split_first().ok_or_else(|| IdentityError::Answer("there is no certificate".to_owned()))?;
        let mut found = HostName::of_certificate(leaf)?;
        let mut wanted = names.to_vec();
        found.sort_unstable();
        wanted.sort_unstable();
        found.dedup();
        wanted.dedup();
        if found != wanted {
            return Err(IdentityError::Answer("its certificate is for other names".to_owned()));
        }
        let validity = validity_of(leaf)?;
        // By its first moment: whether it has ended is for the caller.
        let at = validity.0.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut roots = rustls::RootCertStore::empty();
        for ca in certificates("the bundle", &material.bundle)? {
            roots.add(ca).map_err(TlsError::from)?;
        }
        let parsed = ParsedCertificate::try_from(leaf).map_err(TlsError::from)?;
        let algorithms = default_provider().signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &roots, above, UnixTime::since_unix_epoch(at), algorithms)
            .map_err(|e| IdentityError::Answer(format!("the CAs that came with it do not vouch for it: {e}")))?;
        Ok(Self { material, validity })
    }

    /// When it begins.
    pub fn begins(&self) -> SystemTime {
        self.validity.0
    }

    /// When it ends.
    pub fn ends(&self) -> SystemTime {
        self.validity.1
    }

    /// How long to wait before it is renewed: to two thirds of its life, or a little less.
    pub fn renewal_in(&self, now: SystemTime) -> Duration {
        renewal_in(self.validity, now, jitter())
    }

    /// How long to wait after a renewal that failed.
    pub fn retry_in(&self, now: SystemTime) -> Duration {
        until_retry(self.ends().duration_since(now).unwrap_or_default(), jitter())
    }
}

/// The certificate for agents of this node: where it is kept, its names, and who issues it.
pub struct AgentCertificate {
    dir: PathBuf,
    names: Vec<HostName>,
    issuer: Arc<dyn CertifyAgents>,
}

impl AgentCertificate {
    /// For these names, kept in `dir`.
    pub fn new(dir: PathBuf, names: Vec<HostName>, issuer: Arc<dyn CertifyAgents>) -> Self {
        Self { dir, names, issuer }
    }

    /// Its names.
    pub fn names(&self) -> &[HostName] {
        &self.names
    }

    /// What was kept, if it is for these names; it may have ended.
    pub fn kept(&self) -> Option<HeldCertificate> {
        if !Material::exists(&self.dir) {
            return None;
        }
        let kept = Material::load(&self.dir).map_err(IdentityError::from);
        kept.and_then(|material| HeldCertificate::new(material, &self.names))
            .inspect_err(|cause| tracing::info!(%cause, "the certificate for agents that was kept is not used"))
            .ok()
    }

    /// A new one, checked and kept.
    pub async fn renew(&self) -> Result<HeldCertificate, IdentityError> {
        let key = KeyRequest::make()?;
        let issued = self.issuer.certify_agents(key.request, &self.names).await?;
        let material = Material { certificate: issued.certificate, key: key.key, bundle: issued.bundle };
        let held = HeldCertificate::new(material, &self.names)?;
        let (stored, at) = (held.material.clone(), self.dir.clone());
        tokio::task::spawn_blocking(move || stored.store(&at))
            .await
            .map_err(|e| IdentityError::Answer(format!("it could not be stored: {e}")))??;
        Ok(held)
    }
}
