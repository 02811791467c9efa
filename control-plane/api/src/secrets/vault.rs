//! Data keys wrapped by a Vault (or OpenBao) transit engine: the wrapping key never leaves it.
//!
//! The documented HTTP API: `POST ADDRESS/v1/MOUNT/encrypt/KEY` and `…/decrypt/KEY` with
//! `X-Vault-Token`. The token is read again for each call, so that an agent can renew its file.
//! The token's policy needs `update` on both paths and nothing else.

use std::{fmt, fs, io, path::PathBuf, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::{Certificate, Client, StatusCode, Url, redirect};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::runtime::{Builder, Handle, RuntimeFlavor};
use zeroize::{Zeroize, Zeroizing};

use super::{KeyProvider, SecretError};

/// The longest time for one try.
const TRY_LIMIT: Duration = Duration::from_secs(5);
/// Tries while Vault is sealed, elects or cannot be reached.
const MAX_TRIES: u32 = 4;
/// Before the second try; doubled before each later one.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Bytes of an answer that are read.
const MAX_ANSWER_BYTES: usize = 64 << 10;
/// Bytes of a token's file.
const MAX_TOKEN_BYTES: u64 = 8 << 10;
/// How a wrapped key begins.
const WRAPPED_PREFIX: &[u8] = b"vault:";

/// Where the token comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum VaultToken {
    /// A file, such as the sink of a Vault agent.
    File(PathBuf),
    /// An environment variable, such as `VAULT_TOKEN`.
    Env(String),
}

/// Which transit key, and how to reach it.
#[derive(Clone)]
pub struct VaultConfig {
    /// Such as `https://vault.example:8200`.
    pub address: String,
    /// Where the transit engine is mounted, usually `transit`.
    pub mount: String,
    /// The key's name.
    pub key_name: String,
    /// The namespace, for a Vault that has them.
    pub namespace: Option<String>,
    /// The token.
    pub token: VaultToken,
    /// PEM of the CAs that Vault's certificate may come from; `None`: those of the system.
    pub ca: Option<PathBuf>,
}

/// Wraps data keys by a Vault transit key.
pub struct VaultTransit {
    base: Url,
    config: VaultConfig,
    authorities: Vec<Certificate>,
}

impl fmt::Debug for VaultTransit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VaultTransit({}, {})", self.base, self.config.key_name)
    }
}

/// Why one try failed.
enum Trouble {
    /// The next may succeed.
    Passing(String),
    /// No retry helps.
    Lasting(SecretError),
}

impl VaultTransit {
    /// Checks address, names and CA file; connects to nothing yet.
    pub fn new(config: VaultConfig) -> Result<Self, SecretError> {
        let mut base = Url::parse(&config.address).map_err(|e| invalid(format!("the address of Vault: {e}")))?;
        let local = matches!(base.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
        if !(base.scheme() == "https" || base.scheme() == "http" && local) {
            return Err(invalid("the address of Vault must be https:// (http:// only on this machine)").into());
        }
        let bad = |name: &str| name.is_empty() || name.starts_with('.');
        if config.mount.split('/').any(bad) || bad(&config.key_name) {
            return Err(invalid("the mount or the key's name of Vault is empty or has empty parts").into());
        }
        {
            let no_path = |()| invalid("the address of Vault cannot have a path");
            base.path_segments_mut().map_err(no_path)?.pop_if_empty().push("v1").extend(config.mount.split('/'));
        }
        let authorities = match &config.ca {
            Some(path) => Certificate::from_pem_bundle(&fs::read(path)?)
                .map_err(|e| invalid(format!("{} holds no certificates: {e}", path.display())))?,
            None => Vec::new(),
        };
        Ok(Self { base, config, authorities })
    }

    /// Runs to the end on a thread of its own, so that it may be called within a runtime or not.
    fn call(&self, operation: &str, body: &Zeroizing<Vec<u8>>) -> Result<Answer, SecretError> {
        let run = || {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(self.call_until_answered(operation, body))
        };
        let on_thread = || std::thread::scope(|scope| scope.spawn(run).join());
        let multi = Handle::try_current().is_ok_and(|h| h.runtime_flavor() == RuntimeFlavor::MultiThread);
        let joined = if multi { tokio::task::block_in_place(on_thread) } else { on_thread() };
        joined.unwrap_or_else(|_| Err(io::Error::other("the call to Vault panicked").into()))
    }

    async fn call_until_answered(&self, operation: &str, body: &Zeroizing<Vec<u8>>) -> Result<Answer, SecretError> {
        let client = self.client()?;
        let mut pause = FIRST_PAUSE;
        let mut tries = 1;
        loop {
            match self.call_once(&client, operation, body).await {
                Ok(answer) => return Ok(answer),
                Err(Trouble::Lasting(error)) => return Err(error),
                Err(Trouble::Passing(cause)) if tries == MAX_TRIES => {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, cause).into());
                }
                Err(Trouble::Passing(cause)) => tracing::warn!(%cause, tries, "Vault does not answer yet"),
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
            tries += 1;
        }
    }

