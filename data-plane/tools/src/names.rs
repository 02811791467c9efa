//! Names on the merged route, where several plugins are seen as one server.
//!
//! - Tools and prompts: `plugin.name`. Plugin names may themselves hold dots, so a full name is
//!   split after the **longest** plugin name that fits; what a shorter one would mean is not
//!   reachable, so a name never means two things to policy.
//! - Resources and templates: the upstream's own URI as long as only one plugin has it; the second
//!   and later plugins' (in order of name) are shown as `provost:PLUGIN:URI`, and that form is
//!   always understood. A URI is found by exact match in the lists first, then by the templates;
//!   one that templates of two plugins match belongs to the first in order of name.
//! - Task handles: `plugin.ID`, split like tools; upstream ids are opaque.
//!
//! Pure: works on lists that were fetched before.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use provost_mcp::{RawJson, RawObject};
use provost_types::Name;

use crate::{Definition, Definitions};

const SCHEME: &str = "provost:";

/// `plugin.local`.
pub fn join(plugin: &Name, local: &str) -> String {
    [plugin.as_str(), ".", local].concat()
}

/// The plugin and local name of a full name: the longest plugin name that fits wins.
pub fn split(full: &str, is_plugin: impl Fn(&str) -> bool) -> Option<(&str, &str)> {
    full.rmatch_indices('.')
        .map(|(at, _)| (&full[..at], &full[at + 1..]))
        .find(|(plugin, local)| !local.is_empty() && is_plugin(plugin))
}

/// `provost:PLUGIN:URI`: how clients are shown a resource, never how policy knows it.
pub fn qualify_uri(plugin: &Name, uri: &str) -> String {
    format!("{SCHEME}{plugin}:{uri}")
}

/// The plugin and the upstream's URI of a qualified URI.
pub fn split_uri(uri: &str) -> Option<(&str, &str)> {
    uri.strip_prefix(SCHEME)?.split_once(':').filter(|(plugin, _)| Name::new(plugin).is_ok())
}

/// The definition with its name (`name`, `uri` or `uriTemplate`) replaced; all other bytes stay.
pub fn rename(raw: &RawJson, member: &str, name: &str) -> RawJson {
    match RawObject::parse(raw) {
        Ok(mut object) => {
            object.set_text(member, name);
            object.finish()
        }
        Err(_) => raw.clone(),
    }
}

/// Which plugin a URI belongs to, over all plugins of a tenant.
#[derive(Clone, Debug, Default)]
pub struct ResourceIndex {
    exact: HashMap<String, Name>,
    /// In order of plugin, then of the plugin's list.
    templates: Vec<(Name, UriPattern)>,
    template_owner: HashMap<String, Name>,
    plugins: BTreeSet<Name>,
}

impl ResourceIndex {
    /// Builds it from each plugin's resources and templates.
    pub fn new(plugins: &BTreeMap<Name, (Definitions, Definitions)>) -> Self {
        let mut index = Self { plugins: plugins.keys().cloned().collect(), ..Self::default() };
        for (plugin, (resources, templates)) in plugins {
            for resource in resources.iter() {
                index.exact.entry(resource.name.clone()).or_insert_with(|| plugin.clone());
            }
            for template in templates.iter() {
                index.template_owner.entry(template.name.clone()).or_insert_with(|| plugin.clone());
                index.templates.push((plugin.clone(), UriPattern::new(&template.name)));
            }
        }
        index
    }

    /// The plugin and the upstream's URI for a URI as a client wrote it.
    pub fn route(&self, uri: &str) -> Option<(Name, String)> {
        if let Some((plugin, local)) = split_uri(uri) {
            let plugin = self.plugins.get(plugin)?;
            return Some((plugin.clone(), local.to_owned()));
        }
        if let Some(plugin) = self.exact.get(uri).or_else(|| self.template_owner.get(uri)) {
            return Some((plugin.clone(), uri.to_owned()));
        }
        let (plugin, _) = self.templates.iter().find(|(_, pattern)| pattern.matches(uri))?;
        Some((plugin.clone(), uri.to_owned()))
    }

    /// How a plugin's resource is shown.
    pub fn shown_resource(&self, plugin: &Name, uri: &str) -> String {
        Self::shown(&self.exact, plugin, uri)
    }

    /// How a plugin's template is shown.
    pub fn shown_template(&self, plugin: &Name, template: &str) -> String {
        Self::shown(&self.template_owner, plugin, template)
    }

