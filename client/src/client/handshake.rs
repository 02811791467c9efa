//! Which era is spoken, and the legacy session.

use std::time::Duration;

use provost_mcp::{Era, ProtocolVersion, RawJson, RawObject, RpcError};

use super::{EraChoice, ServerFacts, connected::Connected};
use crate::{ClientError, LinkError, Outgoing};

impl Connected {
    pub(super) async fn negotiate(&self, era: EraChoice, limit: Duration) -> Result<ServerFacts, ClientError> {
        match era {
            EraChoice::Only(Era::Modern) => self.discover(limit).await,
            EraChoice::Only(Era::Legacy) => self.initialize(limit).await,
            EraChoice::Auto => match self.discover(limit).await {
                Err(error) if may_be_legacy(&error) => {
                    tracing::debug!(%error, "no discovery: trying the legacy handshake");
                    // What it said to the modern request is the better answer if it speaks neither.
                    self.initialize(limit).await.map_err(|_| error)
                }
                other => other,
            },
        }
    }

    async fn discover(&self, limit: Duration) -> Result<ServerFacts, ClientError> {
        let params = self.with_meta(RawObject::new(), None);
        let result = self.ask("server/discover", &params, Some(limit)).await?;
        let result = RawObject::parse(&result).map_err(|cause| LinkError::Answer(cause.to_string()))?;
        let versions: Vec<String> = result.get("supportedVersions").and_then(|v| v.parse().ok()).unwrap_or_default();
        let speaks = ProtocolVersion::ALL.into_iter().rev().filter(|v| v.era() == Era::Modern);
        let Some(version) = speaks.into_iter().find(|v| versions.iter().any(|s| s == v.as_str())) else {
            let message = format!("the server does not speak {}", ProtocolVersion::LATEST);
            return Err(ClientError::Rpc(RpcError::new(RpcError::UNSUPPORTED_VERSION, message)));
        };
        let capabilities = result.get("capabilities").unwrap_or(RawJson::EMPTY_OBJECT);
        Ok(ServerFacts { era: Era::Modern, version, capabilities })
    }

    async fn initialize(&self, limit: Duration) -> Result<ServerFacts, ClientError> {
        let mut params = RawObject::new();
        params.set_text("protocolVersion", ProtocolVersion::LATEST_LEGACY.as_str());
        params.set("capabilities", self.identity.capabilities.clone());
        params.set("clientInfo", self.client_info());
        let result = self.ask("initialize", &params.finish(), Some(limit)).await?;
        let result = RawObject::parse(&result).map_err(|cause| LinkError::Answer(cause.to_string()))?;
        let named = result.get_text("protocolVersion").unwrap_or_default();
        let Some(version) = ProtocolVersion::parse(&named).filter(|v| v.era() == Era::Legacy) else {
            return Err(LinkError::Answer(format!("the server wants to speak revision `{named}`")).into());
        };
        self.link.send(Outgoing::notification("notifications/initialized", None)).await?;
        let capabilities = result.get("capabilities").unwrap_or(RawJson::EMPTY_OBJECT);
        Ok(ServerFacts { era: Era::Legacy, version, capabilities })
    }
}

/// Whether a server that knows no discovery may have said this. Refusals of the caller, and servers that
/// cannot be reached, are what they are.
fn may_be_legacy(error: &ClientError) -> bool {
    match error {
        ClientError::Rpc(error) => error.code < 0,
        ClientError::Link(LinkError::Refused { status, .. }) => !matches!(status, 401 | 403 | 429 | 500..),
        ClientError::Link(LinkError::Deadline(_)) => true,
        ClientError::Link(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_come_from_a_legacy_server() {
        let refused = |status| ClientError::Link(LinkError::Refused { status, text: String::new() });
        let table = [
            (ClientError::Rpc(RpcError::new(RpcError::METHOD_NOT_FOUND, "")), true),
            (ClientError::Rpc(RpcError::new(RpcError::INVALID_REQUEST, "")), true),
            (ClientError::Rpc(RpcError::new(-32000, "no session")), true),
            (ClientError::Rpc(RpcError::new(RpcError::UNAUTHENTICATED, "")), false),
            (refused(400), true),
            (refused(404), true),
            (refused(401), false),
            (refused(503), false),
            (ClientError::Link(LinkError::Deadline(Duration::from_secs(1))), true),
            (ClientError::Link(LinkError::Lost(String::new())), false),
        ];
        for (error, expect) in table {
            assert_eq!(may_be_legacy(&error), expect, "{error:?}");
        }
    }
}
