//! What policy says of one call.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Revision;

/// What a caller wants to do; the Cedar actions of the generated schema carry these names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Call a tool (and see it in lists).
    CallTool,
    /// Get a prompt (and see it in lists, and complete its arguments).
    GetPrompt,
    /// Read or subscribe to a resource (and see it in lists).
    ReadResource,
    /// Run inference on a model (and see it in lists).
    UseModel,
}

impl Action {
    /// The name in Cedar: `Action::"CallTool"`.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::CallTool => "CallTool",
            Action::GetPrompt => "GetPrompt",
            Action::ReadResource => "ReadResource",
            Action::UseModel => "UseModel",
        }
    }
}

/// Whether a policy decides or only records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PolicyMode {
    /// Its decision holds.
    #[default]
    Enforce,
    /// Its decision is recorded and has no effect.
    Observe,
}

/// Allow or deny.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// The call may run.
    Allow,
    /// The call must not run.
    Deny,
}

/// One decision with its cause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Allow or deny.
    pub effect: Effect,
    /// The ids of the policies that made it so (`policy-name/policy-id`, `role:NAME` for a grant);
    /// empty for the default deny.
    pub policies: Vec<String>,
    /// Policies in `observe` mode that would have decided otherwise.
    pub observed: Vec<String>,
    /// One sentence for the caller: which rule, or that none permits.
    pub reason: String,
    /// The snapshot that was asked.
    pub revision: Revision,
}

impl Decision {
    /// Whether the call may run.
    pub fn is_allow(&self) -> bool {
        self.effect == Effect::Allow
    }
}
