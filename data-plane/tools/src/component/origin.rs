//! Where the component of a plugin is: a file that lies on the node, or a package that is fetched.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use bytes::Bytes;
use provost_data_wasm::ComponentDigest;
use provost_mcp::RpcError;
use provost_package::{COMPONENT, Package, PackageError};
use provost_types::{FileDigest, Name, PublisherKey};

use super::files::PackageFiles;
use crate::{PackagePort, UpstreamError};

/// Whom a tenant trusts: keys by publisher.
pub(crate) type Publishers = BTreeMap<Name, Vec<PublisherKey>>;

/// Where a component comes from.
pub(crate) enum Origin {
    /// A file of this hash.
    File { path: PathBuf, digest: FileDigest },
    /// A package.
    Package(PackageOrigin),
}

/// A package that is on this node, or is fetched.
pub(crate) struct PackageOrigin {
    pub tenant: Name,
    pub digest: FileDigest,
    /// As they were when the plugin was started.
    pub publishers: Publishers,
    pub port: Option<Arc<dyn PackagePort>>,
    pub files: PackageFiles,
}

/// Why there is no component.
pub(crate) struct Missing {
    code: &'static str,
    why: String,
    /// Whether it may come yet.
    pub again: bool,
}

impl Missing {
    fn later(why: impl Into<String>) -> Self {
        Self { code: "PV-PLUGIN-UNAVAILABLE", why: why.into(), again: true }
    }

    /// What the caller is told.
    pub(crate) fn told(&self, plugin: &Name) -> UpstreamError {
        let text = format!("plugin `{plugin}`: {}", self.why);
        UpstreamError::Rpc(RpcError::with_code(RpcError::UPSTREAM_FAILED, self.code, text))
    }
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code, self.why)
    }
}

impl From<PackageError> for Missing {
    fn from(cause: PackageError) -> Self {
        // Damage may be on the way; who signed it stays.
        let again = matches!(cause, PackageError::Digest { .. } | PackageError::Format(_));
        Self { code: cause.code(), why: cause.to_string(), again }
    }
}

impl Origin {
    /// The component's hash, and the file that has it. Of a package everything was checked then.
    pub(crate) async fn find(&self) -> Result<(ComponentDigest, PathBuf), Missing> {
        match self {
            Self::File { path, digest } => Ok((ComponentDigest::from_bytes(*digest.as_bytes()), path.clone())),
            Self::Package(package) => package.find().await,
        }
    }
}

impl PackageOrigin {
    async fn find(&self) -> Result<(ComponentDigest, PathBuf), Missing> {
        let (files, digest) = (self.files.clone(), self.digest);
        let kept = on_a_thread(move || files.package(digest)).await?;
        let package = match kept {
            Some(package) => package,
            None => self.fetch().await?,
        };
        // The keys are those of now, whatever they were when the package was fetched.
        let publisher = &package.manifest().publisher;
        package.check_signature(self.publishers.get(publisher).map(Vec::as_slice).unwrap_or_default())?;
        let component = package.part(COMPONENT);
        let component = component.ok_or_else(|| PackageError::Format(format!("it has no part `{COMPONENT}`")))?;
        drop(package);
        let files = self.files.clone();
        on_a_thread(move || -> Result<_, Missing> {
            let path = files.keep_component(digest, &component).map_err(|cause| Missing::later(cause.to_string()))?;
            Ok((ComponentDigest::of(&component), path))
        })
        .await?
    }

    async fn fetch(&self) -> Result<Package, Missing> {
        let port = self.port.as_ref().ok_or_else(|| Missing::later("this node gets no packages"))?;
        let fetched = port.fetch(&self.tenant, self.digest).await;
        let bytes: Bytes =
            fetched.map_err(|cause| Missing::later(format!("the package {} did not come: {cause}", self.digest)))?;
        let (files, digest) = (self.files.clone(), self.digest);
        on_a_thread(move || -> Result<_, Missing> {
            let package = Package::read(bytes)?;
            package.check_digest(digest)?;
            files.keep_package(&package).map_err(|cause| Missing::later(cause.to_string()))?;
            Ok(package)
        })
        .await?
    }
}

async fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Missing> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|cause| Missing::later(format!("looking at the package did not end: {cause}")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use provost_package::{Manifest, SigningKey, Source};
    use provost_types::BoxFuture;

    use super::*;
    use crate::FetchFailed;

    const CONTENT: &[u8] = b"component";

    struct Served {
        bytes: Bytes,
        times: AtomicUsize,
    }

    impl PackagePort for Served {
        fn fetch<'a>(&'a self, _: &'a Name, _: FileDigest) -> BoxFuture<'a, Result<Bytes, FetchFailed>> {
            self.times.fetch_add(1, Ordering::Relaxed);
            Box::pin(std::future::ready(Ok(self.bytes.clone())))
        }
    }

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn package(key: &SigningKey) -> Package {
        let manifest = Manifest::new(name("text"), "1.0.0".parse().unwrap(), name("maker"));
        let source = Source { name: COMPONENT.to_owned(), content: Bytes::from_static(CONTENT) };
        Package::make(manifest, &[source], Some(key)).unwrap()
    }

    fn origin(dir: &std::path::Path, port: &Arc<Served>, digest: FileDigest, keys: &[PublisherKey]) -> Origin {
        Origin::Package(PackageOrigin {
            tenant: name("acme"),
            digest,
            publishers: BTreeMap::from([(name("maker"), keys.to_vec())]),
            port: Some(port.clone()),
            files: PackageFiles::new(dir),
        })
    }

    #[tokio::test]
    async fn a_package_is_fetched_once_checked_each_time_and_fetched_again_when_it_was_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let key = SigningKey::generate().unwrap();
        let made = package(&key);
        let port = Arc::new(Served { bytes: made.bytes().clone(), times: AtomicUsize::new(0) });
        let trusting = origin(dir.path(), &port, made.digest(), &[key.public()]);
        for _ in 0..2 {
            let (digest, path) = trusting.find().await.map_err(|e| e.to_string()).unwrap();
            assert_eq!((digest, std::fs::read(path).unwrap()), (ComponentDigest::of(CONTENT), CONTENT.to_vec()));
        }
        assert_eq!(port.times.load(Ordering::Relaxed), 1);
        // Both files were changed behind the node's back.
        for entry in std::fs::read_dir(dir.path()).unwrap() {
            std::fs::write(entry.unwrap().path(), b"other").unwrap();
        }
        let (_, path) = trusting.find().await.map_err(|e| e.to_string()).unwrap();
        assert_eq!((std::fs::read(path).unwrap(), port.times.load(Ordering::Relaxed)), (CONTENT.to_vec(), 2));
        // It is there, and its key is trusted no more.
        let refused = origin(dir.path(), &port, made.digest(), &[]).find().await.err().unwrap();
        assert!(refused.to_string().starts_with("PV-PACKAGE-PUBLISHER") && !refused.again, "{refused}");
    }

    #[tokio::test]
    async fn what_is_not_the_package_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let key = SigningKey::generate().unwrap();
        let (wanted, other) = (package(&key), package(&SigningKey::generate().unwrap()));
        let port = Arc::new(Served { bytes: other.bytes().clone(), times: AtomicUsize::new(0) });
        let refused = origin(dir.path(), &port, wanted.digest(), &[key.public()]).find().await.err().unwrap();
        assert!(refused.to_string().starts_with("PV-PACKAGE-DIGEST") && refused.again, "{refused}");
        assert_eq!(std::fs::read_dir(dir.path()).map_or(0, Iterator::count), 0);
    }
}
