//! Clients that write and read registers while the cluster is hurt, and keep what they saw.
//!
//! Two kinds: *workers*, each always in one operation and changing the node when one fails, and a
//! *prober*, which begins a write at a fixed rate whatever became of the earlier ones. The prober makes
//! the outage a fact of the cluster: a worker that waits for a paused node would measure its own
//! deadline.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::task::JoinSet;

use crate::{
    admin::{Admin, Failed, RELAY},
    cluster::{HEAL_LIMIT, Place},
    history::{Action, Operation, Recorder, Value},
    witness::Witness,
};

/// Registers of the workers: few, so that operations meet.
const WORKER_KEYS: [&str; 6] = ["reg-0", "reg-1", "reg-2", "reg-3", "reg-4", "reg-5"];
/// Registers of the prober.
const PROBE_KEYS: [&str; 8] = ["probe-0", "probe-1", "probe-2", "probe-3", "probe-4", "probe-5", "probe-6", "probe-7"];
/// A worker's patience with one operation.
const OPERATION_LIMIT: Duration = Duration::from_secs(2);
/// The same where nothing is hurt and nothing may fail: a busy machine may elect anew.
const PINNED_LIMIT: Duration = Duration::from_secs(15);
/// A probe's patience: an answer that comes late still ends the outage only when it comes.
const PROBE_LIMIT: Duration = Duration::from_secs(5);
const PROBE_PERIOD: Duration = Duration::from_millis(100);
/// How often the witness looks: well below the time in which nodes forget.
const WITNESS_PERIOD: Duration = Duration::from_millis(500);
/// Between a worker's operations.
const PAUSE: Duration = Duration::from_millis(10);

/// How workers choose whom they ask.
#[derive(Clone, Copy)]
pub enum Routing {
    /// Any node and the relay, the next one after a failure.
    FailOver,
    /// A worker always asks the same voter.
    Pinned,
}

/// A recorder, a client of every node, and the registers' first values.
pub struct Scene {
    pub admin: Admin,
    pub recorder: Recorder,
    pub initial: HashMap<String, Value>,
}

impl Scene {
    /// Makes the registers, all in one transaction.
    pub async fn set(cluster: &impl AsRef<Place>) -> Arc<Self> {
        let admin = Admin::new(cluster.as_ref().clone());
        let recorder = Recorder::new();
        let registers: Vec<(&str, Value)> =
            WORKER_KEYS.iter().chain(&PROBE_KEYS).map(|k| (*k, recorder.fresh())).collect();
        admin.write(RELAY, &registers, HEAL_LIMIT).await.expect("the registers cannot be made");
        let initial = registers.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        Arc::new(Self { admin, recorder, initial })
    }

    /// Writes a fresh value and keeps the operation, unless it surely had no effect.
    pub async fn write(&self, via: u64, key: &str, limit: Duration) -> Result<Value, Failed> {
        let value = self.recorder.fresh();
        let invoked = self.recorder.now();
        let outcome = self.admin.write(via, &[(key, value)], limit).await;
        let keep = |returned, revision| {
            let action = Action::Write(value);
            self.recorder.record(Operation { key: key.to_owned(), action, invoked, returned, revision, via });
        };
        match outcome {
            Ok(revision) => {
                keep(Some(self.recorder.now()), revision);
                Ok(value)
            }
            Err(failed) => {
                if !failed.had_no_effect() {
                    keep(None, None);
                }
                Err(failed)
            }
        }
    }

    /// Reads a register and keeps the operation if it was answered.
    pub async fn read(&self, via: u64, key: &str, limit: Duration) -> Result<Option<Value>, Failed> {
        let invoked = self.recorder.now();
        let (value, revision) = self.admin.read(via, key, limit).await?;
        let (action, returned) = (Action::Read(value), Some(self.recorder.now()));
        self.recorder.record(Operation { key: key.to_owned(), action, invoked, returned, revision, via });
        Ok(value)
    }

