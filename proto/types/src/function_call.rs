//! Functions that a model may ask its caller to run; OpenAI's API calls them tools.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A function that the caller offers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FunctionTool {
    /// 1 to 64 letters, digits, `_` and `-`.
    pub name: String,
    /// What it does, for the model.
    pub description: Option<String>,
    /// The JSON schema of its arguments, an object. None: it takes none.
    pub parameters: Option<Map<String, Value>>,
    /// Arguments follow the schema also where the model is free to call or not.
    pub strict: bool,
}

/// Whether the model calls functions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToolChoice {
    /// As it thinks fit.
    Auto,
    /// At least one, and it says nothing else.
    Required,
    /// This one, once, and it says nothing else.
    Function(String),
}

/// What a model may call in one answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChatTools {
    /// The functions; at least one, each name once.
    pub functions: Vec<FunctionTool>,
    /// Whether it calls any.
    pub choice: ToolChoice,
    /// More than one call in an answer.
    pub parallel: bool,
}

/// A call that a model made earlier in the conversation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FunctionCall {
    /// By which the message with its result names it.
    pub id: String,
    /// The function.
    pub name: String,
    /// Its arguments.
    pub arguments: Map<String, Value>,
}

/// A piece of a call that is being made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallDelta {
    /// Which call of the answer, from 0.
    pub index: u32,
    /// In the first piece of each call only.
    pub head: Option<CallHead>,
    /// The next part of the JSON text of the arguments, as the model wrote it.
    pub arguments: String,
}

/// What a call begins with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallHead {
    /// Made up here; no two calls have the same.
    pub id: String,
    /// One of the functions that were offered.
    pub name: String,
}
