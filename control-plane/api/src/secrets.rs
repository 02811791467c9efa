//! Sealing of secrets. A value is sealed before it is proposed, so logs, snapshots and backups
//! hold ciphertext only.
//!
//! A random data key seals values (AES-256-GCM, random nonce; the resource's name and the value's
//! version are authenticated with it). The data key is in the replicated state, wrapped by a
//! [`KeyProvider`] that is not: whoever has the state alone reads nothing.

use std::{
    collections::HashMap,
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
    sync::{Arc, PoisonError, RwLock},
};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    rand,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use provost_control_state::{SealingKey, State};
use provost_types::{Kind, Name, ResourceKey, SealedSecret, SecretRef, Spec};
use secrecy::SecretString;
use zeroize::Zeroizing;

use crate::machine::Published;

/// Bytes of a key.
const KEY_BYTES: usize = 32;
/// Bytes of a secret's value.
pub(crate) const MAX_SECRET_BYTES: usize = 64 << 10;
const WRAP_CONTEXT: &[u8] = b"provost data key 1";

/// Why a secret cannot be sealed or unsealed. Never carries any part of a value or key.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// No such secret.
    #[error("Secret/{tenant}/{name} does not exist")]
    NotFound {
        /// The tenant.
        tenant: Name,
        /// The secret.
        name: Name,
    },
    /// It exists and has no value.
    #[error("Secret/{tenant}/{name} has no value; set it with `provost secret set {name}`")]
    NoValue {
        /// The tenant.
        tenant: Name,
        /// The secret.
        name: Name,
    },
    /// The ciphertext or the data key does not open.
    #[error(
        "{what} does not open with this node's key; was the key file replaced, or the data copied from another cluster?"
    )]
    DoesNotOpen {
        /// What.
        what: String,
    },
    /// The key provider failed.
    #[error("the key provider failed: {0}")]
    Provider(#[from] io::Error),
}

impl SecretError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            SecretError::NotFound { .. } => "PV-SECRET-NOT-FOUND",
            SecretError::NoValue { .. } => "PV-SECRET-NO-VALUE",
            SecretError::DoesNotOpen { .. } => "PV-SECRET-KEY",
            SecretError::Provider(_) => "PV-SECRET-PROVIDER",
        }
    }
}

/// Wraps data keys with a key that is kept elsewhere than the state.
pub trait KeyProvider: Send + Sync {
    /// Encrypts a data key.
    fn wrap(&self, key: &[u8]) -> Result<Vec<u8>, SecretError>;
    /// Decrypts it.
    fn unwrap(&self, wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, SecretError>;
}

/// A key in a file that only this user can read: for development and single machines.
pub struct LocalFileKey(RandomizedNonceKey);

impl LocalFileKey {
    /// Opens the key file, or makes it (mode 0600, synced before it is used).
    pub fn open(path: &Path) -> Result<Self, SecretError> {
        let key = match File::open(path) {
            Ok(file) => read_key(path, file)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => make_key(path)?,
            Err(e) => return Err(e.into()),
        };
        Ok(Self(cipher(&key)?))
    }
}

fn read_key(path: &Path, file: File) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let mode = file.metadata()?.permissions().mode();
    if mode & 0o077 != 0 {
        let text = format!("{} can be read by others; run `chmod 600` on it", path.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text).into());
    }
    let mut key = Zeroizing::new(Vec::with_capacity(KEY_BYTES + 1));
    file.take(KEY_BYTES as u64 + 1).read_to_end(&mut key)?;
    if key.len() != KEY_BYTES {
        let text = format!("{} is not a key of {KEY_BYTES} bytes", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidData, text).into());
    }
    Ok(key)
}

/// Written aside and renamed: a crash leaves no key or a whole one.
fn make_key(path: &Path) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let key = random_key()?;
    let temporary = path.with_extension("tmp");
    let _ = fs::remove_file(&temporary);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(&key)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    if let Some(dir) = path.parent() {
        File::open(dir)?.sync_all()?;
    }
    Ok(key)
}

fn random_key() -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let mut key = Zeroizing::new(vec![0; KEY_BYTES]);
    rand::fill(&mut key).map_err(|_| io::Error::other("no randomness"))?;
    Ok(key)
}

fn cipher(key: &[u8]) -> Result<RandomizedNonceKey, SecretError> {
    RandomizedNonceKey::new(&AES_256_GCM, key).map_err(|_| io::Error::other("a data key has the wrong length").into())
}

/// Nonce, ciphertext and tag in one.
fn seal_with(key: &RandomizedNonceKey, context: &[u8], value: &[u8]) -> Result<Vec<u8>, SecretError> {
    let mut body = Zeroizing::new(value.to_vec());
    let nonce =
        key.seal_in_place_append_tag(Aad::from(context), &mut *body).map_err(|_| io::Error::other("sealing failed"))?;
    Ok([nonce.as_ref().as_slice(), body.as_slice()].concat())
}