    /// Waits until a write through each node is acknowledged.
    pub async fn writable_everywhere(&self, cluster: &impl AsRef<Place>) {
        for member in cluster.as_ref().members() {
            let began = self.recorder.now();
            while let Err(failed) = self.write(member.id, PROBE_KEYS[0], OPERATION_LIMIT).await {
                let waited = Duration::from_nanos(self.recorder.now() - began);
                assert!(waited < HEAL_LIMIT, "node {} takes no writes: {failed:?}", member.id);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }

    /// Reads every register through every node: the last word on what survived.
    pub async fn read_everything(&self, cluster: &impl AsRef<Place>) {
        for member in cluster.as_ref().members() {
            for key in WORKER_KEYS.iter().chain(&PROBE_KEYS) {
                let read = self.read(member.id, key, HEAL_LIMIT).await;
                read.unwrap_or_else(|failed| panic!("node {} reads nothing: {failed:?}", member.id));
            }
        }
    }
}

/// A running load.
pub struct Workload {
    scene: Arc<Scene>,
    stop: Arc<AtomicBool>,
    tasks: JoinSet<()>,
    witness: tokio::task::JoinHandle<Witness>,
    began: u64,
}

/// What a load leaves: its witness and when it ran.
pub struct Ran {
    pub witness: Witness,
    pub began: u64,
    pub ended: u64,
}

impl Workload {
    pub async fn start(scene: &Arc<Scene>, workers: u64, routing: Routing) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut witness = Witness::default();
        assert!(witness.look(&scene.admin, RELAY).await, "the history cannot be read");
        let voters = scene.admin.voters();
        let witness = tokio::spawn(watch(scene.clone(), stop.clone(), voters, witness));
        let began = scene.recorder.now();
        let mut tasks = JoinSet::new();
        for worker in 0..workers {
            tasks.spawn(work(scene.clone(), stop.clone(), voters, worker, routing));
        }
        if matches!(routing, Routing::FailOver) {
            tasks.spawn(probe(scene.clone(), stop.clone(), voters));
        }
        Self { scene: scene.clone(), stop, tasks, witness, began }
    }

    /// Waits for the operations under way.
    pub async fn stop(mut self) -> Ran {
        let ended = self.scene.recorder.now();
        self.stop.store(true, Ordering::SeqCst);
        while let Some(done) = self.tasks.join_next().await {
            done.unwrap();
        }
        Ran { witness: self.witness.await.unwrap(), began: self.began, ended }
    }
}

async fn work(scene: Arc<Scene>, stop: Arc<AtomicBool>, voters: [u64; 3], worker: u64, routing: Routing) {
    let anywhere = [RELAY, voters[0], voters[1], voters[2]];
    let mut turn = worker;
    for n in 0_u64.. {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        let (via, limit) = match routing {
            Routing::FailOver => (anywhere[((turn + 1) % 4) as usize], OPERATION_LIMIT),
            Routing::Pinned => (voters[(worker % 3) as usize], PINNED_LIMIT),
        };
        // Half of them go round one way and half the other: they meet.
        let step = if worker.is_multiple_of(2) { 1 } else { 5 };
        let key = WORKER_KEYS[((n * step + worker) % 6) as usize];
        let writes = (n + worker) % 5 < 3;
        let failed = match writes {
            true => scene.write(via, key, limit).await.err(),
            false => scene.read(via, key, limit).await.err(),
        };
        if let Some(failed) = failed {
            assert!(matches!(routing, Routing::FailOver), "node {via} failed without a fault: {failed:?}");
            turn += 1;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn probe(scene: Arc<Scene>, stop: Arc<AtomicBool>, voters: [u64; 3]) {
    let mut tick = tokio::time::interval(PROBE_PERIOD);
    let mut probes = JoinSet::new();
    for n in 0_u64.. {
        tick.tick().await;
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let scene = scene.clone();
        probes.spawn(async move {
            // A failed probe is part of the outage; the recorder kept what may take effect.
            let _ = scene.write(voters[(n % 3) as usize], PROBE_KEYS[(n % 8) as usize], PROBE_LIMIT).await;
        });
        while probes.try_join_next().is_some() {}
    }
    while probes.join_next().await.is_some() {}
}

async fn watch(scene: Arc<Scene>, stop: Arc<AtomicBool>, voters: [u64; 3], mut witness: Witness) -> Witness {
    for n in 0_u64.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        witness.look(&scene.admin, voters[(n % 3) as usize]).await;
        tokio::time::sleep(WITNESS_PERIOD).await;
    }
    witness
}
