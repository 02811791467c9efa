//! Who may be at the other end. Chains are verified by rustls' webpki; names by SPIFFE.

use std::{fmt, sync::Arc};

use provost_types::Name;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        ParsedCertificate,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};

use crate::tls::{NodeName, Role, TlsError, certificate_hash, read_certificate};

/// What a server's certificate must say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expect {
    /// `None`: of any cluster that the trusted CA serves.
    pub(crate) cluster: Option<Name>,
    /// The role that it must have.
    pub(crate) role: Role,
    /// The id that it must have.
    pub(crate) id: Option<String>,
}

impl Expect {
    /// Any node with this role.
    pub fn role(role: Role) -> Self {
        Self { cluster: None, role, id: None }
    }

    /// The control-plane node of this number.
    pub fn control_plane(node_id: u64) -> Self {
        Self::role(Role::ControlPlane).id(node_id.to_string())
    }

    /// Exactly the node of this id.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    pub(crate) fn in_cluster(mut self, cluster: &Name) -> Self {
        self.cluster = Some(cluster.clone());
        self
    }

    /// Says what is wrong with a server of this name.
    pub fn check(&self, name: &NodeName) -> Result<(), String> {
        if let Some(cluster) = &self.cluster
            && cluster != name.cluster()
        {
            return Err(format!("it is {name}, which is not of cluster {cluster}"));
        }
        if !name.has(self.role) {
            return Err(format!("it is {name}, which is no {} node", self.role));
        }
        match &self.id {
            Some(id) if id != name.id() => Err(format!("it is {name}, not {id}")),
            _ => Ok(()),
        }
    }
}

/// What a chain must end in.
#[derive(Clone)]
pub(crate) enum Trust {
    /// One of these authorities.
    Bundle(Arc<RootCertStore>),
    /// The one authority whose certificate has this SHA-256; the server sends it.
    CaHash([u8; 32]),
}

/// Verifies servers.
pub(crate) struct ServerVerifier {
    pub(crate) trust: Trust,
    pub(crate) expect: Expect,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerVerifier {
    pub(crate) fn new(trust: Trust, expect: Expect, provider: &CryptoProvider) -> Self {
        Self { trust, expect, algorithms: provider.signature_verification_algorithms }
    }

    fn roots(&self, sent: &[CertificateDer<'_>]) -> Result<Arc<RootCertStore>, Error> {
        match &self.trust {
            Trust::Bundle(roots) => Ok(roots.clone()),
            Trust::CaHash(hash) => {
                let found = sent.iter().find(|c| certificate_hash(c) == *hash);
                let ca = found.ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
                let mut roots = RootCertStore::empty();
                roots.add(ca.clone().into_owned())?;
                Ok(Arc::new(roots))
            }
        }
    }
}

impl fmt::Debug for ServerVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerVerifier").field("expect", &self.expect).finish_non_exhaustive()
    }
}

/// The cause of a refusal, carried through rustls.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(String);

fn refused(cause: String) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(Refused(cause)))))
}

fn named(leaf: &CertificateDer<'_>) -> Result<NodeName, Error> {
    read_certificate(leaf).map(|c| c.name).map_err(|e: TlsError| refused(e.to_string()))
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let roots = self.roots(intermediates)?;
        let parsed = ParsedCertificate::try_from(leaf)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, &roots, intermediates, now, self.algorithms.all)?;
        self.expect.check(&named(leaf)?).map_err(refused)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Verifies clients that have a certificate; those without pass, and are nobody.
#[derive(Debug)]
pub(crate) struct ClientVerifier {
    /// webpki's: the chain.
    pub(crate) chain: Arc<dyn ClientCertVerifier>,
    /// Ours: the name.
    pub(crate) cluster: Name,
}

impl ClientCertVerifier for ClientVerifier {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(leaf, intermediates, now)?;
        let name = named(leaf)?;
        if *name.cluster() != self.cluster {
            return Err(refused(format!("it is {name}, which is not of cluster {}", self.cluster)));
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
