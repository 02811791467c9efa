//! One JSON-RPC message as MCP allows it, read in one pass.

use bytes::Bytes;

use crate::{
    RawJson, RequestId, RpcError,
    scan::{JsonFault, JsonLimits, Scanner},
};

/// The longest request id, in bytes of JSON text.
pub const MAX_ID_BYTES: usize = 256;
/// The longest method name, in bytes.
pub const MAX_METHOD_BYTES: usize = 128;

/// One message. Payloads are slices of the bytes they came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Envelope {
    /// Wants an answer.
    Request {
        /// Echoed in the answer.
        id: RequestId,
        /// The method.
        method: String,
        /// An object, if given.
        params: Option<RawJson>,
    },
    /// Wants none.
    Notification {
        /// The method.
        method: String,
        /// An object, if given.
        params: Option<RawJson>,
    },
    /// Answers a request of the other side.
    Response {
        /// The request's id; `None` when the other side could not read it.
        id: Option<RequestId>,
        /// The result, or the error.
        outcome: Result<RawJson, RpcError>,
    },
}

/// Why bytes are not a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeFault {
    /// The bytes cannot be read as JSON under our bounds.
    #[error("{0}")]
    Json(JsonFault),
    /// JSON, but no message of MCP.
    #[error("{reason}")]
    Invalid {
        /// The request's id where it could be read.
        id: Option<RequestId>,
        /// What is wrong.
        reason: &'static str,
    },
}

impl EnvelopeFault {
    /// The id to answer with.
    pub fn id(&self) -> Option<&RequestId> {
        match self {
            Self::Json(_) => None,
            Self::Invalid { id, .. } => id.as_ref(),
        }
    }

    /// The error to answer: parse errors for what no JSON reader takes, invalid requests for the rest.
    pub fn rpc_error(&self) -> RpcError {
        let (number, code) = match self {
            Self::Json(JsonFault::NotUtf8 | JsonFault::Syntax(_)) => (RpcError::PARSE, "PV-MCP-PARSE"),
            Self::Json(JsonFault::DuplicateKey { .. }) => (RpcError::INVALID_REQUEST, "PV-MCP-DUPLICATE-KEY"),
            Self::Json(JsonFault::TooDeep(_)) => (RpcError::INVALID_REQUEST, "PV-MCP-TOO-DEEP"),
            Self::Json(JsonFault::TooLong(_)) => (RpcError::INVALID_REQUEST, "PV-MCP-TOO-LARGE"),
            Self::Json(JsonFault::NotAnObject | JsonFault::NotAnArray) | Self::Invalid { .. } => {
                (RpcError::INVALID_REQUEST, "PV-MCP-INVALID-REQUEST")
            }
        };
        RpcError::with_code(number, code, self.to_string())
    }
}

/// The members of a message, as found.
#[derive(Default)]
struct Members {
    jsonrpc: Option<RawJson>,
    id: Option<RawJson>,
    method: Option<RawJson>,
    params: Option<RawJson>,
    result: Option<RawJson>,
    error: Option<RawJson>,
}

impl Envelope {
    /// Reads one message; batches (arrays) are refused, as every revision from 2025-06-18 on does.
    pub fn parse(bytes: Bytes, limits: &JsonLimits) -> Result<Self, EnvelopeFault> {
        if bytes.len() > limits.max_bytes {
            return Err(EnvelopeFault::Json(JsonFault::TooLong(limits.max_bytes)));
        }
        if std::str::from_utf8(&bytes).is_err() {
            return Err(EnvelopeFault::Json(JsonFault::NotUtf8));
        }
        let mut found = Members::default();
        let scanned = Scanner::new(&bytes, limits.max_depth).whole_object(|key, value| {
            let slot = match &*key.decode(&bytes) {
                b"jsonrpc" => &mut found.jsonrpc,
                b"id" => &mut found.id,
                b"method" => &mut found.method,
                b"params" => &mut found.params,
                b"result" => &mut found.result,
                b"error" => &mut found.error,
                _ => return,
            };
            *slot = Some(RawJson::from_checked(bytes.slice(value)));
        });
        match scanned {
            Ok(()) => found.into_envelope(),
            Err(JsonFault::NotAnObject) if is_array(&bytes) => Err(EnvelopeFault::Invalid {
                id: None,
                reason: "batches are not part of MCP: send one message a request",
            }),
            Err(fault) => Err(EnvelopeFault::Json(fault)),
        }
    }
}

impl Members {
    fn into_envelope(self) -> Result<Envelope, EnvelopeFault> {
        let id = match &self.id {
            None => None,
            Some(raw) => match RequestId::from_raw(raw) {
                Some(id) => Some(id),
                None if raw.as_bytes() == b"null" && self.error.is_some() => None,
                None => {
                    return Err(invalid(None, "the id must be a string or an integer of at most 256 bytes"));
                }
            },
        };
        if self.jsonrpc.as_ref().is_none_or(|v| v.as_bytes() != br#""2.0""#) {
            return Err(invalid(id, "the member `jsonrpc` must be \"2.0\""));
        }
        if let Some(method) = &self.method {
            if self.result.is_some() || self.error.is_some() {
                return Err(invalid(id, "a message has a method or an outcome, not both"));
            }
            return Self::call(method, id, self.params);
        }
        match (self.result, self.error) {
            (Some(result), None) if id.is_some() => Ok(Envelope::Response { id, outcome: Ok(result) }),
            (None, Some(error)) => Ok(Envelope::Response { id, outcome: Err(RpcError::from_raw(&error)) }),
            (Some(_), None) => Err(invalid(id, "a result needs the id of its request")),
            (Some(_), Some(_)) => Err(invalid(id, "a message has a result or an error, not both")),
            (None, None) => Err(invalid(id, "the message has no method, and no result or error either")),
        }
    }

    fn call(method: &RawJson, id: Option<RequestId>, params: Option<RawJson>) -> Result<Envelope, EnvelopeFault> {
        let Some(method) = method.as_text().filter(|m| m.len() <= MAX_METHOD_BYTES) else {
            return Err(invalid(id, "the method must be a string of at most 128 bytes"));
        };
        let method = method.into_owned();
        if params.as_ref().is_some_and(|p| !p.is_object()) {
            return Err(invalid(id, "the params must be an object"));
        }
        Ok(match id {
            Some(id) => Envelope::Request { id, method, params },
            None => Envelope::Notification { method, params },
        })
    }
}

fn invalid(id: Option<RequestId>, reason: &'static str) -> EnvelopeFault {
    EnvelopeFault::Invalid { id, reason }
}

fn is_array(bytes: &[u8]) -> bool {
    bytes.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'[')
}
