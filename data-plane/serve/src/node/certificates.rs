//! Principals by the names in their certificates.

use std::{collections::HashMap, sync::Arc};

use provost_data_pipeline::{Caller, CertificateFacts, Rejection, RejectionKind};
use provost_types::{Kind, PrincipalRef, Snapshot, Spec};

/// Everybody who may come with a certificate, in one snapshot.
#[derive(Debug, Default)]
pub(super) struct Certificates {
    by_name: HashMap<String, Holder>,
}

#[derive(Debug)]
struct Holder {
    caller: Arc<Caller>,
    disabled: bool,
}

impl Certificates {
    /// Collects the names of a snapshot. Admission lets each in once.
    pub(super) fn compile(snapshot: &Snapshot) -> Self {
        let mut by_name = HashMap::new();
        for resource in snapshot.of_kind(Kind::Principal) {
            let (Spec::Principal(spec), Some(tenant)) = (&resource.spec, &resource.metadata.tenant) else { continue };
            for name in &spec.certificates {
                let caller = Arc::new(Caller {
                    principal: PrincipalRef { tenant: tenant.clone(), name: resource.metadata.name.clone() },
                    authenticated_by: format!("certificate:{name}"),
                    token: None,
                    subject: None,
                });
                by_name.insert(name.clone(), Holder { caller, disabled: spec.disabled });
            }
        }
        Self { by_name }
    }

    /// Whose certificate it is, at `now_s`.
    pub(super) fn authenticate(&self, certificate: &CertificateFacts, now_s: u64) -> Result<Arc<Caller>, Rejection> {
        let refused = |text: &str| {
            Err(Rejection::new(
                RejectionKind::Unauthenticated,
                "PV-AUTH-CERTIFICATE",
                format!("the client certificate {text}"),
            ))
        };
        // TLS looked at it when the connection began, which may be long ago.
        if now_s >= certificate.ends_s {
            return refused("has ended; connect again with a new one");
        }
        let mut holders = certificate.names.iter().filter_map(|name| self.by_name.get(name));
        let Some(holder) = holders.next() else {
            return refused("names no principal; add one of its names to the principal's `certificates`");
        };
        if holders.any(|other| other.caller.principal != holder.caller.principal) {
            return refused("names more than one principal");
        }
        if holder.disabled {
            let text = format!("principal {} is disabled", holder.caller.principal);
            return Err(Rejection::new(RejectionKind::Unauthenticated, "PV-AUTH-DISABLED", text));
        }
        Ok(holder.caller.clone())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use provost_types::{Metadata, Name, PrincipalSpec, Resource, Revision};

    use super::*;

    #[test]
    fn names_lead_to_one_principal_or_to_none() {
        let principal = |name: &str, names: &[&str], disabled| {
            let certificates = names.iter().map(ToString::to_string).collect();
            let spec = Spec::Principal(PrincipalSpec { certificates, disabled, ..PrincipalSpec::default() });
            let tenant = Some(Name::new("acme").unwrap());
            let metadata = Metadata { name: Name::new(name).unwrap(), tenant, labels: Default::default() };
            let resource = Resource { metadata, spec, created: Revision(1), modified: Revision(1) };
            (resource.key(), Arc::new(resource))
        };
        let resources = [
            principal("ann", &["uri:spiffe://a/ann", "dns:ann.example"], false),
            principal("bob", &["dns:bob.example"], false),
            principal("off", &["email:off@example.com"], true),
        ];
        let all =
            Certificates::compile(&Snapshot { revision: Revision(1), resources: resources.into_iter().collect() });
        let ask = |names: &[&str], now_s| {
            let names = names.iter().map(ToString::to_string).collect();
            let facts = CertificateFacts { names, ends_s: 100 };
            all.authenticate(&facts, now_s).map(|c| c.authenticated_by.clone()).map_err(|r| r.code)
        };
        let ann = Ok("certificate:uri:spiffe://a/ann".to_owned());
        assert_eq!(ask(&["uri:spiffe://a/ann", "dns:ann.example", "dns:x"], 99), ann);
        assert_eq!(ask(&["dns:x", "uri:spiffe://a/ann"], 99), ann);
        for (names, now, code) in [
            (&["uri:spiffe://a/ann"][..], 100, "PV-AUTH-CERTIFICATE"),
            (&[], 0, "PV-AUTH-CERTIFICATE"),
            (&["dns:x"], 0, "PV-AUTH-CERTIFICATE"),
            (&["uri:spiffe://a/ann/"], 0, "PV-AUTH-CERTIFICATE"),
            (&["uri:dns:ann.example"], 0, "PV-AUTH-CERTIFICATE"),
            (&["dns:ann.example", "dns:bob.example"], 0, "PV-AUTH-CERTIFICATE"),
            (&["email:off@example.com"], 0, "PV-AUTH-DISABLED"),
        ] {
            assert_eq!(ask(names, now), Err(code), "{names:?}");
        }
    }
}