    fn client(&self) -> Result<Client, SecretError> {
        // Whoever installed a provider first wins; all of ours is aws-lc-rs.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut builder = Client::builder().no_proxy().redirect(redirect::Policy::none()).timeout(TRY_LIMIT);
        if !self.authorities.is_empty() {
            builder = builder.tls_certs_only(self.authorities.clone());
        }
        Ok(builder.build().map_err(io::Error::other)?)
    }

    async fn call_once(&self, client: &Client, operation: &str, body: &[u8]) -> Result<Answer, Trouble> {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.push(operation).push(&self.config.key_name);
        }
        let token = self.token().map_err(|e| Trouble::Lasting(e.into()))?;
        let mut request = client
            .post(url)
            .header("X-Vault-Token", token.expose_secret())
            .header("X-Vault-Request", "true")
            .header("content-type", "application/json")
            .body(body.to_vec());
        if let Some(namespace) = &self.config.namespace {
            request = request.header("X-Vault-Namespace", namespace);
        }
        let passing = |e: reqwest::Error| Trouble::Passing(format!("{} does not answer: {}", self.base, causes(&e)));
        let mut response = request.send().await.map_err(passing)?;
        let status = response.status();
        let mut bytes = Zeroizing::new(Vec::new());
        while let Some(part) = response.chunk().await.map_err(passing)? {
            bytes.extend_from_slice(&part);
            if bytes.len() > MAX_ANSWER_BYTES {
                return Err(self.lasting(operation, "an answer that is too large"));
            }
        }
        if status.is_success() {
            let not_it = |_| self.lasting(operation, "something that is not transit's answer");
            return serde_json::from_slice::<Envelope>(&bytes).map(|e| e.data).map_err(not_it);
        }
        let said = serde_json::from_slice::<Errors>(&bytes).map(|e| e.errors.join("; ")).unwrap_or_default();
        if status.is_redirection() {
            // The token goes to nobody but the one that the configuration names.
            let text = format!("{status}, a standby that sends clients on: name the active node or a load balancer");
            return Err(self.lasting(operation, text));
        }
        Err(self.refused(operation, status, &said))
    }

    fn refused(&self, operation: &str, status: StatusCode, said: &str) -> Trouble {
        match status.as_u16() {
            // 412 and 472 to 473: a standby that lags or does not serve.
            412 | 429 | 472 | 473 | 500..=599 => {
                Trouble::Passing(format!("{} answered {status} to {operation}: {said}", self.base))
            }
            // Other meanings of 400, by the texts that Vault gives them.
            400 if said.contains("missing client token") => self.lasting(operation, format!("{status}: {said}")),
            400 if said.contains("encryption key not found") => {
                self.lasting(operation, format!("{status}: {said}: transit has no key {}", self.config.key_name))
            }
            400 if said.contains("too old") => {
                let hint = "lower the key's min_decryption_version, then `provost cluster rotate-keys`";
                self.lasting(operation, format!("{status}: {said}; {hint}"))
            }
            // What Vault cannot decrypt it answers with 400 and no more detail than this.
            400 if operation == DECRYPT => {
                tracing::warn!(cause = said, "Vault could not decrypt the cluster's data key");
                Trouble::Lasting(SecretError::does_not_open("the cluster's data key (wrapped by Vault)"))
            }
            403 => self.lasting(operation, format!("{status}: {said}; is the token valid, and may it {operation}?")),
            404 => {
                let place = format!("at {}, in this namespace", self.config.mount);
                self.lasting(operation, format!("{status}: {said}; is the transit engine mounted {place}?"))
            }
            _ => self.lasting(operation, format!("{status}: {said}")),
        }
    }

    fn lasting(&self, operation: &str, what: impl fmt::Display) -> Trouble {
        let text = format!("{} answered {operation} with {what}", self.base);
        Trouble::Lasting(io::Error::other(text).into())
    }

    fn token(&self) -> io::Result<SecretString> {
        let mut text = match &self.config.token {
            VaultToken::Env(name) => std::env::var(name)
                .map_err(|_| invalid(format!("the variable {name} with Vault's token is not set")))?,
            VaultToken::File(path) => {
                let said = |e: io::Error| io::Error::new(e.kind(), format!("Vault's token in {}: {e}", path.display()));
                if fs::metadata(path).map_err(said)?.len() > MAX_TOKEN_BYTES {
                    return Err(invalid(format!("{} is too large for a token", path.display())));
                }
                fs::read_to_string(path).map_err(said)?
            }
        };
        let token = SecretString::from(text.trim().to_owned());
        text.zeroize();
        Ok(token)
    }
}

