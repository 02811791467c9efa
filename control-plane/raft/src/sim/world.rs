//! One run: a time of trouble, then everything is healed and the group has to come together.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use openraft::async_runtime::watch::WatchReceiver;
use tempfile::TempDir;
use turmoil::Sim;

use super::{
    client::Client,
    disk::{Disk, SimLog},
    machine::{MachineDisk, Registry},
    network::SimTransport,
    random::Random,
    record::{Final, Record, SharedRecord},
    runtime::{set_seed, take_fatal},
};
use crate::{Group, GroupConfig, Retention, Timings, group::Stores, snapshot_file::SnapshotDir};

/// How long clients go on after everything was healed, and how long the end may take.
const RECOVERY: Duration = Duration::from_secs(6);
const SETTLE_LIMIT: Duration = Duration::from_secs(20);
const TICK: Duration = Duration::from_millis(2);
const CLIENTS_PER_NODE: u64 = 2;

/// Names of the independent streams of random numbers.
const FAULTS: u64 = 1;
const DISKS: u64 = 100;
const RUNS: u64 = 1_000;

pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) nodes: u64,
    /// Disks acknowledge what they did not sync, and power fails everywhere at once.
    pub(super) disks_lie: bool,
}

/// Whether clients go on.
#[derive(Clone, Default)]
pub(super) struct Phase(Arc<AtomicBool>);

impl Phase {
    pub(super) fn clients_run(&self) -> bool {
        !self.0.load(Ordering::Relaxed)
    }
}

/// What outlives crashes of a node.
pub(super) struct Host {
    id: u64,
    nodes: u64,
    seed: u64,
    starts: AtomicU64,
    pub(super) disk: Disk,
    machine: MachineDisk,
    snapshots: std::path::PathBuf,
    record: SharedRecord,
    phase: Phase,
    pub(super) group: Mutex<Option<Group>>,
}

pub(super) fn name(id: u64) -> String {
    format!("node{id}")
}

fn config(host: &Host) -> GroupConfig {
    let mut config = GroupConfig::new(host.id, "sim", "control");
    config.address = name(host.id);
    config.timings = Timings {
        heartbeat_ms: 50,
        election_min_ms: 300,
        election_max_ms: 600,
        quorum_loss_probe_ms: 1_200,
        install_snapshot_ms: 2_000,
        // Not in all runs, so that both are tried.
        commit_notice_ms: host.seed % 2 * 20,
        spare_wait_ms: host.seed % 3 * 15,
    };
    config.retention = Retention { snapshot_every_entries: 150, keep_entries: 50, ..Retention::default() };
    config.forwarding.leader_wait_ms = 1_500;
    config.forwarding.commit_wait_ms = 2_000;
    config
}

impl Host {
    /// One life of the node, until it is crashed.
    async fn live(self: Arc<Self>) -> turmoil::Result {
        let life = self.starts.fetch_add(1, Ordering::Relaxed);
        let stream = RUNS + self.id * 1_000 + life * 10;
        let random = |n: u64| Random::new(self.seed, stream + n);
        set_seed(Some(random(0).next()));
        let transport = SimTransport::bind(random(1)).await?;
        let (open, closed) = tokio::sync::watch::channel(());
        let snapshots = SnapshotDir::open(self.snapshots.clone())?;
        let (log, bytes) = (SimLog::open(self.disk.clone()), Arc::default());
        let stores = Stores { log, snapshots, bytes, open, closed };
        let machine = Registry::open(self.id, self.machine.clone(), random(2), self.record.clone());
        let group = Group::start(config(&self), machine, Arc::new(transport.clone()), stores).await?;
        *self.group.lock().unwrap() = Some(group.clone());
        tokio::spawn(transport.serve(group.clone()));
        tokio::spawn(watch_leadership(group.clone(), self.record.clone()));
        if self.id == 1 {
            group.initialize((1..=self.nodes).map(|id| (id, name(id))).collect()).await?;
        }
        for n in 0..CLIENTS_PER_NODE {
            let client = Client {
                node: self.id,
                group: group.clone(),
                machine: self.machine.clone(),
                record: self.record.clone(),
                random: random(3 + n),
                phase: self.phase.clone(),
            };
            tokio::spawn(client.run());
        }
        std::future::pending().await
    }
}

