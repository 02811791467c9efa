//! How far the nodes that serve calls are with a change of a plugin.
//!
//! Nothing is kept: it is what nodes say on the streams that they take configuration by. A node that is not connected
//! is not there.

use provost_types::{Name, Revision};
use provost_wire::{packages::PluginOnNode, tls::Role};

use super::check_scope;
use crate::{Caller, ControlError, Scope, SubscriberStatus, Subscribers, push::Part};

/// How far each connected node is with a plugin as it is at a revision.
pub(super) async fn plugin_progress(
    caller: &Caller,
    nodes: &dyn Subscribers,
    plugin: (&Name, &Name),
    revision: Revision,
) -> Result<Vec<PluginOnNode>, ControlError> {
    check_scope(caller, plugin.0)?;
    let known: Vec<SubscriberStatus> = match nodes.gather().await {
        Some(gathered) => gathered.nodes.into_iter().map(|(_, node)| node.into()).collect(),
        None => nodes.serving(),
    };
    // Which nodes there are is not for those who administer a tenant.
    let names_nodes = matches!(caller.scope, Scope::Cluster);
    let told = known.into_iter().filter(|node| node.role.contains(Role::DataPlane.as_str())).map(|node| {
        let (state, why) = progress(&node, plugin, revision);
        let node = if names_nodes { node.node } else { String::new() };
        PluginOnNode { node, state: state.to_owned(), why }
    });
    Ok(told.collect())
}

/// How far one node is, and why.
fn progress(node: &SubscriberStatus, (tenant, name): (&Name, &Name), wanted: Revision) -> (&'static str, String) {
    if node.revision < wanted {
        if node.refused.is_some_and(|refused| refused >= wanted) {
            return ("refused", node.problems.first().map(ToString::to_string).unwrap_or_default());
        }
        return match node.part {
            Part::Held => ("held", String::new()),
            Part::Returned => ("refused", "the staged release halted it".to_owned()),
            Part::All | Part::Canary => ("behind", String::new()),
        };
    }
    let Some(plugins) = &node.plugins else { return ("active", String::new()) };
    if plugins.revision < wanted.0 {
        return ("behind", String::new());
    }
    let own =
        plugins.waiting.iter().find(|waiting| waiting.tenant == tenant.as_str() && waiting.plugin == name.as_str());
    match own {
        Some(waiting) if waiting.failed => ("failed", waiting.why.clone()),
        Some(waiting) => ("waiting", waiting.why.clone()),
        None if plugins.cut => ("waiting", "more plugins wait there than it names".to_owned()),
        None => ("ready", String::new()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use provost_wire::node::{PluginWaiting, PluginsStanding};

    use super::*;
    use crate::LocatedProblem;

    fn node(runs: u64) -> SubscriberStatus {
        SubscriberStatus {
            node: "dp-1".to_owned(),
            role: "control-plane,data-plane".to_owned(),
            revision: Revision(runs),
            lag: 0,
            silent: Duration::ZERO,
            problems: Vec::new(),
            version: String::new(),
            part: Part::All,
            refused: None,
            plugins: None,
        }
    }

    fn saying(runs: u64, said: u64, waiting: &[(&str, &str, &str, bool)], cut: bool) -> SubscriberStatus {
        let waiting = waiting.iter().map(|(tenant, plugin, why, failed)| PluginWaiting {
            tenant: (*tenant).to_owned(),
            plugin: (*plugin).to_owned(),
            why: (*why).to_owned(),
            failed: *failed,
        });
        let plugins = Some(PluginsStanding { revision: said, waiting: waiting.collect(), cut });
        SubscriberStatus { plugins, ..node(runs) }
    }

    #[test]
    fn what_a_node_says_is_how_far_it_is() {
        let problems = vec![LocatedProblem { code: "PV-X".to_owned(), ..Default::default() }];
        let refused =
            |revision| SubscriberStatus { refused: Some(Revision(revision)), problems: problems.clone(), ..node(8) };
        let part = |part| SubscriberStatus { part, ..node(8) };
        let others = [("acme", "other", "", false), ("umbra", "text", "", true)];
        for (what, node, expect) in [
            ("an older revision", node(8), "behind"),
            ("it has not said what it runs", node(0), "behind"),
            ("refused", refused(9), "refused"),
            ("refused what came later", refused(10), "refused"),
            ("refused what came before", refused(7), "behind"),
            ("held", part(Part::Held), "held"),
            ("halted", part(Part::Returned), "refused"),
            ("a canary on its way", part(Part::Canary), "behind"),
            ("it says nothing of plugins", node(9), "active"),
            ("what it says is older", saying(9, 8, &[], false), "behind"),
            ("nothing waits", saying(9, 9, &[], false), "ready"),
            ("a later revision", saying(12, 12, &others, false), "ready"),
            ("coming", saying(9, 9, &[("acme", "text", "", false)], false), "waiting"),
            ("tried again", saying(9, 9, &[("acme", "text", "no package", false)], false), "waiting"),
            ("it cannot", saying(9, 9, &[("acme", "text", "bad", true)], false), "failed"),
            ("too many to be named", saying(9, 9, &others, true), "waiting"),
        ] {
            let (tenant, name) = (Name::new("acme").unwrap(), Name::new("text").unwrap());
            let (state, _) = progress(&node, (&tenant, &name), Revision(9));
            assert_eq!(state, expect, "{what}");
        }
    }

    struct Two;

    impl Subscribers for Two {
        fn subscribers(&self) -> Vec<SubscriberStatus> {
            vec![node(9), SubscriberStatus { role: "gpu-node".to_owned(), ..node(9) }]
        }
    }

    #[tokio::test]
    async fn only_nodes_that_serve_calls_count_and_a_tenant_is_not_told_their_names() {
        let (tenant, name) = (Name::new("acme").unwrap(), Name::new("text").unwrap());
        let ann = Caller { scope: Scope::Tenant(tenant.clone()), ..Caller::internal("ann") };
        let eve = Caller { scope: Scope::Tenant(name.clone()), ..Caller::internal("eve") };
        for (caller, expect) in [(Caller::internal("root"), "dp-1"), (ann, "")] {
            let nodes = plugin_progress(&caller, &Two, (&tenant, &name), Revision(9)).await.unwrap();
            assert_eq!(nodes.iter().map(|n| n.node.as_str()).collect::<Vec<_>>(), [expect]);
        }
        let refused = plugin_progress(&eve, &Two, (&tenant, &name), Revision(9)).await.unwrap_err();
        assert_eq!(refused.code(), "PV-ADMIN-SCOPE");
    }
}
