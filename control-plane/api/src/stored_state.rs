//! The whole state as snapshots and backups hold it: one JSON document, then one for each part of a plugin package.
//!
//! Invariants: what was read is whole; parts pass one at a time, and are never all in memory here.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read, Write},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use provost_control_state::{Cluster, HistoryEntry, Ledger, Packages, PartKey, Release, State, Unrecorded};
use provost_types::{Resource, Revision};
use serde::{Deserialize, Serialize, de::Error as _};

/// The whole state as written into snapshots. Tagged from outside: an inner tag would make serde
/// lose that the key ring's keys are numbers.
#[allow(clippy::large_enum_variant, reason = "made once a snapshot, never kept")]
#[derive(Serialize, Deserialize)]
pub(crate) enum StoredState {
    /// The first form.
    V1 {
        revision: Revision,
        compacted: Revision,
        key_ring: BTreeMap<u64, String>,
        resources: Vec<Resource>,
        history: Vec<HistoryEntry>,
    },
    /// With the cluster's own facts and the ledger.
    V2 {
        revision: Revision,
        compacted: Revision,
        key_ring: BTreeMap<u64, String>,
        resources: Vec<Resource>,
        history: Vec<HistoryEntry>,
        cluster: Cluster,
        ledger: Box<Ledger>,
        /// Only where there is a node group.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        release: Option<Release>,
        /// Changes that the audit log does not have yet.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        unrecorded: Vec<Unrecorded>,
        /// What is known of plugin packages; their parts follow the state.
        #[serde(default, skip_serializing_if = "Packages::is_empty")]
        packages: Packages,
    },
}

impl StoredState {
    pub(crate) fn of(state: &State) -> Self {
        StoredState::V2 {
            revision: state.revision(),
            compacted: state.compacted(),
            key_ring: state.key_ring().clone(),
            resources: state.resources().values().map(|r| (**r).clone()).collect(),
            history: state.history().iter().map(|e| (**e).clone()).collect(),
            cluster: (**state.cluster()).clone(),
            ledger: Box::new((**state.ledger()).clone()),
            release: state.release().map(|r| (**r).clone()),
            unrecorded: state.outbox().iter().map(|u| (**u).clone()).collect(),
            packages: (**state.packages()).clone(),
        }
    }

    pub(crate) fn into_state(self) -> State {
        match self {
            StoredState::V1 { revision, compacted, key_ring, resources, history } => {
                State::from_parts(revision, resources, history, compacted, key_ring)
            }
            StoredState::V2 {
                revision,
                compacted,
                key_ring,
                resources,
                history,
                cluster,
                ledger,
                release,
                unrecorded,
                packages,
            } => {
                let state = State::from_parts(revision, resources, history, compacted, key_ring);
                state.with(cluster, *ledger).with_release(release).with_outbox(unrecorded).with_packages(packages)
            }
        }
    }
}

/// A part of a package.
#[derive(Serialize, Deserialize)]
struct StoredPart {
    #[serde(flatten)]
    key: PartKey,
    /// Base64.
    content: String,
}

/// Writes a state; `part` gives the parts of its packages.
pub(crate) fn write_state(
    mut out: &mut dyn Write,
    state: &State,
    part: &mut dyn FnMut(&PartKey) -> io::Result<Vec<u8>>,
) -> io::Result<()> {
    serde_json::to_writer(&mut out, &StoredState::of(state)).map_err(io::Error::from)?;
    for key in state.packages().parts() {
        let content = STANDARD.encode(part(&key)?);
        serde_json::to_writer(&mut out, &StoredPart { key, content }).map_err(io::Error::from)?;
    }
    Ok(())
}

/// Reads a state to the end; `keep` gets the parts of its packages.
pub(crate) fn read_state(
    source: impl Read,
    keep: &mut dyn FnMut(&PartKey, Vec<u8>) -> io::Result<()>,
) -> Result<State, serde_json::Error> {
    let mut documents = serde_json::Deserializer::from_reader(source);
    let state = StoredState::deserialize(&mut documents)?.into_state();
    let mut missing: BTreeSet<PartKey> = state.packages().parts().collect();
    for part in documents.into_iter::<StoredPart>() {
        let StoredPart { key, content } = part?;
        let content = STANDARD.decode(content).map_err(serde_json::Error::custom)?;
        if !missing.remove(&key) {
            return Err(serde_json::Error::custom(format!("a part of {} that it does not list", key.package)));
        }
        keep(&key, content).map_err(serde_json::Error::custom)?;
    }
    match missing.first() {
        Some(key) => Err(serde_json::Error::custom(format!("a part of {} is missing", key.package))),
        None => Ok(state),
    }
}
