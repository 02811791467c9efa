//! Which secrets a plugin is given: for its records, for noticing new values, and for keeping them in.

use provost_types::{HttpPlugin, Name, PluginSource, PluginSpec, UpstreamAuth};

/// What begins a secret inside of a built-in's setting; `}` ends it.
pub(crate) const SECRET_OPEN: &str = "${secret:";

/// The secrets that a plugin is given, by name, each once.
pub fn secrets_of(spec: &PluginSpec) -> Vec<Name> {
    let mut names: Vec<Name> = match &spec.source {
        PluginSource::McpHttp(http) => of_http(http),
        PluginSource::McpStdio(stdio) => stdio.secret_env.values().map(|r| r.secret.clone()).collect(),
        PluginSource::Builtin(builtin) => builtin
            .config
            .values()
            .flat_map(|value| value.split(SECRET_OPEN).skip(1))
            .filter_map(|rest| Name::new(rest.split_once('}')?.0).ok())
            .collect(),
        PluginSource::Wasm(wasm) => wasm.credentials.values().map(|c| c.value.secret.clone()).collect(),
    };
    names.sort();
    names.dedup();
    names
}

/// Whether it acts with what its callers consented to.
pub fn acts_for_users(spec: &PluginSpec) -> bool {
    match &spec.source {
        PluginSource::McpHttp(http) => matches!(http.auth.as_deref(), Some(UpstreamAuth::PerUser(_))),
        PluginSource::McpStdio(_) | PluginSource::Builtin(_) | PluginSource::Wasm(_) => false,
    }
}

fn of_http(http: &HttpPlugin) -> Vec<Name> {
    let client = http.auth.as_deref().map(UpstreamAuth::client);
    let of_client = client
        .into_iter()
        .flat_map(|client| client.client_secret.iter().chain(client.private_key_jwt.iter().map(|jwt| &jwt.key)));
    let all = http.secret_headers.values().chain(http.secret_query.values()).chain(of_client);
    all.map(|reference| reference.secret.clone()).collect()
}
