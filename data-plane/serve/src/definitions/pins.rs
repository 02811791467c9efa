//! The pins of a snapshot, and what they say of a definition.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use provost_types::{DefinitionPolicy, Kind, Name, Quarantine, Resource, Snapshot, Spec, ToolPin, ToolPinsSpec};

use super::SeenTools;

/// What becomes of a tool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Its definition is approved, or need not be.
    Served,
    /// Nobody has pinned it yet: the first that this node saw is served.
    First,
    /// It is hidden and refused; why, for callers.
    Quarantined(String),
}

/// The pins of one plugin; what is pinned is shared with the snapshot.
#[derive(Clone, Debug)]
pub(crate) struct PluginPins {
    policy: DefinitionPolicy,
    pinned: Option<Arc<Resource>>,
}

/// All pins of a snapshot.
#[derive(Clone, Debug, Default)]
pub(crate) struct PinIndex {
    plugins: HashMap<(Name, Name), Arc<PluginPins>>,
}

impl PinIndex {
    /// Those of a snapshot: of each plugin with an upstream, and of others that were quarantined.
    /// What did not change since `before` is taken over as it is, so that what was made of it stays good.
    pub(crate) fn compile(snapshot: &Snapshot, before: Option<&Self>) -> Self {
        let mut pins: HashMap<(Name, Name), Arc<Resource>> = HashMap::new();
        for resource in snapshot.of_kind(Kind::ToolPins) {
            if let Some(tenant) = &resource.metadata.tenant {
                pins.insert((tenant.clone(), resource.metadata.name.clone()), resource.clone());
            }
        }
        let mut plugins = HashMap::new();
        for resource in snapshot.of_kind(Kind::Plugin) {
            let (Some(tenant), Spec::Plugin(spec)) = (&resource.metadata.tenant, &resource.spec) else { continue };
            let key = (tenant.clone(), resource.metadata.name.clone());
            let is_builtin = spec.source.is_own();
            let policy = if is_builtin { DefinitionPolicy::Trust } else { spec.definitions.unwrap_or_default() };
            let pinned = pins.remove(&key);
            if !is_builtin || pinned.is_some() {
                let pins = PluginPins { policy, pinned };
                let kept = before.and_then(|before| before.plugins.get(&key)).filter(|kept| kept.is(&pins)).cloned();
                plugins.insert(key, kept.unwrap_or_else(|| Arc::new(pins)));
            }
        }
        Self { plugins }
    }

    /// The pins of a plugin; `None`: it has none and needs none.
    pub(crate) fn of(&self, tenant: &Name, plugin: &Name) -> Option<&Arc<PluginPins>> {
        self.plugins.get(&(tenant.clone(), plugin.clone()))
    }

    pub(crate) fn has(&self, key: &(Name, Name)) -> bool {
        self.plugins.contains_key(key)
    }

    /// The plugins whose pins are others than before, with both.
    #[allow(clippy::type_complexity, reason = "used once, beside")]
    pub(crate) fn repinned<'a>(
        &'a self,
        before: &'a Self,
    ) -> impl Iterator<Item = (&'a (Name, Name), Option<&'a Arc<PluginPins>>, Option<&'a Arc<PluginPins>>)> {
        let gone = before.plugins.keys().filter(|key| !self.plugins.contains_key(*key));
        let both = self.plugins.keys().chain(gone);
        both.map(|key| (key, before.plugins.get(key), self.plugins.get(key))).filter(|(_, before, after)| {
            match (before, after) {
                (Some(before), Some(after)) => !before.is_same(after),
                _ => true,
            }
        })
    }
}

fn by(quarantine: &Quarantine, what: &str) -> Verdict {
    Verdict::Quarantined(format!("{what} is quarantined since {}: {}", quarantine.since, quarantine.reason))
}

impl PluginPins {
    fn is(&self, other: &Self) -> bool {
        let is_same = match (&self.pinned, &other.pinned) {
            (Some(pinned), Some(other)) => Arc::ptr_eq(pinned, other),
            (None, None) => true,
            _ => false,
        };
        is_same && self.policy == other.policy
    }

    fn spec(&self) -> Option<&ToolPinsSpec> {
        match &self.pinned.as_ref()?.spec {
            Spec::ToolPins(spec) => Some(spec),
            _ => None,
        }
    }

    fn pin(&self, tool: &str) -> Option<&ToolPin> {
        self.spec()?.tools.get(tool)
    }

