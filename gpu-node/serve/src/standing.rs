//! How models stand on a node, for those who administer it.

use provost_gpu_vram::{Priority, Standing};
use provost_types::{FileDigest, ModelFormat, ModelPriority};

use crate::copies::ModelCopy;

/// How a model stands on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelStanding {
    /// Its name.
    pub name: String,
    /// A resource declares it; else it is of the node's own directory.
    pub declared: bool,
    /// The digest under which it is stored, if it is.
    pub digest: Option<FileDigest>,
    /// The form of its files, once they could be read.
    pub format: Option<ModelFormat>,
    /// What most of its weights are stored as.
    pub dtype: String,
    /// Its architecture.
    pub architecture: String,
    /// Bytes of its weights in memory.
    pub bytes: u64,
    /// Where it stands.
    pub state: ModelState,
    /// Why it cannot be used, if it cannot.
    pub reason: String,
    /// It stays in memory.
    pub pinned: bool,
    /// How much it matters.
    pub priority: ModelPriority,
    /// Requests that use it now.
    pub leases: u32,
    /// Requests that wait for it now.
    pub waiting: u32,
    /// How far its copy from another node is, while that is under way.
    pub copy: Option<ModelCopy>,
}

/// Where a model stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelState {
    /// Its files are not on the node.
    Missing,
    /// Its files are being copied from another node.
    Copying,
    /// Its files cannot be used.
    Failed,
    /// It is not in memory.
    Absent,
    /// It is being read into memory.
    Loading,
    /// It is in memory.
    Ready,
    /// It goes as soon as nobody uses it.
    Draining,
}

impl ModelState {
    /// The state in one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Copying => "copying",
            Self::Failed => "failed",
            Self::Absent => "absent",
            Self::Loading => "loading",
            Self::Ready => "ready",
            Self::Draining => "draining",
        }
    }

    /// State and requests of weights as the arbiter has them.
    pub(crate) fn of(standing: Standing) -> (Self, u32) {
        match standing {
            Standing::Absent => (Self::Absent, 0),
            Standing::Loading => (Self::Loading, 0),
            Standing::Ready { leases } => (Self::Ready, leases),
            Standing::Draining { leases } => (Self::Draining, leases),
        }
    }
}

/// How much a model matters, as the arbiter has it.
pub(crate) fn class_of(priority: ModelPriority) -> Priority {
    match priority {
        ModelPriority::Background => Priority::Background,
        ModelPriority::Normal => Priority::Normal,
        ModelPriority::Critical => Priority::Critical,
    }
}

/// How much a model matters, as people write it.
pub(crate) fn priority_of(class: Priority) -> ModelPriority {
    match class {
        Priority::Background => ModelPriority::Background,
        Priority::Normal => ModelPriority::Normal,
        Priority::Critical => ModelPriority::Critical,
    }
}
