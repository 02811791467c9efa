//! A certificate for agents that the cluster's CA issues, renewed while the node serves.
//!
//! Invariants: a node that has had a certificate for its names starts without asking anybody; one that
//! never had one waits for it, and does not start where its operator refuses it the names. A renewal that
//! fails is tried again, and what is served stays what it was.

use std::{sync::Arc, time::SystemTime};

use provost_control_api::identity::{AgentCertificate, HeldCertificate, IdentityError, until_due};
use rustls::sign::CertifiedKey;
use tokio::time::{Duration, Instant, sleep};

use super::current::{Current, certified};
use crate::{failure::Failure, node::doors::Following};

/// A node without any certificate waits so long for its first.
const FIRST_LIMIT: Duration = Duration::from_secs(120);
/// Between two tries for it.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// What people are told to do.
const HINT: &str = "a control-plane node must answer, and [[agent_names]] in its file must let this node have the \
                    names of data_plane.hosts and data_plane.public_url";

/// The certificate of now, and what keeps it new, which never ends by itself.
pub async fn certified_by_cluster(certificate: AgentCertificate) -> anyhow::Result<(Arc<Current>, Following)> {
    let held = match certificate.kept() {
        Some(kept) => kept,
        None => first(&certificate).await?,
    };
    let current = Current::of(usable(&held)?);
    let following = follow(certificate, held, current.clone());
    Ok((current, Box::pin(following)))
}

async fn first(certificate: &AgentCertificate) -> anyhow::Result<HeldCertificate> {
    let began = Instant::now();
    loop {
        let error = match certificate.renew().await {
            Ok(held) => return Ok(held),
            Err(error) => error,
        };
        if is_final(&error) || began.elapsed() > FIRST_LIMIT {
            let text = format!("the cluster's CA certifies this node not for agents: {error}");
            let code = if is_final(&error) { error.code().to_owned() } else { "PV-TLS-AGENTS".to_owned() };
            return Err(Failure::new(&code, text, HINT).into());
        }
        tracing::info!(code = error.code(), %error, "no certificate for agents yet");
        sleep(FIRST_PAUSE).await;
    }
}

/// Whether asking again cannot help until the configuration is another.
fn is_final(error: &IdentityError) -> bool {
    matches!(error.code(), "PV-TLS-AGENT-NAMES" | "PV-TLS-ROLE" | "PV-CA-NONE")
}

fn usable(held: &HeldCertificate) -> anyhow::Result<CertifiedKey> {
    certified("the certificate for agents", held.material.certificate.as_bytes(), held.material.key.as_bytes())
}

async fn follow(certificate: AgentCertificate, mut held: HeldCertificate, current: Arc<Current>) {
    let mut wait = held.renewal_in(SystemTime::now());
    loop {
        until_due(held.begins(), wait).await;
        let renewed = certificate.renew().await.map_err(|e| (e.code().to_owned(), e.to_string()));
        let renewed = renewed.and_then(|newer| match usable(&newer) {
            Ok(pair) => Ok((newer, pair)),
            Err(cause) => Err(("PV-TLS-CERTIFICATE".to_owned(), cause.to_string())),
        });
        let now = SystemTime::now();
        wait = match renewed {
            Ok((newer, pair)) => {
                current.replace(pair);
                held = newer;
                held.renewal_in(now)
            }
            Err((code, cause)) => {
                let left_s = held.ends().duration_since(now).unwrap_or_default().as_secs();
                if left_s == 0 {
                    tracing::error!(code = "PV-TLS-AGENTS", because = code, %cause, next = HINT,
                        "the certificate for agents has ended: they refuse this node");
                } else {
                    tracing::warn!(code = "PV-TLS-AGENTS", because = code, %cause, left_s,
                        "the certificate for agents was not renewed yet");
                }
                held.retry_in(now)
            }
        };
    }
}
