//! The rules that a plugin with an OpenAPI document keeps.
//!
//! Invariants: what is stored can be read again, so nesting is bounded well below what JSON readers take; where
//! credentials go is said by the resource, never by what is fetched later.
//! Left out: what an operation becomes (`provost-data-tools`), which says of each one that becomes nothing why.

use std::io;

use provost_types::OpenApiPlugin;
use serde_json::Value;

use crate::{
    fields::{Check, reached},
    upstreams::Reached,
};

const BASE: &str = "spec.source.openapi";
/// Bytes of a document, as JSON without space.
const MAX_DOCUMENT_BYTES: usize = 3 << 20;
/// Nesting of a document. The resource around it takes a few of the 64 levels that are read.
const MAX_DOCUMENT_DEPTH: usize = 56;
/// Patterns of `include`, and of `exclude`.
const MAX_PATTERNS: usize = 1_024;

/// Checks the whole source.
pub(crate) fn check(check: &mut Check<'_>, api: &OpenApiPlugin) {
    let one = api.document.is_some() != api.document_url.is_some();
    check.require(one, BASE, || "needs `document` or `documentUrl`, and not both".into());
    if let Some(document) = &api.document {
        check_document(check, document);
    }
    if let Some(url) = &api.document_url {
        check.address(&format!("{BASE}.documentUrl"), url, "carries a user name or password");
        check.require(api.server.is_some(), &format!("{BASE}.server"), || {
            "is needed beside `documentUrl`: where credentials go is not for the service to say".into()
        });
    }
    check_server(check, api);
    for (group, patterns) in [("include", &api.include), ("exclude", &api.exclude)] {
        let field = format!("{BASE}.{group}");
        check.patterns(&field, patterns);
        check.require(patterns.len() <= MAX_PATTERNS, &field, || format!("has more than {MAX_PATTERNS} patterns"));
    }
    reached(check, &Reached::from(api));
}

fn check_document(check: &mut Check<'_>, document: &serde_json::Map<String, Value>) {
    let field = format!("{BASE}.document");
    let is_shallow = document.values().all(|value| is_within(value, MAX_DOCUMENT_DEPTH));
    check.require(is_shallow, &field, || format!("is nested deeper than {MAX_DOCUMENT_DEPTH} levels"));
    // What is too deep is not walked again.
    let mut room = Room(MAX_DOCUMENT_BYTES);
    let fits = !is_shallow || serde_json::to_writer(&mut room, document).is_ok();
    check.require(fits, &field, || {
        format!("has more than {MAX_DOCUMENT_BYTES} bytes; leave out what no tool is made of, or use `documentUrl`")
    });
    let version = document.get("openapi").and_then(Value::as_str).unwrap_or_default();
    check.require(version.starts_with("3.0.") || version.starts_with("3.1."), &format!("{field}.openapi"), || {
        format!("`{version}` is not 3.0.x or 3.1.x in quotes; other formats have to be converted first")
    });
    let paths = document.get("paths").is_some_and(Value::is_object);
    check.require(paths, &format!("{field}.paths"), || "is missing: a map of paths".into());
}

fn check_server(check: &mut Check<'_>, api: &OpenApiPlugin) {
    let field = match api.server {
        Some(_) => format!("{BASE}.server"),
        None => format!("{BASE}.document.servers[0].url"),
    };
    match api.server_url() {
        None if api.document_url.is_some() => {}
        None => check.require(false, &format!("{BASE}.server"), || {
            "is missing, and the document names no server: give the service's address".into()
        }),
        Some(url) if api.server.is_none() && (url.contains('{') || !url.contains("://")) => {
            check.require(false, &format!("{BASE}.server"), || {
                format!("is missing, and `{url}` of the document is no whole address: give the service's")
            });
        }
        Some(url) => {
            let parsed = check.address(&field, url, "carries a user name or password; use `secretHeaders` instead");
            let bare = parsed.is_none_or(|url| url.query().is_none() && url.fragment().is_none());
            check.require(bare, &field, || "has a query or a fragment; parameters belong to `secretQuery`".into());
        }
    }
}

/// Whether a value has at most so many levels.
fn is_within(value: &Value, levels: usize) -> bool {
    match (value, levels) {
        (Value::Array(_) | Value::Object(_), 0) => false,
        (Value::Array(items), _) => items.iter().all(|item| is_within(item, levels - 1)),
        (Value::Object(members), _) => members.values().all(|member| is_within(member, levels - 1)),
        _ => true,
    }
}

/// Takes so many bytes, and keeps none.
struct Room(usize);

impl io::Write for Room {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.checked_sub(bytes.len()) {
            Some(left) => {
                self.0 = left;
                Ok(bytes.len())
            }
            None => Err(io::Error::other("full")),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
