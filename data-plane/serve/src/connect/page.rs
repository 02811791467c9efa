//! The pages. They load nothing, stand in no frame, and are kept nowhere.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use provost_data_tools::{AuthorityTold, OwnConnection};
use provost_types::{Name, PrincipalRef};

use super::{ConsentFailed, OWN, Ticket, ticket::Ending};
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
         came from.</p><p>Under <a href=\"{OWN}\">{OWN}</a> you see what you let plugins do, and end it.</p>",
        ticket.plugin, ticket.principal.name
    );
    page(StatusCode::OK, "Connected", &body)
}

/// It did not work.
pub(super) fn failed(status: StatusCode, why: &ConsentFailed) -> Response<ResponseBody> {
    page(status, "Not connected", &reason(why))
}

fn reason(why: &ConsentFailed) -> String {
    format!("<p>{}</p><p><code>{}</code></p>", escaped(&why.message), why.code)
}

/// Asks who wants to see their connections, where the browser has not said so.
pub(super) fn ask_own(plugin: Option<&Name>, is_known: bool) -> Response<ResponseBody> {
    let proof = if is_known {
        ""
    } else {
        "<p><label>To show who you are, give a token of yours (an API key, or an access token of your identity \
         provider). It is compared and not kept.<br><input type=\"password\" name=\"token\" autocomplete=\"off\" \
         required autofocus></label></p>"
    };
    let plugin = plugin.map(|name| format!("<input type=\"hidden\" name=\"plugin\" value=\"{name}\">"));
    let body = format!(
        "<p>Here you see which plugins act in your name, and end it.</p><form method=\"post\" action=\"{OWN}\">{}\
         {proof}<p><button>Go on</button></p></form>",
        plugin.unwrap_or_default(),
    );
    page(StatusCode::OK, "Your connections", &body)
}

/// A principal's connections, each with what ends it.
pub(super) fn own(principal: &PrincipalRef, all: &[(OwnConnection, String)]) -> Response<ResponseBody> {
    let mut body = format!("<p><code>{}</code> (tenant <code>{}</code>)</p>", principal.name, principal.tenant);
    if all.is_empty() {
        body.push_str("<p>No plugin acts in your name.</p>");
    }
    for (connection, sealed) in all {
        body.push_str(&format!(
            "<form method=\"post\" action=\"{OWN}\"><p><code>{}</code> acts in your name since {}, with the rights \
             <code>{}</code>.</p><input type=\"hidden\" name=\"end\" value=\"{}\"><p><button>End it</button></p></form>",
            connection.plugin,
            escaped(&connection.since),
            escaped(&connection.scope),
            escaped(sealed),
        ));
    }
    page(StatusCode::OK, "Your connections", &body)
}

/// It is over.
pub(super) fn ended(ending: &Ending, told: Option<&AuthorityTold>) -> Response<ResponseBody> {
    let (plugin, principal) = (&ending.plugin, &ending.principal.name);
    let body = match told {
        Some(told) => format!(
            "<p>The plugin <code>{plugin}</code> does not act for <code>{principal}</code> any more. Its tokens are \
             forgotten here; {}.</p>",
            escaped(&told.to_string())
        ),
        None => format!("<p>The plugin <code>{plugin}</code> did not act for <code>{principal}</code> any more.</p>"),
    };
    page(StatusCode::OK, "Ended", &body)
}

/// Nothing was shown, or ended.
pub(super) fn not_ended(status: StatusCode, why: &ConsentFailed) -> Response<ResponseBody> {
    page(status, "Your connections", &reason(why))
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
