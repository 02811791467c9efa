//! One admin address for three voters: connections go to a voter that answers and knows who leads, or to one
//! that answers.
//!
//! The relay moves bytes and knows nothing of what they say. A voter that stops answering (killed,
//! frozen) loses its connections here within seconds, so that clients connect again and reach
//! another; without that they would wait for a process that may never go on. One late answer cuts nothing off:
//! where other programs keep the cores busy, each voter is late at times. Nor does an election: a call that
//! waits at a voter is answered when there is a leader.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

/// Between two looks at each voter.
const PROBE_EVERY: Duration = Duration::from_millis(250);
/// A voter that takes longer to answer has missed a look.
const PROBE_LIMIT: Duration = Duration::from_secs(1);
/// A voter that has missed so many looks in a row is left out.
const MISSES: u32 = 2;
/// Longest wait for a connection to a voter.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);

/// What a voter says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It knows who leads.
    Ready,
    /// It answers, and knows no leader.
    Leaderless,
    /// None.
    Silent,
}

/// Asks a voter whether it can be used.
pub type Probe = Arc<dyn Fn(SocketAddr) -> provost_types::BoxFuture<'static, Answer> + Send + Sync>;

/// A voter as the relay sees it.
struct Target {
    address: SocketAddr,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// Cancelled when it stops answering, and then replaced.
    alive: Option<CancellationToken>,
    is_ready: bool,
    misses: u32,
}

impl Target {
    fn new(address: SocketAddr) -> Self {
        Self { address, seen: Mutex::default() }
    }

    /// Something to hold while it is used, and whether it knows who leads.
    fn lease(&self) -> Option<(CancellationToken, bool)> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.alive.clone().map(|alive| (alive, seen.is_ready))
    }

    fn set(&self, answer: Answer) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.is_ready = answer == Answer::Ready;
        if answer != Answer::Silent {
            seen.misses = 0;
            seen.alive.get_or_insert_default();
            return;
        }
        seen.misses += 1;
        if seen.misses >= MISSES
            && let Some(alive) = seen.alive.take()
        {
            alive.cancel();
        }
    }
}

/// Relays until `stop`.
pub async fn serve(listener: TcpListener, voters: Vec<SocketAddr>, probe: Probe, stop: CancellationToken) {
    let targets: Arc<[Target]> = voters.into_iter().map(Target::new).collect();
    let mut tasks = JoinSet::new();
    for at in 0..targets.len() {
        tasks.spawn(watch(targets.clone(), at, probe.clone()));
    }
    let mut next = 0;
    loop {
        let stream = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = stream else { continue };
        let targets = targets.clone();
        next += 1;
        let first = next;
        tasks.spawn(async move { relay(stream, &targets, first).await });
        while tasks.try_join_next().is_some() {}
    }
}

async fn watch(targets: Arc<[Target]>, at: usize, probe: Probe) {
    loop {
        let target = &targets[at];
        let answer = tokio::time::timeout(PROBE_LIMIT, probe(target.address)).await;
        target.set(answer.unwrap_or(Answer::Silent));
        tokio::time::sleep(PROBE_EVERY).await;
    }
}

/// To the first voter, from `first` on, that answers and takes the connection; those that know no leader last.
async fn relay(mut stream: TcpStream, targets: &[Target], first: usize) {
    let _ = stream.set_nodelay(true);
    let in_turn = (0..targets.len()).map(|at| &targets[(first + at) % targets.len()]);
    let mut usable: Vec<_> = in_turn.filter_map(|target| Some((target, target.lease()?))).collect();
    usable.sort_by_key(|(_, (_, is_ready))| !is_ready);
    for (target, (alive, _)) in usable {
        let Ok(Ok(mut voter)) = tokio::time::timeout(CONNECT_LIMIT, TcpStream::connect(target.address)).await else {
            continue;
        };
        let _ = voter.set_nodelay(true);
        tokio::select! {
            _ = copy_bidirectional(&mut stream, &mut voter) => {}
            () = alive.cancelled() => {}
        }
        return;
    }
    // Nobody answers: closing tells the client to try again.
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Answers each connection with one letter and keeps it open.
    async fn voter(letter: u8) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                stream.write_all(&[letter]).await.unwrap();
                open.push(stream);
            }
        });
        address
    }

    async fn letter(address: SocketAddr) -> Option<(u8, TcpStream)> {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let mut byte = [0];
        stream.read_exact(&mut byte).await.ok()?;
        Some((byte[0], stream))
    }

    #[tokio::test]
    async fn a_voter_that_stops_answering_loses_its_connections_and_gets_no_new_ones() {
        let (a, b) = (voter(b'a').await, voter(b'b').await);
        let healthy = Arc::new(AtomicBool::new(true));
        let state = healthy.clone();
        let probe: Probe = Arc::new(move |address| {
            let answers = address == b || state.load(Ordering::SeqCst);
            Box::pin(std::future::ready(if answers { Answer::Ready } else { Answer::Silent }))
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, vec![a, b], probe, CancellationToken::new()));
        let mut to_a = loop {
            match letter(address).await {
                Some((b'a', stream)) => break stream,
                _ => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
        healthy.store(false, Ordering::SeqCst);
        // The connection to `a` ends although `a` keeps it open.
        assert_eq!(to_a.read(&mut [0]).await.unwrap(), 0);
        for _ in 0..4 {
            assert_eq!(letter(address).await.map(|(l, _)| l), Some(b'b'));
        }
    }

    #[test]
    fn one_late_answer_and_an_election_cut_nothing_off() {
        let target = Target::new("127.0.0.1:1".parse().unwrap());
        assert!(target.lease().is_none(), "nobody has looked yet");
        let mut held = None;
        for (answer, usable, ready, cut) in [
            (Answer::Silent, false, false, false),
            (Answer::Ready, true, true, false),
            (Answer::Silent, true, false, false),
            (Answer::Leaderless, true, false, false),
            (Answer::Silent, true, false, false),
            (Answer::Silent, false, false, true),
            (Answer::Silent, false, false, true),
            (Answer::Ready, true, true, true),
        ] {
            target.set(answer);
            let lease = target.lease();
            assert_eq!((lease.is_some(), lease.as_ref().is_some_and(|l| l.1)), (usable, ready), "{answer:?}");
            held = held.or(lease.map(|l| l.0));
            assert_eq!(held.as_ref().is_some_and(CancellationToken::is_cancelled), cut, "{answer:?}");
        }
    }
}
