//! Keeping a certificate fresh.
//!
//! Each renewal makes a new key. The new pair is durable before it is used, so a restart finds what
//! the peers have seen last.
//!
//! Clocks may be wrong. A certificate begins [`BACKDATE`] before the time that the issuer's clock
//! says: where that is still to come, peers refuse it, for as long as the clock was ahead. So one that
//! another node issues with such a beginning is not taken while the present one holds, and one in use
//! is replaced once the clock here was set back.

use std::{
    collections::{BTreeMap, VecDeque},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use aws_lc_rs::rand;
use provost_control_state::Cluster;
use provost_wire::{
    admin::Failure,
    node::{RenewRequest, identity_client::IdentityClient, join_client::JoinClient},
    tls::{
        BACKDATE, Certified, Expect, Identity, Material, Role, TlsError, certificates, channel, readmit_channel,
        validity_of,
    },
};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use super::{
    Certifier, IdentityError, Issued, KeyRequest, NodeKey, NodeRecord, NotMember, Registry, readmit, standing,
};
use crate::ControlError;

/// Renewal comes when this share of the life has passed, or up to [`JITTER`] of the life before, so
/// that nodes that joined together do not come together.
const RENEW_AT: f64 = 2.0 / 3.0;
const JITTER: f64 = 0.1;
/// After a failure: a share of what is left, within bounds.
const RETRY_SHARE: u32 = 20;
const RETRY_LEAST: Duration = Duration::from_millis(200);
const RETRY_MOST: Duration = Duration::from_secs(60);
/// After a failure once the certificate has ended, and between two looks at whether it has begun:
/// peers refuse the node until it has a new one.
const RETRY_ENDED: Duration = Duration::from_secs(10);
/// The longest wait for an answer.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// Gets a certificate for a key.
#[tonic::async_trait]
pub trait Renewer: Send + Sync {
    /// `request` is PKCS #10, DER.
    async fn renew(&self, request: Vec<u8>) -> Result<Issued, IdentityError>;
}

/// Asks the control plane, over a new connection each time: the right to renew is shown by the present
/// certificate, and a connection shows the one that it was made with. After a failure another node is
/// asked. A certificate that does not hold now is shown in the request instead (see `Readmit`).
pub struct RemoteRenewer {
    pub(super) identity: Arc<Identity>,
    /// What this node was told at its start: what the control plane says of itself may not be
    /// reachable from here.
    configured: Vec<String>,
    /// Those and what the control plane said; the next to ask is the first.
    addresses: Mutex<VecDeque<String>>,
}

impl RemoteRenewer {
    /// By control-plane nodes at these addresses, `host:port`; at least one.
    pub fn new(identity: Arc<Identity>, control_plane: &[String]) -> Result<Self, TlsError> {
        if control_plane.is_empty() {
            return Err(TlsError::Address(String::new()));
        }
        for address in control_plane {
            // Makes no connection yet.
            channel(identity.clone(), address, Expect::role(Role::ControlPlane))?;
        }
        let addresses = Mutex::new(control_plane.iter().cloned().collect());
        Ok(Self { identity, configured: control_plane.to_vec(), addresses })
    }

    pub(super) fn addresses(&self) -> MutexGuard<'_, VecDeque<String>> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask(&self, address: &str, request: Vec<u8>) -> Result<Issued, IdentityError> {
        let answer = if self.identity.certified().holds(SystemTime::now()) {
            let channel = channel(self.identity.clone(), address, Expect::role(Role::ControlPlane))?;
            let mut call = tonic::Request::new(RenewRequest { csr: request.into() });
            call.set_timeout(ANSWER_LIMIT);
            IdentityClient::new(channel).renew(call).await
        } else {
            let mut call = tonic::Request::new(readmit::request(&self.identity, request)?);
            call.set_timeout(ANSWER_LIMIT);
            JoinClient::new(readmit_channel(&self.identity, address).await?).readmit(call).await
        };
        let answer = answer.map_err(|status| IdentityError::Refused(Failure::of(&status)))?.into_inner();
        let control_plane = answer.control_plane.into_iter().collect();
        Ok(Issued { certificate: answer.certificate, bundle: answer.bundle, control_plane })
    }

    /// One that others would refuse is no good while the present one is.
    fn begun(&self, issued: Issued) -> Result<Issued, IdentityError> {
        let now = SystemTime::now();
        let chain = certificates("the new certificate", &issued.certificate)?;
        let begins = chain.first().map(validity_of).transpose()?.map_or(now, |(begins, _)| begins);
        if begins > now && self.identity.certified().holds(now) {
            let ahead_s = begins.duration_since(now).unwrap_or_default().as_secs();
            let text =
                format!("its certificate begins only in {ahead_s} s: the clock of this node or of that one is wrong");
            return Err(IdentityError::Answer(text));
        }
        Ok(issued)
    }

    fn learn(&self, control_plane: &BTreeMap<String, String>) {
        let mut addresses = self.addresses();
        let said = |a: &String| control_plane.values().any(|s| s == a);
        addresses.retain(|a| said(a) || self.configured.contains(a));
        for new in control_plane.values().filter(|a| !a.is_empty()) {
            if !addresses.contains(new) {
                addresses.push_back(new.clone());
            }
        }
    }
}

