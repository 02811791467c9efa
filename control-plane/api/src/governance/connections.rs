//! Connections of users with upstreams: kept for nodes, ended by administrators.
//!
//! Invariants: tokens are sealed before they are proposed, and are in no answer; what a connection is, a consent
//! and an administrator say, and each of both is in the history and recorded; that a node refreshes tokens is
//! neither (it would be most of what is there), but agreed on by all, so that one node does.

use std::collections::BTreeMap;

use provost_control_state::{Draft, Event, Keeping, MAX_CONNECTIONS, State, claim, takes};
use provost_types::{ConnectionSpec, Kind, Metadata, Name, Resource, ResourceKey, Revision, SealedSecret, Spec};
use provost_wire::governance::{self as wire, keep_connection_request::What};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use zeroize::Zeroizing;

use crate::{Caller, ControlError, ControlNode, ErrorKind, Scope, Unread, change::Wanted, record::now_ns};

/// Bytes of the tokens of one connection.
const MAX_TOKENS_BYTES: usize = 64 << 10;
/// A flow cannot have begun later than so long after now: clocks differ.
const MAX_AHEAD_NS: u64 = 300_000_000_000;
/// Characters of what a node says of an end.
const MAX_NOTE_CHARS: usize = 400;
/// Connections that one command ends.
const MAX_REVOKED: usize = 1_000;

/// Which connections; `None` takes all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OfConnections {
    /// Of this tenant.
    pub tenant: Option<Name>,
    /// Of this principal.
    pub principal: Option<Name>,
    /// With this plugin.
    pub plugin: Option<Name>,
}

impl OfConnections {
    fn fits(&self, tenant: Option<&Name>, spec: &ConnectionSpec) -> bool {
        self.tenant.as_ref().is_none_or(|wanted| Some(wanted) == tenant)
            && self.principal.as_ref().is_none_or(|wanted| *wanted == spec.principal)
            && self.plugin.as_ref().is_none_or(|wanted| *wanted == spec.plugin)
    }
}

/// What was ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// The state's revision.
    pub revision: Revision,
    /// Tenant, principal, plugin.
    pub connections: Vec<(Name, Name, Name)>,
}

/// One connection, by whose it is.
struct Whose {
    key: ResourceKey,
    principal: Name,
    plugin: Name,
}

impl Whose {
    fn new(tenant: Name, principal: Name, plugin: Name) -> Result<Self, ControlError> {
        // Names have no NUL. What is sealed is bound to this name, and so to both.
        let hash = blake3::hash(format!("{principal}\0{plugin}").as_bytes()).to_hex();
        let name = Name::new(&format!("c-{}", &hash[..40])).map_err(ControlError::internal)?;
        Ok(Self { key: ResourceKey { kind: Kind::Connection, tenant: Some(tenant), name }, principal, plugin })
    }

    fn now<'s>(&self, state: &'s State) -> Option<&'s ConnectionSpec> {
        match &state.resources().get(&self.key)?.spec {
            Spec::Connection(spec) => Some(spec),
            _ => None,
        }
    }

    fn draft(&self, spec: ConnectionSpec) -> Draft {
        let (name, tenant) = (self.key.name.clone(), self.key.tenant.clone());
        Draft { metadata: Metadata { name, tenant, labels: BTreeMap::new() }, spec: Spec::Connection(spec) }
    }
}

fn invalid(text: impl Into<String>) -> ControlError {
    ControlError::new(ErrorKind::Invalid, "PV-CONNECT-KEEP", text, "")
}

fn version(spec: Option<&ConnectionSpec>) -> u64 {
    spec.and_then(|spec| spec.sealed.as_ref()).map_or(0, |sealed| sealed.version)
}

