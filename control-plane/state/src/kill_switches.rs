//! The rules that kill switches keep.
//!
//! Invariants: a switch says why; each call is compared with all of them, so there is a bound.

use provost_types::{KillSwitchSpec, Kind, ResourceKey};

use crate::{ChangeKind, Problem, Resources, fields::Check};

/// Switches of a cluster.
const MAX_SWITCHES: usize = 256;
/// Bytes of a reason: every caller is told it.
const MAX_REASON_BYTES: usize = 512;

/// Checks one switch by itself.
pub(crate) fn check(check: &mut Check<'_>, spec: &KillSwitchSpec) {
    let reason = spec.reason.trim();
    check.require(!reason.is_empty() && spec.reason.len() <= MAX_REASON_BYTES, "spec.reason", || {
        format!("say why calls are stopped, in at most {MAX_REASON_BYTES} bytes: callers are told")
    });
    check.patterns("spec.tool", spec.tool.as_ref());
}

/// Checks that there are not too many.
pub(crate) fn check_together(report: &[(ResourceKey, ChangeKind)], all: &Resources, problems: &mut Vec<Problem>) {
    let made = |(key, kind): &&(ResourceKey, ChangeKind)| key.kind == Kind::KillSwitch && *kind == ChangeKind::Created;
    let Some((key, _)) = report.iter().find(made) else { return };
    if all.keys().filter(|key| key.kind == Kind::KillSwitch).count() > MAX_SWITCHES {
        let text = format!("{MAX_SWITCHES} switches are on already; one that covers more takes the place of several");
        problems.push(Problem::of_field(key, "metadata.name", "PV-RES-FIELD", text));
    }
}
