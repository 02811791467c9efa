//! Whether a certificate is that of a member.
//!
//! A node may know less than its peers: it was away, or has just joined. If it refused those whom it
//! does not know, it could refuse the leader that would tell it. Ids are given in order, so a node
//! tells the two apart: an id up to the last one it knows, without a member, was removed; a greater
//! one is news, and its certificate is enough.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use provost_control_state::Cluster;
use provost_wire::tls::{Admit, Certified, Connections, NodeName, Role, certified_of};
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};
use tonic::{Request, Status, service::Interceptor};

use super::Registry;
use crate::{ControlError, ErrorKind};

/// Why a caller is not let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotMember {
    /// It has no certificate.
    #[error("the caller has no certificate of this cluster")]
    NoCertificate,
    /// Its certificate is of another cluster.
    #[error("the caller's certificate is of another cluster")]
    OtherCluster,
    /// It was removed.
    #[error("node {0} was removed from the cluster")]
    Removed(u64),
    /// The certificate says other than the member list.
    #[error("the certificate is not that of node {0}")]
    NotTheSame(u64),
    /// No such member.
    #[error("the caller is not a member of the cluster")]
    Unknown,
    /// It has none of the roles that this service is for.
    #[error("{0} may not use this service")]
    Role(NodeName),
}

impl NotMember {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            NotMember::NoCertificate => "PV-TLS-NO-CERTIFICATE",
            NotMember::Role(_) => "PV-TLS-ROLE",
            _ => "PV-TLS-MEMBER",
        }
    }
}

impl From<NotMember> for ControlError {
    fn from(refused: NotMember) -> Self {
        let kind = match refused {
            NotMember::NoCertificate => ErrorKind::Unauthenticated,
            _ => ErrorKind::Forbidden,
        };
        let hint = match refused {
            NotMember::NoCertificate | NotMember::Role(_) => "",
            _ => "a node comes back with a new join token",
        };
        ControlError::new(kind, refused.code(), refused.to_string(), hint)
    }
}

/// The member that a verified certificate belongs to. `None`: it is not known here, but nothing
/// speaks against it (it is newer than what this node knows, or an operator's own CA vouches).
pub fn standing(cluster: &Cluster, certified: &Certified) -> Result<Option<u64>, NotMember> {
    let name = &certified.name;
    if cluster.name().is_some_and(|own| own != name.cluster()) {
        return Err(NotMember::OtherCluster);
    }
    let has_ca = cluster.signing().is_some();
    let is_new = cluster.name().is_none();
    let node_id = match (name.node_id(), certified.serial_node_id) {
        (Some(id), Some(serial)) if has_ca && id != serial => return Err(NotMember::NotTheSame(id)),
        (Some(id), _) if has_ca || is_new => id,
        (None, Some(serial)) if has_ca => serial,
        // Not from our CA: it has no number, only a name.
        _ => match cluster.member_named(name.id()) {
            Some((id, _)) => id,
            // A name may be given again, a certificate without a number cannot be told from the next.
            None => match cluster.removed().find(|gone| gone.name.as_str() == name.id()) {
                Some(gone) => return Err(NotMember::Removed(gone.node_id)),
                None => return Ok(None),
            },
        },
    };
    match cluster.members().get(&node_id) {
        Some(member) => {
            let same_name = has_ca && name.node_id().is_some() || member.name.as_str() == name.id();
            let roles: BTreeSet<&str> = name.roles().iter().map(Role::as_str).collect();
            let same_roles = roles == member.roles.iter().map(|r| r.as_str()).collect();
            if same_name && same_roles { Ok(Some(node_id)) } else { Err(NotMember::NotTheSame(node_id)) }
        }
        None if node_id <= cluster.last_node_id() => Err(NotMember::Removed(node_id)),
        None => Ok(None),
    }
}

/// For `incoming`: turns away former members at the door.
///
/// With an operator's CA the certificate of a former member is also that of a node that joins again
/// under its name: the door lets it in, and every service but Join refuses it.
pub fn admit(registry: Arc<dyn Registry>) -> Admit {
    Arc::new(move |certified| {
        let cluster = registry.cluster();
        match standing(&cluster, certified) {
            Ok(_) => true,
            Err(NotMember::Removed(_)) => by_operator(&cluster),
            Err(_) => false,
        }
    })
}

/// Whether certificates of this cluster come from its operator.
pub(crate) fn by_operator(cluster: &Cluster) -> bool {
    cluster.name().is_some() && cluster.signing().is_none()
}

/// How long after a change of the cluster the connections are looked at once more: one may have been let in by what was
/// true before, and be counted among them only after the first look.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Cuts connections of former members when the cluster changes. Ends when the node does.
pub async fn cut_former_members<T>(
    mut changes: watch::Receiver<T>,
    registry: Arc<dyn Registry>,
    connections: Connections,
) {
    let mut known: Option<Arc<Cluster>> = None;
    let mut again: Option<Instant> = None;
    loop {
        let ended = match again {
            // Nothing may change any more.
            Some(at) => matches!(timeout_at(at, changes.changed()).await, Ok(Err(_))),
            None => changes.changed().await.is_err(),
        };
        if ended {
            return;
        }
        let cluster = registry.cluster();
        // Most changes are none of the cluster.
        let is_news = known.as_ref().is_none_or(|known| !Arc::ptr_eq(known, &cluster));
        if !is_news && again.is_none_or(|at| Instant::now() < at) {
            continue;
        }
        let cut = connections.cut_unless(|certified| standing(&cluster, certified).is_ok());
        if cut > 0 {
            tracing::info!(cut, "connections of former members were cut");
        }
        again = is_news.then(|| Instant::now() + LOOK_AGAIN);
        known = Some(cluster);
    }
}

/// The node that sent a request, as [`MembersOnly`] verified it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallingNode {
    /// Its number; `None`: not known here yet, or certified by an operator's own CA.
    pub node_id: Option<u64>,
    /// Its name in the certificate.
    pub name: NodeName,
}

/// The node that sent a request, behind [`MembersOnly`].
pub fn calling_node<T>(request: &Request<T>) -> Option<&CallingNode> {
    request.extensions().get::<CallingNode>()
}

/// Lets in only members that have one of some roles. Put it before every service for nodes.
///
/// A certificate of the cluster's own CA with a number that is not known yet is a newer member's. An
/// operator's certificate says nothing of membership: with it a node must be in the list, but for
/// the service that brings the list.
#[derive(Clone)]
pub struct MembersOnly {
    registry: Arc<dyn Registry>,
    roles: &'static [Role],
    unlisted: bool,
}

impl MembersOnly {
    /// Of these roles; a member needs one of them.
    pub fn new(registry: Arc<dyn Registry>, roles: &'static [Role]) -> Self {
        Self { registry, roles, unlisted: false }
    }

    /// Also those that an operator certified and this node has not heard of: it may be behind.
    pub fn or_unlisted(mut self) -> Self {
        self.unlisted = true;
        self
    }
}

impl Interceptor for MembersOnly {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let certified = certified_of(&request).ok_or(NotMember::NoCertificate).map_err(ControlError::from)?;
        let cluster = self.registry.cluster();
        let node_id = standing(&cluster, certified).map_err(ControlError::from)?;
        if node_id.is_none() && by_operator(&cluster) && !self.unlisted {
            return Err(ControlError::from(NotMember::Unknown).into());
        }
        let name = certified.name.clone();
        if !self.roles.iter().any(|role| name.has(*role)) {
            return Err(ControlError::from(NotMember::Role(name)).into());
        }
        request.extensions_mut().insert(CallingNode { node_id, name });
        Ok(request)
    }
}
