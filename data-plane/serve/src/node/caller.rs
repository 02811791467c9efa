//! Who calls.

use std::sync::Arc;

use provost_data_pipeline::{Caller, Credential, Plane, Rejection, RejectionKind, Route};

use super::{compiled::Compiled, plane::Node};

impl Node {
    /// Who the credential says that calls.
    pub(super) fn caller(
        &self,
        compiled: &Compiled,
        credential: &Credential,
        route: &Route,
    ) -> Result<Arc<Caller>, Rejection> {
        match (credential, &self.anonymous) {
            (Credential::Bearer(token), _) if compiled.is_of_provider(token) => {
                let now_s = self.now_ns() / 1_000_000_000;
                let addresses = self.addresses.get().map(Vec::as_slice).unwrap_or_default();
                compiled.tokens.authenticate(token, route, &compiled.snapshot, addresses, now_s)
            }
            (Credential::Bearer(token), _) => compiled.keys.authenticate(token, self.now_ns()),
            (Credential::Certificate(certificate), _) => {
                compiled.certificates.authenticate(certificate, self.now_ns() / 1_000_000_000)
            }
            (Credential::Anonymous, Some(caller)) => Ok(caller.clone()),
            (Credential::Anonymous, None) => Err(compiled.tokens.challenge(Rejection::new(
                RejectionKind::Unauthenticated,
                "PV-AUTH-MISSING",
                "no bearer token was sent; `provost token create` makes one",
            ))),
        }
    }
}
