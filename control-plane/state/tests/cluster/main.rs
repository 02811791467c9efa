//! The cluster's own facts: membership, join tokens, authorities, administrators.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod facts;
mod laws;
mod tokens;
mod versions;

use std::collections::BTreeSet;

use provost_control_state::{Authority, Cluster, ClusterCommand, ClusterReply, JoinToken, Rejected};
use provost_types::{Name, Revision};

const SECOND: u64 = 1_000_000_000;
const MINUTE: u64 = 60 * SECOND;
/// When the tests begin.
const T0: u64 = 1_000 * MINUTE;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn roles(of: &[&str]) -> BTreeSet<Name> {
    of.iter().map(|r| name(r)).collect()
}

fn hash(n: u64) -> String {
    format!("{n:064x}")
}

fn authority(text: &str) -> Authority {
    Authority { certificate: format!("{text}\n"), sealed_key: format!("sealed {text}") }
}

fn init() -> ClusterCommand {
    ClusterCommand::Init {
        cluster: name("acme"),
        node_id: 1,
        node: name("cp-1"),
        roles: roles(&["control-plane"]),
        address: "10.0.0.1:7443".into(),
        authority: Some(authority("old")),
        version: Default::default(),
    }
}

/// Counts revisions as a log does.
#[derive(Clone, Default)]
struct World {
    cluster: Cluster,
    revision: u64,
}

impl World {
    fn started() -> Self {
        let mut world = Self::default();
        world.apply(init()).unwrap();
        world
    }

    fn apply(&mut self, command: ClusterCommand) -> Result<ClusterReply, Rejected> {
        self.revision += 1;
        let before = self.cluster.clone();
        let result = self.cluster.apply(Revision(self.revision), command);
        if result.is_err() {
            assert_eq!(self.cluster, before, "a rejected command changed something");
        }
        result
    }

    fn code(&mut self, command: ClusterCommand) -> String {
        self.apply(command).unwrap_err().problems[0].code.to_string()
    }
}

fn token(n: u64, node: &str) -> ClusterCommand {
    let token = JoinToken {
        id: format!("t{n}"),
        node: name(node),
        roles: roles(&["data-plane"]),
        expires_ns: T0 + MINUTE,
        used: None,
    };
    ClusterCommand::TokenMade { hash: hash(n), token, time_ns: T0 }
}

fn used(n: u64, key: u64, now_ns: u64) -> ClusterCommand {
    ClusterCommand::TokenUsed { hash: hash(n), key: hash(key), address: String::new(), now_ns }
}

fn removed(node_id: u64) -> ClusterCommand {
    ClusterCommand::NodeRemoved { node_id, time_ns: T0 }
}

fn node_of(reply: ClusterReply) -> u64 {
    match reply {
        ClusterReply::Joined { node_id, .. } => node_id,
        other => panic!("{other:?}"),
    }
}
