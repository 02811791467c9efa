//! One function for each thing that reads bytes which an agent sends.
//!
//! Each must come back, whatever the bytes are; where more can be said (what is accepted is what any other
//! reader of JSON reads, and within the bounds), it is asserted.

use bytes::Bytes;
use provost_mcp::{
    Envelope, JsonLimits, RawJson, RawObject,
    headers::{self, Header, HeaderSource},
};

/// A message: what is taken is JSON to every reader, and means the same to it.
pub fn envelope(data: &[u8]) {
    let limits = JsonLimits { max_bytes: 64 * 1024, ..JsonLimits::REQUEST };
    let Ok(message) = Envelope::parse(Bytes::copy_from_slice(data), &limits) else { return };
    assert!(data.len() <= limits.max_bytes);
    // Half a surrogate pair is taken here and not there; numbers beyond f64 likewise.
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(data) else { return };
    let method = match &message {
        Envelope::Request { method, .. } | Envelope::Notification { method, .. } => Some(method.as_str()),
        Envelope::Response { .. } => None,
    };
    assert_eq!(value.get("method").and_then(|m| m.as_str()), method, "both read the same method");
    if let Envelope::Request { params: Some(params), method, .. } = &message
        && let Ok(object) = RawObject::parse(params)
        && let Some(name) = headers::name_of(method, &object)
    {
        let member = match method.as_str() {
            "resources/read" => "uri",
            "tools/call" | "prompts/get" => "name",
            _ => "taskId",
        };
        assert_eq!(value["params"][member].as_str(), Some(name.as_str()), "both read the same name");
    }
}

/// Headers as a request has them, from lines `name: value`.
struct Lines(http::HeaderMap);

impl HeaderSource for Lines {
    fn header(&self, name: &str) -> Header<'_> {
        let mut values = self.0.get_all(name).iter();
        match (values.next(), values.next()) {
            (None, _) => Header::Absent,
            (Some(value), None) => value.to_str().map_or(Header::Unclear, |v| Header::One(v.trim())),
            _ => Header::Unclear,
        }
    }
}

/// Headers that mirror a body: lines of headers, an empty line, the params. What is taken says the body's name,
/// and every value can be sent and read again.
pub fn headers(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (lines, body) = text.split_once("\n\n").unwrap_or((&text, "{}"));
    let mut map = http::HeaderMap::new();
    for (name, value) in lines.lines().filter_map(|line| line.split_once(':')) {
        if let (Ok(name), Ok(value)) =
            (http::HeaderName::from_bytes(name.as_bytes()), http::HeaderValue::from_str(value.trim()))
        {
            map.append(name, value);
        }
        assert_eq!(headers::decode_value(&headers::encode_value(value)).as_deref(), Some(value), "sent and read");
        assert!(http::HeaderValue::from_str(&headers::encode_value(value)).is_ok(), "it can be sent");
    }
    let Ok(params) = RawJson::check(Bytes::copy_from_slice(body.as_bytes()), &JsonLimits::REQUEST) else { return };
    if let Ok(found) = headers::param_headers(&params) {
        for header in found {
            let _ = header.value(&params);
        }
    }
    let Ok(object) = RawObject::parse(&params) else { return };
    let source = Lines(map);
    for method in ["tools/call", "prompts/get", "resources/read", "tasks/get", "tools/list"] {
        if headers::check_standard(&source, method, &object).is_ok()
            && let Some(name) = headers::name_of(method, &object)
        {
            let Header::One(value) = source.header(headers::NAME) else { panic!("taken without a name") };
            assert_eq!(headers::decode_value(value), Some(name));
        }
    }
}

/// A stream over QUIC: a head and lines.
pub fn quic_stream(data: &[u8]) {
    provost_data_serve::fuzzing::quic_stream(data);
}
