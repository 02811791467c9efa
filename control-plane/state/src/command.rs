//! What is proposed: transactions, and their stored form.

use provost_types::{Metadata, ResourceKey, Revision, Spec};
use serde::{Deserialize, Serialize};

use crate::{Authorship, ClusterCommand, LedgerCommand, PackageCommand, ReleaseCommand, references};

/// Puts and deletes of one transaction.
pub const MAX_TRANSACTION_CHANGES: usize = 10_000;
/// Bytes of a transaction's message.
pub const MAX_MESSAGE_BYTES: usize = 4_096;

/// A resource as somebody wants it, before it has revisions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Draft {
    /// Name, tenant, labels.
    pub metadata: Metadata,
    /// The typed body.
    pub spec: Spec,
}

impl Draft {
    /// Its key.
    pub fn key(&self) -> ResourceKey {
        ResourceKey { kind: self.spec.kind(), tenant: self.metadata.tenant.clone(), name: self.metadata.name.clone() }
    }

    /// The fields that name another resource, with what they name.
    pub fn references(&self) -> Vec<(String, ResourceKey)> {
        references::of(&self.metadata, &self.spec)
    }
}

/// What kind of change a transaction is, for history and audit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// Resources applied from documents.
    #[serde(rename = "apply")]
    Apply,
    /// Resources deleted.
    #[serde(rename = "delete")]
    Delete,
    /// An earlier state restored.
    #[serde(rename = "rollback")]
    Rollback,
    /// A secret's value set.
    #[serde(rename = "secret.set")]
    SecretSet,
    /// A token made.
    #[serde(rename = "token.create")]
    TokenCreate,
    /// A new data key, or values sealed again under it.
    #[serde(rename = "keys.rotate")]
    KeysRotate,
    /// Calls stopped.
    #[serde(rename = "kill-switch.on")]
    KillSwitchOn,
    /// Calls let through again.
    #[serde(rename = "kill-switch.off")]
    KillSwitchOff,
    /// Definitions of tools that a node saw.
    #[serde(rename = "tools.seen")]
    DefinitionsSeen,
    /// Definitions of tools approved.
    #[serde(rename = "tools.approve")]
    DefinitionsApproved,
    /// Tools taken out of use.
    #[serde(rename = "tools.quarantine")]
    ToolsQuarantined,
    /// A user let a plugin act in their name.
    #[serde(rename = "connection.made")]
    ConnectionMade,
    /// That is over.
    #[serde(rename = "connection.ended")]
    ConnectionEnded,
    /// A node asks for new tokens of a connection, or has got them.
    #[serde(rename = "connection.kept")]
    ConnectionKept,
    /// Packages that made room for newer ones. It is in no history: no resource changes.
    #[serde(rename = "package.drop")]
    PackagesDropped,
}

impl Event {
    /// The name in history and audit.
    pub fn as_str(self) -> &'static str {
        match self {
            Event::Apply => "apply",
            Event::Delete => "delete",
            Event::Rollback => "rollback",
            Event::SecretSet => "secret.set",
            Event::TokenCreate => "token.create",
            Event::KeysRotate => "keys.rotate",
            Event::KillSwitchOn => "kill-switch.on",
            Event::KillSwitchOff => "kill-switch.off",
            Event::DefinitionsSeen => "tools.seen",
            Event::DefinitionsApproved => "tools.approve",
            Event::ToolsQuarantined => "tools.quarantine",
            Event::ConnectionMade => "connection.made",
            Event::ConnectionEnded => "connection.ended",
            Event::ConnectionKept => "connection.kept",
            Event::PackagesDropped => "package.drop",
        }
    }

    /// Whether it is routine that comes too often to be remembered: it makes no history, and so pushes none out,
    /// and no record. Only for kinds that a rollback leaves as they are.
    pub fn is_routine(self) -> bool {
        self == Event::ConnectionKept
    }

    /// The first wire version whose control-plane nodes can read it.
    fn since_version(self) -> u32 {
        match self {
            Event::PackagesDropped => 5,
            Event::ConnectionMade | Event::ConnectionEnded | Event::ConnectionKept => 3,
            Event::KillSwitchOn
            | Event::KillSwitchOff
            | Event::DefinitionsSeen
            | Event::DefinitionsApproved
            | Event::ToolsQuarantined => 2,
            _ => 1,
        }
    }
}

