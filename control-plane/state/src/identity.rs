//! The rules that identity providers keep, each by itself and all of them together.
//!
//! Invariants: an issuer belongs to one provider of one tenant, so that a token has one reading; addresses are
//! `https`, or of this machine; what is mapped is bounded.

use std::collections::BTreeMap;

use provost_types::{IdentityProviderSpec, Kind, Name, PrincipalSpec, ResourceKey, Spec};

use crate::{Problem, Resources, fields::Check};

const CODE: &str = "PV-RES-FIELD";
/// Providers of one tenant.
const MAX_PROVIDERS: usize = 16;
/// Bytes of an issuer, an audience, a claim or a scope.
const MAX_TEXT_BYTES: usize = 512;
/// Entries of each list and map.
const MAX_ENTRIES: usize = 64;
/// Values of the claim of roles.
const MAX_ROLE_VALUES: usize = 512;
/// Bytes put before names: a name has 63.
const MAX_PREFIX_BYTES: usize = 16;
/// Certificate names of one principal.
const MAX_CERTIFICATES: usize = 16;
/// Seconds that clocks may differ.
const MAX_LEEWAY_S: u64 = 300;

/// Checks one provider by itself.
pub(crate) fn check(check: &mut Check<'_>, spec: &IdentityProviderSpec) {
    address(check, "spec.issuer", &spec.issuer);
    let bare = !spec.issuer.contains(['?', '#']);
    check.require(bare, "spec.issuer", || "has a query or a fragment; an issuer has none (RFC 8414)".into());
    if let Some(uri) = &spec.jwks_uri {
        address(check, "spec.jwksUri", uri);
    }
    check.require(!spec.algorithms.is_empty(), "spec.algorithms", || {
        "names no algorithm: leave it out for RS256, ES256 and EdDSA".into()
    });
    check.require(spec.leeway_seconds <= MAX_LEEWAY_S, "spec.leewaySeconds", || {
        format!("is more than {MAX_LEEWAY_S}; set the clocks instead")
    });
    texts(check, "spec.audiences", &spec.audiences);
    scopes(check, spec);
    claims(check, spec);
}

fn claims(check: &mut Check<'_>, spec: &IdentityProviderSpec) {
    let claims = &spec.claims;
    texts(check, "spec.claims.principal", [&claims.principal]);
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
    let first = claims.prefix.bytes().next();
    let plain = claims.prefix.bytes().all(inner) && first.is_none_or(|b| b.is_ascii_alphanumeric());
    check.require(plain && claims.prefix.len() <= MAX_PREFIX_BYTES, "spec.claims.prefix", || {
        format!("has other than a-z, 0-9, '.', '_' and '-', begins with none of the first two, or is longer than {MAX_PREFIX_BYTES}")
    });
    check.require(!claims.prefix.contains("__"), "spec.claims.prefix", || {
        "has `__`, which marks names that were made from other texts".into()
    });
    texts(check, "spec.claims.attributes", claims.attributes.keys().chain(claims.attributes.values()));
    at_most(check, "spec.claims.attributes", claims.attributes.len(), MAX_ENTRIES);
    if let Some(roles) = &claims.roles {
        texts(check, "spec.claims.roles.claim", [&roles.claim]);
        check.require(!roles.map.is_empty(), "spec.claims.roles.map", || "gives no role".into());
        at_most(check, "spec.claims.roles.map", roles.map.len(), MAX_ROLE_VALUES);
    }
}

/// RFC 6749, section 3.3: a scope is a token of visible ASCII without quotes and backslashes.
fn scopes(check: &mut Check<'_>, spec: &IdentityProviderSpec) {
    at_most(check, "spec.scopes", spec.scopes.len(), MAX_ENTRIES);
    for scope in spec.scopes.keys() {
        let visible = scope.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\'));
        check.require(visible && (1..=MAX_TEXT_BYTES).contains(&scope.len()), "spec.scopes", || {
            format!("`{scope}` is not an OAuth scope: visible ASCII without blanks, quotes and backslashes")
        });
    }
}

