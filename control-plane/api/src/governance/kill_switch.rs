//! Switching calls off and on.
//!
//! A switch is a resource that only these operations make and remove. Its name follows from what it covers,
//! so switching on twice is one switch. A switch that an administrator of the cluster made is not for a
//! tenant's administrator to remove, although it may be of that tenant.

use std::sync::Arc;

use provost_control_state::{Draft, Event, State};
use provost_types::{KillSwitchSpec, Kind, Metadata, Name, Resource, ResourceKey, Revision, Spec};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{kill_scope, near};
use crate::{Caller, ControlError, ControlNode, ErrorKind, Scope, Unread, change::Wanted};

/// Which calls: those that fit everything that is named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// Of this tenant; `None`: of every one.
    pub tenant: Option<Name>,
    /// Served by this plugin.
    pub plugin: Option<Name>,
    /// Of this tool, `plugin.tool`; `*` ends a prefix.
    pub tool: Option<String>,
    /// By this principal.
    pub principal: Option<Name>,
}

/// What was switched, and what is on.
#[derive(Clone, Debug, PartialEq)]
pub struct Switched {
    /// The state's revision.
    pub revision: Revision,
    /// Whether anything changed.
    pub changed: bool,
    /// What was switched on or off.
    pub switched: Vec<Arc<Resource>>,
    /// What is on now, as far as the caller may see it.
    pub active: Vec<Arc<Resource>>,
}

impl Selector {
    /// Whether it names nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// A tenant's administrator means its own tenant.
    fn within(mut self, caller: &Caller) -> Self {
        if let Scope::Tenant(own) = &caller.scope {
            self.tenant.get_or_insert_with(|| own.clone());
        }
        self
    }

    fn spec(&self) -> KillSwitchSpec {
        let Self { plugin, tool, principal, .. } = self.clone();
        KillSwitchSpec { plugin, tool, principal, ..KillSwitchSpec::default() }
    }

    /// The resource that a switch of these calls is.
    fn key(&self) -> Result<ResourceKey, ControlError> {
        let spec = self.spec();
        let name = if spec.covers_same(&KillSwitchSpec::default()) {
            "all".to_owned()
        } else {
            let digest = blake3::hash(spec.scope(None).as_bytes()).to_hex();
            format!("calls-{}", &digest.as_str()[..16])
        };
        let name = Name::new(&name).map_err(ControlError::internal)?;
        Ok(ResourceKey { kind: Kind::KillSwitch, tenant: self.tenant.clone(), name })
    }

    /// Where a plugin's tools were seen, the tool must be one of them.
    fn check_pinned(&self, state: &State, tool: &str) -> Result<(), ControlError> {
        let prefix = tool.strip_suffix('*');
        let (mut known, mut fits) = (Vec::new(), false);
        for (key, resource) in state.resources() {
            let Spec::ToolPins(pins) = &resource.spec else { continue };
            if self.tenant.is_some() && key.tenant != self.tenant {
                continue;
            }
            let names = pins.tools.keys().map(|own| format!("{}.{own}", key.name));
            let names: Vec<String> = names.collect();
            let own = format!("{}.", key.name);
            if !tool.starts_with(&own) && !prefix.is_some_and(|prefix| own.starts_with(prefix)) {
                continue;
            }
            fits |= names.iter().any(|name| name == tool || prefix.is_some_and(|prefix| name.starts_with(prefix)));
            known.extend(names);
        }
        if fits || known.is_empty() {
            return Ok(());
        }
        Err(unknown("tool", tool, near::hint(tool, known.iter().map(String::as_str))))
    }

