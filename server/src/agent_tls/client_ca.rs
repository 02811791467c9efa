//! The authorities of certificates that agents show, and what they have revoked.
//!
//! Invariants: a change of the files is in effect within [`LOOK_EVERY`], for new connections and for open
//! ones; files that cannot be used are said once in the log, and what was in effect stays. A list that has
//! ended lets nobody in under it, and is said with each look.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use provost_data_serve::{ClientCertificates, ServerTls};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, CertificateRevocationListDer, pem::PemObject},
};
use serde::Serialize;

use crate::failure::Failure;

/// Between two looks at the files. With the look at every open connection that follows, a certificate that
/// was revoked is of no use any more within twice that.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Between two warnings of a list that has ended.
const WARN_EVERY: Duration = Duration::from_secs(60);
/// Bytes of one file: a list of a million certificates is shorter.
const MAX_FILE_BYTES: u64 = 64 << 20;
/// What tells PEM from DER.
const PEM_MARK: &[u8] = b"-----BEGIN";

/// Where they are, and whether an agent must show a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClientCa {
    /// A PEM file.
    pub file: PathBuf,
    /// Revocation lists, PEM or DER.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lists: Vec<PathBuf>,
    /// No connection without a certificate.
    pub required: bool,
}

/// The files as they were read last.
pub struct SeenClients {
    ca: ClientCa,
    hash: blake3::Hash,
    ends: Option<SystemTime>,
    look_every: Duration,
}

impl ClientCa {
    /// Reads the files, which must be usable now.
    pub fn read(&self) -> anyhow::Result<(ClientCertificates, SeenClients)> {
        let (hash, bytes) = self.bytes()?;
        let clients = self.parse(bytes)?;
        let seen = SeenClients { ca: self.clone(), hash, ends: clients.lists_end(), look_every: LOOK_EVERY };
        Ok((clients, seen))
    }

    fn bytes(&self) -> anyhow::Result<(blake3::Hash, Vec<Vec<u8>>)> {
        let paths = std::iter::once(&self.file).chain(&self.lists);
        let mut hasher = blake3::Hasher::new();
        let mut all = Vec::new();
        for path in paths {
            let bytes = read(path).map_err(|cause| bad(path, cause.to_string()))?;
            hasher.update(&(bytes.len() as u64).to_be_bytes()).update(&bytes);
            all.push(bytes);
        }
        Ok((hasher.finalize(), all))
    }

    fn parse(&self, bytes: Vec<Vec<u8>>) -> anyhow::Result<ClientCertificates> {
        let mut bytes = bytes.into_iter();
        let mut authorities = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&bytes.next().unwrap_or_default()) {
            let certificate = certificate.map_err(|cause| bad(&self.file, format!("cannot be read: {cause}")))?;
            authorities.add(certificate).map_err(|cause| bad(&self.file, format!("cannot be used: {cause}")))?;
        }
        if authorities.is_empty() {
            return Err(bad(&self.file, "there is no certificate".to_owned()).into());
        }
        let mut revoked = Vec::new();
        for (path, bytes) in self.lists.iter().zip(bytes) {
            revoked.extend(lists(path, bytes)?);
        }
        Ok(ClientCertificates { authorities: Arc::new(authorities), revoked, required: self.required })
    }
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn bad(path: &Path, cause: String) -> Failure {
    let hint = "data_plane.tls.client_ca is a PEM file with the certificates of the agents' authorities, \
                client_crl has their revocation lists, PEM or DER";
    Failure::new("PV-TLS-CERTIFICATE", format!("{}: {cause}", path.display()), hint)
}

fn lists(path: &Path, bytes: Vec<u8>) -> anyhow::Result<Vec<CertificateRevocationListDer<'static>>> {
    if !bytes.windows(PEM_MARK.len()).any(|window| window == PEM_MARK) {
        return Ok(vec![CertificateRevocationListDer::from(bytes)]);
    }
    let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&bytes).collect();
    let lists = lists.map_err(|cause| bad(path, format!("cannot be read: {cause}")))?;
    if lists.is_empty() {
        return Err(bad(path, "there is no revocation list".to_owned()).into());
    }
    Ok(lists)
}

impl SeenClients {
    /// Takes up changes. Has no end of its own.
    pub async fn follow(mut self, tls: ServerTls) {
        let mut warned: Option<tokio::time::Instant> = None;
        loop {
            let now = SystemTime::now();
            if self.ends.is_some_and(|ends| ends <= now) && warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
                warned = Some(tokio::time::Instant::now());
                tracing::error!(
                    code = "PV-TLS-CRL",
                    next = "put a newer list in place of the one in data_plane.tls.client_crl",
                    "a revocation list of agents has ended: no certificate under it is taken"
                );
            }
            tokio::time::sleep(self.look_every).await;
            if let Err(cause) = self.look(&tls) {
                tracing::warn!("agents' certificates are still taken as before: {cause:#}");
            }
        }
    }

    /// Errors are said once: the same files are not tried again.
    fn look(&mut self, tls: &ServerTls) -> anyhow::Result<()> {
        let (hash, bytes) = match self.ca.bytes() {
            Ok(read) => read,
            // A file that is being replaced may be away for a moment.
            Err(cause) if self.hash == blake3::hash(&[]) => {
                tracing::debug!(%cause, "still not readable");
                return Ok(());
            }
            Err(cause) => {
                self.hash = blake3::hash(&[]);
                return Err(cause);
            }
        };
        if hash == self.hash {
            return Ok(());
        }
        self.hash = hash;
        let clients = self.ca.parse(bytes)?;
        tls.trust(&clients)?;
        self.ends = clients.lists_end();
        tracing::info!("agents' certificates are taken by new authorities or revocation lists");
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;

    use super::*;
    use crate::agent_tls::LocalCa;

    #[test]
    fn files_are_read_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        LocalCa::open_or_make(dir.path(), &at("ca.pem")).unwrap();
        let ca = |file: &str, lists: &[&str]| ClientCa {
            file: at(file),
            lists: lists.iter().map(|name| at(name)).collect(),
            required: false,
        };
        fs::write(at("empty.pem"), "").unwrap();
        fs::write(at("der.crl"), [0x30, 0x00]).unwrap();
        let (clients, _) = ca("ca.pem", &["der.crl"]).read().unwrap();
        assert_eq!((clients.authorities.len(), clients.revoked.len()), (1, 1));
        assert_eq!(clients.lists_end(), None);
        for (case, expect) in [
            (ca("none.pem", &[]), "none.pem"),
            (ca("empty.pem", &[]), "no certificate"),
            (ca("ca.pem", &["none.crl"]), "none.crl"),
            (ca("ca.pem", &["ca.pem"]), "no revocation list"),
        ] {
            let error = case.read().map(drop).unwrap_err().to_string();
            assert!(error.contains("PV-TLS-CERTIFICATE") && error.contains(expect), "{error}");
        }
    }
}
