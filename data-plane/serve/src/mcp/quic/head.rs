//! The first line of a stream: what HTTP says in headers.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use provost_data_pipeline::Route;
use provost_mcp::{JsonLimits, RawJson, RawObject};

use super::ending::Refusal;
use crate::{
    frontend::{TRACEPARENT, WORKFLOW},
    routes::mcp_route,
};

/// Where a stream goes that names no endpoint.
const DEFAULT_ENDPOINT: &str = "/mcp";

/// See the module.
#[derive(Debug)]
pub(super) struct Head {
    /// `/mcp` or `/mcp/PLUGIN`.
    pub(super) path: String,
    pub(super) route: Route,
    /// What the head says, as the headers that would say it.
    pub(super) headers: HeaderMap,
}

impl Head {
    /// Reads a head of at most `max_bytes`.
    pub(super) fn parse(line: Bytes, max_bytes: usize) -> Result<Self, Refusal> {
        let limits = JsonLimits { max_bytes, ..JsonLimits::REQUEST };
        let object = RawJson::check(line, &limits).ok().and_then(|json| RawObject::parse(&json).ok());
        let object = object.ok_or(Refusal::Head("it must be a JSON object without duplicate keys"))?;
        let path = match text(&object, "endpoint", "endpoint must be a string")? {
            Some(path) => path,
            None => DEFAULT_ENDPOINT.to_owned(),
        };
        let route = mcp_route(&path).ok_or(Refusal::Head("endpoint must be /mcp or /mcp/PLUGIN"))?;
        let mut headers = HeaderMap::new();
        let members = [
            ("authorization", header::AUTHORIZATION, "authorization must be the string `Bearer TOKEN`"),
            ("traceparent", HeaderName::from_static(TRACEPARENT), "traceparent must be a string of ASCII"),
            ("workflow", HeaderName::from_static(WORKFLOW), "workflow must be a string of ASCII"),
        ];
        for (member, name, why) in members {
            if let Some(value) = text(&object, member, why)? {
                let mut value = HeaderValue::try_from(value).map_err(|_| Refusal::Head(why))?;
                value.set_sensitive(name == header::AUTHORIZATION);
                headers.insert(name, value);
            }
        }
        Ok(Self { path, route, headers })
    }
}

fn text(object: &RawObject, member: &str, why: &'static str) -> Result<Option<String>, Refusal> {
    match object.get(member) {
        None => Ok(None),
        Some(value) => value.as_text().map(|text| Some(text.into_owned())).ok_or(Refusal::Head(why)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<(String, Vec<(String, String)>), Refusal> {
        let head = Head::parse(Bytes::copy_from_slice(line.as_bytes()), 200)?;
        let said = head.headers.iter().map(|(n, v)| (n.to_string(), v.to_str().unwrap().to_owned())).collect();
        Ok((head.path, said))
    }

    #[test]
    fn heads() {
        let pair = |n: &str, v: &str| (n.to_owned(), v.to_owned());
        let good: [(&str, &str, Vec<_>); 5] = [
            ("{}", "/mcp", vec![]),
            (r#"{"endpoint":"/mcp/sql","later":[1]}"#, "/mcp/sql", vec![]),
            (r#" {"authorization":"Bearer x"} "#, "/mcp", vec![pair("authorization", "Bearer x")]),
            (r#"{"workflow":"w-1"}"#, "/mcp", vec![pair("x-provost-workflow", "w-1")]),
            (r#"{"traceparent":"00-a-b-01"}"#, "/mcp", vec![pair("traceparent", "00-a-b-01")]),
        ];
        for (line, path, headers) in good {
            assert_eq!(read(line), Ok((path.to_owned(), headers)), "{line}");
        }
        let long = format!("{{\"authorization\":\"{}\"}}", "x".repeat(200));
        let bad = [
            "",
            "[]",
            "null",
            "{",
            "{}{}",
            r#"{"endpoint":"/mcp","endpoint":"/mcp"}"#,
            r#"{"endpoint":"/v1"}"#,
            r#"{"endpoint":"/mcp/"}"#,
            r#"{"endpoint":"mcp"}"#,
            r#"{"endpoint":null}"#,
            r#"{"authorization":1}"#,
            r#"{"authorization":"Bearer \n"}"#,
            r#"{"workflow":{}}"#,
            &long,
        ];
        for line in bad {
            assert!(matches!(read(line), Err(Refusal::Head(_))), "{line}");
        }
    }

    #[test]
    fn a_token_is_not_shown() {
        let head = Head::parse(Bytes::from_static(br#"{"authorization":"Bearer secret"}"#), 200).unwrap();
        assert!(!format!("{head:?}").contains("secret"), "{head:?}");
    }
}
