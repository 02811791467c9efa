//! Seals new values and opens stored ones.

use std::{
    collections::HashMap,
    fmt, io,
    sync::{Arc, PoisonError, RwLock},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use provost_control_state::{SealingKey, State};
use provost_types::{Kind, Name, ResourceKey, SealedSecret, SecretRef, Spec};
use secrecy::SecretString;
use zeroize::Zeroizing;

use super::{
    KeyProvider, SealedSource, SecretError,
    cipher::{Cipher, random_key},
    opens_newest_key,
    ring::{self, Place, RingKey},
};

/// First byte of what [`Secrets::seal_bytes`] gives.
const BYTES_FORM: u8 = 1;
/// A secret may be sealed again under a new key between reading it and reading its key.
const MAX_READS: u32 = 3;

/// Seals new values and opens stored ones; reads both from one [`SealedSource`].
pub struct Secrets {
    provider: Arc<dyn KeyProvider>,
    source: Arc<dyn SealedSource>,
    /// Unwrapped data keys by term; as few as the ring has had.
    keys: RwLock<HashMap<u64, Arc<DataKey>>>,
}

/// An opened key of the ring.
struct DataKey {
    /// As the ring held it: the same term of another ring is another key.
    text: String,
    cluster: Option<String>,
    cipher: Cipher,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets")
    }
}

impl Secrets {
    /// Opens what `source` holds with the keys that `provider` unwraps.
    pub fn new(provider: Arc<dyn KeyProvider>, source: Arc<dyn SealedSource>) -> Self {
        Self { provider, source, keys: RwLock::default() }
    }

    /// The value that a reference of a tenant's resource names, with the reference's prefix.
    pub fn unseal(&self, tenant: &Name, reference: &SecretRef) -> Result<SecretString, SecretError> {
        let name = &reference.secret;
        let (sealed, key) = self.read(tenant, name)?;
        let value = open(&key, &Place { kind: Kind::Secret, tenant, name }, &sealed)?;
        let what = || SecretError::does_not_open(format!("Secret/{tenant}/{name}"));
        let text = std::str::from_utf8(&value).map_err(|_| what())?;
        Ok(SecretString::from(format!("{}{text}", reference.prefix)))
    }

    /// The tokens of a connection, as they were sealed in the resource of this name.
    pub fn open_connection(
        &self,
        tenant: &Name,
        name: &Name,
        sealed: &SealedSecret,
    ) -> Result<Zeroizing<Vec<u8>>, SecretError> {
        let text = self.source.wrapped_key(sealed.key_term).ok_or_else(|| no_key(sealed.key_term))?;
        open(&*self.key(sealed.key_term, &text)?, &Place { kind: Kind::Connection, tenant, name }, sealed)
    }

    fn read(&self, tenant: &Name, name: &Name) -> Result<(SealedSecret, Arc<DataKey>), SecretError> {
        let resource = ResourceKey { kind: Kind::Secret, tenant: Some(tenant.clone()), name: name.clone() };
        let mut reads = 0;
        loop {
            let found = self.source.sealed(&resource);
            let Some(Spec::Secret(spec)) = found.as_ref().map(|r| &r.spec) else {
                return Err(SecretError::NotFound { tenant: tenant.clone(), name: name.clone() });
            };
            let Some(sealed) = &spec.sealed else {
                return Err(SecretError::NoValue { tenant: tenant.clone(), name: name.clone() });
            };
            reads += 1;
            match self.source.wrapped_key(sealed.key_term) {
                Some(text) => return Ok((sealed.clone(), self.key(sealed.key_term, &text)?)),
                None if reads < MAX_READS => {}
                None => return Err(no_key(sealed.key_term)),
            }
        }
    }

    /// Seals a value for `cluster`; also gives the data key to propose with it if the cluster has
    /// none of its own yet.
    pub(crate) fn seal(
        &self,
        cluster: &str,
        state: &State,
        key: &ResourceKey,
        version: u64,
        value: &[u8],
    ) -> Result<(SealedSecret, Option<SealingKey>), SecretError> {
        let place = place_of(key)?;
        let (term, key, new_key) = match ring::sealing_term(state, cluster) {
            Some(term) => (term, self.key_of(state, term)?, None),
            None => {
                let made = self.new_key(cluster, ring::next_term(state))?;
                (made.term, self.key(made.term, &made.wrapped)?, Some(made))
            }
        };
        Ok((seal(&key, term, &place, version, value)?, new_key))
    }

    /// A new data key, wrapped, to propose.
    pub(super) fn new_key(&self, cluster: &str, term: u64) -> Result<SealingKey, SecretError> {
        let wrapped = self.provider.wrap(&random_key()?)?;
        Ok(SealingKey { term, wrapped: RingKey::write(cluster, &wrapped), keeps: 0 })
    }

