//! Answers about the cluster itself.

use std::{sync::Arc, time::Duration};

use provost_wire::{
    admin as wire,
    tls::{Role, Roles},
};
use secrecy::ExposeSecret;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tonic::Status;

use super::{Service, convert};
use crate::{
    Caller, ControlError, ErrorKind, MemberStatus, SubscriberStatus,
    identity::{Certifier, Registry, RotationStep},
};

impl Service {
    pub(super) async fn cluster(&self, caller: &Caller) -> Result<wire::ClusterStatusResponse, Status> {
        let status = self.node.cluster_status(caller, &*self.subscribers).await?;
        let subscriber = |(via, s): (String, SubscriberStatus)| wire::Subscriber {
            node: s.node,
            role: s.role,
            revision: s.revision.0,
            lag: s.lag,
            silent_ms: u64::try_from(s.silent.as_millis()).unwrap_or(u64::MAX),
            problems: s.problems,
            version: s.version,
            via,
            stage: s.part.as_str().to_owned(),
        };
        let waits_for = status.waits_for;
        let release = status.release.map(|release| {
            let halt = release.halted.unwrap_or_default();
            wire::ReleaseStatus {
                released: release.released.0,
                halted: halt.revision.0,
                reasons: halt.reasons,
                waits_for,
            }
        });
        Ok(wire::ClusterStatusResponse {
            cluster: status.cluster,
            revision: status.revision.0,
            node_id: status.node_id,
            leader_id: status.leader.unwrap_or(0),
            term: status.term,
            members: status.members.into_iter().map(member).collect(),
            subscribers: status.subscribers.into_iter().map(subscriber).collect(),
            confirmed: status.confirmed,
            release,
            wire_version: status.wire_version,
        })
    }

    pub(super) fn membership(&self) -> wire::MembershipResponse {
        let metrics = self.node.status().group;
        wire::MembershipResponse {
            voters: metrics.voters.into_iter().collect(),
            learners: metrics.learners.into_iter().collect(),
            leader_id: metrics.leader.unwrap_or(0),
        }
    }

    pub(super) async fn token_to_join(
        &self,
        caller: &Caller,
        wanted: wire::JoinTokenRequest,
    ) -> Result<wire::JoinTokenResponse, Status> {
        let roles = roles(&wanted.role)?;
        let node = convert::name(&wanted.node)?;
        let life = Duration::from_secs(wanted.ttl_seconds);
        let (token, ends) = self.node.join_token(caller, self.certifier()?, roles, node, life).await?;
        let expires = OffsetDateTime::from(ends).replace_nanosecond(0).map_err(ControlError::internal)?;
        Ok(wire::JoinTokenResponse {
            token: token.expose_secret().to_owned(),
            expires: expires.format(&Rfc3339).map_err(ControlError::internal)?,
        })
    }

    pub(super) async fn change_ca(&self, caller: &Caller, step: &str) -> Result<wire::RotateCaResponse, Status> {
        let step = match step {
            "begin" => RotationStep::Begin,
            "commit" => RotationStep::Commit { force: false },
            "commit:force" => RotationStep::Commit { force: true },
            "finish" => RotationStep::Finish { force: false },
            "finish:force" => RotationStep::Finish { force: true },
            other => return Err(convert::invalid(format!("`{other}` is no step: begin, commit or finish")).into()),
        };
        let hashes = self.node.rotate_ca(caller, self.certifier()?, step).await?;
        Ok(wire::RotateCaResponse { authorities: hashes.iter().map(hex::encode).collect() })
    }

    /// For every administrator: what it gives is public.
    pub(super) fn authorities_of_cluster(&self) -> Result<wire::AuthoritiesResponse, Status> {
        let bundle = Registry::cluster(&self.node).bundle();
        if bundle.is_empty() {
            let text = "the cluster has no CA of its own";
            let hint = "its operator issues certificates; ask them for the authorities";
            return Err(ControlError::new(ErrorKind::Refused, "PV-CA-NONE", text, hint).into());
        }
        Ok(wire::AuthoritiesResponse { bundle })
    }

    fn certifier(&self) -> Result<&Arc<Certifier>, ControlError> {
        self.certifier.as_ref().ok_or_else(|| {
            let text = "this node has no CA: nobody joins a node of `provost dev`";
            ControlError::new(ErrorKind::Refused, "PV-CA-NONE", text, "run `provost server`")
        })
    }
}

fn roles(text: &str) -> Result<Roles, ControlError> {
    let roles = text.split(',').map(|role| role.trim().parse::<Role>());
    let roles = roles.collect::<Result<Vec<_>, _>>().and_then(Roles::new);
    roles.map_err(|e| ControlError::new(ErrorKind::Invalid, "PV-JOIN-ROLE", e.to_string(), ""))
}

fn member(member: MemberStatus) -> wire::ClusterMember {
    wire::ClusterMember {
        id: member.id,
        name: member.name,
        address: member.address,
        membership: member.membership.to_owned(),
        role: member.role.to_owned(),
        applied: member.applied,
        lag: member.lag,
        version: member.facts.version,
        certificate_expires: member.facts.certificate_expires,
        wire_version: member.wire_version,
        roles: member.roles,
    }
}
