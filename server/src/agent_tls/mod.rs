//! The certificate that agents see: of files, of the cluster's CA, or of a local authority.
//!
//! Purpose: HTTP over TLS, HTTP/3 and QUIC ask for a certificate with each handshake; here is where
//! it comes from.
//! Invariants: a certificate is replaced whole, with its key, and only by one that can be used; what
//! is open is not touched by it. Private keys are in files that only the server's user can read.
//! Left out: the certificates of nodes among each other (`roles::certificate`), which agents do not
//! know how to check: they name a node of a cluster, not a host.

mod client_ca;
mod cluster_ca;
mod current;
mod files;
mod local_ca;

pub use client_ca::ClientCa;
pub use cluster_ca::certified_by_cluster;
pub use current::Current;
pub use files::TlsFiles;
pub use local_ca::LocalCa;