#[tonic::async_trait]
impl Renewer for RemoteRenewer {
    async fn renew(&self, request: Vec<u8>) -> Result<Issued, IdentityError> {
        let address = self.addresses().front().cloned().unwrap_or_default();
        let asked = self.ask(&address, request).await.and_then(|issued| self.begun(issued));
        match &asked {
            Ok(issued) => self.learn(&issued.control_plane),
            Err(_) => self.addresses().rotate_left(1),
        }
        asked
    }
}

/// A control-plane node certifies itself from its own state: it needs no peer and no quorum, so a
/// cluster that was off for longer than a certificate lives comes back by itself.
pub struct LocalRenewer {
    pub(super) identity: Arc<Identity>,
    pub(super) certifier: Arc<Certifier>,
}

impl LocalRenewer {
    /// For this node, from its own state.
    pub fn new(identity: Arc<Identity>, certifier: Arc<Certifier>) -> Self {
        Self { identity, certifier }
    }
}

#[tonic::async_trait]
impl Renewer for LocalRenewer {
    async fn renew(&self, request: Vec<u8>) -> Result<Issued, IdentityError> {
        let cluster = self.certifier.registry().cluster();
        let unknown = || ControlError::from(NotMember::Unknown);
        let node_id = standing(&cluster, &self.identity.certified()).map_err(ControlError::from)?;
        let node_id = node_id.ok_or_else(unknown)?;
        let member = cluster.members().get(&node_id).ok_or_else(unknown)?;
        let key = NodeKey::of_request(&request)?;
        Ok(self.certifier.certify(&NodeRecord::of(node_id, member)?, &key, SystemTime::now())?)
    }
}

/// Renews now: asks, checks, stores in `dir`, uses. On `Err` the identity is what it was.
pub async fn renew_once(identity: &Identity, dir: &Path, renewer: &dyn Renewer) -> Result<Issued, IdentityError> {
    let key = KeyRequest::make()?;
    let issued = renewer.renew(key.request).await?;
    let material = Material { certificate: issued.certificate.clone(), key: key.key, bundle: issued.bundle.clone() };
    let new = Identity::new(&material)?.certified();
    if new.name != identity.name() {
        return Err(IdentityError::Answer(format!("its certificate is for {}, not {}", new.name, identity.name())));
    }
    let (stored, at) = (material.clone(), dir.to_owned());
    tokio::task::spawn_blocking(move || stored.store(&at))
        .await
        .map_err(|e| IdentityError::Answer(format!("it could not be stored: {e}")))??;
    identity.replace(&material)?;
    Ok(issued)
}

/// Renews at two thirds of each certificate's life, earlier each time `now` is notified (when the
/// authorities have changed). Failures are logged and tried again. Runs until it is dropped.
pub async fn renew_loop(identity: Arc<Identity>, dir: PathBuf, renewer: Arc<dyn Renewer>, now: Arc<Notify>) {
    let mut wait = until_renewal(&identity.certified(), SystemTime::now(), jitter());
    loop {
        tokio::select! {
            () = until_due(identity.certified().not_before, wait) => {}
            () = now.notified() => {}
        }
        wait = match renew_once(&identity, &dir, &*renewer).await {
            Ok(_) => {
                tracing::info!(node = %identity.name(), "the certificate was renewed");
                until_renewal(&identity.certified(), SystemTime::now(), jitter())
            }
            Err(e) => {
                let left = identity.expires().duration_since(SystemTime::now()).unwrap_or_default();
                let left_s = left.as_secs();
                if left.is_zero() {
                    tracing::error!(code = "PV-TLS-EXPIRED", cause = e.code(), error = %e, "the certificate has ended");
                } else {
                    tracing::warn!(code = "PV-TLS-RENEW", cause = e.code(), error = %e, left_s, "not renewed yet");
                }
                until_retry(left, jitter())
            }
        };
    }
}

/// Waits for so long, or until the clock was set back to before `begins`, when a certificate in use begins.
pub async fn until_due(begins: SystemTime, wait: Duration) {
    let began = Instant::now();
    loop {
        tokio::time::sleep(wait.saturating_sub(began.elapsed()).min(RETRY_ENDED)).await;
        if began.elapsed() >= wait || SystemTime::now() < begins {
            return;
        }
    }
}

