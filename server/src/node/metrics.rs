//! The metrics endpoint: Prometheus text over plain HTTP, and beside it whether the node is there and ready.
//! `docs/observability.md` has a line for each metric.

mod audit;
mod calls;
mod certificate;
mod gpus;
mod groups;
mod listen;
mod models;
mod pages;

use std::{fmt::Write, sync::Arc, time::SystemTime};

use provost_audit_store::AuditNode;
use provost_control_api::{ControlNode, Subscribers};
use provost_data_serve::{gpus::GpuNodes, node::Node};
use provost_data_tools::{CORPUS_METRICS, EndpointView, Pressure, Wall};
use provost_gpu_serve::GpuNode;

pub use certificate::with_certificate;
pub use listen::serve;
pub use pages::{Pages, readiness};

/// One sample: name with labels, help, whether it only grows, value.
pub struct Sample {
    /// Metric name.
    pub name: &'static str,
    /// Labels in braces, or empty.
    pub labels: String,
    /// What it says.
    pub help: &'static str,
    /// Only grows.
    pub is_counter: bool,
    /// Its value now.
    pub value: f64,
}

/// What is asked at each scrape.
pub type Sampler = Arc<dyn Fn() -> Vec<Sample> + Send + Sync>;

/// The roles of this process, as far as it runs them.
#[derive(Default)]
pub struct Roles {
    /// Serves calls.
    pub node: Option<Arc<Node>>,
    /// Holds the resources.
    pub control: Option<ControlNode>,
    /// Takes nodes' word of what they run.
    pub subscribers: Option<Arc<dyn Subscribers>>,
    /// Runs models.
    pub gpu: Option<Arc<GpuNode>>,
    /// Sends requests to nodes that run models.
    pub gpus: Option<GpuNodes>,
}

/// What this process can say of itself, by the roles that it runs.
pub fn sampler(roles: Roles, audit: impl Fn() -> Option<AuditNode> + Send + Sync + 'static) -> Sampler {
    let started = SystemTime::now();
    Arc::new(move || {
        let mut samples = groups::of_process(started);
        if let Some(node) = roles.node.as_deref() {
            samples.extend(of_data_plane(node));
            samples.extend(calls::of_calls(node));
        }
        if let Some(gpu) = roles.gpu.as_deref() {
            samples.extend(models::of_models(gpu));
        }
        if let Some(gpus) = &roles.gpus {
            samples.extend(gpus::of_nodes(gpus));
        }
        let control = roles.control.as_ref().map(ControlNode::status);
        let writer = audit();
        if let Some(status) = &control {
            samples.push(groups::of_revision(status.revision));
        }
        let subscribers = roles.subscribers.as_ref().map(|all| all.subscribers()).unwrap_or_default();
        samples.extend(groups::of_subscribers(&subscribers));
        let audit_group = writer.as_ref().map(AuditNode::metrics);
        if let (Some(node), Some(group)) = (&writer, &audit_group) {
            samples.extend(audit::of_logs(&node.status()));
            samples.extend(audit::of_group(group));
        }
        let mut replicas = Vec::new();
        replicas.extend(control.as_ref().map(|status| ("control", &status.group)));
        replicas.extend(audit_group.as_ref().map(|group| ("audit", group)));
        samples.extend(groups::of_raft(&replicas));
        samples
    })
}

#[allow(clippy::cast_precision_loss, reason = "metrics are floats (Prometheus text format)")]
fn float(n: u64) -> f64 {
    n as f64
}

fn of_data_plane(node: &Node) -> Vec<Sample> {
    let mut samples = vec![Sample {
        name: "provost_active_revision",
        labels: String::new(),
        help: "The control-plane revision that calls run under.",
        is_counter: false,
        value: float(node.active_revision().0),
    }];
    samples.extend(node.state_age().flatten().map(|age| Sample {
        name: "provost_state_age_seconds",
        labels: String::new(),
        help: "Since a quorum of the control plane confirmed the state that calls run under.",
        is_counter: false,
        value: age.as_secs_f64(),
    }));
    samples.extend(node.counts().into_iter().map(|(outcome, count)| Sample {
        name: "provost_calls_total",
        labels: format!("{{outcome=\"{outcome}\"}}"),
        help: "Calls by how they ended.",
        is_counter: true,
        value: float(count),
    }));
    samples.extend(node.guard_counts().into_iter().map(|(kind, action, count)| Sample {
        name: "provost_guard_findings_total",
        labels: format!("{{kind=\"{kind}\",action=\"{action}\"}}"),
        help: "Values that guards found, by kind and by what was done about them.",
        is_counter: true,
        value: float(count),
    }));
    samples.extend(of_load(node));
    samples
}

/// Name, help, and the value of a plugin.
type Gauge = (&'static str, &'static str, fn(&Pressure) -> u64);

/// Name, help, and the value of an endpoint.
type EndpointGauge = (&'static str, &'static str, fn(&EndpointView) -> u64);

