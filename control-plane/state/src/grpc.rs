//! The rules that a plugin with gRPC services keeps.
//!
//! Invariant: calls and credentials go to the one address that the resource names; descriptors name none.
//! Left out: what the descriptors say, and what becomes of a method (`provost-data-tools`).

use provost_types::GrpcPlugin;

use crate::{
    fields::{Check, reached},
    upstreams::Reached,
};

pub(crate) const BASE: &str = "spec.source.grpc";
/// Bytes of the descriptors, in Base64.
const MAX_DESCRIPTOR_BYTES: usize = 3 << 20;
/// Services of one plugin.
const MAX_SERVICES: usize = 256;
/// Bytes of a service's full name.
const MAX_SERVICE_BYTES: usize = 512;
/// Patterns of `include`, and of `exclude`.
const MAX_PATTERNS: usize = 1_024;
/// Metadata that the gateway or the protocol writes.
const RESERVED: [&str; 3] = ["te", "trailer", "content-encoding"];
/// What begins metadata of the protocol's own.
const RESERVED_PREFIX: &str = "grpc-";

/// Checks the whole source.
pub(crate) fn check(check: &mut Check<'_>, grpc: &GrpcPlugin) {
    let field = format!("{BASE}.url");
    let url = check.address(&field, &grpc.url, "carries a user name or password; use `secretHeaders` instead");
    let is_bare =
        url.is_none_or(|url| matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none());
    check.require(is_bare, &field, || "has a path, a query or a fragment; gRPC has none: `https://host:port`".into());
    if let Some(descriptor) = &grpc.descriptor {
        let field = format!("{BASE}.descriptor");
        check.require(descriptor.len() <= MAX_DESCRIPTOR_BYTES, &field, || {
            format!("has more than {MAX_DESCRIPTOR_BYTES} bytes; leave out files that no service needs")
        });
        let is_base64 = |b: u8| b.is_ascii_alphanumeric() || b.is_ascii_whitespace() || matches!(b, b'+' | b'/' | b'=');
        let is_text = !descriptor.trim().is_empty() && descriptor.bytes().all(is_base64);
        check.require(is_text, &field, || "is no Base64 of a `FileDescriptorSet`".into());
    }
    let field = format!("{BASE}.services");
    check.require(grpc.services.len() <= MAX_SERVICES, &field, || format!("has more than {MAX_SERVICES} services"));
    for service in &grpc.services {
        check.require(is_full_name(service), &field, || {
            format!("`{service}` is not the full name of a service, such as `tickets.v1.Tickets`")
        });
    }
    for (group, patterns) in [("include", &grpc.include), ("exclude", &grpc.exclude)] {
        let field = format!("{BASE}.{group}");
        check.patterns(&field, patterns);
        check.require(patterns.len() <= MAX_PATTERNS, &field, || format!("has more than {MAX_PATTERNS} patterns"));
    }
    let names = grpc.headers.keys().map(|h| ("headers", h));
    for (group, name) in names.chain(grpc.secret_headers.keys().map(|h| ("secretHeaders", h))) {
        let lower = name.to_ascii_lowercase();
        let is_reserved = RESERVED.contains(&lower.as_str()) || lower.starts_with(RESERVED_PREFIX);
        check.require(!is_reserved, &format!("{BASE}.{group}.{name}"), || {
            format!("`{name}` belongs to the protocol and is written by the gateway itself")
        });
    }
    reached(check, &Reached::from(grpc));
}

/// Names with dots between them: letters, digits and `_`, no digit first.
fn is_full_name(text: &str) -> bool {
    let is_name = |part: &str| {
        let is_inner = part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        is_inner && part.bytes().next().is_some_and(|first| !first.is_ascii_digit())
    };
    text.len() <= MAX_SERVICE_BYTES && text.split('.').all(is_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_named_in_full() {
        for (name, expect) in [
            ("tickets.v1.Tickets", true),
            ("Tickets", true),
            ("a_b.C9", true),
            ("", false),
            (".Tickets", false),
            ("tickets..Tickets", false),
            ("tickets.v1.", false),
            ("tickets.1.Tickets", false),
            ("tickets/Tickets", false),
            ("tickets.*", false),
        ] {
            assert_eq!(is_full_name(name), expect, "{name}");
        }
        assert!(!is_full_name(&"x".repeat(MAX_SERVICE_BYTES + 1)));
    }
}
