//! A plugin: its tools and the type of its configuration.

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::{Tool, schema};

/// The schema of a configuration, and whether a text is one.
#[derive(Clone, Copy)]
pub(crate) struct ConfigType {
    pub(crate) schema: fn() -> String,
    pub(crate) check: fn(&str) -> Result<(), String>,
}

/// What a component exports. Made anew for each call: keep it cheap.
#[derive(Default)]
pub struct Plugin {
    pub(crate) tools: Vec<Tool>,
    #[cfg(feature = "prompts")]
    pub(crate) prompts: Vec<crate::Prompt>,
    #[cfg(feature = "resources")]
    pub(crate) resources: Vec<crate::Resource>,
    #[cfg(feature = "resources")]
    pub(crate) templates: Vec<crate::Template>,
    pub(crate) config: Option<ConfigType>,
}

impl Plugin {
    /// Without tools.
    pub fn new() -> Self {
        Self::default()
    }

    /// With this tool.
    pub fn with(mut self, tool: Tool) -> Self {
        self.tools.push(tool);
        self
    }

    /// With this prompt; the crate says `export!(plugin, prompts)`.
    #[cfg(feature = "prompts")]
    pub fn with_prompt(mut self, prompt: crate::Prompt) -> Self {
        self.prompts.push(prompt);
        self
    }

    /// With this resource; the crate says `export!(plugin, resources)`.
    #[cfg(feature = "resources")]
    pub fn with_resource(mut self, resource: crate::Resource) -> Self {
        self.resources.push(resource);
        self
    }

    /// With the resources of this template; of several that fit an address, the first is asked.
    #[cfg(feature = "resources")]
    pub fn with_template(mut self, template: crate::Template) -> Self {
        self.templates.push(template);
        self
    }

    /// Takes a configuration of this type; [`crate::Call::config`] gives it. Without one it is read from `{}`, so give
    /// its fields defaults, or a call without configuration fails.
    pub fn config<C: DeserializeOwned + JsonSchema>(mut self) -> Self {
        let check = |text: &str| serde_json::from_str::<C>(text).map(drop).map_err(|why| why.to_string());
        self.config = Some(ConfigType { schema: schema::of::<C>, check });
        self
    }
}
