//! What can be written in a document, from the doc comments of the types.

use provost_types::{
    ApiKeySpec, ConnectionSpec, GuardSpec, IdentityProviderSpec, KillSwitchSpec, Kind, Metadata, ModelSpec,
    NodeGroupSpec, PluginSpec, PolicySpec, PriceSpec, PrincipalSpec, PublisherSpec, QuotaSpec, RoleBindingSpec,
    RoleSpec, SecretSpec, TenantSpec, ToolAliasSpec, ToolPinsSpec,
};
use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use crate::{ControlError, ErrorKind, documents::API_VERSION};

/// Deepest nesting that is described; specs are shallower.
const MAX_DEPTH: usize = 8;

/// A kind and its fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// The kind.
    pub kind: Kind,
    /// What it is for.
    pub doc: String,
    /// Its fields, in order of path.
    pub fields: Vec<ExplainedField>,
}

/// One field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExplainedField {
    /// Path such as `spec.rules[].tools`.
    pub path: String,
    /// Type as written, such as `string`, `list of string`, `enforce | observe`.
    pub type_name: String,
    /// Whether it must be given.
    pub required: bool,
    /// What it means.
    pub doc: String,
}

fn spec_schema(generator: &mut SchemaGenerator, kind: Kind) -> Value {
    let schema = match kind {
        Kind::Tenant => generator.subschema_for::<TenantSpec>(),
        Kind::Principal => generator.subschema_for::<PrincipalSpec>(),
        Kind::ApiKey => generator.subschema_for::<ApiKeySpec>(),
        Kind::Role => generator.subschema_for::<RoleSpec>(),
        Kind::RoleBinding => generator.subschema_for::<RoleBindingSpec>(),
        Kind::Policy => generator.subschema_for::<PolicySpec>(),
        Kind::Plugin => generator.subschema_for::<PluginSpec>(),
        Kind::Secret => generator.subschema_for::<SecretSpec>(),
        Kind::Quota => generator.subschema_for::<QuotaSpec>(),
        Kind::NodeGroup => generator.subschema_for::<NodeGroupSpec>(),
        Kind::Price => generator.subschema_for::<PriceSpec>(),
        Kind::Guard => generator.subschema_for::<GuardSpec>(),
        Kind::KillSwitch => generator.subschema_for::<KillSwitchSpec>(),
        Kind::IdentityProvider => generator.subschema_for::<IdentityProviderSpec>(),
        Kind::ToolPins => generator.subschema_for::<ToolPinsSpec>(),
        Kind::ToolAlias => generator.subschema_for::<ToolAliasSpec>(),
        Kind::Connection => generator.subschema_for::<ConnectionSpec>(),
        Kind::Publisher => generator.subschema_for::<PublisherSpec>(),
        Kind::Model => generator.subschema_for::<ModelSpec>(),
    };
    schema.to_value()
}

/// JSON Schema (2020-12) of every kind that documents can be of, as one `oneOf`.
pub fn schema() -> Value {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let metadata = generator.subschema_for::<Metadata>().to_value();
    let kinds: Vec<Value> = Kind::ALL
        .into_iter()
        .filter(|kind| !kind.is_governance())
        .map(|kind| {
            let spec = spec_schema(&mut generator, kind);
            json!({
                "title": kind.as_str(),
                "type": "object",
                "properties": {
                    "apiVersion": { "const": API_VERSION },
                    "kind": { "const": kind.as_str() },
                    "metadata": metadata,
                    "spec": spec,
                },
                "required": ["apiVersion", "kind", "metadata"],
                "additionalProperties": false,
            })
        })
        .collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Provost resources",
        "oneOf": kinds,
        "$defs": generator.take_definitions(true),
    })
}

/// Explains a kind (`Plugin`), or the fields below a path of it (`Plugin.source.mcp-http`).
pub fn explain(path: &str) -> Result<Explained, ControlError> {
    let (kind, rest) = path.split_once('.').unwrap_or((path, ""));
    let kind: Kind =
        kind.parse().map_err(|e| ControlError::new(ErrorKind::NotFound, "PV-CTL-EXPLAIN", format!("{e}"), ""))?;
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let metadata = generator.subschema_for::<Metadata>().to_value();
    let spec = spec_schema(&mut generator, kind);
    let definitions = generator.take_definitions(true);
    let walk = Walk { definitions: &definitions };
    let mut fields = Vec::new();
    walk.fields("metadata", &metadata, 0, &mut fields);
    walk.fields("spec", &spec, 0, &mut fields);
    let doc = text_of(walk.resolve(&spec), "description");
    if !rest.is_empty() {
        let wanted =
            if rest == "spec" || rest == "metadata" || rest.starts_with("spec.") || rest.starts_with("metadata.") {
                rest.to_owned()
            } else {
                format!("spec.{rest}")
            };
        fields.retain(|f| {
            let bare = f.path.replace("[]", "").replace(".*", "");
            bare == wanted || bare.starts_with(&format!("{wanted}."))
        });
        if fields.is_empty() {
            let text = format!("{kind} has no field `{rest}`");
            let hint = format!("`provost explain {kind}` lists them");
            return Err(ControlError::new(ErrorKind::NotFound, "PV-CTL-EXPLAIN", text, hint));
        }
    }
    Ok(Explained { kind, doc, fields })
}

