//! What a plugin says that it has: of itself, and its lists.

use provost_mcp::{Era, ProtocolVersion, RawJson};
use serde_json::json;

use super::Plugin;
use crate::{Definition, Definitions, ServerFacts, UpstreamError, ValidationProblem, upstream::ListKind};

impl Plugin {
    /// What the server says of itself: era, revision, capabilities, instructions.
    pub async fn capabilities(&self) -> Result<ServerFacts, UpstreamError> {
        match (self.source.mcp(), self.source.cause()) {
            (Some(upstream), _) => match self.shield.watch().recall(upstream.facts()).await {
                // What it said last is true until it can be asked again.
                Err(cause @ UpstreamError::Open { .. }) => self.facts.lock().clone().ok_or(cause),
                facts => facts.inspect(|facts| *self.facts.lock() = Some(facts.clone())),
            },
            (None, Some(cause)) => Err(cause.clone()),
            (None, None) => Ok(ServerFacts {
                era: Era::Modern,
                protocol_version: ProtocolVersion::LATEST.as_str().to_owned(),
                capabilities: self.own_capabilities(),
                server_info: Some(RawJson::from(
                    json!({"name": self.name.as_str(), "version": env!("CARGO_PKG_VERSION")}),
                )),
                instructions: None,
            }),
        }
    }

    /// What it has, of a plugin that no server stands behind.
    fn own_capabilities(&self) -> RawJson {
        let mut capabilities = json!({"tools": {}});
        for (member, kinds) in
            [("prompts", &[ListKind::Prompts][..]), ("resources", &[ListKind::Resources, ListKind::Templates][..])]
        {
            if kinds.iter().any(|kind| !self.at_hand(*kind).is_empty()) {
                capabilities[member] = json!({});
            }
        }
        RawJson::from(capabilities)
    }

    /// Its tools. All lists are fetched once for all callers and cached.
    pub async fn tools(&self) -> Result<Definitions, UpstreamError> {
        self.list(ListKind::Tools).await
    }

    /// Its prompts.
    pub async fn prompts(&self) -> Result<Definitions, UpstreamError> {
        self.list(ListKind::Prompts).await
    }

    /// Its resources.
    pub async fn resources(&self) -> Result<Definitions, UpstreamError> {
        self.list(ListKind::Resources).await
    }

    /// Its resource templates.
    pub async fn resource_templates(&self) -> Result<Definitions, UpstreamError> {
        self.list(ListKind::Templates).await
    }

    pub(super) async fn list(&self, kind: ListKind) -> Result<Definitions, UpstreamError> {
        let stand_in = self.stand_in();
        stand_in.as_deref().unwrap_or(self).source.list(kind).await
    }

    /// A list as far as it is known without asking; however old.
    pub fn at_hand(&self, kind: ListKind) -> Definitions {
        let stand_in = self.stand_in();
        stand_in.as_deref().unwrap_or(self).source.at_hand(kind).unwrap_or_default()
    }

    /// The tool's definition, if its list was fetched before (resolving a call does that).
    pub fn cached_tool(&self, tool: &str) -> Option<Definition> {
        let stand_in = self.stand_in();
        let tools = stand_in.as_deref().unwrap_or(self).source.at_hand(ListKind::Tools)?;
        tools.named(tool).cloned()
    }

    /// Checks a call's arguments (the object itself) against the tool's input schema. Waits for
    /// nothing: a tool whose definition is not at hand is left to the upstream.
    pub fn validate(&self, tool: &str, arguments: &RawJson) -> Result<(), ValidationProblem> {
        match self.at_hand(ListKind::Tools).named(tool) {
            Some(definition) => self.schemas.validate(definition, arguments),
            None => Ok(()),
        }
    }
}
