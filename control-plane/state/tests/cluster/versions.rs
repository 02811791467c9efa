//! Which version everybody can read: it rises when the last one has risen, and never falls.

use provost_control_state::{Cluster, ClusterCommand, JoinToken, NodeVersion};

use crate::{MINUTE, T0, World, hash, init, name, node_of, removed, roles, token, used};

fn speaks(node_id: u64, wire: u32) -> ClusterCommand {
    ClusterCommand::NodeVersion { node_id, version: NodeVersion { wire, build: format!("{wire}.0.0") } }
}

fn join(world: &mut World, n: u64, role: &str) -> u64 {
    let token = JoinToken {
        id: format!("t{n}"),
        node: name(&format!("n{n}")),
        roles: roles(&[role]),
        expires_ns: T0 + MINUTE,
        used: None,
    };
    world.apply(ClusterCommand::TokenMade { hash: hash(n), token, time_ns: T0 }).unwrap();
    node_of(world.apply(used(n, n, T0)).unwrap())
}

#[test]
fn it_rises_with_the_last_and_never_falls() {
    let mut world = World::started();
    let (second, third) = (join(&mut world, 2, "control-plane"), join(&mut world, 3, "control-plane"));
    // Who has no replica reads no log: it has no say.
    let data = join(&mut world, 4, "data-plane");
    for (command, expect) in [
        (speaks(1, 2), 1),
        (speaks(second, 2), 1),
        (speaks(second, 1), 1),
        (speaks(data, 2), 1),
        (speaks(second, 2), 1),
        (speaks(third, 2), 2),
        (speaks(1, 3), 2),
        (speaks(second, 3), 2),
        (removed(third), 3),
    ] {
        world.apply(command.clone()).unwrap();
        assert_eq!(world.cluster.version(), expect, "{command:?}");
    }
    assert_eq!(world.code(speaks(1, 2)), "PV-CLUSTER-VERSION");
    // Who joins is not older than what is stored.
    let late = join(&mut world, 5, "control-plane");
    assert_eq!(world.cluster.members()[&late].version.wire, 3);
    assert_eq!(world.cluster.for_restore().version(), 3, "what was stored is in the copy");
}

/// Nodes that join a new cluster at once are of its version, whichever speaks first.
#[test]
fn a_new_cluster_has_the_version_of_its_first_node() {
    let mut world = World::default();
    let command = match init() {
        ClusterCommand::Init { cluster, node_id, node, roles, address, authority, .. } => {
            let version = NodeVersion { wire: 3, build: "3.0.0".to_owned() };
            ClusterCommand::Init { cluster, node_id, node, roles, address, authority, version }
        }
        other => other,
    };
    world.apply(command).unwrap();
    assert_eq!(world.cluster.version(), 3);
    let (second, third) = (join(&mut world, 2, "control-plane"), join(&mut world, 3, "control-plane"));
    assert_eq!(world.cluster.version(), 3);
    for node in [third, 1, second] {
        world.apply(speaks(node, 3)).unwrap();
    }
}

#[test]
fn neighbours_only_and_both_are_named() {
    let mut world = World::started();
    // Alone it may be of any version: it reads every earlier one.
    assert!(world.cluster.check_version(1, 7).is_ok());
    let second = join(&mut world, 2, "control-plane");
    let refused = world.apply(speaks(second, 3)).unwrap_err().problems.remove(0);
    assert_eq!(refused.code, "PV-CLUSTER-VERSION");
    assert!(
        refused.message.contains("version 3") && refused.message.contains("node 1 (cp-1) version 1"),
        "{refused:?}"
    );
    assert_eq!(world.code(speaks(second, 0)), "PV-CLUSTER-VERSION");
    assert_eq!(world.code(speaks(9, 1)), "PV-CLUSTER-NO-NODE");
    world.apply(token(3, "dp-1")).unwrap();
}

#[test]
fn what_was_stored_before_versions_is_of_the_first() {
    let mut world = World::started();
    join(&mut world, 2, "control-plane");
    let mut stored = serde_json::to_value(&world.cluster).unwrap();
    stored.as_object_mut().unwrap().remove("version");
    for member in stored["members"].as_object_mut().unwrap().values_mut() {
        member.as_object_mut().unwrap().remove("version");
    }
    let read: Cluster = serde_json::from_value(stored).unwrap();
    assert_eq!(read.version(), 1);
    assert_eq!(read.members(), world.cluster.members());
}
