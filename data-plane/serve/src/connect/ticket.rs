//! What a browser carries for a consent: the address that a call names, and the flow behind it. Both sealed.

use std::sync::Arc;

use provost_types::{Name, PrincipalRef};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    SealKeys,
    seal::{SealFailed, Sealer, random_id},
};

/// How long an address is good, in nanoseconds: a person reads, and may have to look for a token.
const TICKET_NS: u64 = 15 * 60 * 1_000_000_000;
/// How long a user may take at the authorization server, in seconds.
pub(super) const FLOW_S: u64 = 10 * 60;

/// Whose call named the address, and for which plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ticket {
    #[serde(rename = "p")]
    pub(crate) principal: PrincipalRef,
    #[serde(rename = "g")]
    pub(crate) plugin: Name,
    /// The elicitation, as the client knows it.
    #[serde(rename = "i")]
    pub(crate) elicitation: String,
    /// The legacy session that is told when it is done.
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    pub(crate) session: Option<String>,
    /// When it was made, nanoseconds since the Unix epoch.
    #[serde(rename = "t")]
    pub(crate) made_ns: u64,
}

/// A flow that the proved principal has begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Flow {
    #[serde(rename = "k")]
    pub(crate) ticket: Ticket,
    /// The PKCE verifier.
    #[serde(rename = "v")]
    pub(crate) verifier: String,
    #[serde(rename = "r")]
    pub(crate) redirect: String,
    /// The authorization server.
    #[serde(rename = "u", default, skip_serializing_if = "Option::is_none")]
    pub(crate) issuer: Option<String>,
    /// When it began, nanoseconds since the Unix epoch.
    #[serde(rename = "b")]
    pub(crate) began_ns: u64,
}

/// What the button of one connection carries: only who proved to be the principal was shown it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ending {
    #[serde(rename = "p")]
    pub(crate) principal: PrincipalRef,
    #[serde(rename = "g")]
    pub(crate) plugin: Name,
    /// When the flow began that led to the connection: a later one is not ended by it.
    #[serde(rename = "b")]
    pub(crate) began_ns: u64,
    /// When it was shown, nanoseconds since the Unix epoch.
    #[serde(rename = "t")]
    pub(crate) made_ns: u64,
}

/// Makes and opens them.
pub(crate) struct Tickets {
    tickets: Sealer,
    flows: Sealer,
    endings: Sealer,
}

impl Tickets {
    pub(crate) fn new(keys: &Arc<SealKeys>) -> Self {
        Self {
            tickets: Sealer::new(keys.clone(), "provost 2026 connect ticket v1"),
            flows: Sealer::new(keys.clone(), "provost 2026 connect flow v1"),
            endings: Sealer::new(keys.clone(), "provost 2026 connect ending v1"),
        }
    }

    /// 128 random bits, as text.
    pub(crate) fn random() -> Result<String, SealFailed> {
        Ok(format!("{:032x}", random_id()?))
    }

    pub(crate) fn seal(&self, ticket: &Ticket) -> Result<String, SealFailed> {
        self.tickets.seal(&serde_json::to_vec(ticket).map_err(|_| SealFailed)?, b"")
    }

    /// `None`: it is not ours, or too old.
    pub(super) fn open(&self, sealed: &str, now_ns: u64) -> Option<Ticket> {
        let ticket: Ticket = parse(self.tickets.open(sealed, b"")?)?;
        (now_ns < ticket.made_ns.saturating_add(TICKET_NS)).then_some(ticket)
    }

    /// Opens with this `state` only.
    pub(super) fn seal_flow(&self, flow: &Flow, state: &str) -> Result<String, SealFailed> {
        self.flows.seal(&serde_json::to_vec(flow).map_err(|_| SealFailed)?, state.as_bytes())
    }

    pub(super) fn open_flow(&self, sealed: &str, state: &str, now_ns: u64) -> Option<Flow> {
        let flow: Flow = parse(self.flows.open(sealed, state.as_bytes())?)?;
        (now_ns < flow.began_ns.saturating_add(FLOW_S * 1_000_000_000)).then_some(flow)
    }

    pub(super) fn seal_ending(&self, ending: &Ending) -> Result<String, SealFailed> {
        self.endings.seal(&serde_json::to_vec(ending).map_err(|_| SealFailed)?, b"")
    }

    pub(super) fn open_ending(&self, sealed: &str, now_ns: u64) -> Option<Ending> {
        let ending: Ending = parse(self.endings.open(sealed, b"")?)?;
        (now_ns < ending.made_ns.saturating_add(TICKET_NS)).then_some(ending)
    }
}

fn parse<T: DeserializeOwned>(plain: Vec<u8>) -> Option<T> {
    serde_json::from_slice(&plain).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn ticket() -> Ticket {
        Ticket {
            principal: PrincipalRef { tenant: Name::new("acme").unwrap(), name: Name::new("ann").unwrap() },
            plugin: Name::new("up").unwrap(),
            elicitation: "e".to_owned(),
            session: None,
            made_ns: 1_000,
        }
    }

    #[test]
    fn what_a_browser_carries_ends_and_opens_only_as_what_it_is() {
        let tickets = Tickets::new(&SealKeys::own([3; 32]));
        let sealed = tickets.seal(&ticket()).unwrap();
        assert_eq!(tickets.open(&sealed, 1_000 + TICKET_NS - 1), Some(ticket()));
        assert_eq!(tickets.open(&sealed, 1_000 + TICKET_NS), None, "too old");
        assert_eq!(Tickets::new(&SealKeys::own([4; 32])).open(&sealed, 1_000), None, "another cluster's");
        let flow =
            Flow { ticket: ticket(), verifier: "v".to_owned(), redirect: "r".to_owned(), issuer: None, began_ns: 5 };
        let carried = tickets.seal_flow(&flow, "state").unwrap();
        assert_eq!(tickets.open_flow(&carried, "state", 5), Some(flow));
        assert_eq!(tickets.open_flow(&carried, "other", 5), None, "another state");
        assert_eq!(tickets.open_flow(&carried, "state", 5 + FLOW_S * 1_000_000_000), None, "too late");
        assert_eq!(tickets.open_flow(&sealed, "", 5), None, "a ticket is no flow");
        assert_eq!(tickets.open(&carried, 5), None, "a flow is no ticket");
        let Ticket { principal, plugin, .. } = ticket();
        let ending = Ending { principal, plugin, began_ns: 7, made_ns: 1_000 };
        let shown = tickets.seal_ending(&ending).unwrap();
        assert_eq!(tickets.open_ending(&shown, 1_000), Some(ending));
        assert_eq!(tickets.open_ending(&shown, 1_000 + TICKET_NS), None, "too old");
        assert_eq!(tickets.open_ending(&sealed, 1_000), None, "a ticket ends nothing");
        assert_eq!(tickets.open(&shown, 1_000), None, "and what ends begins nothing");
    }
}
