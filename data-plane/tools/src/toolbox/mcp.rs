//! MCP servers, by HTTP and as processes.

use std::{collections::BTreeMap, sync::Arc};

use provost_types::{HttpPlugin, Name, PluginSpec, StdioPlugin};
use secrecy::ExposeSecret;

use super::Toolbox;
use crate::{
    UpstreamError,
    upstream::{Endpoints, HttpTarget, McpUpstream, StdioTarget, Walled},
};

impl Toolbox {
    pub(super) fn http(
        &self,
        tenant: &Name,
        name: &Name,
        plugin: &PluginSpec,
        spec: &HttpPlugin,
    ) -> Result<Arc<McpUpstream>, UpstreamError> {
        let headers = self.headers(tenant, &spec.headers, &spec.secret_headers)?;
        let client = self.client(spec.egress.as_deref())?;
        let url = |text: &str| {
            let mut url = client.check(text)?;
            for (key, reference) in &spec.secret_query {
                url.add_query(key, self.secret(tenant, reference)?.expose_secret());
            }
            Ok::<_, UpstreamError>(url)
        };
        let first = url(&spec.url)?;
        let more = spec.more_urls.iter().map(|text| Ok((text.clone(), url(text)?)));
        let more: Vec<_> = more.collect::<Result<_, UpstreamError>>()?;
        let redactor = self.redactor(tenant, plugin);
        let auth = self.authorizer(spec.auth.as_deref(), (tenant, name, &spec.url), &client, &redactor)?;
        let target = HttpTarget::new(client.clone(), first, headers, redactor, &self.deps.limits);
        let target = match auth {
            Some(auth) => target.with_auth(auth),
            None => target,
        };
        let mut targets: Vec<(String, HttpTarget)> =
            more.into_iter().enumerate().map(|(i, (text, url))| (text, target.at(i + 1, url))).collect();
        targets.insert(0, (spec.url.clone(), target));
        let outliers = plugin.resilience.as_ref().and_then(|r| r.outliers.clone()).unwrap_or_default();
        let endpoints = Endpoints::new(tenant.clone(), name.clone(), targets, outliers);
        let kin = self.kin(tenant, name, plugin);
        Ok(McpUpstream::http(name.as_str(), endpoints, spec.era, &self.deps.limits, kin))
    }

    pub(super) fn stdio(
        &self,
        tenant: &Name,
        name: &Name,
        plugin: &PluginSpec,
        spec: &StdioPlugin,
    ) -> Result<Arc<McpUpstream>, UpstreamError> {
        let mut secret_env = BTreeMap::new();
        for (key, reference) in &spec.secret_env {
            secret_env.insert(key.clone(), self.secret(tenant, reference)?);
        }
        let hidden = vec![self.deps.data_dir.clone()];
        let isolation = spec.isolation.as_deref();
        let walled = isolation.and_then(|spec| Walled::new(spec, self.deps.launcher.clone(), hidden));
        let target = StdioTarget {
            plugin: name.to_string(),
            command: spec.command.clone(),
            args: spec.args.clone(),
            env: spec.env.clone(),
            secret_env,
            cwd: spec.cwd.clone(),
            walled,
            redactor: self.redactor(tenant, plugin),
            max_bytes: self.deps.limits.max_answer_bytes,
        };
        let kin = self.kin(tenant, name, plugin);
        Ok(McpUpstream::stdio(name.as_str(), target, spec.era, &self.deps.limits, kin))
    }
}
