//! An MCP server that has one of everything: each tool, prompt and resource that the official
//! conformance suite calls for, and some that our own tests need.
//!
//! Purpose: the upstream behind the gateway in tests, in either era, over HTTP and stdio.
//! Invariants: each tool behaves alike in both eras; where it needs input it returns an
//! `input_required` result to a modern client and asks a legacy client during the call.
//! Left out: anything of Provost; what the server says is rmcp's wording of the protocol.

mod ask;
mod definitions;
mod handler;
mod prompts;
mod resources;
mod serve;
mod tasks;
mod tools;

pub use handler::{EraChoice, Everything};
pub use serve::{HttpServer, serve_http, serve_stdio};

/// A red pixel, PNG, base64.
const PIXEL_PNG: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8/5+hHgAHggJ/PchI7wAAAABJRU5ErkJggg==";
/// An empty sound, WAV, base64.
const SILENCE_WAV: &str = "UklGRiQAAABXQVZFZm10IBAAAAABAAEARKwAAIhYAQACABAAZGF0YQAAAAA=";

/// Reads a model type from JSON: the fixture's values are written as the wire has them.
fn value<T: serde::de::DeserializeOwned>(json: serde_json::Value) -> Result<T, rmcp::ErrorData> {
    serde_json::from_value(json).map_err(|cause| rmcp::ErrorData::internal_error(format!("fixture: {cause}"), None))
}

/// A complete result; rmcp takes the mark off again for legacy clients.
fn result<T: serde::de::DeserializeOwned>(mut json: serde_json::Value) -> Result<T, rmcp::ErrorData> {
    json["resultType"] = "complete".into();
    value(json)
}
