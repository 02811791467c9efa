//! A client at a token endpoint: who it is, and what it is answered.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use reqwest::Method;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json;
use url::form_urlencoded;

use super::{SigningKey, endpoint::Place};
use crate::{
    UpstreamError,
    egress::{CheckedUrl, EgressClient},
    redact::Redactor,
    upstream::whole_body,
};

/// Longest answer of a token endpoint.
const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// How much of what it says about an error is shown.
const MAX_SHOWN_CHARS: usize = 200;
/// How long a signed assertion holds.
const ASSERTION_LIFE: Duration = Duration::from_secs(60);

/// How the client proves who it is.
pub(crate) enum ClientIdentity {
    /// By a secret in HTTP Basic.
    Basic { id: String, secret: SecretString },
    /// By a secret in the form.
    Body { id: String, secret: SecretString },
    /// By a signature.
    Signed { id: String, key: SigningKey },
    /// Not at all: what it gets is bound to a proof of its own (PKCE).
    Public { id: String },
}

impl ClientIdentity {
    /// The client's id.
    pub(super) fn id(&self) -> &str {
        match self {
            Self::Basic { id, .. } | Self::Body { id, .. } | Self::Signed { id, .. } | Self::Public { id } => id,
        }
    }
}

/// The form of a request to an authorization server.
#[derive(Default)]
pub(super) struct Form {
    fields: Vec<(&'static str, String)>,
    /// The client's secret, if it is sent in a header.
    basic: Option<HeaderValue>,
}

impl Form {
    pub(super) fn add(&mut self, key: &'static str, value: &str) {
        self.fields.push((key, value.to_owned()));
    }

    fn encode(&self) -> String {
        form_urlencoded::Serializer::new(String::new()).extend_pairs(&self.fields).finish()
    }
}

/// What a token endpoint gives.
#[derive(Deserialize)]
pub(super) struct TokenAnswer {
    pub(super) access_token: String,
    pub(super) token_type: String,
    #[serde(default)]
    pub(super) expires_in: Option<u64>,
    #[serde(default)]
    pub(super) issued_token_type: Option<String>,
    #[serde(default)]
    pub(super) refresh_token: Option<String>,
    #[serde(default)]
    pub(super) scope: Option<String>,
}

#[derive(Deserialize)]
struct ErrorAnswer {
    error: String,
    #[serde(default)]
    error_description: String,
}

/// Asks for a token.
pub(super) async fn ask(
    http: &EgressClient,
    place: &Place,
    identity: &ClientIdentity,
    mut form: Form,
    redactor: &Redactor,
) -> Result<TokenAnswer, UpstreamError> {
    identify(identity, place, &mut form)?;
    let (status, body) = post(http, (&place.url, "token"), form).await?;
    if status.is_success() {
        // The parser's words do not repeat the body, which holds a token.
        return serde_json::from_slice(&body)
            .map_err(|_| UpstreamError::Token("the token endpoint's answer holds no token".to_owned()));
    }
    let (said, is_grant) = refusal("token", status, &body, redactor);
    Err(if is_grant { UpstreamError::Grant(said) } else { UpstreamError::Token(said) })
}

/// Has a token taken back (RFC 7009), where there is a place for it. One that is over already is no error there.
pub(super) async fn revoke(
    http: &EgressClient,
    place: &Place,
    identity: &ClientIdentity,
    (token, hint): (&str, &str),
    redactor: &Redactor,
) -> Result<(), UpstreamError> {
    let Some(url) = &place.revoke else { return Ok(()) };
    let mut form = Form::default();
    form.add("token", token);
    form.add("token_type_hint", hint);
    identify(identity, place, &mut form)?;
    let (status, body) = post(http, (url, "revocation"), form).await?;
    match status.is_success() {
        true => Ok(()),
        false => Err(UpstreamError::Token(refusal("revocation", status, &body, redactor).0)),
    }
}

/// Posts a form to one of the server's endpoints.
async fn post(
    http: &EgressClient,
    (url, endpoint): (&CheckedUrl, &str),
    form: Form,
) -> Result<(StatusCode, Bytes), UpstreamError> {
    let mut request = http
        .request(Method::POST, url)
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(header::ACCEPT, "application/json")
        .body(form.encode());
    if let Some(basic) = form.basic {
        request = request.header(header::AUTHORIZATION, basic);
    }
    let response = request.send().await.map_err(|cause| match EgressClient::refusal(&cause) {
        Some(address) => address.into(),
        None => {
            UpstreamError::Token(format!("the {endpoint} endpoint cannot be reached: {}", EgressClient::cause(cause)))
        }
    })?;
    let status = response.status();
    let body = whole_body(response, MAX_ANSWER_BYTES).await.map_err(|cause| UpstreamError::Token(cause.to_string()))?;
    Ok((status, body))
}

/// What it says of an error, as far as that may be shown; whether what was given is not good any more.
fn refusal(endpoint: &str, status: StatusCode, body: &[u8], redactor: &Redactor) -> (String, bool) {
    let (why, is_grant) = match serde_json::from_slice::<ErrorAnswer>(body) {
        Ok(answer) => (format!("`{}` {}", answer.error, answer.error_description), answer.error == "invalid_grant"),
        Err(_) => (String::new(), false),
    };
    let shown: String = redactor.text(why.trim()).chars().filter(|c| !c.is_control()).take(MAX_SHOWN_CHARS).collect();
    (format!("the {endpoint} endpoint answered HTTP {} {shown}", status.as_u16()).trim().to_owned(), is_grant)
}

/// Adds what proves the client's identity.
fn identify(identity: &ClientIdentity, place: &Place, form: &mut Form) -> Result<(), UpstreamError> {
    match identity {
        ClientIdentity::Basic { id, secret } => {
            let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
            let pair = BASE64_STANDARD.encode(format!("{}:{}", encode(id), encode(secret.expose_secret())));
            let mut value = HeaderValue::from_str(&format!("Basic {pair}"))
                .map_err(|_| UpstreamError::Config("the client's secret cannot be sent".to_owned()))?;
            value.set_sensitive(true);
            form.basic = Some(value);
        }
        ClientIdentity::Body { id, secret } => {
            form.add("client_id", id);
            form.add("client_secret", secret.expose_secret());
        }
        ClientIdentity::Public { id } => form.add("client_id", id),
        ClientIdentity::Signed { id, key } => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            let once = format!("{:032x}", rand::random::<u128>());
            let claims = json!({
                "iss": id, "sub": id, "aud": place.audience, "iat": now,
                "exp": now + ASSERTION_LIFE.as_secs(), "jti": once,
            });
            form.add("client_id", id);
            form.add("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
            form.add("client_assertion", &key.sign(&claims)?);
        }
    }
    Ok(())
}
