//! `inference`: the GPU nodes' models as tools.

mod chat;
mod functions;
mod transcribe;

use provost_types::{EmbedRequest, Inference};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Outcome, UnderWay};

/// Most texts of one embedding call.
const MAX_INPUTS: usize = 256;

pub(super) fn tools() -> Vec<Value> {
    let model = json!({"type": "string", "description": "A model's name, as `models` gives it."});
    let hints = json!({"readOnlyHint": true, "openWorldHint": false});
    vec![
        chat::definition(&model, &hints),
        json!({
            "name": "embed",
            "title": "Embed texts",
            "description": "Turns texts into vectors of unit length.",
            "inputSchema": {
                "type": "object",
                "properties": {
                    "model": model,
                    "inputs": {"type": "array", "items": {"type": "string"}, "minItems": 1,
                               "maxItems": MAX_INPUTS},
                },
                "required": ["model", "inputs"],
                "additionalProperties": false,
            },
            "outputSchema": {
                "type": "object",
                "properties": {
                    "vectors": {"type": "array", "items": {"type": "array", "items": {"type": "number"}}},
                    "promptTokens": {"type": "integer"},
                },
                "required": ["vectors", "promptTokens"],
            },
            "annotations": hints,
        }),
        transcribe::definition(&model, &hints),
        json!({
            "name": "models",
            "title": "List models",
            "description": "Lists the models that can be used now.",
            "inputSchema": {"type": "object", "properties": {}, "additionalProperties": false},
            "outputSchema": {
                "type": "object",
                "properties": {"models": {"type": "array", "items": {"type": "object"}}},
                "required": ["models"],
            },
            "annotations": hints,
        }),
    ]
}

pub(super) async fn call(
    inference: &dyn Inference,
    tenant: &str,
    tool: &str,
    arguments: &Map<String, Value>,
    under_way: &UnderWay,
) -> Outcome {
    let done = match tool {
        "chat" => chat::chat(inference, tenant, arguments, under_way).await,
        "embed" => embed(inference, tenant, arguments, under_way).await,
        "transcribe" => transcribe::transcribe(inference, tenant, arguments, under_way).await,
        _ => return Outcome::structured(json!({"models": inference.models_of(tenant)})),
    };
    done.unwrap_or_else(Outcome::failure)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EmbedArguments {
    model: String,
    inputs: Vec<String>,
}

async fn embed(
    inference: &dyn Inference,
    tenant: &str,
    arguments: &Map<String, Value>,
    under_way: &UnderWay,
) -> Result<Outcome, String> {
    let EmbedArguments { model, inputs } = read(arguments)?;
    if inputs.is_empty() || inputs.len() > MAX_INPUTS {
        return Err(format!("`inputs` must have 1 to {MAX_INPUTS} texts"));
    }
    let request = EmbedRequest { tenant: tenant.to_owned(), model, inputs };
    under_way.begins();
    let response = inference.embed(request).await.map_err(|cause| {
        under_way.was_refused();
        cause.to_string()
    })?;
    let mut outcome = Outcome::structured(json!({
        "vectors": response.vectors,
        "promptTokens": response.usage.prompt,
    }));
    outcome.usage.tokens_in = response.usage.prompt;
    Ok(outcome)
}

fn read<T: serde::de::DeserializeOwned>(arguments: &Map<String, Value>) -> Result<T, String> {
    T::deserialize(Value::Object(arguments.clone())).map_err(|cause| format!("the arguments are wrong: {cause}"))
}
