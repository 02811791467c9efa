//! The guest's imports: bounds first, then the host.

mod http;

use bytes::Bytes;
use provost_mcp::{JsonLimits, RawJson};

use crate::{
    KvError, LogLevel, NestedCall, NestedError, Progress,
    bindings::provost::plugin::{host, types},
    lane::step_aside_for,
    limits::{MAX_JSON_DEPTH, MAX_KV_KEY, MAX_MESSAGE},
    state::CallState,
};

impl types::Host for CallState {}

impl host::Host for CallState {
    fn log(&mut self, level: host::Level, message: String) {
        let message = cut(&message);
        // An empty line costs the host as much as a short one.
        if self.may_log(message.len().max(1)) {
            let level = match level {
                host::Level::Debug => LogLevel::Debug,
                host::Level::Info => LogLevel::Info,
                host::Level::Warn => LogLevel::Warn,
                host::Level::Error => LogLevel::Error,
            };
            self.host.log(level, message);
        }
    }

    fn progress(&mut self, progress: f64, total: Option<f64>, message: Option<String>) {
        // JSON has no other numbers.
        if !progress.is_finite() || !total.is_none_or(f64::is_finite) || !self.may_progress() {
            return;
        }
        let message = message.map(|text| cut(&text).to_owned());
        self.host.progress(Progress { progress, total, message });
    }

    fn cancelled(&mut self) -> bool {
        self.host.is_cancelled()
    }

    fn now_ms(&mut self) -> u64 {
        self.host.now_ms()
    }

    async fn kv_get(&mut self, key: String) -> Result<Option<Vec<u8>>, host::KvError> {
        self.check_kv(&key, None)?;
        Ok(self.host.kv_get(&key).await?)
    }

    async fn kv_set(&mut self, key: String, value: Option<Vec<u8>>) -> Result<(), host::KvError> {
        self.check_kv(&key, value.as_deref())?;
        Ok(self.host.kv_set(&key, value).await?)
    }

    async fn call_tool(&mut self, name: String, arguments: String) -> Result<String, host::NestedError> {
        self.may_nest().map_err(|bound| host::NestedError::Denied(format!("over the bound of {bound}")))?;
        step_aside_for(arguments.len()).await;
        let arguments = RawJson::check(Bytes::from(arguments), &JsonLimits::REQUEST)
            .map_err(|fault| host::NestedError::InvalidParams(fault.to_string()))?;
        if !arguments.is_object() {
            return Err(host::NestedError::InvalidParams("the arguments are not an object".to_owned()));
        }
        let call = NestedCall { name: &name, arguments: &arguments, depth: self.depth.saturating_add(1) };
        let result = self.host.call_tool(call).await?;
        let most = self.limits.answer_bytes;
        if result.as_bytes().len() > most {
            let why = format!("PV-PLUGIN-TOO-LARGE: {name} gave more than the {most} bytes that the plugin may take");
            return Err(host::NestedError::Failed(why));
        }
        Ok(result.as_str().to_owned())
    }
}

impl CallState {
    fn check_kv(&mut self, key: &str, value: Option<&[u8]>) -> Result<(), host::KvError> {
        self.may_keep().map_err(|bound| host::KvError::Denied(format!("over the bound of {bound}")))?;
        if key.is_empty() || key.len() > MAX_KV_KEY {
            return Err(host::KvError::TooLarge(format!("a key has 1 to {MAX_KV_KEY} bytes")));
        }
        let most = self.limits.kv_value_bytes;
        if value.is_some_and(|value| value.len() > most) {
            return Err(host::KvError::TooLarge(format!("a value has at most {most} bytes")));
        }
        Ok(())
    }
}

impl From<KvError> for host::KvError {
    fn from(error: KvError) -> Self {
        match error {
            KvError::Denied(why) => Self::Denied(why),
            KvError::TooLarge(why) => Self::TooLarge(why),
            KvError::Full => Self::Full,
            KvError::Unavailable(why) => Self::Unavailable(why),
        }
    }
}

impl From<NestedError> for host::NestedError {
    fn from(error: NestedError) -> Self {
        match error {
            NestedError::Denied(why) => Self::Denied(why),
            NestedError::InvalidParams(why) => Self::InvalidParams(why),
            NestedError::Cancelled => Self::Cancelled,
            NestedError::Failed(why) => Self::Failed(why),
        }
    }
}

/// At most [`MAX_MESSAGE`] bytes of a text.
pub(crate) fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(MAX_MESSAGE)).unwrap_or(text)
}

/// Bounds on JSON that a guest gives.
pub(crate) fn json_limits(max_bytes: usize) -> JsonLimits {
    JsonLimits { max_bytes, max_depth: MAX_JSON_DEPTH }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let long = "ä".repeat(MAX_MESSAGE);
        assert_eq!(cut(&long).len(), MAX_MESSAGE);
        assert_eq!(cut(&format!("x{long}")).len(), MAX_MESSAGE - 1);
        assert_eq!(cut("short"), "short");
    }
}