    /// Refuses names that nothing has: a switch that covers nothing is thought to be one.
    fn check_known(&self, state: &State) -> Result<(), ControlError> {
        let of = |kind: Kind| {
            let inside = move |key: &&ResourceKey| {
                key.kind == kind && (kind == Kind::Tenant || self.tenant.is_none() || key.tenant == self.tenant)
            };
            state.resources().keys().filter(inside).map(|key| key.name.as_str())
        };
        for (kind, name) in
            [(Kind::Tenant, &self.tenant), (Kind::Plugin, &self.plugin), (Kind::Principal, &self.principal)]
        {
            if let Some(name) = name
                && !of(kind).any(|known| known == name.as_str())
            {
                return Err(unknown(kind.as_str(), name.as_str(), near::hint(name.as_str(), of(kind))));
            }
        }
        let Some(tool) = &self.tool else { return Ok(()) };
        // Which tools a plugin has is for its upstream to say, and that may be away: its name must fit.
        let begins = |plugin: &str| tool.strip_prefix(plugin).is_some_and(|rest| rest.starts_with('.'));
        let prefix = tool.strip_suffix('*');
        let may_begin = |plugin: &str| prefix.is_some_and(|prefix| format!("{plugin}.").starts_with(prefix));
        if of(Kind::Plugin).any(|plugin| begins(plugin) || may_begin(plugin)) {
            return self.check_pinned(state, tool);
        }
        if of(Kind::ToolAlias).any(|alias| alias == tool) {
            return Ok(());
        }
        let plugin = tool.split('.').next().unwrap_or_default();
        let near = near::hint(plugin, of(Kind::Plugin));
        Err(unknown("tool", tool, if near.is_empty() { near } else { format!("a tool is named plugin.tool: {near}") }))
    }

    /// Refuses names that no call has together.
    fn check_fits(&self, state: &State) -> Result<(), ControlError> {
        let Some(why) = kill_scope::stops_nothing(self, state) else { return Ok(()) };
        let text = format!("{why}: the switch would stop nothing");
        let hint = "name less, or make two switches; `--force` makes it all the same";
        Err(ControlError::new(ErrorKind::Invalid, "PV-KILL-NOTHING", text, hint))
    }
}

fn unknown(what: &str, name: &str, near: String) -> ControlError {
    let text = format!("there is no {} {name}", what.to_lowercase());
    let hint = "`--force` switches it off all the same".to_owned();
    let hint = if near.is_empty() { hint } else { format!("{near} {hint}") };
    ControlError::new(ErrorKind::NotFound, "PV-KILL-UNKNOWN", text, hint)
}

fn unclear(text: &str, hint: &str) -> ControlError {
    ControlError::new(ErrorKind::Invalid, "PV-KILL-SELECTOR", text, hint)
}

impl ControlNode {
    /// Stops calls: on every node at once, those that run too. `everything`: the selector names nothing, or
    /// nothing but a tenant's own administrator's reach, on purpose.
    pub async fn kill_switch_on(
        &self,
        caller: &Caller,
        selector: Selector,
        (everything, force): (bool, bool),
        reason: &str,
    ) -> Result<Switched, ControlError> {
        if selector.is_empty() != everything {
            let hint = "name a tenant, plugin, tool or principal, or give --all alone for every call";
            return Err(unclear("which calls are to be stopped is not clear", hint));
        }
        if reason.trim().is_empty() {
            return Err(unclear("a switch without a reason", "say why with --reason: callers are told, and the log"));
        }
        let selector = selector.within(caller);
        let key = selector.key()?;
        let since = OffsetDateTime::now_utc().replace_nanosecond(0).map_err(ControlError::internal)?;
        let spec = KillSwitchSpec {
            reason: reason.trim().to_owned(),
            by: caller.name.clone(),
            since: since.format(&Rfc3339).map_err(ControlError::internal)?,
            by_cluster: caller.scope == Scope::Cluster,
            ..selector.spec()
        };
        let message = format!("{}: {}", spec.scope(key.tenant.as_ref()), spec.reason);
        let (event, unread) = (Event::KillSwitchOn, Unread::default());
        let wanted = Wanted { caller, event, message: &message, dry_run: false, files: &[], unread };
        let empty = wanted.transaction();
        let report = self
            .change(wanted, |state| {
                if !force {
                    selector.check_known(state)?;
                    selector.check_fits(state)?;
                }
                let mut spec = spec.clone();
                if let Some(before) = switch_at(state, &key) {
                    spec.since.clone_from(&before.since);
                    spec.by_cluster |= before.by_cluster;
                    if before.reason == spec.reason {
                        spec.by.clone_from(&before.by);
                    }
                }
                let metadata =
                    Metadata { name: key.name.clone(), tenant: key.tenant.clone(), labels: Default::default() };
                let mut transaction = empty.clone();
                transaction.puts = vec![Draft { metadata, spec: Spec::KillSwitch(spec) }];
                Ok(transaction)
            })
            .await?;
        let (_, active) = self.kill_switches(caller).await?;
        let switched = active.iter().filter(|switch| switch.key() == key).cloned().collect();
        let changed = report.diffs.iter().any(|d| d.kind != provost_control_state::ChangeKind::Unchanged);
        Ok(Switched { revision: report.revision, changed, switched, active })
    }

