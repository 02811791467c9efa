//! `provost top`: how the nodes stand now, from what they print for Prometheus.
//!
//! Left out: history (that is Prometheus'), and nodes that nobody named: each is asked at its own address.

mod scrape;
mod show;
mod view;

use std::{
    io::{IsTerminal, Write},
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Args;
use futures::future::join_all;

use super::context::{DevFile, default_data_dir};
use crate::failure::Failure;
use scrape::{Sample, parse};
use view::{Cluster, NodeView};

/// A node that has not answered by then counts as gone.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);
/// The longest page of metrics that is read.
const MAX_BYTES: usize = 16 << 20;

/// What `provost top` is told.
#[derive(Args)]
pub struct TopArgs {
    /// Where nodes print their metrics: `http://HOST:8422/metrics`, or `HOST:8422`; several. Default: the running
    /// `provost dev`.
    #[arg(long, value_name = "URL", env = "PROVOST_TOP_METRICS", value_delimiter = ',')]
    metrics: Vec<String>,
    /// Between two looks.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = super::parse_duration)]
    interval: Duration,
    /// Look twice, print once, and end.
    #[arg(long)]
    once: bool,
    /// Print JSON, one object for each look.
    #[arg(long)]
    json: bool,
    /// The data directory of `provost dev`.
    #[arg(long, env = "PROVOST_DATA_DIR", hide = true)]
    data_dir: Option<std::path::PathBuf>,
}

/// One look at one node; `None`: it did not answer.
type Look = Option<(Instant, Vec<Sample>)>;

/// Looks again and again until it is stopped, or once.
pub async fn run(args: TopArgs) -> anyhow::Result<ExitCode> {
    let nodes = addresses(&args)?;
    let client = reqwest::Client::builder()
        .timeout(ANSWER_LIMIT)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
        .map_err(|cause| Failure::new("PV-CLI-TLS", cause.to_string(), "see the page of the code"))?;
    let redraws = !args.json && !args.once && std::io::stdout().is_terminal();
    let mut before = look(&client, &nodes).await;
    loop {
        tokio::time::sleep(args.interval).await;
        let after = look(&client, &nodes).await;
        let cluster = cluster(&nodes, &before, &after);
        if redraws {
            // To the upper left corner, and everything below it away.
            print!("\x1b[H\x1b[J");
        }
        if args.json {
            println!("{}", serde_json::to_string(&cluster)?);
        } else {
            show::print(&cluster);
        }
        std::io::stdout().flush()?;
        if args.once {
            return match cluster.nodes.iter().any(|node| node.answers) {
                true => Ok(ExitCode::SUCCESS),
                false => Err(nobody(&nodes).into()),
            };
        }
        before = after;
    }
}

/// Names and addresses.
fn addresses(args: &TopArgs) -> anyhow::Result<Vec<(String, String)>> {
    let named: Vec<String> =
        args.metrics.iter().map(|url| url.trim().to_owned()).filter(|url| !url.is_empty()).collect();
    let urls = match named.is_empty() {
        true => vec![here(args)?],
        false => named,
    };
    Ok(urls.iter().map(|url| address(url)).collect())
}

/// Where the running `provost dev` prints its metrics.
fn here(args: &TopArgs) -> anyhow::Result<String> {
    let data_dir = args.data_dir.clone().unwrap_or_else(default_data_dir);
    DevFile::read(&data_dir).map(|dev| dev.metrics).map_err(|cause| match cause.downcast::<Failure>() {
        Ok(failure) => {
            let hint = "start `provost dev`, or name the nodes: --metrics HOST:8422 (or PROVOST_TOP_METRICS)";
            Failure::new(&failure.code, failure.message, hint).into()
        }
        Err(other) => other,
    })
}

/// The name of a node, and where it prints its metrics.
fn address(given: &str) -> (String, String) {
    let bare = given.strip_prefix("http://").or_else(|| given.strip_prefix("https://")).unwrap_or(given);
    let name = bare.split('/').next().unwrap_or(bare).to_owned();
    let url = if given.contains("://") { given.to_owned() } else { format!("http://{given}") };
    let url = if bare.contains('/') { url } else { format!("{url}/metrics") };
    (name, url)
}

async fn look(client: &reqwest::Client, nodes: &[(String, String)]) -> Vec<Look> {
    join_all(nodes.iter().map(|(_, url)| one_look(client, url))).await
}

async fn one_look(client: &reqwest::Client, url: &str) -> Look {
    let mut response = client.get(url).send().await.ok()?.error_for_status().ok()?;
    let mut page = Vec::new();
    while let Some(part) = response.chunk().await.ok()? {
        if page.len() + part.len() > MAX_BYTES {
            return None;
        }
        page.extend_from_slice(&part);
    }
    Some((Instant::now(), parse(&String::from_utf8_lossy(&page))))
}

/// What two looks at all nodes say.
fn cluster(nodes: &[(String, String)], before: &[Look], after: &[Look]) -> Cluster {
    let each = nodes.iter().zip(before.iter().zip(after)).map(|((name, _), (before, after))| match after {
        None => NodeView::gone(name),
        Some((at, samples)) => {
            // A node that has just come counts from its own beginning.
            let (since, first) = match before {
                Some((since, first)) => (at.duration_since(*since), first.as_slice()),
                None => (Duration::ZERO, samples.as_slice()),
            };
            NodeView::new(name, first, samples, since)
        }
    });
    Cluster::new(each.collect())
}

fn nobody(nodes: &[(String, String)]) -> Failure {
    let all: Vec<&str> = nodes.iter().map(|(_, url)| url.as_str()).collect();
    let hint = "is `listen.metrics` an address that this machine reaches? name it with --metrics";
    Failure::new("PV-CLI-UNREACHABLE", format!("no node answers at {}", all.join(", ")), hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_named_by_its_address() {
        for (given, name, url) in [
            ("cp-1:8422", "cp-1:8422", "http://cp-1:8422/metrics"),
            ("http://cp-1:8422", "cp-1:8422", "http://cp-1:8422/metrics"),
            ("https://h/node/metrics", "h", "https://h/node/metrics"),
        ] {
            assert_eq!(address(given), (name.to_owned(), url.to_owned()));
        }
    }
}
