//! Connections that are held without calls: what they cost the server in memory.
//!
//! Opened a few at a time, each kept by a task that does what the transport demands of a client who says
//! nothing (answering pings). One that is lost before the end counts as lost, and the run has failed.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use provost_client::{Endpoint, Transport};
use serde::Serialize;
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{
    client::{CallError, Connection, Target},
    process::Watched,
};
use crate::{failure::Failure, open_files};

/// More than this is no measurement of one node.
pub const MAX_CONNECTIONS: usize = 200_000;
/// Connections that are being opened at once.
const OPENING: usize = 32;
/// Connections from one address of this machine: below what Linux has ports for unless told otherwise.
const PER_SOURCE: usize = 20_000;
/// How often opening one is tried: a handshake that was late on a busy machine says nothing of memory.
const TRIES: usize = 3;
/// Files that are not connections.
const OTHER_FILES: u64 = 256;
/// From the last opened connection to the first reading of memory.
const SETTLE: Duration = Duration::from_secs(1);

/// The figures.
#[derive(Debug, Serialize)]
pub struct Held {
    transport: &'static str,
    asked: usize,
    opened: usize,
    /// Openings that failed and were tried again.
    retried: usize,
    /// Connections that ended before they should.
    lost: usize,
    errors: BTreeMap<String, usize>,
    opening_s: f64,
    held_s: f64,
    pid: u32,
    rss_bytes_before: u64,
    rss_bytes_open: u64,
    rss_bytes_after: u64,
    bytes_per_connection: u64,
    /// CPU time that the server used while nothing was asked.
    cpu_seconds_held: f64,
}

enum Event {
    Open,
    Retried,
    Failed(CallError),
    Lost(CallError),
}

/// Opens `count` connections and holds them for `duration`.
pub async fn hold(
    target: &Target,
    endpoint: &Endpoint,
    count: usize,
    duration: Duration,
    watched: Watched,
) -> anyhow::Result<Held> {
    if endpoint.transport() != Transport::Quic && endpoint.transport() != Transport::Http3 {
        allow_files(count)?;
    }
    let sources = sources(endpoint, count)?;
    let before = watched.read().unwrap_or_default();
    let began = Instant::now();
    let (events, mut seen) = mpsc::channel(OPENING);
    let stop = CancellationToken::new();
    let opening = Arc::new(Semaphore::new(OPENING));
    let mut tasks = JoinSet::new();
    for number in 0..count {
        let target = match sources.get(number / PER_SOURCE) {
            Some(source) => target.bound_to(*source),
            None => target.clone(),
        };
        tasks.spawn(keep(target, opening.clone(), events.clone(), stop.clone()));
    }
    drop(events);
    let bar = bar(count);
    let mut held = Held {
        transport: endpoint.transport().as_str(),
        asked: count,
        opened: 0,
        retried: 0,
        lost: 0,
        errors: BTreeMap::new(),
        opening_s: 0.0,
        held_s: duration.as_secs_f64(),
        pid: watched.pid(),
        rss_bytes_before: before.rss_bytes,
        rss_bytes_open: 0,
        rss_bytes_after: 0,
        bytes_per_connection: 0,
        cpu_seconds_held: 0.0,
    };
    while held.opened + held.failed() < count {
        let Some(event) = seen.recv().await else { break };
        held.note(event);
        bar.set_position((held.opened + held.failed()) as u64);
    }
    bar.finish_and_clear();
    held.opening_s = began.elapsed().as_secs_f64();
    tokio::time::sleep(SETTLE).await;
    let open = watched.read().unwrap_or_default();
    let end = tokio::time::sleep(duration);
    tokio::pin!(end);
    loop {
        tokio::select! {
            () = &mut end => break,
            Some(event) = seen.recv() => held.note(event),
        }
    }
    let after = watched.read().unwrap_or_default();
    held.rss_bytes_open = open.rss_bytes;
    held.rss_bytes_after = after.rss_bytes;
    held.cpu_seconds_held = after.cpu_seconds - open.cpu_seconds;
    held.bytes_per_connection = after.rss_bytes.saturating_sub(before.rss_bytes) / held.opened.max(1) as u64;
    stop.cancel();
    while tasks.join_next().await.is_some() {}
    Ok(held)
}

