//! One tool: a function and what is said about it.

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::{
    Call, IntoAnswer,
    bindings::provost::plugin::types::{self, CallError, Outcome},
    schema,
};

type Run = Box<dyn Fn(&Call, &str) -> Result<Outcome, CallError>>;

/// A tool.
pub struct Tool {
    pub(crate) name: &'static str,
    title: Option<&'static str>,
    description: &'static str,
    // Made when they are asked for: most instances answer one call and list nothing.
    input_schema: fn() -> String,
    output_schema: fn() -> Option<String>,
    annotations: Vec<(&'static str, Value)>,
    run: Run,
}

impl Tool {
    /// A tool of this name that runs `function`. The schemas are those of the function's types.
    pub fn new<A, R, F>(name: &'static str, description: &'static str, function: F) -> Self
    where
        A: DeserializeOwned + JsonSchema,
        R: IntoAnswer,
        F: Fn(&Call, A) -> R + 'static,
    {
        let run = move |call: &Call, arguments: &str| {
            let arguments = serde_json::from_str(arguments).map_err(|why| CallError::InvalidParams(why.to_string()))?;
            function(call, arguments).into_answer()
        };
        Self {
            name,
            title: None,
            description,
            input_schema: schema::of::<A>,
            output_schema: R::output_schema,
            annotations: Vec::new(),
            run: Box::new(run),
        }
    }

    /// A name for people.
    pub fn title(mut self, title: &'static str) -> Self {
        self.title = Some(title);
        self
    }

    /// It changes nothing anywhere, and the same arguments give the same answer.
    pub fn read_only(self) -> Self {
        self.annotation("readOnlyHint", true).annotation("idempotentHint", true).annotation("openWorldHint", false)
    }

    /// It removes or overwrites.
    pub fn destructive(self) -> Self {
        self.annotation("destructiveHint", true)
    }

    /// Any annotation of MCP; said twice, the later one counts.
    pub fn annotation(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.annotations.push((name, value.into()));
        self
    }

    pub(crate) fn definition(&self) -> types::Tool {
        types::Tool {
            name: self.name.to_owned(),
            title: self.title.map(str::to_owned),
            description: self.description.to_owned(),
            input_schema: (self.input_schema)(),
            output_schema: (self.output_schema)(),
            annotations: (!self.annotations.is_empty()).then(|| self.annotations().to_string()),
        }
    }

    fn annotations(&self) -> Value {
        let named = self.annotations.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        Value::Object(named.collect::<Map<_, _>>())
    }

    pub(crate) fn run(&self, call: &Call, arguments: &str) -> Result<Outcome, CallError> {
        (self.run)(call, arguments)
    }
}
