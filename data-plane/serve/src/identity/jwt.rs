//! A token taken apart, strictly: one reading or none.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use provost_mcp::{JsonLimits, RawJson, RawObject};
use provost_types::TokenAlgorithm;
use serde_json::{Map, Value};

use super::fault::TokenFault;

/// The longest token, in bytes: above what the largest providers give out, and below the bound of a head.
pub(super) const MAX_TOKEN_BYTES: usize = 16 * 1024;
/// The longest `kid`.
const MAX_KID_BYTES: usize = 512;
/// Header and claims are shallow.
const LIMITS: JsonLimits = JsonLimits { max_bytes: MAX_TOKEN_BYTES, max_depth: 16 };
/// `typ` of access tokens, in lower case, without `application/`. Others are other things: `secevent+jwt`,
/// `logout+jwt`, `dpop+jwt`, `oauth-id-jag+jwt`.
const TYPES: [&str; 2] = ["at+jwt", "jwt"];
/// Claims that only an ID token has (OpenID Connect Core, sections 2 and 3): it is for the client that got it.
const OF_ID_TOKENS: [&str; 3] = ["nonce", "at_hash", "c_hash"];

/// A token whose signature was not checked.
pub(super) struct Unverified<'t> {
    pub(super) algorithm: TokenAlgorithm,
    pub(super) kid: Option<String>,
    pub(super) issuer: String,
    /// The whole of it.
    pub(super) text: &'t str,
    /// What is signed.
    pub(super) signed: &'t [u8],
    pub(super) signature: Vec<u8>,
    claims: Map<String, Value>,
}

/// Claims of a token whose signature is good. Made by [`Unverified::claims_of_signed`] alone.
pub(super) struct Claims(pub(super) Map<String, Value>);

impl<'t> Unverified<'t> {
    pub(super) fn parse(token: &'t str) -> Result<Self, TokenFault> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenFault::Form("it is too long"));
        }
        let mut parts = token.split('.');
        let (Some(head), Some(body), Some(mark), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(TokenFault::Form("it has not three parts"));
        };
        let (algorithm, kid) = header(&object(head, "its header is not a JSON object without duplicate keys")?)?;
        let claims = object(body, "its claims are not a JSON object without duplicate keys")?;
        let claims: Map<String, Value> =
            claims.finish().parse().map_err(|_| TokenFault::Form("its claims cannot be read"))?;
        let Some(Value::String(issuer)) = claims.get("iss") else {
            return Err(TokenFault::Form("it names no issuer"));
        };
        let issuer = issuer.clone();
        let signature = decode(mark).ok_or(TokenFault::Form("its signature is not base64url"))?;
        let signed = token.as_bytes().get(..head.len() + 1 + body.len()).unwrap_or_default();
        Ok(Self { algorithm, kid, issuer, text: token, signed, signature, claims })
    }

    /// One whose parts are given.
    #[cfg(test)]
    pub(super) fn of_parts(algorithm: TokenAlgorithm, signed: &'t [u8], signature: Vec<u8>) -> Self {
        Self { algorithm, kid: None, issuer: String::new(), text: "", signed, signature, claims: Map::new() }
    }

    /// The claims, once whoever calls has checked the signature.
    pub(super) fn claims_of_signed(self) -> Claims {
        Claims(self.claims)
    }
}

fn header(header: &RawObject) -> Result<(TokenAlgorithm, Option<String>), TokenFault> {
    let text = |name: &str| match header.get(name) {
        None => Ok(None),
        Some(value) => value.as_text().map(|t| Some(t.into_owned())).ok_or(TokenFault::Form("its header is malformed")),
    };
    if header.get("crit").is_some() {
        return Err(TokenFault::Form("it has critical extensions (`crit`)"));
    }
    if let Some(kind) = text("typ")? {
        let kind = kind.to_ascii_lowercase();
        if !TYPES.contains(&kind.strip_prefix("application/").unwrap_or(&kind)) {
            return Err(TokenFault::Form("its `typ` is not that of an access token"));
        }
    }
    let algorithm = text("alg")?.as_deref().and_then(TokenAlgorithm::named);
    let algorithm = algorithm.ok_or(TokenFault::Form("its `alg` is none that is taken"))?;
    let kid = text("kid")?;
    if kid.as_ref().is_some_and(|kid| kid.len() > MAX_KID_BYTES) {
        return Err(TokenFault::Form("its `kid` is too long"));
    }
    Ok((algorithm, kid))
}

