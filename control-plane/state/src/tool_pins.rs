//! What becomes of a definition that a node saw.
//!
//! Invariants: the first report of a tool wins, so that every node holds the same pin; an approved definition
//! is replaced by an approval only (or by the next one, where a plugin is trusted); one change waits at a
//! time, so that a server that changes with every look makes no history; everything is bounded.

use provost_types::{DefinitionPolicy, PinnedDefinition, ToolPinsSpec};

use crate::{Problem, fields::Check};

/// Tools of one plugin that are pinned.
const MAX_PINNED_TOOLS: usize = 4_096;
/// Bytes of a tool's name.
const MAX_TOOL_NAME_BYTES: usize = 256;
/// Bytes of one definition that are kept; of a larger one the hash alone is.
const MAX_DEFINITION_BYTES: usize = 16 << 10;
/// Bytes of all definitions of a plugin that are kept.
const MAX_KEPT_BYTES: usize = 512 << 10;
/// Warnings kept of one definition.
const MAX_WARNINGS: usize = 8;
/// Bytes of one.
const MAX_WARNING_BYTES: usize = 256;

/// What a report made of a tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It is known.
    Known,
    /// It was approved by being the first, or because the plugin is trusted.
    Pinned,
    /// It waits to be approved.
    Waits,
}

/// Takes in a definition that a node saw.
pub fn see(spec: &mut ToolPinsSpec, policy: DefinitionPolicy, tool: &str, mut seen: PinnedDefinition) -> Seen {
    let is_hash = seen.hash.len() == 64 && seen.hash.bytes().all(|b| b.is_ascii_hexdigit());
    let fits = !tool.is_empty() && tool.len() <= MAX_TOOL_NAME_BYTES && is_hash;
    if !fits || (spec.tools.len() >= MAX_PINNED_TOOLS && !spec.tools.contains_key(tool)) {
        return Seen::Known;
    }
    if seen.definition.len() > MAX_DEFINITION_BYTES || kept(spec) + seen.definition.len() > MAX_KEPT_BYTES {
        seen.definition.clear();
    }
    seen.warnings.truncate(MAX_WARNINGS);
    for warning in &mut seen.warnings {
        warning.truncate(warning.floor_char_boundary(MAX_WARNING_BYTES));
    }
    let pin = spec.tools.entry(tool.to_owned()).or_default();
    let is = |known: &Option<PinnedDefinition>| known.as_ref().is_some_and(|known| known.hash == seen.hash);
    if is(&pin.approved) || (pin.changed.is_some() && policy != DefinitionPolicy::Trust) {
        return Seen::Known;
    }
    let first = pin.approved.is_none() && pin.changed.is_none();
    match policy {
        DefinitionPolicy::Trust => {
            pin.changed = None;
            pin.approved = Some(seen);
            Seen::Pinned
        }
        DefinitionPolicy::Pin if first => {
            pin.approved = Some(seen);
            Seen::Pinned
        }
        DefinitionPolicy::Pin | DefinitionPolicy::Approve => {
            pin.changed = Some(seen);
            Seen::Waits
        }
    }
}

fn kept(spec: &ToolPinsSpec) -> usize {
    let both = spec.tools.values().flat_map(|pin| [&pin.approved, &pin.changed]).flatten();
    both.map(|definition| definition.definition.len()).sum()
}

/// Approves what waits, of one tool or of all, and ends quarantines; the tools that it concerned.
pub fn approve(spec: &mut ToolPinsSpec, tool: Option<&str>, by: &str, now: &str) -> Vec<String> {
    let mut done = Vec::new();
    if tool.is_none() && spec.quarantined.take().is_some() {
        done.push("*".to_owned());
    }
    for (name, pin) in spec.tools.iter_mut().filter(|(name, _)| tool.is_none_or(|tool| tool == *name)) {
        let lifted = pin.quarantined.take().is_some();
        let approved = pin.changed.take();
        if lifted || approved.is_some() {
            done.push(name.clone());
        }
        if let Some(definition) = approved {
            pin.approved = Some(PinnedDefinition { by: by.to_owned(), since: now.to_owned(), ..definition });
        }
    }
    done
}

