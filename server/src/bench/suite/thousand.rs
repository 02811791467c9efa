//! Row `commit-1000`: from a change's acknowledgement until 1,000 nodes have it.
//!
//! Three of them are nodes, which run it. The others are what the control plane sees of nodes, in this process: each joined with
//! a token of its own, and takes the configuration over a connection of its own, with mutual TLS; it reads what comes and says
//! that it runs it. They compile nothing: a thousand nodes have processors of their own for that.
//!
//! Left out: taking the members out again. The nodes that keep them are thrown away.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use futures::{SinkExt, StreamExt, TryStreamExt, channel::mpsc, stream};
use provost_control_api::identity::join_as;
use provost_wire::{
    AdminConnection,
    admin::{Failure as AdminFailure, JoinTokenRequest},
    node::{Ack, Hello, PushDown, PushUp, push_client::PushClient, push_down::Down, push_up::Up},
    tls::{Expect, Identity, Role, channel},
    wire_version,
};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::JoinSet,
    time::{Instant, timeout_at},
};
use tonic::Streaming;

use super::{
    cluster::{Cluster, apply_over},
    documents,
    judge::Bar,
    node_files::SERVING,
    program::START_LIMIT,
    report::{Figure, Row},
    scale::{millis, quantile, until_active},
    stage::Stage,
};
use crate::open_files;

/// The row.
pub const ROW: &str = "commit-1000";
/// With the three that run; the cluster takes no more join tokens at a time.
const NODES: usize = 1_000;
/// What a quick run makes of it.
const QUICK_NODES: usize = 100;
/// From the acknowledgement of a change to the last node that has it.
const MOST_MS: f64 = 250.0;
/// Changes of a round.
const CHANGES: u64 = 30;
/// More rounds than this are not made.
const MOST_ROUNDS: u32 = 2;
/// The first change is one that no other row has made.
const FIRST_CHANGE: u64 = 1_000_000;
/// Joins, and then handshakes, at the same time; a control-plane node takes in up to 16.
const AT_ONCE: usize = 12;
/// Files of this process beside the connections.
const OTHER_FILES: u64 = 256;
/// A stream says hello, then answers one change after the other.
const UP_QUEUE: usize = 4;

/// Row `commit-1000`.
pub async fn commit_thousand(stage: &Stage, three: &Cluster) -> anyhow::Result<Vec<Row>> {
    let nodes = if stage.effort.quick { QUICK_NODES } else { NODES };
    let light = nodes.saturating_sub(three.count());
    let files = nodes as u64 + OTHER_FILES;
    if let Err(hard) = open_files::raise_to(files) {
        let why = format!("{files} open files are needed, and this process may have {hard} (`ulimit -Hn`)");
        return Ok(vec![Row::skipped(ROW, "", why)]);
    }
    stage.say(&format!("{ROW}: {light} nodes join"));
    let began = Instant::now();
    let mut streams = Box::pin(Streams::open(three, light)).await?;
    let joined = began.elapsed();
    let taken = Box::pin(changes(stage, three, &mut streams)).await?;
    let note = format!(
        "{} nodes and {light} streams of this process, each with a certificate and a connection of its own, on this machine; they read and \
         acknowledge a change, and compile nothing; {CHANGES} changes a round, one after the other; joining took {:.1} s",
        three.count(),
        joined.as_secs_f64()
    );
    Ok(vec![Row::measured(ROW, "", taken.figures(nodes, stage.effort.quick), vec![note])])
}

/// Quantiles of each round, milliseconds.
#[derive(Default)]
struct Taken {
    all_p50: Vec<f64>,
    all_p99: Vec<f64>,
    one_p50: Vec<f64>,
    one_p99: Vec<f64>,
}

