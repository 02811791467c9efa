//! The two states that are compared, as they travel, and compiled.

use std::sync::Arc;

use parking_lot::Mutex;
use provost_data_serve::node::Judge;
use provost_types::{Kind, Name, Resource, Resources, Revision, Snapshot};
use provost_wire::admin::Failure;
use serde::{Deserialize, Serialize};
use tonic::{Code, Status};

/// The most that the states of one tenant may take as they travel.
pub const MAX_STATES_BYTES: usize = 32 << 20;
/// What decisions depend on, and names that stand for tools which they are about.
const KINDS: [Kind; 7] =
    [Kind::Tenant, Kind::Principal, Kind::Role, Kind::RoleBinding, Kind::Policy, Kind::Plugin, Kind::ToolAlias];

/// One tenant's part of both states: the present one, and what is different in the candidate.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct States {
    revision: Revision,
    before: Vec<Resource>,
    put: Vec<Resource>,
}

impl States {
    /// The part of one tenant.
    pub fn of(tenant: &Name, current: &Snapshot, candidate: &Snapshot) -> Self {
        let own = |snapshot: &Snapshot| -> Vec<Arc<Resource>> {
            KINDS.into_iter().flat_map(|kind| of_tenant(snapshot, kind, tenant)).collect()
        };
        let (before, after) = (own(current), own(candidate));
        let put = after.iter().filter(|r| current.get(&r.key()) != Some(*r)).map(|r| (**r).clone()).collect();
        let before = before.iter().map(|r| (**r).clone()).collect();
        Self { revision: current.revision, before, put }
    }

    /// As bytes.
    pub fn encode(&self) -> Result<Vec<u8>, Status> {
        let bytes = serde_json::to_vec(self).map_err(|e| Status::internal(e.to_string()))?;
        if bytes.len() > MAX_STATES_BYTES {
            let text = format!("the tenant's policies, roles and principals take {} bytes", bytes.len());
            let hint = format!("at most {MAX_STATES_BYTES} can be compared");
            return Err(Failure::new("PV-SIM-TOO-LARGE", text, hint).into_status(Code::ResourceExhausted));
        }
        Ok(bytes)
    }

    /// The snapshots: the present one, and the candidate.
    pub fn snapshots(self) -> (Snapshot, Snapshot) {
        let keyed = |list: Vec<Resource>| list.into_iter().map(|r| (r.key(), Arc::new(r)));
        let before: Resources = keyed(self.before).collect();
        let mut after = before.clone();
        after.extend(keyed(self.put));
        let next = Revision(self.revision.0 + 1);
        (Snapshot { revision: self.revision, resources: before }, Snapshot { revision: next, resources: after })
    }
}

/// The tenant's resources of one kind; of kind `Tenant`, the tenant itself.
pub fn of_tenant(snapshot: &Snapshot, kind: Kind, tenant: &Name) -> Vec<Arc<Resource>> {
    match kind {
        Kind::Tenant => {
            let named = snapshot.of_kind(kind).filter(|r| r.metadata.name == *tenant);
            named.cloned().collect()
        }
        _ => snapshot.of_tenant(kind, tenant).cloned().collect(),
    }
}

/// Both states, compiled.
pub struct Judges {
    /// As it is.
    pub before: Judge,
    /// As it would be.
    pub after: Judge,
}

impl Judges {
    /// Compiles both. That they compile was checked when the candidate was made.
    pub fn new(before: &Snapshot, after: &Snapshot) -> Result<Self, Status> {
        let compile = |snapshot| {
            Judge::new(snapshot).map_err(|problems| {
                let text = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
                Failure::new("PV-SIM-STATES", text, "do all nodes run the same version?")
                    .into_status(Code::FailedPrecondition)
            })
        };
        Ok(Self { before: compile(before)?, after: compile(after)? })
    }
}

/// The states that were compiled last: the pages of one comparison have the same.
#[derive(Default)]
pub struct JudgeCache(Mutex<Option<(blake3::Hash, Arc<Judges>)>>);

impl JudgeCache {
    /// Both states, compiled now or before. Blocking.
    pub fn get(&self, encoded: &[u8]) -> Result<Arc<Judges>, Status> {
        let hash = blake3::hash(encoded);
        if let Some((known, judges)) = &*self.0.lock()
            && *known == hash
        {
            return Ok(judges.clone());
        }
        let states: States = serde_json::from_slice(encoded)
            .map_err(|e| Status::invalid_argument(format!("PV-ADMIN-REQUEST: the states cannot be read: {e}")))?;
        let (before, after) = states.snapshots();
        let judges = Arc::new(Judges::new(&before, &after)?);
        *self.0.lock() = Some((hash, judges.clone()));
        Ok(judges)
    }
}
