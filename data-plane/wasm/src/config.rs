//! A configuration beside the schema that the plugin gives of it.

use provost_mcp::RawJson;
use serde_json::Value;

use crate::{PluginError, Schema};

/// An error ([`PluginError::Config`]) unless the configuration fits the schema, if that can be checked here.
pub(crate) fn check(schema: &RawJson, config: &RawJson) -> Result<(), PluginError> {
    let (Some(schema), Ok(config)) = (Schema::compile(schema), config.parse::<Value>()) else { return Ok(()) };
    match schema.problems(&config) {
        None => Ok(()),
        Some(problems) => Err(PluginError::Config(format!("it does not fit its schema: {problems}"))),
    }
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