impl Taken {
    /// Takes a round: of each change what each node took.
    fn add(&mut self, changes: &[Vec<Duration>]) {
        let mut slowest: Vec<f64> =
            changes.iter().map(|nodes| nodes.iter().copied().map(millis).fold(0.0, f64::max)).collect();
        let mut each: Vec<f64> = changes.iter().flatten().copied().map(millis).collect();
        self.all_p50.extend(quantile(&mut slowest, 0.5));
        self.all_p99.extend(quantile(&mut slowest, 0.99));
        self.one_p50.extend(quantile(&mut each, 0.5));
        self.one_p99.extend(quantile(&mut each, 0.99));
    }

    fn figures(self, nodes: usize, quick: bool) -> Vec<Figure> {
        let doubt = quick.then_some("a quick run has fewer nodes than the bar is for");
        vec![
            Figure::new("p99", format!("acknowledged until all {nodes} have it, p99"), "ms", self.all_p99)
                .against(Bar::at_most(MOST_MS), doubt),
            Figure::new("p50", format!("acknowledged until all {nodes} have it, p50"), "ms", self.all_p50),
            Figure::new("node-p99", "acknowledged until a node has it, p99", "ms", self.one_p99),
            Figure::new("node-p50", "acknowledged until a node has it, p50", "ms", self.one_p50),
        ]
    }
}

async fn changes(stage: &Stage, three: &Cluster, streams: &mut Streams) -> anyhow::Result<Taken> {
    let mut client = three.admin_connection(0).await?;
    let (mut taken, mut number) = (Taken::default(), FIRST_CHANGE);
    let rounds = stage.effort.rounds.min(MOST_ROUNDS);
    for round in 1..=rounds {
        stage.say(&format!("{ROW}, round {round} of {rounds}"));
        let mut round = Vec::new();
        for _ in 0..CHANGES {
            number += 1;
            let revision = apply_over(&mut client, &documents::small_change(number)).await?;
            let committed = Instant::now();
            let mut nodes = streams.until(revision, committed).await?;
            // Asked last, which can only make them later: asking costs them time.
            let real = (0..three.count()).map(|node| until_active(three, node, revision, committed));
            nodes.extend(futures::future::try_join_all(real).await?);
            round.push(nodes);
        }
        taken.add(&round);
    }
    Ok(taken)
}

/// A stream got a revision.
struct Seen {
    /// Which stream.
    stream: usize,
    revision: u64,
    at: Instant,
}

/// The streams, until this is dropped.
struct Streams {
    count: usize,
    seen: UnboundedReceiver<anyhow::Result<Seen>>,
    _tasks: JoinSet<()>,
}

impl Streams {
    /// Joins so many nodes, and opens a stream for each, spread over the control plane. Ready when each has the whole state.
    async fn open(three: &Cluster, count: usize) -> anyhow::Result<Self> {
        let admin = three.admin_connection(0).await?;
        let addresses = (0..three.count()).map(|node| three.peer(node)).collect::<anyhow::Result<Vec<String>>>()?;
        let first = addresses.first().context("PV-BENCH-START: no node")?;
        let joining = (0..count).map(|n| join(admin.clone(), first.clone(), format!("light-{n}")));
        let joined: Vec<_> = stream::iter(joining).buffer_unordered(AT_ONCE).try_collect().await?;
        let places = addresses.iter().cycle().cloned();
        let opening = joined.into_iter().zip(places).map(|((name, identity), address)| open(name, identity, address));
        let opened: Vec<Light> = stream::iter(opening).buffer_unordered(AT_ONCE).try_collect().await?;
        let (sender, seen) = unbounded_channel();
        let mut tasks = JoinSet::new();
        for (at, light) in opened.into_iter().enumerate() {
            tasks.spawn(follow(at, light, sender.clone()));
        }
        let mut streams = Self { count, seen, _tasks: tasks };
        streams.until(1, Instant::now()).await?;
        Ok(streams)
    }