    /// Lets calls through again: those of this very switch, or (`None`) of every switch that is the
    /// caller's to remove.
    pub async fn kill_switch_off(
        &self,
        caller: &Caller,
        selector: Option<Selector>,
        reason: &str,
    ) -> Result<Switched, ControlError> {
        if selector.as_ref().is_some_and(Selector::is_empty) {
            let hint = "name what was switched off, as `provost kill-switch status` shows it, or give --all";
            return Err(unclear("which switch is meant is not clear", hint));
        }
        let one = selector.map(|selector| selector.within(caller).key()).transpose()?;
        let (_, before) = self.kill_switches(caller).await?;
        let meant = before.into_iter().filter(|switch| one.as_ref().is_none_or(|key| switch.key() == *key));
        let switched: Vec<Arc<Resource>> = meant.collect();
        if let Some(foreign) = switched.iter().find(|switch| caller.scope != Scope::Cluster && by_cluster(switch)) {
            let text = format!("{} was switched off by an administrator of the cluster", foreign.key());
            let hint = "ask a cluster administrator";
            return Err(ControlError::new(ErrorKind::Forbidden, "PV-ADMIN-SCOPE", text, hint));
        }
        let scopes: Vec<String> = switched.iter().map(|switch| scope(switch)).collect();
        let message = match reason.trim() {
            "" => scopes.join("; "),
            reason => format!("{}: {reason}", scopes.join("; ")),
        };
        let message = &message[..message.floor_char_boundary(provost_control_state::MAX_MESSAGE_BYTES)];
        let unread = Unread::default();
        let wanted = Wanted { caller, event: Event::KillSwitchOff, message, dry_run: false, files: &[], unread };
        let mut transaction = wanted.transaction();
        transaction.deletes = switched.iter().map(|switch| switch.key()).collect();
        if !switched.is_empty() {
            self.change(wanted, |state| {
                let mut transaction = transaction.clone();
                // Somebody else may have been quicker.
                transaction.deletes.retain(|key| state.resources().contains_key(key));
                Ok(transaction)
            })
            .await?;
        }
        let (revision, active) = self.kill_switches(caller).await?;
        Ok(Switched { revision, changed: !switched.is_empty(), switched, active })
    }

    /// The switches that are on and that the caller may see; of those that reach into every tenant all.
    pub async fn kill_switches(&self, caller: &Caller) -> Result<(Revision, Vec<Arc<Resource>>), ControlError> {
        self.inner.group.read_barrier().await?;
        let state = self.inner.published.state.load_full();
        let seen = |resource: &Resource| match (&caller.scope, &resource.metadata.tenant) {
            (Scope::Cluster, _) => true,
            (Scope::Tenant(own), Some(tenant)) => own == tenant,
            (Scope::Tenant(_), None) => false,
        };
        let snapshot = state.snapshot();
        let found = snapshot.of_kind(Kind::KillSwitch).filter(|resource| seen(resource)).cloned().collect();
        Ok((state.revision(), found))
    }
}

fn switch_at<'a>(state: &'a State, key: &ResourceKey) -> Option<&'a KillSwitchSpec> {
    match &state.resources().get(key)?.spec {
        Spec::KillSwitch(spec) => Some(spec),
        _ => None,
    }
}

fn by_cluster(resource: &Resource) -> bool {
    matches!(&resource.spec, Spec::KillSwitch(spec) if spec.by_cluster)
}

/// What a switch covers, in words.
pub(super) fn scope(resource: &Resource) -> String {
    match &resource.spec {
        Spec::KillSwitch(spec) => spec.scope(resource.metadata.tenant.as_ref()),
        _ => resource.key().to_string(),
    }
}
