//! The input schemas that the front end checks `Mcp-Param-…` headers against.

use provost_data_pipeline::{Credential, Route};
use provost_data_tools::{ListKind, names};
use provost_mcp::RawJson;
use provost_types::{Action, Name};

use super::plane::Node;
use crate::ToolSchemas;

impl ToolSchemas for Node {
    fn input_schema(&self, credential: &Credential, route: &Route, tool: &str) -> Option<RawJson> {
        let compiled = self.compiled();
        let caller = self.caller(&compiled, credential, route).ok()?;
        let tenant = &caller.principal.tenant;
        let exists = |text: &str| self.toolbox.plugin(tenant, text).is_some();
        let (plugin, local) = match route {
            Route::Plugin(plugin) => (plugin.as_str(), tool),
            Route::Merged => names::split(tool, exists)?,
        };
        let plugin_name = Name::new(plugin).ok()?;
        let tools = self.toolbox.plugin(tenant, plugin)?.at_hand(ListKind::Tools);
        // First: hardly any schema asks for such a header, and what is not told need not be asked for.
        let definition = tools.named(local).filter(|definition| definition.mirrors_arguments())?;
        let full = names::join(&plugin_name, local);
        if !self.may_see(&compiled, &caller, (Action::CallTool, Some(plugin), &full)) {
            return None;
        }
        definition.raw.member("inputSchema")
    }
}
