//! Tools whose definition nobody approved: hidden from lists, and refused.

use std::sync::Arc;

use provost_data_pipeline::{Call, Operation, Rejection, RejectionKind, Resolved};
use provost_data_tools::{Definitions, Plugin};
use provost_types::Name;

use super::{compiled::Compiled, plane::Node};
use crate::definitions::Verdict;

impl Node {
    /// What becomes of each of these tools of a plugin, by the list that was fetched just now or seen last.
    fn verdicts<'t>(
        &self,
        compiled: &Compiled,
        plugin: &Plugin,
        definitions: Option<&Definitions>,
        tools: impl IntoIterator<Item = &'t str>,
    ) -> Vec<Verdict> {
        let (tenant, name) = (plugin.tenant(), plugin.name());
        let Some(pins) = compiled.pins.of(tenant, name) else {
            return tools.into_iter().map(|_| Verdict::Served).collect();
        };
        let place = (tenant, name, plugin.digest());
        self.definitions.judge(place, (pins, &self.toolbox), definitions, tools)
    }

    /// The tools of a list that are served.
    pub(super) fn served(&self, compiled: &Compiled, plugin: &Plugin, definitions: Definitions) -> Definitions {
        let names = definitions.iter().map(|definition| definition.name.as_str());
        let verdicts = self.verdicts(compiled, plugin, Some(&definitions), names);
        if verdicts.iter().all(|verdict| *verdict == Verdict::Served) {
            return definitions;
        }
        let served = definitions.iter().zip(&verdicts).filter(|(_, verdict)| **verdict == Verdict::Served);
        Arc::new(served.map(|(definition, _)| definition.clone()).collect())
    }

    /// Whether a tool is served.
    pub(super) fn is_served(
        &self,
        compiled: &Compiled,
        tenant: &Name,
        plugin: &Name,
        tool: &str,
    ) -> Result<(), String> {
        if compiled.pins.of(tenant, plugin).is_none() {
            return Ok(());
        }
        let Some(plugin) = self.toolbox.plugin(tenant, plugin.as_str()) else { return Ok(()) };
        match self.verdicts(compiled, &plugin, None, [tool]).pop() {
            Some(Verdict::Quarantined(why)) => Err(why),
            _ => Ok(()),
        }
    }

    /// Takes a list in that was fetched for a call: the call is judged by it.
    pub(super) fn note_tools(&self, compiled: &Compiled, plugin: &Plugin, definitions: &Definitions) {
        self.verdicts(compiled, plugin, Some(definitions), []);
    }

    /// Refuses a call of a tool that is not served.
    pub(super) fn check_definition(&self, compiled: &Compiled, call: &Call<Resolved>) -> Result<(), Rejection> {
        let Operation::CallTool(_) = &call.request().operation else { return Ok(()) };
        let (target, tenant) = (call.target(), &call.caller().principal.tenant);
        let Some(plugin) = &target.plugin else { return Ok(()) };
        self.is_served(compiled, tenant, plugin, &target.local).map_err(|why| {
            let text = format!("{} is quarantined: {why}", target.full);
            Rejection::new(RejectionKind::Denied, "PV-TOOL-QUARANTINED", text)
        })
    }
}
