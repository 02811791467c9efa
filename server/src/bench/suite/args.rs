//! What `provost bench suite` is told, and what is wrong with it before anything is started.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use provost_client::{Endpoint, Transport};
use serde_json::Value;

use super::{
    peers::{Asked, MAX_PEERS, PeerArg},
    rows,
};
use crate::{
    bench::plan::parse_duration,
    failure::{Failure, Usage},
};

/// What `provost bench suite` is told.
#[derive(Args)]
pub struct SuiteArgs {
    /// Where report.json and report.html are written.
    #[arg(long, value_name = "DIR", default_value = "bench-report")]
    pub out: PathBuf,
    /// Fewer, shorter repetitions and smaller states: to see that everything runs.
    #[arg(long)]
    pub quick: bool,
    /// Only these rows, separated by commas.
    #[arg(long, value_name = "ROW", value_delimiter = ',')]
    pub rows: Vec<String>,
    /// Compare with another gateway: `NAME=URL`, or `NAME=URL#TOOL` where the tool has another name there;
    /// `nginx=PATH` names the program, `llama=PYTHON` an interpreter that has llama.cpp. May be repeated.
    #[arg(long, value_name = "NAME=URL|PATH")]
    pub peer: Vec<PeerArg>,
    /// Call this MCP server directly and through everything else, in place of the suite's own.
    #[arg(long, value_name = "URL")]
    pub upstream: Option<String>,
    /// The tool to call there.
    #[arg(long, value_name = "TOOL", default_value = "echo", requires = "upstream")]
    pub tool: String,
    /// Its arguments, a JSON object.
    #[arg(long, value_name = "JSON", default_value = "{\"text\":\"hi\"}", requires = "upstream")]
    pub json_args: String,
    /// What every answer of it must contain. Default: any result counts.
    #[arg(long, value_name = "TEXT", requires = "upstream")]
    pub expect: Option<String>,
    /// The port of the suite's own upstream, for peers that were configured before. Default: a free one.
    #[arg(long, default_value_t = 0, conflicts_with = "upstream")]
    pub upstream_port: u16,
    /// Where nodes keep their data meanwhile: a folder is made there and removed. A file system in memory syncs nothing.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
    /// Keep that folder, with the logs of what was started.
    #[arg(long)]
    pub keep: bool,
    /// The longest that the run may take: `15m`, `300s`. Where the rows do not fit, fewer and shorter repetitions are
    /// made, three of two seconds at the least; a row that is not done by then fails.
    #[arg(long, value_name = "DURATION", default_value = "14m", value_parser = parse_duration)]
    pub budget: Duration,
    /// What this program was built from, such as a commit: stands in the report.
    #[arg(long, value_name = "TEXT")]
    pub commit: Option<String>,
    /// Print the report as JSON, as it is in report.json, in place of the summary.
    #[arg(long)]
    pub json: bool,
    /// Exit with 1 where a bar is missed, and measure nothing where a named peer does not answer.
    #[arg(long)]
    pub strict: bool,
}

/// What can be said to be wrong before anything is started.
pub fn check(args: &SuiteArgs) -> anyhow::Result<()> {
    let usage = |code: &str, text: String, hint: &str| anyhow::Error::from(Usage(Failure::new(code, text, hint)));
    if let Some(unknown) = args.rows.iter().find(|id| !rows::is_row(id)) {
        let hint = format!("the rows are {}", rows::names());
        return Err(usage("PV-BENCH-ROW", format!("there is no row `{unknown}`"), &hint));
    }
    if args.peer.len() > MAX_PEERS {
        let text = format!("{} peers are named, and {MAX_PEERS} may be", args.peer.len());
        return Err(usage("PV-BENCH-PEER", text, "measure fewer at once: the others are no comparison by then"));
    }
    if let Some(fault) = args.upstream.as_ref().and_then(|url| Endpoint::parse(url, Some(Transport::Http)).err()) {
        return Err(usage("PV-BENCH-PEER", fault.to_string(), "write --upstream http://HOST:PORT/mcp"));
    }
    let mut names: Vec<&str> = args.peer.iter().map(|peer| peer.name.as_str()).collect();
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find(|pair| pair.first() == pair.last()).and_then(|pair| pair.first()) {
        return Err(usage("PV-BENCH-PEER", format!("the peer {twice} is named twice"), "give each a name of its own"));
    }
    Ok(())
}

/// The call of an upstream that was named. What it answers is what `--expect` says, or any result.
pub fn asked(args: &SuiteArgs) -> anyhow::Result<Asked> {
    let arguments: Value = serde_json::from_str(&args.json_args).unwrap_or_default();
    if !arguments.is_object() {
        let hint = "quote it for the shell: '{\"text\":\"hi\"}'";
        return Err(Usage(Failure::new("PV-BENCH-ARGUMENTS", "--json-args is not a JSON object", hint)).into());
    }
    Ok(Asked { tool: args.tool.clone(), arguments, expect: args.expect.clone() })
}
