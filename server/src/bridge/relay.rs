//! The loop between the client's lines and the link: one task, which never waits for one side only.
//!
//! Messages that came while there is no connection wait, in order, a bounded time and a bounded number of
//! them. If we crash here the client sees its process end, and the cluster a connection that ended: what
//! was in flight is cancelled there, as it would be had the client gone.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use provost_client::{Connector, Incoming, Link, LinkError, Outgoing};
use rand::Rng;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};

use super::{
    book::{Book, Came},
    lines::Line,
    reply,
};

/// Messages that wait for a connection, or for room on it.
const MAX_WAITING: usize = 256;
/// The longest that a request waits for a connection.
const WAIT_LIMIT: Duration = Duration::from_secs(15);
/// While a node goes: between two looks at what has waited too long.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Between two tries to connect: doubled from the first to the second.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// After the end of stdin: the longest that calls in flight may take.
const END_LIMIT: Duration = Duration::from_secs(300);
/// The longest that a restored session may take to be opened.
const RESTORE_LIMIT: Duration = Duration::from_secs(15);

/// See the module.
pub struct Relay {
    connector: Connector,
    from_client: mpsc::Receiver<Line>,
    to_client: mpsc::Sender<Bytes>,
    book: Book,
    waiting: VecDeque<Waiting>,
    /// When stdin ended.
    ended: Option<Instant>,
}

struct Waiting {
    since: Instant,
    message: Outgoing,
}

/// Why the relay stops for good.
enum Stop {
    /// Everything was answered, or nobody reads answers any more.
    Done,
    /// Calls in flight outlasted the end of stdin.
    Overdue,
}

/// How a connection ended.
enum Served {
    Stop(Stop),
    Lost(LinkError),
}

impl Relay {
    /// A relay that has not connected yet.
    pub fn new(connector: Connector, from_client: mpsc::Receiver<Line>, to_client: mpsc::Sender<Bytes>) -> Self {
        Self { connector, from_client, to_client, book: Book::default(), waiting: VecDeque::new(), ended: None }
    }

    /// Runs until stdin has ended and what was asked is answered.
    pub async fn run(mut self) -> anyhow::Result<()> {
        let stop = loop {
            let link = match self.connect().await {
                Ok(link) => link,
                Err(stop) => break stop,
            };
            match self.serve(link).await {
                Served::Stop(stop) => break stop,
                Served::Lost(error) => {
                    tracing::warn!(%error, "connecting again");
                    if self.lose(&error).await.is_err() {
                        break Stop::Done;
                    }
                }
            }
        };
        match stop {
            Stop::Done => Ok(()),
            Stop::Overdue => Err(crate::failure::Failure::new(
                "PV-BRIDGE-OVERDUE",
                format!("calls were still in flight {} s after the end of stdin", END_LIMIT.as_secs()),
                "`provost audit query` says how they ended",
            )
            .into()),
        }
    }

    /// Connects, again and again while it makes sense. Errors: there is nothing more to do.
    async fn connect(&mut self) -> Result<Link, Stop> {
        let mut pause = BACKOFF.0;
        loop {
            if self.ended.is_some() && !self.waiting.iter().any(|w| w.message.id().is_some()) {
                return Err(Stop::Done);
            }
            let connector = self.connector.clone();
            let error = match self.meanwhile(async move { Link::open(&connector).await }).await? {
                Ok(link) => return Ok(link),
                Err(error) => error,
            };
            if reply::is_permanent(&error) {
                tracing::error!(%error, code = error.code(), next = error.hint(), "the cluster cannot be used");
                self.refuse(&error, Duration::ZERO).await?;
                // Nothing will change by itself: the next request is the next try.
                self.until_asked().await?;
                continue;
            }
            tracing::warn!(%error, code = error.code(), "no connection");
            self.refuse(&error, WAIT_LIMIT).await?;
            let jitter = rand::rng().random_range(0.5..1.0);
            self.meanwhile(sleep(pause.mul_f64(jitter))).await?;
            pause = (pause * 2).min(BACKOFF.1);
        }
    }

    /// Takes lines while something else is waited for.
    async fn meanwhile<T>(&mut self, something: impl Future<Output = T>) -> Result<T, Stop> {
        tokio::pin!(something);
        loop {
            tokio::select! {
                done = &mut something => return Ok(done),
                line = self.from_client.recv(), if self.ended.is_none() => self.take(line).await?,
                () = self.to_client.closed() => return Err(Stop::Done),
            }
        }
    }

    /// Takes lines until one wants an answer.
    async fn until_asked(&mut self) -> Result<(), Stop> {
        while !self.waiting.iter().any(|w| w.message.id().is_some()) {
            if self.ended.is_some() {
                return Err(Stop::Done);
            }
            tokio::select! {
                line = self.from_client.recv() => self.take(line).await?,
                () = self.to_client.closed() => return Err(Stop::Done),
            }
        }
        Ok(())
    }

