//! Keys as providers publish them (RFC 7517, 7518, 8037), and the check of a signature.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512,
    RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use provost_mcp::{JsonLimits, RawJson};
use provost_types::TokenAlgorithm;
use serde::Deserialize;
use serde_json::Value;

use super::{fault::TokenFault, jwt::Unverified};

/// The longest set, in bytes.
pub(super) const MAX_SET_BYTES: usize = 256 * 1024;
/// The most keys of a set that are looked at.
const MAX_KEYS: usize = 64;
/// Bits of the smallest and the largest RSA key (NIST SP 800-131A; the largest bounds the work).
const RSA_BITS: std::ops::RangeInclusive<usize> = 2_048..=8_192;

/// A key for signatures.
#[derive(Debug, PartialEq, Eq)]
enum Material {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// Uncompressed points.
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

/// One key of a set.
#[derive(Debug, PartialEq, Eq)]
struct Key {
    kid: Option<String>,
    /// The one algorithm that it is for, where it says so.
    algorithm: Option<TokenAlgorithm>,
    material: Material,
}

/// The keys of a provider that signatures can be checked with.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct KeySet {
    keys: Vec<Key>,
}

#[derive(Deserialize)]
struct Published {
    keys: Vec<Value>,
}

/// A key as published; what is not said here does not matter.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl KeySet {
    /// Reads a set. Keys that are for other things, or too small, are left out; a set that holds none that
    /// is usable is no set.
    pub(super) fn parse(bytes: Bytes) -> Result<Self, &'static str> {
        let limits = JsonLimits { max_bytes: MAX_SET_BYTES, max_depth: 16 };
        let json = RawJson::check(bytes, &limits).map_err(|_| "it is not JSON without duplicate keys")?;
        let published: Published = json.parse().map_err(|_| "it has no list `keys`")?;
        let keys: Vec<Key> = published.keys.into_iter().take(MAX_KEYS).filter_map(Key::read).collect();
        if keys.is_empty() {
            return Err(
                "it holds no public key for signatures that is usable (RSA of 2048 bits or more, P-256, P-384, Ed25519)",
            );
        }
        Ok(Self { keys })
    }

    /// Whether the set has a key for this token.
    pub(super) fn has(&self, token: &Unverified<'_>) -> bool {
        self.key(token.kid.as_deref(), token.algorithm).is_some()
    }

    /// Checks the signature with the key that the token names. A token without `kid` needs a set in which only
    /// one key fits.
    pub(super) fn verify(&self, token: &Unverified<'_>) -> Result<(), TokenFault> {
        let key = self.key(token.kid.as_deref(), token.algorithm).ok_or(TokenFault::UnknownKey)?;
        if key.verifies(token.algorithm, token.signed, &token.signature) { Ok(()) } else { Err(TokenFault::Signature) }
    }

    fn key(&self, kid: Option<&str>, algorithm: TokenAlgorithm) -> Option<&Key> {
        let mut fitting = self.keys.iter().filter(|key| key.fits(algorithm));
        match kid {
            Some(kid) => fitting.find(|key| key.kid.as_deref() == Some(kid)),
            None => fitting.next().filter(|_| fitting.next().is_none()),
        }
    }
}

impl Key {
    fn read(value: Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(value).ok()?;
        let for_signatures = jwk.purpose.as_deref().is_none_or(|p| p == "sig")
            && jwk.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        // A key for an algorithm that is not known here is not for those that are.
        let algorithm = match jwk.alg.as_deref() {
            None => None,
            Some(alg) => Some(TokenAlgorithm::named(alg)?),
        };
        if !for_signatures {
            return None;
        }
        let material = material(&jwk)?;
        Some(Self { kid: jwk.kid, algorithm, material })
    }

    /// Whether the key may be used for the algorithm: what it is decides, never what a token says.
    fn fits(&self, algorithm: TokenAlgorithm) -> bool {
        use TokenAlgorithm as A;
        let kind = match self.material {
            Material::Rsa { .. } => {
                matches!(algorithm, A::RS256 | A::RS384 | A::RS512 | A::PS256 | A::PS384 | A::PS512)
            }
            Material::P256(_) => algorithm == A::ES256,
            Material::P384(_) => algorithm == A::ES384,
            Material::Ed25519(_) => algorithm == A::EdDSA,
        };
        kind && self.algorithm.is_none_or(|own| own == algorithm)
    }

    fn verifies(&self, algorithm: TokenAlgorithm, signed: &[u8], signature: &[u8]) -> bool {
        let by = |checked: Result<(), aws_lc_rs::error::Unspecified>| checked.is_ok();
        match &self.material {
            Material::Rsa { n, e } => rsa(algorithm)
                .is_some_and(|parameters| by(RsaPublicKeyComponents { n, e }.verify(parameters, signed, signature))),
            Material::P256(point) => {
                by(UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(signed, signature))
            }
            Material::P384(point) => {
                by(UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point).verify(signed, signature))
            }
            Material::Ed25519(key) => by(UnparsedPublicKey::new(&ED25519, key).verify(signed, signature)),
        }
    }
}

