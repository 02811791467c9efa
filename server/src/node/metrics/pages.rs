//! What the listener of `/metrics` answers: metrics, and how the process stands for whoever starts and ends it.
//!
//! Invariants: `/healthz` needs nobody else, so that a node which waits for others is not ended for it; `/readyz` and
//! `/metrics` say 503 until the roles have started.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use provost_audit_store::{AuditNode, GroupMetrics};
use provost_control_api::ControlNode;

use super::{Sampler, render};

/// A replica that has so many entries still to apply is not ready: it catches up after a start.
const MAX_BEHIND_ENTRIES: u64 = 1_000;
/// A leader that no quorum has answered for so long leads nobody. Elections and pauses of a busy machine are shorter.
const QUORUM_LIMIT: Duration = Duration::from_secs(10);

/// Whether this node takes its part; else why not.
pub type Ready = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// What is answered; until the roles have started only that the process is there. Clones share it.
#[derive(Clone, Default)]
pub struct Pages {
    started: Arc<OnceLock<Started>>,
}

struct Started {
    sampler: Sampler,
    ready: Ready,
}

impl Pages {
    /// The roles have started. The first word counts.
    pub fn start(&self, sampler: Sampler, ready: Ready) {
        let _ = self.started.set(Started { sampler, ready });
    }

    pub(super) fn respond(&self, path: &str) -> Response<Full<Bytes>> {
        let starting = || (StatusCode::SERVICE_UNAVAILABLE, "text/plain", "starting\n".to_owned());
        let (status, kind, body) = match (path, self.started.get()) {
            ("/healthz", _) => (StatusCode::OK, "text/plain", "ok\n".to_owned()),
            ("/readyz" | "/metrics", None) => starting(),
            ("/metrics", Some(started)) => (StatusCode::OK, "text/plain; version=0.0.4", render(&(started.sampler)())),
            ("/readyz", Some(started)) => match (started.ready)() {
                Ok(()) => (StatusCode::OK, "text/plain", "ready\n".to_owned()),
                Err(why) => (StatusCode::SERVICE_UNAVAILABLE, "text/plain", format!("{why}\n")),
            },
            _ => (StatusCode::NOT_FOUND, "text/plain", "there are /metrics, /readyz and /healthz\n".to_owned()),
        };
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = status;
        response.headers_mut().insert("content-type", HeaderValue::from_static(kind));
        response
    }
}

/// Ready is a node whose replicas, if it has any, take part in their groups.
pub fn readiness(control: Option<ControlNode>, audit: impl Fn() -> Option<AuditNode> + Send + Sync + 'static) -> Ready {
    Arc::new(move || {
        if let Some(node) = &control {
            takes_part("control", &node.status().group)?;
        }
        match audit() {
            Some(node) => takes_part("audit", &node.metrics()),
            None => Ok(()),
        }
    })
}

fn takes_part(group: &str, metrics: &GroupMetrics) -> Result<(), String> {
    let leads = metrics.leader.map(|leader| leader == metrics.node_id);
    let behind = metrics.committed.unwrap_or(0).saturating_sub(metrics.applied.unwrap_or(0));
    match lacks(leads, behind, metrics.quorum_acked_ago.unwrap_or_default()) {
        Some(what) => Err(format!("group {group}: {what}")),
        None => Ok(()),
    }
}

/// What keeps a replica from its part. `leads`: whether it leads; `None`: it knows of nobody who does.
fn lacks(leads: Option<bool>, behind: u64, quorum_silent: Duration) -> Option<String> {
    match leads {
        None => Some("no leader is known".to_owned()),
        Some(true) if quorum_silent > QUORUM_LIMIT => {
            Some(format!("no quorum has answered for {} s", quorum_silent.as_secs()))
        }
        Some(_) if behind > MAX_BEHIND_ENTRIES => Some(format!("{behind} entries are not applied yet")),
        Some(_) => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::{super::Sample, *};

    fn statuses(pages: &Pages) -> [u16; 4] {
        ["/healthz", "/readyz", "/metrics", "/"].map(|path| pages.respond(path).status().as_u16())
    }

    #[test]
    fn a_process_is_alive_before_it_is_ready_and_while_it_is_not() {
        let pages = Pages::default();
        assert_eq!(statuses(&pages), [200, 503, 503, 404]);
        let lacking = Arc::new(AtomicBool::new(false));
        let is_lacking = lacking.clone();
        let ready: Ready = Arc::new(move || match is_lacking.load(Ordering::Relaxed) {
            true => Err("group control: no leader is known".to_owned()),
            false => Ok(()),
        });
        pages.start(Arc::new(Vec::<Sample>::new), ready);
        assert_eq!(statuses(&pages), [200, 200, 200, 404]);
        lacking.store(true, Ordering::Relaxed);
        assert_eq!(statuses(&pages), [200, 503, 200, 404]);
    }

    #[test]
    fn a_replica_is_ready_that_knows_its_leader_and_has_caught_up() {
        let second = Duration::from_secs(1);
        for (leads, behind, silent, expect) in [
            (None, 0, Duration::ZERO, Some("no leader")),
            (Some(false), 0, Duration::ZERO, None),
            (Some(false), MAX_BEHIND_ENTRIES, Duration::ZERO, None),
            (Some(false), MAX_BEHIND_ENTRIES + 1, Duration::ZERO, Some("not applied")),
            (Some(true), 0, QUORUM_LIMIT, None),
            (Some(true), 0, QUORUM_LIMIT + second, Some("no quorum")),
        ] {
            let said = lacks(leads, behind, silent);
            assert_eq!(said.is_some(), expect.is_some(), "{leads:?} {behind} {silent:?}: {said:?}");
            assert!(said.unwrap_or_default().contains(expect.unwrap_or_default()));
        }
    }
}
