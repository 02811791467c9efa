//! Arguments against a tool's input schema.
//!
//! Invariant: a schema that cannot be checked here ([`Schema`]) checks nothing (the upstream still does), and the log says so
//! once.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use provost_data_wasm::Schema;
use provost_mcp::{RawJson, RawObject};
use serde_json::Value;

use crate::Definition;

/// Most compiled schemas of one plugin.
const MAX_COMPILED: usize = 1_024;

/// What is wrong with the arguments: the rules that are broken, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the arguments do not fit the tool's input schema: {0}")]
pub struct ValidationProblem(pub String);

struct Compiled {
    raw: RawJson,
    validator: Option<Arc<Schema>>,
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
        validator.problems(&arguments).map_or(Ok(()), |problems| Err(ValidationProblem(problems)))
    }

    fn validator(&self, definition: &Definition) -> Option<Arc<Schema>> {
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

fn compile(definition: &Definition) -> Option<Arc<Schema>> {
    Schema::compile(&RawObject::parse(&definition.raw).ok()?.get("inputSchema")?).map(Arc::new)
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
