//! The pages. They load nothing, stand in no frame, and are kept nowhere.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use super::{ConsentFailed, Ticket};
use crate::http::{ResponseBody, text};

const CONTENT: &str = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'";
const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:36rem;margin:3rem auto;padding:0 1rem;\
                     color:#1c2330;background:#fff}code{font-family:ui-monospace,monospace}\
                     input,button{font:inherit;padding:.4rem .6rem}input{width:100%;box-sizing:border-box}\
                     @media(prefers-color-scheme:dark){body{color:#dfe4ec;background:#14181f}}";

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

fn page(status: StatusCode, title: &str, body: &str) -> Response<ResponseBody> {
    let html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\"><title>{title}</title><style>{STYLE}</style>\
         <h1>{title}</h1>{body}</html>\n"
    );
    let mut response = text(status, "");
    *response.body_mut() = ResponseBody::Whole(Some(Bytes::from(html)));
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, CONTENT),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
        // With `no-referrer` browsers would not say where a form comes from.
        (header::REFERRER_POLICY, "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Asks for consent; for a token too, where the browser has not said who its user is.
pub(super) fn ask(ticket: &Ticket, sealed: &str, is_known: bool) -> Response<ResponseBody> {
    let (plugin, principal, tenant) = (&ticket.plugin, &ticket.principal.name, &ticket.principal.tenant);
    let proof = if is_known {
        String::new()
    } else {
        format!(
            "<p><label>To show that you are <code>{principal}</code>, give a token of that principal (an API key, or \
             an access token of your identity provider). It is compared and not kept.<br><input type=\"password\" \
             name=\"token\" autocomplete=\"off\" required autofocus></label></p>"
        )
    };
    let body = format!(
        "<p>A call of <code>{principal}</code> (tenant <code>{tenant}</code>) wants to use the plugin \
         <code>{plugin}</code>, which acts in its users' names. Go on only if that call is yours: what you consent \
         to next is used by <code>{principal}</code>.</p>\
         <form method=\"post\" action=\"{}\"><input type=\"hidden\" name=\"ticket\" value=\"{}\">{proof}\
         <p><button>Go on</button></p></form>",
        super::START,
        escaped(sealed),
    );
    page(StatusCode::OK, "Connect an account", &body)
}

/// It is done.
pub(super) fn done(ticket: &Ticket) -> Response<ResponseBody> {
    let body = format!(
        "<p>The plugin <code>{}</code> can act for <code>{}</code> now. You may close this page and go on where you \
         came from.</p>",
        ticket.plugin, ticket.principal.name
    );
    page(StatusCode::OK, "Connected", &body)
}

/// It did not work.
pub(super) fn failed(status: StatusCode, why: &ConsentFailed) -> Response<ResponseBody> {
    let body = format!("<p>{}</p><p><code>{}</code></p>", escaped(&why.message), why.code);
    page(status, "Not connected", &body)
}

/// To the authorization server.
pub(super) fn redirect(to: &str) -> Option<Response<ResponseBody>> {
    let mut response = page(StatusCode::SEE_OTHER, "Connect an account", "");
    let mut location = HeaderValue::from_str(to).ok()?;
    location.set_sensitive(true);
    response.headers_mut().insert(header::LOCATION, location);
    Some(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_say_is_no_markup() {
        let why = ConsentFailed::new("PV-CONNECT-REFUSED", "<script>alert('x')</script> & \"y\"");
        let response = failed(StatusCode::BAD_REQUEST, &why);
        let ResponseBody::Whole(Some(body)) = response.body() else { panic!("no page") };
        let text = String::from_utf8_lossy(body);
        assert!(!text.contains("<script>") && text.contains("&lt;script&gt;"), "{text}");
        assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
    }
}
