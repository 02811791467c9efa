//! From the claims of a verified token to a caller.

use std::collections::BTreeSet;

use provost_types::{ClaimMapping, IdentityProviderSpec, Name, PrincipalSpec, ProviderPrincipals, TokenFacts};
use serde_json::Value;

use super::{fault::TokenFault, jwt::Claims};

/// Between what can be shown of a text and its digest. No name that was not made here has it.
const MADE: &str = "__";
/// Hexadecimal digits of the digest in a name: 96 bits.
const DIGEST_DIGITS: usize = 24;
/// The longest attribute, in bytes; longer ones are left out.
const MAX_ATTRIBUTE_BYTES: usize = 1_024;

/// Who the claims say that calls, and what else. `listed`: the principal of a name, where there is one.
pub(super) fn caller<'p>(
    provider: &Name,
    spec: &IdentityProviderSpec,
    claims: &Claims,
    listed: impl FnOnce(&Name) -> Option<&'p PrincipalSpec>,
) -> Result<(Name, TokenFacts), TokenFault> {
    let mapping = &spec.claims;
    let text = match claims.at(&mapping.principal) {
        Some(Value::String(text)) if !text.is_empty() => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => return Err(TokenFault::NoName(mapping.principal.clone())),
    };
    let name = name_of(&mapping.prefix, &text).ok_or_else(|| TokenFault::NoName(mapping.principal.clone()))?;
    let listed = listed(&name);
    let (mut principal, is_made) = match listed {
        Some(listed) if listed.disabled => return Err(TokenFault::Disabled(name.to_string())),
        Some(listed) => (listed.clone(), false),
        None if spec.principals == ProviderPrincipals::Any => {
            let made = PrincipalSpec { principal_type: mapping.principal_type, ..PrincipalSpec::default() };
            (made, true)
        }
        None => return Err(TokenFault::NoPrincipal(name.to_string())),
    };
    for (attribute, claim) in &mapping.attributes {
        if let Some(value) = claims.at(claim).and_then(scalar) {
            principal.attributes.insert(attribute.clone(), value);
        }
    }
    let scopes: BTreeSet<String> =
        claims.scopes().into_iter().filter(|s| spec.scopes.contains_key(*s)).map(str::to_owned).collect();
    let mut roles: BTreeSet<Name> = scopes.iter().filter_map(|s| spec.scopes.get(s)).flatten().cloned().collect();
    roles.extend(roles_of_claim(mapping, claims));
    Ok((name, TokenFacts { principal, is_made, roles, scopes, provider: Some(provider.clone()) }))
}

fn roles_of_claim(mapping: &ClaimMapping, claims: &Claims) -> BTreeSet<Name> {
    let Some(roles) = &mapping.roles else { return BTreeSet::new() };
    let values: Vec<&str> = match claims.at(&roles.claim) {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    values.into_iter().filter_map(|value| roles.map.get(value)).flatten().cloned().collect()
}

/// A text, number or truth value as text.
fn scalar(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(truth) => truth.to_string(),
        _ => return None,
    };
    (text.len() <= MAX_ATTRIBUTE_BYTES).then_some(text)
}