async fn watch_leadership(group: Group, record: SharedRecord) {
    let mut metrics = group.core().metrics.clone();
    loop {
        let now = group.metrics();
        if now.role == crate::Role::Leader {
            record.lock().leads(now.term, now.node_id);
        }
        if metrics.changed().await.is_err() {
            return;
        }
    }
}

pub(super) struct World {
    pub(super) sim: Sim<'static>,
    pub(super) hosts: BTreeMap<u64, Arc<Host>>,
    pub(super) up: BTreeMap<u64, bool>,
    pub(super) random: Random,
    pub(super) record: SharedRecord,
    phase: Phase,
    pub(super) disks_lie: bool,
    _dir: TempDir,
}

/// Runs a plan to its end and gives back what was seen.
pub(super) fn run(plan: &Plan) -> Record {
    let mut world = World::new(plan);
    world.trouble();
    world.heal();
    world.advance(RECOVERY);
    world.phase.0.store(true, Ordering::Relaxed);
    world.settle();
    let mut record = world.finish();
    record.fatal = take_fatal();
    set_seed(None);
    record
}

impl World {
    fn new(plan: &Plan) -> Self {
        set_seed(Some(plan.seed));
        let mut sim = turmoil::Builder::new()
            .rng_seed(plan.seed)
            .epoch(std::time::UNIX_EPOCH)
            .tick_duration(TICK)
            .min_message_latency(Duration::from_millis(1))
            .max_message_latency(Duration::from_millis(30))
            .udp_capacity(65_536)
            .enable_random_order()
            .simulation_duration(Duration::from_secs(3_600))
            .build();
        let dir = tempfile::tempdir().unwrap();
        let (record, phase) = (SharedRecord::default(), Phase::default());
        let hosts = (1..=plan.nodes).map(|id| {
            let host = Host {
                id,
                nodes: plan.nodes,
                seed: plan.seed,
                starts: AtomicU64::new(0),
                disk: Disk::new(Random::new(plan.seed, DISKS + id), plan.disks_lie),
                machine: MachineDisk::default(),
                snapshots: dir.path().join(name(id)),
                record: record.clone(),
                phase: phase.clone(),
                group: Mutex::default(),
            };
            (id, Arc::new(host))
        });
        let hosts: BTreeMap<u64, Arc<Host>> = hosts.collect();
        for (id, host) in &hosts {
            let host = host.clone();
            sim.host(name(*id), move || host.clone().live());
        }
        let up = hosts.keys().map(|id| (*id, true)).collect();
        let random = Random::new(plan.seed, FAULTS);
        Self { sim, hosts, up, random, record, phase, disks_lie: plan.disks_lie, _dir: dir }
    }

    pub(super) fn advance(&mut self, time: Duration) {
        let end = self.sim.elapsed() + time;
        while self.sim.elapsed() < end {
            self.sim.step().expect("hosts do not fail");
        }
    }

    /// Waits until every node has applied what the others have.
    fn settle(&mut self) {
        let end = self.sim.elapsed() + SETTLE_LIMIT;
        // Calls in flight end within the bounds of the configuration.
        self.advance(Duration::from_secs(5));
        while self.sim.elapsed() < end {
            self.advance(Duration::from_millis(100));
            let groups = self.hosts.values().filter_map(|host| host.group.lock().unwrap().clone());
            let applied: Vec<_> =
                groups.map(|group| group.metrics()).map(|m| (m.applied, m.last_log, m.leader)).collect();
            let (first_applied, _, leader) = applied[0];
            let same = applied.iter().all(|(a, log, l)| *a == first_applied && a == log && *l == leader);
            if applied.len() == self.hosts.len() && same && leader.is_some() {
                return;
            }
        }
        self.record.lock().disagreements.push("the group did not come together after everything was healed".to_owned());
    }

    fn finish(self) -> Record {
        let mut record = self.record.take();
        for (id, host) in &self.hosts {
            let group = host.group.lock().unwrap().take();
            let registers = host.machine.live.lock().unwrap().registers.clone();
            let last = Final {
                applied: group.and_then(|group| group.metrics().applied),
                done: registers.done,
                values: registers.values,
                log: host.disk.entries(),
            };
            record.finals.insert(*id, last);
        }
        record
    }
}