    fn shown(owners: &HashMap<String, Name>, plugin: &Name, uri: &str) -> String {
        let own = owners.get(uri).is_none_or(|owner| owner == plugin);
        // One that looks qualified is qualified, or it would lead elsewhere.
        if own && split_uri(uri).is_none() { uri.to_owned() } else { qualify_uri(plugin, uri) }
    }
}

/// An RFC 6570 template reduced to its fixed parts: an expression matches anything, a simple one
/// (`{x}`) anything but `/`. Enough to find the owner; the owner decides what the URI means.
#[derive(Clone, Debug)]
struct UriPattern(Option<regex::Regex>);

impl UriPattern {
    /// The largest compiled form; a template beyond it matches nothing.
    const MAX_COMPILED_BYTES: usize = 256 * 1024;

    fn new(template: &str) -> Self {
        let mut pattern = String::from("^");
        let mut rest = template;
        while let Some((fixed, after)) = rest.split_once('{') {
            let Some((expression, tail)) = after.split_once('}') else { break };
            pattern.push_str(&regex::escape(fixed));
            let simple =
                expression.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_') && !expression.ends_with('*');
            pattern.push_str(if simple { "[^/]*" } else { ".*" });
            rest = tail;
        }
        pattern.push_str(&regex::escape(rest));
        pattern.push('$');
        let compiled = regex::RegexBuilder::new(&pattern).size_limit(Self::MAX_COMPILED_BYTES).build();
        Self(compiled.ok())
    }

    fn matches(&self, uri: &str) -> bool {
        self.0.as_ref().is_some_and(|pattern| pattern.is_match(uri))
    }
}

/// The definition's name on the merged route and its renamed bytes, for tools and prompts.
pub fn shown(plugin: &Name, definition: &Definition) -> (String, RawJson) {
    let full = join(plugin, &definition.name);
    let raw = rename(&definition.raw, "name", &full);
    (full, raw)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn list(names: &[&str]) -> Definitions {
        let define = |n: &&str| Definition { name: (*n).to_owned(), raw: RawJson::EMPTY_OBJECT };
        Arc::new(names.iter().map(define).collect())
    }

    #[test]
    fn the_longest_plugin_name_wins() {
        let plugins = ["a", "a.b"];
        let is_plugin = |p: &str| plugins.contains(&p);
        assert_eq!(split("a.b.c", is_plugin), Some(("a.b", "c")));
        assert_eq!(split("a.c.d", is_plugin), Some(("a", "c.d")));
        assert_eq!(split("b.c", is_plugin), None);
        assert_eq!(split("a.", is_plugin), None);
    }

    #[test]
    fn uris_lead_to_one_plugin() {
        let plugins = BTreeMap::from([
            (name("a"), (list(&["test://x", "test://a"]), list(&["test://t/{id}/data"]))),
            (name("b"), (list(&["test://x"]), list(&["test://t/{id}/data", "file:///{+path}"]))),
        ]);
        let index = ResourceIndex::new(&plugins);
        let route = |uri: &str| index.route(uri).map(|(p, u)| format!("{p} {u}"));
        assert_eq!(route("test://x").as_deref(), Some("a test://x"));
        assert_eq!(route("provost:b:test://x").as_deref(), Some("b test://x"));
        assert_eq!(route("provost:c:test://x"), None);
        assert_eq!(route("test://t/7/data").as_deref(), Some("a test://t/7/data"));
        assert_eq!(route("test://t/7/8/data"), None);
        assert_eq!(route("file:///x/y").as_deref(), Some("b file:///x/y"));
        assert_eq!(route("test://t/{id}/data").as_deref(), Some("a test://t/{id}/data"));
        assert_eq!(index.shown_resource(&name("b"), "test://x"), "provost:b:test://x");
        assert_eq!(index.shown_resource(&name("a"), "test://x"), "test://x");
        assert_eq!(index.shown_resource(&name("a"), "provost:b:y"), "provost:a:provost:b:y");
    }

    #[test]
    fn renaming_keeps_every_other_byte() {
        let raw = RawJson::from_checked(r#"{"z":1.50,"name":"t","x":[ 1 ]}"#.into());
        assert_eq!(rename(&raw, "name", "p.t").as_str(), r#"{"z":1.50,"name":"p.t","x":[ 1 ]}"#);
    }
}
