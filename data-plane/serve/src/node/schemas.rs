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
        // Hardly any schema asks for such a header. Of the whole list, and the tool itself only where the caller may see it: to
        // a tool that the caller may not see, the answer must take no longer than to one that is not there.
        if !tools.mirrors_arguments() {
            return None;
        }
        let full = names::join(&plugin_name, local);
        if !self.may_see(&compiled, &caller, (Action::CallTool, Some(plugin), &full)) {
            return None;
        }
        let definition = tools.named(local).filter(|definition| definition.mirrors_arguments())?;
        definition.raw.member("inputSchema")
    }
}
