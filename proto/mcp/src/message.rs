//! JSON-RPC messages put together from bytes.

use bytes::{BufMut, Bytes, BytesMut};

use crate::{RawJson, RequestId, RpcError};

const HEAD: &[u8] = br#"{"jsonrpc":"2.0""#;
/// What the fixed parts of any message add up to.
const FRAME_BYTES: usize = 64;

/// `{"jsonrpc":"2.0","id":…,"result":…}`.
pub fn result_message(id: &RequestId, result: &RawJson) -> Bytes {
    let mut out = BytesMut::with_capacity(FRAME_BYTES + id.0.as_bytes().len() + result.as_bytes().len());
    out.put_slice(HEAD);
    member(&mut out, b"id", id.0.as_bytes());
    member(&mut out, b"result", result.as_bytes());
    out.put_u8(b'}');
    out.freeze()
}

/// `{"jsonrpc":"2.0","id":…,"error":…}`; without a readable id, `null` stands in its place.
pub fn error_message(id: Option<&RequestId>, error: &RpcError) -> Bytes {
    let body = error.to_raw();
    let mut out = BytesMut::with_capacity(FRAME_BYTES + body.as_bytes().len());
    out.put_slice(HEAD);
    member(&mut out, b"id", id.map_or(b"null".as_slice(), |id| id.0.as_bytes()));
    member(&mut out, b"error", body.as_bytes());
    out.put_u8(b'}');
    out.freeze()
}

/// `{"jsonrpc":"2.0","method":…,"params":…}`.
pub fn notification_message(method: &str, params: Option<&RawJson>) -> Bytes {
    let mut out = BytesMut::with_capacity(FRAME_BYTES + method.len() + params.map_or(0, |p| p.as_bytes().len()));
    out.put_slice(HEAD);
    member(&mut out, b"method", RawJson::from_text(method).as_bytes());
    if let Some(params) = params {
        member(&mut out, b"params", params.as_bytes());
    }
    out.put_u8(b'}');
    out.freeze()
}

/// `{"jsonrpc":"2.0","id":…,"method":…,"params":…}`.
pub fn request_message(id: &RequestId, method: &str, params: Option<&RawJson>) -> Bytes {
    let mut out = BytesMut::with_capacity(FRAME_BYTES + method.len() + params.map_or(0, |p| p.as_bytes().len()));
    out.put_slice(HEAD);
    member(&mut out, b"id", id.0.as_bytes());
    member(&mut out, b"method", RawJson::from_text(method).as_bytes());
    if let Some(params) = params {
        member(&mut out, b"params", params.as_bytes());
    }
    out.put_u8(b'}');
    out.freeze()
}

fn member(out: &mut BytesMut, key: &[u8], value: &[u8]) {
    out.put_slice(b",\"");
    out.put_slice(key);
    out.put_slice(b"\":");
    out.put_slice(value);
}
