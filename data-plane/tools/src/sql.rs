//! The `sql` built-in: read-only queries on SQLite and PostgreSQL.
//!
//! Purpose: two tools, `query` and `schema`, and the facts about a SQL text that policies read as
//! `context.sql`.
//!
//! Invariants:
//! - What was analysed is what runs: the database gets the text rendered from the syntax tree,
//!   and only if that text parses back to the same tree.
//! - One statement a call, and only a query; functions are taken from a list per dialect, so that
//!   no function can run SQL of its own, read files, sleep or change the session.
//! - The database is asked to keep the same rules: SQLite is opened read-only with `query_only`,
//!   PostgreSQL runs a `READ ONLY` transaction that is always rolled back.
//! - Rows, bytes and time are bounded; at the time limit the database stops working.
//! - No error or log line holds a URL, a password or a value from the data.
//!
//! Left out: writing. A policy may permit `UPDATE`; this plugin refuses it.

mod analysis;
mod arguments;
mod collector;
mod config;
mod error;
mod functions;
mod plugin;
mod postgres;
mod result;
mod script;
mod sqlite;

pub use analysis::{Analysis, Dialect, analyse};
pub use error::SqlError;
pub use plugin::{SqlPlugin, facts};
pub use script::create_sqlite_from_script;
