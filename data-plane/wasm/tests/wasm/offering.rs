//! Prompts and resources: what a plugin may export beside its tools.

use std::sync::Arc;

use provost_data_wasm::{PluginAnswer, PluginError, PluginItem, PluginSettings, WasmPlugin};
use serde_json::{Value, json};

use crate::world::{FakeHost, LIBRARY, TEXT, call, engine_of, plugin_of, said};

fn library() -> WasmPlugin {
    plugin_of(&engine_of(4), LIBRARY, PluginSettings::default())
}

fn body(ended: Result<PluginAnswer, PluginError>) -> Value {
    let PluginAnswer::Complete { body, is_error } = ended.unwrap() else { panic!("it asks") };
    assert!(!is_error);
    body.parse().unwrap()
}

fn shown(items: &Arc<[PluginItem]>) -> Vec<Value> {
    items.iter().map(|item| item.definition.parse().unwrap()).collect()
}

#[tokio::test]
async fn what_a_plugin_offers_is_listed() {
    let offer = library().offer().await.unwrap();
    let arguments = json!([
        { "name": "title", "description": "The book.", "required": true },
        { "name": "tone", "description": "How to speak of it.", "required": false },
    ]);
    let review = json!({
        "name": "review", "title": "Review", "description": "Asks for a review of a book.", "arguments": arguments,
    });
    assert_eq!(shown(&offer.prompts), [review]);
    assert_eq!(
        offer.resources.iter().map(|item| item.key.as_str()).collect::<Vec<_>>(),
        ["library://cover", "library://index"]
    );
    let template = json!({ "uriTemplate": "library://pages/{page}", "name": "page", "mimeType": "text/plain" });
    assert_eq!(shown(&offer.templates), [template]);
    // One that exports tools alone is a plugin as before.
    let text = plugin_of(&engine_of(4), TEXT, PluginSettings::default());
    let offer = text.offer().await.unwrap();
    assert!(offer.prompts.is_empty() && offer.resources.is_empty() && offer.templates.is_empty());
    let none = text.get_prompt(&call("review", "{}"), FakeHost::new()).await;
    assert_eq!(none, Err(PluginError::UnknownPrompt("review".to_owned())));
}

#[tokio::test]
async fn a_prompt_is_made_of_its_arguments() {
    let plugin = library();
    let made = plugin.get_prompt(&call("review", r#"{"title":"Emma"}"#), FakeHost::new()).await;
    let messages = json!([
        { "role": "user", "content": { "type": "text", "text": "Review “Emma” in a plain tone." } },
        { "role": "assistant", "content": { "type": "text", "text": "Which edition?" } },
    ]);
    assert_eq!(body(made), json!({ "description": "A review", "messages": messages }));
    let missing = plugin.get_prompt(&call("review", "{}"), FakeHost::new()).await;
    assert!(matches!(&missing, Err(PluginError::InvalidParams(why)) if why.contains("title")), "{missing:?}");
    let unknown = plugin.get_prompt(&call("gone", "{}"), FakeHost::new()).await;
    assert_eq!(unknown, Err(PluginError::UnknownPrompt("gone".to_owned())));
    let trap = plugin.get_prompt(&call("review", r#"{"title":"trap"}"#), FakeHost::new()).await;
    assert!(matches!(trap, Err(PluginError::Trap(_))), "{trap:?}");
    // Its tools are as good as ever.
    assert_eq!(said(plugin.call(&call("ping", "{}"), FakeHost::new()).await), "pong");
}

#[tokio::test]
async fn a_resource_is_read_by_its_address_or_by_a_template() {
    let plugin = library();
    let read = async |uri: &str| {
        let look = call(uri, "{}");
        plugin.read_resource(&look, FakeHost::new()).await
    };
    let cover = json!({ "uri": "library://cover", "mimeType": "image/png", "blob": "AP8B" });
    assert_eq!(body(read("library://cover").await), json!({ "contents": [cover] }));
    let index = json!({ "uri": "library://index", "mimeType": "text/plain", "text": "nobody" });
    assert_eq!(body(read("library://index").await), json!({ "contents": [index] }));
    let page = json!({ "uri": "library://pages/7", "mimeType": "text/plain", "text": "page 7" });
    assert_eq!(body(read("library://pages/7").await), json!({ "contents": [page] }));
    for (uri, expect) in [
        ("library://nothing", PluginError::UnknownResource("library://nothing".to_owned())),
        ("library://pages/", PluginError::InvalidParams("there is no such page".to_owned())),
    ] {
        assert_eq!(read(uri).await, Err(expect), "{uri}");
    }
    let large = read("library://pages/large").await;
    assert!(matches!(large, Err(PluginError::TooLarge(_))), "{:?}", large.map(drop));
}
