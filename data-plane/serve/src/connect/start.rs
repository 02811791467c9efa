//! The first page, and what follows it: to the authorization server, once the user has proved who they are.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use provost_data_pipeline::{Caller, Credential, Plane, Route};
use url::form_urlencoded;

use super::{ConsentFailed, Consents, Flow, Ticket, Tickets, page, redirect_uri, ticket::FLOW_S};
use crate::{Frontend, frontend::Inbound, http::ResponseBody, mcp::Denied, seal::SealFailed};

/// The method in records of refusals.
pub(super) const METHOD: &str = "connect/start";

/// Bytes of the form: a ticket and a token.
pub(crate) const MAX_FORM_BYTES: usize = 64 * 1024;

type Failed = (StatusCode, ConsentFailed);

pub(super) fn failed(status: StatusCode, code: &'static str, message: impl Into<String>) -> Failed {
    (status, ConsentFailed::new(code, message))
}

/// The one value of a parameter; `Err`: it comes more than once, and readers differ on which counts.
pub(super) fn single(query: &[u8], name: &str) -> Result<Option<String>, Failed> {
    let mut values = form_urlencoded::parse(query).filter(|(key, _)| key == name).map(|(_, value)| value.into_owned());
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        _ => Err(failed(StatusCode::BAD_REQUEST, "PV-CONNECT-STATE", format!("`{name}` came twice"))),
    }
}

/// Names the cookie of a flow: several may be under way in one browser.
pub(super) fn cookie_name(base: &str, state: &str) -> String {
    // The prefix keeps other hosts of the domain, and pages without TLS, from setting it.
    let prefix = if base.starts_with("https://") { "__Host-" } else { "" };
    format!("{prefix}provost-connect-{}", state.get(..16).unwrap_or_default())
}

/// `value` empty: the cookie goes.
pub(super) fn cookie(base: &str, state: &str, value: &str) -> Option<HeaderValue> {
    let secure = if base.starts_with("https://") { "; Secure" } else { "" };
    let age = if value.is_empty() { 0 } else { FLOW_S };
    let name = cookie_name(base, state);
    // Lax: the way back from the authorization server is a navigation that comes from another site.
    HeaderValue::from_str(&format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age={age}{secure}")).ok()
}

impl<P: Plane + 'static> Frontend<P> {
    pub(super) fn consents(&self) -> Result<&Arc<dyn Consents>, Failed> {
        let none = || failed(StatusCode::NOT_FOUND, "PV-CONNECT-TICKET", "no plugin here acts in its users' names");
        self.consents.as_ref().ok_or_else(none)
    }

    /// The page that a call named.
    pub(crate) fn connect_page(&self, inbound: &Inbound, query: &str) -> Response<ResponseBody> {
        let shown = || -> Result<Response<ResponseBody>, Failed> {
            let sealed = single(query.as_bytes(), "ticket")?.unwrap_or_default();
            let ticket = self.ticket(&sealed)?;
            Ok(page::ask(&ticket, &sealed, self.is_whose(inbound, &ticket).is_some()))
        };
        shown().unwrap_or_else(|(status, why)| page::failed(status, &why))
    }

    /// What the page sends.
    pub(crate) async fn connect_start(&self, inbound: &Inbound, form: Bytes) -> Response<ResponseBody> {
        self.begin_consent(inbound, &form).await.unwrap_or_else(|(status, why)| page::failed(status, &why))
    }

    /// The ticket, if it is good and nothing newer was consented to.
    fn ticket(&self, sealed: &str) -> Result<Ticket, Failed> {
        let gone = |message: &str| failed(StatusCode::BAD_REQUEST, "PV-CONNECT-TICKET", message);
        let ticket = self.tickets.open(sealed, self.plane.now_ns()).ok_or_else(|| {
            gone("This address is not good any more, or was never one. Call again, and open the address that you get.")
        })?;
        match self.consents()?.began_ns(&ticket.principal, &ticket.plugin) {
            Some(began) if began < ticket.made_ns => Ok(ticket),
            Some(_) => Err(gone("This address was used already: the account is connected. Go on where you came from.")),
            None => Err(gone("The plugin is not there any more.")),
        }
    }

    /// The caller, if the request's credential is the ticket's principal's.
    fn is_whose(&self, inbound: &Inbound, ticket: &Ticket) -> Option<Arc<Caller>> {
        // A token may be good at the plugin's own endpoint only.
        [Route::Merged, Route::Plugin(ticket.plugin.clone())].into_iter().find_map(|route| {
            let caller = self.caller_of(&Inbound { route, ..inbound.clone() }).ok()?;
            (caller.principal == ticket.principal).then_some(caller)
        })
    }

    async fn begin_consent(&self, inbound: &Inbound, form: &[u8]) -> Result<Response<ResponseBody>, Failed> {
        check_origin(&inbound.headers, &inbound.base_url)?;
        let ticket = self.ticket(&single(form, "ticket")?.unwrap_or_default())?;
        let token = single(form, "token")?.filter(|token| !token.is_empty());
        let credential = match token {
            Some(token) => Credential::Bearer(token.trim().into()),
            None => inbound.credential.clone(),
        };
        self.plane.prepare(&self.plane.snapshot(), &credential).await;
        let proved = Inbound { credential, ..inbound.clone() };
        if self.is_whose(&proved, &ticket).is_none() {
            let caller = self.caller_of(&proved).ok();
            let (code, reason) = ("PV-CONNECT-IDENTITY", format!("the address is of {}", ticket.principal));
            self.record_denied(inbound, Denied { caller: caller.as_deref(), method: METHOD, code, reason });
            let text = format!("That is no token of {}. Nothing was connected.", ticket.principal.name);
            return Err(failed(StatusCode::FORBIDDEN, code, text));
        }
        self.to_server(inbound, ticket).await
    }

    async fn to_server(&self, inbound: &Inbound, ticket: Ticket) -> Result<Response<ResponseBody>, Failed> {
        let unsealed =
            |cause: SealFailed| failed(StatusCode::INTERNAL_SERVER_ERROR, "PV-SEAL-FAILED", cause.to_string());
        let state = Tickets::random().map_err(unsealed)?;
        let verifier = format!("{}{}", Tickets::random().map_err(unsealed)?, Tickets::random().map_err(unsealed)?);
        let challenge = BASE64_URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes()));
        let redirect = redirect_uri(&inbound.base_url, &ticket.principal.tenant, &ticket.plugin);
        let asked =
            self.consents()?.authorization_url(&ticket.principal, &ticket.plugin, &redirect, (&state, &challenge));
        let (url, issuer) = asked.await.map_err(|why| (StatusCode::BAD_GATEWAY, why))?;
        let flow = Flow { ticket, verifier, redirect, issuer, began_ns: self.plane.now_ns() };
        let sealed = self.tickets.seal_flow(&flow, &state).map_err(unsealed)?;
        let made = || {
            let mut response = page::redirect(&url)?;
            response.headers_mut().append(header::SET_COOKIE, cookie(&inbound.base_url, &state, &sealed)?);
            Some(response)
        };
        made().ok_or_else(|| {
            failed(StatusCode::BAD_GATEWAY, "PV-CONNECT-FAILED", "The authorization server's address cannot be used.")
        })
    }
}

