//! What a GPU node says of itself, so that requests go to the node that answers soonest.

use std::collections::{BTreeMap, BTreeSet};

use crate::ModelInfo;

/// Where the weights of a model are, on one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ModelState {
    /// In the memory that they run in.
    Resident,
    /// On the way there.
    Loading,
    /// In files.
    OnDisk,
}

impl ModelState {
    /// Every state.
    pub const ALL: [Self; 3] = [Self::Resident, Self::Loading, Self::OnDisk];

    /// The state as the label of a metric.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Resident => "resident",
            Self::Loading => "loading",
            Self::OnDisk => "on_disk",
        }
    }
}

/// A model that a node can serve.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelReport {
    /// What it is.
    pub info: ModelInfo,
    /// Where its weights are.
    pub state: ModelState,
    /// Bytes of its weights.
    pub weight_bytes: u64,
    /// How long its weights take to load: measured if they were loaded before, else from their bytes. Milliseconds.
    pub load_ms: u64,
    /// Requests for it that wait.
    pub waiting: u64,
    /// Requests for it that run.
    pub running: u64,
    /// Tokens that one answer makes in a second, prompts included in the time; a mean of those that ended lately. 0: none has.
    pub tokens_per_s: f32,
}

/// A node with its queue.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GpuReport {
    /// The models that it can serve, in order of name.
    pub models: Vec<ModelReport>,
    /// The models that are there for some tenants only, by name, with these tenants.
    pub tenants: BTreeMap<String, BTreeSet<String>>,
    /// The models that are adapters, by name, with the model that each is over.
    pub bases: BTreeMap<String, String>,
    /// Requests that wait.
    pub waiting: u64,
    /// Requests that may wait.
    pub places: u64,
    /// Requests that run.
    pub running: u64,
    /// Requests that run at the same time, at most.
    pub slots: u64,
    /// The mean time in which a request runs, in milliseconds.
    pub service_ms: u64,
    /// When it is worth coming again if there is no place now, in milliseconds.
    pub retry_after_ms: u64,
    /// Bytes that models may take together.
    pub capacity_bytes: u64,
    /// Of these, bytes that weights and requests have.
    pub used_bytes: u64,
    /// It takes nothing new.
    pub draining: bool,
}

impl GpuReport {
    /// The model of this name.
    pub fn model(&self, name: &str) -> Option<&ModelReport> {
        self.models.iter().find(|model| model.info.name == name)
    }
}
