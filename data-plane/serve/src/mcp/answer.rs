//! From the pipeline's answer to a JSON-RPC message and a status: the table of this transport.

use http::{HeaderMap, HeaderValue, StatusCode, header};
use provost_data_pipeline::{Answer, Operation, Rejection, RejectionKind, Reply};
use provost_mcp::{RawJson, RawObject, RequestId, RpcError, bridge, error_message, meta::key, result_message};
use provost_types::AuditReceipt;

use crate::http::Final;

/// The code of a request that brought no token, which is no error of a token (RFC 6750, section 3.1).
const NO_TOKEN: &str = "PV-AUTH-MISSING";

/// How much of an unknown name is said back.
const MAX_SHOWN_NAME_CHARS: usize = 256;

/// The status of a refusal. Denials of single tools are answers of the protocol, not of HTTP.
pub(super) fn rejection_status(rejection: &Rejection) -> StatusCode {
    match rejection.kind {
        // RFC 6750: the client can ask for more (step-up).
        RejectionKind::Denied if rejection.challenge().is_some() => StatusCode::FORBIDDEN,
        RejectionKind::Unauthenticated => StatusCode::UNAUTHORIZED,
        RejectionKind::Limited => StatusCode::TOO_MANY_REQUESTS,
        RejectionKind::LimitUnknown | RejectionKind::Overloaded | RejectionKind::AuditUnavailable => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        RejectionKind::NotFound | RejectionKind::Denied | RejectionKind::Invalid | RejectionKind::Guarded => {
            StatusCode::OK
        }
    }
}

/// The status of an error for a modern client (Streamable HTTP of 2026-07-28).
pub(super) fn modern_status(code: i64) -> StatusCode {
    match code {
        RpcError::HEADER_MISMATCH
        | RpcError::MISSING_CLIENT_CAPABILITY
        | RpcError::UNSUPPORTED_VERSION
        | RpcError::PARSE
        | RpcError::INVALID_REQUEST => StatusCode::BAD_REQUEST,
        RpcError::METHOD_NOT_FOUND => StatusCode::NOT_FOUND,
        _ => StatusCode::OK,
    }
}

/// Headers that belong to a refusal. `metadata_url` is RFC 9728's.
pub(crate) fn rejection_headers(rejection: &Rejection, metadata_url: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Some(challenge) = challenge(rejection, metadata_url)
        && let Ok(value) = HeaderValue::from_str(&challenge)
    {
        headers.insert(header::WWW_AUTHENTICATE, value);
    }
    if let Some(ms) = rejection.retry_after_ms {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(ms.div_ceil(1_000)));
    }
    headers
}

/// `Retry-After` of an error that says when to try again, for those who read headers only.
fn retry_after(error: &RpcError) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let data = error.data.as_ref().and_then(|data| RawObject::parse(data).ok());
    if let Some(ms) = data.and_then(|data| data.get("retryAfterMs")?.parse::<u64>().ok()) {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(ms.div_ceil(1_000)));
    }
    headers
}

/// What a client does next about its token (RFC 6750, section 3; RFC 9728, section 5.1).
fn challenge(rejection: &Rejection, metadata_url: &str) -> Option<String> {
    let mut text = "Bearer ".to_owned();
    match rejection.kind {
        RejectionKind::Unauthenticated if rejection.code == NO_TOKEN => {}
        RejectionKind::Unauthenticated => text.push_str("error=\"invalid_token\", "),
        RejectionKind::Denied if rejection.challenge().is_some() => text.push_str("error=\"insufficient_scope\", "),
        _ => return None,
    }
    if let Some(challenge) = rejection.challenge() {
        text.push_str(&format!("scope=\"{}\", ", challenge.scopes.join(" ")));
    }
    text.push_str(&format!("resource_metadata=\"{metadata_url}\""));
    Some(text)
}

/// `{"log":…,"index":…,"leafHash":…}`.
pub(crate) fn receipt_json(receipt: &AuditReceipt) -> RawJson {
    #[derive(serde::Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Receipt<'a> {
        log: &'a str,
        index: u64,
        leaf_hash: String,
    }
    let AuditReceipt { log, index, leaf_hash } = receipt;
    let receipt = Receipt { log, index: *index, leaf_hash: hex(leaf_hash) };
    RawJson::from_value(&receipt).unwrap_or(RawJson::EMPTY_OBJECT)
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |n: u8| char::from(DIGITS[usize::from(n & 15)]);
    let mut out = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        out.push(digit(byte >> 4));
        out.push(digit(*byte));
    }
    out
}

/// The URI that an operation reads, for errors about resources.
fn resource(operation: &Operation) -> Option<&str> {
    match operation {
        Operation::ReadResource(uri) => Some(uri),
        _ => None,
    }
}

/// The error of a refusal. What a caller may not see looks exactly like what is not there.
fn rejection_error(rejection: &Rejection, operation: &Operation) -> RpcError {
    if rejection.kind != RejectionKind::NotFound {
        return rejection.error.clone();
    }
    let (what, name) = match operation {
        Operation::CallTool(name) => ("tool", name),
        Operation::GetPrompt(name) => ("prompt", name),
        Operation::ReadResource(uri) => ("resource", uri),
        _ => return rejection.error.clone(),
    };
    let shown: String = name.chars().take(MAX_SHOWN_NAME_CHARS).collect();
    RpcError::with_code(RpcError::INVALID_PARAMS, rejection.code, format!("Unknown {what}: {shown}"))
}

