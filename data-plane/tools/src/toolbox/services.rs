//! Services that are no MCP servers: by an OpenAPI document, and of gRPC.

use provost_types::{GrpcPlugin, Name, OpenApiPlugin, PluginSpec};

use super::Toolbox;
use crate::{
    UpstreamError,
    grpc::{self, Grpc},
    openapi::{self, Filter, OpenApi, Reach},
};

impl Toolbox {
    pub(super) fn openapi(
        &self,
        tenant: &Name,
        name: &Name,
        plugin: &PluginSpec,
        spec: &OpenApiPlugin,
    ) -> Result<OpenApi, UpstreamError> {
        let headers = self.headers(tenant, &spec.headers, &spec.secret_headers)?;
        let client = self.client(spec.egress.as_deref())?;
        let server = spec.server_url().ok_or_else(|| UpstreamError::Config("it has no `server`".to_owned()))?;
        let redactor = self.redactor(tenant, plugin);
        let auth = self.authorizer(spec.auth.as_deref(), (tenant, name, server), &client, &redactor)?;
        let server = client.check(server)?;
        let mut query = Vec::new();
        for (key, reference) in &spec.secret_query {
            query.push((key.clone(), self.secret(tenant, reference)?));
        }
        let origin = match (&spec.document, &spec.document_url) {
            (Some(document), _) => openapi::Origin::Inline(document),
            (None, Some(url)) => openapi::Origin::Url(client.check(url)?),
            (None, None) => return Err(UpstreamError::Config("it has no `document`".to_owned())),
        };
        let filter = Filter { include: spec.include.clone(), exclude: spec.exclude.clone() };
        let reach = Reach { client, server, headers, query, auth, redactor };
        let flags = (spec.server.is_some(), spec.hide_output_schemas);
        OpenApi::new(name.as_str(), reach, origin, filter, flags, &self.deps.limits)
    }

    pub(super) fn grpc(
        &self,
        tenant: &Name,
        name: &Name,
        plugin: &PluginSpec,
        spec: &GrpcPlugin,
    ) -> Result<Grpc, UpstreamError> {
        let headers = self.headers(tenant, &spec.headers, &spec.secret_headers)?;
        // Tokens come from servers that need not speak HTTP/2 without asking first.
        let others = self.client(spec.egress.as_deref())?;
        let redactor = self.redactor(tenant, plugin);
        let auth = self.authorizer(spec.auth.as_deref(), (tenant, name, &spec.url), &others, &redactor)?;
        let client = self.http2_client(spec.egress.as_deref(), None)?;
        let server = client.check(&spec.url)?;
        let line = grpc::Line::new(client, server, headers);
        let filter = grpc::Filter {
            services: spec.services.clone(),
            include: spec.include.clone(),
            exclude: spec.exclude.clone(),
            hide_output_schemas: spec.hide_output_schemas,
        };
        Grpc::new(name.as_str(), (line, auth, redactor), spec.descriptor.as_deref(), filter, &self.deps.limits)
    }
}
