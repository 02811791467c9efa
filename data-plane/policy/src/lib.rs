//! Cedar authorisation compiled from a snapshot; pure decisions.
//!
//! Purpose: turn the tenants, principals, roles, bindings and policies of one [`Snapshot`] into a
//! [`PolicyEngine`] that says of each call whether it may run, and why.
//!
//! Invariants:
//! - A decision depends on the snapshot, the request and `now_ns` only.
//! - Nothing is allowed that no role or policy permits; a `forbid` wins over every grant.
//! - A `forbid` that cannot be evaluated counts as satisfied; a `permit` that cannot, as not.
//! - Policies and roles of one tenant never see or affect another tenant's calls.
//! - A call whose arguments cannot be shown to policies unambiguously is denied where a policy that
//!   could apply looks at arguments.
//! - What is remembered of earlier calls never changes a decision.
//!
//! Role grants are data, looked up by name; only the policies that people write are evaluated by
//! Cedar, sliced by tenant and action. `docs/policy.md` is the guide for those who write them.
//!
//! [`quota`] finds the quotas that cover a call and keeps this node's share of each; [`PriceIndex`]
//! says what a call costs.
//!
//! Left out: authentication, the reading of YAML.
//!
//! [`Snapshot`]: provost_types::Snapshot

mod arguments;
mod cedar_text;
mod decision_cache;
mod engine;
mod entities;
mod explain;
mod facts;
mod grants;
mod held;
mod kill_switch;
mod looked_at;
mod policy_id;
mod policy_slice;
mod price;
mod problem;
mod question;
pub mod quota;
mod run_model;
mod schema;
mod scope;
mod tenant;
mod visibility;

pub use engine::{AccessRequest, PolicyEngine};
pub use explain::{Explanation, Held, HeldRole, NearRole, PolicyWord};
pub use facts::{Facts, SqlFacts};
pub use kill_switch::{KillCall, KillSwitch, KillSwitches};
pub use looked_at::Unknown;
pub use price::{CallPrice, PriceIndex};
pub use problem::PolicyProblem;
pub use run_model::RunModel;
pub use schema::SCHEMA_TEXT;
