//! Pins of tool definitions: reported by nodes, approved and quarantined by administrators.
//!
//! A report is a change like any other: the first one that is applied wins, and a report that loses is made
//! again from the state that beat it. Nothing waits for a staged release.

use std::collections::BTreeMap;

use provost_control_state::{Draft, Event, Seen, State, approve, see, unknown_tool};
use provost_types::{
    DefinitionPolicy, Kind, Metadata, Name, PinnedDefinition, Quarantine, ResourceKey, Revision, Spec, ToolPinsSpec,
};
use provost_wire::governance as wire;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::near;
use crate::{Caller, ControlError, ControlNode, ErrorKind, Scope, Unread, change::Wanted};

/// Tools of one report.
const MAX_REPORTED: usize = 4_096;
/// Names that a message lists.
const MAX_LISTED: usize = 10;

/// What was approved or quarantined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Governed {
    /// The state's revision.
    pub revision: Revision,
    /// The tools that it concerned; `*`: all of the plugin.
    pub tools: Vec<String>,
}

/// Which tools of which plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolsOf {
    /// The plugin's tenant.
    pub tenant: Name,
    /// The plugin.
    pub plugin: Name,
    /// The tool; `None`: all.
    pub tool: Option<String>,
}

impl ToolsOf {
    fn key(&self, kind: Kind) -> ResourceKey {
        ResourceKey { kind, tenant: Some(self.tenant.clone()), name: self.plugin.clone() }
    }

    fn draft(&self, spec: ToolPinsSpec) -> Draft {
        let (name, tenant) = (self.plugin.clone(), Some(self.tenant.clone()));
        Draft { metadata: Metadata { name, tenant, labels: BTreeMap::new() }, spec: Spec::ToolPins(spec) }
    }

    fn pins(&self, state: &State) -> ToolPinsSpec {
        match state.resources().get(&self.key(Kind::ToolPins)).map(|r| &r.spec) {
            Some(Spec::ToolPins(spec)) => spec.clone(),
            _ => ToolPinsSpec::default(),
        }
    }

    /// The plugin's policy; an error where there is no plugin.
    fn policy(&self, state: &State) -> Result<DefinitionPolicy, ControlError> {
        match state.resources().get(&self.key(Kind::Plugin)).map(|r| &r.spec) {
            Some(Spec::Plugin(spec)) => Ok(spec.definitions.unwrap_or_default()),
            _ => {
                let of_tenant =
                    |key: &&ResourceKey| key.kind == Kind::Plugin && key.tenant.as_ref() == Some(&self.tenant);
                let known = state.resources().keys().filter(of_tenant).map(|key| key.name.as_str());
                let near = near::hint(self.plugin.as_str(), known);
                let hint = if near.is_empty() { "`provost plugin list` lists what exists".to_owned() } else { near };
                let text = format!("tenant {} has no plugin {}", self.tenant, self.plugin);
                Err(ControlError::new(ErrorKind::NotFound, "PV-RES-NOT-FOUND", text, hint))
            }
        }
    }

    fn check_tool(&self, pins: &ToolPinsSpec) -> Result<(), ControlError> {
        match &self.tool {
            Some(tool) if !pins.tools.contains_key(tool) => {
                let problem = unknown_tool(self.plugin.as_str(), tool);
                let near = near::hint(tool, pins.tools.keys().map(String::as_str));
                let hint = if near.is_empty() { problem.hint.clone() } else { near };
                Err(ControlError::new(ErrorKind::NotFound, &problem.code, problem.message, hint))
            }
            _ => Ok(()),
        }
    }
}

fn now() -> Result<String, ControlError> {
    let now = OffsetDateTime::now_utc().replace_nanosecond(0).map_err(ControlError::internal)?;
    now.format(&Rfc3339).map_err(ControlError::internal)
}

