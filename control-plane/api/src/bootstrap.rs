//! The first node of a new cluster.
//!
//! Done once, before the node serves: a group of one voter with its real address, the cluster's
//! name, its CA, an administrator's token and the first node's certificate. A crash before the
//! certificate is stored leaves a data folder without identity; bootstrapping again is refused
//! there and says to begin with an empty folder.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::SystemTime};

use provost_control_state::ClusterCommand;
use provost_types::Name;
use provost_wire::tls::{Material, Roles};
use secrecy::SecretString;

use crate::{
    AdminToken, ControlError, ControlNode, ErrorKind,
    identity::{Certifier, IdentityError, KeyRequest, KeySealer, NodeKey, NodeRecord, Registry, make_join_token},
};

/// The name of the administrator that a new cluster begins with.
const FIRST_ADMIN: &str = "admin";

/// What a new cluster is made of.
#[derive(Clone, Debug)]
pub struct Bootstrap {
    /// The cluster's name; never changes.
    pub cluster: Name,
    /// The first node's name.
    pub node: Name,
    /// Its roles; control-plane among them.
    pub roles: Roles,
    /// Where peers reach it, `HOST:PORT`.
    pub address: String,
    /// The operator's authorities, PEM, if nodes bring certificates of their own: the cluster then has
    /// no CA. `None`: it makes one.
    pub operator_ca: Option<String>,
    /// How long certificates live.
    pub certificate_life: std::time::Duration,
    /// Nodes to make join tokens for at once.
    pub joining: Vec<(Name, Roles)>,
}

/// A cluster that was made.
#[derive(Debug)]
pub struct Bootstrapped {
    /// The administrator's token: shown this once.
    pub admin_token: SecretString,
    /// A join token for each node of [`Bootstrap::joining`]; good for 15 minutes.
    pub join_tokens: BTreeMap<Name, SecretString>,
    /// The CA's certificate (or the operator's), PEM: what administrators' programs trust.
    pub ca: String,
}

impl ControlNode {
    /// Makes the cluster on this pristine node, and stores the node's identity in `identity_dir`.
    pub async fn bootstrap(&self, wanted: Bootstrap, identity_dir: &Path) -> Result<Bootstrapped, ControlError> {
        let node_id = self.inner.config.node_id;
        self.inner.group.initialize(BTreeMap::from([(node_id, wanted.address.clone())])).await?;
        self.inner.group.wait_ready(crate::node::START_LIMIT).await?;
        if let Some(name) = self.cluster().name() {
            let text = format!("this folder holds node {node_id} of cluster {name} already");
            let hint = "start it with `provost server`, or take an empty data_dir";
            return Err(ControlError::new(ErrorKind::Refused, "PV-CLUSTER-INITIALIZED", text, hint));
        }
        let now = SystemTime::now();
        let (authority, ca) = match &wanted.operator_ca {
            Some(bundle) => (None, bundle.clone()),
            None => {
                let (authority, _) = Certifier::make_authority(&*self.inner.secrets, &wanted.cluster, now)?;
                let ca = authority.certificate.clone();
                (Some(authority), ca)
            }
        };
        let roles = wanted.roles.iter().filter_map(|r| Name::new(r.as_str()).ok()).collect();
        let (cluster, node, address) = (wanted.cluster.clone(), wanted.node.clone(), wanted.address.clone());
        let version = crate::versions::own();
        let command = ClusterCommand::Init { cluster, node_id, node, roles, address, authority, version };
        Registry::change(self, command).await?;
        let admin_token = self.add_admin_token(FIRST_ADMIN).await?;

        let sealer: Arc<dyn KeySealer> = self.inner.secrets.clone();
        let certifier = Certifier::new(Arc::new(self.clone()), sealer, wanted.certificate_life);
        if wanted.operator_ca.is_none() {
            self.certify_first(&certifier, &wanted, identity_dir)?;
        }
        let mut join_tokens = BTreeMap::new();
        for (name, roles) in &wanted.joining {
            let (token, _) =
                make_join_token(&certifier, name, roles, std::time::Duration::ZERO, SystemTime::now()).await?;
            join_tokens.insert(name.clone(), token);
        }
        Ok(Bootstrapped { admin_token, join_tokens, ca })
    }

    fn certify_first(&self, certifier: &Certifier, wanted: &Bootstrap, dir: &Path) -> Result<(), ControlError> {
        let key = KeyRequest::make()?;
        let record =
            NodeRecord { node_id: self.inner.config.node_id, name: wanted.node.clone(), roles: wanted.roles.clone() };
        let issued = certifier.certify(&record, &NodeKey::of_request(&key.request)?, SystemTime::now())?;
        let material = Material { certificate: issued.certificate, key: key.key, bundle: issued.bundle };
        material.store(dir).map_err(|e| IdentityError::from(e).into())
    }

    /// Makes a token for an administrator of the cluster and stores its hash.
    pub async fn add_admin_token(&self, name: &str) -> Result<SecretString, ControlError> {
        let (text, token) = AdminToken::generate(name).map_err(ControlError::internal)?;
        let time_ns = crate::record::now_ns();
        let hash = token.hash_hex();
        Registry::change(self, ClusterCommand::AdminTokenAdded { name: name.to_owned(), hash, time_ns }).await?;
        Ok(text)
    }
}
