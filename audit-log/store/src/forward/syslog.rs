//! Syslog: RFC 5424 messages, octet-counted (RFC 6587), over TCP or TLS (RFC 5425).
//!
//! Syslog has no acknowledgement, and bytes that the network took may never be read. So each batch
//! has a connection of its own: it is sent, our side is closed, and the batch counts as taken when
//! the receiver closes its side in turn, which it does once it has read to the end. A receiver that
//! dies before resets the connection or never answers, and the batch is sent again.

use std::{fmt::Write, io, path::PathBuf, sync::Arc, time::Duration};

use provost_audit_core::{Record, status_word};
use provost_types::{BoxFuture, CallStatus, Phase};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use time::{OffsetDateTime, macros::format_description};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::{Receiver, Refused, Sent, Taken};
use crate::export::phase_of;

/// Facility 13: log audit.
const FACILITY: u8 = 13;
/// The enterprise number of examples (RFC 5612): Provost has none of its own.
const SD_ID: &str = "provost@32473";
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Syslog receivers have nothing to say; more than this is not read.
const MAX_ANSWER_BYTES: u64 = 64 * 1024;

/// A syslog receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyslogTarget {
    /// `HOST:PORT`.
    pub address: String,
    /// With TLS: the authorities (PEM) that the receiver's certificate must come from.
    pub tls_ca: Option<PathBuf>,
}

pub(super) struct Syslog {
    address: String,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Syslog {
    pub(super) fn new(target: SyslogTarget) -> Result<Self, String> {
        let (host, port) = target.address.rsplit_once(':').ok_or("the address must be HOST:PORT")?;
        if host.is_empty() || port.parse::<u16>().is_err() {
            return Err(format!("`{}` is not HOST:PORT", target.address));
        }
        let tls = match &target.tls_ca {
            None => None,
            Some(path) => {
                let connector = connector(path).map_err(|why| format!("{}: {why}", path.display()))?;
                let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
                let name = ServerName::try_from(host).map_err(|e| format!("`{}`: {e}", target.address))?;
                Some((connector, name))
            }
        };
        Ok(Self { address: target.address, tls })
    }

    async fn send(&self, batch: &[Sent]) -> Result<(), String> {
        let mut bytes = Vec::new();
        for sent in batch {
            let message = message(sent);
            bytes.extend_from_slice(format!("{} ", message.len()).as_bytes());
            bytes.extend_from_slice(message.as_bytes());
        }
        let connect = tokio::time::timeout(CONNECT_LIMIT, TcpStream::connect(&self.address));
        let stream = connect.await.map_err(|_| "no connection in time".to_owned())?.map_err(|e| e.to_string())?;
        let sent = match &self.tls {
            None => exchange(stream, &bytes).await,
            Some((connector, name)) => {
                let stream = connector.connect(name.clone(), stream).await.map_err(|e| e.to_string())?;
                exchange(stream, &bytes).await
            }
        };
        sent.map_err(|e| e.to_string())
    }
}

impl Receiver for Syslog {
    fn deliver<'a>(&'a mut self, batch: &'a [Sent]) -> BoxFuture<'a, Result<Taken, Refused>> {
        Box::pin(async move {
            match self.send(batch).await {
                Ok(()) => Ok(Taken::default()),
                Err(why) => Err(Refused::new(format!("{}: {why}", self.address))),
            }
        })
    }
}

fn connector(ca: &PathBuf) -> Result<TlsConnector, String> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).map_err(|e| e.to_string())? {
        let certificate = certificate.map_err(|e| e.to_string())?;
        roots.add(certificate).map_err(|e| e.to_string())?;
    }
    if roots.is_empty() {
        return Err("it holds no certificate".to_owned());
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Sends everything, closes our side, and waits until the receiver has closed its own.
async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.shutdown().await?;
    let mut answer = stream.take(MAX_ANSWER_BYTES);
    match tokio::io::copy(&mut answer, &mut tokio::io::sink()).await {
        Ok(MAX_ANSWER_BYTES) => Err(io::Error::other("it talks instead of closing the connection")),
        Ok(_) => Ok(()),
        // TLS that ends without a word, over a connection that ended in order.
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
        Err(e) => Err(e),
    }
}

/// One message: header, structured data with the record's place, and the record's stored bytes.
fn message(sent: &Sent) -> String {
    let record = &sent.found.record;
    let priority = FACILITY * 8 + severity(record);
    let mut out = format!("<{priority}>1 {} {} provost - ", timestamp(record.time_ns), host(&record.writer_id));
    let _ = write!(out, "{} [{SD_ID} log=\"", phase_of(record));
    for c in sent.origin.chars() {
        if matches!(c, '"' | '\\' | ']') {
            out.push('\\');
        }
        out.push(c);
    }
    let _ = write!(out, "\" index=\"{}\" leaf=\"{}\"", sent.found.index, sent.found.leaf_hash);
    if let Some(status) = record.status {
        let _ = write!(out, " status=\"{}\"", status_word(status));
    }
    out.push_str("] ");
    out.push_str(&sent.found.leaf);
    out
}

/// Warning for what was refused or whose end nobody knows, notice for failures, else informational.
fn severity(record: &Record<'_>) -> u8 {
    match (record.phase, record.status) {
        (Phase::Denied, _) | (_, Some(CallStatus::Unknown | CallStatus::Denied)) => 4,
        (_, None | Some(CallStatus::Ok | CallStatus::InputRequired)) => 6,
        (_, Some(_)) => 5,
    }
}

/// RFC 3339 with microseconds: RFC 5424 allows six digits.
fn timestamp(time_ns: u64) -> String {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(time_ns)).ok();
    time.and_then(|time| time.format(&format).ok()).unwrap_or_else(|| "-".to_owned())
}

/// A host name has 1 to 255 printable ASCII characters.
fn host(writer: &str) -> &str {
    let fits = !writer.is_empty() && writer.len() <= 255 && writer.bytes().all(|b| b.is_ascii_graphic());
    if fits { writer } else { "-" }
}
