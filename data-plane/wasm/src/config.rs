//! A configuration beside the schema that the plugin gives of it.
//!
//! Invariants: nothing is fetched; patterns run in linear time; an error names rules and places, and no value, which may be
//! a secret. A schema that is too large, or not usable without what it refers to elsewhere, checks nothing: the
//! plugin still does.

use jsonschema::PatternOptions;
use provost_mcp::RawJson;
use serde_json::Value;

use crate::PluginError;

/// The largest schema that is compiled, in bytes.
const MAX_SCHEMA_BYTES: usize = 256 << 10;
/// Most problems that one error names.
const MAX_PROBLEMS: usize = 3;
/// Longest text of one problem, in characters.
const MAX_PROBLEM_CHARS: usize = 200;

/// An error ([`PluginError::Config`]) unless the configuration fits the schema.
pub(crate) fn check(schema: &RawJson, config: &RawJson) -> Result<(), PluginError> {
    if schema.as_bytes().len() > MAX_SCHEMA_BYTES {
        return Ok(());
    }
    let (Ok(schema), Ok(config)) = (schema.parse::<Value>(), config.parse::<Value>()) else { return Ok(()) };
    let options = jsonschema::options().with_pattern_options(PatternOptions::regex()).offline();
    let Ok(validator) = options.build(&schema) else { return Ok(()) };
    let problems: Vec<String> = validator
        .iter_errors(&config)
        .take(MAX_PROBLEMS)
        .map(|problem| {
            let at = problem.instance_path().to_string();
            let at = if at.is_empty() { String::new() } else { format!("{at}: ") };
            format!("{at}{}", problem.masked()).chars().take(MAX_PROBLEM_CHARS).collect()
        })
        .collect();
    if problems.is_empty() {
        return Ok(());
    }
    Err(PluginError::Config(format!("it does not fit its schema: {}", problems.join("; "))))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn checked(schema: Value, config: Value) -> Result<(), PluginError> {
        check(&RawJson::from(schema), &RawJson::from(config))
    }

    #[test]
    fn what_does_not_fit_is_named_without_its_value() {
        let schema = json!({
            "type": "object", "additionalProperties": false, "required": ["url"],
            "properties": { "url": { "type": "string" }, "digits": { "type": "integer", "maximum": 9 } },
        });
        assert_eq!(checked(schema.clone(), json!({ "url": "a", "digits": 3 })), Ok(()));
        for (config, expect) in [
            (json!({}), "\"url\""),
            (json!({ "url": "a", "digits": 10 }), "/digits"),
            (json!({ "url": "a", "colour": "red" }), "'colour'"),
            (json!({ "url": ["hunter2"] }), "/url"),
        ] {
            let told = checked(schema.clone(), config.clone()).map_err(|error| error.to_string());
            let fits = |text: &String| {
                text.starts_with("PV-PLUGIN-CONFIG") && text.contains(expect) && !text.contains("hunter2")
            };
            assert!(told.as_ref().is_err_and(fits), "{config}: {told:?}");
        }
    }

    #[test]
    fn what_cannot_be_checked_is_left_to_the_plugin() {
        let elsewhere = json!({ "$ref": "https://example.com/schema.json" });
        let look_around = json!({ "properties": { "n": { "pattern": "(?=a)(a+)+$" } } });
        for schema in [elsewhere, look_around, json!(7)] {
            assert_eq!(checked(schema, json!({ "n": "b" })), Ok(()));
        }
    }
}
