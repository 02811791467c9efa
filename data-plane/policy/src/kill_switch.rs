//! The switches that are on, and which of them stops a call.

use provost_types::{KillSwitchSpec, Kind, Name, Snapshot, Spec};

/// A call as switches see it.
#[derive(Clone, Copy, Debug)]
pub struct KillCall<'a> {
    /// The caller's tenant.
    pub tenant: &'a Name,
    /// The caller.
    pub principal: &'a Name,
    /// Who would serve it; `None`: nobody in particular.
    pub plugin: Option<&'a str>,
    /// The names under which a tool is called; empty: it is no call of a tool.
    pub tools: &'a [&'a str],
}

/// A switch that is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KillSwitch {
    tenant: Option<Name>,
    spec: KillSwitchSpec,
}

impl KillSwitch {
    /// What it says.
    pub fn spec(&self) -> &KillSwitchSpec {
        &self.spec
    }

    /// What it covers, in words.
    pub fn scope(&self) -> String {
        self.spec.scope(self.tenant.as_ref())
    }

    fn stops(&self, call: &KillCall<'_>) -> bool {
        let fits = |pattern: &String| match pattern.strip_suffix('*') {
            Some(prefix) => call.tools.iter().any(|tool| tool.starts_with(prefix)),
            None => call.tools.contains(&pattern.as_str()),
        };
        self.tenant.as_ref().is_none_or(|tenant| tenant == call.tenant)
            && self.spec.principal.as_ref().is_none_or(|principal| principal == call.principal)
            && self.spec.plugin.as_ref().is_none_or(|plugin| call.plugin == Some(plugin.as_str()))
            && self.spec.tool.as_ref().is_none_or(fits)
    }
}

/// All of them. There are few, so they are compared one by one; most of the time there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KillSwitches(Vec<KillSwitch>);

impl KillSwitches {
    /// Those of a snapshot.
    pub fn compile(snapshot: &Snapshot) -> Self {
        let switch = |resource: &std::sync::Arc<provost_types::Resource>| match &resource.spec {
            Spec::KillSwitch(spec) => Some(KillSwitch { tenant: resource.metadata.tenant.clone(), spec: spec.clone() }),
            _ => None,
        };
        Self(snapshot.of_kind(Kind::KillSwitch).filter_map(switch).collect())
    }

    /// Whether none is on.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first that stops a call.
    pub fn find(&self, call: &KillCall<'_>) -> Option<&KillSwitch> {
        self.0.iter().find(|switch| switch.stops(call))
    }

    /// Whether a plugin is stopped for everybody of a tenant: then nothing is asked of its upstream.
    pub fn stops_plugin(&self, tenant: &Name, plugin: &str) -> bool {
        self.0.iter().any(|switch| {
            let KillSwitchSpec { plugin: own, tool, principal, .. } = &switch.spec;
            tool.is_none()
                && principal.is_none()
                && switch.tenant.as_ref().is_none_or(|own| own == tenant)
                && own.as_ref().is_none_or(|own| own.as_str() == plugin)
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn switch(tenant: &str, plugin: &str, tool: &str, principal: &str) -> KillSwitches {
        let some = |text: &str| (!text.is_empty()).then(|| name(text));
        let spec = KillSwitchSpec {
            plugin: some(plugin),
            tool: (!tool.is_empty()).then(|| tool.to_owned()),
            principal: some(principal),
            ..KillSwitchSpec::default()
        };
        KillSwitches(vec![KillSwitch { tenant: some(tenant), spec }])
    }

    /// What each switch does to: ana of acme calling `files.read`; bob of beta the same; ana a model; ana listing.
    #[test]
    fn a_switch_stops_what_fits_all_that_it_names() {
        let (acme, beta, ana, bob) = (name("acme"), name("beta"), name("ana"), name("bob"));
        let tool = ["files.read"];
        let calls = [
            KillCall { tenant: &acme, principal: &ana, plugin: Some("files"), tools: &tool },
            KillCall { tenant: &beta, principal: &bob, plugin: Some("files"), tools: &tool },
            KillCall { tenant: &acme, principal: &ana, plugin: None, tools: &[] },
            KillCall { tenant: &acme, principal: &ana, plugin: Some("files"), tools: &[] },
        ];
        for (tenant, plugin, tool, principal, stopped, whole) in [
            ("", "", "", "", [true, true, true, true], true),
            ("acme", "", "", "", [true, false, true, true], true),
            ("beta", "", "", "", [false, true, false, false], false),
            ("", "files", "", "", [true, true, false, true], true),
            ("beta", "files", "", "", [false, true, false, false], false),
            ("", "", "files.read", "", [true, true, false, false], false),
            ("", "", "files.*", "", [true, true, false, false], false),
            ("", "", "files.rea", "", [false; 4], false),
            ("", "", "sql.*", "", [false; 4], false),
            ("", "", "", "ana", [true, false, true, true], false),
            ("acme", "files", "files.read", "ana", [true, false, false, false], false),
            ("acme", "files", "files.read", "bob", [false; 4], false),
        ] {
            let switches = switch(tenant, plugin, tool, principal);
            let case = format!("{tenant}/{plugin}/{tool}/{principal}");
            assert_eq!(calls.map(|call| switches.find(&call).is_some()), stopped, "{case}");
            assert_eq!(switches.stops_plugin(&acme, "files"), whole, "{case}");
        }
        assert!(KillSwitches::default().find(&calls[0]).is_none());
    }
}