    /// The same value under the key of another term.
    pub(super) fn reseal(
        &self,
        state: &State,
        term: u64,
        key: &ResourceKey,
        sealed: &SealedSecret,
    ) -> Result<SealedSecret, SecretError> {
        let place = place_of(key)?;
        let value = open(&*self.key_of(state, sealed.key_term)?, &place, sealed)?;
        seal(&*self.key_of(state, term)?, term, &place, sealed.version, &value)
    }

    /// Seals bytes that are no secret of a tenant, such as the CA's key, under a key of their own
    /// that the provider wraps: they need no ring. They open only with the same context.
    pub fn seal_bytes(&self, context: &str, value: &[u8]) -> Result<Vec<u8>, SecretError> {
        let key = random_key()?;
        let wrapped = self.provider.wrap(&key)?;
        let length = u32::try_from(wrapped.len()).map_err(io::Error::other)?;
        let body = Cipher::new(&key)?.seal(context.as_bytes(), value)?;
        Ok([&[BYTES_FORM][..], &length.to_be_bytes(), &wrapped, &body].concat())
    }

    /// Opens what [`Secrets::seal_bytes`] gave.
    pub fn open_bytes(&self, context: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SecretError> {
        let fails = || SecretError::does_not_open(context);
        let (&form, rest) = sealed.split_first().ok_or_else(fails)?;
        let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(fails)?;
        let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| fails())?;
        let (wrapped, body) = rest.split_at_checked(length).filter(|_| form == BYTES_FORM).ok_or_else(fails)?;
        Cipher::new(&self.provider.unwrap(wrapped)?)?.open(context.as_bytes(), body, context)
    }

    /// A key for one purpose, made from the data key of a term: whoever can open the cluster's secrets
    /// gets the same one, and nothing can be opened with it that the data key sealed. It may ask the
    /// provider, and so block.
    pub fn derived_key(&self, term: u64, purpose: &str) -> Result<Zeroizing<[u8; 32]>, SecretError> {
        let text = self.source.wrapped_key(term).ok_or_else(|| no_key(term))?;
        let RingKey { wrapped, .. } = RingKey::parse(&text).ok_or_else(|| no_key(term))?;
        let key = self.provider.unwrap(&wrapped)?;
        Ok(Zeroizing::new(blake3::derive_key(purpose, &key)))
    }

    /// Whether the newest data key of a state opens here; `false`: it has none yet. It may ask the provider, and so
    /// block.
    pub(crate) fn opens(&self, state: &State) -> Result<bool, SecretError> {
        opens_newest_key(self.provider.as_ref(), state)
    }

    fn key_of(&self, state: &State, term: u64) -> Result<Arc<DataKey>, SecretError> {
        let text = state.key_ring().get(&term).ok_or_else(|| no_key(term))?;
        self.key(term, text)
    }

    fn key(&self, term: u64, text: &str) -> Result<Arc<DataKey>, SecretError> {
        let known = self.keys.read().unwrap_or_else(PoisonError::into_inner).get(&term).cloned();
        if let Some(key) = known.filter(|key| key.text == text) {
            return Ok(key);
        }
        let RingKey { cluster, wrapped } = RingKey::parse(text).ok_or_else(|| no_key(term))?;
        let cipher = Cipher::new(&self.provider.unwrap(&wrapped)?)?;
        let key = Arc::new(DataKey { text: text.to_owned(), cluster, cipher });
        self.keys.write().unwrap_or_else(PoisonError::into_inner).insert(term, key.clone());
        Ok(key)
    }
}

fn no_key(term: u64) -> SecretError {
    SecretError::does_not_open(format!("the data key of term {term}"))
}

/// What has no tenant is never sealed.
fn place_of(key: &ResourceKey) -> Result<Place<'_>, SecretError> {
    let tenant = key.tenant.as_ref().ok_or_else(|| SecretError::does_not_open(key.to_string()))?;
    Ok(Place { kind: key.kind, tenant, name: &key.name })
}

fn seal(
    key: &DataKey,
    key_term: u64,
    place: &Place<'_>,
    version: u64,
    value: &[u8],
) -> Result<SealedSecret, SecretError> {
    let context = ring::context(key.cluster.as_deref(), place, version, key_term);
    let ciphertext = STANDARD.encode(key.cipher.seal(context.as_bytes(), value)?);
    Ok(SealedSecret { version, key_term, ciphertext })
}

fn open(key: &DataKey, place: &Place<'_>, sealed: &SealedSecret) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let what = place.what();
    let bytes = STANDARD.decode(&sealed.ciphertext).map_err(|_| SecretError::does_not_open(&what))?;
    let context = ring::context(key.cluster.as_deref(), place, sealed.version, sealed.key_term);
    key.cipher.open(context.as_bytes(), &bytes, &what)
}

#[cfg(test)]
#[path = "sealer_tests.rs"]
mod tests;