/// A page of another site must neither begin a flow in the user's browser nor end one.
pub(super) fn check_origin(headers: &HeaderMap, base: &str) -> Result<(), Failed> {
    let own = url::Url::parse(base).map(|url| url.origin().ascii_serialization()).unwrap_or_default();
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let is_own = match text("origin") {
        Some(origin) => origin == own,
        None => text("sec-fetch-site").is_none_or(|site| matches!(site, "same-origin" | "none")),
    };
    let foreign = || failed(StatusCode::FORBIDDEN, "PV-HTTP-ORIGIN", "The form came from another page.");
    if is_own { Ok(()) } else { Err(foreign()) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_page_begins_a_flow() {
        for (origin, site, good) in [
            (Some("https://mcp.example.com"), None, true),
            (Some("https://mcp.example.com"), Some("same-origin"), true),
            (None, None, true),
            (None, Some("same-origin"), true),
            (None, Some("cross-site"), false),
            (Some("https://evil.example"), None, false),
            (Some("null"), None, false),
            (Some("http://mcp.example.com"), None, false),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(origin) = origin {
                headers.insert("origin", origin.parse().unwrap());
            }
            if let Some(site) = site {
                headers.insert("sec-fetch-site", site.parse().unwrap());
            }
            assert_eq!(check_origin(&headers, "https://mcp.example.com/").is_ok(), good, "{origin:?} {site:?}");
        }
    }

    #[test]
    fn a_cookie_is_of_its_flow_and_of_this_host() {
        let set = |base: &str| cookie(base, "0123456789abcdef0123", "v").unwrap().to_str().unwrap().to_owned();
        let safe = set("https://mcp.example.com");
        assert!(
            safe.starts_with("__Host-provost-connect-0123456789abcdef=v; Path=/; HttpOnly; SameSite=Lax"),
            "{safe}"
        );
        assert!(safe.ends_with("; Secure"), "{safe}");
        assert!(set("http://127.0.0.1:8420").starts_with("provost-connect-0123456789abcdef=v"));
    }
}
