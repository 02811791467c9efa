//! What administrators can ask of a node, in process; the gRPC service is a thin form of it.

use std::{collections::BTreeMap, time::Duration};

use provost_control_state::{Draft, Event, HistoryEntry, State};
use provost_types::{
    ApiKeySpec, DefinitionPolicy, Kind, Metadata, Name, PluginSource, PluginSpec, Resource, ResourceKey, Revision,
    SecretSpec, Spec,
};
use secrecy::SecretString;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    Caller, ChangeReport, ControlError, ControlNode, Documents, ErrorKind, ResourceDiff, Scope, SourceFile, Unread,
    change::Wanted, diff, documents, secrets, tokens,
};

/// The first version in which a plugin says what becomes of definitions.
const DEFINITIONS_VERSION: u32 = 2;
/// The first version in which a stdio plugin says how it is kept apart.
const ISOLATION_VERSION: u32 = 5;
/// Bytes of documents that are read where they are asked for: larger ones get another thread.
const MAX_READ_INLINE: usize = 64 << 10;
/// History entries returned when no number is asked for.
const DEFAULT_HISTORY: usize = 50;
/// The longest life of a token: ten years.
const MAX_TOKEN_TTL: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Which resources; `None` takes all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceFilter {
    /// Only this kind.
    pub kind: Option<Kind>,
    /// Only this tenant (and, of kind `Tenant`, the tenant itself).
    pub tenant: Option<Name>,
    /// Only this name.
    pub name: Option<Name>,
}

/// A past transaction as a caller may see it.
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryItem {
    /// The entry; its changes are those that the caller may see.
    pub entry: HistoryEntry,
    /// What differs, in the order of the changes.
    pub diffs: Vec<ResourceDiff>,
}

/// A token that was just made.
#[derive(Debug)]
pub struct NewToken {
    /// The token: shown this once.
    pub token: SecretString,
    /// The `ApiKey` that holds its hash.
    pub key: ResourceKey,
    /// RFC 3339 time of its end.
    pub expires: Option<String>,
    /// The revision from which it works.
    pub revision: Revision,
}

impl ControlNode {
    /// Applies all documents of all files as one transaction, or nothing.
    pub async fn apply(
        &self,
        caller: &Caller,
        files: &[SourceFile],
        message: &str,
        dry_run: bool,
    ) -> Result<ChangeReport, ControlError> {
        let Documents { drafts, unread } = if files.iter().map(|f| f.text.len()).sum::<usize>() <= MAX_READ_INLINE {
            documents::read(files)
        } else {
            let files = files.to_vec();
            tokio::task::spawn_blocking(move || documents::read(&files)).await.map_err(ControlError::internal)?
        };
        let wanted = Wanted { caller, event: Event::Apply, message, dry_run, files, unread };
        let mut empty = wanted.transaction();
        empty.puts = drafts;
        self.change(wanted, |state| {
            let mut transaction = empty.clone();
            transaction.puts.iter_mut().for_each(|draft| {
                keep_sealed(state, draft);
                choose_definitions(state, draft);
                choose_isolation(state, draft);
            });
            Ok(transaction)
        })
        .await
    }

    /// Says what [`ControlNode::apply`] would change.
    pub async fn diff(&self, caller: &Caller, files: &[SourceFile]) -> Result<ChangeReport, ControlError> {
        self.apply(caller, files, "", true).await
    }

    /// The resources that the filter takes and the caller may see, linearizably.
    pub async fn get(
        &self,
        caller: &Caller,
        filter: &ResourceFilter,
    ) -> Result<(Revision, Vec<std::sync::Arc<Resource>>), ControlError> {
        self.inner.group.read_barrier().await?;
        let state = self.inner.published.state.load_full();
        let takes = |key: &ResourceKey| {
            let tenant = key.tenant.as_ref().unwrap_or(&key.name);
            caller.may_see(key)
                && filter.kind.is_none_or(|k| k == key.kind)
                && filter.tenant.as_ref().is_none_or(|t| t == tenant)
                && filter.name.as_ref().is_none_or(|n| *n == key.name)
        };
        let found = state.resources().iter().filter(|(key, _)| takes(key));
        let found: Vec<_> = found.map(|(_, r)| r.clone()).collect();
        if let (Some(name), true) = (&filter.name, found.is_empty()) {
            let kind = filter.kind.map_or("resource", Kind::as_str);
            let hint = format!("`provost get {kind}` lists what exists");
            let text = format!("{kind} {name} does not exist");
            return Err(ControlError::new(ErrorKind::NotFound, "PV-RES-NOT-FOUND", text, hint));
        }
        Ok((state.revision(), found))
    }