    /// Waits until each stream has had a revision, or a later one; gives how long after `since` each had it first.
    async fn until(&mut self, revision: u64, since: Instant) -> anyhow::Result<Vec<Duration>> {
        let mut took: Vec<Option<Duration>> = vec![None; self.count];
        let mut missing = self.count;
        while missing > 0 {
            let next = timeout_at(since + START_LIMIT, self.seen.recv()).await.with_context(|| {
                format!("PV-BENCH-START: {missing} streams have no revision {revision} after {START_LIMIT:?}")
            })?;
            let seen = next.context("PV-BENCH-START: the streams ended")??;
            let slot = took.get_mut(seen.stream).filter(|slot| slot.is_none() && seen.revision >= revision);
            if let Some(slot) = slot {
                // It may be there before the acknowledgement is.
                *slot = Some(seen.at.saturating_duration_since(since));
                missing -= 1;
            }
        }
        Ok(took.into_iter().flatten().collect())
    }
}

/// Makes a node a member, as its administrator and then the node itself do it.
async fn join(mut admin: AdminConnection, address: String, name: String) -> anyhow::Result<(String, Arc<Identity>)> {
    let request = JoinTokenRequest { role: SERVING.to_owned(), node: name.clone(), ttl_seconds: 0 };
    let made = admin.join_token(request).await;
    let made =
        made.map_err(|status| anyhow::anyhow!("PV-BENCH-START: no join token: {}", AdminFailure::of(&status)))?;
    let joined = join_as(&address, &made.into_inner().token, "", (&name, SERVING)).await;
    let joined = joined.with_context(|| format!("PV-BENCH-START: {name} cannot join"))?;
    let identity = Identity::new(&joined.material).context("PV-BENCH-START: a certificate that cannot be used")?;
    Ok((name, Arc::new(identity)))
}

/// A stream of a node that is nothing else.
struct Light {
    up: mpsc::Sender<PushUp>,
    down: Streaming<PushDown>,
    /// What it has.
    last: Ack,
}

impl Light {
    /// The next revision, once it is whole.
    async fn next(&mut self) -> anyhow::Result<u64> {
        loop {
            let message = self.down.message().await.context("PV-BENCH: a stream failed")?;
            let message = message.context("PV-BENCH: a control-plane node ended a stream")?;
            if let Some(last) = got(message)? {
                self.last = last;
                return Ok(self.last.revision);
            }
        }
    }

    /// Says that it runs what it has.
    async fn answer(&mut self) -> anyhow::Result<()> {
        let sent = self.up.send(PushUp { up: Some(Up::Ack(self.last.clone())) }).await;
        sent.context("PV-BENCH: a stream failed")
    }
}

/// What a node has after a message; `None`: what it had before. Every part but the last has an empty hash.
fn got(message: PushDown) -> anyhow::Result<Option<Ack>> {
    let (revision, hash) = match message.down {
        Some(Down::Whole(whole)) => (whole.revision, whole.hash),
        Some(Down::Delta(delta)) => (delta.to, delta.hash),
        Some(Down::Refused(refused)) => anyhow::bail!("{}: {}", refused.code, refused.message),
        Some(Down::Bookmark(_)) | None => return Ok(None),
    };
    Ok((!hash.is_empty()).then_some(Ack { revision, hash }))
}

