//! One stream to one control-plane node, from hello to its end.

use std::sync::Arc;

use provost_wire::{
    node::{
        Hello, NackProblem, PluginsStanding, PushDown, PushUp, Refused, push_client::PushClient, push_down::Down,
        push_up::Up,
    },
    wire_version,
};
use tokio::{
    sync::mpsc,
    time::{Instant, interval, timeout, timeout_at},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::{
    Dial, PushConfig,
    answers::Answers,
    client::Shared,
    mirror::{Mirror, MirrorError, Pushed},
};

/// Messages that wait to go up. When it is full the newest answers are told later.
const UP_QUEUE: usize = 16;
/// Bytes of one message down: the control plane sends parts of 1 MiB, and a larger resource alone.
const MAX_DOWN_BYTES: usize = 16 << 20;

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum End {
    #[error("no connection: {0}")]
    Unreachable(String),
    #[error("{}: {} ({})", .0.code, .0.message, .0.hint)]
    Refused(Refused),
    #[error("nothing was heard for too long")]
    Silent,
    #[error("the stream ended: {0}")]
    Closed(String),
    #[error("the control-plane node stays behind this node")]
    Behind,
    #[error("{0}")]
    Mirror(MirrorError),
}

impl End {
    pub(crate) fn code(&self) -> &'static str {
        match self {
            End::Unreachable(_) | End::Closed(_) | End::Refused(_) => "PV-PUSH-UNREACHABLE",
            End::Silent => "PV-PUSH-SILENT",
            End::Behind => "PV-PUSH-OLDER",
            End::Mirror(cause) => cause.code(),
        }
    }
}

pub(crate) struct Session<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) config: &'a PushConfig,
    pub(crate) dial: &'a dyn Dial,
    pub(crate) endpoint: &'a str,
    /// Whether there is another control-plane node to go to.
    pub(crate) has_other: bool,
}

impl Session<'_> {
    /// Runs until the stream ends. It may be dropped at any await: `mirror` changes between them.
    pub(crate) async fn run(&self, mirror: &mut Mirror) -> End {
        mirror.new_stream();
        let (up, down) = match self.open(mirror).await {
            Ok(stream) => stream,
            Err(end) => return end,
        };
        self.shared.contact.connected(self.endpoint);
        let mut talk = Talk { session: self, up, told: Answers::default(), plugins_told: None, behind_since: None };
        match talk.run(mirror, down).await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    async fn open(&self, mirror: &Mirror) -> Result<(mpsc::Sender<PushUp>, Streaming<PushDown>), End> {
        let timings = self.config.timings;
        let channel = match timeout(timings.dial, self.dial.dial(self.endpoint)).await {
            Ok(channel) => channel.map_err(|e| End::Unreachable(e.to_string()))?,
            Err(_) => return Err(End::Unreachable(format!("no answer in {} s", timings.dial.as_secs()))),
        };
        let (up, messages) = mpsc::channel(UP_QUEUE);
        // The channel is new and empty.
        drop(up.try_send(PushUp { up: Some(Up::Hello(self.hello(mirror))) }));
        let mut client = PushClient::new(channel).max_decoding_message_size(MAX_DOWN_BYTES);
        match timeout(timings.silence, client.subscribe(ReceiverStream::new(messages))).await {
            Ok(Ok(response)) => Ok((up, response.into_inner())),
            Ok(Err(status)) => Err(End::Closed(status.message().to_owned())),
            Err(_) => Err(End::Silent),
        }
    }

    fn hello(&self, mirror: &Mirror) -> Hello {
        let config = self.config;
        let (revision, hash) = match mirror.point() {
            Some((revision, hash)) => (revision, hash.to_vec().into()),
            None => Default::default(),
        };
        Hello {
            node: config.node.clone(),
            epoch: config.epoch,
            revision,
            hash,
            wire_version: wire_version(),
            version: config.version.clone(),
            group: config.group.clone(),
        }
    }
}

/// An open stream.
struct Talk<'a> {
    session: &'a Session<'a>,
    up: mpsc::Sender<PushUp>,
    /// What the control-plane node was told.
    told: Answers,
    /// What it was told of the plugins; `None`: nothing.
    plugins_told: Option<PluginsStanding>,
    /// Since when it has been behind this node.
    behind_since: Option<Instant>,
}