    /// Deletes resources as one transaction, or nothing.
    pub async fn delete(
        &self,
        caller: &Caller,
        keys: &[ResourceKey],
        message: &str,
        dry_run: bool,
    ) -> Result<ChangeReport, ControlError> {
        if let Some(key) = keys.iter().find(|key| key.kind.is_governance()) {
            let text = format!("{key} is not removed like a document");
            let hint =
                "use `provost kill-switch off`, `provost connections revoke`, or delete the plugin that pins are of";
            return Err(ControlError::new(ErrorKind::Refused, "PV-DOC-GOVERNANCE", text, hint));
        }
        let unread = Unread::default();
        let wanted = Wanted { caller, event: Event::Delete, message, dry_run, files: &[], unread };
        let mut transaction = wanted.transaction();
        transaction.deletes = keys.to_vec();
        self.change(wanted, |_| Ok(transaction.clone())).await
    }

    /// Past transactions, newest first, and the oldest revision that can be rolled back to.
    pub async fn history(
        &self,
        caller: &Caller,
        resource: Option<&ResourceKey>,
        limit: usize,
    ) -> Result<(Vec<HistoryItem>, Revision), ControlError> {
        self.inner.group.read_barrier().await?;
        let state = self.inner.published.state.load_full();
        let limit = if limit == 0 { DEFAULT_HISTORY } else { limit };
        let mut items = Vec::new();
        for entry in state.history().iter().rev() {
            let mut entry = (**entry).clone();
            entry.changes.retain(|c| caller.may_see(&c.key) && resource.is_none_or(|k| *k == c.key));
            if entry.changes.is_empty() {
                continue;
            }
            let diff =
                |c: &provost_control_state::KeyChange| diff::of(&c.key, c.kind(), c.old.as_deref(), c.new.as_deref());
            let diffs = entry.changes.iter().map(diff).collect();
            items.push(HistoryItem { entry, diffs });
            if items.len() >= limit {
                break;
            }
        }
        Ok((items, state.compacted()))
    }

    /// Restores the state of an earlier revision by a new transaction. Credentials do not go
    /// back: revoked tokens stay revoked, secrets keep their present values, identity providers and certificate names
    /// stay as they are.
    pub async fn rollback(
        &self,
        caller: &Caller,
        to: Revision,
        message: &str,
        dry_run: bool,
    ) -> Result<ChangeReport, ControlError> {
        if let Scope::Tenant(own) = &caller.scope {
            let text = format!("a rollback concerns every tenant; {} administers {own}", caller.name);
            let hint = "apply the earlier documents instead";
            return Err(ControlError::new(ErrorKind::Forbidden, "PV-ADMIN-SCOPE", text, hint));
        }
        let message = if message.is_empty() { format!("rollback to {to}") } else { message.to_owned() };
        let unread = Unread::default();
        let wanted = Wanted { caller, event: Event::Rollback, message: &message, dry_run, files: &[], unread };
        let empty = wanted.transaction();
        self.change(wanted, |state| {
            let mut transaction = empty.clone();
            let hint = "`provost history` lists the revisions";
            (transaction.puts, transaction.deletes) =
                state.rollback(to).map_err(|e| ControlError::new(ErrorKind::Refused, e.code(), e.to_string(), hint))?;
            Ok(transaction)
        })
        .await
    }

    /// Seals a value and stores it; makes the `Secret` if there is none.
    pub async fn secret_set(
        &self,
        caller: &Caller,
        tenant: &Name,
        name: &Name,
        value: &[u8],
        message: &str,
    ) -> Result<ChangeReport, ControlError> {
        check_value(value)?;
        let key = ResourceKey { kind: Kind::Secret, tenant: Some(tenant.clone()), name: name.clone() };
        let unread = Unread::default();
        let wanted = Wanted { caller, event: Event::SecretSet, message, dry_run: false, files: &[], unread };
        let empty = wanted.transaction();
        self.change(wanted, |state| {
            let (metadata, mut spec) = match state.resources().get(&key).map(|r| (&r.metadata, &r.spec)) {
                Some((metadata, Spec::Secret(spec))) => (metadata.clone(), spec.clone()),
                _ => (metadata_of(&key), SecretSpec::default()),
            };
            let version = spec.sealed.as_ref().map_or(0, |s| s.version) + 1;
            let cluster = &self.inner.config.cluster;
            let sealed = self.inner.secrets.seal(cluster, state, &key, version, value);
            let (sealed, new_key) =
                sealed.map_err(|e| ControlError::new(ErrorKind::Internal, e.code(), e.to_string(), ""))?;
            spec.sealed = Some(sealed);
            let mut transaction = empty.clone();
            transaction.puts = vec![Draft { metadata, spec: Spec::Secret(spec) }];
            transaction.sealing_key = new_key;
            Ok(transaction)
        })
        .await
    }

