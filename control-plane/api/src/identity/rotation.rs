//! Changing the CA: the three steps of the state, with the key made and sealed here.

use std::time::{Duration, SystemTime};

use provost_control_state::ClusterCommand;

use super::{Certifier, certifier::hash_of, token::unix_ns};
use crate::ControlError;

/// A step must last this many lives of a certificate: by then every node has renewed, with time
/// left for some tries that fail.
const SETTLE_LIVES: u32 = 1;

/// A step of a change of the CA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RotationStep {
    /// A new CA is made and trusted beside the old one.
    Begin,
    /// The new one signs. `force`: although nodes may not know it yet.
    Commit {
        /// See above.
        force: bool,
    },
    /// The old one is dropped. `force`: although nodes may still have certificates of it.
    Finish {
        /// See above.
        force: bool,
    },
}

impl Certifier {
    /// Takes a step. Returns SHA-256 of each CA's certificate, the signing one first.
    pub async fn rotate(&self, step: RotationStep, now: SystemTime) -> Result<Vec<[u8; 32]>, ControlError> {
        let time_ns = unix_ns(now);
        let command = match step {
            RotationStep::Begin => {
                let cluster = self.registry().confirmed().await?;
                let name = cluster.name().ok_or_else(|| ControlError::internal("the cluster has no name"))?;
                let (authority, _) = Self::make_authority(self.sealer(), name, now)?;
                let settle: Duration = self.life() * SETTLE_LIVES;
                let settle_ns = u64::try_from(settle.as_nanos()).unwrap_or(u64::MAX);
                ClusterCommand::CaBegin { authority, time_ns, settle_ns }
            }
            RotationStep::Commit { force } => ClusterCommand::CaCommit { time_ns, force },
            RotationStep::Finish { force } => ClusterCommand::CaFinish { time_ns, force },
        };
        self.registry().change(command).await?;
        let cluster = self.registry().confirmed().await?;
        let signing = cluster.signing().map_or(0, |(id, _)| id);
        let mut authorities: Vec<_> = cluster.authorities().iter().collect();
        authorities.sort_by_key(|(id, _)| **id != signing);
        let hashes = authorities.into_iter().map(|(_, a)| hash_of(&a.certificate).map_err(ControlError::from));
        hashes.collect()
    }
}
