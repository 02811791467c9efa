//! The host of a plugin that nobody calls: while it is loaded.

use std::time::{SystemTime, UNIX_EPOCH};

use provost_mcp::RawJson;
use provost_types::BoxFuture;

use crate::{HttpError, HttpRequest, HttpResponse, KvError, LogLevel, NestedCall, NestedError, PluginHost, Progress};

/// Refuses everything that acts; lines go to the node's own log.
pub(crate) struct QuietHost;

const WHY: &str = "there is no call";

impl PluginHost for QuietHost {
    fn log(&self, level: LogLevel, message: &str) {
        match level {
            LogLevel::Debug | LogLevel::Info => tracing::debug!(message, "a plugin that is loaded says"),
            LogLevel::Warn | LogLevel::Error => tracing::warn!(message, "a plugin that is loaded says"),
        }
    }

    fn progress(&self, _: Progress) {}

    fn is_cancelled(&self) -> bool {
        false
    }

    fn now_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn kv_get<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, KvError>> {
        Box::pin(std::future::ready(Err(KvError::Denied(WHY.to_owned()))))
    }

    fn kv_set<'a>(&'a self, _: &'a str, _: Option<Vec<u8>>) -> BoxFuture<'a, Result<(), KvError>> {
        Box::pin(std::future::ready(Err(KvError::Denied(WHY.to_owned()))))
    }

    fn call_tool<'a>(&'a self, _: NestedCall<'a>) -> BoxFuture<'a, Result<RawJson, NestedError>> {
        Box::pin(std::future::ready(Err(NestedError::Denied(WHY.to_owned()))))
    }

    fn send_http(&self, _: HttpRequest) -> BoxFuture<'_, Result<HttpResponse, HttpError>> {
        Box::pin(std::future::ready(Err(HttpError::Denied(WHY.to_owned()))))
    }
}
