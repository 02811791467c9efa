//! Sources that are part of Provost, with their settings.

use std::collections::BTreeMap;

use provost_types::{BuiltinPlugin, Name, SecretRef};
use secrecy::ExposeSecret;

use super::Toolbox;
use crate::{UpstreamError, builtin::Builtin, secrets::SECRET_OPEN};

impl Toolbox {
    pub(super) fn builtin(&self, tenant: &Name, spec: &BuiltinPlugin) -> Result<Builtin, UpstreamError> {
        let mut config = BTreeMap::new();
        for (key, value) in &spec.config {
            config.insert(key.clone(), self.setting(tenant, key, value)?);
        }
        Builtin::new(&spec.name, &config, &self.deps.inference)
    }

    /// A built-in's setting: `${secret:NAME}` inside of it stands for a secret, and a relative
    /// `sqlite:` path begins at the data directory.
    fn setting(&self, tenant: &Name, key: &str, value: &str) -> Result<String, UpstreamError> {
        let mut out = String::new();
        let mut rest = value;
        while let Some((before, after)) = rest.split_once(SECRET_OPEN) {
            let Some((secret, tail)) = after.split_once('}') else { break };
            let secret =
                Name::new(secret).map_err(|cause| UpstreamError::Config(format!("setting `{key}`: {cause}")))?;
            let reference = SecretRef { secret, prefix: String::new() };
            out.push_str(before);
            out.push_str(self.secret(tenant, &reference)?.expose_secret());
            rest = tail;
        }
        out.push_str(rest);
        match out.strip_prefix("sqlite:") {
            Some(path) if key == "url" && !path.starts_with('/') && !path.starts_with(':') => {
                Ok(format!("sqlite:{}", self.deps.data_dir.join(path).display()))
            }
            _ => Ok(out),
        }
    }
}
