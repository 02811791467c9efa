//! The server's end of QUIC, and how a client finds it.

use std::{net::Ipv4Addr, path::PathBuf, sync::Arc};

use base64::{Engine, prelude::BASE64_STANDARD};
use provost_client::{Connector, Endpoint, Options, Transport};
use quinn::crypto::rustls::QuicServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// See the module.
pub struct Server {
    pub endpoint: quinn::Endpoint,
    pub ca: PathBuf,
    _dir: tempfile::TempDir,
}

impl Server {
    pub fn new(alpn: &[u8]) -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let ca = dir.path().join("ca.pem");
        let body = BASE64_STANDARD.encode(made.cert.der());
        std::fs::write(&ca, format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        tls.alpn_protocols = vec![alpn.to_vec()];
        let config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
        let endpoint = quinn::Endpoint::server(config, (Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        Self { endpoint, ca, _dir: dir }
    }

    pub fn port(&self) -> u16 {
        self.endpoint.local_addr().unwrap().port()
    }

    pub async fn accept(&self) -> quinn::Connection {
        self.endpoint.accept().await.unwrap().await.unwrap()
    }

    pub fn connector(&self, url: &str, transport: Transport) -> Connector {
        let endpoint = Endpoint::parse(url, Some(transport)).unwrap();
        let token = Some("pv_secret".to_owned().into());
        Connector::new(endpoint, Options { token, ca: Some(self.ca.clone()), ..Options::default() }).unwrap()
    }

    pub fn quic(&self) -> Connector {
        self.connector(&format!("127.0.0.1:{}", self.port()), Transport::Quic)
    }
}
