//! The rules that a plugin's credentials and its way out keep.
//!
//! Invariants: a document names one place for the upstream's credentials, and its own addresses are among
//! those that it allows itself; what a node would refuse at once is refused here, with its field.
//! Left out: what a name resolves to, and what a node's configuration allows (the nodes).

use std::collections::BTreeMap;

use provost_types::{
    EgressSpec, GrpcPlugin, HostPattern, HttpPlugin, OAuthClient, OpenApiPlugin, PrivateRange, SecretRef, UpstreamAuth,
};
use url::Url;

use crate::fields::Check;

const MCP_HTTP: &str = "spec.source.mcp-http";
const OPENAPI: &str = "spec.source.openapi";
/// gRPC has no query to put a secret in.
static NO_QUERY: BTreeMap<String, SecretRef> = BTreeMap::new();
/// Hosts, or ranges, of one plugin.
const MAX_EGRESS: usize = 64;
/// Endpoints beside the first one of one plugin.
const MAX_MORE_URLS: usize = 15;
/// Query parameters with a secret of one plugin.
const MAX_QUERY: usize = 16;
/// Bytes of a text of a client's: its id, scope, resource, audience.
const MAX_TEXT_BYTES: usize = 2_048;

/// What documents of plugins that are reached over HTTP have in common.
pub(crate) struct Reached<'a> {
    /// The field that all of it is in.
    pub(crate) base: &'static str,
    urls: Vec<&'a str>,
    pub(crate) headers: &'a BTreeMap<String, String>,
    pub(crate) secret_headers: &'a BTreeMap<String, SecretRef>,
    secret_query: &'a BTreeMap<String, SecretRef>,
    auth: Option<&'a UpstreamAuth>,
    egress: Option<&'a EgressSpec>,
}

impl<'a> From<&'a HttpPlugin> for Reached<'a> {
    fn from(http: &'a HttpPlugin) -> Self {
        Self {
            base: MCP_HTTP,
            urls: urls(http).map(String::as_str).collect(),
            headers: &http.headers,
            secret_headers: &http.secret_headers,
            secret_query: &http.secret_query,
            auth: http.auth.as_deref(),
            egress: http.egress.as_deref(),
        }
    }
}

impl<'a> From<&'a OpenApiPlugin> for Reached<'a> {
    fn from(api: &'a OpenApiPlugin) -> Self {
        Self {
            base: OPENAPI,
            urls: api.server_url().into_iter().chain(api.document_url.as_deref()).collect(),
            headers: &api.headers,
            secret_headers: &api.secret_headers,
            secret_query: &api.secret_query,
            auth: api.auth.as_deref(),
            egress: api.egress.as_deref(),
        }
    }
}

impl<'a> From<&'a GrpcPlugin> for Reached<'a> {
    fn from(grpc: &'a GrpcPlugin) -> Self {
        Self {
            base: crate::grpc::BASE,
            urls: vec![&grpc.url],
            headers: &grpc.headers,
            secret_headers: &grpc.secret_headers,
            secret_query: &NO_QUERY,
            auth: grpc.auth.as_deref(),
            egress: grpc.egress.as_deref(),
        }
    }
}

impl<'a> Reached<'a> {
    /// Its secrets, with the fields that name them.
    pub(crate) fn secrets(&self) -> Vec<(String, &'a SecretRef)> {
        let base = self.base;
        let headers = self.secret_headers.iter().map(|(key, of)| (format!("{base}.secretHeaders.{key}"), of));
        let query = self.secret_query.iter().map(|(key, of)| (format!("{base}.secretQuery.{key}"), of));
        let mut found: Vec<(String, &SecretRef)> = headers.chain(query).collect();
        if let Some(auth) = self.auth {
            let (base, client) = (self.auth_base(auth), auth.client());
            if let Some(secret) = &client.client_secret {
                found.push((format!("{base}.clientSecret"), secret));
            }
            if let Some(jwt) = &client.private_key_jwt {
                found.push((format!("{base}.privateKeyJwt.key"), &jwt.key));
            }
        }
        found
    }

