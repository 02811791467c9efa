//! A plugin's listener, which also has kept answers forgotten.

use provost_data_pipeline::{AskError, ClientLink};
use provost_mcp::RawJson;
use provost_types::BoxFuture;

use crate::resilience::Shield;

/// A listener that has kept answers forgotten when it hears of changes.
pub(super) struct Heard<'a> {
    pub(super) link: &'a dyn ClientLink,
    pub(super) shield: &'a Shield,
}

impl ClientLink for Heard<'_> {
    fn notify(&self, method: &str, params: RawJson) {
        if method.starts_with("notifications/resources/") {
            self.shield.forget();
        }
        self.link.notify(method, params);
    }

    fn ask<'a>(&'a self, input_requests: &'a RawJson) -> Option<BoxFuture<'a, Result<RawJson, AskError>>> {
        self.link.ask(input_requests)
    }

    fn cancelled(&self) -> BoxFuture<'_, ()> {
        self.link.cancelled()
    }
}
