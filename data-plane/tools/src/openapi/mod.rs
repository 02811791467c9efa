//! HTTP services that an OpenAPI document (3.0 or 3.1) describes, as tools.
//!
//! Purpose: each operation of the document is a tool; a call of the tool is one request to the service.
//! - `document`, `schema`: what the document says, references followed.
//! - `operation`, `parameter`, `body`, `names`: one operation as a tool.
//! - `catalogue`: all tools of a document, and why the others are none.
//! - `encode`, `request`: a call's arguments as a request.
//! - `answer`, `pages`: the service's answer as the tool's result.
//! - `service`: the plugin.
//!
//! Invariants: a request goes to the plugin's server, below its path, whatever document, arguments and answers say;
//! what a caller gives stays in its place (a segment of the path, a value of a parameter, a header's value); an
//! operation that cannot be called rightly is no tool, and the log says why; the work that a document makes is
//! bounded, however it is nested and whatever it refers to.
//! Left out: references to other documents, XML, multipart and other bodies than JSON and forms, callbacks, webhooks;
//! the document's security schemes, since credentials come from the plugin's resource.

mod answer;
mod body;
mod catalogue;
mod document;
mod encode;
mod names;
mod operation;
mod pages;
mod parameter;
mod request;
mod schema;
mod service;

pub(crate) use answer::{as_object, refusal};
pub(crate) use catalogue::{Filter, fits};
pub(crate) use encode::percent_decode;
pub(crate) use names::{Names, sanitised};
pub(crate) use request::arguments;
pub(crate) use schema::bounded;
pub(crate) use service::{OpenApi, Origin, Reach};
