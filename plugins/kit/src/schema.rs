//! JSON Schema out of types.

use schemars::{JsonSchema, generate::SchemaSettings};

/// The schema of `T` as text, in one piece: no references for readers to follow.
pub(crate) fn of<T: JsonSchema>() -> String {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        // Said by MCP.
        settings.meta_schema = None;
    });
    let mut schema = settings.into_generator().into_root_schema_for::<T>();
    // The name of a Rust type says nothing to a model.
    schema.remove("title");
    schema.as_value().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(JsonSchema)]
    #[allow(dead_code)]
    struct Outer {
        /// What it is for.
        inner: Inner,
        maybe: Option<u8>,
    }

    #[derive(JsonSchema)]
    #[allow(dead_code)]
    struct Inner {
        x: bool,
    }

    #[test]
    fn a_schema_is_an_object_without_references() {
        let schema: serde_json::Value = serde_json::from_str(&of::<Outer>()).unwrap();
        assert_eq!(schema["type"], "object");
        assert_eq!(schema["required"], serde_json::json!(["inner"]));
        assert_eq!(schema["properties"]["inner"]["properties"]["x"]["type"], "boolean");
        assert_eq!(schema["properties"]["inner"]["description"], "What it is for.");
        assert!(schema.get("title").is_none() && schema.get("$schema").is_none() && schema.get("$defs").is_none());
    }
}
