//! Which secrets a plugin is given: for its records, for noticing new values, and for keeping them in.

use std::collections::BTreeMap;

use provost_types::{Name, PluginSource, PluginSpec, SecretRef, UpstreamAuth};

/// What begins a secret inside of a built-in's setting; `}` ends it.
pub(crate) const SECRET_OPEN: &str = "${secret:";

/// The secrets that a plugin is given, by name, each once.
pub fn secrets_of(spec: &PluginSpec) -> Vec<Name> {
    let mut names: Vec<Name> = match &spec.source {
        PluginSource::McpHttp(http) => of_http([&http.secret_headers, &http.secret_query], http.auth.as_deref()),
        PluginSource::OpenApi(api) => of_http([&api.secret_headers, &api.secret_query], api.auth.as_deref()),
        PluginSource::Grpc(grpc) => of_http([&grpc.secret_headers, &BTreeMap::new()], grpc.auth.as_deref()),
        PluginSource::McpStdio(stdio) => stdio.secret_env.values().map(|r| r.secret.clone()).collect(),
        PluginSource::Builtin(builtin) => builtin
            .config
            .values()
            .flat_map(|value| value.split(SECRET_OPEN).skip(1))
            .filter_map(|rest| Name::new(rest.split_once('}')?.0).ok())
            .collect(),
        PluginSource::Wasm(wasm) => wasm.credentials.values().map(|c| c.value.secret.clone()).collect(),
        PluginSource::Rag(_) => Vec::new(),
    };
    names.sort();
    names.dedup();
    names
}

/// Whether it acts with what its callers consented to.
pub fn acts_for_users(spec: &PluginSpec) -> bool {
    match &spec.source {
        PluginSource::McpHttp(http) => matches!(http.auth.as_deref(), Some(UpstreamAuth::PerUser(_))),
        PluginSource::OpenApi(api) => matches!(api.auth.as_deref(), Some(UpstreamAuth::PerUser(_))),
        PluginSource::Grpc(grpc) => matches!(grpc.auth.as_deref(), Some(UpstreamAuth::PerUser(_))),
        PluginSource::McpStdio(_) | PluginSource::Builtin(_) | PluginSource::Wasm(_) | PluginSource::Rag(_) => false,
    }
}

fn of_http(given: [&BTreeMap<String, SecretRef>; 2], auth: Option<&UpstreamAuth>) -> Vec<Name> {
    let of_client = auth
        .map(UpstreamAuth::client)
        .into_iter()
        .flat_map(|client| client.client_secret.iter().chain(client.private_key_jwt.iter().map(|jwt| &jwt.key)));
    let given = given.into_iter().flat_map(BTreeMap::values);
    given.chain(of_client).map(|reference| reference.secret.clone()).collect()
}