/// Compare-and-set on one resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expectation {
    /// The resource.
    pub key: ResourceKey,
    /// The revision that last changed it; `None`: it must not exist.
    pub modified: Option<Revision>,
}

/// A data key that seals secrets, wrapped by the key provider: useless without it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealingKey {
    /// Counts the data keys of the cluster, from 1.
    pub term: u64,
    /// The wrapped key, base64.
    pub wrapped: String,
    /// So many of the newest keys before it stay in the ring though nothing of the state is sealed with them: what
    /// data-plane nodes made from them (tokens of guards) opens as long.
    #[serde(default, skip_serializing_if = "keeps_none")]
    pub keeps: u32,
}

fn keeps_none(keeps: &u32) -> bool {
    *keeps == 0
}

impl SealingKey {
    /// The first wire version whose control-plane nodes keep earlier keys.
    pub const KEEPS_VERSION: u32 = 4;
}

/// One change of the state: all of it at one revision, or nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Transaction {
    /// What kind of change.
    pub event: Event,
    /// When it was proposed, nanoseconds since the Unix epoch, by the proposer's clock.
    pub time_ns: u64,
    /// Who proposed it.
    pub author: String,
    /// Why, in the author's words.
    pub message: String,
    /// The state's revision must be this one.
    pub expect_revision: Option<Revision>,
    /// These resources must be at these revisions.
    pub expect: Vec<Expectation>,
    /// Resources to make or replace.
    pub puts: Vec<Draft>,
    /// Resources to remove.
    pub deletes: Vec<ResourceKey>,
    /// A data key to add to the ring; its term must be new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealing_key: Option<SealingKey>,
    /// Who proposed it, for the record that it leaves in the outbox; `None`: the proposer records it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorship: Option<Authorship>,
}

impl Transaction {
    /// The first wire version whose control-plane nodes can read all that it names.
    fn version(&self) -> u32 {
        let put = |draft: &Draft| draft.spec.since_version();
        let deletes = self.deletes.iter().map(|key| key.kind.since_version());
        let key = self.sealing_key.iter().filter(|key| key.keeps > 0).map(|_| SealingKey::KEEPS_VERSION);
        self.puts.iter().map(put).chain(deletes).chain(key).fold(self.event.since_version(), u32::max)
    }
}

/// The stored form of commands: a later release reads every earlier version. Tagged from outside: an
/// inner tag would have every command buffered before it is read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum StoredCommand {
    /// A transaction over resources, first form.
    #[serde(rename = "1")]
    V1(Transaction),
    /// A change of the cluster's own facts, first form.
    #[serde(rename = "cluster-1")]
    Cluster1 {
        /// The change.
        command: ClusterCommand,
    },
    /// A change of the quota ledger, first form.
    #[serde(rename = "ledger-1")]
    Ledger1 {
        /// The change.
        command: LedgerCommand,
    },
    /// A decision on a staged change, first form.
    #[serde(rename = "release-1")]
    Release1 {
        /// The decision.
        command: ReleaseCommand,
    },
    /// How far the records of changes have been carried to the audit log, first form.
    #[serde(rename = "carried-1")]
    Carried1 {
        /// The newest change that the audit log has, with all before it.
        through: Revision,
    },
    /// A change of the plugin packages, first form.
    #[serde(rename = "package-1")]
    Package1 {
        /// The change.
        command: PackageCommand,
    },
}

/// A command that this build cannot read or write.
#[derive(Debug, thiserror::Error)]
#[error("a stored command cannot be read: {0}")]
pub struct CommandError(#[from] serde_json::Error);

impl StoredCommand {
    /// The first wire version whose builds read this form. A form that is added names its own: it is
    /// proposed only when every control-plane node can read it.
    pub fn version(&self) -> u32 {
        match self {
            StoredCommand::V1(transaction) => transaction.version(),
            StoredCommand::Cluster1 { .. }
            | StoredCommand::Ledger1 { .. }
            | StoredCommand::Release1 { .. }
            | StoredCommand::Carried1 { .. } => 1,
            StoredCommand::Package1 { .. } => PackageCommand::VERSION,
        }
    }

    /// Encodes as JSON: specs skip empty fields, which formats without field names cannot.
    pub fn encode(&self) -> Result<Vec<u8>, CommandError> {
        Ok(serde_json::to_vec(self)?)
    }

    /// Decodes.
    pub fn decode(bytes: &[u8]) -> Result<Self, CommandError> {
        Ok(serde_json::from_slice(bytes)?)
    }
}
