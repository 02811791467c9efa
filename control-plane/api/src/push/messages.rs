//! What goes up and down a stream, beside states.

use provost_wire::node::{
    self, Bookmark, NackProblem, PluginWaiting, PluginsStanding, PushDown, Refused, push_down::Down,
};

/// Problems kept of one refusal by a node.
const MAX_PROBLEMS: usize = 64;
/// Plugins kept of what a node says of those that wait.
const MAX_PLUGINS: usize = 128;
/// Bytes kept of each text in it.
const MAX_TEXT_BYTES: usize = 1_024;

/// What a node did since it began to run its revision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// The revision that it runs.
    pub revision: u64,
    /// Calls that ended.
    pub calls: u64,
    /// Calls that were denied.
    pub denials: u64,
    /// Calls that failed.
    pub errors: u64,
}

impl From<node::Health> for Health {
    fn from(wire: node::Health) -> Self {
        let node::Health { revision, calls, denials, errors } = wire;
        Self { revision, calls, denials, errors }
    }
}

/// A node's problems cut to what is kept: they come from outside.
pub(crate) fn bounded(problems: Vec<NackProblem>) -> Vec<NackProblem> {
    let problems = problems.into_iter().take(MAX_PROBLEMS);
    problems
        .map(|p| NackProblem {
            kind: cut(p.kind),
            resource: cut(p.resource),
            code: cut(p.code),
            message: cut(p.message),
        })
        .collect()
}

fn cut(text: String) -> String {
    match text.len() {
        0..=MAX_TEXT_BYTES => text,
        _ => text[..text.floor_char_boundary(MAX_TEXT_BYTES)].to_owned(),
    }
}

/// What a node says of its plugins, cut likewise.
pub(crate) fn bounded_plugins(said: PluginsStanding) -> PluginsStanding {
    let is_cut = said.cut || said.waiting.len() > MAX_PLUGINS;
    let waiting = said.waiting.into_iter().take(MAX_PLUGINS).map(|waiting| PluginWaiting {
        tenant: cut(waiting.tenant),
        plugin: cut(waiting.plugin),
        why: cut(waiting.why),
        failed: waiting.failed,
    });
    PluginsStanding { revision: said.revision, waiting: waiting.collect(), cut: is_cut }
}

pub(crate) fn bookmark(revision: u64, time_ns: u64) -> PushDown {
    PushDown { down: Some(Down::Bookmark(Bookmark { revision, time_ns })) }
}

/// Why a stream is not served, or no longer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the first message must be hello, within 10 s")]
    Hello,
    #[error("the certificate is of node `{certificate}`, hello names `{hello}`")]
    Identity { certificate: String, hello: String },
    #[error("the node speaks version {0}, this one version {own}: at most one apart is understood", own = provost_wire::wire_version())]
    Version(u32),
    #[error("a later start of this node (epoch {0}) is connected")]
    Epoch(u64),
    #[error("this control-plane node serves as many nodes as it can")]
    Full,
    #[error("the node connected anew")]
    Replaced,
    #[error("nothing was heard from the node for too long")]
    Silent,
    #[error("the node was removed from the cluster")]
    Removed,
    #[error("this control-plane node is stopping")]
    Stopping,
}

impl Refusal {
    fn code_and_hint(&self) -> (&'static str, &'static str) {
        match self {
            Refusal::Hello => ("PV-PUSH-HELLO", "is the peer a Provost node?"),
            Refusal::Identity { .. } => ("PV-PUSH-IDENTITY", "use the name that the node joined under"),
            Refusal::Version(_) => ("PV-PUSH-VERSION", "upgrade the older side, one release at a time"),
            Refusal::Epoch(_) => ("PV-PUSH-EPOCH", "stop the older process: two run under one name"),
            Refusal::Full => ("PV-PUSH-FULL", "another control-plane node may have room"),
            Refusal::Replaced => ("PV-PUSH-REPLACED", "if it happens often, two processes run under one name"),
            Refusal::Silent => ("PV-PUSH-SILENT", "the node connects anew"),
            Refusal::Removed => ("PV-PUSH-REMOVED", "let it join anew, if it is to serve"),
            Refusal::Stopping => ("PV-PUSH-STOPPING", "connect to another control-plane node"),
        }
    }

    pub(crate) fn code(&self) -> &'static str {
        self.code_and_hint().0
    }

    pub(crate) fn message(&self) -> PushDown {
        let (code, hint) = self.code_and_hint();
        let refused = Refused { code: code.to_owned(), message: self.to_string(), hint: hint.to_owned() };
        PushDown { down: Some(Down::Refused(refused)) }
    }
}
