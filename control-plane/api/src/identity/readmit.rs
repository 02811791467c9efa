//! A member whose certificate ended while it was off, or while no control plane answered.
//!
//! TLS refuses its certificate, so it comes without one and shows it in the request, with a
//! signature of the certificate's key over the key that it asks a new one for. That is what TLS
//! would have asked for, without the date. Who is a member is decided by the member list, as ever: a
//! removed node does not come back this way, nor does one whose CA has been replaced since.
//!
//! Without this a whole site that was off for longer than a certificate lives would stay off: joining
//! anew takes an audit log to record it in, and the nodes that keep the log would be out as well.

use std::time::{Duration, SystemTime};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use provost_wire::{
    node::{ReadmitRequest, RenewResponse},
    tls::{Identity, certificate_hash, public_key_of, read_ended},
};
use rustls::pki_types::CertificateDer;

use super::{Certifier, IdentityError, NodeKey, NodeRecord, NotMember, standing};
use crate::{ControlError, ErrorKind};

/// How long ago a certificate may have ended. An old backup of a node's disk must not be a way in
/// for ever.
pub const MAX_ABSENCE: Duration = Duration::from_secs(30 * 24 * 3600);
/// What is signed begins with this, so that the signature means nothing elsewhere.
const PROOF_PREFIX: &[u8] = b"provost readmit 1\0";
/// Bytes of a certificate.
const MAX_CERTIFICATE_BYTES: usize = 16 << 10;

/// What a node asks with.
pub(super) fn request(identity: &Identity, csr: Vec<u8>) -> Result<ReadmitRequest, IdentityError> {
    let leaf = identity.leaf()?;
    let proof = identity.sign(&proven(&leaf, &csr))?;
    Ok(ReadmitRequest { certificate: leaf.to_vec().into(), csr: csr.into(), proof: proof.into() })
}

fn proven(leaf: &CertificateDer<'_>, csr: &[u8]) -> Vec<u8> {
    [PROOF_PREFIX, &certificate_hash(leaf), csr].concat()
}

fn refused(text: impl Into<String>) -> ControlError {
    let hint = "`provost cluster remove` the node and join it anew, with an empty data folder and a new token";
    ControlError::new(ErrorKind::Unauthenticated, "PV-TLS-EXPIRED", text, hint)
}

/// Gives a member that proves to have the key of its ended certificate a new one.
pub(super) async fn readmit(
    certifier: &Certifier,
    request: ReadmitRequest,
    now: SystemTime,
) -> Result<RenewResponse, ControlError> {
    let key = NodeKey::of_request(&request.csr)?;
    if request.certificate.len() > MAX_CERTIFICATE_BYTES {
        return Err(refused("the certificate is too large"));
    }
    let leaf = CertificateDer::from(request.certificate.to_vec());
    let known = certifier.registry().cluster();
    if known.signing().is_none() {
        return Err(refused("the cluster's operator issues certificates; put a new one in place"));
    }
    // Strangers end here: before this costs the group anything.
    let caller =
        read_ended(&leaf, &known.bundle()).map_err(|e| refused(format!("{e}; no CA of today vouches for it")))?;
    let public = public_key_of(&leaf).map_err(IdentityError::from)?;
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &public)
        .verify(&proven(&leaf, &request.csr), &request.proof)
        .map_err(|_| refused("the request is not signed by the certificate's key"))?;
    let absent = now.duration_since(caller.not_after).unwrap_or_default();
    if absent > MAX_ABSENCE {
        let days = MAX_ABSENCE.as_secs() / 86_400;
        return Err(refused(format!("the certificate ended more than {days} days ago")));
    }
    let cluster = certifier.registry().confirmed().await?;
    let node_id = standing(&cluster, &caller)?.ok_or(NotMember::Unknown)?;
    let member = cluster.members().get(&node_id).ok_or(NotMember::Unknown)?;
    let issued = certifier.certify(&NodeRecord::of(node_id, member)?, &key, now)?;
    tracing::info!(node = %member.name, node_id, absent_s = absent.as_secs(), "a member came back");
    Ok(RenewResponse {
        certificate: issued.certificate,
        bundle: issued.bundle,
        control_plane: issued.control_plane.into_iter().collect(),
    })
}
