//! Refusals before there is a call: written to the record like any other, since a forged session
//! or a token that is not good is what an auditor looks for first.

use http::{HeaderValue, Response, StatusCode, header};
use provost_data_pipeline::{Caller, Plane, Rejection};
use provost_mcp::{ProtocolVersion, RpcError};
use provost_types::{AuditEvent, CallStatus, Effect, Impact, Phase, PrincipalRef, What, Who, Why};

use super::{
    answer::{rejection_headers, rejection_status},
    post::error_response,
};
use crate::{
    Frontend,
    frontend::Inbound,
    http::{Refusal, ResponseBody},
};

/// What was refused.
pub(crate) struct Denied<'a> {
    /// The caller, as far as known.
    pub(crate) caller: Option<&'a Caller>,
    /// The MCP method.
    pub(crate) method: &'a str,
    /// Our code.
    pub(crate) code: &'static str,
    /// One sentence.
    pub(crate) reason: String,
}

/// The longest name of a method that is recorded.
const MAX_METHOD_BYTES: usize = 64;

/// A method as a record has it: nobody has looked yet whether there is one of this name, and anything can stand there.
fn method_name(method: &str) -> &str {
    let is_word = |b: u8| b.is_ascii_alphabetic() || matches!(b, b'/' | b'_' | b'-' | b'$');
    if method.len() <= MAX_METHOD_BYTES && method.bytes().all(is_word) { method } else { "unknown" }
}

impl<P: Plane + 'static> Frontend<P> {
    /// Records a refusal. The answer, which gives nothing away, does not wait for it; a record
    /// that fails is logged, since there is no call that could be refused for it.
    pub(crate) fn record_denied(&self, inbound: &Inbound, denied: Denied<'_>) {
        let principal = denied.caller.map(|caller| caller.principal.clone());
        let mut event = Box::new(self.denied_event(inbound, denied));
        let plane = self.plane.clone();
        self.calls.spawn(async move {
            let recorded = async {
                if let Some(principal) = &principal {
                    plane.protect(principal, &mut event, None).await?;
                }
                plane.record(event).await
            };
            if let Err(cause) = recorded.await {
                tracing::error!(%cause, "PV-AUDIT-UNAVAILABLE: a refusal was not recorded");
            }
        });
    }

    fn denied_event(&self, inbound: &Inbound, denied: Denied<'_>) -> AuditEvent {
        let snapshot = self.plane.snapshot();
        let trace = inbound.trace();
        let caller = denied.caller;
        // The caller's own words are recorded as its guards leave them. Whose guards hold is known with the caller only: of
        // somebody unknown there are none of these words.
        let records =
            caller.and_then(|caller| self.plane.guard_refused(&snapshot, caller, None, &inbound.probe()).records);
        let clean = |text: String| records.as_ref().and_then(|records| records.clean(&text)).unwrap_or(text);
        let workflow = trace.workflow.filter(|_| caller.is_some()).map(&clean);
        AuditEvent {
            phase: Phase::Denied,
            call_id: inbound.call_id,
            tenant: caller.map(|c| c.principal.tenant.clone()),
            time_ns: self.plane.now_ns(),
            who: Who {
                principal: caller.map(|c| c.principal.name.to_string()).unwrap_or_default(),
                agent: None,
                client_address: inbound.address(),
                authenticated_by: caller.map(|c| c.authenticated_by.clone()).unwrap_or_default(),
            },
            what: What {
                method: method_name(denied.method).to_owned(),
                target: None,
                plugin: None,
                plugin_digest: None,
                request_id: None,
                protocol_version: Some(ProtocolVersion::LATEST.to_string()),
                transport: inbound.peer.transport.to_owned(),
                secrets: Vec::new(),
                subject: None,
            },
            why: Why { workflow, traceparent: trace.traceparent, root_call: None, attempt: 1 },
            decision: Some(Effect::Deny),
            policies: Vec::new(),
            revision: self.plane.revision(&snapshot),
            status: Some(CallStatus::Denied),
            error: Some(denied.code.to_owned()),
            reason: Some(clean(denied.reason)),
            guards: Vec::new(),
            body: None,
            impact: Impact::default(),
        }
    }

    /// Records that a session was used by somebody else than its owner.
    pub(super) fn record_foreign(&self, inbound: &Inbound, caller: &Caller, owner: &PrincipalRef, method: &str) {
        let reason = format!("a session of {owner} was used by {}", caller.principal);
        let code = "PV-MCP-SESSION-FOREIGN";
        self.record_denied(inbound, Denied { caller: Some(caller), method, code, reason });
    }

    /// Whether the credential is good; that it is not is recorded.
    pub(super) fn recognise(&self, inbound: &Inbound, method: &str) -> Result<(), Rejection> {
        let Err(rejection) = self.caller_of(inbound) else { return Ok(()) };
        let reason = rejection.error.message.clone();
        self.record_denied(inbound, Denied { caller: None, method, code: rejection.code, reason });
        Err(rejection)
    }

    /// Refuses a token in a URL, good or not: URLs stand in logs and histories (RFC 9700, section 4.3.2).
    pub(crate) fn refuse_token_in_url(&self, inbound: &Inbound) -> Response<ResponseBody> {
        let (code, reason) = ("PV-AUTH-QUERY", "a token stood in the URL; send it in the Authorization header");
        let denied = Denied { caller: None, method: "http/request", code, reason: reason.to_owned() };
        self.record_denied(inbound, denied);
        let error = RpcError::with_code(RpcError::INVALID_REQUEST, code, reason);
        let mut response = error_response(StatusCode::BAD_REQUEST, None, &error);
        let challenge = format!("Bearer error=\"invalid_request\", resource_metadata=\"{}\"", inbound.metadata_url());
        if let Ok(value) = HeaderValue::try_from(challenge) {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, value);
        }
        response
    }

    /// 401 unless the credential is good.
    pub(super) fn known_caller(&self, inbound: &Inbound, method: &str) -> Result<(), Refusal> {
        let Err(rejection) = self.recognise(inbound, method) else { return Ok(()) };
        let status = match rejection_status(&rejection) {
            StatusCode::OK => StatusCode::UNAUTHORIZED,
            status => status,
        };
        let mut response: Response<ResponseBody> = error_response(status, None, &rejection.error);
        response.headers_mut().extend(rejection_headers(&rejection, &inbound.metadata_url()));
        Err(Box::new(response))
    }
}