/// One connection from its opening to the end of the run.
async fn keep(target: Target, opening: Arc<Semaphore>, events: mpsc::Sender<Event>, stop: CancellationToken) {
    let opened = {
        let Ok(_turn) = opening.acquire().await else { return };
        let mut outcome = Connection::open(&target).await;
        for _ in 1..TRIES {
            if outcome.is_ok() || events.send(Event::Retried).await.is_err() {
                break;
            }
            outcome = Connection::open(&target).await;
        }
        outcome
    };
    let mut connection = match opened {
        Ok(connection) => connection,
        Err(error) => {
            let _ = events.send(Event::Failed(error)).await;
            return;
        }
    };
    if events.send(Event::Open).await.is_err() {
        return;
    }
    tokio::select! {
        error = connection.idle() => {
            let _ = events.send(Event::Lost(error)).await;
        }
        () = stop.cancelled() => {}
    }
}

/// Raises the soft limit of open files as far as it is needed.
fn allow_files(count: usize) -> anyhow::Result<()> {
    let needed = count as u64 + OTHER_FILES;
    open_files::raise_to(needed).map(drop).map_err(|hard| {
        Failure::new(
            "PV-BENCH-FILES",
            format!("{needed} open files are needed, and this process may have {hard}"),
            "raise the hard limit (`ulimit -Hn`, LimitNOFILE of systemd), or hold fewer connections",
        )
        .into()
    })
}

/// Addresses to connect from, where one has not ports enough: on the loopback network there are many.
fn sources(endpoint: &Endpoint, count: usize) -> anyhow::Result<Vec<IpAddr>> {
    if count <= PER_SOURCE || matches!(endpoint.transport(), Transport::Quic | Transport::Http3) {
        return Ok(Vec::new());
    }
    let is_loopback = endpoint.host().parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback());
    if !is_loopback {
        return Err(Failure::new(
            "PV-BENCH-FILES",
            format!("one address has ports for about {PER_SOURCE} connections to one server"),
            "hold fewer, use several machines, or measure a server at 127.0.0.1",
        )
        .into());
    }
    Ok((0..count.div_ceil(PER_SOURCE)).map(|n| IpAddr::V4(Ipv4Addr::new(127, 0, 1, n as u8 + 1))).collect())
}

fn bar(count: usize) -> ProgressBar {
    let bar = ProgressBar::new(count as u64);
    if let Ok(style) = ProgressStyle::with_template("connecting {bar:40} {pos} of {len}") {
        bar.set_style(style);
    }
    bar
}

impl Held {
    fn note(&mut self, event: Event) {
        match event {
            Event::Open => self.opened += 1,
            Event::Retried => self.retried += 1,
            Event::Failed(error) => {
                *self.errors.entry(format!("{}: {}", error.kind(), error.detail())).or_default() += 1;
            }
            Event::Lost(error) => {
                self.lost += 1;
                *self.errors.entry(format!("lost: {}", error.detail())).or_default() += 1;
            }
        }
    }

    /// Connections that were not opened.
    fn failed(&self) -> usize {
        self.errors.values().sum::<usize>() - self.lost
    }

    /// Fails unless every connection was there to the end.
    pub fn verdict(&self) -> anyhow::Result<()> {
        if self.opened == self.asked && self.lost == 0 {
            return Ok(());
        }
        let message =
            format!("{} of {} connections were opened, and {} of them lost", self.opened, self.asked, self.lost);
        let hint = "raise the server's limits of connections and of open files";
        Err(Failure::new("PV-BENCH-CONNECT", message, hint).into())
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        writeln!(f, "{} idle connections over {}, held for {:.1} s", self.opened, self.transport, self.held_s)?;
        let retried = match self.retried {
            0 => String::new(),
            count => format!(", {count} tried again"),
        };
        writeln!(f, "  opened      {} of {} in {:.1} s{retried}", self.opened, self.asked, self.opening_s)?;
        writeln!(
            f,
            "  server      RSS {:.1} MiB before, {:.1} when open, {:.1} after (pid {})",
            mib(self.rss_bytes_before),
            mib(self.rss_bytes_open),
            mib(self.rss_bytes_after),
            self.pid
        )?;
        writeln!(f, "  each        {:.1} KiB", self.bytes_per_connection as f64 / 1024.0)?;
        writeln!(f, "  CPU idle    {:.2} s in {:.1} s", self.cpu_seconds_held, self.held_s)?;
        write!(f, "  lost        {}", self.lost)?;
        for (kind, count) in &self.errors {
            write!(f, "\n              {count} x {kind}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_connections_to_loopback_come_from_several_addresses() {
        let endpoint = |url| Endpoint::parse(url, None).unwrap();
        let loopback = endpoint("ws://127.0.0.1:1/mcp");
        assert!(sources(&loopback, PER_SOURCE).unwrap().is_empty());
        assert_eq!(sources(&loopback, PER_SOURCE + 1).unwrap().len(), 2);
        assert!(sources(&endpoint("ws://h/mcp"), PER_SOURCE + 1).is_err());
    }
}
