//! JSON Schemas that plugins give: of their configuration, and of what their tools take.
//!
//! Invariants: nothing is fetched; patterns run in linear time; a problem names rules and places, and no value, which may be
//! a secret. A schema that is too large, or not usable without what it refers to elsewhere, is none: the plugin still
//! checks.

use jsonschema::{PatternOptions, Validator};
use provost_mcp::RawJson;
use serde_json::Value;

/// The largest schema that is compiled, in bytes.
const MAX_SCHEMA_BYTES: usize = 256 << 10;
/// Most problems that one answer names.
const MAX_PROBLEMS: usize = 3;
/// Longest text of one problem, in characters.
const MAX_PROBLEM_CHARS: usize = 200;

/// A schema that can be checked here.
pub struct Schema(Validator);

impl Schema {
    /// Compiles it; `None`: it cannot be checked here.
    pub fn compile(schema: &RawJson) -> Option<Self> {
        if schema.as_bytes().len() > MAX_SCHEMA_BYTES {
            return None;
        }
        let options = jsonschema::options().with_pattern_options(PatternOptions::regex()).offline();
        options.build(&schema.parse().ok()?).ok().map(Self)
    }

    /// The rules that are broken, and where; `None`: the value fits.
    pub fn problems(&self, value: &Value) -> Option<String> {
        if self.0.is_valid(value) {
            return None;
        }
        let problems: Vec<String> = self
            .0
            .iter_errors(value)
            .take(MAX_PROBLEMS)
            .map(|problem| {
                let at = problem.instance_path().to_string();
                let at = if at.is_empty() { String::new() } else { format!("{at}: ") };
                // The value itself may be a secret: the masked text names only the rule.
                format!("{at}{}", problem.masked()).chars().take(MAX_PROBLEM_CHARS).collect()
            })
            .collect();
        Some(problems.join("; "))
    }
}
