//! How a call ended, as gRPC says it, and what the caller is told of that.
//!
//! A status that speaks of the call is a result that says so, so that a model can read why; what speaks of the service
//! itself (its credentials, its load, its absence) is an error of the upstream.

use base64::{
    Engine,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use http::HeaderMap;
use prost::Message;
use prost_reflect::{DescriptorPool, prost_types::Any};

use super::message;
use crate::{UpstreamError, openapi::percent_decode, redact::Redactor};

/// Characters of a status message that are shown.
const MAX_MESSAGE_CHARS: usize = 4_000;
/// Details of a status that are shown, and characters of each.
const MAX_DETAILS: usize = 8;
const MAX_DETAIL_CHARS: usize = 1_000;
/// Bytes of the details as they are sent.
const MAX_DETAILS_BYTES: usize = 64 * 1024;
/// When to come again to a busy service.
const RETRY_AFTER_MS: u64 = 1_000;

/// Padded or not: both are sent.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Names by number (`google.rpc.Code`).
const NAMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];
const OK: u32 = 0;
const DEADLINE_EXCEEDED: u32 = 4;
const PERMISSION_DENIED: u32 = 7;
const RESOURCE_EXHAUSTED: u32 = 8;
const UNIMPLEMENTED: u32 = 12;
const UNAVAILABLE: u32 = 14;
const UNAUTHENTICATED: u32 = 16;

/// `google.rpc.Status`, as it comes in `grpc-status-details-bin`.
#[derive(Clone, PartialEq, Message)]
struct Details {
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// The status of a call.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Status {
    code: u32,
    message: String,
    details: Vec<Any>,
}

impl Status {
    /// The status in trailers, or in headers that are all of an answer; `None`: there is none.
    pub(super) fn read(trailers: &HeaderMap) -> Option<Self> {
        let text = |name: &str| trailers.get(name).and_then(|value| value.to_str().ok());
        // What is no number is an error that has none.
        let code = text("grpc-status").map(|code| code.trim().parse().unwrap_or(2))?;
        let message = percent_decode(text("grpc-message").unwrap_or_default());
        let details = text("grpc-status-details-bin").filter(|text| text.len() <= MAX_DETAILS_BYTES);
        let details = details.and_then(|text| BASE64.decode(text.trim()).ok());
        let details = details.and_then(|bytes| Details::decode(&bytes[..]).ok()).unwrap_or_default().details;
        Some(Self { code, message, details })
    }

    pub(super) fn is_ok(&self) -> bool {
        self.code == OK
    }

    pub(super) fn is_unauthenticated(&self) -> bool {
        self.code == UNAUTHENTICATED
    }

    pub(super) fn is_unimplemented(&self) -> bool {
        self.code == UNIMPLEMENTED
    }

    fn name(&self) -> String {
        let name = usize::try_from(self.code).ok().and_then(|code| NAMES.get(code));
        name.map_or_else(|| format!("status {}", self.code), |name| (*name).to_owned())
    }