/// The name of a principal: the text itself where it is a name, else one that is made of it. Two texts never
/// have one name: case is not folded away, and a text that looks as if it were made here is made anew.
pub(super) fn name_of(prefix: &str, text: &str) -> Option<Name> {
    let whole = format!("{prefix}{text}");
    if !text.contains(MADE)
        && !whole.contains(MADE)
        && let Ok(name) = Name::new(&whole)
    {
        return Some(name);
    }
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    let mut hex: String = digest.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    hex.truncate(DIGEST_DIGITS);
    let room = Name::MAX_LEN - prefix.len() - MADE.len() - DIGEST_DIGITS;
    let shown: String =
        text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).take(room).collect();
    let shown = shown.trim_matches('-');
    let shown = if shown.is_empty() { "x" } else { shown };
    Name::new(&format!("{prefix}{shown}{MADE}{hex}")).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn name(text: &str) -> String {
        name_of("", text).unwrap().to_string()
    }

    #[test]
    fn names_are_kept_and_others_are_made() {
        assert_eq!(name("alice"), "alice");
        assert_eq!(name_of("corp-", "alice").unwrap().as_str(), "corp-alice");
        let all = [
            "alice",
            "Alice",
            "ALICE",
            "alice@example.com",
            "Alice@example.com",
            "auth0|12345",
            "..",
            "名前",
            "alice__x",
            &name("Alice"),
            &"x".repeat(64),
            &"x".repeat(63),
            &"x".repeat(5_000),
        ]
        .map(str::to_owned);
        let names: BTreeSet<String> = all.iter().map(|text| name(text)).collect();
        assert_eq!(names.len(), all.len(), "{names:?}");
        assert!(name("Alice@Example.com").starts_with("alice-example-com__"), "{}", name("Alice@Example.com"));
        assert!(name_of(&"p".repeat(16), &"X".repeat(99)).is_some());
    }

    fn spec(value: Value) -> IdentityProviderSpec {
        serde_json::from_value(value).unwrap()
    }

    fn read(spec: &IdentityProviderSpec, claims: Value) -> Result<(Name, TokenFacts), TokenFault> {
        let listed = PrincipalSpec { attributes: [("region".into(), "eu".into())].into(), ..Default::default() };
        let off = PrincipalSpec { disabled: true, ..Default::default() };
        let claims = Claims(claims.as_object().unwrap().clone());
        caller(&Name::new("corp").unwrap(), spec, &claims, |name| match name.as_str() {
            "ann" => Some(&listed),
            "off" => Some(&off),
            _ => None,
        })
    }

    #[test]
    fn only_what_is_mapped_is_taken() {
        let listed = spec(json!({ "issuer": "https://a", "scopes": { "use": ["user"], "run": ["ops", "user"] },
            "claims": { "attributes": { "team": "org.team", "level": "level" },
                "roles": { "claim": "realm.roles", "map": { "boss": ["admin"] } } } }));
        let claims = json!({ "sub": "ann", "scope": "use other openid", "level": 3, "org": { "team": "blue" },
            "realm": { "roles": ["boss", "admin", "ops"] }, "admin": true, "roles": ["admin"] });
        let (name, facts) = read(&listed, claims).unwrap();
        let roles: Vec<&str> = facts.roles.iter().map(Name::as_str).collect();
        assert_eq!((name.as_str(), roles), ("ann", vec!["admin", "user"]));
        assert_eq!(facts.scopes, ["use".to_owned()].into());
        let attributes: Vec<(&str, &str)> =
            facts.principal.attributes.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(attributes, [("level", "3"), ("region", "eu"), ("team", "blue")]);
        assert!(!facts.principal.admin && !facts.is_made);
    }

    #[test]
    fn nobody_comes_in_without_a_principal_unless_any_may() {
        let listed = spec(json!({ "issuer": "https://a" }));
        assert_eq!(read(&listed, json!({ "sub": "eve" })), Err(TokenFault::NoPrincipal("eve".to_owned())));
        assert_eq!(read(&listed, json!({ "sub": "off" })), Err(TokenFault::Disabled("off".to_owned())));
        for claims in [json!({}), json!({ "sub": "" }), json!({ "sub": ["ann"] }), json!({ "sub": null })] {
            assert_eq!(read(&listed, claims), Err(TokenFault::NoName("sub".to_owned())));
        }
        let any = spec(json!({ "issuer": "https://a", "principals": "any", "claims": { "principalType": "user" } }));
        let (name, facts) = read(&any, json!({ "sub": "Eve" })).unwrap();
        assert!(name.as_str().starts_with("eve__") && facts.is_made && facts.roles.is_empty());
        assert_eq!(read(&any, json!({ "sub": "off" })), Err(TokenFault::Disabled("off".to_owned())));
    }
}
