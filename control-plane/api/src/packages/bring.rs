//! Bringing packages, and taking them away.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use provost_control_state::{
    Authorship, PACKAGE_PART_BYTES, PackageCommand, PackageFacts, PackageKey, PackageReply, Problem, State,
    StoredCommand,
};
use provost_package::{COMPONENT, Package, PackageError};
use provost_types::{Kind, Name, PublisherKey, ResourceKey, Spec};
use provost_wire::packages as wire;

use super::{check_scope, view::view};
use crate::{
    Caller, ControlError, ControlNode, ErrorKind,
    machine::Reply,
    members::Deed,
    record::{call_id, now_ns},
};

/// Tries of one part while no quorum answers.
const MAX_TRIES: u32 = 10;
/// Between two of them.
const TRY_PAUSE: Duration = Duration::from_millis(500);

/// The keys that a tenant trusts of a publisher.
fn trusted(state: &State, tenant: &Name, publisher: &Name) -> Vec<PublisherKey> {
    let key = ResourceKey { kind: Kind::Publisher, tenant: Some(tenant.clone()), name: publisher.clone() };
    match state.resources().get(&key).map(|r| &r.spec) {
        Some(Spec::Publisher(spec)) => spec.keys.iter().copied().collect(),
        _ => Vec::new(),
    }
}

fn refused(tenant: &Name, cause: &PackageError) -> ControlError {
    let hint = match cause {
        PackageError::UnknownPublisher { publisher, .. } => {
            format!("if you trust this key, apply a Publisher {publisher} of tenant {tenant} with it")
        }
        PackageError::Unsigned { .. } => "`provost plugin sign` signs a package".to_owned(),
        PackageError::Digest { .. } | PackageError::BadSignature { .. } => "get the file again".to_owned(),
        _ => String::new(),
    };
    ControlError::new(ErrorKind::Invalid, cause.code(), cause.to_string(), hint)
}

fn rejection(problems: Vec<Problem>) -> ControlError {
    match problems.into_iter().next() {
        Some(Problem { code, message, hint, .. }) => ControlError::new(ErrorKind::Refused, &code, message, hint),
        None => ControlError::internal("a change of the packages was rejected without a reason"),
    }
}

impl ControlNode {
    /// Stores a package that one of the tenant's publishers signed. One that is stored already changes nothing.
    pub async fn package_put(
        &self,
        caller: &Caller,
        tenant: &Name,
        bytes: Bytes,
    ) -> Result<wire::PackageView, ControlError> {
        check_scope(caller, tenant)?;
        let (package, state) = match self.checked_package(tenant, bytes).await {
            Ok(checked) => checked,
            Err(error) => return Err(self.refuse_package(caller, tenant, error).await),
        };
        let manifest = package.manifest();
        let signed = package.signature().map(|signature| signature.key);
        let Some(signer) = signed else { return Err(ControlError::internal("a checked package has no signature")) };
        let key = PackageKey { tenant: tenant.clone(), digest: package.digest() };
        if let Some(stored) = state.packages().get(&key) {
            return Ok(wire::PackageView { was_stored: true, ..view(&state, &key, stored) });
        }
        let facts = PackageFacts {
            name: manifest.name.clone(),
            version: manifest.version.to_string(),
            publisher: manifest.publisher.clone(),
            key: signer,
            bytes: package.bytes().len() as u64,
        };
        let detail = format!("{} of publisher {}, {} bytes", manifest.title(), facts.publisher, facts.bytes);
        let deed = Deed::new("package.put", vec![format!("Package/{key}")], detail).of_tenant(tenant);
        let (node, by, bringing, bytes) = (self.clone(), caller.clone(), key.clone(), package.bytes().clone());
        self.recorded(caller, deed, async move { node.bring(bringing, facts, &by, &bytes).await }).await?;
        // What was applied at the leader need not be here yet.
        self.inner.group.read_barrier().await?;
        let state = self.inner.published.state.load_full();
        match state.packages().get(&key) {
            Some(stored) => Ok(view(&state, &key, stored)),
            None => {
                let text = format!("{key} was stored and is gone again");
                Err(ControlError::new(ErrorKind::Unavailable, "PV-PACKAGE-MISSING", text, "somebody removed it"))
            }
        }
    }

