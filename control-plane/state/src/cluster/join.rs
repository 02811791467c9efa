//! Join tokens: each makes one member, within minutes.

use std::collections::BTreeSet;

use provost_types::{Name, Revision};
use serde::{Deserialize, Serialize};

use super::{Cluster, ClusterReply, Member, NodeVersion, is_hash, members::check_roles, reject};
use crate::Rejected;

/// Tokens at once.
pub const MAX_JOIN_TOKENS: usize = 1_000;
/// The longest life of a token: 15 minutes.
pub const MAX_JOIN_TOKEN_LIFE_NS: u64 = 15 * 60 * 1_000_000_000;
/// Characters of a token's id.
const MAX_ID_CHARS: usize = 64;

/// What a join token is good for. The token itself is nowhere in the state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken {
    /// Names the token; not secret.
    pub id: String,
    /// The name of the node that may join with it.
    pub node: Name,
    /// The roles that it gets.
    pub roles: BTreeSet<Name>,
    /// When it ends, by the proposer's clock.
    pub expires_ns: u64,
    /// Who used it; `None`: nobody yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<TokenUse>,
}

/// Who used a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenUse {
    /// The hash of its public key.
    pub key: String,
    /// The member it became.
    pub node_id: u64,
}

impl Cluster {
    pub(super) fn token_made(
        &mut self,
        hash: String,
        token: JoinToken,
        time_ns: u64,
    ) -> Result<ClusterReply, Rejected> {
        if !is_hash(&hash) || token.id.is_empty() || token.id.len() > MAX_ID_CHARS || token.used.is_some() {
            return Err(reject("PV-JOIN-TOKEN", "the token has not the form of one", ""));
        }
        check_roles(&token.roles)?;
        let life_ns = token.expires_ns.saturating_sub(time_ns);
        if life_ns == 0 || life_ns > MAX_JOIN_TOKEN_LIFE_NS {
            let minutes = MAX_JOIN_TOKEN_LIFE_NS / 60_000_000_000;
            let text = format!("a join token lives up to {minutes} minutes");
            return Err(reject("PV-JOIN-LIFE", text, "choose a shorter life"));
        }
        self.check_name_is_free(&token.node)?;
        // Ended tokens are cleared away only when room is needed for another: until then they
        // say why they are refused.
        let live = |t: &JoinToken| t.expires_ns > time_ns;
        if self.join_tokens.values().filter(|t| live(t)).count() >= MAX_JOIN_TOKENS {
            let text = format!("there are {MAX_JOIN_TOKENS} join tokens, the most there can be");
            return Err(reject("PV-JOIN-TOO-MANY", text, "wait until some have ended"));
        }
        if self.join_tokens.contains_key(&hash) || self.join_tokens.values().any(|t| t.id == token.id) {
            return Err(reject("PV-JOIN-TOKEN", "there is such a token already", "make another one"));
        }
        if self.join_tokens.len() >= MAX_JOIN_TOKENS {
            self.join_tokens.retain(|_, t| live(t));
        }
        self.join_tokens.insert(hash, token);
        Ok(ClusterReply::Done)
    }

    /// Why a token cannot be used by the node with this key now; the answer of
    /// [`super::ClusterCommand::TokenUsed`] without using it.
    pub fn check_token(&self, hash: &str, key: &str, now_ns: u64) -> Result<&JoinToken, Rejected> {
        let hint = "make a new one with `provost cluster join-token`";
        let unknown = || reject("PV-JOIN-TOKEN", "there is no such join token", hint);
        let token = self.join_tokens.get(hash).ok_or_else(unknown)?;
        if now_ns >= token.expires_ns {
            return Err(reject("PV-JOIN-EXPIRED", format!("join token {} has ended", token.id), hint));
        }
        match &token.used {
            Some(used) if used.key != key => {
                let text = format!("join token {} was used already, by node {}", token.id, used.node_id);
                let hint = "if that was not you, remove that node and look for who has the token";
                Err(reject("PV-JOIN-USED", text, hint))
            }
            Some(used) if !self.members.contains_key(&used.node_id) => {
                let text = format!("node {}, which joined with token {}, was removed", used.node_id, token.id);
                Err(reject("PV-JOIN-USED", text, hint))
            }
            _ => Ok(token),
        }
    }

    pub(super) fn token_used(
        &mut self,
        revision: Revision,
        hash: &str,
        key: &str,
        address: String,
        now_ns: u64,
    ) -> Result<ClusterReply, Rejected> {
        if !is_hash(key) {
            return Err(reject("PV-JOIN-TOKEN", "the key's hash has not the form of one", ""));
        }
        let token = self.check_token(hash, key, now_ns)?.clone();
        let joined = |node_id| ClusterReply::Joined { node_id, name: token.node.clone(), roles: token.roles.clone() };
        if let Some(used) = &token.used {
            return Ok(joined(used.node_id));
        }
        let member = Member {
            name: token.node.clone(),
            roles: token.roles.clone(),
            address,
            joined: revision,
            // It says more when it has started; who is older is not let in.
            version: NodeVersion { wire: self.version(), build: String::new() },
        };
        let node_id = self.member_added(member)?;
        if let Some(stored) = self.join_tokens.get_mut(hash) {
            stored.used = Some(TokenUse { key: key.to_owned(), node_id });
        }
        Ok(joined(node_id))
    }
}
