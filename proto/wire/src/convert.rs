//! Wire forms from and to domain types.

use provost_types::{Kind, Name, ResourceKey};

/// A text that is not `Kind/tenant/name` (or `Tenant/name`).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a resource: write Kind/tenant/name, or Tenant/name: {cause}")]
pub struct KeyError {
    text: String,
    cause: String,
}

/// Reads a key as `ResourceKey`'s `Display` writes it.
pub fn resource_key(text: &str) -> Result<ResourceKey, KeyError> {
    let error = |cause: String| KeyError { text: text.to_owned(), cause };
    let name = |text: &str| Name::new(text).map_err(|e| error(e.to_string()));
    let mut parts = text.split('/');
    let kind: Kind = parts.next().unwrap_or_default().parse().map_err(|e| error(format!("{e}")))?;
    let parts: Vec<&str> = parts.collect();
    let may = kind.may_be_tenanted();
    match (kind.is_tenanted(), parts.as_slice()) {
        (false, [tenant, own]) if may => Ok(ResourceKey { kind, tenant: Some(name(tenant)?), name: name(own)? }),
        (true, [tenant, own]) => Ok(ResourceKey { kind, tenant: Some(name(tenant)?), name: name(own)? }),
        (false, [own]) => Ok(ResourceKey { kind, tenant: None, name: name(own)? }),
        _ => Err(error(format!("wrong number of parts for a {kind}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_written() {
        for good in ["Tenant/acme", "Role/acme/reader", "ApiKey/acme/k-1", "KillSwitch/all", "KillSwitch/acme/all"] {
            assert_eq!(resource_key(good).map(|k| k.to_string()), Ok(good.to_owned()));
        }
        for bad in ["", "Role", "Role/acme", "Tenant/acme/x", "Thing/a/b", "Role/Acme/x"] {
            assert!(resource_key(bad).is_err(), "{bad} was taken");
        }
    }
}
