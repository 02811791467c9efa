//! The legacy session id: everything a node must know of the session, sealed.
//!
//! Whoever holds the id is not thereby authenticated: each request's bearer must be the sealed
//! principal. No node keeps the session, so any node can serve it.

use std::sync::Arc;

use provost_mcp::{ProtocolVersion, RawJson, RawObject};
use provost_types::PrincipalRef;
use serde::{Deserialize, Serialize};

use crate::{
    SealKeys,
    seal::{SealFailed, Sealer, random_id},
};

/// How long a session id is good, in seconds: a day.
const SESSION_TTL_S: u64 = 24 * 3600;
/// The longest capabilities that fit into a session id, in bytes; of longer ones only the members
/// that Provost acts on are kept.
const MAX_CAPABILITIES_BYTES: usize = 1_024;
/// The longest `clientInfo` that fits into a session id, in bytes; a longer one is left out.
const MAX_INFO_BYTES: usize = 512;

/// What a session id holds.
#[derive(Clone, Debug)]
pub(super) struct Session {
    /// Names the session inside the node and towards executors: 32 hexadecimal digits.
    pub(super) key: Arc<str>,
    pub(super) principal: PrincipalRef,
    /// The path it was opened on: a session of one plugin's route is none of another's.
    pub(super) route: String,
    pub(super) version: ProtocolVersion,
    pub(super) capabilities: RawJson,
    pub(super) info: Option<RawJson>,
}

#[derive(Serialize, Deserialize)]
struct Sealed {
    k: String,
    p: PrincipalRef,
    r: String,
    v: String,
    c: String,
    i: Option<String>,
    /// Unix seconds.
    e: u64,
}

/// Makes and opens session ids.
pub(crate) struct SessionSealer(Sealer);

impl SessionSealer {
    pub(crate) fn new(keys: Arc<SealKeys>) -> Self {
        Self(Sealer::new(keys, "provost 2026 mcp session id v1"))
    }

    /// A new session key.
    pub(super) fn new_key() -> Result<Arc<str>, SealFailed> {
        Ok(format!("{:032x}", random_id()?).into())
    }

    /// The id of a session.
    pub(super) fn seal(&self, session: &Session, now_s: u64) -> Result<String, SealFailed> {
        let info = session.info.as_ref().filter(|i| i.as_bytes().len() <= MAX_INFO_BYTES);
        let sealed = Sealed {
            k: session.key.to_string(),
            p: session.principal.clone(),
            r: session.route.clone(),
            v: session.version.as_str().to_owned(),
            c: bounded(&session.capabilities).as_str().to_owned(),
            i: info.map(|i| i.as_str().to_owned()),
            e: now_s + SESSION_TTL_S,
        };
        let plain = serde_json::to_vec(&sealed).map_err(|_| SealFailed)?;
        self.0.seal(&plain, b"")
    }

    /// The session of an id that we made and that is still good.
    pub(super) fn open(&self, id: &str, now_s: u64) -> Option<Session> {
        let sealed: Sealed = serde_json::from_slice(&self.0.open(id, b"")?).ok()?;
        if now_s >= sealed.e {
            return None;
        }
        Some(Session {
            key: sealed.k.into(),
            principal: sealed.p,
            route: sealed.r,
            version: ProtocolVersion::parse(&sealed.v)?,
            capabilities: RawJson::from_checked(sealed.c.into()),
            info: sealed.i.map(|i| RawJson::from_checked(i.into())),
        })
    }
}

fn bounded(capabilities: &RawJson) -> RawJson {
    if capabilities.as_bytes().len() <= MAX_CAPABILITIES_BYTES {
        return capabilities.clone();
    }
    let Ok(all) = RawObject::parse(capabilities) else { return RawJson::EMPTY_OBJECT };
    let mut kept = RawObject::new();
    for name in ["elicitation", "sampling", "roots"] {
        // Their members are few and small; what is larger counts as declared without details.
        if let Some(value) = all.get(name) {
            let small = value.as_bytes().len() <= MAX_CAPABILITIES_BYTES / 4;
            kept.set(name, if small { value } else { RawJson::EMPTY_OBJECT });
        }
    }
    kept.finish()
}
