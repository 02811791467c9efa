//! The requests that a client can make, over both eras: the one list of them.
//!
//! Invariant: a method that is not here is answered with "method not found", whatever else knows it; so
//! what is tested of each method here is tested of all.

use crate::Era;

/// A method of a client's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "each is named as MCP names it")]
pub enum Method {
    Initialize,
    Ping,
    Discover,
    ListTools,
    CallTool,
    ListPrompts,
    GetPrompt,
    ListResources,
    ListResourceTemplates,
    ReadResource,
    Subscribe,
    Unsubscribe,
    Listen,
    Complete,
    SetLogLevel,
    GetTask,
    UpdateTask,
    CancelTask,
    TaskResult,
    ListTasks,
}

impl Method {
    /// Every method.
    pub const ALL: [Self; 20] = [
        Self::Initialize,
        Self::Ping,
        Self::Discover,
        Self::ListTools,
        Self::CallTool,
        Self::ListPrompts,
        Self::GetPrompt,
        Self::ListResources,
        Self::ListResourceTemplates,
        Self::ReadResource,
        Self::Subscribe,
        Self::Unsubscribe,
        Self::Listen,
        Self::Complete,
        Self::SetLogLevel,
        Self::GetTask,
        Self::UpdateTask,
        Self::CancelTask,
        Self::TaskResult,
        Self::ListTasks,
    ];

    /// As on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Initialize => "initialize",
            Self::Ping => "ping",
            Self::Discover => "server/discover",
            Self::ListTools => "tools/list",
            Self::CallTool => "tools/call",
            Self::ListPrompts => "prompts/list",
            Self::GetPrompt => "prompts/get",
            Self::ListResources => "resources/list",
            Self::ListResourceTemplates => "resources/templates/list",
            Self::ReadResource => "resources/read",
            Self::Subscribe => "resources/subscribe",
            Self::Unsubscribe => "resources/unsubscribe",
            Self::Listen => "subscriptions/listen",
            Self::Complete => "completion/complete",
            Self::SetLogLevel => "logging/setLevel",
            Self::GetTask => "tasks/get",
            Self::UpdateTask => "tasks/update",
            Self::CancelTask => "tasks/cancel",
            Self::TaskResult => "tasks/result",
            Self::ListTasks => "tasks/list",
        }
    }

    /// The method of that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.as_str() == text)
    }

    /// Whether the era has it.
    pub fn is_of(self, era: Era) -> bool {
        match self {
            Self::Discover | Self::Listen | Self::UpdateTask => era == Era::Modern,
            Self::Initialize
            | Self::Ping
            | Self::Subscribe
            | Self::Unsubscribe
            | Self::SetLogLevel
            | Self::TaskResult
            | Self::ListTasks => era == Era::Legacy,
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_name_of_its_own() {
        for method in Method::ALL {
            assert_eq!(Method::parse(method.as_str()), Some(method));
            assert!(method.is_of(Era::Modern) || method.is_of(Era::Legacy));
        }
        assert_eq!(Method::parse("tools/Call"), None);
    }
}
