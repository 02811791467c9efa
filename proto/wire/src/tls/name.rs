//! What a certificate calls its node.

use std::{collections::BTreeSet, fmt, str::FromStr};

use provost_types::Name;

/// Stands between the roles of one node in its SPIFFE path. A segment of such a path has letters,
/// digits, dots, dashes and underscores only (SPIFFE-ID, section 2.2), and no role has a dot.
pub const ROLE_SEPARATOR: char = '.';
const SCHEME: &str = "spiffe://";

/// What a node does in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Holds a replica of the control group.
    ControlPlane,
    /// Serves calls.
    DataPlane,
    /// Runs models.
    GpuNode,
    /// Holds a replica of the audit group.
    AuditLog,
}

impl Role {
    /// Every role.
    pub const ALL: [Role; 4] = [Role::ControlPlane, Role::DataPlane, Role::GpuNode, Role::AuditLog];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::ControlPlane => "control-plane",
            Role::DataPlane => "data-plane",
            Role::GpuNode => "gpu-node",
            Role::AuditLog => "audit-log",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        Role::ALL.into_iter().find(|r| r.as_str() == text).ok_or_else(|| NameError::Role(text.to_owned()))
    }
}

/// The roles of one node; at least one. Written in their order with [`ROLE_SEPARATOR`] between.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Roles(BTreeSet<Role>);

impl Roles {
    /// Of these roles; at least one.
    pub fn new(roles: impl IntoIterator<Item = Role>) -> Result<Self, NameError> {
        let roles: BTreeSet<Role> = roles.into_iter().collect();
        if roles.is_empty() { Err(NameError::NoRole) } else { Ok(Self(roles)) }
    }

    /// Whether the node has this role.
    pub fn has(&self, role: Role) -> bool {
        self.0.contains(&role)
    }

    /// In their order.
    pub fn iter(&self) -> impl Iterator<Item = Role> {
        self.0.iter().copied()
    }
}

impl From<Role> for Roles {
    fn from(role: Role) -> Self {
        Self(BTreeSet::from([role]))
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, role) in self.iter().enumerate() {
            if i > 0 {
                write!(f, "{ROLE_SEPARATOR}")?;
            }
            f.write_str(role.as_str())?;
        }
        Ok(())
    }
}

impl FromStr for Roles {
    type Err = NameError;
    /// Takes only the form that `Display` writes: each role once, in order.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let roles = text.split(ROLE_SEPARATOR).map(str::parse).collect::<Result<Vec<Role>, _>>()?;
        let read = Self::new(roles)?;
        if read.to_string() == text { Ok(read) } else { Err(NameError::RoleOrder(read.to_string())) }
    }
}

/// A node as its certificate names it: `spiffe://CLUSTER/ROLES/ID`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NodeName {
    cluster: Name,
    roles: Roles,
    id: Name,
}

/// Why a text or a set of parts names no node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not the form.
    #[error("`{0}` does not name a node: it must be spiffe://CLUSTER/ROLES/ID")]
    Form(String),
    /// A part is not a name.
    #[error(transparent)]
    Part(#[from] provost_types::NameError),
    /// No such role.
    #[error("`{0}` is not a role: there are control-plane, data-plane, gpu-node and audit-log")]
    Role(String),
    /// No role at all.
    #[error("a node has at least one role")]
    NoRole,
    /// Roles out of order or repeated.
    #[error("roles are written once each and in order: `{0}`")]
    RoleOrder(String),
}

impl NodeName {
    /// A node of its parts. In certificates of the cluster's own CA the id of a control-plane node is
    /// its number in the group; that of any other node, and of every node that an operator certifies,
    /// is its name.
    pub fn new(cluster: Name, roles: impl Into<Roles>, id: Name) -> Self {
        Self { cluster, roles: roles.into(), id }
    }

    /// The node that a cluster knows by number and name.
    pub fn of_member(cluster: Name, roles: Roles, node_id: u64, name: Name) -> Result<Self, NameError> {
        let id = if roles.has(Role::ControlPlane) { Name::new(&node_id.to_string())? } else { name };
        Ok(Self::new(cluster, roles, id))
    }