fn keeping<'r>(node: &'r str, what: &'r What) -> Result<(Keeping<'r>, &'r [u8]), ControlError> {
    let (keeping, tokens) = match what {
        What::Made(made) if made.began_ns > now_ns().saturating_add(MAX_AHEAD_NS) => {
            return Err(invalid("the flow begins in the future; set the clocks"));
        }
        What::Made(made) => (Keeping::Made { began_ns: made.began_ns }, &made.tokens[..]),
        What::Claimed(version) => (Keeping::Claimed { version: *version, node }, &[][..]),
        What::Refreshed(got) => (Keeping::Refreshed { version: got.version }, &got.tokens[..]),
        What::Released(version) => (Keeping::Released { version: *version, node }, &[][..]),
        What::Ended(version) => (Keeping::Ended { version: *version }, &[][..]),
    };
    let needs_tokens = matches!(what, What::Made(_) | What::Refreshed(_));
    if tokens.len() > MAX_TOKENS_BYTES || tokens.is_empty() == needs_tokens {
        return Err(invalid(format!("{} bytes of tokens; 1 to {MAX_TOKENS_BYTES} are kept", tokens.len())));
    }
    Ok((keeping, tokens))
}

impl ControlNode {
    /// Keeps what a node has of a connection, unless the connection is another by now.
    pub async fn keep_connection(
        &self,
        request: wire::KeepConnectionRequest,
    ) -> Result<wire::KeptConnectionResponse, ControlError> {
        let wire::KeepConnectionRequest { node, tenant, principal, plugin, what, note } = request;
        let what = what.ok_or_else(|| invalid("nothing is to be kept"))?;
        let name = |text: &str| Name::new(text).map_err(|e| invalid(e.to_string()));
        let whose = Whose::new(name(&tenant)?, name(&principal)?, name(&plugin)?)?;
        let (keeping, tokens) = keeping(&node, &what)?;
        let tokens = Zeroizing::new(tokens.to_vec());
        let event = match &what {
            What::Made(_) => Event::ConnectionMade,
            What::Ended(_) => Event::ConnectionEnded,
            What::Claimed(_) | What::Refreshed(_) | What::Released(_) => Event::ConnectionKept,
        };
        let mut message = format!("principal {principal}, plugin {plugin}");
        if matches!(what, What::Ended(_)) && !note.is_empty() {
            message.push_str(": ");
            message.extend(note.chars().filter(|c| !c.is_control()).take(MAX_NOTE_CHARS));
        }
        let caller = Caller {
            name: format!("node {node}"),
            scope: Scope::Cluster,
            authenticated_by: "node".to_owned(),
            address: None,
        };
        let since = OffsetDateTime::now_utc().replace_nanosecond(0).map_err(ControlError::internal)?;
        let since = since.format(&Rfc3339).map_err(ControlError::internal)?;
        let wanted =
            Wanted { caller: &caller, event, message: &message, dry_run: false, files: &[], unread: Unread::default() };
        let empty = wanted.transaction();
        let overtaken = |state: &State| !takes(whose.now(state), keeping, empty.time_ns);
        // As fresh as the answer is: who loses here waits for what won.
        self.inner.group.read_barrier().await?;
        let state = self.inner.published.state.load_full();
        if overtaken(&state) {
            let version = version(whose.now(&state));
            return Ok(wire::KeptConnectionResponse { revision: state.revision().0, taken: false, version });
        }
        let report = self
            .change(wanted, |state| {
                let now = whose.now(state);
                let mut transaction = empty.clone();
                if overtaken(state) {
                    // It lost meanwhile: nothing is changed, and the version says so.
                    return Ok(transaction);
                }
                let seal = |transaction: &mut provost_control_state::Transaction| {
                    // Also after a connection that was ended: none of its versions comes again.
                    let version = version(now).max(state.revision().0) + 1;
                    let cluster = &self.inner.config.cluster;
                    let sealed = self.inner.secrets.seal(cluster, state, &whose.key, version, &tokens);
                    let (sealed, new_key) =
                        sealed.map_err(|e| ControlError::new(ErrorKind::Internal, e.code(), e.to_string(), ""))?;
                    transaction.sealing_key = new_key;
                    Ok::<SealedSecret, ControlError>(sealed)
                };
                let spec = match (&what, now) {
                    (What::Made(made), now) => {
                        if now.is_none() {
                            check_room(state, &whose)?;
                        }
                        ConnectionSpec {
                            principal: whose.principal.clone(),
                            plugin: whose.plugin.clone(),
                            authority: made.authority.clone(),
                            scope: made.scope.clone(),
                            since: since.clone(),
                            began_ns: made.began_ns,
                            claim: None,
                            sealed: Some(seal(&mut transaction)?),
                        }
                    }
                    (What::Refreshed(got), Some(now)) => {
                        let scope = if got.scope.is_empty() { now.scope.clone() } else { got.scope.clone() };
                        let sealed = Some(seal(&mut transaction)?);
                        ConnectionSpec { scope, claim: None, sealed, ..now.clone() }
                    }
                    (What::Claimed(_), Some(now)) => {
                        ConnectionSpec { claim: Some(claim(&node, empty.time_ns)), ..now.clone() }
                    }
                    (What::Released(_), Some(now)) => ConnectionSpec { claim: None, ..now.clone() },
                    _ => {
                        transaction.deletes = vec![whose.key.clone()];
                        return Ok(transaction);
                    }
                };
                transaction.puts = vec![whose.draft(spec)];
                Ok(transaction)
            })
            .await?;
        let state = self.inner.published.state.load_full();
        let version = version(whose.now(&state));
        Ok(wire::KeptConnectionResponse { revision: report.revision.0, taken: !report.diffs.is_empty(), version })
    }

