//! The GPU node of this process, as administrators ask it.

use std::sync::Arc;

use provost_gpu_serve::{
    GpuNode, ModelCopy, ModelOrder, ModelStanding, Removal, StoredModel, TuningStanding, TuningState,
};
use provost_types::{BoxFuture, ModelFormat};
use provost_wire::models::{self as wire, ModelOnNode, ModelOrderRequest, ModelsOfNode};

use super::{ModelNodes, Question};

/// The GPU node of this process.
#[derive(Clone)]
pub struct Here {
    gpu: Arc<GpuNode>,
    node: String,
}

impl Here {
    /// The node of this name.
    pub fn new(gpu: Arc<GpuNode>, node: String) -> Self {
        Self { gpu, node }
    }

    /// Answers for this node.
    pub async fn answer(&self, question: Question) -> ModelsOfNode {
        let node = self.node.clone();
        let answer = match question {
            Question::Status(asked) => {
                let mut all = self.gpu.standings().await;
                all.retain(|standing| asked.name.is_empty() || standing.name == asked.name);
                Ok(of_models(all))
            }
            Question::Order(asked) => match order_of(&asked) {
                None => Err(unknown_order(&asked.order)),
                Some(order) => {
                    let followed = self.gpu.order(&asked.name, order).await;
                    followed.map(|standing| of_models(vec![standing])).map_err(|refusal| refusal.to_string())
                }
            },
            Question::Remove(asked) => {
                let what = if asked.model.is_empty() { Removal::Unused } else { Removal::Of(asked.model) };
                let removed = self.gpu.remove_stored(what, asked.dry_run).await;
                removed.map(of_stored).map_err(|refusal| refusal.to_string())
            }
            Question::Tunings(asked) => {
                let tunings = self.gpu.tunings().await.map(|mut all| {
                    all.retain(|task| asked.name.is_empty() || task.name == asked.name);
                    of_tunings(all)
                });
                tunings.map_err(|refusal| refusal.to_string())
            }
            Question::CancelTuning(asked) => {
                let cancelled = self.gpu.cancel_tuning(&asked.name).await;
                cancelled.map(|task| of_tunings(vec![task])).map_err(|refusal| refusal.to_string())
            }
        };
        match answer {
            Ok(answer) => ModelsOfNode { node, ..answer },
            Err(problem) => ModelsOfNode { node, problem, ..ModelsOfNode::default() },
        }
    }
}

fn of_models(models: Vec<ModelStanding>) -> ModelsOfNode {
    ModelsOfNode { models: models.into_iter().map(on_wire).collect(), ..ModelsOfNode::default() }
}

fn of_stored(stored: Vec<StoredModel>) -> ModelsOfNode {
    ModelsOfNode { stored: stored.into_iter().map(stored_on_wire).collect(), ..ModelsOfNode::default() }
}

fn of_tunings(tunings: Vec<TuningStanding>) -> ModelsOfNode {
    ModelsOfNode { tunings: tunings.into_iter().map(tuning_on_wire).collect(), ..ModelsOfNode::default() }
}

impl ModelNodes for Here {
    fn ask(&self, question: Question) -> BoxFuture<'_, Vec<ModelsOfNode>> {
        Box::pin(async move {
            if !question.node().is_empty() && question.node() != self.node {
                return Vec::new();
            }
            vec![self.answer(question).await]
        })
    }
}

/// The order that a request has; none: it has none that is known.
pub(super) fn order_of(asked: &ModelOrderRequest) -> Option<ModelOrder> {
    match asked.order.as_str() {
        "load" => Some(ModelOrder::Load),
        "unload" => Some(ModelOrder::Unload { drain: asked.drain }),
        "pin" => Some(ModelOrder::Pin),
        "unpin" => Some(ModelOrder::Unpin),
        _ => None,
    }
}

pub(super) fn unknown_order(order: &str) -> String {
    format!("PV-MODEL-ORDER: `{order}` is no order; use load, unload, pin or unpin")
}

fn stored_on_wire(stored: StoredModel) -> wire::StoredModel {
    let StoredModel { digest, name, bytes, used_by, in_use, removed } = stored;
    wire::StoredModel { digest: digest.to_string(), name, bytes, used_by, in_use, removed }
}

fn tuning_on_wire(task: TuningStanding) -> wire::Tuning {
    let is_complete = task.state == TuningState::Complete;
    let adapter = if is_complete { task.adapter.display().to_string() } else { String::new() };
    wire::Tuning {
        name: task.name,
        model: task.model,
        state: task.state.as_str().to_owned(),
        step: task.step,
        steps: task.steps,
        loss: task.loss,
        reason: task.reason,
        adapter,
    }
}

fn on_wire(standing: ModelStanding) -> ModelOnNode {
    let priority = format!("{:?}", standing.priority).to_lowercase();
    let copy = standing.copy.unwrap_or(ModelCopy { bytes: 0, of: 0, from: String::new() });
    ModelOnNode {
        name: standing.name,
        declared: standing.declared,
        digest: standing.digest.map(|digest| digest.to_string()).unwrap_or_default(),
        format: standing.format.map(ModelFormat::as_str).unwrap_or_default().to_owned(),
        dtype: standing.dtype,
        architecture: standing.architecture,
        bytes: standing.bytes,
        state: standing.state.as_str().to_owned(),
        reason: standing.reason,
        pinned: standing.pinned,
        priority,
        leases: standing.leases,
        waiting: standing.waiting,
        copied_bytes: copy.bytes,
        copy_bytes: copy.of,
        copied_from: copy.from,
    }
}