fn listed(names: &[String]) -> String {
    let shown = names.iter().take(MAX_LISTED).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(MAX_LISTED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

impl ControlNode {
    /// Takes in definitions that a node saw. What is known already changes nothing.
    pub async fn report_definitions(
        &self,
        request: wire::ReportDefinitionsRequest,
    ) -> Result<wire::ReportDefinitionsResponse, ControlError> {
        let invalid = |text: String| ControlError::new(ErrorKind::Invalid, "PV-PLUGIN-REPORT", text, "");
        let wire::ReportDefinitionsRequest { node, tenant, plugin, tools } = request;
        if tools.is_empty() || tools.len() > MAX_REPORTED {
            return Err(invalid(format!("{} tools; a report has 1 to {MAX_REPORTED}", tools.len())));
        }
        let name = |text: &str| Name::new(text).map_err(|e| invalid(e.to_string()));
        let of = ToolsOf { tenant: name(&tenant)?, plugin: name(&plugin)?, tool: None };
        let since = now()?;
        let take = |state: &State| -> Result<(ToolPinsSpec, Vec<String>, Vec<String>), ControlError> {
            let (policy, mut spec) = (of.policy(state)?, of.pins(state));
            let (mut pinned, mut waits) = (Vec::new(), Vec::new());
            for tool in &tools {
                let seen = PinnedDefinition {
                    hash: tool.hash.clone(),
                    since: since.clone(),
                    by: format!("node {node}"),
                    definition: tool.definition.clone(),
                    warnings: tool.warnings.clone(),
                };
                match see(&mut spec, policy, &tool.name, seen) {
                    Seen::Known => {}
                    Seen::Pinned => pinned.push(tool.name.clone()),
                    Seen::Waits => waits.push(tool.name.clone()),
                }
            }
            Ok((spec, pinned, waits))
        };
        let state = self.inner.published.state.load_full();
        let (_, pinned, waits) = take(&state)?;
        if pinned.is_empty() && waits.is_empty() {
            return Ok(wire::ReportDefinitionsResponse { revision: state.revision().0 });
        }
        let mut parts = Vec::new();
        for (tools, what) in [(&pinned, "pinned"), (&waits, "waits for approval")] {
            if !tools.is_empty() {
                parts.push(format!("{what}: {}", listed(tools)));
            }
        }
        let message = format!("plugin {}: {}", of.plugin, parts.join("; "));
        let caller = Caller {
            name: format!("node {node}"),
            scope: Scope::Cluster,
            authenticated_by: "node".to_owned(),
            address: None,
        };
        let (event, unread) = (Event::DefinitionsSeen, Unread::default());
        let wanted = Wanted { caller: &caller, event, message: &message, dry_run: false, files: &[], unread };
        let empty = wanted.transaction();
        let report = self
            .change(wanted, |state| {
                let mut transaction = empty.clone();
                transaction.puts = vec![of.draft(take(state)?.0)];
                Ok(transaction)
            })
            .await?;
        if !waits.is_empty() {
            let (tenant, plugin) = (of.tenant.as_str(), of.plugin.as_str());
            tracing::warn!(code = "PV-TOOL-QUARANTINED", tenant, plugin, "waits for approval: {}", listed(&waits));
        }
        Ok(wire::ReportDefinitionsResponse { revision: report.revision.0 })
    }

    /// Approves the definitions that wait, and ends quarantines.
    pub async fn plugin_approve(&self, caller: &Caller, of: &ToolsOf, reason: &str) -> Result<Governed, ControlError> {
        let (now, tool) = (now()?, of.tool.as_deref());
        let make = |spec: &mut ToolPinsSpec| approve(spec, tool, &caller.name, &now);
        self.govern(caller, of, (Event::DefinitionsApproved, "approved", reason), make).await
    }

    /// Takes a tool, or all tools of a plugin, out of use.
    pub async fn plugin_quarantine(
        &self,
        caller: &Caller,
        of: &ToolsOf,
        reason: &str,
    ) -> Result<Governed, ControlError> {
        if reason.trim().is_empty() {
            let hint = "say why with --reason: callers are told, and the log";
            let text = "a quarantine without a reason";
            return Err(ControlError::new(ErrorKind::Invalid, "PV-PLUGIN-REASON", text, hint));
        }
        let mark = Quarantine { reason: reason.trim().to_owned(), by: caller.name.clone(), since: now()? };
        let make = |spec: &mut ToolPinsSpec| {
            let (place, name) = match &of.tool {
                Some(tool) => (&mut spec.tools.entry(tool.clone()).or_default().quarantined, tool.as_str()),
                None => (&mut spec.quarantined, "*"),
            };
            if place.as_ref().is_some_and(|before| before.reason == mark.reason) {
                return Vec::new();
            }
            *place = Some(mark.clone());
            vec![name.to_owned()]
        };
        self.govern(caller, of, (Event::ToolsQuarantined, "quarantined", reason), make).await
    }

    async fn govern(
        &self,
        caller: &Caller,
        of: &ToolsOf,
        (event, what, reason): (Event, &str, &str),
        make: impl Fn(&mut ToolPinsSpec) -> Vec<String>,
    ) -> Result<Governed, ControlError> {
        if !caller.may_change(&of.key(Kind::ToolPins)) {
            let text = format!("{} does not administer tenant {}", caller.name, of.tenant);
            return Err(ControlError::new(ErrorKind::Forbidden, "PV-ADMIN-SCOPE", text, "ask a cluster administrator"));
        }
        self.inner.group.read_barrier().await?;
        let state = self.inner.published.state.load_full();
        let plan = |state: &State| -> Result<(ToolPinsSpec, Vec<String>), ControlError> {
            of.policy(state)?;
            let mut spec = of.pins(state);
            of.check_tool(&spec)?;
            let tools = make(&mut spec);
            Ok((spec, tools))
        };
        let (_, tools) = plan(&state)?;
        if tools.is_empty() {
            return Ok(Governed { revision: state.revision(), tools });
        }
        let message = match reason.trim() {
            "" => format!("plugin {}: {what} {}", of.plugin, listed(&tools)),
            reason => format!("plugin {}: {what} {}: {reason}", of.plugin, listed(&tools)),
        };
        let unread = Unread::default();
        let wanted = Wanted { caller, event, message: &message, dry_run: false, files: &[], unread };
        let empty = wanted.transaction();
        let report = self
            .change(wanted, |state| {
                let mut transaction = empty.clone();
                transaction.puts = vec![of.draft(plan(state)?.0)];
                Ok(transaction)
            })
            .await?;
        Ok(Governed { revision: report.revision, tools })
    }
}
