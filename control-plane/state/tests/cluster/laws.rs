//! What holds under any sequence of commands.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use provost_control_state::{ClusterCommand, JoinToken, NodeVersion};

use crate::{MINUTE, SECOND, T0, World, authority, hash, init, name, node_of, removed, roles, used};

/// A small world, so that random commands meet.
fn any_command() -> impl Strategy<Value = ClusterCommand> {
    let node = prop_oneof![Just("a"), Just("b"), Just("c")];
    let time = T0 - SECOND..T0 + 2 * MINUTE;
    prop_oneof![
        1 => Just(init()),
        2 => (0..6_u64, 0..4_u32).prop_map(|(node_id, wire)| {
            ClusterCommand::NodeVersion { node_id, version: NodeVersion { wire, build: String::new() } }
        }),
        6 => (0..6_u64, node, any::<bool>(), 0..2 * MINUTE).prop_map(|(n, node, controls, life)| {
            let roles = if controls { roles(&["control-plane"]) } else { roles(&["data-plane"]) };
            let token = JoinToken { id: format!("t{n}"), node: name(node), roles, expires_ns: T0 + life, used: None };
            ClusterCommand::TokenMade { hash: hash(n), token, time_ns: T0 }
        }),
        8 => (0..6_u64, 0..4_u64, time.clone()).prop_map(|(n, key, at)| used(n, key, at)),
        3 => (0..12_u64).prop_map(removed),
        1 => (0..12_u64).prop_map(|n| ClusterCommand::AddressChanged { node_id: n, address: "x:1".into() }),
        1 => (time.clone(), 0..MINUTE).prop_map(|(time_ns, settle_ns)| {
            ClusterCommand::CaBegin { authority: authority("n"), time_ns, settle_ns }
        }),
        1 => (time.clone(), any::<bool>()).prop_map(|(time_ns, force)| ClusterCommand::CaCommit { time_ns, force }),
        1 => (time, any::<bool>()).prop_map(|(time_ns, force)| ClusterCommand::CaFinish { time_ns, force }),
    ]
}

proptest! {
    /// Ids are never given twice, a token makes one member, names are unique, what signs is
    /// trusted, no replica is older than what is stored; and the same commands, stored and read again in between, give the same.
    #[test]
    fn laws_hold_under_any_commands(commands in proptest::collection::vec(any_command(), 0..80)) {
        let mut world = World::started();
        let mut twin = world.clone();
        let mut given: BTreeMap<u64, (String, String)> = BTreeMap::new();
        let mut by_token: BTreeMap<String, u64> = BTreeMap::new();
        for command in commands {
            let joining = match &command {
                ClusterCommand::TokenUsed { hash, key, .. } => Some((hash.clone(), key.clone())),
                _ => None,
            };
            if let ClusterCommand::TokenMade { hash, .. } = &command {
                prop_assert!(!world.cluster.join_tokens().contains_key(hash) || world.clone().apply(command.clone()).is_err());
            }
            let version_before = world.cluster.version();
            let last_before = world.cluster.last_node_id();
            let stored: ClusterCommand = serde_json::from_slice(&serde_json::to_vec(&command).unwrap()).unwrap();
            let result = world.apply(command);
            twin.cluster = serde_json::from_slice(&serde_json::to_vec(&twin.cluster).unwrap()).unwrap();
            prop_assert_eq!(&twin.apply(stored), &result);
            prop_assert_eq!(&twin.cluster, &world.cluster);

            if let (Some((token, key)), Ok(reply)) = (joining, result) {
                let id = node_of(reply);
                match given.get(&id) {
                    // Not new: then it is the same node with the same token.
                    Some(before) => prop_assert_eq!(before, &(token.clone(), key)),
                    None => {
                        prop_assert_eq!(id, last_before + 1);
                        given.insert(id, (token.clone(), key));
                    }
                }
                prop_assert_eq!(*by_token.entry(token).or_insert(id), id);
            }
            let names: BTreeSet<_> = world.cluster.members().values().map(|m| m.name.clone()).collect();
            prop_assert_eq!(names.len(), world.cluster.members().len());
            prop_assert!(world.cluster.members().values().any(|m| m.has("control-plane")));
            prop_assert!(world.cluster.members().keys().all(|id| *id <= world.cluster.last_node_id()));
            let replicas = world.cluster.members().values().filter(|m| m.has("control-plane"));
            prop_assert!(replicas.map(|m| m.version.wire).min() >= Some(world.cluster.version()));
            prop_assert!(world.cluster.version() >= version_before);
            prop_assert!(world.cluster.signing().is_some());
            prop_assert_eq!(world.cluster.authorities().len(), 1 + usize::from(world.cluster.rotation().is_some()));
        }
    }
}
