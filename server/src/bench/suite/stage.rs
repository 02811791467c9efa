//! What rows share: the upstream, the nodes that are started when a row first needs them, and how hard to try.

use std::{net::Ipv4Addr, path::Path, time::Duration};

use anyhow::Context;
use indicatif::ProgressBar;
use provost_client::Transport;
use serde_json::json;

use super::{
    cluster::Cluster,
    documents::PLUGIN,
    load::{Side, until_answered},
    peers::{self, Asked, Peers},
    program::{Program, Scratch, ourselves},
};
use crate::bench::{
    Era,
    client::Target,
    plan::{Load, Plan},
    process::Watched,
    upstream,
};

/// What the tool is asked to say.
const TEXT: &str = "This is what a tool was asked to say.";
/// A call may take this long before it counts as failed.
const CALL_LIMIT: Duration = Duration::from_secs(10);

/// How hard to try.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Fewer, shorter repetitions and smaller states.
    pub quick: bool,
    /// Repetitions of each side.
    pub rounds: u32,
    /// The measured part of each load.
    pub measured: Duration,
    /// Load before it.
    pub warmup: Duration,
    /// Connections of the generator.
    pub connections: usize,
    /// Calls offered a second.
    pub rate: f64,
}

impl Effort {
    /// Enough for a verdict.
    pub const FULL: Self = Self {
        quick: false,
        rounds: 5,
        measured: Duration::from_secs(5),
        warmup: Duration::from_secs(1),
        connections: 16,
        rate: 500.0,
    };
    /// Enough to see that everything runs.
    pub const QUICK: Self = Self {
        quick: true,
        rounds: 2,
        measured: Duration::from_secs(2),
        warmup: Duration::from_millis(500),
        connections: 16,
        rate: 500.0,
    };

    /// As many calls as go through.
    pub fn saturated(&self) -> Plan {
        self.plan(Load::Saturated)
    }

    /// Calls at fixed times.
    pub fn open(&self) -> Plan {
        self.plan(Load::Open { rate: self.rate })
    }

    fn plan(&self, load: Load) -> Plan {
        Plan { load, connections: self.connections, warmup: self.warmup, duration: self.measured, drain: CALL_LIMIT }
    }
}

/// See the module.
pub struct Stage {
    /// Where everything is kept.
    pub scratch: Scratch,
    /// How hard to try.
    pub effort: Effort,
    /// What is called.
    pub asked: Asked,
    /// Where `direct` calls go.
    pub upstream: String,
    /// What else they go through.
    pub peers: Peers,
    /// Says what is going on.
    pub bar: ProgressBar,
    program: Option<Program>,
    one: Option<Cluster>,
}

impl Stage {
    /// With the upstream that was named, or one of its own.
    pub async fn open(
        scratch: Scratch,
        effort: Effort,
        given: Option<(String, Asked)>,
        port: u16,
        bar: ProgressBar,
    ) -> anyhow::Result<Self> {
        let (upstream, asked, program) = match given {
            Some((url, asked)) => (url, asked, None),
            None => {
                let (program, url) = start_upstream(&scratch, "upstream", port, 0).await?;
                (url, own_call(), Some(program))
            }
        };
        Ok(Self { scratch, effort, asked, upstream, peers: Peers::default(), bar, program, one: None })
    }

    /// Says what is being done.
    pub fn say(&self, what: &str) {
        self.bar.set_message(what.to_owned());
    }

    /// The upstream itself.
    pub fn direct(&self) -> anyhow::Result<Side> {
        let target = peers::target(&self.upstream, None, Era::Modern, &self.asked, &self.asked.tool)?;
        let watched = match &self.program {
            Some(program) => Watched::open(program.pid()),
            None => peers::watched_at(&self.upstream),
        };
        Ok(Side { name: "direct".to_owned(), target, transport: Transport::Http, era: Era::Modern, watched })
    }

    /// The same call through a node.
    pub async fn governed(&self, cluster: &Cluster, node: usize) -> anyhow::Result<Side> {
        let connector = cluster.connector(node, Transport::Http, &format!("/mcp/{PLUGIN}"))?;
        let target = Target::new(connector, Era::Modern, &self.asked.tool, &self.asked.arguments)?;
        let target = target.expecting(self.asked.expect.clone()).within(CALL_LIMIT);
        until_answered(&target).await?;
        let watched = cluster.watched(node);
        Ok(Side { name: "governed".to_owned(), target, transport: Transport::Http, era: Era::Modern, watched })
    }

    /// Starts the lone node, if no row has needed it yet.
    pub async fn start_one(&mut self) -> anyhow::Result<()> {
        if self.one.is_none() {
            self.say("starting a node");
            self.one = Some(Cluster::start(&self.scratch, "one", 1, &self.upstream).await?);
        }
        Ok(())
    }

    /// The lone node.
    pub fn one(&self) -> anyhow::Result<&Cluster> {
        self.one.as_ref().context("PV-BENCH: the node is not there")
    }

    /// Ends the lone node: what follows has the machine for itself.
    pub async fn stop_one(&mut self) {
        if let Some(one) = self.one.take() {
            one.stop().await;
        }
    }

    /// Ends everything.
    pub async fn stop(mut self) {
        self.stop_one().await;
        std::mem::take(&mut self.peers).stop().await;
        if let Some(program) = self.program.take() {
            program.stop().await;
        }
    }
}

/// What the suite's own upstream is asked.
fn own_call() -> Asked {
    Asked { tool: upstream::TOOL.to_owned(), arguments: json!({ "text": TEXT }), expect: Some(TEXT.to_owned()) }
}

/// An upstream of this program, and its URL.
pub async fn start_upstream(
    scratch: &Scratch,
    name: &str,
    port: u16,
    more_tools: usize,
) -> anyhow::Result<(Program, String)> {
    let folder = scratch.folder(name)?;
    let said = folder.join("url");
    let out = std::fs::File::create(&said).context("PV-BENCH-FILE: the upstream's folder cannot be written")?;
    let mut command = ourselves()?;
    command.args(["bench", "upstream", "--http"]).arg(format!("{}:{port}", Ipv4Addr::LOCALHOST));
    command.args(["--more-tools", &more_tools.to_string()]);
    let mut program = Program::start(name, command, &folder.join("log"), Some(out))?;
    let url = program.until("it served", async || first_line(&said)).await?;
    Ok((program, url))
}

/// The first line of a file, once it is whole.
fn first_line(file: &Path) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    text.split_once('\n').map(|(line, _)| line.to_owned())
}