async fn open(name: String, identity: Arc<Identity>, address: String) -> anyhow::Result<Light> {
    let channel =
        channel(identity, &address, Expect::role(Role::ControlPlane)).context("PV-BENCH-START: an address")?;
    let (mut up, messages) = mpsc::channel(UP_QUEUE);
    let hello = Hello {
        node: name,
        epoch: 1,
        revision: 0,
        hash: Default::default(),
        wire_version: wire_version(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        group: String::new(),
    };
    up.send(PushUp { up: Some(Up::Hello(hello)) }).await.context("PV-BENCH-START: a stream ended at once")?;
    let subscribed = PushClient::new(channel).subscribe(messages).await;
    let down = subscribed.context("PV-BENCH-START: a stream cannot be opened")?.into_inner();
    Ok(Light { up, down, last: Ack::default() })
}

/// Reads what comes and says that it runs it, as long as somebody wants to know.
async fn follow(stream: usize, mut light: Light, seen: UnboundedSender<anyhow::Result<Seen>>) {
    loop {
        let next = light.next().await.map(|revision| Seen { stream, revision, at: Instant::now() });
        let is_last = next.is_err();
        if seen.send(next).is_err() || is_last {
            return;
        }
        // Where it fails the stream has ended, and the next message says so.
        let _ = light.answer().await;
    }
}

#[cfg(test)]
mod tests {
    use provost_wire::node::{Bookmark, Delta, Refused, Whole};

    use super::*;
    use crate::bench::suite::judge::Verdict;

    fn down(down: Down) -> PushDown {
        PushDown { down: Some(down) }
    }

    #[test]
    fn a_node_has_a_revision_once_its_last_part_is_there() {
        let hash = || bytes::Bytes::from(vec![7_u8; 32]);
        let whole = |hash| down(Down::Whole(Whole { revision: 5, hash, ..Whole::default() }));
        let delta = |hash| down(Down::Delta(Delta { from: 5, to: 8, hash, ..Delta::default() }));
        let has = |message| got(message).unwrap().map(|ack| ack.revision);
        assert_eq!((has(whole(Default::default())), has(whole(hash()))), (None, Some(5)));
        assert_eq!((has(delta(Default::default())), has(delta(hash()))), (None, Some(8)));
        assert_eq!(has(down(Down::Bookmark(Bookmark { revision: 9, time_ns: 1 }))), None);
        let refused = Refused { code: "PV-PUSH-FULL".to_owned(), message: "no place".to_owned(), hint: String::new() };
        assert_eq!(got(down(Down::Refused(refused))).unwrap_err().to_string(), "PV-PUSH-FULL: no place");
    }

    #[test]
    fn the_slowest_node_of_a_change_counts_and_a_quick_run_bears_no_verdict() {
        let ms = Duration::from_millis;
        let mut taken = Taken::default();
        taken.add(&[vec![ms(1), ms(2), ms(240)], vec![ms(3), ms(4), ms(5)]]);
        taken.add(&[vec![ms(1), ms(2), ms(3)], vec![ms(3), ms(4), ms(251)]]);
        assert_eq!((&taken.all_p99[..], &taken.all_p50[..]), (&[240.0, 251.0][..], &[5.0, 3.0][..]));
        assert_eq!(taken.one_p50, [3.0, 3.0]);
        let figures = taken.figures(NODES, false);
        assert_eq!((figures[0].median, figures[0].verdict), (Some(245.5), Verdict::Held));
        assert!(figures[0].label.contains("1000"), "{}", figures[0].label);
        let mut quick = Taken::default();
        quick.add(&[vec![ms(1)]]);
        assert_eq!(quick.figures(QUICK_NODES, true)[0].verdict, Verdict::Refused);
    }

    #[tokio::test]
    async fn each_stream_counts_once_and_one_that_ends_ends_the_wait() {
        let (sender, seen) = unbounded_channel();
        let mut streams = Streams { count: 2, seen, _tasks: JoinSet::new() };
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        // The first had it before the acknowledgement; what came of an earlier revision, or again, is passed over.
        for (stream, revision, at) in [(0, 6, began), (0, 7, began), (1, 6, at(1)), (0, 8, at(2)), (1, 8, at(30))] {
            sender.send(Ok(Seen { stream, revision, at })).unwrap();
        }
        let took = streams.until(7, at(10)).await.unwrap();
        assert_eq!(took, [Duration::ZERO, Duration::from_millis(20)]);
        sender.send(Err(anyhow::anyhow!("PV-PUSH-REMOVED: gone"))).unwrap();
        assert_eq!(streams.until(9, began).await.unwrap_err().to_string(), "PV-PUSH-REMOVED: gone");
    }
}
