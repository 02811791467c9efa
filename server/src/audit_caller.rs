//! Who asks the admin API about the audit log, and of which log they may.
//!
//! Invariant: who administers one tenant only reads, erases, holds and prunes that tenant's records.

use provost_audit_core::LogId;
use provost_control_api::{Caller, Scope};
use provost_types::{Name, Who};
use provost_wire::admin::Failure;
use tonic::{Code, Request, Status};

/// The caller as records name it.
pub fn who(caller: &Caller) -> Who {
    Who {
        principal: caller.name.clone(),
        agent: None,
        client_address: caller.address.clone(),
        authenticated_by: caller.authenticated_by.clone(),
    }
}

/// The caller that the listener authenticated, and the message.
pub fn taken<T>(request: Request<T>) -> Result<(Caller, T), Status> {
    let caller = request.extensions().get::<Caller>().cloned().ok_or_else(|| {
        let hint = "give one with `--admin-token` or PROVOST_ADMIN_TOKEN";
        Failure::new("PV-ADMIN-NO-TOKEN", "the request was not authenticated", hint).into_status(Code::Unauthenticated)
    })?;
    Ok((caller, request.into_inner()))
}

/// The log that is meant, if the caller may ask of it.
pub fn permitted(caller: &Caller, tenant: &str) -> Result<LogId, Status> {
    let log = match tenant {
        "" => LogId::CLUSTER,
        name => LogId(Some(Name::new(name).map_err(|e| invalid("PV-CLI-TENANT", e, "name a tenant, or `cluster`"))?)),
    };
    match &caller.scope {
        Scope::Cluster => Ok(log),
        Scope::Tenant(own) if log.0.as_ref() == Some(own) => Ok(log),
        Scope::Tenant(own) => {
            let text = format!("{} administers the tenant {own} only", caller.name);
            Err(Failure::new("PV-ADMIN-SCOPE", text, "ask a cluster administrator").into_status(Code::PermissionDenied))
        }
    }
}

/// What is asked is wrong in itself.
pub fn invalid(code: &str, cause: impl ToString, hint: &str) -> Status {
    Failure::new(code, cause.to_string(), hint).into_status(Code::InvalidArgument)
}

/// Errors carry `CODE: text; what to do`; one without a code gets this one.
pub fn failure_of(text: &str, otherwise: &str) -> Failure {
    let (code, rest) = text.split_once(": ").unwrap_or((otherwise, text));
    let (message, hint) = rest.rsplit_once("; ").unwrap_or((rest, ""));
    Failure::new(code, message, hint)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn caller(scope: Scope) -> Caller {
        Caller { scope, ..Caller::internal("x") }
    }

    #[test]
    fn a_tenants_administrator_reads_and_erases_there_only() {
        let own = caller(Scope::Tenant(Name::new("acme").unwrap()));
        let all = caller(Scope::Cluster);
        assert!(permitted(&own, "acme").is_ok());
        for log in ["", "rival"] {
            let refused = permitted(&own, log).unwrap_err();
            assert_eq!(
                (refused.code(), Failure::of(&refused).code.as_str()),
                (Code::PermissionDenied, "PV-ADMIN-SCOPE")
            );
            assert!(permitted(&all, log).is_ok());
        }
        assert_eq!(permitted(&all, "No Name").unwrap_err().code(), Code::InvalidArgument);
    }

    #[test]
    fn a_request_that_nobody_authenticated_is_refused() {
        let refused = taken(Request::new(())).unwrap_err();
        assert_eq!((refused.code(), Failure::of(&refused).code.as_str()), (Code::Unauthenticated, "PV-ADMIN-NO-TOKEN"));
    }
}
