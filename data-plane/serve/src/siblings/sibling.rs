//! One other data-plane node, as this one sees it.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use provost_wire::sibling::{HelloRequest, sibling_client::SiblingClient};
use tonic::{Code, Status, transport::Channel};

use super::tag::Tag;

/// A node that was not heard of for so long is taken for dead.
const LOST_AFTER: Duration = Duration::from_secs(4);
/// The longest wait for its answer to a greeting.
const HELLO_LIMIT: Duration = Duration::from_secs(1);
/// Bytes of one message: an upstream's answer and what is around it.
pub(super) const MAX_MESSAGE_BYTES: usize = 20 << 20;

/// What the last greeting brought.
#[derive(Clone, Copy, Debug, Default)]
struct Heard {
    at: Option<Instant>,
    tag: Option<Tag>,
    is_draining: bool,
}

/// See the module.
pub(crate) struct Sibling {
    name: String,
    address: String,
    channel: Channel,
    heard: Mutex<Heard>,
}

impl Sibling {
    pub(super) fn new(name: String, address: String, channel: Channel) -> Self {
        Self { name, address, channel, heard: Mutex::default() }
    }

    /// Its name in the cluster.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn is_at(&self, name: &str, address: &str) -> bool {
        self.name == name && self.address == address
    }

    /// Its services.
    pub(super) fn client(&self) -> SiblingClient<Channel> {
        SiblingClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// The process that runs there now.
    pub(super) fn tag(&self) -> Option<Tag> {
        self.heard.lock().tag
    }

    /// It answered lately.
    pub(super) fn is_alive(&self) -> bool {
        self.heard.lock().at.is_some_and(|at| at.elapsed() < LOST_AFTER)
    }

    /// It answered lately, and begins new things.
    pub(super) fn takes_work(&self) -> bool {
        let heard = *self.heard.lock();
        heard.at.is_some_and(|at| at.elapsed() < LOST_AFTER) && !heard.is_draining
    }

    /// Asks whether it lives.
    pub(super) async fn greet(&self) {
        match tokio::time::timeout(HELLO_LIMIT, self.client().hello(HelloRequest {})).await {
            Ok(Ok(answer)) => {
                let answer = answer.into_inner();
                let heard =
                    Heard { at: Some(Instant::now()), tag: Tag::parse(&answer.tag), is_draining: answer.draining };
                let before = std::mem::replace(&mut *self.heard.lock(), heard);
                if (before.tag, before.is_draining) != (heard.tag, heard.is_draining) {
                    let draining = heard.is_draining;
                    tracing::info!(node = self.name, draining, "another data-plane node is reached");
                }
            }
            Ok(Err(status)) => self.failed(&status),
            // A busy node answers late; one that is gone is found out by the time.
            Err(_) => {}
        }
    }

    /// Notes what a call that failed says of the node.
    pub(super) fn failed(&self, status: &Status) {
        // From the connection, not from the service.
        if status.code() == Code::Unavailable {
            let was = self.heard.lock().at.take();
            if was.is_some() {
                tracing::info!(node = self.name, cause = status.message(), "another data-plane node is not reached");
            }
        }
    }
}
