//! How a plugin can fail.

use std::time::Duration;

use provost_mcp::JsonFault;

/// Why a plugin could not be loaded, or a call of it has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PluginError {
    /// It did not end in time.
    #[error("PV-PLUGIN-DEADLINE: the plugin did not answer in time")]
    Deadline,
    /// It computed for longer than it may, however much time was left.
    #[error("PV-PLUGIN-COMPUTE: the plugin computed for more than the {} ms that it may", .0.as_millis())]
    Compute(Duration),
    /// It wanted more memory than it may have, and did not go on without.
    #[error("PV-PLUGIN-MEMORY: the plugin needs more memory than the {0} bytes that it may have")]
    Memory(usize),
    /// It stopped in the middle.
    #[error("PV-PLUGIN-TRAP: the plugin crashed: {0}")]
    Trap(String),
    /// What it gave is over a bound.
    #[error("PV-PLUGIN-TOO-LARGE: the plugin gave more than the {0} bytes that it may")]
    TooLarge(usize),
    /// What it gave as JSON is none, or not the kind that is needed.
    #[error("PV-PLUGIN-JSON: {what} of the plugin is not right: {why}")]
    Json {
        /// Which text.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// It has no such tool.
    #[error("PV-TOOL-UNKNOWN: the plugin has no tool `{0}`")]
    UnknownTool(String),
    /// It has no such prompt.
    #[error("PV-PROMPT-UNKNOWN: the plugin has no prompt `{0}`")]
    UnknownPrompt(String),
    /// It has no such resource.
    #[error("PV-RESOURCE-UNKNOWN: the plugin has no resource `{0}`")]
    UnknownResource(String),
    /// It does not take these arguments.
    #[error("PV-PLUGIN-ARGUMENTS: the plugin does not take these arguments: {0}")]
    InvalidParams(String),
    /// The caller gave up, and the plugin with it.
    #[error("PV-CALL-CANCELLED: the caller cancelled the call")]
    Cancelled,
    /// It says that it cannot do it.
    #[error("PV-PLUGIN-FAILED: the plugin failed: {0}")]
    Failed(String),
    /// It imports what it may not, or exports too little.
    #[error("PV-PLUGIN-IMPORTS: the plugin does not fit: {0}")]
    Imports(String),
    /// The component is none, or cannot be compiled.
    #[error("PV-PLUGIN-COMPONENT: the component cannot be used: {0}")]
    Component(String),
    /// It does not take its configuration.
    #[error("PV-PLUGIN-CONFIG: the plugin does not take its configuration: {0}")]
    Config(String),
    /// What it says of its tools is wrong.
    #[error("PV-PLUGIN-TOOLS: the plugin's list of tools is wrong: {0}")]
    Tools(String),
    /// What it says of its prompts and resources is wrong.
    #[error("PV-PLUGIN-OFFER: what the plugin says of its {0}")]
    Offer(String),
    /// Every place for a call is taken, by calls that wait for this one.
    #[error("PV-PLUGIN-BUSY: no instance is free for a call within a call")]
    Busy,
    /// Plugins call plugins without end.
    #[error("PV-PLUGIN-DEPTH: plugins call each other more than {0} deep")]
    TooDeep(u8),
    /// The node cannot run it now.
    #[error("PV-PLUGIN-UNAVAILABLE: the plugin cannot be run on this node: {0}")]
    Unavailable(String),
}

impl PluginError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Deadline => "PV-PLUGIN-DEADLINE",
            Self::Compute(_) => "PV-PLUGIN-COMPUTE",
            Self::Memory(_) => "PV-PLUGIN-MEMORY",
            Self::Trap(_) => "PV-PLUGIN-TRAP",
            Self::TooLarge(_) => "PV-PLUGIN-TOO-LARGE",
            Self::Json { .. } => "PV-PLUGIN-JSON",
            Self::UnknownTool(_) => "PV-TOOL-UNKNOWN",
            Self::UnknownPrompt(_) => "PV-PROMPT-UNKNOWN",
            Self::UnknownResource(_) => "PV-RESOURCE-UNKNOWN",
            Self::InvalidParams(_) => "PV-PLUGIN-ARGUMENTS",
            Self::Cancelled => "PV-CALL-CANCELLED",
            Self::Failed(_) => "PV-PLUGIN-FAILED",
            Self::Imports(_) => "PV-PLUGIN-IMPORTS",
            Self::Component(_) => "PV-PLUGIN-COMPONENT",
            Self::Config(_) => "PV-PLUGIN-CONFIG",
            Self::Tools(_) => "PV-PLUGIN-TOOLS",
            Self::Offer(_) => "PV-PLUGIN-OFFER",
            Self::Busy => "PV-PLUGIN-BUSY",
            Self::TooDeep(_) => "PV-PLUGIN-DEPTH",
            Self::Unavailable(_) => "PV-PLUGIN-UNAVAILABLE",
        }
    }

    /// Whether the same component with the same settings can never do better, so that trying again is vain.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            Self::Deadline | Self::Cancelled | Self::Busy | Self::Unavailable(_) => false,
            Self::Compute(_)
            | Self::Memory(_)
            | Self::Trap(_)
            | Self::TooLarge(_)
            | Self::Json { .. }
            | Self::UnknownTool(_)
            | Self::UnknownPrompt(_)
            | Self::UnknownResource(_)
            | Self::InvalidParams(_)
            | Self::Failed(_)
            | Self::Imports(_)
            | Self::Component(_)
            | Self::Config(_)
            | Self::Tools(_)
            | Self::Offer(_)
            | Self::TooDeep(_) => true,
        }
    }

    pub(crate) fn json(what: &'static str, fault: &JsonFault) -> Self {
        Self::Json { what, why: fault.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_read_begins_with_the_code() {
        let all = [
            PluginError::Deadline,
            PluginError::Compute(Duration::from_millis(5)),
            PluginError::Memory(1),
            PluginError::Trap(String::new()),
            PluginError::TooLarge(1),
            PluginError::Json { what: "x", why: String::new() },
            PluginError::UnknownTool(String::new()),
            PluginError::UnknownPrompt(String::new()),
            PluginError::UnknownResource(String::new()),
            PluginError::InvalidParams(String::new()),
            PluginError::Cancelled,
            PluginError::Failed(String::new()),
            PluginError::Imports(String::new()),
            PluginError::Component(String::new()),
            PluginError::Config(String::new()),
            PluginError::Tools(String::new()),
            PluginError::Offer(String::new()),
            PluginError::Busy,
            PluginError::TooDeep(1),
            PluginError::Unavailable(String::new()),
        ];
        for error in all {
            assert!(error.to_string().starts_with(&format!("{}: ", error.code())), "{error}");
        }
    }
}