    /// A whole package that one of the tenant's publishers signed and that nodes can run, and the state that says so.
    async fn checked_package(&self, tenant: &Name, bytes: Bytes) -> Result<(Package, Arc<State>), ControlError> {
        let package =
            tokio::task::spawn_blocking(move || Package::read(bytes)).await.map_err(ControlError::internal)?;
        let package = package.map_err(|cause| refused(tenant, &cause))?;
        self.inner.group.read_barrier().await?;
        let state = self.inner.published.state.load_full();
        let keys = trusted(&state, tenant, &package.manifest().publisher);
        package.check_signature(&keys).map_err(|cause| refused(tenant, &cause))?;
        if package.part(COMPONENT).is_none() {
            let text = format!("it has no part `{COMPONENT}`, which is what nodes run");
            return Err(refused(tenant, &PackageError::Format(text)));
        }
        Ok((package, state))
    }

    /// Records that somebody brought what is not taken. That it could not be looked at is no refusal.
    pub(super) async fn refuse_package(&self, caller: &Caller, tenant: &Name, error: ControlError) -> ControlError {
        if error.kind == ErrorKind::Invalid {
            let deed = Deed::new("package.put", vec![format!("Package/{tenant}")], "").of_tenant(tenant);
            self.record_refusal(caller, deed, &error).await;
        }
        error
    }

    /// The packages of a tenant, or of all that the caller may see.
    pub async fn packages(
        &self,
        caller: &Caller,
        tenant: Option<&Name>,
    ) -> Result<Vec<wire::PackageView>, ControlError> {
        if let Some(tenant) = tenant {
            check_scope(caller, tenant)?;
        }
        self.inner.group.read_barrier().await?;
        let state = self.inner.published.state.load_full();
        let shown = |key: &PackageKey| {
            check_scope(caller, &key.tenant).is_ok() && tenant.is_none_or(|tenant| key.tenant == *tenant)
        };
        let found = state.packages().iter().filter(|&(key, _)| shown(key));
        Ok(found.map(|(key, stored)| view(&state, key, stored)).collect())
    }

    /// Removes a package that no plugin runs.
    pub async fn package_remove(&self, caller: &Caller, key: PackageKey) -> Result<(), ControlError> {
        check_scope(caller, &key.tenant)?;
        let deed = Deed::new("package.remove", vec![format!("Package/{key}")], "").of_tenant(&key.tenant);
        let node = self.clone();
        let remove = async move { node.propose_package(PackageCommand::Remove { key }).await.map(drop) };
        self.recorded(caller, deed, remove).await
    }

    /// Proposes the parts of a package, one after the other.
    async fn bring(
        &self,
        key: PackageKey,
        facts: PackageFacts,
        caller: &Caller,
        bytes: &[u8],
    ) -> Result<(), ControlError> {
        let (parts, time_ns) = (facts.parts(), now_ns());
        let authorship = Some(Box::new(Authorship {
            call_id: call_id(time_ns),
            authenticated_by: caller.authenticated_by.clone(),
            client_address: caller.address.clone(),
            tenant: Some(key.tenant.clone()),
        }));
        let by = caller.name.clone();
        let begin = PackageCommand::Begin { key: key.clone(), facts, time_ns, by, authorship };
        let mut reply = self.persist(begin).await?;
        // Each answer but a lost one is a part further; those are sent again at most once each.
        for _ in 0..=2 * u64::from(parts) {
            let index = match reply {
                PackageReply::Stored => return Ok(()),
                PackageReply::Wants(index) => index,
                PackageReply::Removed => break,
            };
            let from = (index as usize).saturating_mul(PACKAGE_PART_BYTES).min(bytes.len());
            let to = from.saturating_add(PACKAGE_PART_BYTES).min(bytes.len());
            let content = bytes.get(from..to).unwrap_or_default().to_vec();
            reply = self.persist(PackageCommand::Part { key: key.clone(), index, content }).await?;
        }
        let text = format!("the upload of {key} does not come to an end");
        Err(ControlError::new(ErrorKind::Unavailable, "PV-PACKAGE-UPLOAD", text, "install it again"))
    }

    /// Proposes again while there is no quorum for a moment: each of these commands may be repeated.
    async fn persist(&self, command: PackageCommand) -> Result<PackageReply, ControlError> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.propose_package(command.clone()).await {
                Err(error) if error.kind == ErrorKind::Unavailable && tries < MAX_TRIES => {
                    tokio::time::sleep(TRY_PAUSE).await;
                }
                ended => return ended,
            }
        }
    }

    async fn propose_package(&self, command: PackageCommand) -> Result<PackageReply, ControlError> {
        match self.propose_command(&StoredCommand::Package1 { command }).await? {
            Reply::Package { reply } => Ok(reply),
            Reply::Rejected { problems } => Err(rejection(problems)),
            other => Err(ControlError::internal(format!("a change of the packages was answered by {other:?}"))),
        }
    }
}
