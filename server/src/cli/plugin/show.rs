//! A plugin and its tools, for people and as JSON.

use provost_types::{DefinitionPolicy, PinnedDefinition, PluginSource, ToolPin};
use serde_json::{Value, json};

use super::{Found, diff, wait::Waited};
use crate::failure::Failure;

/// Digits of a hash that people are shown.
const SHORT: usize = 12;

/// How a tool stands.
fn state(plugin: &Found, pin: &ToolPin) -> &'static str {
    match (&plugin.pins.quarantined, &pin.quarantined, &pin.approved, &pin.changed) {
        (Some(_), ..) | (_, Some(_), ..) => "quarantined",
        (_, _, Some(_), Some(_)) => "changed",
        (_, _, None, _) => "waits",
        (_, _, Some(_), None) => "approved",
    }
}

fn policy(plugin: &Found) -> &'static str {
    match (&plugin.spec.source, plugin.spec.definitions.unwrap_or_default()) {
        (source, _) if source.is_own() => "built-in",
        (_, DefinitionPolicy::Trust) => "trust",
        (_, DefinitionPolicy::Pin) => "pin",
        (_, DefinitionPolicy::Approve) => "approve",
    }
}

/// The package that it runs, if it runs one.
fn package(plugin: &Found) -> Option<String> {
    match &plugin.spec.source {
        PluginSource::Wasm(wasm) => wasm.package.map(|digest| digest.to_string()),
        _ => None,
    }
}

fn warnings(pin: &ToolPin) -> Vec<&String> {
    let both = [&pin.approved, &pin.changed].into_iter().flatten();
    both.flat_map(|definition| &definition.warnings).collect()
}

/// An error if there is no such tool, as far as nodes have seen. Of Provost's own nothing is pinned.
pub(super) fn check_tool(plugin: &Found, tool: &str) -> Result<(), Failure> {
    if plugin.spec.source.is_own() || plugin.pins.tools.contains_key(tool) {
        return Ok(());
    }
    let text = format!("plugin {} has no tool {tool}, as far as nodes have seen", plugin.name);
    Err(Failure::new("PV-PLUGIN-TOOL", text, format!("`provost plugin status {}` lists its tools", plugin.name)))
}

/// A line of the list.
pub(super) fn row(plugin: &Found) -> Vec<String> {
    let count = |of: &dyn Fn(&ToolPin) -> bool| plugin.pins.tools.values().filter(|pin| of(pin)).count().to_string();
    vec![
        plugin.name.clone(),
        policy(plugin).to_owned(),
        plugin.pins.tools.len().to_string(),
        count(&|pin| matches!(state(plugin, pin), "waits" | "changed")),
        count(&|pin| state(plugin, pin) == "quarantined"),
        count(&|pin| !warnings(pin).is_empty()),
    ]
}

pub(super) fn json_of(plugin: &Found, tool: Option<&str>) -> Value {
    let tools = plugin.pins.tools.iter().filter(|(name, _)| tool.is_none_or(|tool| tool == *name));
    let tools: Vec<Value> = tools
        .map(|(name, pin)| {
            let mut value = json!({ "name": name, "state": state(plugin, pin), "warnings": warnings(pin) });
            for (member, definition) in [("approved", &pin.approved), ("changed", &pin.changed)] {
                if let Some(definition) = definition {
                    value[member] = definition_json(definition);
                }
            }
            if let Some(quarantine) = &pin.quarantined {
                value["quarantined"] = json!(quarantine);
            }
            if let Some(text) = diff_of(pin) {
                value["diff"] = text.into();
            }
            value
        })
        .collect();
    json!({
        "name": plugin.name, "definitions": policy(plugin), "tools": tools,
        "quarantined": plugin.pins.quarantined, "package": package(plugin),
    })
}

fn definition_json(definition: &PinnedDefinition) -> Value {
    let parsed = serde_json::from_str::<Value>(&definition.definition).unwrap_or_default();
    json!({ "hash": definition.hash, "since": definition.since, "by": definition.by, "definition": parsed })
}

/// What changed, if something did and both texts are kept.
fn diff_of(pin: &ToolPin) -> Option<String> {
    let (Some(old), Some(new)) = (&pin.approved, &pin.changed) else { return None };
    let pretty = |definition: &PinnedDefinition| {
        let value = serde_json::from_str::<Value>(&definition.definition).ok()?;
        serde_json::to_string_pretty(&value).ok()
    };
    Some(diff::lines(&pretty(old)?, &pretty(new)?))
}

pub(super) fn print(plugin: &Found, tool: Option<&str>, nodes: Option<&Waited>) {
    println!("{}: definitions: {}", plugin.name, policy(plugin));
    if let Some(digest) = package(plugin) {
        println!("  package {digest}");
    }
    for line in nodes.map(Waited::lines).unwrap_or_default() {
        println!("  {line}");
    }
    if let Some(quarantine) = &plugin.pins.quarantined {
        println!("  quarantined since {} by {}: {}", quarantine.since, quarantine.by, quarantine.reason);
    }
    if plugin.spec.source.is_own() {
        println!("  its tools are Provost's own: nothing of them is pinned");
    } else if plugin.pins.tools.is_empty() {
        println!("  no node has seen its tools yet; they are looked at with the first list or call");
    }
    for (name, pin) in plugin.pins.tools.iter().filter(|(name, _)| tool.is_none_or(|tool| tool == *name)) {
        println!("  {}: {}", diff::visible(name), state(plugin, pin));
        for (what, definition) in [("approved", &pin.approved), ("seen", &pin.changed)] {
            if let Some(d) = definition {
                let hash: String = d.hash.chars().take(SHORT).collect();
                println!("    {what} {hash} since {} by {}", d.since, d.by);
            }
        }
        if let Some(quarantine) = &pin.quarantined {
            println!("    quarantined since {} by {}: {}", quarantine.since, quarantine.by, quarantine.reason);
        }
        for warning in warnings(pin) {
            println!("    warning: {}", diff::visible(warning));
        }
        if let Some(text) = diff_of(pin) {
            text.lines().for_each(|line| println!("      {}", diff::visible(line)));
        } else if pin.approved.is_some() && pin.changed.is_some() {
            println!("    too large to be kept: the hashes tell them apart");
        }
    }
}
