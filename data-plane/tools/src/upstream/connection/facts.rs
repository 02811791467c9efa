//! What an upstream says of itself.

use provost_mcp::{Era, RawJson, RawObject};

/// What the upstream says of itself.
#[derive(Clone, Debug)]
pub struct ServerFacts {
    /// The era that is spoken with it.
    pub era: Era,
    /// The revision that is spoken with it.
    pub protocol_version: String,
    /// Its capabilities object.
    pub capabilities: RawJson,
    /// Its `serverInfo` object.
    pub server_info: Option<RawJson>,
    /// Its instructions for the model.
    pub instructions: Option<String>,
}

impl ServerFacts {
    /// Whether the capability is declared.
    pub fn can(&self, capability: &str) -> bool {
        RawObject::parse(&self.capabilities).is_ok_and(|c| c.has(capability))
    }

    /// Whether it declares `resources.subscribe`.
    pub fn tells_of_resources(&self) -> bool {
        let capabilities = RawObject::parse(&self.capabilities).ok();
        let resources = capabilities.and_then(|c| c.get_object("resources"));
        resources.and_then(|r| r.get("subscribe")).is_some_and(|flag| flag.is_true())
    }
}
