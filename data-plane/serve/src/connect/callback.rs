//! The way back from the authorization server.

use std::sync::Arc;

use http::{HeaderMap, Response, StatusCode, header};
use provost_data_pipeline::Plane;
use provost_types::Name;

use super::{
    ConsentFailed, Consented, Flow, page,
    start::{cookie, cookie_name, failed, single},
};
use crate::{Frontend, frontend::Inbound, http::ResponseBody, mcp::Denied, siblings::Told};

/// The method in records of refusals.
const METHOD: &str = "connect/callback";
/// How much of what a server says of an error is shown.
const MAX_SHOWN_CHARS: usize = 200;

type Failed = (StatusCode, ConsentFailed);

fn unfit(message: &str) -> Failed {
    failed(StatusCode::BAD_REQUEST, "PV-CONNECT-STATE", message)
}

impl<P: Plane + 'static> Frontend<P> {
    /// What an authorization server sent the user back with.
    pub(crate) async fn connect_callback(
        self: &Arc<Self>,
        inbound: &Inbound,
        of: (&Name, &Name),
        query: &str,
    ) -> Response<ResponseBody> {
        let state = single(query.as_bytes(), "state").ok().flatten().unwrap_or_default();
        let ended = self.taken_back(inbound, of, query, &state).await;
        let mut response = match &ended {
            Ok(flow) => page::done(&flow.ticket),
            Err((status, why)) => {
                let (code, reason) = (why.code, why.message.clone());
                self.record_denied(inbound, Denied { caller: None, method: METHOD, code, reason });
                page::failed(*status, why)
            }
        };
        // The flow is over, however it ended.
        if let Some(gone) = cookie(&inbound.base_url, &state, "") {
            response.headers_mut().append(header::SET_COOKIE, gone);
        }
        response
    }

    async fn taken_back(
        self: &Arc<Self>,
        inbound: &Inbound,
        (tenant, plugin): (&Name, &Name),
        query: &str,
        state: &str,
    ) -> Result<Flow, Failed> {
        let said = |name: &str| single(query.as_bytes(), name);
        let flow = self.flow(inbound, state)?;
        let ticket = &flow.ticket;
        if (&ticket.principal.tenant, &ticket.plugin) != (tenant, plugin) {
            return Err(unfit("The answer is for another plugin than the one that was asked for."));
        }
        let consents = self.consents()?;
        match consents.began_ns(&ticket.principal, &ticket.plugin) {
            Some(began) if began < flow.began_ns => {}
            Some(_) => return Err(unfit("This was answered already.")),
            None => return Err(unfit("The plugin is not there any more.")),
        }
        let (code, error, iss) = (said("code")?, said("error")?, said("iss")?);
        // Before anything else of the answer is believed: it may be another server's.
        let checked = consents.check_issuer(&ticket.principal, &ticket.plugin, flow.issuer.as_deref(), iss.as_deref());
        checked.await.map_err(|why| (StatusCode::BAD_REQUEST, why))?;
        if let Some(error) = error {
            let shown: String = error.chars().filter(|c| !c.is_control()).take(MAX_SHOWN_CHARS).collect();
            let text = format!("The authorization server did not give its consent: {shown}. Call again to try again.");
            return Err(failed(StatusCode::BAD_REQUEST, "PV-CONNECT-REFUSED", text));
        }
        let code = code.ok_or_else(|| unfit("The answer carries no code."))?;
        let Flow { verifier, redirect, began_ns, .. } = &flow;
        let consented = Consented {
            principal: &ticket.principal,
            plugin: &ticket.plugin,
            code: &code,
            verifier,
            redirect,
            began_ns: *began_ns,
        };
        consents.finish(consented).await.map_err(|why| (StatusCode::BAD_GATEWAY, why))?;
        if let Some(session) = &ticket.session {
            self.desk().connected(session, &ticket.elicitation);
            let told = Told::Connected(ticket.elicitation.clone());
            let (siblings, session) = (self.siblings.clone(), session.clone());
            self.calls.spawn(async move { siblings.tell_all(&session, &told).await });
        }
        Ok(flow)
    }

    /// The flow that this browser began with this `state`.
    fn flow(&self, inbound: &Inbound, state: &str) -> Result<Flow, Failed> {
        let carried = carried(&inbound.headers, &cookie_name(&inbound.base_url, state));
        let opened = carried.and_then(|sealed| self.tickets.open_flow(&sealed, state, self.plane.now_ns()));
        opened.ok_or_else(|| {
            unfit(
                "This browser did not begin this, or it was too long ago. Call again, and open the address that you \
                 get in the browser in which you go on.",
            )
        })
    }
}

/// The value of a cookie, if there is exactly one of that name.
fn carried(headers: &HeaderMap, name: &str) -> Option<String> {
    let texts = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = texts.flat_map(|text| text.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let mut found = pairs.filter(|(key, _)| *key == name).map(|(_, value)| value.to_owned());
    match (found.next(), found.next()) {
        (Some(value), None) => Some(value),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_counts_that_comes_once() {
        for (cookies, expect) in [
            (vec!["a=1; c=2"], Some("2")),
            (vec!["a=1", "c=2"], Some("2")),
            (vec!["c=1; c=2"], None),
            (vec!["c=1", "c=2"], None),
            (vec!["cc=1"], None),
            (vec![], None),
        ] {
            let mut headers = HeaderMap::new();
            for cookie in &cookies {
                headers.append(header::COOKIE, cookie.parse().unwrap());
            }
            assert_eq!(carried(&headers, "c").as_deref(), expect, "{cookies:?}");
        }
    }
}
