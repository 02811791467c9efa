//! Certificate authorities, and how one takes over from another.
//!
//! Three steps: *begin* (both are trusted, the old one signs), *commit* (both are trusted, the new
//! one signs), *finish* (the old one is gone). Each step lasts until every node has renewed: a node
//! that does not trust the new one yet would refuse its peers, one that still has a certificate of
//! the old one would be refused.

use provost_types::Revision;
use serde::{Deserialize, Serialize};

use super::{Cluster, ClusterReply, reject};
use crate::Rejected;

/// Bytes of a certificate as PEM.
const MAX_CERTIFICATE_BYTES: usize = 16 << 10;
/// Bytes of a sealed key.
const MAX_SEALED_BYTES: usize = 16 << 10;

/// A certificate authority.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authority {
    /// Its certificate, PEM.
    pub certificate: String,
    /// Its private key, sealed, base64: it opens only with the key provider.
    pub sealed_key: String,
}

/// Where a change of the authority stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CaStep {
    /// Both are trusted, the old one signs.
    Begun,
    /// Both are trusted, the new one signs.
    Committed,
}

/// A change of the authority.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotation {
    /// The authority that goes.
    pub old: u64,
    /// The one that comes.
    pub new: u64,
    /// How far it is.
    pub step: CaStep,
    /// Since when, by the proposer's clock.
    pub since_ns: u64,
    /// How long each step must last.
    pub settle_ns: u64,
}

impl Rotation {
    /// When the next step may be taken.
    pub fn settled_ns(&self) -> u64 {
        self.since_ns.saturating_add(self.settle_ns)
    }
}

impl Cluster {
    pub(super) fn ca_begin(
        &mut self,
        revision: Revision,
        authority: Authority,
        time_ns: u64,
        settle_ns: u64,
    ) -> Result<ClusterReply, Rejected> {
        if let Some(rotation) = &self.rotation {
            let text = format!("a change of the CA is under way ({:?})", rotation.step);
            return Err(reject("PV-CA-STEP", text, "finish it first"));
        }
        let Some((old, _)) = self.signing() else {
            return Err(reject("PV-CA-NONE", "the cluster has no CA of its own", "its operator issues certificates"));
        };
        let sizes = (authority.certificate.len(), authority.sealed_key.len());
        if sizes.0 > MAX_CERTIFICATE_BYTES || sizes.1 > MAX_SEALED_BYTES {
            return Err(reject("PV-CA-STEP", "the CA's certificate or key is too large", ""));
        }
        let new = revision.0;
        self.authorities.insert(new, authority);
        self.rotation = Some(Rotation { old, new, step: CaStep::Begun, since_ns: time_ns, settle_ns });
        Ok(ClusterReply::Ca { step: Some(CaStep::Begun) })
    }

    pub(super) fn ca_commit(&mut self, time_ns: u64, force: bool) -> Result<ClusterReply, Rejected> {
        let rotation = self.step(CaStep::Begun, time_ns, force)?;
        self.signing = rotation.new;
        self.rotation = Some(Rotation { step: CaStep::Committed, since_ns: time_ns, ..rotation });
        Ok(ClusterReply::Ca { step: Some(CaStep::Committed) })
    }

    pub(super) fn ca_finish(&mut self, time_ns: u64, force: bool) -> Result<ClusterReply, Rejected> {
        let rotation = self.step(CaStep::Committed, time_ns, force)?;
        self.authorities.remove(&rotation.old);
        self.rotation = None;
        Ok(ClusterReply::Ca { step: None })
    }

    /// The rotation, if it stands at this step and has stood there long enough.
    fn step(&self, step: CaStep, time_ns: u64, force: bool) -> Result<Rotation, Rejected> {
        let Some(rotation) = &self.rotation else {
            return Err(reject("PV-CA-STEP", "no change of the CA is under way", "begin one"));
        };
        if rotation.step != step {
            let text = format!("the change of the CA stands at {:?}, not at {step:?}", rotation.step);
            return Err(reject("PV-CA-STEP", text, "the steps are begin, commit, finish"));
        }
        if !force && time_ns < rotation.settled_ns() {
            let left_s = (rotation.settled_ns() - time_ns).div_ceil(1_000_000_000);
            let text = format!("not every node has renewed its certificate yet; wait {left_s} s");
            return Err(reject("PV-CA-TOO-EARLY", text, "forcing it cuts off nodes that have not"));
        }
        Ok(rotation.clone())
    }

    pub(super) fn ca_resealed(&mut self, id: u64, old: &str, new: String) -> Result<ClusterReply, Rejected> {
        match self.authorities.get_mut(&id) {
            Some(authority) if authority.sealed_key == old && new.len() <= MAX_SEALED_BYTES => {
                authority.sealed_key = new;
                Ok(ClusterReply::Done)
            }
            _ => {
                let text = format!("the key of CA {id} is not what it was");
                Err(reject("PV-CTL-CONFLICT", text, "read again and retry"))
            }
        }
    }
}
