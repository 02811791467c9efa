//! Certificates for members, signed by whichever authority the state says.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwapOption;
use base64::{Engine, engine::general_purpose::STANDARD};
use provost_control_state::{Authority, Cluster, Member};
use provost_types::Name;
use provost_wire::tls::{NodeName, Role, Roles, certificate_hash, certificates};

use super::{AgentNames, Ca, IdentityError, KeySealer, NodeKey, Registry, error::ca};
use crate::{ControlError, ErrorKind};

/// The life of a node's certificate unless told otherwise.
pub const DEFAULT_LIFE: Duration = Duration::from_secs(24 * 3600);
/// The shortest life that a deployment may choose: a third of it is left when renewal begins, and an
/// election with some tries after it must fit in there.
pub const MIN_LIFE: Duration = Duration::from_secs(30);

/// A node as the state knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRecord {
    /// Its number.
    pub node_id: u64,
    /// Its name.
    pub name: Name,
    /// What it does.
    pub roles: Roles,
}

impl NodeRecord {
    /// A member; its roles must be known to this build.
    pub fn of(node_id: u64, member: &Member) -> Result<Self, ControlError> {
        Self::of_parts(node_id, member.name.clone(), &member.roles)
    }

    pub(super) fn of_parts(node_id: u64, name: Name, roles: &BTreeSet<Name>) -> Result<Self, ControlError> {
        let roles: Result<Vec<Role>, _> = roles.iter().map(|r| r.as_str().parse()).collect();
        let roles = roles.and_then(Roles::new).map_err(ControlError::internal)?;
        Ok(Self { node_id, name, roles })
    }
}

/// Roles as the state writes them.
pub(super) fn role_names(roles: &Roles) -> Result<BTreeSet<Name>, ControlError> {
    roles.iter().map(|r| Name::new(r.as_str()).map_err(ControlError::internal)).collect()
}

/// A certificate and what goes with it.
#[derive(Clone, Debug)]
pub struct Issued {
    /// PEM: the node's, then the CA's.
    pub certificate: String,
    /// PEM: every CA to trust.
    pub bundle: String,
    /// Control-plane nodes by name, with where peers reach them.
    pub control_plane: BTreeMap<String, String>,
}

/// Issues certificates.
pub struct Certifier {
    registry: Arc<dyn Registry>,
    sealer: Arc<dyn KeySealer>,
    life: Duration,
    /// By which names agents may know which nodes.
    agent_names: AgentNames,
    /// The authority opened last, with its id: opening it may ask a remote key provider.
    opened: ArcSwapOption<(u64, Ca)>,
}

impl std::fmt::Debug for Certifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certifier").field("life", &self.life).finish_non_exhaustive()
    }
}

/// The signing authority, held open.
pub(super) struct Signing(Arc<(u64, Ca)>);

impl std::ops::Deref for Signing {
    type Target = Ca;
    fn deref(&self) -> &Ca {
        &self.0.1
    }
}

impl Certifier {
    /// Certificates that live for `life` each. Callers that take it from people insist on
    /// [`MIN_LIFE`].
    pub fn new(registry: Arc<dyn Registry>, sealer: Arc<dyn KeySealer>, life: Duration) -> Self {
        Self { registry, sealer, life, agent_names: AgentNames::default(), opened: ArcSwapOption::empty() }
    }

    /// The same, and lets nodes have certificates of these names for agents.
    pub fn with_agent_names(self, agent_names: AgentNames) -> Self {
        Self { agent_names, ..self }
    }

    pub(super) fn agent_names(&self) -> &AgentNames {
        &self.agent_names
    }

    /// A new authority for a cluster: what to propose, and SHA-256 of its certificate.
    pub fn make_authority(
        sealer: &dyn KeySealer,
        cluster: &Name,
        now: SystemTime,
    ) -> Result<(Authority, [u8; 32]), IdentityError> {
        let (certificate, key) = Ca::make(cluster, now)?;
        let hash = hash_of(&certificate)?;
        let sealed_key = STANDARD.encode(sealer.seal(&context(cluster, &hash), &key)?);
        Ok((Authority { certificate, sealed_key }, hash))
    }