fn open_with(
    key: &RandomizedNonceKey,
    context: &[u8],
    sealed: &[u8],
    what: &str,
) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let fails = || SecretError::DoesNotOpen { what: what.to_owned() };
    let (nonce, body) = sealed.split_at_checked(NONCE_LEN).ok_or_else(fails)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| fails())?;
    let mut body = Zeroizing::new(body.to_vec());
    let length = key.open_in_place(nonce, Aad::from(context), &mut body).map_err(|_| fails())?.len();
    body.truncate(length);
    Ok(body)
}

impl KeyProvider for LocalFileKey {
    fn wrap(&self, key: &[u8]) -> Result<Vec<u8>, SecretError> {
        seal_with(&self.0, WRAP_CONTEXT, key)
    }
    fn unwrap(&self, wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, SecretError> {
        open_with(&self.0, WRAP_CONTEXT, wrapped, "the cluster's data key")
    }
}

/// Seals new values and opens stored ones.
pub struct Secrets {
    provider: Arc<dyn KeyProvider>,
    published: Arc<Published>,
    /// Unwrapped data keys by term; few, and never dropped.
    keys: RwLock<HashMap<u64, Arc<RandomizedNonceKey>>>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets")
    }
}

impl Secrets {
    pub(crate) fn new(provider: Arc<dyn KeyProvider>, published: Arc<Published>) -> Self {
        Self { provider, published, keys: RwLock::default() }
    }

    /// The value that a reference of a tenant's resource names, with the reference's prefix.
    pub fn unseal(&self, tenant: &Name, reference: &SecretRef) -> Result<SecretString, SecretError> {
        let state = self.published.state.load_full();
        let name = &reference.secret;
        let key = ResourceKey { kind: Kind::Secret, tenant: Some(tenant.clone()), name: name.clone() };
        let (tenant, name) = (tenant.clone(), name.clone());
        let sealed = match state.resources().get(&key).map(|r| &r.spec) {
            Some(Spec::Secret(spec)) => match &spec.sealed {
                Some(sealed) => sealed,
                None => return Err(SecretError::NoValue { tenant, name }),
            },
            _ => return Err(SecretError::NotFound { tenant, name }),
        };
        let what = key.to_string();
        let fails = || SecretError::DoesNotOpen { what: what.clone() };
        let cipher = self.key(&state, sealed.key_term)?;
        let bytes = STANDARD.decode(&sealed.ciphertext).map_err(|_| fails())?;
        let context = context(&tenant, &name, sealed.version);
        let value = open_with(&cipher, context.as_bytes(), &bytes, &what)?;
        let text = std::str::from_utf8(&value).map_err(|_| fails())?;
        Ok(SecretString::from(format!("{}{text}", reference.prefix)))
    }

    /// Seals a value; also gives the data key to propose with it if the cluster has none yet.
    pub(crate) fn seal(
        &self,
        state: &State,
        tenant: &Name,
        name: &Name,
        version: u64,
        value: &[u8],
    ) -> Result<(SealedSecret, Option<SealingKey>), SecretError> {
        let (key_term, cipher, new_key) = match state.key_ring().keys().next_back() {
            Some(term) => (*term, self.key(state, *term)?, None),
            None => {
                let key = random_key()?;
                let wrapped = STANDARD.encode(self.provider.wrap(&key)?);
                (1, Arc::new(cipher(&key)?), Some(SealingKey { term: 1, wrapped }))
            }
        };
        let context = context(tenant, name, version);
        let ciphertext = STANDARD.encode(seal_with(&cipher, context.as_bytes(), value)?);
        Ok((SealedSecret { version, key_term, ciphertext }, new_key))
    }

    fn key(&self, state: &State, term: u64) -> Result<Arc<RandomizedNonceKey>, SecretError> {
        if let Some(key) = self.keys.read().unwrap_or_else(PoisonError::into_inner).get(&term) {
            return Ok(key.clone());
        }
        let fails = || SecretError::DoesNotOpen { what: format!("the data key of term {term}") };
        let wrapped = state.key_ring().get(&term).ok_or_else(fails)?;
        let wrapped = STANDARD.decode(wrapped).map_err(|_| fails())?;
        let key = Arc::new(cipher(&self.provider.unwrap(&wrapped)?)?);
        self.keys.write().unwrap_or_else(PoisonError::into_inner).insert(term, key.clone());
        Ok(key)
    }
}

/// What is authenticated with a value: it opens only as the secret and version it was sealed as.
fn context(tenant: &Name, name: &Name, version: u64) -> String {
    format!("Secret|{tenant}|{name}|{version}")
}
