//! Where a principal sees what plugins may do in their name, and ends it.
//!
//! Who they are they prove by a credential that would authenticate their calls, as for a consent. What they are shown
//! then carries one sealed text for each connection, of that principal and that consent, for as long as an address is
//! good: that, from a page of ours, is what ends it. Nothing is kept, so each step may come to another node.

use std::sync::Arc;

use bytes::Bytes;
use http::{Response, StatusCode};
use provost_data_pipeline::{Caller, Credential, Plane, Route};
use provost_types::Name;

use super::{
    ConsentFailed, page,
    start::{check_origin, failed, single},
    ticket::Ending,
};
use crate::{Frontend, frontend::Inbound, http::ResponseBody, mcp::Denied, seal::SealFailed};

/// The method in records of refusals.
const METHOD: &str = "connect/own";

type Failed = (StatusCode, ConsentFailed);

impl<P: Plane + 'static> Frontend<P> {
    /// The page that asks who is there. `query` may name the plugin at whose endpoint the principal's token is good.
    pub(crate) fn own_page(&self, inbound: &Inbound, query: &str) -> Response<ResponseBody> {
        let shown = || -> Result<Response<ResponseBody>, Failed> {
            self.consents()?;
            let plugin = plugin_of(query.as_bytes())?;
            Ok(page::ask_own(plugin.as_ref(), !matches!(inbound.credential, Credential::Anonymous)))
        };
        shown().unwrap_or_else(|(status, why)| page::not_ended(status, &why))
    }

    /// What the pages send.
    pub(crate) async fn own_form(&self, inbound: &Inbound, form: Bytes) -> Response<ResponseBody> {
        self.answer_form(inbound, &form).await.unwrap_or_else(|(status, why)| page::not_ended(status, &why))
    }

    async fn answer_form(&self, inbound: &Inbound, form: &[u8]) -> Result<Response<ResponseBody>, Failed> {
        check_origin(&inbound.headers, &inbound.base_url)?;
        match single(form, "end")? {
            Some(sealed) => self.end_own(&sealed).await,
            None => self.list_own(inbound, form).await,
        }
    }

    async fn list_own(&self, inbound: &Inbound, form: &[u8]) -> Result<Response<ResponseBody>, Failed> {
        let consents = self.consents()?;
        let plugin = plugin_of(form)?;
        let credential = match single(form, "token")?.filter(|token| !token.is_empty()) {
            Some(token) => Credential::Bearer(token.trim().into()),
            None => inbound.credential.clone(),
        };
        self.plane.prepare(&self.plane.snapshot(), &credential).await;
        let proved = Inbound { credential, ..inbound.clone() };
        let Some(caller) = self.proven(&proved, plugin) else {
            let (code, reason) = ("PV-CONNECT-IDENTITY", "no good token for one's own connections".to_owned());
            self.record_denied(inbound, Denied { caller: None, method: METHOD, code, reason });
            return Err(failed(StatusCode::FORBIDDEN, code, "That is no token of a principal. Nothing was shown."));
        };
        let principal = &caller.principal;
        let made_ns = self.plane.now_ns();
        let ending = |plugin: &Name, began_ns| {
            let ending = Ending { principal: principal.clone(), plugin: plugin.clone(), began_ns, made_ns };
            self.tickets.seal_ending(&ending)
        };
        let own = consents.own(principal).into_iter();
        let sealed: Result<Vec<_>, SealFailed> =
            own.map(|own| ending(&own.plugin, own.began_ns).map(|sealed| (own, sealed))).collect();
        let sealed =
            sealed.map_err(|cause| failed(StatusCode::INTERNAL_SERVER_ERROR, "PV-SEAL-FAILED", cause.to_string()))?;
        Ok(page::own(principal, &sealed))
    }

    /// Who the credential is of. Nobody in particular has no connections.
    fn proven(&self, inbound: &Inbound, plugin: Option<Name>) -> Option<Arc<Caller>> {
        if matches!(inbound.credential, Credential::Anonymous) {
            return None;
        }
        // A token may be good at one plugin's endpoint only.
        let routes = [Some(Route::Merged), plugin.map(Route::Plugin)];
        routes.into_iter().flatten().find_map(|route| self.caller_of(&Inbound { route, ..inbound.clone() }).ok())
    }

    async fn end_own(&self, sealed: &str) -> Result<Response<ResponseBody>, Failed> {
        let ending = self.tickets.open_ending(sealed, self.plane.now_ns()).ok_or_else(|| {
            let text = "This page is not good any more, or was never one of ours. Begin anew.";
            failed(StatusCode::BAD_REQUEST, "PV-CONNECT-TICKET", text)
        })?;
        let ended = self.consents()?.end(&ending.principal, &ending.plugin, ending.began_ns).await;
        let told = ended.map_err(|why| (StatusCode::BAD_GATEWAY, why))?;
        Ok(page::ended(&ending, told.as_ref()))
    }
}

fn plugin_of(query: &[u8]) -> Result<Option<Name>, Failed> {
    let Some(text) = single(query, "plugin")?.filter(|text| !text.is_empty()) else { return Ok(None) };
    let unfit = |_| failed(StatusCode::BAD_REQUEST, "PV-CONNECT-TICKET", "That is no plugin's name.");
    Name::new(&text).map(Some).map_err(unfit)
}