    /// How long certificates live.
    pub fn life(&self) -> Duration {
        self.life
    }

    pub(super) fn registry(&self) -> &dyn Registry {
        &*self.registry
    }

    pub(super) fn sealer(&self) -> &dyn KeySealer {
        &*self.sealer
    }

    /// The authority that signs, by what this node knows.
    pub(super) fn signing(&self) -> Result<Signing, ControlError> {
        let cluster = self.registry.cluster();
        let none = || {
            let text = "the cluster has no CA of its own";
            ControlError::new(ErrorKind::Refused, "PV-CA-NONE", text, "its operator issues certificates")
        };
        let (Some(name), Some((id, authority))) = (cluster.name(), cluster.signing()) else { return Err(none()) };
        if let Some(opened) = self.opened.load_full()
            && opened.0 == id
        {
            return Ok(Signing(opened));
        }
        let opened = Arc::new((id, open(&*self.sealer, name, authority)?));
        self.opened.store(Some(opened.clone()));
        Ok(Signing(opened))
    }

    /// For a node whose operator certifies it: only where the control plane is.
    pub(super) fn nothing_issued(&self) -> Issued {
        let control_plane = control_plane(&self.registry.cluster());
        Issued { certificate: String::new(), bundle: String::new(), control_plane }
    }

    /// A certificate for this node and key, beginning now.
    pub fn certify(&self, node: &NodeRecord, key: &NodeKey, now: SystemTime) -> Result<Issued, ControlError> {
        let cluster = self.registry.cluster();
        let signing = self.signing()?;
        let name = cluster.name().ok_or_else(|| ControlError::internal("the cluster has no name"))?;
        let node_name = NodeName::of_member(name.clone(), node.roles.clone(), node.node_id, node.name.clone())
            .map_err(ControlError::internal)?;
        let dns = node.roles.has(Role::ControlPlane).then_some(&node.name);
        let certificate = signing.issue(key, &node_name, node.node_id, dns, self.life, now)?;
        Ok(Issued { certificate, bundle: cluster.bundle(), control_plane: control_plane(&cluster) })
    }
}

fn open(sealer: &dyn KeySealer, cluster: &Name, authority: &Authority) -> Result<Ca, IdentityError> {
    let sealed = STANDARD.decode(&authority.sealed_key).map_err(ca)?;
    let key = sealer.open(&context(cluster, &hash_of(&authority.certificate)?), &sealed)?;
    Ca::open(&authority.certificate, &key)
}

/// The key of an authority sealed anew; opens with the same provider.
pub(crate) fn resealed_key(
    sealer: &dyn KeySealer,
    cluster: &Name,
    authority: &Authority,
) -> Result<String, IdentityError> {
    let context = context(cluster, &hash_of(&authority.certificate)?);
    let sealed = STANDARD.decode(&authority.sealed_key).map_err(ca)?;
    let key = sealer.open(&context, &sealed)?;
    Ok(STANDARD.encode(sealer.seal(&context, &key)?))
}

pub(super) fn hash_of(certificate: &str) -> Result<[u8; 32], IdentityError> {
    let ders = certificates("the CA's certificate", certificate)?;
    ders.first().map(certificate_hash).ok_or_else(|| ca("it has no certificate"))
}

/// What is authenticated with a sealed key: it opens only for its cluster and certificate.
fn context(cluster: &Name, hash: &[u8; 32]) -> String {
    format!("ca|{cluster}|{}", hex::encode(hash))
}

fn control_plane(cluster: &Cluster) -> BTreeMap<String, String> {
    let nodes = cluster.members().values().filter(|m| m.has(Role::ControlPlane.as_str()));
    nodes.map(|m| (m.name.to_string(), m.address.clone())).collect()
}
