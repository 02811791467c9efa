//! Why a token is not good, for its holder and for the record.

use provost_data_pipeline::{Rejection, RejectionKind};

/// See the module. No text here holds anything of a token that was not verified, but what its own
/// holder may know of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenFault {
    /// It has not the form of a token, or says what no access token says.
    #[error("the token is not usable: {0}")]
    Form(&'static str),
    /// No tenant trusts its issuer.
    #[error("no tenant here takes tokens of the issuer that the token names")]
    Issuer,
    /// It was not signed with that key.
    #[error("the token's signature is not that of its issuer")]
    Signature,
    /// The provider does not have the key, as far as known.
    #[error("the issuer has published no key of the token's `kid` and `alg`")]
    UnknownKey,
    /// Nothing can be verified: the keys were never fetched, or too long ago.
    #[error("the issuer's keys cannot be had now; try again")]
    NoKeys,
    /// Its time is over.
    #[error("the token has expired; ask its issuer for a new one")]
    Expired,
    /// Its time has not come.
    #[error("the token is not valid yet; check the clocks")]
    TooEarly,
    /// It is meant for somebody else.
    #[error("the token's audience is not this endpoint; ask for one with its address as `resource` (RFC 8707)")]
    Audience,
    /// The caller has no principal.
    #[error("the token is good, but the tenant has no principal `{0}`")]
    NoPrincipal(String),
    /// The claim that names the caller is not there.
    #[error("the token is good, but its claim `{0}` names nobody")]
    NoName(String),
    /// The principal is disabled.
    #[error("principal {0} is disabled")]
    Disabled(String),
}

impl TokenFault {
    /// The stable code.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Form(_) | Self::Signature => "PV-AUTH-TOKEN",
            Self::Issuer => "PV-AUTH-ISSUER",
            Self::UnknownKey | Self::NoKeys => "PV-AUTH-ISSUER-KEYS",
            Self::Expired | Self::TooEarly => "PV-AUTH-EXPIRED-TOKEN",
            Self::Audience => "PV-AUTH-AUDIENCE",
            Self::NoPrincipal(_) | Self::NoName(_) => "PV-AUTH-NO-PRINCIPAL",
            Self::Disabled(_) => "PV-AUTH-DISABLED",
        }
    }

    /// As the pipeline takes it.
    pub(crate) fn rejection(&self) -> Rejection {
        Rejection::new(RejectionKind::Unauthenticated, self.code(), self.to_string())
    }
}
