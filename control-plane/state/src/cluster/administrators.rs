//! Tokens of the cluster's administrators: only their hashes.

use serde::{Deserialize, Serialize};

use super::{Cluster, ClusterReply, is_hash, reject};
use crate::Rejected;

/// Tokens of administrators.
pub const MAX_ADMIN_TOKENS: usize = 1_000;
/// Bytes of a token's name.
const MAX_NAME_BYTES: usize = 128;

/// An administrator's token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminTokenHash {
    /// Of the whole token.
    pub hash: String,
    /// When it was added, by the proposer's clock.
    pub added_ns: u64,
}

impl Cluster {
    pub(super) fn admin_token_added(
        &mut self,
        name: String,
        hash: String,
        time_ns: u64,
    ) -> Result<ClusterReply, Rejected> {
        if !is_hash(&hash) || name.is_empty() || name.len() > MAX_NAME_BYTES {
            return Err(reject("PV-ADMIN-TOKEN", "the token has not the form of one", ""));
        }
        if self.admin_tokens.contains_key(&name) {
            let text = format!("there is an administrator's token named {name}");
            return Err(reject("PV-ADMIN-TOKEN", text, "remove it first, or take another name"));
        }
        if self.admin_tokens.len() >= MAX_ADMIN_TOKENS {
            let text = format!("there are {MAX_ADMIN_TOKENS} administrators' tokens, the most there can be");
            return Err(reject("PV-ADMIN-TOKEN", text, "remove some"));
        }
        self.admin_tokens.insert(name, AdminTokenHash { hash, added_ns: time_ns });
        Ok(ClusterReply::Done)
    }

    pub(super) fn admin_token_removed(&mut self, name: &str) -> Result<ClusterReply, Rejected> {
        match self.admin_tokens.remove(name) {
            Some(_) => Ok(ClusterReply::Done),
            None => {
                let text = format!("no administrator's token is named {name}");
                Err(reject("PV-ADMIN-TOKEN", text, ""))
            }
        }
    }
}
