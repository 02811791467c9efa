//! The metrics endpoint: Prometheus text over plain HTTP.

use std::{convert::Infallible, fmt::Write, sync::Arc};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use provost_audit_store::{AuditNode, AuditStatus, GroupMetrics};
use provost_data_serve::node::Node;
use provost_data_tools::{CORPUS_METRICS, EndpointView, Pressure, Wall};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

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

/// Serves `/metrics` until cancelled.
pub async fn serve(listener: TcpListener, sampler: Sampler, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else { continue };
        let sampler = sampler.clone();
        let stop = stop.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let response = respond(request.uri().path(), &sampler);
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::select! { _ = connection => (), () = stop.cancelled() => () }
        });
    }
}

/// What this process can say of itself, by the roles that it runs.
pub fn sampler(node: Option<Arc<Node>>, audit: impl Fn() -> Option<AuditNode> + Send + Sync + 'static) -> Sampler {
    Arc::new(move || {
        let mut samples = node.as_deref().map(of_data_plane).unwrap_or_default();
        if let Some(audit) = audit() {
            samples.extend(of_audit_log(&audit.status()));
            samples.extend(of_audit_group(&audit.metrics()));
        }
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

fn of_audit_log(status: &[AuditStatus]) -> Vec<Sample> {
    let mut samples: Vec<Sample> = status
        .iter()
        .map(|log| Sample {
            name: "provost_audit_records",
            labels: format!("{{log=\"{}\"}}", log.origin),
            help: "Records in each audit log.",
            is_counter: false,
            value: float(log.size),
        })
        .collect();
    samples.extend(status.iter().map(|log| Sample {
        name: "provost_audit_signed_records",
        labels: format!("{{log=\"{}\"}}", log.origin),
        help: "Records of each audit log that a checkpoint covers.",
        is_counter: false,
        value: float(log.signed_size),
    }));
    samples.extend(status.iter().map(|log| Sample {
        name: "provost_audit_held_records",
        labels: format!("{{log=\"{}\"}}", log.origin),
        help: "Records of each audit log whose checkpoint the control plane holds, as the leader knows it.",
        is_counter: false,
        value: float(log.held_size),
    }));
    samples.extend(status.iter().filter(|log| log.cosigned_size > 0).map(|log| Sample {
        name: "provost_audit_cosigned_records",
        labels: format!("{{log=\"{}\"}}", log.origin),
        help: "Records of the audit log whose checkpoint a witness has cosigned.",
        is_counter: false,
        value: float(log.cosigned_size),
    }));
    samples
}

fn of_audit_group(group: &GroupMetrics) -> Vec<Sample> {
    let gauge =
        |name, help, value: u64| Sample { name, labels: String::new(), help, is_counter: false, value: float(value) };
    let count = |ids: &std::collections::BTreeSet<u64>| ids.len() as u64;
    vec![
        gauge("provost_audit_voters", "Voters of the audit log's group, as this node sees it.", count(&group.voters)),
        gauge(
            "provost_audit_learners",
            "Replicas of the audit log that do not vote yet, as this node sees it.",
            count(&group.learners),
        ),
        gauge(
            "provost_audit_leader",
            "The number of the node that leads the audit log's group; 0: none is known.",
            group.leader.unwrap_or_default(),
        ),
    ]
}

fn respond(path: &str, sampler: &Sampler) -> Response<Full<Bytes>> {
    let (status, kind, body) = match path {
        "/metrics" => (StatusCode::OK, "text/plain; version=0.0.4", render(&sampler())),
        _ => (StatusCode::NOT_FOUND, "text/plain", "metrics are at /metrics\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", http::HeaderValue::from_static(kind));
    response
}

fn render(samples: &[Sample]) -> String {
    let mut text = String::new();
    let mut last = "";
    for sample in samples {
        if sample.name != last {
            let kind = if sample.is_counter { "counter" } else { "gauge" };
            let _ = writeln!(text, "# HELP {0} {1}\n# TYPE {0} {kind}", sample.name, sample.help);
            last = sample.name;
        }
        let _ = writeln!(text, "{}{} {}", sample.name, sample.labels, sample.value);
    }
    text
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
}
