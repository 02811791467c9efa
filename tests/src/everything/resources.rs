//! The resources.

use rmcp::{
    ErrorData,
    model::{ReadResourceResult, Resource, ResourceTemplate},
};
use serde_json::json;

use super::{PIXEL_PNG, result, value};

/// Every resource's definition.
pub(super) fn resources() -> Result<Vec<Resource>, ErrorData> {
    value(json!([
        {"uri": "test://static-text", "name": "Static text", "mimeType": "text/plain"},
        {"uri": "test://static-binary", "name": "Static image", "mimeType": "image/png"},
        {"uri": "test://watched-resource", "name": "Watched", "mimeType": "text/plain"},
    ]))
}

/// Every template's definition.
pub(super) fn templates() -> Result<Vec<ResourceTemplate>, ErrorData> {
    value(json!([
        {"uriTemplate": "test://template/{id}/data", "name": "Data by id",
         "mimeType": "application/json"},
    ]))
}

/// One resource.
pub(super) fn read(uri: &str) -> Result<ReadResourceResult, ErrorData> {
    let text = |mime: &str, text: String| json!({"uri": uri, "mimeType": mime, "text": text});
    let contents = match uri {
        "test://static-text" => text("text/plain", "This is the content of the static text resource.".into()),
        "test://watched-resource" => text("text/plain", "Watched resource content.".into()),
        "test://static-binary" => json!({"uri": uri, "mimeType": "image/png", "blob": PIXEL_PNG}),
        _ => {
            let id = uri.strip_prefix("test://template/").and_then(|u| u.strip_suffix("/data"));
            let Some(id) = id else {
                return Err(ErrorData::resource_not_found(
                    format!("there is no resource `{uri}`"),
                    Some(json!({"uri": uri})),
                ));
            };
            let data = json!({"id": id, "templateTest": true, "data": format!("Data for ID: {id}")});
            text("application/json", data.to_string())
        }
    };
    result(json!({"contents": [contents]}))
}