    /// The cluster.
    pub fn cluster(&self) -> &Name {
        &self.cluster
    }

    /// The roles.
    pub fn roles(&self) -> &Roles {
        &self.roles
    }

    /// Whether it has this role.
    pub fn has(&self, role: Role) -> bool {
        self.roles.has(role)
    }

    /// The last part.
    pub fn id(&self) -> &str {
        self.id.as_str()
    }

    /// The number of a control-plane node; `None` for others.
    pub fn node_id(&self) -> Option<u64> {
        let number: u64 = self.id.as_str().parse().ok()?;
        let canonical = number > 0 && number.to_string() == self.id.as_str();
        (canonical && self.has(Role::ControlPlane)).then_some(number)
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}/{}", self.cluster, self.roles, self.id)
    }
}

impl FromStr for NodeName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let form = || NameError::Form(text.to_owned());
        let parts: Vec<&str> = text.strip_prefix(SCHEME).ok_or_else(form)?.split('/').collect();
        let [cluster, roles, id] = parts.as_slice() else { return Err(form()) };
        Ok(Self::new(Name::new(cluster)?, roles.parse::<Roles>()?, Name::new(id)?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_the_exact_form_is_read() {
        for good in [
            "spiffe://acme/control-plane/1",
            "spiffe://acme/control-plane.data-plane/18446744073709551615",
            "spiffe://acme.example/data-plane/eu-1",
            "spiffe://acme/gpu-node/7",
            "spiffe://acme/data-plane.gpu-node.audit-log/all",
        ] {
            assert_eq!(good.parse::<NodeName>().map(|n| n.to_string()), Ok(good.to_owned()));
        }
        for bad in [
            "",
            "acme/data-plane/a",
            "SPIFFE://acme/data-plane/a",
            "spiffe://acme/data-plane",
            "spiffe://acme/data-plane/",
            "spiffe:///data-plane/a",
            "spiffe://acme/data-plane/a/b",
            "spiffe://acme/data-plane/a?x",
            "spiffe://acme:80/data-plane/a",
            "spiffe://Acme/data-plane/a",
            "spiffe://acme/data-plane/%61",
            "spiffe://acme/dataplane/a",
            "spiffe://acme//a",
            "spiffe://acme/data-plane./a",
            "spiffe://acme/data-plane.data-plane/a",
            "spiffe://acme/data-plane.control-plane/1",
            "spiffe://acme/data-plane+gpu-node/a",
            "spiffe://acme/data-plane,gpu-node/a",
            " spiffe://acme/data-plane/a",
        ] {
            assert!(bad.parse::<NodeName>().is_err(), "{bad} was taken");
        }
    }

    #[test]
    fn every_set_of_roles_makes_a_legal_path_segment() {
        for bits in 1..1_u32 << Role::ALL.len() {
            let chosen = Role::ALL.into_iter().enumerate().filter(|(i, _)| bits & (1 << i) != 0).map(|(_, r)| r);
            let written = Roles::new(chosen).map(|r| r.to_string()).unwrap_or_default();
            let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
            assert!(!written.is_empty() && written.bytes().all(legal), "{written}");
            assert_eq!(written.parse::<Roles>().map(|r| r.to_string()), Ok(written));
        }
    }

    #[test]
    fn the_number_is_that_of_a_control_plane_node() {
        let node = |text: &str| text.parse::<NodeName>().map(|n| n.node_id());
        assert_eq!(node("spiffe://acme/control-plane/12"), Ok(Some(12)));
        for not_a_number in ["data-plane/12", "control-plane/cp-1", "control-plane/0", "control-plane/01"] {
            assert_eq!(node(&format!("spiffe://acme/{not_a_number}")), Ok(None));
        }
        assert_eq!(node("spiffe://acme/control-plane/18446744073709551616"), Ok(None));
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_the_same(text in "(spiffe://)?[a-z0-9./+-]{0,40}") {
            if let Ok(name) = text.parse::<NodeName>() {
                prop_assert_eq!(name.to_string(), text);
            }
        }
    }
}
