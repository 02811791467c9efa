//! What plugins are given of their tenant, and what they leave the node with.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use http::{HeaderMap, HeaderName, HeaderValue};
use provost_types::{ClientSecretIn, EgressSpec, Name, PluginSpec, SecretRef, UpstreamAuth};
use secrecy::{ExposeSecret, SecretString};

use super::Toolbox;
use crate::{
    UpstreamError,
    egress::{EgressClient, EgressRule},
    oauth::{Authorizer, ClientIdentity, For, SigningKey},
    redact::Redactor,
    secrets::secrets_of,
};

impl Toolbox {
    /// The headers that a plugin gives to each of its requests.
    pub(super) fn headers(
        &self,
        tenant: &Name,
        plain: &BTreeMap<String, String>,
        secret: &BTreeMap<String, SecretRef>,
    ) -> Result<HeaderMap, UpstreamError> {
        let mut headers = HeaderMap::new();
        for (key, text) in plain {
            headers.insert(header_name(key)?, header_value(key, text)?);
        }
        for (key, reference) in secret {
            let secret = self.secret(tenant, reference)?;
            let mut value = header_value(key, secret.expose_secret())?;
            value.set_sensitive(true);
            headers.insert(header_name(key)?, value);
        }
        Ok(headers)
    }

    /// What gives a plugin's access tokens, for this URL unless its document names another resource.
    pub(super) fn authorizer(
        &self,
        auth: Option<&UpstreamAuth>,
        (tenant, plugin, url): (&Name, &Name, &str),
        client: &EgressClient,
        redactor: &Redactor,
    ) -> Result<Option<Arc<Authorizer>>, UpstreamError> {
        let Some(auth) = auth else { return Ok(None) };
        let identity = self.identity(tenant, auth)?;
        let of = For { tenant, plugin, url, connections: self.deps.connections.clone() };
        Ok(Some(Arc::new(Authorizer::new(auth, of, identity, client.clone(), redactor.clone())?)))
    }

    /// How the plugin proves who it is to an authorization server.
    fn identity(&self, tenant: &Name, auth: &UpstreamAuth) -> Result<ClientIdentity, UpstreamError> {
        let client = auth.client();
        let id = client.client_id.clone();
        match (&client.client_secret, &client.private_key_jwt) {
            (Some(secret), _) => {
                let secret = self.secret(tenant, secret)?;
                Ok(match client.client_secret_in {
                    ClientSecretIn::Header => ClientIdentity::Basic { id, secret },
                    ClientSecretIn::Body => ClientIdentity::Body { id, secret },
                })
            }
            (None, Some(jwt)) => {
                let pem = self.secret(tenant, &jwt.key)?;
                let key = SigningKey::new(pem.expose_secret(), jwt.algorithm, jwt.key_id.clone())?;
                Ok(ClientIdentity::Signed { id, key })
            }
            (None, None) if matches!(auth, UpstreamAuth::PerUser(_)) => Ok(ClientIdentity::Public { id }),
            (None, None) => Err(UpstreamError::Config("auth needs clientSecret or privateKeyJwt".to_owned())),
        }
    }

    /// The client that everything of one plugin is fetched with.
    pub(super) fn client(&self, egress: Option<&EgressSpec>) -> Result<EgressClient, UpstreamError> {
        EgressClient::new(self.rule(egress)?).map_err(|cause| UpstreamError::Config(cause.to_string()))
    }

    /// A client for gRPC, which reaches what a document asks for within what the node allows.
    pub fn http2_client(
        &self,
        egress: Option<&EgressSpec>,
        certificate: Option<&SecretString>,
    ) -> Result<EgressClient, UpstreamError> {
        let client = EgressClient::http2(self.rule(egress)?, certificate);
        client.map_err(|cause| UpstreamError::Config(cause.to_string()))
    }

    fn rule(&self, egress: Option<&EgressSpec>) -> Result<EgressRule, UpstreamError> {
        Ok(match egress {
            Some(spec) => EgressRule::new(spec, &self.deps.limits.allow_private)?,
            None => EgressRule::public(),
        })
    }

    /// Finds what the plugin was given. Only values are looked for: a prefix such as `Bearer ` is no secret.
    pub(super) fn redactor(&self, tenant: &Name, spec: &PluginSpec) -> Redactor {
        let names: BTreeSet<Name> = secrets_of(spec).into_iter().collect();
        let values: Vec<SecretString> =
            names.iter().filter_map(|name| self.deps.secrets.secret(tenant, name)).collect();
        Redactor::new(values.iter().map(ExposeSecret::expose_secret))
    }

    /// A tenant's secret as it is now, as a document names it. The error names it and holds no value.
    pub fn secret(&self, tenant: &Name, reference: &SecretRef) -> Result<SecretString, UpstreamError> {
        let found = self.deps.secrets.secret(tenant, &reference.secret).ok_or_else(|| {
            UpstreamError::Config(format!(
                "the secret `{0}` has no value; run `provost secret set {0}`",
                reference.secret
            ))
        })?;
        Ok(SecretString::from(format!("{}{}", reference.prefix, found.expose_secret())))
    }
}

pub(super) fn header_name(key: &str) -> Result<HeaderName, UpstreamError> {
    HeaderName::from_bytes(key.as_bytes()).map_err(|_| UpstreamError::Config(format!("`{key}` is not a header name")))
}

pub(super) fn header_value(key: &str, text: &str) -> Result<HeaderValue, UpstreamError> {
    // The value may be a secret: not shown.
    HeaderValue::from_str(text)
        .map_err(|_| UpstreamError::Config(format!("the value of header `{key}` cannot be sent")))
}
