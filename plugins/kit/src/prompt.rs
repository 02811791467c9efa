//! One prompt: a function from texts to messages.

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use crate::bindings::prompts::exports::provost::plugin::prompts::Role;
use crate::{
    Call, Failure,
    bindings::{
        prompts::exports::provost::plugin::prompts::{self, Message, PromptArgument, PromptResult},
        provost::plugin::types::{CallError, Content},
    },
    schema,
};

type Run = Box<dyn Fn(&Call, &str) -> Result<PromptResult, CallError>>;

/// A prompt.
pub struct Prompt {
    pub(crate) name: &'static str,
    title: Option<&'static str>,
    description: &'static str,
    // Made when it is asked for.
    schema: fn() -> String,
    run: Run,
}

impl Prompt {
    /// A prompt of this name that runs `function`. What it takes are the fields of the function's struct: texts, with
    /// their comments as descriptions; those of type `Option` need not be given.
    pub fn new<A, R, F>(name: &'static str, description: &'static str, function: F) -> Self
    where
        A: DeserializeOwned + JsonSchema,
        R: IntoMessages,
        F: Fn(&Call, A) -> R + 'static,
    {
        let run = move |call: &Call, arguments: &str| {
            let arguments = serde_json::from_str(arguments).map_err(|why| CallError::InvalidParams(why.to_string()))?;
            let messages = function(call, arguments).into_messages().map_err(Failure::of_no_tool)?;
            Ok(messages.0)
        };
        Self { name, title: None, description, schema: schema::of::<A>, run: Box::new(run) }
    }

    /// A name for people.
    pub fn title(mut self, title: &'static str) -> Self {
        self.title = Some(title);
        self
    }

    pub(crate) fn definition(&self) -> prompts::Prompt {
        prompts::Prompt {
            name: self.name.to_owned(),
            title: self.title.map(str::to_owned),
            description: self.description.to_owned(),
            arguments: arguments_of(&(self.schema)()),
        }
    }

    pub(crate) fn run(&self, call: &Call, arguments: &str) -> Result<PromptResult, CallError> {
        (self.run)(call, arguments)
    }
}

/// The properties of a schema.
fn arguments_of(schema: &str) -> Vec<PromptArgument> {
    let schema: Value = serde_json::from_str(schema).unwrap_or_default();
    let Some(properties) = schema["properties"].as_object() else { return Vec::new() };
    let is_required = |name: &str| schema["required"].as_array().is_some_and(|all| all.iter().any(|one| one == name));
    let argument = |(name, property): (&String, &Value)| PromptArgument {
        name: name.clone(),
        description: property["description"].as_str().map(str::to_owned),
        required: is_required(name),
    };
    properties.iter().map(argument).collect()
}

/// What a prompt may return: a text, which the user says, [`Messages`], or a `Result` of one of them and [`Failure`].
pub trait IntoMessages {
    /// The messages.
    fn into_messages(self) -> Result<Messages, Failure>;
}

/// What a prompt comes to.
#[derive(Clone, Debug)]
pub struct Messages(PromptResult);

impl Default for Messages {
    fn default() -> Self {
        Self::new()
    }
}

impl Messages {
    /// None yet.
    pub fn new() -> Self {
        Self(PromptResult { description: None, messages: Vec::new() })
    }

    /// What they are, for people.
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.0.description = Some(description.into());
        self
    }

    /// And this, said by the user.
    pub fn user(self, text: impl Into<String>) -> Self {
        self.content(Role::User, Content::Text(text.into()))
    }

    /// And this, said by the model.
    pub fn assistant(self, text: impl Into<String>) -> Self {
        self.content(Role::Assistant, Content::Text(text.into()))
    }

    /// And any other part.
    pub fn content(mut self, role: Role, content: Content) -> Self {
        self.0.messages.push(Message { role, content });
        self
    }
}

impl IntoMessages for Messages {
    fn into_messages(self) -> Result<Messages, Failure> {
        Ok(self)
    }
}

impl IntoMessages for String {
    fn into_messages(self) -> Result<Messages, Failure> {
        Ok(Messages::new().user(self))
    }
}

impl IntoMessages for &str {
    fn into_messages(self) -> Result<Messages, Failure> {
        Ok(Messages::new().user(self))
    }
}

impl<T: IntoMessages> IntoMessages for Result<T, Failure> {
    fn into_messages(self) -> Result<Messages, Failure> {
        self?.into_messages()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize, JsonSchema)]
    #[allow(dead_code)]
    struct Wanted {
        /// Whom to greet.
        name: String,
        tone: Option<String>,
    }

    #[test]
    fn what_a_prompt_takes_is_said_by_its_struct() {
        let prompt = Prompt::new("greet", "Greets.", |_: &Call, wanted: Wanted| format!("Greet {}.", wanted.name));
        let arguments = prompt.definition().arguments;
        let shown: Vec<_> = arguments.iter().map(|a| (a.name.as_str(), a.description.as_deref(), a.required)).collect();
        assert_eq!(shown, [("name", Some("Whom to greet."), true), ("tone", None, false)]);
        let result = prompt.run(&Call::for_tests(), r#"{"name":"Ann"}"#).unwrap();
        assert!(matches!(&result.messages[0].content, Content::Text(text) if text == "Greet Ann."));
        assert!(matches!(prompt.run(&Call::for_tests(), "{}"), Err(CallError::InvalidParams(_))));
    }
}
