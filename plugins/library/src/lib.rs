//! A plugin with prompts and resources beside a tool, for the tests of the host.

use provost_plugin::{
    Call, Failure, Messages, Plugin, Prompt, Resource, Template, Tool, schemars::JsonSchema, serde::Deserialize,
};

#[derive(Deserialize, JsonSchema)]
#[serde(crate = "provost_plugin::serde", deny_unknown_fields)]
#[schemars(crate = "provost_plugin::schemars")]
struct Book {
    /// The book.
    title: String,
    /// How to speak of it.
    tone: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(crate = "provost_plugin::serde", deny_unknown_fields)]
#[schemars(crate = "provost_plugin::schemars")]
struct Nothing {}

fn review(_: &Call, book: Book) -> Result<Messages, Failure> {
    if book.title == "trap" {
        panic!("asked to");
    }
    let tone = book.tone.as_deref().unwrap_or("plain");
    let ask = format!("Review “{}” in a {tone} tone.", book.title);
    Ok(Messages::new().description("A review").user(ask).assistant("Which edition?"))
}

fn page(_: &Call, uri: &str) -> Result<String, Failure> {
    match uri.strip_prefix("library://pages/") {
        Some("large") => Ok("x".repeat(8 << 20)),
        Some("") | None => Err(Failure::Arguments("there is no such page".to_owned())),
        Some(page) => Ok(format!("page {page}")),
    }
}

fn plugin() -> Plugin {
    Plugin::new()
        .with(Tool::new("ping", "Says pong.", |_: &Call, _: Nothing| "pong"))
        .with_prompt(Prompt::new("review", "Asks for a review of a book.", review).title("Review"))
        .with_resource(Resource::new("library://cover", "cover", |_: &Call| vec![0_u8, 255, 1]).mime_type("image/png"))
        .with_resource(
            Resource::new("library://index", "index", |call: &Call| call.principal().unwrap_or("nobody").to_owned())
                .title("Index")
                .description("Who asks.")
                .mime_type("text/plain"),
        )
        .with_template(Template::new("library://pages/{page}", "page", page).mime_type("text/plain"))
}

provost_plugin::export!(plugin, prompts, resources);
