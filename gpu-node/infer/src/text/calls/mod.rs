//! Calls of functions in what a model writes.
//!
//! Models write calls as text. [`CallForm`] says how a model does, by its template; [`CallReader`] takes the calls out of
//! the text as it comes. What looks like a call and is none stays text: nothing that a model wrote is lost.

mod form;
mod reader;
mod scan;

pub(crate) use form::CallForm;
pub(crate) use reader::CallReader;