/// Arguments that do not fit are the tool's answer, not the protocol's: so the model reads what is
/// wrong and calls again (SEP-1303). `None` for every other refusal.
fn refused_arguments(rejection: &Rejection, operation: &Operation) -> Option<RawJson> {
    if rejection.kind != RejectionKind::Invalid || !matches!(operation, Operation::CallTool(_)) {
        return None;
    }
    let text = format!("{}: {}", rejection.code, rejection.error.message);
    Some(RawJson::from(serde_json::json!({
        "content": [{ "type": "text", "text": text }],
        "isError": true,
    })))
}

/// An error that Provost made tells where its record stands.
fn with_receipt(mut error: RpcError, receipt: Option<&RawJson>) -> RpcError {
    if let Some(receipt) = receipt {
        let data = error.data.as_ref().map_or(Ok(RawObject::new()), RawObject::parse);
        if let Ok(mut data) = data {
            data.set("audit", receipt.clone());
            error.data = Some(data.finish());
        }
    }
    error
}

/// What every answer of one call shares.
pub(super) struct Context {
    pub(super) id: RequestId,
    pub(super) operation: Operation,
    pub(super) server_info: RawJson,
    pub(super) receipts: bool,
    pub(super) metadata_url: String,
}

impl Context {
    pub(super) fn receipt(&self, answer: &Answer) -> Option<RawJson> {
        answer.receipt.as_ref().filter(|_| self.receipts).map(receipt_json)
    }

    /// A result for a modern client.
    pub(super) fn modern_result(&self, body: &RawJson, receipt: Option<RawJson>) -> Final {
        let discovered;
        let body = if self.operation == Operation::Discover {
            discovered = bridge::discover_result(body);
            &discovered
        } else {
            body
        };
        let dress = bridge::ResultDress { method: self.operation.method(), server_info: &self.server_info, receipt };
        let mut result = bridge::modern_result(body, &dress);
        if self.operation == Operation::Listen {
            let mut object = RawObject::parse(&result).unwrap_or_default();
            object.set_in("_meta", key::SUBSCRIPTION_ID, self.id.0.clone());
            result = object.finish();
        }
        Final::json(StatusCode::OK, result_message(&self.id, &result))
    }

    /// An error for a modern client.
    pub(super) fn modern_error(&self, error: RpcError) -> Final {
        let error = bridge::modern_error(error, resource(&self.operation));
        let mut end = Final::json(modern_status(error.code), error_message(Some(&self.id), &error));
        end.headers = retry_after(&error);
        end
    }

    /// A refusal for a modern client.
    pub(super) fn modern_rejection(&self, rejection: &Rejection, receipt: Option<&RawJson>) -> Final {
        if let Some(body) = refused_arguments(rejection, &self.operation) {
            return self.modern_result(&body, receipt.cloned());
        }
        let error = with_receipt(rejection_error(rejection, &self.operation), receipt);
        let mut end = self.modern_error(error);
        if rejection_status(rejection) != StatusCode::OK {
            end.status = rejection_status(rejection);
        }
        end.headers = rejection_headers(rejection, &self.metadata_url);
        end
    }

    /// Any answer for a legacy client, but to `initialize`.
    pub(super) fn legacy(&self, answer: &Answer) -> Final {
        let receipt = self.receipt(answer);
        match &answer.outcome {
            Ok(Reply::Result { body, .. }) => {
                let result = bridge::legacy_result(body, receipt);
                Final::json(StatusCode::OK, result_message(&self.id, &result))
            }
            Ok(Reply::Error(error)) => self.legacy_error(error.clone()),
            Ok(Reply::InputRequired(_)) => self.legacy_error(RpcError::with_code(
                RpcError::INVALID_REQUEST,
                "PV-MCP-CLIENT-CANNOT-BE-ASKED",
                "the tool needs input that this client cannot be asked for",
            )),
            Err(rejection) => self.legacy_rejection(rejection, receipt.as_ref()),
        }
    }

    pub(super) fn legacy_error(&self, error: RpcError) -> Final {
        let error = bridge::legacy_error(error, resource(&self.operation));
        let mut end = Final::json(StatusCode::OK, error_message(Some(&self.id), &error));
        end.headers = retry_after(&error);
        end
    }

    pub(super) fn legacy_rejection(&self, rejection: &Rejection, receipt: Option<&RawJson>) -> Final {
        if let Some(body) = refused_arguments(rejection, &self.operation) {
            let result = bridge::legacy_result(&body, receipt.cloned());
            return Final::json(StatusCode::OK, result_message(&self.id, &result));
        }
        let mut error = rejection_error(rejection, &self.operation);
        if let (RejectionKind::NotFound, Some(uri)) = (rejection.kind, resource(&self.operation)) {
            // Tells the bridge that it is the resource which is missing.
            let mut data = RawObject::new();
            data.set_text("uri", uri);
            data.set_text("code", rejection.code);
            error.data = Some(data.finish());
        }
        let mut end = self.legacy_error(with_receipt(error, receipt));
        end.status = rejection_status(rejection);
        end.headers = rejection_headers(rejection, &self.metadata_url);
        end
    }
}