/// Checks the pins of one plugin.
pub(crate) fn check(check: &mut Check<'_>, spec: &ToolPinsSpec) {
    check.require(spec.tools.len() <= MAX_PINNED_TOOLS, "spec.tools", || {
        format!("{} tools; at most {MAX_PINNED_TOOLS} can be pinned", spec.tools.len())
    });
}

/// The refusal to approve or quarantine what nobody knows.
pub fn unknown_tool(plugin: &str, tool: &str) -> Problem {
    let text = format!("plugin {plugin} has no tool {tool}, as far as nodes have seen");
    Problem::of_transaction("PV-PLUGIN-TOOL", text).hint("`provost plugin status` lists its tools")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(n: u8) -> PinnedDefinition {
        PinnedDefinition { hash: format!("{n:064x}"), definition: format!("{{\"n\":{n}}}"), ..Default::default() }
    }

    /// What each policy makes of the definitions 1, 1, 2, 3, 1 of one tool, and which is approved then.
    #[test]
    fn the_first_wins_and_the_next_one_waits() {
        use Seen::{Known, Pinned, Waits};
        for (policy, expect, approved, waits) in [
            (DefinitionPolicy::Trust, [Pinned, Known, Pinned, Pinned, Pinned], Some(1), None),
            (DefinitionPolicy::Pin, [Pinned, Known, Waits, Known, Known], Some(1), Some(2)),
            (DefinitionPolicy::Approve, [Waits, Known, Known, Known, Known], None, Some(1)),
        ] {
            let mut spec = ToolPinsSpec::default();
            let found = [1, 1, 2, 3, 1].map(|n| see(&mut spec, policy, "t", definition(n)));
            assert_eq!(found, expect, "{policy:?}");
            let hash = |n: Option<u8>| n.map(|n| definition(n).hash);
            let pin = &spec.tools["t"];
            assert_eq!(pin.approved.as_ref().map(|d| d.hash.clone()), hash(approved), "{policy:?}");
            assert_eq!(pin.changed.as_ref().map(|d| d.hash.clone()), hash(waits), "{policy:?}");
        }
    }

    #[test]
    fn an_approval_takes_what_waits() {
        let mut spec = ToolPinsSpec::default();
        for n in [1, 2] {
            see(&mut spec, DefinitionPolicy::Pin, "t", definition(n));
        }
        see(&mut spec, DefinitionPolicy::Pin, "u", definition(5));
        assert_eq!(approve(&mut spec, Some("u"), "ana", "now"), Vec::<String>::new());
        assert_eq!(approve(&mut spec, None, "ana", "now"), ["t"]);
        let pin = &spec.tools["t"];
        let approved = pin.approved.as_ref().map(|d| (d.hash.clone(), d.by.as_str()));
        assert_eq!((approved, &pin.changed), (Some((definition(2).hash, "ana")), &None));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut spec = ToolPinsSpec::default();
        for n in 0..MAX_PINNED_TOOLS + 5 {
            let text = "x".repeat(MAX_DEFINITION_BYTES - 1);
            let seen = PinnedDefinition { definition: text, warnings: vec!["w".repeat(999); 99], ..definition(1) };
            see(&mut spec, DefinitionPolicy::Pin, &format!("t{n}"), seen);
        }
        assert_eq!(spec.tools.len(), MAX_PINNED_TOOLS);
        assert!(kept(&spec) <= MAX_KEPT_BYTES);
        let warnings = spec.tools["t0"].approved.as_ref().map(|d| (d.warnings.len(), d.warnings[0].len()));
        assert_eq!(warnings, Some((MAX_WARNINGS, MAX_WARNING_BYTES)));
        for (tool, hash) in [("", "0".repeat(64)), ("x", "no hash".to_owned())] {
            let seen = PinnedDefinition { hash, ..Default::default() };
            assert_eq!(see(&mut ToolPinsSpec::default(), DefinitionPolicy::Pin, tool, seen), Seen::Known);
        }
    }
}
