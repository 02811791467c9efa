//! `requestState`: what an executor wants back with the retry, sealed against the client.
//!
//! The seal is bound to caller, method and parameters (without `_meta` and the retry's own
//! members) and it expires; so a state can neither be read, nor changed, nor carried to another
//! call or by another caller.

use std::sync::Arc;

use provost_mcp::{RawObject, RpcError, canonical_bytes};
use provost_types::PrincipalRef;
use serde::{Deserialize, Serialize};

use crate::{
    SealKeys,
    seal::{SealFailed, Sealer},
};

/// How long a state is good, in seconds: a person may have to answer.
const STATE_TTL_S: u64 = 15 * 60;

#[derive(Serialize, Deserialize)]
struct Sealed {
    s: String,
    /// Unix seconds.
    e: u64,
}

/// Makes and opens request states.
pub(crate) struct StateSealer(Sealer);

impl StateSealer {
    pub(crate) fn new(keys: Arc<SealKeys>) -> Self {
        Self(Sealer::new(keys, "provost 2026 mcp request state v1"))
    }

    pub(super) fn seal(&self, state: &str, bound: &[u8], now_s: u64) -> Result<String, SealFailed> {
        let sealed = Sealed { s: state.to_owned(), e: now_s + STATE_TTL_S };
        self.0.seal(&serde_json::to_vec(&sealed).map_err(|_| SealFailed)?, bound)
    }

    /// The executor's state, or the error for one that is not ours, not of this call, or too old.
    pub(super) fn open(&self, state: &str, bound: &[u8], now_s: u64) -> Result<String, RpcError> {
        let sealed: Option<Sealed> = self.0.open(state, bound).and_then(|plain| serde_json::from_slice(&plain).ok());
        match sealed {
            Some(sealed) if now_s < sealed.e => Ok(sealed.s),
            Some(_) => Err(refused("requestState has expired: start the request again")),
            None => Err(refused("requestState was not made here for this request and this caller")),
        }
    }
}

fn refused(message: &str) -> RpcError {
    RpcError::with_code(RpcError::INVALID_PARAMS, "PV-MCP-REQUEST-STATE", message)
}

/// What a state is bound to.
pub(super) fn binding(principal: &PrincipalRef, route: &str, method: &str, params: &RawObject) -> Vec<u8> {
    let mut named = params.clone();
    for member in ["_meta", "inputResponses", "requestState"] {
        named.remove(member);
    }
    let digest = blake3::hash(&canonical_bytes(&named.finish()));
    let mut bound = format!("{principal}\0{route}\0{method}\0").into_bytes();
    bound.extend_from_slice(digest.as_bytes());
    bound
}

/// Checks the shape of a retry's `inputResponses`: an object of objects.
pub(super) fn check_responses(params: &RawObject) -> Result<(), RpcError> {
    let Some(responses) = params.get("inputResponses") else { return Ok(()) };
    let good = RawObject::parse(&responses).is_ok_and(|r| r.iter().all(|(_, response)| response.is_object()));
    if good {
        Ok(())
    } else {
        Err(RpcError::with_code(
            RpcError::INVALID_PARAMS,
            "PV-MCP-INPUT-RESPONSES",
            "params.inputResponses must be an object whose members are objects",
        ))
    }
}
