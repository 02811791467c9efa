//! One admin address for three voters: connections go to a voter that answers.
//!
//! The relay moves bytes and knows nothing of what they say. A voter that stops answering (killed,
//! frozen, cut off) loses its connections here at once, so that clients connect again and reach
//! another; without that they would wait for a process that may never go on.

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
/// A voter that takes longer to answer is left out.
const PROBE_LIMIT: Duration = Duration::from_millis(400);
/// Longest wait for a connection to a voter.
const CONNECT_LIMIT: Duration = Duration::from_millis(400);

/// Asks a voter whether it can be used; `true` if it answered and knows a leader.
pub type Probe = Arc<dyn Fn(SocketAddr) -> provost_types::BoxFuture<'static, bool> + Send + Sync>;

/// A voter as the relay sees it. `alive` is cancelled when it stops answering, and then replaced.
struct Target {
    address: SocketAddr,
    alive: Mutex<Option<CancellationToken>>,
}

impl Target {
    fn lease(&self) -> Option<CancellationToken> {
        self.alive.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, answers: bool) {
        let mut alive = self.alive.lock().unwrap_or_else(PoisonError::into_inner);
        match (answers, alive.as_ref()) {
            (true, None) => *alive = Some(CancellationToken::new()),
            (false, Some(token)) => {
                token.cancel();
                *alive = None;
            }
            _ => {}
        }
    }
}

/// Relays until `stop`.
pub async fn serve(listener: TcpListener, voters: Vec<SocketAddr>, probe: Probe, stop: CancellationToken) {
    let targets: Arc<[Target]> =
        voters.into_iter().map(|address| Target { address, alive: Mutex::new(None) }).collect();
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
        let answers = tokio::time::timeout(PROBE_LIMIT, probe(target.address)).await.unwrap_or(false);
        target.set(answers);
        tokio::time::sleep(PROBE_EVERY).await;
    }
}

/// To the first voter, from `first` on, that answers and takes the connection.
async fn relay(mut stream: TcpStream, targets: &[Target], first: usize) {
    let _ = stream.set_nodelay(true);
    for at in 0..targets.len() {
        let target = &targets[(first + at) % targets.len()];
        let Some(alive) = target.lease() else { continue };
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
            Box::pin(std::future::ready(answers))
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
}
