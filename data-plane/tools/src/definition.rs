//! A definition as its upstream gave it.

use std::sync::Arc;

use provost_mcp::RawJson;

/// A tool, prompt, resource or template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// The local name: `name`, `uri` or `uriTemplate`.
    pub name: String,
    /// The whole definition, byte for byte.
    pub raw: RawJson,
}

/// One list, shared.
pub type Definitions = Arc<Vec<Definition>>;
