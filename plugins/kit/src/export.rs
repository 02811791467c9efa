//! From a [`Plugin`] to the exports of a component.

use crate::{
    Call, Plugin,
    bindings::{
        exports::provost::plugin::tools::Guest,
        provost::plugin::{
            host,
            types::{CallContext, CallError, Outcome, Tool},
        },
    },
    config,
};

/// What [`crate::export!`] implements.
pub trait Exported {
    /// The plugin.
    fn plugin() -> Plugin;
}

/// Makes the component of a function that gives a [`Plugin`]. Once a crate, and the crate is a `cdylib`.
#[macro_export]
macro_rules! export {
    ($plugin:path) => {
        #[doc(hidden)]
        struct ProvostExport;
        impl $crate::Exported for ProvostExport {
            fn plugin() -> $crate::Plugin {
                $plugin()
            }
        }
        // Elsewhere there is nobody to export to, and tests run there.
        #[cfg(target_family = "wasm")]
        $crate::bindings::export_component!(ProvostExport with_types_in $crate::bindings);
        #[cfg(not(target_family = "wasm"))]
        const _: fn() -> $crate::Plugin = <ProvostExport as $crate::Exported>::plugin;
    };
}

impl<T: Exported> Guest for T {
    fn config_schema() -> Option<String> {
        T::plugin().config.map(|config| (config.schema)())
    }

    fn configure(text: String) -> Result<(), String> {
        let Some(ty) = T::plugin().config else { return Err("it takes no configuration".to_owned()) };
        (ty.check)(&text)?;
        config::keep(text);
        Ok(())
    }

    fn list_tools() -> Vec<Tool> {
        T::plugin().tools.iter().map(crate::Tool::definition).collect()
    }

    fn call_tool(context: CallContext, name: String, arguments: String) -> Result<Outcome, CallError> {
        // A crash says nothing to the host but that there was one.
        std::panic::set_hook(Box::new(|panic| host::log(host::Level::Error, &panic.to_string())));
        let plugin = T::plugin();
        let tool = plugin.tools.iter().find(|tool| tool.name == name).ok_or(CallError::UnknownTool)?;
        tool.run(&Call::new(context), &arguments)
    }
}