/// A text as the value of a label.
fn label(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Calls on the node and towards each upstream.
fn of_load(node: &Node) -> Vec<Sample> {
    let mut samples = vec![
        Sample {
            name: "provost_calls_running",
            labels: String::new(),
            help: "Calls that run on this node.",
            is_counter: false,
            value: f64::from(node.load().running()),
        },
        Sample {
            name: "provost_calls_shed_total",
            labels: String::new(),
            help: "Calls refused because as many ran as may.",
            is_counter: true,
            value: float(node.load().refused()),
        },
    ];
    let pressures = node.pressures();
    let gauges: [Gauge; 3] = [
        ("provost_upstream_open", "1 while a plugin's upstream fails and is not called.", |p| p.is_open.into()),
        ("provost_upstream_running", "Calls of a plugin that run on this node.", |p| p.running as u64),
        ("provost_upstream_waiting", "Calls of a plugin that wait for a place on this node.", |p| p.waiting as u64),
    ];
    for (name, help, value) in gauges {
        samples.extend(pressures.iter().map(|(tenant, plugin, pressure)| Sample {
            name,
            labels: format!("{{tenant=\"{tenant}\",plugin=\"{plugin}\"}}"),
            help,
            is_counter: false,
            value: float(value(pressure)),
        }));
    }
    let endpoints = node.endpoints();
    let gauges: [EndpointGauge; 3] = [
        ("provost_upstream_endpoint_ejected", "1 while an endpoint fails and gets no calls.", |e| e.is_ejected.into()),
        (
            "provost_upstream_endpoint_differs",
            "1 while an endpoint shows other tools than its plugin and gets no calls.",
            |e| e.differs.into(),
        ),
        ("provost_upstream_endpoint_running", "Calls that run at an endpoint.", |e| e.running.into()),
    ];
    for (name, help, value) in gauges {
        let all = endpoints.iter().flat_map(|(tenant, plugin, all)| all.iter().map(move |e| (tenant, plugin, e)));
        samples.extend(all.map(|(tenant, plugin, endpoint)| Sample {
            name,
            labels: format!("{{tenant=\"{tenant}\",plugin=\"{plugin}\",endpoint=\"{}\"}}", label(&endpoint.url)),
            help,
            is_counter: false,
            value: float(value(endpoint)),
        }));
    }
    let corpora = node.corpora();
    for metric in &CORPUS_METRICS {
        samples.extend(corpora.iter().map(|(tenant, plugin, corpus)| Sample {
            name: metric.name,
            labels: format!("{{tenant=\"{tenant}\",plugin=\"{plugin}\"}}"),
            help: metric.help,
            is_counter: metric.is_counter,
            value: float((metric.value)(corpus)),
        }));
    }
    for (tenant, plugin, walls) in node.walls() {
        samples.extend(Wall::ALL.into_iter().map(|wall| Sample {
            name: "provost_plugin_wall",
            labels: format!("{{tenant=\"{tenant}\",plugin=\"{plugin}\",wall=\"{}\"}}", wall.as_str()),
            help: "1 where a wall around the process of a stdio plugin stands, or none is asked for.",
            is_counter: false,
            value: if walls.stands(wall) { 1.0 } else { 0.0 },
        }));
    }
    samples
}

fn render(samples: &[Sample]) -> String {
    let mut text = String::new();
    let mut last = "";
    for sample in samples {
        // The parts of a histogram follow each other, its buckets first.
        let (family, kind) = match sample.name.strip_suffix("_bucket") {
            Some(family) => (family, "histogram"),
            None if is_part_of(last, sample.name) => (last, "histogram"),
            None if sample.is_counter => (sample.name, "counter"),
            None => (sample.name, "gauge"),
        };
        if family != last {
            let _ = writeln!(text, "# HELP {family} {0}\n# TYPE {family} {kind}", sample.help);
            last = family;
        }
        let _ = writeln!(text, "{}{} {}", sample.name, sample.labels, sample.value);
    }
    text
}

/// Whether a sample is the sum or the count of the histogram before it.
fn is_part_of(family: &str, name: &str) -> bool {
    name.strip_prefix(family).is_some_and(|part| part == "_sum" || part == "_count")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_metric_is_described_once() {
        let sample = |labels: &str, value| Sample {
            name: "provost_calls_total",
            labels: labels.to_owned(),
            help: "Calls.",
            is_counter: true,
            value,
        };
        let text = render(&[sample("{status=\"ok\"}", 3.0), sample("{status=\"denied\"}", 1.0)]);
        assert_eq!(
            text,
            "# HELP provost_calls_total Calls.\n# TYPE provost_calls_total counter\n\
             provost_calls_total{status=\"ok\"} 3\nprovost_calls_total{status=\"denied\"} 1\n"
        );
    }

    #[test]
    fn the_parts_of_a_histogram_are_one_family() {
        let sample = |name, labels: &str, value| Sample {
            name,
            labels: labels.to_owned(),
            help: "Time.",
            is_counter: true,
            value,
        };
        let text = render(&[
            sample("provost_x_seconds_bucket", "{le=\"0.1\"}", 1.0),
            sample("provost_x_seconds_sum", "", 0.05),
            sample("provost_x_seconds_count", "", 1.0),
            sample("provost_y_total", "", 2.0),
        ]);
        assert_eq!(
            text,
            "# HELP provost_x_seconds Time.\n# TYPE provost_x_seconds histogram\n\
             provost_x_seconds_bucket{le=\"0.1\"} 1\nprovost_x_seconds_sum 0.05\nprovost_x_seconds_count 1\n\
             # HELP provost_y_total Time.\n# TYPE provost_y_total counter\nprovost_y_total 2\n"
        );
    }
}
