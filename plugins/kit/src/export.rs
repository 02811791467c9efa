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

/// Makes the component of a function that gives a [`Plugin`]. Once a crate, and the crate is a `cdylib`. A plugin with
/// prompts says `export!(plugin, prompts)`, one with resources `export!(plugin, resources)`, one with both
/// `export!(plugin, prompts, resources)`; the kit's features of these names are on then.
#[macro_export]
macro_rules! export {
    ($plugin:path $(, $more:ident)*) => {
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
        $( $crate::export_more!($more); )*
    };
}

/// What [`export!`] exports beside tools.
#[doc(hidden)]
#[macro_export]
macro_rules! export_more {
    (prompts) => {
        #[cfg(target_family = "wasm")]
        $crate::bindings::prompts::export_prompts!(ProvostExport with_types_in $crate::bindings::prompts);
    };
    (resources) => {
        #[cfg(target_family = "wasm")]
        $crate::bindings::resources::export_resources!(ProvostExport with_types_in $crate::bindings::resources);
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

/// As for tools: a crash says nothing to the host but that there was one.
#[cfg(any(feature = "prompts", feature = "resources"))]
fn say_panics() {
    std::panic::set_hook(Box::new(|panic| host::log(host::Level::Error, &panic.to_string())));
}

#[cfg(feature = "prompts")]
mod prompts {
    use super::{Exported, say_panics};
    use crate::{
        Call,
        bindings::{
            prompts::exports::provost::plugin::prompts::{Guest, Prompt, PromptResult},
            provost::plugin::types::{CallContext, CallError},
        },
    };

    impl<T: Exported> Guest for T {
        fn list_prompts() -> Vec<Prompt> {
            T::plugin().prompts.iter().map(crate::Prompt::definition).collect()
        }

        fn get_prompt(context: CallContext, name: String, arguments: String) -> Result<PromptResult, CallError> {
            say_panics();
            let plugin = T::plugin();
            let prompt = plugin.prompts.iter().find(|prompt| prompt.name == name).ok_or(CallError::UnknownTool)?;
            prompt.run(&Call::new(context), &arguments)
        }
    }
}

#[cfg(feature = "resources")]
mod resources {
    use super::{Exported, say_panics};
    use crate::{
        Call,
        bindings::{
            provost::plugin::types::{CallContext, CallError},
            resources::exports::provost::plugin::resources::{Contents, Guest, ResourceInfo, TemplateInfo},
        },
    };

    impl<T: Exported> Guest for T {
        fn list_resources() -> Vec<ResourceInfo> {
            T::plugin().resources.iter().map(crate::Resource::definition).collect()
        }

        fn list_templates() -> Vec<TemplateInfo> {
            T::plugin().templates.iter().map(crate::Template::definition).collect()
        }

        fn read_resource(context: CallContext, uri: String) -> Result<Vec<Contents>, CallError> {
            say_panics();
            let (plugin, call) = (T::plugin(), Call::new(context));
            if let Some(resource) = plugin.resources.iter().find(|resource| resource.is_at(&uri)) {
                return resource.read(&call, &uri);
            }
            let template = plugin.templates.iter().find(|template| template.is_for(&uri));
            template.ok_or(CallError::UnknownTool)?.read(&call, &uri)
        }
    }
}
