//! A resource: kind, metadata and spec, as people apply it and as nodes receive it.

use std::{collections::BTreeMap, fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Name, Revision, Spec};

/// The kinds of resource, in the order in which they are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Kind {
    /// An organisation or team; the unit of isolation.
    Tenant,
    /// A person, agent or service of a tenant.
    Principal,
    /// A bearer credential of a principal; only its hash is stored.
    ApiKey,
    /// A named set of permissions.
    Role,
    /// Gives a role to principals, possibly until a time.
    RoleBinding,
    /// Cedar policies of a tenant.
    Policy,
    /// A source of tools, prompts, resources or models.
    Plugin,
    /// A sealed value that plugins use and nobody reads back.
    Secret,
    /// A limit on use.
    Quota,
    /// Data-plane nodes that take each change first.
    NodeGroup,
    /// What use costs.
    Price,
    /// What may not leave in calls.
    Guard,
    /// A switch that stops calls at once.
    KillSwitch,
    /// Who vouches for callers.
    IdentityProvider,
    /// Which definitions of a plugin's tools are approved.
    ToolPins,
    /// A public name for versions of a tool.
    ToolAlias,
    /// What a user let a plugin do in their name.
    Connection,
    /// Somebody whose plugin packages a tenant trusts.
    Publisher,
    /// A model that GPU nodes serve.
    Model,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 19] = [
        Kind::Tenant,
        Kind::Principal,
        Kind::ApiKey,
        Kind::Role,
        Kind::RoleBinding,
        Kind::Policy,
        Kind::Plugin,
        Kind::Secret,
        Kind::Quota,
        Kind::NodeGroup,
        Kind::Price,
        Kind::Guard,
        Kind::KillSwitch,
        Kind::IdentityProvider,
        Kind::ToolPins,
        Kind::ToolAlias,
        Kind::Connection,
        Kind::Publisher,
        Kind::Model,
    ];

    /// The kind as written in YAML.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Tenant => "Tenant",
            Kind::Principal => "Principal",
            Kind::ApiKey => "ApiKey",
            Kind::Role => "Role",
            Kind::RoleBinding => "RoleBinding",
            Kind::Policy => "Policy",
            Kind::Plugin => "Plugin",
            Kind::Secret => "Secret",
            Kind::Quota => "Quota",
            Kind::NodeGroup => "NodeGroup",
            Kind::Price => "Price",
            Kind::Guard => "Guard",
            Kind::KillSwitch => "KillSwitch",
            Kind::IdentityProvider => "IdentityProvider",
            Kind::ToolPins => "ToolPins",
            Kind::ToolAlias => "ToolAlias",
            Kind::Connection => "Connection",
            Kind::Publisher => "Publisher",
            Kind::Model => "Model",
        }
    }

    /// Whether resources of this kind belong to a tenant (`metadata.tenant`); `Tenant`, `NodeGroup` and
    /// `Model` do not, and a `KillSwitch` may.
    pub fn is_tenanted(self) -> bool {
        !matches!(self, Kind::Tenant | Kind::NodeGroup | Kind::KillSwitch | Kind::Model)
    }

    /// Whether resources of this kind may belong to a tenant and need not.
    pub fn may_be_tenanted(self) -> bool {
        self == Kind::KillSwitch
    }

    /// Whether resources of this kind are made by commands of their own, and not by documents. They
    /// take effect at once, whatever a `NodeGroup` holds back, and a rollback leaves them as they are.
    pub fn is_governance(self) -> bool {
        matches!(self, Kind::KillSwitch | Kind::ToolPins | Kind::Connection)
    }

    /// The first wire version whose control-plane nodes can read resources of this kind.
    pub fn since_version(self) -> u32 {
        match self {
            Kind::KillSwitch | Kind::IdentityProvider | Kind::ToolPins | Kind::ToolAlias => 2,
            Kind::Connection => 3,
            Kind::Publisher => 5,
            Kind::Model => 6,
            _ => 1,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a kind: use one of Tenant, Principal, ApiKey, Role, RoleBinding, Policy, Plugin, Secret, Quota, \
     NodeGroup, Price, Guard, KillSwitch, IdentityProvider, ToolPins, ToolAlias, Connection, Publisher, Model"
)]
pub struct UnknownKind(pub String);

impl FromStr for Kind {
    type Err = UnknownKind;
    /// Accepts the kind in any case, and in the plural, as people type it.
    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        let lower = text.to_ascii_lowercase();
        Kind::ALL
            .into_iter()
            .find(|k| {
                let name = k.as_str().to_ascii_lowercase();
                lower == name
                    || lower == format!("{name}s")
                    || (*k == Kind::Policy && lower == "policies")
                    || (*k == Kind::KillSwitch && matches!(lower.as_str(), "kill-switch" | "killswitches"))
                    || (*k == Kind::ToolAlias && lower == "toolaliases")
            })
            .ok_or_else(|| UnknownKind(text.to_owned()))
    }
}

/// Which resource: unique in the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ResourceKey {
    /// The kind.
    pub kind: Kind,
    /// The tenant; `None` for the kinds that belong to none.
    pub tenant: Option<Name>,
    /// The name, unique within kind and tenant.
    pub name: Name,
}

impl fmt::Display for ResourceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.as_str())?;
        if let Some(tenant) = &self.tenant {
            f.write_str("/")?;
            f.write_str(tenant.as_str())?;
        }
        f.write_str("/")?;
        f.write_str(self.name.as_str())
    }
}

/// What every resource carries beside its spec.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Metadata {
    /// The name, unique within kind and tenant.
    pub name: Name,
    /// The tenant; required by every kind but `Tenant`, `NodeGroup`, `Model` and `KillSwitch`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<Name>,
    /// Free labels for people and selectors.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// One resource as stored: metadata, typed spec and the revisions that made and last changed it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Resource {
    /// Name, tenant, labels.
    pub metadata: Metadata,
    /// The typed body; its variant is the kind.
    pub spec: Spec,
    /// The revision that made it.
    pub created: Revision,
    /// The revision that last changed it.
    pub modified: Revision,
}

impl Resource {
    /// Its key.
    pub fn key(&self) -> ResourceKey {
        ResourceKey { kind: self.spec.kind(), tenant: self.metadata.tenant.clone(), name: self.metadata.name.clone() }
    }
}