    /// Name and message, in one line of an error.
    pub(super) fn brief(&self, redactor: &Redactor) -> String {
        let text = redactor.text(&self.message);
        let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_DETAIL_CHARS).collect();
        if text.is_empty() { self.name() } else { format!("{}: {text}", self.name()) }
    }

    /// What speaks of the service; `None`: it speaks of the call.
    pub(super) fn failure(&self, redactor: &Redactor) -> Option<UpstreamError> {
        Some(match self.code {
            UNAVAILABLE => UpstreamError::Unavailable(self.brief(redactor)),
            DEADLINE_EXCEEDED => UpstreamError::Deadline,
            // The HTTP statuses that stand for these two.
            UNAUTHENTICATED => UpstreamError::Unauthorized(401),
            PERMISSION_DENIED => UpstreamError::Unauthorized(403),
            RESOURCE_EXHAUSTED => {
                let cause = format!("the service answered {}", self.brief(redactor));
                UpstreamError::Crowded { cause, retry_after_ms: RETRY_AFTER_MS }
            }
            _ => return None,
        })
    }

    /// The refusal of a call, for a model to read: name, message, and details as far as their types are known.
    pub(super) fn refusal(&self, pool: &DescriptorPool, redactor: &Redactor) -> String {
        let mut text = self.name();
        if !self.message.is_empty() {
            text.push_str(": ");
            text.extend(redactor.text(&self.message).chars().take(MAX_MESSAGE_CHARS));
        }
        for detail in self.details.iter().take(MAX_DETAILS) {
            let kind = detail.type_url.rsplit('/').next().unwrap_or_default();
            let shown = match message::detail(pool, kind, &detail.value) {
                Some(json) if !redactor.is_in(&detail.value) => format!("{kind} {json}"),
                _ => kind.to_owned(),
            };
            text.push('\n');
            text.extend(redactor.text(&shown).chars().take(MAX_DETAIL_CHARS));
        }
        text
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn trailers(status: &str, message: &str, details: &[u8]) -> HeaderMap {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", status.parse().unwrap());
        trailers.insert("grpc-message", message.parse().unwrap());
        if !details.is_empty() {
            trailers.insert("grpc-status-details-bin", BASE64.encode(details).trim_end_matches('=').parse().unwrap());
        }
        trailers
    }

    #[test]
    fn a_status_is_a_refusal_or_a_failure_of_the_service() {
        let redactor = Redactor::new(["s3cret"]);
        let pool = DescriptorPool::new();
        for (code, message, expect) in [
            ("3", "no%20such%20thing%0A%C3%BC", Ok("INVALID_ARGUMENT: no such thing\n\u{fc}")),
            ("5", "", Ok("NOT_FOUND")),
            ("2", "key s3cret is wrong", Ok("UNKNOWN: key [redacted] is wrong")),
            ("13", "x", Ok("INTERNAL: x")),
            ("99", "x", Ok("status 99: x")),
            ("many", "x", Ok("UNKNOWN: x")),
            ("14", "s3cret is down", Err("PV-UPSTREAM-UNREACHABLE")),
            ("4", "late", Err("PV-UPSTREAM-TIMEOUT")),
            ("7", "no", Err("PV-UPSTREAM-UNAUTHORIZED")),
            ("16", "who", Err("PV-UPSTREAM-UNAUTHORIZED")),
            ("8", "quota", Err("PV-UPSTREAM-BUSY")),
        ] {
            let status = Status::read(&trailers(code, message, b"")).unwrap();
            let said = match status.failure(&redactor) {
                Some(failure) => {
                    assert!(!failure.to_string().contains("s3cret"), "{failure}");
                    Err(failure.code())
                }
                None => Ok(status.refusal(&pool, &redactor)),
            };
            assert_eq!(said.as_deref().map_err(|code| *code), expect, "{code} {message}");
        }
        assert_eq!(Status::read(&HeaderMap::new()), None);
        assert!(Status::read(&trailers("0", "", b"")).unwrap().is_ok());
    }

    #[test]
    fn details_are_shown_as_far_as_they_are_known_and_without_secrets() {
        let redactor = Redactor::new(["s3cret"]);
        let pool = DescriptorPool::global();
        let any =
            |kind: &str, value: &[u8]| Any { type_url: format!("type.googleapis.com/{kind}"), value: value.into() };
        let details = vec![
            // A duration of 7 seconds.
            any("google.protobuf.Duration", &[8, 7]),
            any("acme.Unknown", &[8, 7]),
            any("google.protobuf.StringValue", b"\x0a\x06s3cret"),
        ];
        let bytes = Details { details }.encode_to_vec();
        let status = Status::read(&trailers("9", "not now", &bytes)).unwrap();
        let expect =
            "FAILED_PRECONDITION: not now\ngoogle.protobuf.Duration \"7s\"\nacme.Unknown\ngoogle.protobuf.StringValue";
        assert_eq!(status.refusal(&pool, &redactor), expect);
        let many = Details { details: vec![any("a.B", b""); 100] }.encode_to_vec();
        let status = Status::read(&trailers("9", "", &many)).unwrap();
        assert_eq!(status.refusal(&pool, &redactor).lines().count(), 1 + MAX_DETAILS);
    }
}
