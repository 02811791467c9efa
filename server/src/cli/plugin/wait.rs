//! Waiting until the nodes that serve calls run a change of a plugin.

use std::time::Duration;

use clap::Args;
use indicatif::ProgressBar;
use provost_wire::{
    PackagesConnection,
    packages::{PluginOnNode, PluginProgressRequest},
};
use serde_json::{Value, json};
use tokio::time::Instant;
use tonic::Code;

use super::diff::visible;
use crate::{cli::admin::failed, failure::Failure};

/// The longest wait: a component of many megabytes takes half a minute to compile, and longer where others are before it.
const WAIT_LIMIT: Duration = Duration::from_secs(120);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Nodes that a message names; the others are counted.
const MAX_NAMED: usize = 10;

#[derive(Args)]
pub struct WaitArgs {
    /// Do not wait until every connected node that serves calls runs it.
    #[arg(long)]
    pub no_wait: bool,
}

/// A change that nodes are to run.
pub struct Change<'a> {
    pub tenant: &'a str,
    pub plugin: &'a str,
    pub revision: u64,
}

/// How far the nodes are when the wait is over.
pub struct Waited {
    /// `None`: the control plane is of an older version and does not say.
    nodes: Option<Vec<PluginOnNode>>,
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Done,
    Wait,
    Failed,
}

/// Nodes that a staged release holds back are not waited for: that may take as long as it likes.
fn verdict(nodes: &[PluginOnNode]) -> Verdict {
    let is = |node: &PluginOnNode, states: &[&str]| states.contains(&node.state.as_str());
    if nodes.iter().any(|node| is(node, &["failed", "refused"])) {
        return Verdict::Failed;
    }
    match nodes.iter().all(|node| is(node, &["ready", "active", "held"])) {
        true => Verdict::Done,
        false => Verdict::Wait,
    }
}

/// How far the nodes are now.
pub async fn look(client: &mut PackagesConnection, change: &Change<'_>) -> anyhow::Result<Waited> {
    let request = PluginProgressRequest {
        tenant: change.tenant.to_owned(),
        name: change.plugin.to_owned(),
        revision: change.revision,
    };
    match client.progress(request).await {
        Ok(answer) => Ok(Waited { nodes: Some(answer.into_inner().nodes) }),
        Err(status) if status.code() == Code::Unimplemented => Ok(Waited { nodes: None }),
        Err(status) => Err(failed(status)),
    }
}

/// Waits until every node runs the change, one says that it cannot, or the time is over.
pub async fn wait(client: &mut PackagesConnection, change: &Change<'_>) -> anyhow::Result<Waited> {
    // Shown on a terminal only.
    let shown = ProgressBar::new_spinner();
    let waited = until_over(client, change, &shown).await;
    shown.finish_and_clear();
    waited
}