/// Notifies `now` each time the authorities change, so that a control-plane node that certifies
/// itself knows a new one, and has a certificate of it, before nodes ask for it. Ends when the
/// node does.
///
/// A node that has just joined learns of the CA before it learns of its own membership: until then
/// its state could not certify it, and its first certificate is new anyway.
pub async fn renew_on_authority_change<T>(
    mut changes: watch::Receiver<T>,
    registry: Arc<dyn Registry>,
    identity: Arc<Identity>,
    now: Arc<Notify>,
) {
    let mut known = registry.cluster().bundle();
    let mut seen: Option<Arc<Cluster>> = None;
    while changes.changed().await.is_ok() {
        let cluster = registry.cluster();
        // Most changes are none of the cluster.
        if seen.as_ref().is_some_and(|seen| Arc::ptr_eq(seen, &cluster)) {
            continue;
        }
        // The signing one is first in it: a commit changes it, too.
        let bundle = cluster.bundle();
        let is_member = matches!(standing(&cluster, &identity.certified()), Ok(Some(_)));
        if bundle != known {
            if !is_member {
                // Not taken as seen: looked at again.
                continue;
            }
            known = bundle;
            now.notify_one();
        }
        seen = Some(cluster);
    }
}

/// `jitter` is from 0 to 1.
fn until_renewal(certified: &Certified, now: SystemTime, jitter: f64) -> Duration {
    renewal_in((certified.not_before, certified.not_after), now, jitter)
}

/// The same for any certificate that a CA of the cluster signed for so long.
pub(super) fn renewal_in((not_before, not_after): (SystemTime, SystemTime), now: SystemTime, jitter: f64) -> Duration {
    let issued = not_before + BACKDATE;
    let life = not_after.duration_since(issued).unwrap_or_default();
    let at = issued + life.mul_f64(RENEW_AT - JITTER * jitter);
    at.duration_since(now).unwrap_or_default()
}

pub(super) fn until_retry(left: Duration, jitter: f64) -> Duration {
    let wait = if left.is_zero() { RETRY_ENDED } else { left / RETRY_SHARE };
    wait.clamp(RETRY_LEAST, RETRY_MOST).mul_f64(1.0 - jitter / 2.0)
}

/// From 0 to 1. Without randomness there is none: renewal matters more.
pub(super) fn jitter() -> f64 {
    let mut bytes = [0; 4];
    if rand::fill(&mut bytes).is_err() {
        return 0.0;
    }
    f64::from(u32::from_be_bytes(bytes)) / f64::from(u32::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod schedule {
    use super::*;

    fn certified(life: Duration) -> (Certified, SystemTime) {
        let issued = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let certified = Certified {
            name: "spiffe://acme/data-plane/dp-1".parse().unwrap(),
            dns: Vec::new(),
            serial_node_id: None,
            not_before: issued - BACKDATE,
            not_after: issued + life,
        };
        (certified, issued)
    }

    #[test]
    fn renewal_is_at_two_thirds_or_a_little_before() {
        let day = Duration::from_secs(86_400);
        let (certified, issued) = certified(day);
        let hours =
            |now: SystemTime, jitter| (until_renewal(&certified, now, jitter).as_secs_f64() / 360.0).round() / 10.0;
        assert_eq!((hours(issued, 0.0), hours(issued, 1.0)), (16.0, 13.6));
        assert_eq!(hours(issued + day / 2, 0.0), 4.0);
        assert_eq!(hours(issued + day, 0.0), 0.0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_was_set_back_is_noticed() {
        let (now, hour) = (SystemTime::now(), Duration::from_secs(3_600));
        for (begins, wait, expect) in [
            (now - hour, hour, hour),
            (now + 9 * hour, hour, RETRY_ENDED),
            (now - hour, Duration::ZERO, Duration::ZERO),
        ] {
            let began = Instant::now();
            until_due(begins, wait).await;
            let passed = began.elapsed();
            assert!(passed >= expect && passed < expect + Duration::from_secs(1), "{expect:?}: {passed:?}");
        }
    }

    #[test]
    fn retries_come_often_enough_and_not_too_often() {
        for (left_s, most_s) in [(28_800, 60.0), (600, 30.0), (10, 0.5), (1, 0.2), (0, 10.0)] {
            let left = Duration::from_secs(left_s);
            assert_eq!(until_retry(left, 0.0).as_secs_f64(), most_s, "{left_s}");
            assert_eq!(until_retry(left, 1.0).as_secs_f64(), most_s / 2.0, "{left_s}");
        }
        assert!((0..100).map(|_| jitter()).all(|j| (0.0..=1.0).contains(&j)));
    }
}