fn object(part: &str, otherwise: &'static str) -> Result<RawObject, TokenFault> {
    let bytes = decode(part).ok_or(TokenFault::Form("it is not base64url"))?;
    RawJson::check(Bytes::from(bytes), &LIMITS)
        .and_then(|json| RawObject::parse(&json))
        .map_err(|_| TokenFault::Form(otherwise))
}

/// Base64url without padding, and without bits that mean nothing: one text for one value.
fn decode(part: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(part).ok()
}

impl Claims {
    /// Refuses what is no access token, or one that its holder has to prove more for.
    pub(super) fn check_kind(&self) -> Result<(), TokenFault> {
        if OF_ID_TOKENS.iter().any(|claim| self.0.contains_key(*claim)) {
            return Err(TokenFault::Form("it is an ID token, not an access token"));
        }
        if self.0.contains_key("cnf") {
            return Err(TokenFault::Form("it is bound to a key (`cnf`), which is not checked here"));
        }
        Ok(())
    }

    /// Checks `exp` (required) and `nbf` at `now_s`; gives the second from which it is refused.
    pub(super) fn check_time(&self, now_s: u64, leeway_s: u64) -> Result<u64, TokenFault> {
        let end = self.seconds("exp")?.ok_or(TokenFault::Form("it has no end (`exp`)"))?;
        let end = end.saturating_add(leeway_s);
        if now_s >= end {
            return Err(TokenFault::Expired);
        }
        if self.seconds("nbf")?.is_some_and(|begin| now_s.saturating_add(leeway_s) < begin) {
            return Err(TokenFault::TooEarly);
        }
        Ok(end)
    }

    /// A NumericDate (RFC 7519): seconds, possibly with a fraction.
    fn seconds(&self, claim: &str) -> Result<Option<u64>, TokenFault> {
        const MAX: f64 = 1e12;
        match self.0.get(claim) {
            None => Ok(None),
            Some(value) => match (value.as_u64(), value.as_f64()) {
                (Some(seconds), _) => Ok(Some(seconds)),
                (None, Some(seconds)) if (0.0..MAX).contains(&seconds) => Ok(Some(seconds as u64)),
                _ => Err(TokenFault::Form("its `exp` or `nbf` is not a time")),
            },
        }
    }

    /// The audiences: a text, or a list of them.
    pub(super) fn audiences(&self) -> Vec<&str> {
        match self.0.get("aud") {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        }
    }

    /// OAuth scopes: `scope` (RFC 9068), or `scp`, a text or a list, of some providers.
    pub(super) fn scopes(&self) -> Vec<&str> {
        match self.0.get("scope").or_else(|| self.0.get("scp")) {
            Some(Value::String(text)) => text.split(' ').filter(|s| !s.is_empty()).collect(),
            Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        }
    }

    /// The claim of this name; else the member that its parts, between dots, lead to.
    pub(super) fn at(&self, path: &str) -> Option<&Value> {
        if let Some(found) = self.0.get(path) {
            return Some(found);
        }
        let mut parts = path.split('.');
        let first = self.0.get(parts.next()?)?;
        parts.try_fold(first, |value, part| value.as_object()?.get(part))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn token(header: &str, claims: &str) -> String {
        format!("{}.{}.AA", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims))
    }

    fn fault(token: &str) -> String {
        Unverified::parse(token).err().map(|f| f.to_string()).unwrap_or_default()
    }