async fn until_over(
    client: &mut PackagesConnection,
    change: &Change<'_>,
    shown: &ProgressBar,
) -> anyhow::Result<Waited> {
    let deadline = Instant::now() + WAIT_LIMIT;
    loop {
        let waited = look(client, change).await?;
        let is_over = waited.nodes.as_deref().is_none_or(|nodes| verdict(nodes) != Verdict::Wait);
        if is_over || Instant::now() >= deadline {
            return Ok(waited);
        }
        shown.set_message(format!("plugin {}: {}", change.plugin, waited.lines().join("; ")));
        shown.tick();
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

impl Waited {
    /// For programs.
    pub fn json(&self) -> Value {
        let one = |n: &PluginOnNode| json!({ "node": n.node, "state": n.state, "why": n.why });
        self.nodes.as_ref().map_or(Value::Null, |nodes| nodes.iter().map(one).collect())
    }

    /// For people, one line.
    pub fn text(&self) -> String {
        let Some(nodes) = &self.nodes else {
            return "the control plane is of an older version and does not say which nodes run it".to_owned();
        };
        if nodes.is_empty() {
            return "no node that serves calls is connected; those that come run it".to_owned();
        }
        let count = |state: &str| nodes.iter().filter(|node| node.state == state).count();
        let counted = [("ready on", count("ready")), ("active on", count("active")), ("held back from", count("held"))];
        let counted = counted.iter().filter(|(_, count)| *count > 0);
        let counted: Vec<String> = counted.map(|(what, count)| format!("{what} {}", how_many(*count))).collect();
        counted.join(", ")
    }

    /// For people: those that run it, counted, and a line for each other one.
    pub fn lines(&self) -> Vec<String> {
        let counted = Some(self.text()).filter(|text| !text.is_empty());
        counted.into_iter().chain(others(self.nodes.as_deref().unwrap_or_default()).map(line)).collect()
    }

    /// An error unless every node runs it.
    pub fn check(&self, change: &Change<'_>) -> anyhow::Result<()> {
        let nodes = self.nodes.as_deref().unwrap_or_default();
        let (plugin, revision) = (change.plugin, change.revision);
        let failure = match verdict(nodes) {
            Verdict::Done => return Ok(()),
            Verdict::Failed => Failure::new(
                "PV-PLUGIN-NOT-READY",
                format!("revision {revision} is stored, and plugin {plugin} cannot run everywhere: {}", behind(nodes)),
                format!(
                    "repair what is said (its configuration: `provost plugin install` with --set, --unset or \
                     --config), or go back to the package before: `provost plugin rollback {plugin}`"
                ),
            ),
            Verdict::Wait => Failure::new(
                "PV-PLUGIN-BEHIND",
                format!(
                    "revision {revision} is stored, and after {} s not every node runs plugin {plugin}: {}",
                    WAIT_LIMIT.as_secs(),
                    behind(nodes)
                ),
                "nodes go on by themselves; `provost cluster status` shows what each runs",
            ),
        };
        Err(failure.into())
    }
}

fn how_many(nodes: usize) -> String {
    if nodes == 1 { "1 node".to_owned() } else { format!("{nodes} nodes") }
}

/// Those that do not run it.
fn others(nodes: &[PluginOnNode]) -> impl Iterator<Item = &PluginOnNode> {
    nodes.iter().filter(|node| verdict(std::slice::from_ref(*node)) != Verdict::Done)
}

/// Which nodes do not run it, and why.
fn behind(nodes: &[PluginOnNode]) -> String {
    let behind: Vec<&PluginOnNode> = others(nodes).collect();
    let mut told: Vec<String> = behind.iter().take(MAX_NAMED).map(|node| line(node)).collect();
    if behind.len() > MAX_NAMED {
        told.push(format!("and {} more", behind.len() - MAX_NAMED));
    }
    told.join("; ")
}

fn line(node: &PluginOnNode) -> String {
    let who = if node.node.is_empty() { "a node" } else { &node.node };
    let what = match node.state.as_str() {
        "behind" => "does not run the revision yet",
        "waiting" => "makes it ready",
        "failed" => "cannot make it ready",
        "refused" => "does not take the revision",
        other => other,
    };
    // A guest may have a word in it.
    match visible(&node.why).as_str() {
        "" => format!("{who} {what}"),
        why => format!("{who} {what} ({why})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(states: &[(&str, &str)]) -> Vec<PluginOnNode> {
        let node = |(at, (state, why)): (usize, &(&str, &str))| PluginOnNode {
            node: format!("dp-{at}"),
            state: (*state).to_owned(),
            why: (*why).to_owned(),
        };
        states.iter().enumerate().map(node).collect()
    }

    #[test]
    fn it_is_over_when_all_run_it_or_one_cannot() {
        let table: [(&[(&str, &str)], Verdict); 7] = [
            (&[], Verdict::Done),
            (&[("ready", ""), ("active", ""), ("held", "")], Verdict::Done),
            (&[("ready", ""), ("behind", "")], Verdict::Wait),
            (&[("waiting", "no package")], Verdict::Wait),
            (&[("of a later version", "")], Verdict::Wait),
            (&[("behind", ""), ("failed", "bad")], Verdict::Failed),
            (&[("ready", ""), ("refused", "")], Verdict::Failed),
        ];
        for (states, expect) in table {
            assert_eq!(verdict(&nodes(states)), expect, "{states:?}");
        }
    }

    #[test]
    fn the_message_names_the_nodes_that_are_behind_and_only_those() {
        let change = Change { tenant: "acme", plugin: "text", revision: 9 };
        let told = |states: &[(&str, &str)]| {
            let waited = Waited { nodes: Some(nodes(states)) };
            waited.check(&change).err().map(|cause| cause.to_string()).unwrap_or_default()
        };
        let behind = told(&[("ready", ""), ("behind", ""), ("waiting", "no package")]);
        assert!(behind.starts_with("PV-PLUGIN-BEHIND") && behind.contains("revision 9"), "{behind}");
        assert!(
            behind.contains("dp-1 does not run") && behind.contains("dp-2 makes it ready (no package)"),
            "{behind}"
        );
        assert!(!behind.contains("dp-0"), "{behind}");
        let failed = told(&[("failed", "PV-PLUGIN-CONFIG")]);
        assert!(failed.starts_with("PV-PLUGIN-NOT-READY") && failed.contains("PV-PLUGIN-CONFIG"), "{failed}");
        assert_eq!(told(&[("ready", ""), ("held", "")]), "");
        let many = told(&[("behind", ""); MAX_NAMED + 2]);
        assert!(many.contains("and 2 more"), "{many}");
        let waited = Waited { nodes: Some(nodes(&[("ready", ""), ("ready", ""), ("held", "")])) };
        assert_eq!(waited.text(), "ready on 2 nodes, held back from 1 node");
    }

    #[test]
    fn a_look_counts_the_nodes_that_run_it_and_names_the_others() {
        let lines = |states: &[(&str, &str)]| Waited { nodes: Some(nodes(states)) }.lines();
        assert_eq!(lines(&[("ready", ""), ("ready", "")]), ["ready on 2 nodes"]);
        assert_eq!(
            lines(&[("ready", ""), ("failed", "PV-PLUGIN-CONFIG"), ("waiting", "")]),
            ["ready on 1 node", "dp-1 cannot make it ready (PV-PLUGIN-CONFIG)", "dp-2 makes it ready"]
        );
        assert_eq!(lines(&[("failed", "bad")]), ["dp-0 cannot make it ready (bad)"]);
        // What a guest says does not steer the terminal.
        assert_eq!(lines(&[("failed", "a\u{1b}[2Jb\n")]), ["dp-0 cannot make it ready (a<U+001B>[2Jb<U+000A>)"]);
        assert_eq!(lines(&[]), ["no node that serves calls is connected; those that come run it"]);
    }
}
