//! Which certificates clients may show: the authorities, and what these have revoked.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::{RootCertStore, pki_types::CertificateRevocationListDer};
use x509_parser::{prelude::FromDer, revocation_list::CertificateRevocationList};

/// See the module.
#[derive(Clone, Debug)]
pub struct ClientCertificates {
    /// The authorities that they must end at.
    pub authorities: Arc<RootCertStore>,
    /// Revocation lists (RFC 5280). Empty: nothing is looked up. Else there must be one of each authority in
    /// a chain: a certificate of whose standing nothing is known is refused.
    pub revoked: Vec<CertificateRevocationListDer<'static>>,
    /// Without one there is no connection.
    pub required: bool,
}

impl ClientCertificates {
    /// When the first of the lists ends; `None`: there is none that does.
    pub fn lists_end(&self) -> Option<SystemTime> {
        self.revoked.iter().filter_map(|list| next_update(list)).min()
    }
}

fn next_update(list: &[u8]) -> Option<SystemTime> {
    let (_, list) = CertificateRevocationList::from_der(list).ok()?;
    let seconds = u64::try_from(list.next_update()?.timestamp()).unwrap_or(0);
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}
