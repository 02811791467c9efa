//! Tools for Provost as WebAssembly components.
//!
//! A tool is a function from a struct to an answer; its schema is derived from the struct. The component is one line:
//!
//! ```
//! use provost_plugin::{Call, Json, Plugin, Tool, schemars::JsonSchema, serde::{Deserialize, Serialize}};
//!
//! #[derive(Deserialize, JsonSchema)]
//! #[serde(deny_unknown_fields)]
//! struct Text {
//!     /// What to count.
//!     text: String,
//! }
//!
//! #[derive(Serialize, JsonSchema)]
//! struct Counted {
//!     words: usize,
//! }
//!
//! fn count(_: &Call, arguments: Text) -> Json<Counted> {
//!     Json(Counted { words: arguments.text.split_whitespace().count() })
//! }
//!
//! fn plugin() -> Plugin {
//!     Plugin::new().with(Tool::new("count", "Counts the words of a text.", count).read_only())
//! }
//!
//! provost_plugin::export!(plugin);
//! # fn main() {}
//! ```
//!
//! Each call runs in an instance of its own: what a tool keeps in a `static` is gone in the next call; what should
//! stay goes to [`kv`]. There are no files, sockets, threads, environment or randomness.

mod answer;
pub mod bindings;
mod call;
mod config;
mod export;
#[cfg(all(feature = "heap", any(target_family = "wasm", test)))]
mod heap;
pub mod http;
pub mod kv;
mod plugin;
#[cfg(feature = "prompts")]
mod prompt;
#[cfg(feature = "resources")]
mod resource;
mod schema;
mod tool;

pub use answer::{Answer, Ask, Either, Failure, IntoAnswer, Json};
pub use call::{Call, Level};
pub use export::Exported;
pub use plugin::Plugin;
#[cfg(feature = "prompts")]
pub use prompt::{IntoMessages, Messages, Prompt, Role};
#[cfg(feature = "resources")]
pub use resource::{IntoBody, Resource, Template};
pub use tool::Tool;

pub use {schemars, serde, serde_json};
