//! The matrix: who may talk to whom.

use std::{net::Ipv4Addr, sync::Arc};

use provost_wire::tls::{Expect, Identity, Material, Role, admin_channel, certificates, channel, join_channel};
use rcgen::ExtendedKeyUsagePurpose;
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    version::{TLS12, TLS13},
};
use tokio::{io::AsyncReadExt, net::TcpStream};
use tokio_rustls::TlsConnector;

use crate::{
    authority::{Authority, Leaf, leaf},
    server::{Running, start, who_am_i},
};

const SERVER: &str = "spiffe://acme/control-plane.data-plane/1";
const CLIENT: &str = "spiffe://acme/data-plane/dp-1";

async fn call(running: &Running, material: &Material, expect: Expect) -> Result<String, String> {
    let identity = Arc::new(Identity::new(material).unwrap());
    let channel = channel(identity, &running.address, expect).unwrap();
    who_am_i(channel).await.map_err(|e| format!("{e:?}"))
}

#[tokio::test]
async fn a_client_reaches_only_whom_it_expects() {
    let ca = Authority::new("ca");
    let running = start(ca.identity(SERVER)).await;
    let client = ca.issue(&leaf(CLIENT));
    let cp = Role::ControlPlane;
    let ok = Ok(CLIENT.to_owned());
    assert_eq!(call(&running, &client, Expect::role(cp)).await, ok);
    assert_eq!(call(&running, &client, Expect::role(Role::DataPlane)).await, ok);
    assert_eq!(call(&running, &client, Expect::role(cp).id("1")).await, ok);
    assert_eq!(call(&running, &client, Expect::control_plane(1)).await, ok);
    for (wrong, cause) in [
        (Expect::role(Role::GpuNode), "which is no gpu-node node"),
        (Expect::control_plane(2), "not 2"),
        (Expect::role(cp).id("01"), "not 01"),
    ] {
        let error = call(&running, &client, wrong).await.unwrap_err();
        assert!(error.contains(cause), "{error}");
    }
}

#[tokio::test]
async fn a_server_lets_in_only_members_of_its_cluster() {
    let (ca, other) = (Authority::new("ca"), Authority::new("other"));
    let running = start(ca.identity(SERVER)).await;
    let server_only = Leaf { usages: vec![ExtendedKeyUsagePurpose::ServerAuth], ..leaf(CLIENT) };
    let cases: [(&str, Material); 6] = [
        ("another cluster, same CA", ca.issue(&leaf("spiffe://umbra/data-plane/dp-1"))),
        ("ended", ca.issue(&leaf(CLIENT).ended())),
        ("not begun", ca.issue(&leaf(CLIENT).not_begun())),
        ("another CA", other.issue_trusting(&leaf(CLIENT), &ca.pem)),
        ("signed by itself", leaf(CLIENT).self_signed(&ca.pem)),
        ("not for clients", ca.issue(&server_only)),
    ];
    for (case, material) in cases {
        // Its own cluster's name is what a client expects of servers; here only the server refuses.
        let refused = raw(&running, Some(&material), &TLS13, b"h2").await;
        assert!(refused.is_err(), "{case}: {refused:?}");
    }
    let good = ca.issue(&leaf(CLIENT));
    assert!(raw(&running, Some(&good), &TLS13, b"h2").await.is_ok());
    for (case, uris) in [
        ("no name", vec![]),
        ("two names", vec![CLIENT.to_owned(), "spiffe://acme/control-plane/1".to_owned()]),
        ("not a node", vec!["https://acme.example/".to_owned()]),
    ] {
        let material = ca.issue(&Leaf { uris, ..leaf(CLIENT) });
        assert_eq!(Identity::new(&material).unwrap_err().code(), "PV-TLS-NAME", "{case}");
        assert!(raw(&running, Some(&material), &TLS13, b"h2").await.is_err(), "{case}");
    }
}

