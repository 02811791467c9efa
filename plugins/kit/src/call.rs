//! The call that a tool answers.

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

pub use crate::bindings::provost::plugin::host::Level;
use crate::{
    Failure,
    bindings::provost::plugin::{
        host::{self, NestedError},
        types::CallContext,
    },
    config,
};

/// What a call brings beside its arguments, and what can be done while it runs.
#[derive(Clone, Debug)]
pub struct Call(CallContext);

impl Call {
    pub(crate) fn new(context: CallContext) -> Self {
        Self(context)
    }

    /// For tests of tools, where there is no host: nothing but reading it works.
    pub fn for_tests() -> Self {
        Self(CallContext {
            request_id: "test".to_owned(),
            deadline_ms: 10_000,
            traceparent: None,
            principal: None,
            input_responses: None,
            request_state: None,
        })
    }

    /// For logs.
    pub fn request_id(&self) -> &str {
        &self.0.request_id
    }

    /// Milliseconds that were left when the call began.
    pub fn deadline_ms(&self) -> u64 {
        self.0.deadline_ms
    }

    /// W3C trace context.
    pub fn traceparent(&self) -> Option<&str> {
        self.0.traceparent.as_deref()
    }

    /// Who calls, as `TENANT/NAME`.
    pub fn principal(&self) -> Option<&str> {
        self.0.principal.as_deref()
    }

    /// The answer to what an earlier call asked for under `key` ([`crate::Ask`]).
    pub fn response(&self, key: &str) -> Option<Value> {
        let responses: Value = serde_json::from_str(self.0.input_responses.as_deref()?).ok()?;
        responses.get(key).cloned()
    }

    /// What the earlier call wanted back.
    pub fn state(&self) -> Option<&str> {
        self.0.request_state.as_deref()
    }

    /// The plugin's configuration; what [`crate::Plugin::config`] checked.
    pub fn config<C: DeserializeOwned>(&self) -> Result<C, Failure> {
        config::read()
    }

    /// A line for the operator's log.
    pub fn log(&self, level: Level, message: &str) {
        host::log(level, message);
    }

    /// How far the work is.
    pub fn progress(&self, progress: f64, total: Option<f64>, message: Option<&str>) {
        host::progress(progress, total, message);
    }

    /// Whether the caller gave up. Ask now and then in long work, and return [`Failure::Cancelled`].
    pub fn is_cancelled(&self) -> bool {
        host::cancelled()
    }

    /// Milliseconds since 1970-01-01 UTC.
    pub fn now_ms(&self) -> u64 {
        host::now_ms()
    }

    /// Calls another tool as the caller of this one: what they may not do, the plugin may not. The result object.
    pub fn call_tool(&self, name: &str, arguments: &impl Serialize) -> Result<Value, Failure> {
        let arguments = serde_json::to_string(arguments).map_err(|why| Failure::Broken(why.to_string()))?;
        let result = host::call_tool(name, &arguments).map_err(|error| match error {
            NestedError::Denied(why) => Failure::Tool(format!("{name}: not allowed: {why}")),
            NestedError::InvalidParams(why) => Failure::Broken(format!("{name}: {why}")),
            NestedError::Cancelled => Failure::Cancelled,
            NestedError::Failed(why) => Failure::Tool(format!("{name}: {why}")),
        })?;
        serde_json::from_str(&result).map_err(|why| Failure::Broken(why.to_string()))
    }
}
