//! Who a token of an identity provider says that calls.
//!
//! Purpose: access tokens (JWT, RFC 9068 and its older relatives) verified against the keys of the issuers that
//! tenants trust, and their claims made into a caller.
//! Invariants: nothing of a token is believed before its signature was checked with a key of the one provider
//! whose issuer it names; the algorithm is one that the provider pins and that fits the key; there is no `none`
//! and no shared secret; a token is never in a log, an error or a record. What is fetched is bounded in bytes,
//! time and frequency, whatever is sent to the node. To decide on a token costs no input or output: keys are
//! fetched before ([`Tokens::prepare`]), and what was verified is remembered for as long as it holds.
//! Left out: opaque tokens and introspection (RFC 7662), encrypted tokens, tokens bound to a key (DPoP, RFC 8705),
//! revocation of single tokens, giving out tokens.

mod cache;
mod claims;
mod fault;
mod fetch;
mod jwk;
mod jwt;
mod keys;
mod provider;
mod tokens;

pub(crate) use tokens::{Scope, Tokens, is_jwt};
