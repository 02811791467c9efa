//! Records, checkpoints and keys of whichever replica gives them.

use std::{
    io,
    time::{Duration, Instant},
};

use bytes::Bytes;
use provost_audit_core::{LogId, PRUNED_LEN, SEGMENT_LEAVES};
use provost_wire::audit::{CheckpointsRequest, LeavesRequest, PrunedRequest};
use tokio::runtime::Handle;
use tonic::{Status, transport::Channel};
use zeroize::Zeroizing;

use super::{LeafSource, Replicas, TakeLeaf};
use crate::{
    client::{client, fetch_keys},
    subject_store::applied_of,
};

/// Without a record for so long it is over, and the next start begins again.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two rounds of the replicas.
const PAUSE: Duration = Duration::from_millis(500);
/// A part of a stream is waited for so long.
const PART_LIMIT: Duration = Duration::from_secs(20);
/// The most that is taken as a whole: the history of checkpoints, what stays of pruned segments.
const MAX_WHOLE_BYTES: usize = 256 << 20;

/// The records of whichever replica answers, over gRPC.
pub(crate) struct PeerLeaves {
    pub replicas: Replicas,
    pub runtime: Handle,
}

impl LeafSource for PeerLeaves {
    fn leaves(&self, log: &LogId, from: u64, to: u64, take: TakeLeaf<'_>) -> io::Result<()> {
        let mut next = from;
        let what = format!("records {from} to {to} of {log}");
        let mut heard = Instant::now();
        let mut last = "no other audit node is known".to_owned();
        while next < to && heard.elapsed() < PATIENCE {
            for (name, channel) in (self.replicas)() {
                let request = LeavesRequest { log: log.tenant().to_owned(), from: next, to };
                let before = next;
                let ended = self.runtime.block_on(async {
                    let mut stream = within(client(channel).leaves(request)).await?.into_inner();
                    while next < to {
                        let Some(part) = within(stream.message()).await? else { break };
                        let wanted = usize::try_from(to - next).unwrap_or(usize::MAX);
                        for (n, leaf) in part.leaves.iter().enumerate().take(wanted) {
                            let body = part.bodies.get(n).filter(|body| !body.is_empty());
                            if let Err(error) = take(leaf, body.map(Bytes::as_ref)) {
                                return Ok(Err(error));
                            }
                            next += 1;
                        }
                    }
                    Ok::<_, Status>(Ok(()))
                });
                match ended {
                    Ok(Ok(())) if next >= to => return Ok(()),
                    Ok(Ok(())) => last = format!("{name} has no more than {next}"),
                    Ok(Err(error)) => return Err(error),
                    Err(status) => last = format!("{name}: {}", status.message()),
                }
                if next > before {
                    heard = Instant::now();
                }
            }
            std::thread::sleep(PAUSE);
        }
        match next >= to {
            true => Ok(()),
            false => Err(io::Error::other(format!("PV-AUDIT-BEHIND: {what} cannot be had: {last}"))),
        }
    }

    fn checkpoints(&self, log: &LogId) -> io::Result<Vec<u8>> {
        self.whole(&format!("the checkpoints of {log}"), |channel| async move {
            let request = CheckpointsRequest { log: log.tenant().to_owned() };
            let mut stream = within(client(channel).checkpoints(request)).await?.into_inner();
            let mut all = Vec::new();
            while let Some(part) = within(stream.message()).await? {
                all.extend_from_slice(&part.part);
                bounded(&all)?;
            }
            Ok(all)
        })
    }

    fn pruned(&self, log: &LogId, to: u64) -> io::Result<Vec<u8>> {
        self.whole(&format!("what stays of the pruned records of {log}"), |channel| async move {
            let request = PrunedRequest { log: log.tenant().to_owned(), to };
            let mut stream = within(client(channel).pruned(request)).await?.into_inner();
            let mut all = Vec::new();
            while let Some(part) = within(stream.message()).await? {
                all.extend_from_slice(&part.part);
                bounded(&all)?;
            }
            match all.len() as u64 / PRUNED_LEN as u64 * SEGMENT_LEAVES >= to {
                true => Ok(all),
                false => Err(Status::unavailable("it has not pruned them yet")),
            }
        })
    }

    fn keys(&self, at_least: Option<u64>) -> io::Result<Zeroizing<Vec<u8>>> {
        let began = Instant::now();
        let mut last = "no other audit node is known".to_owned();
        while began.elapsed() < PATIENCE {
            for (name, channel) in (self.replicas)() {
                match self.runtime.block_on(Self::keys_of(channel, at_least)) {
                    Ok(keys) => return Ok(keys),
                    Err(why) => last = format!("{name}: {why}"),
                }
            }
            std::thread::sleep(PAUSE);
        }
        Err(io::Error::other(format!("PV-AUDIT-BEHIND: the keys of bodies cannot be had: {last}")))
    }
}

impl PeerLeaves {
    /// Something small enough to be taken whole, from whichever replica gives it.
    fn whole<F: Future<Output = Result<Vec<u8>, Status>>>(
        &self,
        what: &str,
        ask: impl Fn(Channel) -> F,
    ) -> io::Result<Vec<u8>> {
        let began = Instant::now();
        let mut last = "no other audit node is known".to_owned();
        while began.elapsed() < PATIENCE {
            for (name, channel) in (self.replicas)() {
                match self.runtime.block_on(ask(channel)) {
                    Ok(all) => return Ok(all),
                    Err(status) => last = format!("{name}: {}", status.message()),
                }
            }
            std::thread::sleep(PAUSE);
        }
        Err(io::Error::other(format!("PV-AUDIT-BEHIND: {what} cannot be had: {last}")))
    }

    async fn keys_of(channel: Channel, at_least: Option<u64>) -> Result<Zeroizing<Vec<u8>>, String> {
        let keys = fetch_keys(channel).await.map_err(|status| status.message().to_owned())?;
        match applied_of(&keys) {
            Ok(applied) if applied >= at_least => Ok(keys),
            Ok(_) => Err("its keys are not as new as the snapshot".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}

fn bounded(all: &[u8]) -> Result<(), Status> {
    match all.len() <= MAX_WHOLE_BYTES {
        true => Ok(()),
        false => Err(Status::resource_exhausted("it sends too much")),
    }
}

async fn within<T>(answer: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let late = |_| Status::deadline_exceeded(format!("nothing came for {PART_LIMIT:?}"));
    tokio::time::timeout(PART_LIMIT, answer).await.map_err(late)?
}
