//! An authorization server as far as a resource server sees one: metadata, keys, tokens. Real keys, real HTTP.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
        RSA_PKCS1_SHA256, RSA_PSS_SHA512, RsaKeyPair,
    },
};
use axum::{Json, Router, http::StatusCode, routing::get};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as B64};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// A private key of the server.
pub enum Key {
    Rsa(Box<RsaKeyPair>),
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl Key {
    pub fn rsa() -> Self {
        Self::Rsa(Box::new(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()))
    }

    pub fn p256() -> Self {
        Self::P256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    pub fn p384() -> Self {
        Self::P384(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap())
    }

    pub fn ed25519() -> Self {
        Self::Ed25519(Ed25519KeyPair::generate().unwrap())
    }

    /// The key as it is published.
    pub fn jwk(&self, kid: &str) -> Value {
        let point = |curve: &str, key: &EcdsaKeyPair| {
            let whole = key.public_key().as_ref();
            let (x, y) = whole[1..].split_at((whole.len() - 1) / 2);
            json!({ "kty": "EC", "crv": curve, "x": B64.encode(x), "y": B64.encode(y), "use": "sig", "kid": kid })
        };
        match self {
            Self::Rsa(key) => {
                // RFC 8017: SEQUENCE { INTEGER of 257 bytes that begins with 0, INTEGER 65537 }.
                let der = key.public_key().as_ref();
                let (n, e) = (&der[9..9 + 256], &der[der.len() - 3..]);
                json!({ "kty": "RSA", "n": B64.encode(n), "e": B64.encode(e), "use": "sig", "kid": kid })
            }
            Self::P256(key) => point("P-256", key),
            Self::P384(key) => point("P-384", key),
            Self::Ed25519(key) => {
                json!({ "kty": "OKP", "crv": "Ed25519", "x": B64.encode(key.public_key().as_ref()), "kid": kid })
            }
        }
    }

    /// The algorithm that it is used for most.
    pub fn alg(&self) -> &'static str {
        match self {
            Self::Rsa(_) => "RS256",
            Self::P256(_) => "ES256",
            Self::P384(_) => "ES384",
            Self::Ed25519(_) => "EdDSA",
        }
    }

    fn sign(&self, alg: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                let padding: &'static dyn aws_lc_rs::signature::RsaEncoding =
                    if alg == "PS512" { &RSA_PSS_SHA512 } else { &RSA_PKCS1_SHA256 };
                key.sign(padding, &random, message, &mut signature).unwrap();
                signature
            }
            Self::P256(key) | Self::P384(key) => key.sign(&random, message).unwrap().as_ref().to_vec(),
            Self::Ed25519(key) => key.sign(message).as_ref().to_vec(),
        }
    }

    /// A signed token of these two texts, byte for byte.
    pub fn token_of(&self, header: &str, claims: &str) -> String {
        let alg = serde_json::from_str::<Value>(header).map(|h| h["alg"].as_str().unwrap_or("").to_owned());
        let signed = format!("{}.{}", B64.encode(header), B64.encode(claims));
        let signature = self.sign(&alg.unwrap_or_default(), signed.as_bytes());
        format!("{signed}.{}", B64.encode(signature))
    }

    /// A token with this `kid`.
    pub fn token(&self, kid: &str, claims: &Value) -> String {
        let header = json!({ "alg": self.alg(), "typ": "at+jwt", "kid": kid });
        self.token_of(&header.to_string(), &claims.to_string())
    }
}

/// What the server says, and how often it was asked.
#[derive(Default)]
struct Said {
    keys: std::sync::Mutex<Vec<Value>>,
    is_down: AtomicBool,
    metadata: AtomicU64,
    jwks: AtomicU64,
}

/// A running authorization server on loopback.
pub struct Idp {
    pub address: SocketAddr,
    said: Arc<Said>,
    _runtime: Runtime,
}

impl Idp {
    /// Publishes these keys. `path` is the metadata's: of OpenID Connect or of RFC 8414.
    pub fn start(keys: Vec<Value>, path: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let said = Arc::new(Said { keys: std::sync::Mutex::new(keys), ..Said::default() });
        let (of_metadata, of_keys) = (said.clone(), said.clone());
        let issuer = format!("http://{address}");
        let metadata = move || async move {
            of_metadata.metadata.fetch_add(1, Ordering::SeqCst);
            let document = json!({ "issuer": issuer, "jwks_uri": format!("{issuer}/keys") });
            if of_metadata.is_down.load(Ordering::SeqCst) { Err(StatusCode::BAD_GATEWAY) } else { Ok(Json(document)) }
        };
        let jwks = move || async move {
            of_keys.jwks.fetch_add(1, Ordering::SeqCst);
            let keys = of_keys.keys.lock().unwrap().clone();
            if of_keys.is_down.load(Ordering::SeqCst) {
                Err(StatusCode::BAD_GATEWAY)
            } else {
                Ok(Json(json!({ "keys": keys })))
            }
        };
        let router = Router::new().route(path, get(metadata)).route("/keys", get(jwks));
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let _ = axum::serve(listener, router).await;
        });
        Self { address, said, _runtime: runtime }
    }

    pub fn openid(keys: Vec<Value>) -> Self {
        Self::start(keys, "/.well-known/openid-configuration")
    }

    pub fn issuer(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn publish(&self, keys: Vec<Value>) {
        *self.said.keys.lock().unwrap() = keys;
    }

    pub fn set_down(&self, is_down: bool) {
        self.said.is_down.store(is_down, Ordering::SeqCst);
    }

    /// How often keys were asked for.
    pub fn asked(&self) -> u64 {
        self.said.jwks.load(Ordering::SeqCst)
    }

    /// How often anything was asked for.
    pub fn asked_for_anything(&self) -> u64 {
        self.asked() + self.said.metadata.load(Ordering::SeqCst)
    }

    /// Good claims of `sub` for `audience`, with more put over them.
    pub fn claims(&self, sub: &str, audience: &str, more: Value) -> Value {
        let mut claims = json!({ "iss": self.issuer(), "sub": sub, "aud": audience, "exp": now_s() + 600,
                                 "iat": now_s(), "jti": "1", "client_id": "agent" });
        for (name, value) in more.as_object().unwrap() {
            if value.is_null() {
                claims.as_object_mut().unwrap().remove(name);
            } else {
                claims[name] = value.clone();
            }
        }
        claims
    }
}

/// Seconds since the Unix epoch.
pub fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}