    fn auth_base(&self, auth: &UpstreamAuth) -> String {
        let way = match auth {
            UpstreamAuth::ClientCredentials(_) => "clientCredentials",
            UpstreamAuth::TokenExchange(_) => "tokenExchange",
            UpstreamAuth::PerUser(_) => "perUser",
        };
        format!("{}.auth.{way}", self.base)
    }

    /// Checks credentials and the way out.
    pub(crate) fn check(&self, check: &mut Check<'_>) {
        let base = self.base;
        check.require(self.secret_query.len() <= MAX_QUERY, &format!("{base}.secretQuery"), || {
            format!("has more than {MAX_QUERY} parameters")
        });
        for key in self.secret_query.keys() {
            let mut urls = self.urls.iter().filter_map(|text| Url::parse(text).ok());
            let given = urls.any(|url| url.query_pairs().any(|(k, _)| k == key.as_str()));
            check.require(!key.is_empty() && !given, &format!("{base}.secretQuery.{key}"), || {
                "needs a name that the URL does not have already".into()
            });
        }
        if let Some(egress) = self.egress {
            self.check_egress(check, egress);
        }
        if let Some(auth) = self.auth {
            let mut headers = self.headers.keys().chain(self.secret_headers.keys());
            check.require(!headers.any(|h| h.eq_ignore_ascii_case("authorization")), &format!("{base}.auth"), || {
                "gives the `authorization` header, which `headers` or `secretHeaders` give too; keep one".into()
            });
            check_client(check, &self.auth_base(auth), auth.client(), matches!(auth, UpstreamAuth::PerUser(_)));
        }
    }

    fn check_egress(&self, check: &mut Check<'_>, egress: &EgressSpec) {
        let base = format!("{}.egress", self.base);
        let hosts = egress_entries(check, &base, egress);
        let client = self.auth.map(UpstreamAuth::client);
        let of_client = |field: fn(&OAuthClient) -> Option<&String>| client.and_then(field);
        let of_client = [of_client(|c| c.token_url.as_ref()), of_client(|c| c.issuer.as_ref())];
        let of_client = of_client.into_iter().flatten().map(String::as_str);
        for url in self.urls.iter().copied().chain(of_client) {
            names_own_host(check, &base, &hosts, url);
        }
    }
}

/// The first endpoint and the others.
fn urls(http: &HttpPlugin) -> impl Iterator<Item = &String> {
    std::iter::once(&http.url).chain(&http.more_urls)
}

/// Each is an address as the first one is, and another one.
pub(crate) fn check_more_urls(check: &mut Check<'_>, http: &HttpPlugin) {
    let base = format!("{MCP_HTTP}.moreUrls");
    let count = http.more_urls.len();
    check.require(count <= MAX_MORE_URLS, &base, || format!("has {count} entries; at most {MAX_MORE_URLS} can be"));
    let mut seen: Vec<Url> = Url::parse(&http.url).into_iter().collect();
    for (i, text) in http.more_urls.iter().enumerate() {
        let field = format!("{base}[{i}]");
        let Some(url) = check.address(&field, text, "carries a user name or password; use `secretHeaders` instead")
        else {
            continue;
        };
        check.require(!seen.contains(&url), &field, || format!("names `{text}` a second time; leave it out"));
        seen.push(url);
    }
}

