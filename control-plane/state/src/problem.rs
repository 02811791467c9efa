//! What is wrong with a resource or a transaction, for people and for programs.

use std::{borrow::Cow, fmt};

use provost_types::ResourceKey;
use serde::{Deserialize, Serialize};

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The resource; `None` for a problem of the transaction as a whole.
    pub key: Option<ResourceKey>,
    /// The field's path, such as `spec.principals[0]`; empty for the resource as a whole.
    pub field: String,
    /// Stable code, such as `PV-RES-REFERENCE`.
    pub code: Cow<'static, str>,
    /// The cause, in one sentence.
    pub message: String,
    /// What to do next; may be empty.
    pub hint: String,
}

impl Problem {
    /// A problem of one field of a resource.
    pub fn of_field(
        key: &ResourceKey,
        field: impl Into<String>,
        code: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            key: Some(key.clone()),
            field: field.into(),
            code: Cow::Borrowed(code),
            message: message.into(),
            hint: String::new(),
        }
    }

    /// A problem of the transaction as a whole.
    pub fn of_transaction(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            key: None,
            field: String::new(),
            code: Cow::Borrowed(code),
            message: message.into(),
            hint: String::new(),
        }
    }

    /// The same with what to do next.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.code)?;
        if let Some(key) = &self.key {
            write!(f, "{key}: ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)?;
        if !self.hint.is_empty() {
            write!(f, "; {}", self.hint)?;
        }
        Ok(())
    }
}

/// A transaction that changed nothing, with every reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{}", .problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Rejected {
    /// Every problem found; never empty.
    pub problems: Vec<Problem>,
}
