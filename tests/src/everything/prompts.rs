//! The prompts.

use rmcp::{
    ErrorData, RoleServer,
    model::{GetPromptRequestParams, GetPromptResponse, GetPromptResult, Prompt},
    service::RequestContext,
};
use serde_json::{Value, json};

use super::{
    PIXEL_PNG,
    ask::{Asked, ask, elicitation, required},
    result, value,
};

/// Every prompt's definition.
pub(super) fn prompts() -> Result<Vec<Prompt>, ErrorData> {
    value(json!([
        {"name": "test_simple_prompt", "description": "A prompt without arguments."},
        {"name": "test_prompt_with_arguments", "description": "A prompt with two arguments.",
         "arguments": [{"name": "arg1", "description": "The first.", "required": true},
                       {"name": "arg2", "description": "The second.", "required": true}]},
        {"name": "test_prompt_with_embedded_resource", "description": "A prompt with a resource.",
         "arguments": [{"name": "resourceUri", "description": "Which.", "required": true}]},
        {"name": "test_prompt_with_image", "description": "A prompt with an image."},
        {"name": "test_input_required_result_prompt", "description": "A prompt that asks first."},
    ]))
}

/// One prompt.
pub(super) async fn get(
    request: GetPromptRequestParams,
    cx: &RequestContext<RoleServer>,
) -> Result<GetPromptResponse, ErrorData> {
    let arguments = request.arguments.unwrap_or_default();
    let argument = |name: &str| arguments.get(name).and_then(Value::as_str).unwrap_or_default();
    let user = |content: Value| json!({"role": "user", "content": content});
    let text = |text: String| user(json!({"type": "text", "text": text}));
    let messages = match request.name.as_str() {
        "test_simple_prompt" => json!([text("This is a simple prompt for testing.".into())]),
        "test_prompt_with_arguments" => {
            json!([text(format!("Prompt with arguments: arg1='{}', arg2='{}'", argument("arg1"), argument("arg2")))])
        }
        "test_prompt_with_embedded_resource" => json!([
            user(json!({"type": "resource", "resource": {"uri": argument("resourceUri"),
                "mimeType": "text/plain", "text": "Embedded resource content for testing."}})),
            text("Please process the embedded resource above.".into()),
        ]),
        "test_prompt_with_image" => json!([
            user(json!({"type": "image", "data": PIXEL_PNG, "mimeType": "image/png"})),
            text("Please analyze the image above.".into()),
        ]),
        "test_input_required_result_prompt" => {
            let question = elicitation("What context should the prompt use?", json!({"context": {"type": "string"}}));
            match ask(cx, request.input_responses.as_ref(), vec![("user_context", question)]).await? {
                Asked::Required(requests) => return Ok(required(requests, None).into()),
                Asked::Answers(answers) => json!([text(format!(
                    "Prompt with context: {}",
                    answers["user_context"]["content"]["context"].as_str().unwrap_or_default()
                ))]),
            }
        }
        other => {
            return Err(ErrorData::invalid_params(format!("there is no prompt `{other}`"), None));
        }
    };
    let got: GetPromptResult = result(json!({"messages": messages}))?;
    Ok(got.into())
}
