//! A call's arguments as a request.
//!
//! Invariant: the URL is one of the operation's: each argument stays in its segment of the path or is the value of a
//! parameter, whatever a proxy on the way makes of encoded slashes and dots.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use provost_mcp::{RawJson, RawObject};
use serde_json::Value;

use super::{
    body,
    encode::{pairs, percent, percent_decode, simple},
    operation::{Call, MAX_PAGES, Piece},
    parameter::{Parameter, Place, Style},
};
use crate::{UpstreamError, egress::CheckedUrl};

/// Bytes of a path with its query: what servers take in general.
const MAX_TARGET_BYTES: usize = 16 * 1024;

/// A request, but for what the plugin gives to all of them.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) url: CheckedUrl,
    pub(super) headers: HeaderMap,
    pub(super) body: Option<bytes::Bytes>,
    /// How many pages to get at most.
    pub(super) pages: usize,
}

fn refused(name: &str, cause: &str) -> UpstreamError {
    UpstreamError::Argument { name: name.to_owned(), cause: cause.to_owned() }
}

/// Makes the request of a call. `given` are the query parameters that the plugin itself gives.
pub(super) fn prepare(
    call: &Call,
    arguments: &RawObject,
    server: &CheckedUrl,
    given: &[String],
) -> Result<Prepared, UpstreamError> {
    let mut headers = HeaderMap::new();
    let (mut query, mut cookies) = (Vec::new(), Vec::new());
    for parameter in call.parameters.iter().filter(|p| p.place != Place::Path) {
        let argument = parameter.argument.as_str();
        let Some(value) = value(arguments, parameter)? else { continue };
        match parameter.place {
            Place::Header => {
                let text = simple(parameter, &value, str::to_owned).map_err(|cause| refused(argument, cause))?;
                if let Some(text) = text {
                    // `HeaderValue` takes other bytes than ASCII too, which each server reads in its own way.
                    let value = HeaderValue::from_str(&text).ok().filter(|value| value.to_str().is_ok());
                    let unfit = || refused(argument, "it has characters that headers cannot carry");
                    let value = value.ok_or_else(unfit)?;
                    let name = HeaderName::from_bytes(parameter.name.as_bytes());
                    headers.insert(name.map_err(|_| refused(argument, "its header has no name"))?, value);
                }
            }
            Place::Query => {
                let found = pairs(parameter, &value).map_err(|cause| refused(argument, cause))?;
                if found.iter().any(|(key, _)| given.contains(&percent_decode(key))) {
                    return Err(refused(argument, "it names a parameter that the plugin gives"));
                }
                query.extend(found.into_iter().map(|(key, text)| format!("{key}={text}")));
            }
            Place::Cookie => {
                let found = pairs(parameter, &value).map_err(|cause| refused(argument, cause))?;
                cookies.extend(found.into_iter().map(|(key, text)| format!("{key}={text}")));
            }
            Place::Path => {}
        }
    }
    if !cookies.is_empty() {
        let value = HeaderValue::from_str(&cookies.join("; "));
        headers.insert(header::COOKIE, value.map_err(|_| refused("cookie", "it cannot be sent"))?);
    }
    let url = path(call, arguments, server)?;
    let query = query.join("&");
    if url.as_url().path().len() + query.len() > MAX_TARGET_BYTES {
        return Err(refused("query", "the address would be too long"));
    }
    let url = if query.is_empty() { url } else { url.with_query(Some(&query)) };
    let body = match call.body.as_ref().and_then(|b| Some((b, arguments.get(&b.argument)?))) {
        Some((of, value)) => {
            let (kind, bytes) = body::write(&of.body, &value).map_err(|cause| refused(&of.argument, cause))?;
            headers.insert(header::CONTENT_TYPE, kind);
            Some(bytes)
        }
        None => None,
    };
    let pages = call.pages.as_deref().and_then(|argument| arguments.get(argument)?.parse::<usize>().ok());
    Ok(Prepared { url, headers, body, pages: pages.unwrap_or(1).clamp(1, MAX_PAGES) })
}

/// A parameter's value; `None`: it is not given.
fn value(arguments: &RawObject, parameter: &Parameter) -> Result<Option<Value>, UpstreamError> {
    let Some(raw) = arguments.get(&parameter.argument) else { return Ok(None) };
    let value: Value = raw.parse().map_err(|_| refused(&parameter.argument, "it is no JSON"))?;
    Ok(match value {
        Value::Null => None,
        // With the digits that it was written with.
        Value::Number(_) if parameter.style != Style::Json => Some(Value::String(raw.as_str().to_owned())),
        other => Some(other),
    })
}

fn path(call: &Call, arguments: &RawObject, server: &CheckedUrl) -> Result<CheckedUrl, UpstreamError> {
    let mut path = server.as_url().path().trim_end_matches('/').to_owned();
    for piece in &call.path {
        let parameter = match piece {
            Piece::Text(text) => {
                path.push_str(text);
                continue;
            }
            Piece::Parameter(place) => call.parameters.get(*place),
        };
        let Some(parameter) = parameter else { continue };
        let argument = parameter.argument.as_str();
        let text = match value(arguments, parameter)? {
            Some(value) => simple(parameter, &value, percent).map_err(|cause| refused(argument, cause))?,
            None => None,
        };
        // Without it the path would be another one, such as that of the whole list.
        let text = text.filter(|text| !text.is_empty()).ok_or_else(|| refused(argument, "it is empty"))?;
        let plain = percent_decode(&text);
        if plain.chars().any(char::is_control) {
            return Err(refused(argument, "it has control characters"));
        }
        if plain.split(['/', '\\']).any(is_dots) {
            return Err(refused(argument, "it has a segment `.` or `..`"));
        }
        path.push_str(&text);
    }
    if path.split('/').any(|segment| is_dots(&percent_decode(segment))) {
        return Err(refused("path", "it would have a segment `.` or `..`"));
    }
    let url = server.with_path(&path);
    // What is encoded is left as it is by whoever reads the URL; anything else is not the path that was meant.
    match url.as_url().path() == path || (path.is_empty() && url.as_url().path() == "/") {
        true => Ok(url),
        false => Err(refused("path", "it would be another path")),
    }
}

fn is_dots(segment: &str) -> bool {
    segment == "." || segment == ".."
}

/// The arguments of a call: the object itself.
pub(crate) fn arguments(params: &RawJson) -> Result<RawObject, UpstreamError> {
    match RawObject::parse(params)?.get("arguments") {
        Some(raw) => Ok(RawObject::parse(&raw)?),
        None => Ok(RawObject::new()),
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
