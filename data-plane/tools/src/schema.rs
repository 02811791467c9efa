//! Arguments against a tool's input schema.
//!
//! Invariants: nothing is fetched; patterns run in linear time; a schema that is too large, or not
//! usable without what it refers to elsewhere, checks nothing (the upstream still does), and the
//! log says so once.

use std::{collections::HashMap, sync::Arc};

use jsonschema::{PatternOptions, Validator};
use parking_lot::Mutex;
use provost_mcp::{RawJson, RawObject};
use serde_json::Value;

use crate::Definition;

/// The largest schema that is compiled, in bytes.
const MAX_SCHEMA_BYTES: usize = 256 * 1024;
/// Most compiled schemas of one plugin.
const MAX_COMPILED: usize = 1_024;
/// Most problems that one answer names.
const MAX_PROBLEMS: usize = 3;
/// Longest text of one problem, in characters.
const MAX_PROBLEM_CHARS: usize = 200;

/// What is wrong with the arguments: the rules that are broken, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the arguments do not fit the tool's input schema: {0}")]
pub struct ValidationProblem(pub String);

struct Compiled {
    raw: RawJson,
    validator: Option<Arc<Validator>>,
}

/// Compiled schemas by tool.
#[derive(Default)]
pub(crate) struct SchemaCache {
    compiled: Mutex<HashMap<String, Compiled>>,
}

impl SchemaCache {
    /// Checks a call's arguments.
    pub(crate) fn validate(&self, definition: &Definition, arguments: &RawJson) -> Result<(), ValidationProblem> {
        let Some(validator) = self.validator(definition) else { return Ok(()) };
        let arguments: Value = arguments.parse().map_err(|cause| ValidationProblem(cause.to_string()))?;
        if validator.is_valid(&arguments) {
            return Ok(());
        }
        let problems: Vec<String> = validator
            .iter_errors(&arguments)
            .take(MAX_PROBLEMS)
            .map(|problem| {
                let at = problem.instance_path().to_string();
                let at = if at.is_empty() { String::new() } else { format!("{at}: ") };
                // The value itself may be a secret: the masked text names only the rule.
                format!("{at}{}", problem.masked()).chars().take(MAX_PROBLEM_CHARS).collect()
            })
            .collect();
        Err(ValidationProblem(problems.join("; ")))
    }

    fn validator(&self, definition: &Definition) -> Option<Arc<Validator>> {
        let mut compiled = self.compiled.lock();
        if let Some(known) = compiled.get(&definition.name)
            && known.raw == definition.raw
        {
            return known.validator.clone();
        }
        if compiled.len() >= MAX_COMPILED {
            compiled.clear();
        }
        let validator = compile(definition);
        if validator.is_none() {
            tracing::warn!(tool = definition.name, "its input schema cannot be checked here");
        }
        let raw = definition.raw.clone();
        compiled.insert(definition.name.clone(), Compiled { raw, validator: validator.clone() });
        validator
    }
}

fn compile(definition: &Definition) -> Option<Arc<Validator>> {
    let schema = RawObject::parse(&definition.raw).ok()?.get("inputSchema")?;
    if schema.as_bytes().len() > MAX_SCHEMA_BYTES {
        return None;
    }
    let schema: Value = schema.parse().ok()?;
    let options = jsonschema::options().with_pattern_options(PatternOptions::regex()).offline();
    options.build(&schema).ok().map(Arc::new)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(schema: Value, arguments: Value) -> Result<(), String> {
        let raw = RawJson::from(json!({"name": "t", "inputSchema": schema}));
        let definition = Definition { name: "t".to_owned(), raw };
        let cache = SchemaCache::default();
        cache.validate(&definition, &RawJson::from(arguments)).map_err(|p| p.0)
    }

    #[test]
    fn arguments_are_checked() {
        let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]});
        assert_eq!(check(schema.clone(), json!({"n": 1})), Ok(()));
        assert!(check(schema.clone(), json!({})).is_err_and(|p| p.contains("required")));
        let secret = check(schema, json!({"n": "hunter2"}));
        assert!(secret.is_err_and(|p| p.contains("/n") && !p.contains("hunter2")));
    }

    #[test]
    fn what_cannot_be_checked_is_left_to_the_upstream() {
        let remote = json!({"$ref": "https://example.com/schema.json"});
        assert_eq!(check(remote, json!({"n": 1})), Ok(()));
        let look_around = json!({"properties": {"n": {"pattern": "(?=a)(a+)+$"}}});
        assert_eq!(check(look_around, json!({"n": "b"})), Ok(()));
    }
}