struct Walk<'a> {
    definitions: &'a Map<String, Value>,
}

impl Walk<'_> {
    fn resolve<'v>(&'v self, schema: &'v Value) -> &'v Value {
        let reference = schema.get("$ref").and_then(Value::as_str);
        match reference.and_then(|r| r.strip_prefix("#/$defs/")) {
            Some(name) => self.definitions.get(name).unwrap_or(schema),
            None => schema,
        }
    }

    /// The schema of an optional field: `anyOf` with null, or the schema itself.
    fn not_null<'v>(&'v self, schema: &'v Value) -> &'v Value {
        let options = schema.get("anyOf").and_then(Value::as_array);
        let given = options.and_then(|o| o.iter().find(|s| s.get("type") != Some(&json!("null"))));
        self.resolve(given.unwrap_or(schema))
    }

    fn fields(&self, path: &str, schema: &Value, depth: usize, found: &mut Vec<ExplainedField>) {
        if depth > MAX_DEPTH {
            return;
        }
        let schema = self.not_null(self.resolve(schema));
        let required: Vec<&str> = schema
            .get("required")
            .and_then(Value::as_array)
            .map(|names| names.iter().filter_map(Value::as_str).collect())
            .unwrap_or_default();
        if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
            for (name, child) in properties {
                let path = format!("{path}.{name}");
                self.field(&path, child, required.contains(&name.as_str()), depth, found);
            }
        }
        // An enum of alternatives: each is an object with one property of its own.
        for option in alternatives(schema) {
            if let Some(properties) = option.get("properties").and_then(Value::as_object) {
                for (name, child) in properties {
                    let path = format!("{path}.{name}");
                    let mut below = Vec::new();
                    self.field(&path, child, false, depth, &mut below);
                    if let Some(first) = below.first_mut() {
                        let doc = text_of(option, "description");
                        if !doc.is_empty() {
                            first.doc = doc;
                        }
                    }
                    found.append(&mut below);
                }
            }
        }
        if let Some(items) = schema.get("items") {
            self.fields(&format!("{path}[]"), items, depth + 1, found);
        }
        if let Some(values) = schema.get("additionalProperties").filter(|v| v.is_object()) {
            self.fields(&format!("{path}.*"), values, depth + 1, found);
        }
    }

    fn field(&self, path: &str, schema: &Value, required: bool, depth: usize, found: &mut Vec<ExplainedField>) {
        let target = self.not_null(self.resolve(schema));
        let own = text_of(schema, "description");
        let doc = if own.is_empty() { text_of(target, "description") } else { own };
        let type_name = self.type_name(schema);
        found.push(ExplainedField { path: path.to_owned(), type_name, required, doc });
        self.fields(path, schema, depth + 1, found);
    }

    fn type_name(&self, schema: &Value) -> String {
        let schema = self.not_null(self.resolve(schema));
        // Words that have a doc comment stand alone, those that have none together.
        let listed: Vec<&str> = alternatives(schema).iter().chain([schema]).flat_map(words).collect();
        if !listed.is_empty() {
            return listed.join(" | ");
        }
        if !alternatives(schema).is_empty() {
            return "one of".to_owned();
        }
        let name = match schema.get("type") {
            Some(Value::String(name)) => name.as_str(),
            Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).find(|n| *n != "null").unwrap_or("any"),
            _ => "any",
        };
        match (name, schema.get("items"), schema.get("additionalProperties")) {
            ("array", Some(items), _) => format!("list of {}", self.type_name(items)),
            ("object", _, Some(values)) if values.is_object() => {
                format!("map of {}", self.type_name(values))
            }
            _ => name.to_owned(),
        }
    }
}

fn alternatives(schema: &Value) -> &[Value] {
    schema.get("oneOf").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The words that a schema lists itself.
fn words(schema: &Value) -> Vec<&str> {
    let listed = schema.get("enum").and_then(Value::as_array).into_iter().flatten();
    listed.chain(schema.get("const")).filter_map(Value::as_str).collect()
}

fn text_of(schema: &Value, field: &str) -> String {
    schema.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
}