/// Checks what a document lets itself reach; its hosts.
pub(crate) fn egress_entries(check: &mut Check<'_>, base: &str, egress: &EgressSpec) -> Vec<HostPattern> {
    for (field, count) in [("allowHosts", egress.allow_hosts.len()), ("allowPrivate", egress.allow_private.len())] {
        check.require(count <= MAX_EGRESS, &format!("{base}.{field}"), || {
            format!("has {count} entries; at most {MAX_EGRESS} can be")
        });
    }
    let mut hosts = Vec::new();
    for text in &egress.allow_hosts {
        match text.parse::<HostPattern>() {
            Ok(host) => hosts.push(host),
            Err(cause) => check.require(false, &format!("{base}.allowHosts"), || cause.to_string()),
        }
    }
    for text in &egress.allow_private {
        if let Err(cause) = text.parse::<PrivateRange>() {
            check.require(false, &format!("{base}.allowPrivate"), || cause.to_string());
        }
    }
    hosts
}

/// Checks that the host of a URL of the document is among those that it allows itself.
pub(crate) fn names_own_host(check: &mut Check<'_>, base: &str, hosts: &[HostPattern], url: &str) {
    let Ok(url) = Url::parse(url) else { return };
    let host = url.host_str().unwrap_or_default();
    let named = hosts.is_empty() || hosts.iter().any(|pattern| pattern.matches(host));
    check.require(named, &format!("{base}.allowHosts"), || format!("lacks `{host}`, which the document itself names"));
}

fn check_client(check: &mut Check<'_>, base: &str, client: &OAuthClient, is_per_user: bool) {
    if let Some(url) = &client.authorize_url {
        endpoint(check, &format!("{base}.authorizeUrl"), url);
    }
    let stray = client.authorize_url.is_some() || client.lists_as.is_some();
    check.require(is_per_user || !stray, base, || {
        "takes no `authorizeUrl` and no `listsAs`: they are `perUser`'s".into()
    });
    let paired = client.authorize_url.is_some() == client.token_url.is_some();
    check.require(!is_per_user || paired, base, || "needs `authorizeUrl` and `tokenUrl` together, or neither".into());
    match (&client.token_url, &client.issuer) {
        // The upstream's metadata says.
        (None, None) if is_per_user => {}
        (Some(url), None) => endpoint(check, &format!("{base}.tokenUrl"), url),
        (None, Some(url)) => endpoint(check, &format!("{base}.issuer"), url),
        _ => check.require(false, base, || "needs `tokenUrl` or `issuer`, and not both".into()),
    }
    let one = client.client_secret.is_some() != client.private_key_jwt.is_some();
    let none = client.client_secret.is_none() && client.private_key_jwt.is_none();
    check
        .require(one || (is_per_user && none), base, || "needs `clientSecret` or `privateKeyJwt`, and not both".into());
    check.require(!client.client_id.is_empty(), &format!("{base}.clientId"), || "is empty".into());
    let texts = [
        ("clientId", Some(&client.client_id)),
        ("scope", Some(&client.scope)),
        ("resource", client.resource.as_ref()),
        ("audience", client.audience.as_ref()),
    ];
    for (field, text) in texts {
        let good = text.is_none_or(|t| t.len() <= MAX_TEXT_BYTES && !t.chars().any(char::is_control));
        check.require(good, &format!("{base}.{field}"), || {
            format!("is longer than {MAX_TEXT_BYTES} bytes, or has control characters")
        });
    }
    if let Some(resource) = &client.resource {
        let good = Url::parse(resource).is_ok_and(|url| url.fragment().is_none());
        check.require(good, &format!("{base}.resource"), || {
            format!("`{resource}` is not an absolute URI without a fragment (RFC 8707)")
        });
    }
    let prefixed = client.client_secret.iter().chain(client.private_key_jwt.iter().map(|j| &j.key));
    for reference in prefixed {
        check.require(reference.prefix.is_empty(), &format!("{base}.clientSecret.prefix"), || {
            "is for headers; leave it out".into()
        });
    }
}

pub(crate) fn endpoint(check: &mut Check<'_>, field: &str, text: &str) {
    if let Some(url) = check.address(field, text, "carries a user name or password") {
        check.require(url.fragment().is_none(), field, || "carries a fragment".into());
    }
}