#[tokio::test]
async fn a_client_refuses_servers_that_prove_nothing() {
    let (ca, other) = (Authority::new("ca"), Authority::new("other"));
    let client = ca.issue(&leaf(CLIENT));
    let client_only = Leaf { usages: vec![ExtendedKeyUsagePurpose::ClientAuth], ..leaf(SERVER) };
    let cases: [(&str, Material); 5] = [
        ("another cluster, same CA", ca.issue(&leaf("spiffe://umbra/control-plane/1"))),
        ("ended", ca.issue(&leaf(SERVER).ended())),
        ("another CA", other.issue_trusting(&leaf(SERVER), &ca.pem)),
        ("signed by itself", leaf(SERVER).self_signed(&ca.pem)),
        ("not for servers", ca.issue(&client_only)),
    ];
    for (case, material) in cases {
        let running = start(Arc::new(Identity::new(&material).unwrap())).await;
        let answer = call(&running, &client, Expect::role(Role::ControlPlane)).await;
        assert!(answer.is_err(), "{case}: {answer:?}");
        assert!(running.connections.is_empty(), "{case}");
    }
}

#[tokio::test]
async fn without_a_certificate_one_is_nobody() {
    let (ca, other) = (Authority::new("ca"), Authority::new("other"));
    let running = start(ca.identity(SERVER)).await;
    let joining = join_channel(&running.address, ca.hash).await.unwrap();
    assert_eq!(who_am_i(joining).await.unwrap(), "nobody");
    let administrator = admin_channel(&running.address, &ca.pem).await.unwrap();
    assert_eq!(who_am_i(administrator).await.unwrap(), "nobody");

    let code = |r: Result<_, provost_wire::tls::TlsError>| r.map(|_: tonic::transport::Channel| ()).unwrap_err().code();
    assert_eq!(code(join_channel(&running.address, other.hash).await), "PV-TLS-PEER");
    assert_eq!(code(admin_channel(&running.address, &other.pem).await), "PV-TLS-PEER");
    assert_eq!(code(admin_channel(&running.address, "").await), "PV-TLS-CERTIFICATE");
    let data_plane = start(ca.identity(CLIENT)).await;
    assert_eq!(code(join_channel(&data_plane.address, ca.hash).await), "PV-TLS-PEER");
    assert_eq!(code(admin_channel(&data_plane.address, &ca.pem).await), "PV-TLS-PEER");
    let address = data_plane.address.clone();
    drop(data_plane);
    assert_eq!(code(join_channel(&address, ca.hash).await), "PV-TLS-UNREACHABLE");
}

/// The chain must be signed by the named CA, not only carry its certificate.
#[tokio::test]
async fn showing_the_ca_proves_nothing() {
    let (ca, other) = (Authority::new("ca"), Authority::new("other"));
    let mut material = other.issue(&leaf(SERVER));
    material.certificate.push_str(&ca.pem);
    let running = start(Arc::new(Identity::new(&material).unwrap())).await;
    let error = join_channel(&running.address, ca.hash).await.map(drop).unwrap_err();
    assert_eq!(error.code(), "PV-TLS-PEER");
}

#[tokio::test]
async fn only_tls_1_3_and_http_2() {
    let ca = Authority::new("ca");
    let running = start(ca.identity(SERVER)).await;
    let good = ca.issue(&leaf(CLIENT));
    assert!(raw(&running, None, &TLS13, b"h2").await.is_ok());
    assert!(raw(&running, Some(&good), &TLS12, b"h2").await.is_err());
    assert!(raw(&running, None, &TLS12, b"h2").await.is_err());
    assert!(raw(&running, Some(&good), &TLS13, b"http/1.1").await.is_err());
    // Plain HTTP/2 gets no answer.
    let plain = tonic::transport::Endpoint::from_shared(format!("http://{}", running.address)).unwrap();
    assert!(who_am_i(plain.connect_lazy()).await.is_err());
}

/// A client that trusts every server: what is left is what the server refuses. `Ok` when the
/// server sends its first frame.
async fn raw(
    running: &Running,
    material: Option<&Material>,
    version: &'static rustls::SupportedProtocolVersion,
    alpn: &[u8],
) -> std::io::Result<u8> {
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(TrustAll));
    let mut config = match material {
        None => builder.with_no_client_auth(),
        Some(material) => {
            let chain = certificates("test", &material.certificate).unwrap();
            let key = PrivateKeyDer::from_pem_slice(material.key.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    let tcp = TcpStream::connect(&running.address).await?;
    let name = ServerName::IpAddress(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST).into());
    let mut tls = TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
    tls.read_u8().await
}

#[derive(Debug)]
struct TrustAll;

impl ServerCertVerifier for TrustAll {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