    /// Makes a token of a principal and stores its hash as an `ApiKey`. `ttl` `None`: no end.
    pub async fn token_create(
        &self,
        caller: &Caller,
        tenant: &Name,
        principal: &Name,
        ttl: Option<Duration>,
        message: &str,
    ) -> Result<NewToken, ControlError> {
        let expires = ttl.map(expiry).transpose()?;
        let made = tokens::make().map_err(ControlError::internal)?;
        let name = Name::new(&format!("token-{}", made.id)).map_err(ControlError::internal)?;
        let key = ResourceKey { kind: Kind::ApiKey, tenant: Some(tenant.clone()), name };
        let spec =
            ApiKeySpec { principal: principal.clone(), hash: made.hash.to_hex().to_string(), expires: expires.clone() };
        let unread = Unread::default();
        let wanted = Wanted { caller, event: Event::TokenCreate, message, dry_run: false, files: &[], unread };
        let mut transaction = wanted.transaction();
        transaction.puts = vec![Draft { metadata: metadata_of(&key), spec: Spec::ApiKey(spec) }];
        let report = self.change(wanted, |_| Ok(transaction.clone())).await?;
        Ok(NewToken { token: made.text, key, expires, revision: report.revision })
    }
}

pub(crate) fn metadata_of(key: &ResourceKey) -> Metadata {
    let labels = BTreeMap::new();
    Metadata { name: key.name.clone(), tenant: key.tenant.clone(), labels }
}

/// Documents carry no sealed value: applying one keeps what was set.
fn keep_sealed(state: &State, draft: &mut Draft) {
    let stored = state.resources().get(&draft.key());
    if let (Spec::Secret(new), Some(Spec::Secret(old))) = (&mut draft.spec, stored.map(|r| &r.spec)) {
        new.sealed = old.sealed.clone();
    }
}

/// Definitions of a new upstream are pinned where its document does not say; one that was stored without a
/// choice stays as it was. Not before every control-plane node can read it.
pub(crate) fn choose_definitions(state: &State, draft: &mut Draft) {
    let stored = match state.resources().get(&draft.key()).map(|r| &r.spec) {
        Some(Spec::Plugin(stored)) => Some(stored.definitions),
        _ => None,
    };
    let is_readable = state.cluster().name().is_none() || state.cluster().version() >= DEFINITIONS_VERSION;
    if let Spec::Plugin(plugin) = &mut draft.spec
        && plugin.definitions.is_none()
        && !plugin.source.is_own()
        && stored != Some(None)
        && is_readable
    {
        plugin.definitions = Some(DefinitionPolicy::Pin);
    }
}

/// The process of a new stdio plugin is kept apart where its document does not say; one that was stored without a
/// choice stays as it was. Not before every control-plane node can read it.
fn choose_isolation(state: &State, draft: &mut Draft) {
    let stored = match state.resources().get(&draft.key()).map(|r| &r.spec) {
        Some(Spec::Plugin(PluginSpec { source: PluginSource::McpStdio(stored), .. })) => Some(&stored.isolation),
        _ => None,
    };
    let is_readable = state.cluster().name().is_none() || state.cluster().version() >= ISOLATION_VERSION;
    if let Spec::Plugin(PluginSpec { source: PluginSource::McpStdio(stdio), .. }) = &mut draft.spec
        && stdio.isolation.is_none()
        && stored != Some(&None)
        && is_readable
    {
        stdio.isolation = Some(Box::default());
    }
}

fn check_value(value: &[u8]) -> Result<(), ControlError> {
    let invalid = |text: String| ControlError::new(ErrorKind::Invalid, "PV-SECRET-VALUE", text, "nothing was changed");
    if value.is_empty() {
        return Err(invalid("the value is empty".to_owned()));
    }
    if value.len() > secrets::MAX_SECRET_BYTES {
        let limit = secrets::MAX_SECRET_BYTES;
        return Err(invalid(format!("the value has more than {limit} bytes")));
    }
    match std::str::from_utf8(value) {
        Ok(text) if !text.contains('\0') => Ok(()),
        _ => Err(invalid("the value is not text: headers and variables carry only text".to_owned())),
    }
}

fn expiry(ttl: Duration) -> Result<String, ControlError> {
    let invalid = || {
        let text = "a token lives between one second and ten years";
        ControlError::new(ErrorKind::Invalid, "PV-TOKEN-TTL", text, "")
    };
    if ttl < Duration::from_secs(1) || ttl > MAX_TOKEN_TTL {
        return Err(invalid());
    }
    // Whole seconds: a shorter text, and no token lives longer than asked for.
    let end = OffsetDateTime::now_utc().replace_nanosecond(0).map_err(ControlError::internal)? + ttl;
    end.format(&Rfc3339).map_err(ControlError::internal)
}