impl Talk<'_> {
    async fn run(
        &mut self,
        mirror: &mut Mirror,
        mut down: Streaming<PushDown>,
    ) -> Result<std::convert::Infallible, End> {
        let timings = self.session.config.timings;
        let mut answers = self.session.shared.answers.subscribe();
        let mut health = interval(timings.health);
        let mut plugins = interval(timings.plugins);
        let mut deadline = Instant::now() + timings.silence;
        loop {
            self.tell(&answers.borrow_and_update().clone());
            tokio::select! {
                message = timeout_at(deadline, down.message()) => {
                    let message = match message {
                        Ok(Ok(Some(message))) => message,
                        Ok(Ok(None)) => return Err(End::Closed("by the control plane".to_owned())),
                        Ok(Err(status)) => return Err(End::Closed(status.message().to_owned())),
                        Err(_) => return Err(End::Silent),
                    };
                    self.session.shared.contact.heard();
                    deadline = Instant::now() + timings.silence;
                    self.take(mirror, message)?;
                }
                // Its sender is in `shared`: it is open.
                _ = answers.changed() => {}
                _ = health.tick() => self.report_health(),
                _ = plugins.tick() => self.tell_plugins(),
            }
        }
    }

    fn take(&mut self, mirror: &mut Mirror, message: PushDown) -> Result<(), End> {
        let is_whole = matches!(message.down, Some(Down::Whole(_)));
        let taken = match message.down {
            Some(Down::Whole(part)) => mirror.whole(part),
            Some(Down::Delta(part)) => mirror.delta(part),
            Some(Down::Bookmark(bookmark)) => return self.bookmark(mirror, bookmark.revision, bookmark.time_ns),
            Some(Down::Refused(refused)) => return Err(End::Refused(refused)),
            // From a later release: it says nothing that must be understood.
            None => return Ok(()),
        };
        match taken {
            Ok(Some(pushed)) => {
                if is_whole {
                    let (revision, from) = (pushed.snapshot.revision.0, self.session.endpoint);
                    tracing::info!(from, "took the whole state at revision {revision}");
                }
                self.publish(pushed);
            }
            Ok(None) => {}
            Err(cause) => {
                self.refuse(&cause);
                return Err(End::Mirror(cause));
            }
        }
        Ok(())
    }

    fn publish(&self, pushed: Arc<Pushed>) {
        let revision = pushed.snapshot.revision;
        tracing::debug!(%revision, "received");
        self.session.shared.contact.received();
        self.session.shared.pushed.send_replace(Some(pushed));
    }

    /// A state that cannot be read is refused like one that cannot be run.
    fn refuse(&mut self, cause: &MirrorError) {
        let MirrorError::Document { revision, .. } = cause else { return };
        let problem = NackProblem {
            code: cause.code().to_owned(),
            message: cause.to_string(),
            kind: String::new(),
            resource: String::new(),
        };
        let answers = &self.session.shared.answers;
        answers.send_modify(|answers| answers.refused(*revision, vec![problem]));
        let present = answers.borrow().clone();
        self.tell(&present);
    }

    fn bookmark(&mut self, mirror: &Mirror, revision: u64, time_ns: u64) -> Result<(), End> {
        let shared = self.session.shared;
        let is_current = match (mirror.point(), &shared.answers.borrow().active) {
            (Some((_, hash)), Some(active)) => active.hash == hash && revision >= active.revision,
            _ => false,
        };
        shared.contact.bookmark(time_ns, is_current);
        if revision >= mirror.revision() {
            self.behind_since = None;
            return Ok(());
        }
        let since = *self.behind_since.get_or_insert_with(Instant::now);
        let is_too_long = since.elapsed() >= self.session.config.timings.behind;
        if is_too_long && self.session.has_other { Err(End::Behind) } else { Ok(()) }
    }

    /// Tells what changed. What does not fit now is told with the next turn: the health timer
    /// brings one soon.
    fn tell(&mut self, answers: &Answers) {
        if *answers == self.told {
            return;
        }
        for message in answers.since(&self.told) {
            if self.up.try_send(message).is_err() {
                return;
            }
        }
        self.told = answers.clone();
    }

    /// Tells how far the plugins are, if that changed. What does not fit now is told with the next tick.
    fn tell_plugins(&mut self) {
        let Some(read) = &self.session.config.plugins else { return };
        let now = read();
        if self.plugins_told.as_ref() == Some(&now) {
            return;
        }
        if self.up.try_send(PushUp { up: Some(Up::Plugins(now.clone())) }).is_ok() {
            self.plugins_told = Some(now);
        }
    }

    fn report_health(&self) {
        let shared = self.session.shared;
        let revision = shared.answers.borrow().active.as_ref().map_or(0, |a| a.revision);
        let (now, before) = ((shared.counts)(), *shared.counts_before.lock());
        let health = provost_wire::node::Health {
            revision,
            calls: now.calls.saturating_sub(before.calls),
            denials: now.denials.saturating_sub(before.denials),
            errors: now.errors.saturating_sub(before.errors),
        };
        // A full queue: the next report says it all again.
        drop(self.up.try_send(PushUp { up: Some(Up::Health(health)) }));
    }
}