    /// Takes one line, or the end of them.
    async fn take(&mut self, line: Option<Line>) -> Result<(), Stop> {
        let message = match line {
            Some(Line::Message(message)) => message,
            Some(Line::Refused(answer)) => return self.tell(answer).await,
            None => {
                self.ended = Some(Instant::now());
                let now = Instant::now();
                let cancelled = self.book.end_subscriptions();
                self.waiting.extend(cancelled.into_iter().map(|message| Waiting { since: now, message }));
                return Ok(());
            }
        };
        if let Some(id) = message.cancels() {
            // It may wait here still: then it never goes out.
            let before = self.waiting.len();
            self.waiting.retain(|w| w.message.id() != Some(&id));
            if self.waiting.len() < before {
                return Ok(());
            }
        }
        if self.waiting.len() >= MAX_WAITING {
            return match message.id() {
                Some(id) => self.tell(reply::busy(id, MAX_WAITING)).await,
                None => Ok(()),
            };
        }
        self.waiting.push_back(Waiting { since: Instant::now(), message });
        Ok(())
    }

    /// Answers requests that have waited at least so long, and forgets them.
    async fn refuse(&mut self, error: &LinkError, waited: Duration) -> Result<(), Stop> {
        let (late, rest): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.waiting).into_iter().partition(|w| w.since.elapsed() >= waited);
        self.waiting = rest;
        for Waiting { message, .. } in late {
            if let Some(id) = message.id() {
                self.tell(reply::not_sent(id, error)).await?;
            }
        }
        Ok(())
    }

    async fn tell(&self, message: Bytes) -> Result<(), Stop> {
        self.to_client.send(message).await.map_err(|_| Stop::Done)
    }

    async fn lose(&mut self, error: &LinkError) -> Result<(), Stop> {
        let loss = self.book.lost(error);
        loss.again.into_iter().for_each(|message| self.first(message));
        for answer in loss.answers {
            self.tell(answer).await?;
        }
        Ok(())
    }

    /// Carries messages both ways until the connection or the need for it ends.
    async fn serve(&mut self, link: Link) -> Served {
        let Link { sender, mut receiver } = link;
        // While a session is restored nothing of the client's goes out.
        let mut restoring = None;
        if let Some(hello) = self.book.restore() {
            if let Err(error) = sender.send(hello).await {
                return Served::Lost(error);
            }
            restoring = Some(Instant::now() + RESTORE_LIMIT);
        }
        // The node goes: it ends the connection once it has answered what runs there.
        let mut looks = None;
        // No node took a request of its own exchange: the next try is then.
        let mut pause = None;
        loop {
            if self.ended.is_some() && self.waiting.is_empty() && self.book.is_clear() {
                return Served::Stop(Stop::Done);
            }
            let overdue = self.ended.map(|since| since + END_LIMIT);
            let stop = tokio::select! {
                room = sender.reserve(),
                    if restoring.is_none() && looks.is_none() && pause.is_none() && !self.waiting.is_empty() =>
                {
                    let Ok(room) = room else { continue };
                    if let Some(Waiting { message, .. }) = self.waiting.pop_front()
                        && self.book.goes_out(&message)
                    {
                        room.send(message);
                    }
                    Ok(())
                }
                line = self.from_client.recv(), if self.ended.is_none() && self.waiting.len() < MAX_WAITING => {
                    self.take(line).await
                }
                incoming = receiver.next() => match incoming {
                    Some(Incoming::Message(bytes)) => match self.book.came(bytes) {
                        Came::Pass(bytes) => self.tell(bytes).await,
                        Came::Swallowed => Ok(()),
                        Came::Refused(message) => {
                            self.first(*message);
                            looks = Some(Instant::now() + LOOK_EVERY);
                            Ok(())
                        }
                        Came::Restored => {
                            restoring = None;
                            self.restored();
                            Ok(())
                        }
                    },
                    Some(Incoming::Failed { id, error }) => match self.book.taken_back(&id, &error) {
                        Some((message, times)) => {
                            self.first(message);
                            pause = Some(Instant::now() + pause_after(times));
                            Ok(())
                        }
                        None => match self.book.failed(&id, &error) {
                            Some(answer) => self.tell(answer).await,
                            None => Ok(()),
                        },
                    },
                    Some(Incoming::Closed(error)) => return Served::Lost(error),
                    None => return Served::Lost(LinkError::Lost("it was closed".to_owned())),
                },
                () = until(restoring) => return Served::Lost(LinkError::Deadline(RESTORE_LIMIT)),
                () = until(pause) => {
                    pause = None;
                    Ok(())
                }
                () = until(looks) => {
                    looks = Some(Instant::now() + LOOK_EVERY);
                    self.refuse(&LinkError::NotTaken("the node shuts down".to_owned()), WAIT_LIMIT).await
                }
                () = until(overdue) => Err(Stop::Overdue),
                () = self.to_client.closed() => Err(Stop::Done),
            };
            if let Err(stop) = stop {
                return Served::Stop(stop);
            }
        }
    }

    /// What makes the rest of a session goes out before what waits.
    fn restored(&mut self) {
        self.book.restored().into_iter().rev().for_each(|message| self.first(message));
    }

    /// This goes out before what waits.
    fn first(&mut self, message: Outgoing) {
        self.waiting.push_front(Waiting { since: Instant::now(), message });
    }
}

/// Before a request is sent again that was so many times already, at least once.
fn pause_after(times: u32) -> Duration {
    let doubled = 2_u32.saturating_pow(times.saturating_sub(1));
    BACKOFF.0.saturating_mul(doubled).min(BACKOFF.1)
}

/// Never, without a time.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
