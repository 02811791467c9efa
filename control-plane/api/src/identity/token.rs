//! Join tokens: `pv1.CA.ID.SECRET`, where `CA` is the SHA-256 of the CA's certificate (base64url),
//! `ID` names the token in lists and logs, and `SECRET` is 32 random bytes (base64url).

use std::time::{Duration, SystemTime};

use aws_lc_rs::{digest, rand};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use provost_control_state::{ClusterCommand, JoinToken, MAX_JOIN_TOKEN_LIFE_NS};
use provost_types::Name;
use provost_wire::tls::Roles;
use secrecy::SecretString;
use zeroize::Zeroizing;

use super::{Certifier, IdentityError, by_operator, certifier::role_names};
use crate::ControlError;

const FORM: &str = "pv1";
const HASH_BYTES: usize = 32;
const SECRET_BYTES: usize = 32;
const ID_BYTES: usize = 6;
/// In place of a CA's hash where the operator certifies nodes: they know whom to trust.
const NO_CA: [u8; HASH_BYTES] = [0; HASH_BYTES];

/// A join token as its holder has it.
pub struct JoinSecret {
    ca_hash: [u8; HASH_BYTES],
    id: String,
    text: Zeroizing<String>,
}

impl std::fmt::Debug for JoinSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "JoinSecret({})", self.id)
    }
}

impl JoinSecret {
    /// Makes a token.
    pub fn make(ca_hash: [u8; HASH_BYTES]) -> Result<Self, IdentityError> {
        let no_randomness = |_| super::error::ca("no randomness");
        let mut secret = Zeroizing::new([0; SECRET_BYTES]);
        rand::fill(&mut *secret).map_err(no_randomness)?;
        let mut id = [0; ID_BYTES];
        rand::fill(&mut id).map_err(no_randomness)?;
        let id = hex::encode(id);
        let (ca, secret) = (URL_SAFE_NO_PAD.encode(ca_hash), Zeroizing::new(URL_SAFE_NO_PAD.encode(secret.as_slice())));
        let text = Zeroizing::new(format!("{FORM}.{ca}.{id}.{}", *secret));
        Ok(Self { ca_hash, id, text })
    }

    /// Reads a token as it was handed out; space around it is taken off.
    pub fn parse(text: &str) -> Result<Self, IdentityError> {
        let text = text.trim();
        let parts: Vec<&str> = text.split('.').collect();
        let [FORM, ca, id, secret] = parts.as_slice() else {
            return Err(IdentityError::Token("it needs four parts"));
        };
        let ca_hash = URL_SAFE_NO_PAD.decode(ca).ok().and_then(|h| h.try_into().ok());
        let ca_hash = ca_hash.ok_or(IdentityError::Token("its second part is no hash"))?;
        if id.len() != 2 * ID_BYTES || !id.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase()) {
            return Err(IdentityError::Token("its third part is no id"));
        }
        let secret = URL_SAFE_NO_PAD.decode(secret).map(Zeroizing::new);
        if secret.map_or(0, |s| s.len()) != SECRET_BYTES {
            return Err(IdentityError::Token("its last part is not whole"));
        }
        Ok(Self { ca_hash, id: (*id).to_owned(), text: Zeroizing::new(text.to_owned()) })
    }

    /// SHA-256 of the certificate of the CA to trust.
    pub fn ca_hash(&self) -> [u8; HASH_BYTES] {
        self.ca_hash
    }

    /// Whether nodes of the cluster bring certificates of their operator.
    pub fn is_by_operator(&self) -> bool {
        self.ca_hash == NO_CA
    }

    /// The token's name; not secret.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The whole token.
    pub fn text(&self) -> SecretString {
        SecretString::from(self.text.as_str())
    }

    /// What the state keeps of it.
    pub fn hash(&self) -> String {
        hex::encode(digest::digest(&digest::SHA256, self.text.as_bytes()))
    }
}

/// Makes a join token for one node and stores its hash; also says when it ends. A `life` of zero
/// is the longest that there is, 15 minutes.
pub async fn make_join_token(
    certifier: &Certifier,
    node: &Name,
    roles: &Roles,
    life: Duration,
    now: SystemTime,
) -> Result<(SecretString, SystemTime), ControlError> {
    let life = if life.is_zero() { Duration::from_nanos(MAX_JOIN_TOKEN_LIFE_NS) } else { life };
    let ca_hash = match by_operator(&certifier.registry().cluster()) {
        true => NO_CA,
        false => certifier.signing()?.hash(),
    };
    let secret = JoinSecret::make(ca_hash)?;
    let token = JoinToken {
        id: secret.id().to_owned(),
        node: node.clone(),
        roles: role_names(roles)?,
        expires_ns: unix_ns(now + life),
        used: None,
    };
    let command = ClusterCommand::TokenMade { hash: secret.hash(), token, time_ns: unix_ns(now) };
    certifier.registry().change(command).await?;
    Ok((secret.text(), now + life))
}

/// Nanoseconds since the Unix epoch.
pub(super) fn unix_ns(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
