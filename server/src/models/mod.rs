//! Models as administrators see them: what nodes are told of them, and what is asked and ordered.
//!
//! Purpose: `declare` hands a state's models to the GPU node of this process, once its data plane, if it has one, runs that state;
//! `Here` answers for that node, to the admin listener of the same process or to control-plane nodes (`roles/models`); `routes` is the
//! service for administrators.
//! Invariants: only administrators of the cluster are answered; an order that cannot be recorded is not passed on.
//! Left out: what an order does (`provost-gpu-serve`), and the import of a model, which is between a person and a disk
//! (`cli/model`).

mod admin;
mod here;

use std::sync::Arc;

use provost_gpu_serve::GpuNode;
use provost_types::{BoxFuture, Snapshot};
use provost_wire::models::{ModelOrderRequest, ModelRemoveRequest, ModelStatusRequest, ModelsOfNode, TuningsRequest};

pub use admin::routes;
pub use here::Here;

/// What an administrator asks.
#[derive(Clone, Debug)]
pub enum Question {
    Status(ModelStatusRequest),
    Order(ModelOrderRequest),
    Remove(ModelRemoveRequest),
    Tunings(TuningsRequest),
    CancelTuning(TuningsRequest),
}

impl Question {
    /// The node that is meant; empty: all.
    pub fn node(&self) -> &str {
        match self {
            Self::Status(asked) => &asked.node,
            Self::Order(asked) => &asked.node,
            Self::Remove(asked) => &asked.node,
            Self::Tunings(asked) | Self::CancelTuning(asked) => &asked.node,
        }
    }
}

/// The nodes that serve models.
pub trait ModelNodes: Send + Sync + 'static {
    /// The answer of each node that is meant, in order of their names.
    fn ask(&self, question: Question) -> BoxFuture<'_, Vec<ModelsOfNode>>;
}

/// Serves the models that a state declares. Headers of their files are read, aside from what serves calls.
pub async fn declare(gpu: &Arc<GpuNode>, state: Arc<Snapshot>) {
    let gpu = gpu.clone();
    if let Err(cause) = tokio::task::spawn_blocking(move || gpu.declare(&state)).await {
        tracing::error!(%cause, "the models of the state are not served; the next change tries again");
    }
}