fn rsa(algorithm: TokenAlgorithm) -> Option<&'static RsaParameters> {
    Some(match algorithm {
        TokenAlgorithm::RS256 => &RSA_PKCS1_2048_8192_SHA256,
        TokenAlgorithm::RS384 => &RSA_PKCS1_2048_8192_SHA384,
        TokenAlgorithm::RS512 => &RSA_PKCS1_2048_8192_SHA512,
        TokenAlgorithm::PS256 => &RSA_PSS_2048_8192_SHA256,
        TokenAlgorithm::PS384 => &RSA_PSS_2048_8192_SHA384,
        TokenAlgorithm::PS512 => &RSA_PSS_2048_8192_SHA512,
        TokenAlgorithm::ES256 | TokenAlgorithm::ES384 | TokenAlgorithm::EdDSA => return None,
    })
}

fn material(jwk: &Jwk) -> Option<Material> {
    let part = |text: &Option<String>| URL_SAFE_NO_PAD.decode(text.as_deref()?).ok();
    let point = |bytes: usize| {
        let (x, y) = (part(&jwk.x)?, part(&jwk.y)?);
        (x.len() == bytes && y.len() == bytes).then(|| [&[4][..], &x, &y].concat())
    };
    match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("RSA", _) => {
            // Some write a zero in front, as in DER.
            let n: Vec<u8> = part(&jwk.n)?.into_iter().skip_while(|b| *b == 0).collect();
            let bits = n.len() * 8 - n.first()?.leading_zeros() as usize;
            RSA_BITS.contains(&bits).then_some(Material::Rsa { n, e: part(&jwk.e)? })
        }
        ("EC", Some("P-256")) => point(32).map(Material::P256),
        ("EC", Some("P-384")) => point(48).map(Material::P384),
        ("OKP", Some("Ed25519")) => part(&jwk.x).filter(|x| x.len() == 32).map(Material::Ed25519),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn set(json: &str) -> Result<KeySet, &'static str> {
        KeySet::parse(Bytes::copy_from_slice(json.as_bytes()))
    }

    fn unverified(token: &str, algorithm: TokenAlgorithm) -> Unverified<'_> {
        // The examples of the RFCs name no issuer, or no JSON at all: the parts are taken by hand.
        let (signed, signature) = token.rsplit_once('.').unwrap();
        Unverified::of_parts(algorithm, signed.as_bytes(), URL_SAFE_NO_PAD.decode(signature).unwrap())
    }

    /// RFC 7515, A.3 and RFC 8037, A.4.
    #[test]
    fn examples_of_the_standards_verify() {
        let table = [
            (
                TokenAlgorithm::ES256,
                r#"{"keys":[{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
                    "y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#,
                "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
            ),
            (
                TokenAlgorithm::EdDSA,
                r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#,
                "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
            ),
        ];
        for (algorithm, keys, token) in table {
            let keys = set(keys).unwrap();
            assert_eq!(keys.verify(&unverified(token, algorithm)), Ok(()), "{algorithm:?}");
            let other = token.replacen('i', "j", 2);
            assert_eq!(keys.verify(&unverified(&other, algorithm)), Err(TokenFault::Signature), "{algorithm:?}");
            for wrong in TokenAlgorithm::ALL.into_iter().filter(|a| *a != algorithm) {
                assert_eq!(keys.verify(&unverified(token, wrong)), Err(TokenFault::UnknownKey), "{wrong:?}");
            }
        }
    }

    const EC: &str = r#""kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0""#;

    #[test]
    fn keys_for_other_things_are_left_out() {
        let small = "A".repeat(170);
        let rsa = |n: &str| format!(r#"{{"kty":"RSA","n":"{n}","e":"AQAB"}}"#);
        let fits = format!("_{}", "A".repeat(341));
        for (key, usable) in [
            (format!("{{{EC}}}"), true),
            (format!(r#"{{{EC},"use":"sig","alg":"ES256","key_ops":["verify"]}}"#), true),
            (format!(r#"{{{EC},"use":"enc"}}"#), false),
            (format!(r#"{{{EC},"alg":"ES256K"}}"#), false),
            (format!(r#"{{{EC},"key_ops":["deriveKey"]}}"#), false),
            (EC.replace("P-256", "P-384").replacen('"', "{\"", 1) + "}", false),
            (r#"{"kty":"oct","k":"c2VjcmV0"}"#.to_owned(), false),
            (rsa(&small), false),
            (rsa(&fits), true),
            (rsa("A"), false),
            (rsa(""), false),
            ("1".to_owned(), false),
        ] {
            assert_eq!(set(&format!(r#"{{"keys":[{key}]}}"#)).is_ok(), usable, "{key}");
        }
        for text in ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[],"keys":[]}"#] {
            assert!(set(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_token_without_kid_needs_one_key_that_fits() {
        let keys = |names: &[&str]| {
            let all: Vec<String> = names.iter().map(|kid| format!(r#"{{{EC},"kid":"{kid}"}}"#)).collect();
            set(&format!(r#"{{"keys":[{}]}}"#, all.join(","))).unwrap()
        };
        let (one, two) = (keys(&["a"]), keys(&["a", "b"]));
        assert!(one.key(None, TokenAlgorithm::ES256).is_some());
        assert!(two.key(None, TokenAlgorithm::ES256).is_none());
        assert!(two.key(Some("b"), TokenAlgorithm::ES256).is_some());
        assert!(two.key(Some("c"), TokenAlgorithm::ES256).is_none());
        assert!(one.key(None, TokenAlgorithm::RS256).is_none());
    }
}
