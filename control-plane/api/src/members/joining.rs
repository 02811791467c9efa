//! Join tokens and changes of the CA, as administrators ask for them.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use provost_types::Name;
use provost_wire::tls::{Role, Roles};
use secrecy::SecretString;

use super::Deed;
use crate::{
    Caller, ControlError, ControlNode,
    carrier::UNRECORDABLE,
    identity::{Certifier, Registry, RotationStep, make_join_token},
};

impl ControlNode {
    /// Makes a token with which one node can join, and says when it ends. A `life` of zero is the
    /// longest that there is.
    pub async fn join_token(
        &self,
        caller: &Caller,
        certifier: &Arc<Certifier>,
        roles: Roles,
        node: Name,
        life: Duration,
    ) -> Result<(SecretString, SystemTime), ControlError> {
        caller.needs_cluster("join tokens")?;
        let names: Vec<&str> = roles.iter().map(|role| role.as_str()).collect();
        let deed = Deed::new("join-token.create", vec![node.to_string()], names.join(", "));
        let keeps_log = roles.has(Role::AuditLog);
        let make = {
            let (certifier, node) = (certifier.clone(), node.clone());
            move || async move { make_join_token(&certifier, &node, &roles, life, SystemTime::now()).await }
        };
        match self.recorded(caller, deed, make.clone()()).await {
            Err(error) if error.code() == UNRECORDABLE && keeps_log => {
                Registry::confirmed(self).await?;
                if !self.audit_nodes().is_empty() {
                    return Err(error);
                }
                // What would record it is what it lets in. Joins are taken so too.
                tracing::warn!(%node, by = caller.name, "a join token is made before there is an audit log");
                make().await
            }
            done => done,
        }
    }

    /// Takes a step of a change of the CA. Gives SHA-256 of each CA's certificate, the signing one
    /// first.
    pub async fn rotate_ca(
        &self,
        caller: &Caller,
        certifier: &Arc<Certifier>,
        step: RotationStep,
    ) -> Result<Vec<[u8; 32]>, ControlError> {
        caller.needs_cluster("the CA")?;
        let deed = Deed::new("ca.rotate", Vec::new(), format!("{step:?}"));
        let certifier = certifier.clone();
        self.recorded(caller, deed, async move { certifier.rotate(step, SystemTime::now()).await }).await
    }
}
