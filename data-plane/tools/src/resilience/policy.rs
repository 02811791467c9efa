//! A plugin's policy with its defaults, and the time that a call has by it.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use memchr::memmem::Finder;
use provost_data_pipeline::Operation;
use provost_mcp::{RawJson, RawObject};
use provost_types::{PluginSpec, ResilienceSpec};

use super::gate::Gate;
use crate::mark::Mark;

/// A call's time if the spec names none.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
/// Calls at once if the spec names no bound.
pub const DEFAULT_CONCURRENCY: usize = 256;
/// The member of a request's `_meta` by which a caller asks for less time, in milliseconds.
const CALLERS_TIME: &str = "io.provost/timeoutMs";

/// What holds for one plugin.
pub(crate) struct Policy {
    pub(crate) spec: ResilienceSpec,
    /// The plugin's name, for texts.
    pub(crate) plugin: String,
    timeout: Duration,
    /// Places for all calls of the plugin.
    pub(crate) gate: Gate,
    rules: Vec<Rule>,
}

/// What holds for some of its tools.
struct Rule {
    tools: BTreeSet<String>,
    timeout: Option<Duration>,
    gate: Option<Gate>,
}

/// When a call has to end, and by whose word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Times {
    pub(crate) began: Instant,
    pub(crate) deadline: Instant,
    /// The policy's, not a shorter one of the caller or of the node.
    pub(crate) is_policy: bool,
}

impl Policy {
    pub(crate) fn new(plugin: &str, spec: &PluginSpec) -> Self {
        let resilience = spec.resilience.as_deref().cloned().unwrap_or_default();
        let timeout = match spec.timeout_ms {
            0 => DEFAULT_TIMEOUT,
            ms => Duration::from_millis(ms),
        };
        let places = match spec.max_concurrency {
            0 => DEFAULT_CONCURRENCY,
            n => n as usize,
        };
        let gate = |places: usize| {
            Gate::new(places, resilience.queue.max_queued as usize, Duration::from_millis(resilience.queue.timeout_ms))
        };
        let rules = resilience.tools.iter().map(|rule| Rule {
            tools: rule.tools.clone(),
            timeout: (rule.timeout_ms > 0).then(|| Duration::from_millis(rule.timeout_ms)),
            gate: (rule.max_concurrent > 0).then(|| gate(rule.max_concurrent as usize)),
        });
        Self { rules: rules.collect(), gate: gate(places), plugin: plugin.to_owned(), timeout, spec: resilience }
    }

    /// The longest time for one call that no rule speaks of.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The time of a call that begins now; `latest` is the node's bound.
    pub(crate) fn times(&self, operation: &Operation, params: &RawJson, now: Instant, latest: Instant) -> Times {
        let policy = self.rule(operation).and_then(|rule| rule.timeout).unwrap_or(self.timeout);
        let deadline = now + policy;
        let wanted = callers_time(params).map_or(latest, |wanted| latest.min(now + wanted));
        Times { began: now, deadline: deadline.min(wanted), is_policy: deadline <= wanted }
    }

    /// The places of the tools that the operation's tool belongs to.
    pub(crate) fn tool_gate(&self, operation: &Operation) -> Option<&Gate> {
        self.rule(operation)?.gate.as_ref()
    }

    fn rule(&self, operation: &Operation) -> Option<&Rule> {
        if self.rules.is_empty() {
            return None;
        }
        let Operation::CallTool(tool) = operation else { return None };
        self.rules.iter().find(|rule| names(&rule.tools, tool))
    }
}

/// Whether one of the patterns names the tool.
pub(crate) fn names(patterns: &BTreeSet<String>, tool: &str) -> bool {
    patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(prefix) => tool.starts_with(prefix),
        None => pattern == tool,
    })
}

/// The time that the caller asks for, if it does. Looked for as text first: few do.
pub fn callers_time(params: &RawJson) -> Option<Duration> {
    static MARK: Mark = Mark::new(|| Finder::new(CALLERS_TIME));
    if !MARK.is_in(params.as_bytes()) {
        return None;
    }
    let meta = RawObject::parse(params).ok()?.get_object("_meta")?;
    let ms: u64 = meta.get(CALLERS_TIME)?.parse().ok()?;
    (ms > 0).then(|| Duration::from_millis(ms.min(MAX_CALLERS_MS)))
}

/// More than any policy gives: a bound for arithmetic.
const MAX_CALLERS_MS: u64 = 24 * 3_600_000;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use provost_types::{BuiltinPlugin, PluginSource, ToolResilience};
    use serde_json::{Value, json};

    use super::*;

    pub(crate) fn spec(resilience: ResilienceSpec) -> PluginSpec {
        let source = PluginSource::Builtin(BuiltinPlugin { name: "echo".into(), config: Default::default() });
        let resilience = Some(Box::new(resilience));
        PluginSpec {
            description: String::new(),
            source,
            timeout_ms: 5_000,
            max_concurrency: 0,
            resilience,
            definitions: None,
            reloads: 0,
        }
    }

    #[test]
    fn the_shortest_time_holds_and_says_whose_it_is() {
        let rule = |tools: &str, timeout_ms| ToolResilience {
            tools: [tools.to_owned()].into(),
            timeout_ms,
            ..ToolResilience::default()
        };
        let tools = vec![rule("report_*", 60_000), rule("report_short", 1), rule("quick", 100)];
        let policy = Policy::new("up", &spec(ResilienceSpec { tools, ..Default::default() }));
        let meta = |ms: Value| json!({"_meta": {"io.provost/timeoutMs": ms}});
        let table = [
            ("other", json!({}), 5_000, true),
            ("report_long", json!({}), 60_000, true),
            ("report_short", json!({}), 60_000, true),
            ("quick", json!({}), 100, true),
            ("quick", meta(json!(200)), 100, true),
            ("quick", meta(json!(20)), 20, false),
            ("other", meta(json!(4_999)), 4_999, false),
            ("other", meta(json!(0)), 5_000, true),
            ("other", meta(json!("20")), 5_000, true),
            ("other", meta(json!(-1)), 5_000, true),
            ("other", json!({"arguments": {"io.provost/timeoutMs": 1}}), 5_000, true),
            ("report_long", meta(json!(u64::MAX)), 60_000, true),
        ];
        let now = Instant::now();
        for (tool, params, ms, is_policy) in table {
            let operation = Operation::CallTool(tool.to_owned());
            let times = policy.times(&operation, &RawJson::from(params.clone()), now, now + Duration::from_secs(3_600));
            assert_eq!(
                (times.deadline - now, times.is_policy),
                (Duration::from_millis(ms), is_policy),
                "{tool} {params}"
            );
        }
        let soon = policy.times(&Operation::ListTools, &RawJson::EMPTY_OBJECT, now, now + Duration::from_millis(3));
        assert_eq!((soon.deadline - now, soon.is_policy), (Duration::from_millis(3), false));
    }
}
