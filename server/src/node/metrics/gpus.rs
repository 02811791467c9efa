//! The GPU nodes that a data plane sends requests to.

use provost_data_serve::gpus::{GpuNodeView, GpuNodes};
use provost_types::ModelState;

use super::{Sample, float, label};

/// Name, help, and the value of a node.
type NodeGauge = (&'static str, &'static str, fn(&GpuNodeView) -> u64);

/// What nodes say of themselves, and what came of requests.
pub(super) fn of_nodes(gpus: &GpuNodes) -> Vec<Sample> {
    let views = gpus.views();
    let mut samples = of_views(&views);
    let counts = gpus.counts();
    samples.push(Sample {
        name: "provost_gpu_tried_again_total",
        labels: String::new(),
        help: "Requests that went to another GPU node because the first was lost or failed.",
        is_counter: true,
        value: float(counts.tried_again),
    });
    samples.extend([("full", counts.full), ("unreached", counts.unreached)].map(|(reason, count)| Sample {
        name: "provost_gpu_no_node_total",
        labels: format!("{{reason=\"{reason}\"}}"),
        help: "Requests refused because no GPU node had a place, or none could be asked.",
        is_counter: true,
        value: float(count),
    }));
    samples
}

fn of_views(views: &[GpuNodeView]) -> Vec<Sample> {
    let gauges: [NodeGauge; 4] = [
        ("provost_gpu_node_heard", "1 while a GPU node says what it can do.", |view| view.is_heard.into()),
        ("provost_gpu_node_aside", "1 while a GPU node gets no requests because some were lost.", |view| {
            view.is_aside.into()
        }),
        ("provost_gpu_node_waiting", "Requests that wait at a GPU node, by its word.", |view| view.report.waiting),
        ("provost_gpu_node_running", "Requests that run at a GPU node, by its word.", |view| view.report.running),
    ];
    let mut samples = Vec::new();
    for (name, help, value) in gauges {
        samples.extend(views.iter().map(|view| Sample {
            name,
            labels: format!("{{node=\"{}\"}}", label(&view.name)),
            help,
            is_counter: false,
            value: float(value(view)),
        }));
    }
    for view in views {
        samples.extend(ModelState::ALL.map(|state| Sample {
            name: "provost_gpu_node_models",
            labels: format!("{{node=\"{}\",state=\"{}\"}}", label(&view.name), state.as_str()),
            help: "Models that a GPU node can serve, by where their weights are.",
            is_counter: false,
            value: float(view.report.models.iter().filter(|model| model.state == state).count() as u64),
        }));
    }
    for view in views {
        let counts = [
            ("answered", view.counts.answered),
            ("refused", view.counts.refused),
            ("failed", view.counts.failed),
            ("lost", view.counts.lost),
        ];
        samples.extend(counts.map(|(outcome, count)| Sample {
            name: "provost_gpu_node_requests_total",
            labels: format!("{{node=\"{}\",outcome=\"{outcome}\"}}", label(&view.name)),
            help: "Requests sent to a GPU node, by what came of them.",
            is_counter: true,
            value: float(count),
        }));
    }
    samples
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use provost_data_serve::gpus::GpuNodeCounts;
    use provost_types::{GpuReport, ModelInfo, ModelKind, ModelReport};

    use super::*;

    #[test]
    fn a_node_is_told_with_its_models_and_what_came_of_requests() {
        let info = ModelInfo {
            name: "m".to_owned(),
            kind: ModelKind::Chat,
            architecture: "llama".to_owned(),
            context_tokens: 1,
            dimensions: 0,
            created: 0,
        };
        let model = |state| ModelReport {
            info: info.clone(),
            state,
            weight_bytes: 1,
            load_ms: 1,
            waiting: 0,
            running: 0,
            tokens_per_s: 0.0,
        };
        let models = vec![model(ModelState::Resident), model(ModelState::OnDisk), model(ModelState::OnDisk)];
        let view = GpuNodeView {
            name: "gpu-1".to_owned(),
            report: Arc::new(GpuReport { models, waiting: 7, ..GpuReport::default() }),
            is_heard: true,
            is_aside: false,
            counts: GpuNodeCounts { answered: 3, lost: 1, ..GpuNodeCounts::default() },
        };
        let samples = of_views(&[view]);
        let of = |name: &str, labels: &str| {
            samples.iter().find(|sample| sample.name == name && sample.labels == labels).unwrap().value
        };
        assert_eq!(of("provost_gpu_node_heard", "{node=\"gpu-1\"}"), 1.0);
        assert_eq!(of("provost_gpu_node_aside", "{node=\"gpu-1\"}"), 0.0);
        assert_eq!(of("provost_gpu_node_waiting", "{node=\"gpu-1\"}"), 7.0);
        assert_eq!(of("provost_gpu_node_models", "{node=\"gpu-1\",state=\"on_disk\"}"), 2.0);
        assert_eq!(of("provost_gpu_node_requests_total", "{node=\"gpu-1\",outcome=\"answered\"}"), 3.0);
        assert_eq!(of("provost_gpu_node_requests_total", "{node=\"gpu-1\",outcome=\"lost\"}"), 1.0);
    }
}