    /// Ends connections: their tokens are forgotten, and who calls is asked again.
    pub async fn revoke_connections(
        &self,
        caller: &Caller,
        of: &OfConnections,
        reason: &str,
    ) -> Result<Revoked, ControlError> {
        if of.principal.is_none() && of.plugin.is_none() {
            let hint = "give --principal, --plugin, or both";
            return Err(ControlError::new(ErrorKind::Invalid, "PV-CONNECT-WHICH", "which connections?", hint));
        }
        self.inner.group.read_barrier().await?;
        let found = |state: &State| -> Vec<ResourceKey> {
            let fits = |resource: &Resource| match &resource.spec {
                Spec::Connection(spec) => of.fits(resource.metadata.tenant.as_ref(), spec),
                _ => false,
            };
            let all = state.resources().iter().filter(|(key, r)| caller.may_change(key) && fits(r));
            all.map(|(key, _)| key.clone()).take(MAX_REVOKED).collect()
        };
        let state = self.inner.published.state.load_full();
        let keys = found(&state);
        let whose = |key: &ResourceKey| match &state.resources().get(key)?.spec {
            Spec::Connection(spec) => Some((key.tenant.clone()?, spec.principal.clone(), spec.plugin.clone())),
            _ => None,
        };
        let connections: Vec<_> = keys.iter().filter_map(whose).collect();
        if keys.is_empty() {
            return Ok(Revoked { revision: state.revision(), connections });
        }
        let message = match reason.trim() {
            "" => "revoked".to_owned(),
            reason => format!("revoked: {reason}"),
        };
        let (event, unread) = (Event::ConnectionEnded, Unread::default());
        let wanted = Wanted { caller, event, message: &message, dry_run: false, files: &[], unread };
        let empty = wanted.transaction();
        let report = self
            .change(wanted, |state| {
                let mut transaction = empty.clone();
                transaction.deletes = found(state);
                Ok(transaction)
            })
            .await?;
        Ok(Revoked { revision: report.revision, connections })
    }
}

fn check_room(state: &State, whose: &Whose) -> Result<(), ControlError> {
    let of_tenant = |key: &&ResourceKey| key.kind == Kind::Connection && key.tenant == whose.key.tenant;
    let from = ResourceKey { name: Name::smallest(), ..whose.key.clone() };
    let count = state.resources().range(from..).map(|(key, _)| key).take_while(of_tenant).count();
    if count < MAX_CONNECTIONS {
        return Ok(());
    }
    let text = format!("the tenant has {MAX_CONNECTIONS} connections already");
    Err(ControlError::new(ErrorKind::Refused, "PV-CONNECT-KEEP", text, "revoke those that nobody needs"))
}
