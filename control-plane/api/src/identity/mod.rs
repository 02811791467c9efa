//! Who the nodes of the cluster are: the CA, joining, renewal, membership.
//!
//! Purpose: a node comes in with a join token and a key of its own, gets a certificate for the name
//! that the token is for, renews it for as long as it is a member, and is kept out after that.
//! Invariants: of a request for a certificate only the key is used, and only when the request
//! proves that its sender has it; a name is what the replicated state says; the CA's private key is
//! in the state only sealed; a join token is stored only as a hash and makes one member.
//! A crash between the use of a token and its answer loses nothing: the same key may show the same
//! token again. A crash of the joining node loses its key: the member must be removed and a new
//! token made.
//! Left out: TLS itself ([`provost_wire::tls`]), who may make tokens (the admin service), Raft
//! membership. Every control-plane node can open the CA's key: one that is removed and was hostile
//! calls for a change of the CA.

mod agent_names;
mod agents;
mod ca;
mod certifier;
mod csr;
mod error;
mod identity_service;
mod join;
mod join_service;
mod members;
mod readmit;
mod registry;
mod removed;
mod renew;
mod rotation;
mod sealer;
mod token;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests;

pub use agent_names::{AgentNameRule, AgentNames, MAX_AGENT_NAMES};
pub use agents::{AgentCertificate, CertifyAgents, HeldCertificate};
pub use ca::Ca;
pub(crate) use certifier::resealed_key;
pub use certifier::{Certifier, DEFAULT_LIFE, Issued, MIN_LIFE, NodeRecord};
pub use csr::{KeyRequest, NodeKey};
pub use error::IdentityError;
pub use identity_service::IdentityService;
pub use join::{Joined, join, join_as, join_certified};
pub use join_service::JoinService;
pub(crate) use members::by_operator;
pub use members::{CallingNode, MembersOnly, NotMember, admit, calling_node, cut_former_members, standing};
pub use readmit::MAX_ABSENCE;
pub(crate) use registry::rejected;
pub use registry::{Joining, Registry};
pub use removed::ask_removed;
pub use renew::{LocalRenewer, RemoteRenewer, Renewer, renew_loop, renew_on_authority_change, renew_once, until_due};
pub use rotation::RotationStep;
pub use sealer::KeySealer;
pub use token::{JoinSecret, make_join_token};