    /// What they say of a tool with this definition; `None`: its definition is not at hand.
    pub(crate) fn judge(&self, tool: &str, hash: Option<&str>) -> Verdict {
        if let Some(quarantine) = self.spec().and_then(|pins| pins.quarantined.as_ref()) {
            return by(quarantine, "the plugin");
        }
        let pin = self.pin(tool);
        if let Some(quarantine) = pin.and_then(|pin| pin.quarantined.as_ref()) {
            return by(quarantine, "the tool");
        }
        if self.policy == DefinitionPolicy::Trust {
            return Verdict::Served;
        }
        let quarantined = |why: &str| Verdict::Quarantined(why.to_owned());
        match (hash, pin) {
            // Its upstream cannot be asked: nobody was shown a definition here, and the call will say what is wrong.
            (None, Some(pin)) if pin.approved.is_some() => Verdict::Served,
            (None, _) if self.policy == DefinitionPolicy::Pin => Verdict::Served,
            (None, _) => quarantined("its definition is not known, and only approved ones are served"),
            (Some(hash), Some(pin)) => match &pin.approved {
                Some(approved) if approved.hash == hash => Verdict::Served,
                Some(approved) => Verdict::Quarantined(format!(
                    "its definition is not the one that was approved on {}; an administrator looks at it with \
                     `provost plugin status`",
                    approved.since
                )),
                None => quarantined("its definition waits to be approved by an administrator"),
            },
            (Some(_), None) if self.policy == DefinitionPolicy::Approve => {
                quarantined("its definition waits to be approved by an administrator")
            }
            (Some(_), None) => Verdict::First,
        }
    }

    /// Whether these are the very pins.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let same = match (&self.pinned, &other.pinned) {
            (None, None) => true,
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            _ => false,
        };
        same && self.policy == other.policy
    }

    /// What was quarantined by name: the whole plugin, and tools.
    pub(crate) fn takes(&self) -> (bool, BTreeSet<String>) {
        let Some(spec) = self.spec() else { return Default::default() };
        let tools = spec.tools.iter().filter(|(_, pin)| pin.quarantined.is_some());
        (spec.quarantined.is_some(), tools.map(|(name, _)| name.clone()).collect())
    }

    /// The tools that they hide of those that were seen.
    pub(crate) fn hidden(&self, seen: &SeenTools) -> BTreeSet<String> {
        let names = seen.definitions().iter().map(|definition| &definition.name);
        let is_hidden = |name: &&String| matches!(self.judge(name, seen.hash(name)), Verdict::Quarantined(_));
        names.filter(is_hidden).cloned().collect()
    }

    /// Whether the control plane should hear of this definition.
    pub(crate) fn wants(&self, tool: &str, hash: &str) -> bool {
        match self.pin(tool) {
            None => true,
            Some(pin) => {
                let is_approved = pin.approved.as_ref().is_some_and(|approved| approved.hash == hash);
                !is_approved && (pin.changed.is_none() || self.policy == DefinitionPolicy::Trust)
            }
        }
    }

    pub(crate) fn policy(&self) -> DefinitionPolicy {
        self.policy
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use provost_types::{Metadata, PinnedDefinition, Revision};

    use super::*;

    #[test]
    fn what_is_served_is_approved_or_the_first() {
        let definition = |hash: &str| Some(PinnedDefinition { hash: hash.to_owned(), ..Default::default() });
        let quarantine = || Some(Quarantine { reason: "r".into(), ..Default::default() });
        let pin = |approved: &str, changed: &str| ToolPin {
            approved: definition(approved).filter(|_| !approved.is_empty()),
            changed: definition(changed).filter(|_| !changed.is_empty()),
            quarantined: None,
        };
        let judged = |policy, pin: Option<ToolPin>, whole: Option<Quarantine>, hash: Option<&str>| {
            let tools = pin.into_iter().map(|pin| ("t".to_owned(), pin)).collect();
            let metadata = Metadata { name: Name::new("up").unwrap(), tenant: None, labels: Default::default() };
            let spec = Spec::ToolPins(ToolPinsSpec { quarantined: whole, tools });
            let (created, modified) = (Revision(1), Revision(1));
            let pins = PluginPins { policy, pinned: Some(Arc::new(Resource { metadata, spec, created, modified })) };
            match pins.judge("t", hash) {
                Verdict::Served => "served".to_owned(),
                Verdict::First => "first".to_owned(),
                Verdict::Quarantined(why) => why,
            }
        };
        use DefinitionPolicy::{Approve, Pin, Trust};
        for (policy, pinned, hash, expect) in [
            (Trust, None, Some("1"), "served"),
            (Trust, Some(pin("1", "")), Some("2"), "served"),
            (Trust, None, None, "served"),
            (Pin, None, Some("1"), "first"),
            (Pin, Some(pin("1", "")), Some("1"), "served"),
            (Pin, Some(pin("1", "2")), Some("1"), "served"),
            (Pin, Some(pin("1", "")), Some("2"), "not the one that was approved"),
            (Pin, Some(pin("1", "2")), Some("2"), "not the one that was approved"),
            (Pin, Some(pin("1", "")), None, "served"),
            (Pin, None, None, "served"),
            (Approve, None, None, "not known"),
            (Approve, Some(pin("", "1")), None, "not known"),
            (Approve, Some(pin("1", "")), None, "served"),
            (Approve, None, Some("1"), "waits"),
            (Approve, Some(pin("", "1")), Some("1"), "waits"),
            (Approve, Some(pin("1", "")), Some("1"), "served"),
        ] {
            let found = judged(policy, pinned.clone(), None, hash);
            assert!(found.contains(expect), "{policy:?} {pinned:?} {hash:?}: {found}");
            assert!(judged(policy, pinned, quarantine(), hash).contains("the plugin is quarantined"));
        }
        let taken = ToolPin { quarantined: quarantine(), ..pin("1", "") };
        assert!(judged(Trust, Some(taken), None, Some("1")).contains("the tool is quarantined"));
    }
}