    #[test]
    fn headers_and_claims_have_one_reading() {
        const BODY: &str = r#"{"iss":"https://a"}"#;
        let good = [
            r#"{"alg":"RS256"}"#,
            r#"{"alg":"ES256","typ":"at+jwt","kid":"1","jku":"https://evil.example","x":1}"#,
            r#"{"alg":"EdDSA","typ":"application/AT+JWT"}"#,
            r#"{"alg":"Ed25519","typ":"JWT"}"#,
        ];
        for header in good {
            assert_eq!(fault(&token(header, BODY)), "", "{header}");
        }
        let bad = [
            (r#"{"alg":"none"}"#, BODY, "`alg`"),
            (r#"{"alg":"HS256"}"#, BODY, "`alg`"),
            (r#"{"alg":["RS256"]}"#, BODY, "malformed"),
            (r#"{}"#, BODY, "`alg`"),
            (r#"{"alg":"RS256","alg":"none"}"#, BODY, "duplicate"),
            (r#"{"alg":"RS256","al\u0067":"none"}"#, BODY, "duplicate"),
            (r#"{"alg":"RS256","crit":["b64"],"b64":false}"#, BODY, "crit"),
            (r#"{"alg":"RS256","crit":[]}"#, BODY, "crit"),
            (r#"{"alg":"RS256","typ":"oauth-id-jag+jwt"}"#, BODY, "`typ`"),
            (r#"{"alg":"RS256","typ":"logout+jwt"}"#, BODY, "`typ`"),
            (r#"{"alg":"RS256","kid":1}"#, BODY, "malformed"),
            (r#"{"alg":"RS256"}"#, r#"{"iss":"a","iss":"b"}"#, "duplicate"),
            (r#"{"alg":"RS256"}"#, r#"{"iss":"a","sub":"x","s\u0075b":"y"}"#, "duplicate"),
            (r#"{"alg":"RS256"}"#, r#"{"iss":"a","x":{"r":1,"r":2}}"#, "duplicate"),
            (r#"{"alg":"RS256"}"#, r#"{"sub":"a"}"#, "issuer"),
            (r#"{"alg":"RS256"}"#, r#"{"iss":["a"]}"#, "issuer"),
            (r#"{"alg":"RS256"}"#, "[]", "duplicate"),
            (r#"{"alg":"RS256"}"#, "{", "duplicate"),
        ];
        for (header, claims, expect) in bad {
            let said = fault(&token(header, claims));
            assert!(said.contains(expect), "{header} {claims}: {said:?}");
        }
        let whole = token(good[0], BODY);
        for broken in
            ["", ".", "a.b", "a.b.c.d", &format!("{whole}="), &format!("{whole}.AA"), &whole.replace('.', "..")]
        {
            assert_ne!(fault(broken), "", "{broken}");
        }
        assert!(fault(&"x".repeat(MAX_TOKEN_BYTES + 1)).contains("long"));
    }

    fn claims(text: &str) -> Claims {
        Claims(serde_json::from_str(text).unwrap())
    }

    #[test]
    fn times_are_checked_with_leeway() {
        let table = [
            (r#"{"exp":100}"#, 99, 0, Ok(100)),
            (r#"{"exp":100}"#, 100, 0, Err(TokenFault::Expired)),
            (r#"{"exp":100}"#, 129, 30, Ok(130)),
            (r#"{"exp":100}"#, 130, 30, Err(TokenFault::Expired)),
            (r#"{"exp":100.9,"nbf":90}"#, 90, 0, Ok(100)),
            (r#"{"exp":100,"nbf":90}"#, 89, 0, Err(TokenFault::TooEarly)),
            (r#"{"exp":100,"nbf":90}"#, 60, 30, Ok(130)),
            (r#"{}"#, 0, 0, Err(TokenFault::Form("it has no end (`exp`)"))),
            (r#"{"exp":"100"}"#, 0, 0, Err(TokenFault::Form("its `exp` or `nbf` is not a time"))),
            (r#"{"exp":-1}"#, 0, 0, Err(TokenFault::Form("its `exp` or `nbf` is not a time"))),
            (r#"{"exp":1e300}"#, 0, 0, Err(TokenFault::Form("its `exp` or `nbf` is not a time"))),
            (r#"{"exp":100,"nbf":null}"#, 0, 0, Err(TokenFault::Form("its `exp` or `nbf` is not a time"))),
        ];
        for (text, now, leeway, expect) in table {
            assert_eq!(claims(text).check_time(now, leeway), expect, "{text} at {now}");
        }
    }

    #[test]
    fn id_tokens_and_bound_tokens_are_refused() {
        assert_eq!(claims(r#"{"sub":"a","azp":"c"}"#).check_kind(), Ok(()));
        for text in [r#"{"nonce":"x"}"#, r#"{"at_hash":"x"}"#, r#"{"cnf":{"jkt":"x"}}"#] {
            assert!(claims(text).check_kind().is_err(), "{text}");
        }
    }

    #[test]
    fn claims_are_found_by_name_and_by_path() {
        let all = claims(r#"{"a.b":1,"a":{"b":2,"c":{"d":3}},"scope":" x  y","aud":["p",1,"q"]}"#);
        for (path, expect) in [("a.b", Some(1)), ("a.c.d", Some(3)), ("a.c.e", None), ("a.c.d.e", None), ("", None)] {
            assert_eq!(all.at(path).and_then(Value::as_u64), expect, "{path}");
        }
        assert_eq!((all.scopes(), all.audiences()), (vec!["x", "y"], vec!["p", "q"]));
        assert_eq!(claims(r#"{"scp":["r","s"]}"#).scopes(), ["r", "s"]);
    }
}
