//! The text side of models: tokens, templates, and text that arrives in pieces.

mod call_watch;
mod calls;
mod chat_text;
mod embedding_text;
mod emitter;
mod gguf_tokenizer;
mod grammar;
mod grammar_cache;
mod incremental;
mod inert;
mod stop;
mod template;
mod token_bytes;

pub(crate) use call_watch::CallWatch;
pub(crate) use calls::CallReader;
pub use chat_text::ChatText;
pub use embedding_text::EmbeddingText;
pub(crate) use embedding_text::Pooling;
pub(crate) use emitter::{Emitter, Ending};
pub(crate) use gguf_tokenizer::{begins_of_gguf, tokenizer_of_gguf};
pub(crate) use grammar::Grammar;
pub use incremental::IncrementalText;
pub use stop::StopTexts;
pub use template::ChatTemplate;