const ENCRYPT: &str = "encrypt";
const DECRYPT: &str = "decrypt";

impl KeyProvider for VaultTransit {
    fn wrap(&self, key: &[u8]) -> Result<Vec<u8>, SecretError> {
        let plaintext = Zeroizing::new(STANDARD.encode(key));
        let body = body(&json!({ "plaintext": *plaintext }))?;
        let wrapped = self.call(ENCRYPT, &body)?.ciphertext.unwrap_or_default().into_bytes();
        if !wrapped.starts_with(WRAPPED_PREFIX) {
            return Err(io::Error::other("Vault answered encrypt without a ciphertext").into());
        }
        Ok(wrapped)
    }

    fn unwrap(&self, wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, SecretError> {
        let not_ours = || SecretError::does_not_open("the cluster's data key (not wrapped by Vault)");
        let text = std::str::from_utf8(wrapped).ok().filter(|t| t.as_bytes().starts_with(WRAPPED_PREFIX));
        let body = body(&json!({ "ciphertext": text.ok_or_else(not_ours)? }))?;
        let plaintext = Zeroizing::new(self.call(DECRYPT, &body)?.plaintext.unwrap_or_default());
        let key = STANDARD.decode(plaintext.as_bytes()).map_err(|_| not_ours())?;
        Ok(Zeroizing::new(key))
    }
}

fn body(value: &Value) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    Ok(Zeroizing::new(serde_json::to_vec(value).map_err(io::Error::other)?))
}

fn invalid(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text.into())
}

/// An error with its causes: reqwest's own text names only the outermost.
fn causes(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        text.push_str(&format!(": {cause}"));
        next = cause.source();
    }
    text
}

#[derive(Deserialize)]
struct Envelope {
    data: Answer,
}

/// What transit answers: one of the two.
#[derive(Deserialize)]
struct Answer {
    ciphertext: Option<String>,
    plaintext: Option<String>,
}

#[derive(Deserialize)]
struct Errors {
    #[serde(default)]
    errors: Vec<String>,
}

#[cfg(test)]
#[path = "vault_tests.rs"]
mod tests;
