//! What is wrong with a resource that policy is compiled from.

use std::fmt;

use miette::Diagnostic;
use provost_types::ResourceKey;

use crate::policy_id::id_at;

/// One error in a `Policy`, `Role` or `RoleBinding`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyProblem {
    /// The resource that has to change.
    pub key: ResourceKey,
    /// What is wrong.
    pub message: String,
    /// Line in the `cedar` text, from 1; `None` where the problem is not in Cedar text.
    pub line: Option<u32>,
    /// Column in that line, in characters from 1.
    pub column: Option<u32>,
    /// What to do, where it is known.
    pub hint: Option<String>,
}

impl fmt::Display for PolicyProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.key)?;
        if let (Some(line), Some(column)) = (self.line, self.column) {
            write!(f, " (cedar {line}:{column})")?;
        }
        write!(f, ": {}", self.message)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for PolicyProblem {}

impl PolicyProblem {
    /// A problem that is not in Cedar text.
    pub(crate) fn new(key: ResourceKey, message: String, hint: Option<String>) -> Self {
        Self { key, message, line: None, column: None, hint }
    }

    /// A problem as Cedar reports it: its first label gives the place, its help the hint. A
    /// policy with an `@id` is named by it.
    pub(crate) fn from_cedar(key: ResourceKey, text: &str, diagnostic: &dyn Diagnostic) -> Self {
        let label = diagnostic.labels().and_then(|mut labels| labels.next());
        let offset = label.as_ref().map(|l| l.offset());
        let note = label.as_ref().and_then(|l| l.label().map(str::to_owned));
        let mut message = diagnostic.to_string();
        if let Some(id) = offset.and_then(|offset| id_at(text, offset)) {
            // Cedar counts the policies of a text (`policy0`), or names none.
            let counted = message.strip_prefix("for policy `").and_then(|rest| rest.split_once("`, "));
            message = format!("for policy `{id}`, {}", counted.map_or(message.as_str(), |(_, rest)| rest));
        }
        if let Some(note) = note {
            message = format!("{message}: {note}");
        }
        let place = offset.map(|o| position(text, o));
        Self {
            key,
            message,
            line: place.map(|p| p.0),
            column: place.map(|p| p.1),
            hint: diagnostic.help().map(|h| h.to_string()),
        }
    }
}

/// Line and column of a byte offset, both from 1.
pub(crate) fn position(text: &str, offset: usize) -> (u32, u32) {
    let mut end = offset.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let before = &text[..end];
    let line = before.matches('\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |i| i + 1);
    let column = before[start..].chars().count() + 1;
    (u32::try_from(line).unwrap_or(u32::MAX), u32::try_from(column).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::position;

    #[test]
    fn positions_count_characters_from_one() {
        let text = "ab\nçd\n";
        for (offset, expect) in [(0, (1, 1)), (1, (1, 2)), (3, (2, 1)), (5, (2, 2)), (99, (3, 1))] {
            assert_eq!(position(text, offset), expect, "offset {offset}");
        }
        assert_eq!(position(text, 4), (2, 1), "inside a character counts as its start");
    }
}
