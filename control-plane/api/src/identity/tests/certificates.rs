//! What the CA signs, and what it does not.

use std::time::{Duration, SystemTime};

use provost_wire::tls::{BACKDATE, Identity, Material, certificate_hash, certificates};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SanType};

use super::world::{Upside, name};
use crate::identity::{Ca, Certifier, JoinSecret, KeyRequest, KeySealer, NodeKey};

fn ca() -> Ca {
    let (certificate, key) = Ca::make(&name("acme"), SystemTime::now()).unwrap();
    Ca::open(&certificate, &key).unwrap()
}

#[test]
fn a_certificate_says_what_the_state_says_and_not_what_the_request_says() {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let mut params = CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
    params.subject_alt_names.push(SanType::URI("spiffe://acme/control-plane/1".try_into().unwrap()));
    let request = params.serialize_request(&key).unwrap().der().to_vec();
    let key_pem = provost_wire::tls::encode_pem("PRIVATE KEY", key.serialized_der());

    let (ca, now) = (ca(), SystemTime::now());
    let node = "spiffe://acme/data-plane/dp-1".parse().unwrap();
    let life = Duration::from_secs(3_600);
    let certificate = ca.issue(&NodeKey::of_request(&request).unwrap(), &node, 7, None, life, now).unwrap();
    let chain = certificates("test", &certificate).unwrap();
    assert_eq!((chain.len(), certificate_hash(&chain[1])), (2, ca.hash()));
    let bundle = provost_wire::tls::encode_pem("CERTIFICATE", &chain[1]);
    let identity = Identity::new(&Material { certificate, key: key_pem.into(), bundle }).unwrap();
    let certified = identity.certified();
    assert_eq!(certified.name, node);
    assert!(certified.dns.is_empty());
    assert_eq!(certified.serial_node_id, Some(7));
    let life = certified.not_after.duration_since(certified.not_before + BACKDATE).unwrap();
    assert_eq!(life, Duration::from_secs(3_600));
}

#[test]
fn a_certificate_ends_no_later_than_its_ca() {
    let now = SystemTime::now();
    let (ca, key) = (ca(), KeyRequest::make().unwrap());
    let node = "spiffe://acme/control-plane/7".parse().unwrap();
    let century = Duration::from_secs(100 * 365 * 86_400);
    let key = NodeKey::of_request(&key.request).unwrap();
    let certificate = ca.issue(&key, &node, 7, Some(&name("cp-7")), century, now).unwrap();
    let leaf = provost_wire::tls::read_certificate(&certificates("test", &certificate).unwrap()[0]).unwrap();
    assert_eq!(leaf.dns, ["cp-7"]);
    let years = leaf.not_after.duration_since(now).unwrap().as_secs() / (365 * 86_400);
    assert!((9..=10).contains(&years), "{years}");
}

#[test]
fn only_requests_that_prove_a_p256_key_are_taken() {
    let good = KeyRequest::make().unwrap().request;
    assert!(NodeKey::of_request(&good).is_ok());
    let other = |algorithm| {
        let key = KeyPair::generate_for(algorithm).unwrap();
        CertificateParams::default().serialize_request(&key).unwrap().der().to_vec()
    };
    for (case, request) in [
        ("Ed25519", other(&PKCS_ED25519)),
        ("P-384", other(&PKCS_ECDSA_P384_SHA384)),
        ("empty", Vec::new()),
        ("rubbish", vec![0x30; 200]),
        ("more after it", [&good[..], &[0]].concat()),
        ("too large", vec![0x30; 10 << 10]),
        ("cut off", good[..good.len() - 1].to_vec()),
    ] {
        let refused = NodeKey::of_request(&request).unwrap_err();
        assert_eq!(refused.code(), "PV-JOIN-CSR", "{case}");
    }
    // Whatever bit is changed, no other key comes out. (A few bits of the encoding mean nothing.)
    let key = NodeKey::of_request(&good).unwrap();
    let mut refused = 0;
    for bit in 0..good.len() * 8 {
        let mut changed = good.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        match NodeKey::of_request(&changed) {
            Ok(same) => assert_eq!(same, key, "bit {bit}"),
            Err(_) => refused += 1,
        }
    }
    let meaningless = good.len() * 8 - refused;
    assert!(meaningless < 40, "{meaningless} bits");
}

#[test]
fn a_ca_opens_only_with_its_own_key_cluster_and_certificate() {
    let now = SystemTime::now();
    let ((one, key), (two, _)) = (Ca::make(&name("acme"), now).unwrap(), Ca::make(&name("acme"), now).unwrap());
    assert_ne!(one, two);
    assert_eq!(Ca::open(&two, &key).unwrap_err().code(), "PV-CA-KEY");
    assert_eq!(Ca::open(&format!("{one}{two}"), &key).unwrap_err().code(), "PV-CA-KEY");
    assert_eq!(Ca::open(&one, b"no key").unwrap_err().code(), "PV-CA-KEY");
    let (authority, hash) = Certifier::make_authority(&Upside, &name("acme"), now).unwrap();
    assert_eq!(certificate_hash(&certificates("test", &authority.certificate).unwrap()[0]), hash);
    assert_eq!(Upside.open("x", &Upside.seal("y", b"z").unwrap()).unwrap_err().code(), "PV-SECRET-KEY");
}

#[test]
fn tokens_are_read_as_written_and_nothing_else_is() {
    use secrecy::ExposeSecret;
    let (one, two) = (JoinSecret::make([7; 32]).unwrap(), JoinSecret::make([7; 32]).unwrap());
    assert_ne!(one.hash(), two.hash());
    let text = one.text().expose_secret().to_owned();
    let read = JoinSecret::parse(&format!(" {text}\n")).unwrap();
    assert_eq!((read.ca_hash(), read.id(), read.hash()), ([7; 32], one.id(), one.hash()));
    assert!(!format!("{read:?}").contains(text.rsplit('.').next().unwrap()));
    let parts: Vec<&str> = text.split('.').collect();
    for bad in [
        "",
        "pv1",
        &parts[..3].join("."),
        &format!("{text}.x"),
        &text.replace("pv1.", "pv2."),
        &text[..text.len() - 1],
        &format!("{text}A"),
        &[parts[0], "AAAA", parts[2], parts[3]].join("."),
        &[parts[0], parts[1], "XX", parts[3]].join("."),
    ] {
        assert_eq!(JoinSecret::parse(bad).unwrap_err().code(), "PV-JOIN-TOKEN", "{bad}");
    }
}
