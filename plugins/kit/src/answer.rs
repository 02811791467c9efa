//! What a tool gives back.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::{
    bindings::provost::plugin::types::{Blob, CallError, Content, InputRequired, Link, Outcome, ToolResult},
    schema,
};

/// Why a tool does not do it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// For the model to read: it can do better next time.
    Tool(String),
    /// The arguments are wrong in a way that the schema does not say.
    Arguments(String),
    /// The caller gave up.
    Cancelled,
    /// The plugin is broken, or what it needs is.
    Broken(String),
}

#[cfg(any(feature = "prompts", feature = "resources"))]
impl Failure {
    /// Where there is no result in which a model could read it.
    pub(crate) fn of_no_tool(self) -> CallError {
        match self {
            Self::Arguments(why) => CallError::InvalidParams(why),
            Self::Cancelled => CallError::Cancelled,
            Self::Tool(why) | Self::Broken(why) => CallError::Failed(why),
        }
    }
}

impl<T: Into<String>> From<T> for Failure {
    fn from(text: T) -> Self {
        Self::Tool(text.into())
    }
}

/// What a tool may return: a text, [`Json`], an [`Answer`], an [`Ask`], or a `Result` of one of them and [`Failure`].
pub trait IntoAnswer {
    /// JSON Schema of the structured answer, if there is one.
    fn output_schema() -> Option<String> {
        None
    }

    /// The answer in the form of the contract.
    fn into_answer(self) -> Result<Outcome, CallError>;
}

/// A structured answer: an object. Callers that know no structure get it as text.
#[derive(Clone, Debug, PartialEq)]
pub struct Json<T>(pub T);

impl<T: Serialize + JsonSchema> IntoAnswer for Json<T> {
    fn output_schema() -> Option<String> {
        Some(schema::of::<T>())
    }

    fn into_answer(self) -> Result<Outcome, CallError> {
        let json = serde_json::to_string(&self.0).map_err(|why| CallError::Failed(why.to_string()))?;
        let content = vec![Content::Text(json.clone())];
        Ok(Outcome::Complete(ToolResult { content, structured: Some(json), is_error: false }))
    }
}

/// An answer of several parts.
#[derive(Clone, Debug)]
pub struct Answer(ToolResult);

impl Default for Answer {
    fn default() -> Self {
        Self::new()
    }
}

impl Answer {
    /// Nothing yet.
    pub fn new() -> Self {
        Self(ToolResult { content: Vec::new(), structured: None, is_error: false })
    }

    /// And this text.
    pub fn text(self, text: impl Into<String>) -> Self {
        self.content(Content::Text(text.into()))
    }

    /// And this image, such as `image/png`.
    pub fn image(self, data: Vec<u8>, mime_type: impl Into<String>) -> Self {
        self.content(Content::Image(Blob { data, mime_type: mime_type.into() }))
    }

    /// And this sound, such as `audio/wav`.
    pub fn audio(self, data: Vec<u8>, mime_type: impl Into<String>) -> Self {
        self.content(Content::Audio(Blob { data, mime_type: mime_type.into() }))
    }

    /// And this resource, by its address.
    pub fn link(self, uri: impl Into<String>, name: impl Into<String>) -> Self {
        let link = Link { uri: uri.into(), name: name.into(), description: None, mime_type: None };
        self.content(Content::ResourceLink(link))
    }

    /// And any other part.
    pub fn content(mut self, content: Content) -> Self {
        self.0.content.push(content);
        self
    }

    /// With a structure: an object.
    pub fn structured(mut self, object: &Value) -> Self {
        self.0.structured = Some(object.to_string());
        self
    }

    /// The tool failed, and the parts say why.
    pub fn failed(mut self) -> Self {
        self.0.is_error = true;
        self
    }
}

impl IntoAnswer for Answer {
    fn into_answer(self) -> Result<Outcome, CallError> {
        Ok(Outcome::Complete(self.0))
    }
}

impl IntoAnswer for String {
    fn into_answer(self) -> Result<Outcome, CallError> {
        Answer::new().text(self).into_answer()
    }
}

impl IntoAnswer for &str {
    fn into_answer(self) -> Result<Outcome, CallError> {
        Answer::new().text(self).into_answer()
    }
}

/// The tool needs an answer of the user first. It is called again, with [`crate::Call::responses`] and
/// [`crate::Call::state`].
#[derive(Clone, Debug, Default)]
pub struct Ask {
    requests: serde_json::Map<String, Value>,
    state: Option<String>,
}

impl Ask {
    /// Asks nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A form for the user to fill in: `schema` is an object schema with plain properties.
    pub fn form(self, key: impl Into<String>, message: &str, schema: Value) -> Self {
        let params = serde_json::json!({"mode": "form", "message": message, "requestedSchema": schema});
        self.request(key, "elicitation/create", params)
    }

    /// Any request that MCP lets a server make.
    pub fn request(mut self, key: impl Into<String>, method: &str, params: Value) -> Self {
        self.requests.insert(key.into(), serde_json::json!({"method": method, "params": params}));
        self
    }

    /// What the next call needs to go on.
    pub fn state(mut self, state: impl Into<String>) -> Self {
        self.state = Some(state.into());
        self
    }
}

impl IntoAnswer for Ask {
    fn into_answer(self) -> Result<Outcome, CallError> {
        let requests = Value::Object(self.requests).to_string();
        Ok(Outcome::InputRequired(InputRequired { requests, state: self.state }))
    }
}

impl<T: IntoAnswer> IntoAnswer for Result<T, Failure> {
    fn output_schema() -> Option<String> {
        T::output_schema()
    }

    fn into_answer(self) -> Result<Outcome, CallError> {
        match self {
            Ok(answer) => answer.into_answer(),
            Err(Failure::Tool(why)) => Answer::new().text(why).failed().into_answer(),
            Err(Failure::Arguments(why)) => Err(CallError::InvalidParams(why)),
            Err(Failure::Cancelled) => Err(CallError::Cancelled),
            Err(Failure::Broken(why)) => Err(CallError::Failed(why)),
        }
    }
}

/// An answer now, or a question first.
#[derive(Clone, Debug)]
pub enum Either<A, B> {
    /// The one.
    Left(A),
    /// The other.
    Right(B),
}

impl<A: IntoAnswer, B: IntoAnswer> IntoAnswer for Either<A, B> {
    fn output_schema() -> Option<String> {
        A::output_schema().or_else(B::output_schema)
    }

    fn into_answer(self) -> Result<Outcome, CallError> {
        match self {
            Self::Left(answer) => answer.into_answer(),
            Self::Right(answer) => answer.into_answer(),
        }
    }
}