fn texts<'t>(check: &mut Check<'_>, field: &str, texts: impl IntoIterator<Item = &'t String>) {
    let mut count = 0;
    for text in texts {
        count += 1;
        check.require((1..=MAX_TEXT_BYTES).contains(&text.len()), field, || {
            format!("a text of 1 to {MAX_TEXT_BYTES} bytes is needed")
        });
    }
    at_most(check, field, count, 2 * MAX_ENTRIES);
}

fn at_most(check: &mut Check<'_>, field: &str, given: usize, most: usize) {
    check.require(given <= most, field, || format!("{given} are given; at most {most} can be"));
}

fn address(check: &mut Check<'_>, field: &str, text: &str) {
    check.require(text.len() <= MAX_TEXT_BYTES, field, || format!("has more than {MAX_TEXT_BYTES} bytes"));
    check.address(field, text, "carries a user name or password");
}

/// The roles that tokens of a provider may give, with the fields that name them.
pub(crate) fn roles(spec: &IdentityProviderSpec) -> Vec<(String, &Name)> {
    let mut found = Vec::new();
    let by_claim = spec.claims.roles.iter().flat_map(|roles| &roles.map);
    let by_claim = by_claim.map(|(value, names)| ("spec.claims.roles.map", value, names));
    let by_scope = spec.scopes.iter().map(|(scope, names)| ("spec.scopes", scope, names));
    for (field, key, names) in by_claim.chain(by_scope) {
        found.extend(names.iter().enumerate().map(|(i, name)| (format!("{field}.{key}[{i}]"), name)));
    }
    found
}

/// Checks what no provider can keep alone: an issuer has one owner, and a tenant a bounded number of them.
pub(crate) fn check_together(all: &Resources, problems: &mut Vec<Problem>) {
    let mut of_tenant: BTreeMap<Option<&Name>, usize> = BTreeMap::new();
    let mut owners: BTreeMap<&str, &ResourceKey> = BTreeMap::new();
    for (key, resource) in all.iter().filter(|(key, _)| key.kind == Kind::IdentityProvider) {
        let Spec::IdentityProvider(spec) = &resource.spec else { continue };
        let count = of_tenant.entry(key.tenant.as_ref()).or_default();
        *count += 1;
        if *count == MAX_PROVIDERS + 1 {
            let text = format!("the tenant has {MAX_PROVIDERS} identity providers already");
            problems.push(Problem::of_field(key, "metadata.name", CODE, text));
        }
        if let Some(first) = owners.insert(&spec.issuer, key) {
            // What another tenant calls its provider is not said.
            let whose = if first.tenant == key.tenant { first.to_string() } else { "another tenant".to_owned() };
            let text = format!("is the issuer of {whose} already; a token has one tenant");
            let hint = "most providers can have an issuer for each tenant";
            problems.push(Problem::of_field(key, "spec.issuer", CODE, text).hint(hint));
        }
    }
}

/// Checks the names of certificates of one principal.
pub(crate) fn check_certificates(check: &mut Check<'_>, spec: &PrincipalSpec) {
    at_most(check, "spec.certificates", spec.certificates.len(), MAX_CERTIFICATES);
    for name in &spec.certificates {
        let (kind, rest) = name.split_once(':').unwrap_or_default();
        let known = matches!(kind, "uri" | "email") || (kind == "dns" && !rest.bytes().any(|b| b.is_ascii_uppercase()));
        let visible = !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_graphic()) && !rest.contains('*');
        check.require(known && visible && name.len() <= MAX_TEXT_BYTES, "spec.certificates", || {
            format!("`{name}` is not `uri:…`, `dns:…` in lower case, or `email:…`, without `*`")
        });
    }
}

/// Checks that no name of a certificate means two principals.
pub(crate) fn check_unique_certificates(all: &Resources, problems: &mut Vec<Problem>) {
    let mut owners: BTreeMap<&str, &ResourceKey> = BTreeMap::new();
    for (key, resource) in all.iter().filter(|(key, _)| key.kind == Kind::Principal) {
        let Spec::Principal(spec) = &resource.spec else { continue };
        for name in &spec.certificates {
            if let Some(first) = owners.insert(name, key) {
                let whose = if first.tenant == key.tenant { first.to_string() } else { "another tenant".to_owned() };
                let text = format!("`{name}` belongs to a principal of {whose} already");
                problems.push(Problem::of_field(key, "spec.certificates", CODE, text));
            }
        }
    }
}
