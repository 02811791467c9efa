//! A certificate and its key in two files, which somebody else renews.

use std::{
    fs::File,
    io::Read,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use provost_wire::tls::TlsError;
use rustls::sign::CertifiedKey;
use serde::Serialize;
use zeroize::Zeroizing;

use super::current::{TlsSource, certified};

/// Between two looks at the files.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Bytes of one file.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// Permission bits that a key's file must not have: a group may read what an orchestrator mounts.
const OTHERS: u32 = 0o037;

/// Which files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TlsFiles {
    /// The certificate, then those up to its CA, as PEM.
    pub certificate: PathBuf,
    /// Its private key, as PEM.
    pub key: PathBuf,
}

impl TlsFiles {
    /// Reads them anew from time to time.
    pub fn source(self) -> impl TlsSource {
        FileSource { files: self, seen: None, look_every: LOOK_EVERY }
    }
}

struct FileSource {
    files: TlsFiles,
    /// What was used, or tried, last.
    seen: Option<(Vec<u8>, blake3::Hash)>,
    look_every: Duration,
}

impl TlsSource for FileSource {
    fn newer(&mut self) -> anyhow::Result<Option<CertifiedKey>> {
        let certificate = read(&self.files.certificate)?;
        let key = private(&self.files.key)?;
        let now = (certificate.to_vec(), blake3::hash(&key));
        if self.seen.as_ref() == Some(&now) {
            return Ok(None);
        }
        let what = format!("{} and {}", self.files.certificate.display(), self.files.key.display());
        let pair = certified(&what, &certificate, &key);
        // One that cannot be used is said once.
        self.seen = Some(now);
        pair.map(Some)
    }

    fn look_every(&self) -> Duration {
        self.look_every
    }
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    let failed = |cause| TlsError::File { path: path.to_owned(), cause };
    let mut bytes = Zeroizing::new(Vec::new());
    File::open(path).map_err(failed)?.take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// The same for a file that nobody else may read.
fn private(path: &Path) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    let failed = |cause| TlsError::File { path: path.to_owned(), cause };
    let mode = std::fs::metadata(path).map_err(failed)?.permissions().mode() & 0o777;
    if mode & OTHERS != 0 {
        return Err(TlsError::KeyMode { path: path.to_owned(), mode });
    }
    read(path)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{fs, os::unix::fs::OpenOptionsExt};

    use super::*;
    use crate::agent_tls::LocalCa;

    fn write(path: &Path, bytes: &[u8], mode: u32) {
        use std::io::Write;
        let _ = fs::remove_file(path);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path).unwrap();
        file.write_all(bytes).unwrap();
    }

    #[test]
    fn files_are_taken_up_when_they_change_and_only_as_a_pair() {
        let dir = tempfile::tempdir().unwrap();
        let ca = LocalCa::open_or_make(dir.path(), &dir.path().join("ca.pem")).unwrap();
        let (one, two) = (ca.issue(&[]).unwrap(), ca.issue(&[]).unwrap());
        let files = TlsFiles { certificate: dir.path().join("cert.pem"), key: dir.path().join("key.pem") };
        let mut source = files.clone().source();
        let code = |error: anyhow::Error| error.to_string();
        assert!(code(source.newer().unwrap_err()).contains("cert.pem"));

        write(&files.certificate, one.certificate.as_bytes(), 0o644);
        write(&files.key, one.key.as_bytes(), 0o644);
        let error = source.newer().unwrap_err();
        assert_eq!(error.downcast_ref::<TlsError>().unwrap().code(), "PV-TLS-KEY-MODE");
        write(&files.key, one.key.as_bytes(), 0o600);
        assert!(source.newer().unwrap().is_some());
        assert!(source.newer().unwrap().is_none());

        // The certificate was renewed, and its key is still to come.
        write(&files.certificate, two.certificate.as_bytes(), 0o644);
        let error = code(source.newer().unwrap_err());
        assert!(error.contains("do not belong together"), "{error}");
        assert!(!error.contains("BEGIN"), "{error}");
        assert!(source.newer().unwrap().is_none(), "said once");
        write(&files.key, two.key.as_bytes(), 0o600);
        let newer = source.newer().unwrap().unwrap();
        assert_eq!(newer.cert.len(), 2, "the certificate and its CA's");
    }
}
