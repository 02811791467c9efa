//! Certificates as PEM text (RFC 7468).

use base64::{Engine, engine::general_purpose::STANDARD};
use rustls::pki_types::{CertificateDer, pem::PemObject};

use crate::tls::TlsError;

/// Characters of one line.
const LINE_CHARS: usize = 64;

/// Writes a PEM block, such as with the label `CERTIFICATE`.
pub fn encode(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        // Base64 is ASCII: any index is a boundary.
        let (line, next) = rest.split_at(rest.len().min(LINE_CHARS));
        text.push_str(line);
        text.push('\n');
        rest = next;
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

/// The certificates of a text, in order; at least one. `what` names the text in errors.
pub fn certificates(what: &'static str, text: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(text.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|e| TlsError::certificate(what, e))?;
    if found.is_empty() { Err(TlsError::certificate(what, "holds no certificate")) } else { Ok(found) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_read_as_written() {
        let ders: Vec<Vec<u8>> = [1, 47, 48, 49, 96, 300].iter().map(|n| vec![7; *n]).collect();
        let text: String = ders.iter().map(|d| encode("CERTIFICATE", d)).collect();
        assert!(text.lines().all(|l| l.len() <= LINE_CHARS));
        let read = certificates("test", &text).unwrap();
        assert_eq!(read.iter().map(|c| c.to_vec()).collect::<Vec<_>>(), ders);
    }

    #[test]
    fn a_text_without_certificate_is_an_error() {
        for bad in ["", "hello", &encode("PUBLIC KEY", &[1])] {
            assert_eq!(certificates("test", bad).unwrap_err().code(), "PV-TLS-CERTIFICATE");
        }
    }
}
