//! The rules that aliases of tools keep.

use provost_types::ToolAliasSpec;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::fields::Check;

/// Versions behind one alias.
const MAX_TARGETS: usize = 16;
/// The largest weight: sums stay small.
const MAX_WEIGHT: u32 = 1_000_000;
/// Bytes of a deprecation's message: it stands in every list and answer.
const MAX_MESSAGE_BYTES: usize = 512;

/// Checks one alias by itself.
pub(crate) fn check(check: &mut Check<'_>, spec: &ToolAliasSpec) {
    let count = spec.targets.len();
    check.require((1..=MAX_TARGETS).contains(&count), "spec.targets", || {
        format!("{count} targets; an alias has 1 to {MAX_TARGETS}")
    });
    let mut total = 0;
    for (i, target) in spec.targets.iter().enumerate() {
        let field = |name: &str| format!("spec.targets[{i}].{name}");
        let (plugin, tool) = target.tool.split_once('.').unwrap_or_default();
        check.require(!plugin.is_empty() && !tool.is_empty() && !tool.contains('*'), &field("tool"), || {
            format!("`{}` is no tool: write plugin.tool", target.tool)
        });
        check.require(target.weight <= MAX_WEIGHT, &field("weight"), || format!("is more than {MAX_WEIGHT}"));
        let twice = spec.targets[..i].iter().any(|before| before.tool == target.tool);
        check.require(!twice, &field("tool"), || format!("`{}` is a target already", target.tool));
        total += u64::from(target.weight);
    }
    check.require(count == 0 || total > 0, "spec.targets", || "every weight is 0: nobody would get a tool".into());
    let Some(deprecated) = &spec.deprecated else { return };
    let time = |text: &Option<String>| text.as_ref().map(|text| OffsetDateTime::parse(text, &Rfc3339));
    let (since, until) = (time(&deprecated.since), time(&deprecated.until));
    for (parsed, field) in [(&since, "spec.deprecated.since"), (&until, "spec.deprecated.until")] {
        check.require(!matches!(parsed, Some(Err(_))), field, || {
            "is not an RFC 3339 time such as 2027-01-31T12:00:00Z".into()
        });
    }
    if let (Some(Ok(since)), Some(Ok(until))) = (since, until) {
        check.require(since <= until, "spec.deprecated.until", || "is before `since`".into());
    }
    let bytes = deprecated.message.len();
    check.require(bytes <= MAX_MESSAGE_BYTES, "spec.deprecated.message", || {
        format!("has {bytes} bytes; at most {MAX_MESSAGE_BYTES}")
    });
}
