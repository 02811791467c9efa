//! Beginning, membership, authorities, administrators, and the copy that is restored.

use provost_control_state::{CaStep, Cluster, ClusterCommand, ClusterReply, MAX_ADMIN_TOKENS, MAX_REMOVED};
use provost_types::Revision;

use crate::{MINUTE, T0, World, authority, hash, init, name, node_of, removed, token, used};

#[test]
fn a_cluster_begins_once() {
    let mut world = World::default();
    assert_eq!(world.code(token(1, "a")), "PV-CLUSTER-NOT-INITIALIZED");
    world.apply(init()).unwrap();
    assert_eq!(world.code(init()), "PV-CLUSTER-INITIALIZED");
    let (id, member) = world.cluster.member_named("cp-1").unwrap();
    assert_eq!((id, member.joined, world.cluster.last_node_id()), (1, Revision(2), 1));
    assert_eq!(world.cluster.bundle(), "old\n");
}

#[test]
fn the_last_of_the_control_plane_stays() {
    let mut world = World::started();
    assert_eq!(world.code(removed(1)), "PV-CLUSTER-LAST");
    assert_eq!(world.code(removed(9)), "PV-CLUSTER-NO-NODE");
    world.apply(token(1, "dp-1")).unwrap();
    world.apply(used(1, 7, T0)).unwrap();
    assert_eq!(world.code(removed(1)), "PV-CLUSTER-LAST");
    let moved = |node_id, address: &str| ClusterCommand::AddressChanged { node_id, address: address.into() };
    world.apply(moved(2, "dp-1:9")).unwrap();
    assert_eq!(world.cluster.members()[&2].address, "dp-1:9");
    assert_eq!(world.code(moved(3, "dp-1:9")), "PV-CLUSTER-NO-NODE");
    assert_eq!(world.code(moved(2, "dp-1 9")), "PV-JOIN-ADDRESS");
    for n in 0..=MAX_REMOVED as u64 {
        world.apply(token(n + 10, &format!("x{n}"))).unwrap();
        let id = node_of(world.apply(used(n + 10, 7, T0)).unwrap());
        world.apply(removed(id)).unwrap();
        if n % 500 == 0 {
            // Room for tokens: those used are still there until they end.
            world.cluster = forget_tokens(&world.cluster);
        }
    }
    assert_eq!(world.cluster.removed().count(), MAX_REMOVED);
    assert_eq!(world.cluster.removed().next().unwrap().name, name("x1"));
}

fn forget_tokens(cluster: &Cluster) -> Cluster {
    let mut stored = serde_json::to_value(cluster).unwrap();
    stored["join_tokens"] = serde_json::json!({});
    serde_json::from_value(stored).unwrap()
}

#[test]
fn an_authority_takes_over_in_three_steps() {
    let mut world = World::started();
    let begin = |world: &mut World, text: &str| {
        world.apply(ClusterCommand::CaBegin { authority: authority(text), time_ns: T0, settle_ns: MINUTE })
    };
    let commit = |at, force| ClusterCommand::CaCommit { time_ns: at, force };
    let finish = |at, force| ClusterCommand::CaFinish { time_ns: at, force };
    assert_eq!(world.code(commit(T0, true)), "PV-CA-STEP");
    let old = world.cluster.signing().unwrap().0;
    assert_eq!(begin(&mut world, "new"), Ok(ClusterReply::Ca { step: Some(CaStep::Begun) }));
    assert_eq!((world.cluster.signing().unwrap().0, world.cluster.bundle().as_str()), (old, "old\nnew\n"));
    assert!(begin(&mut world, "third").is_err());
    assert_eq!(world.code(finish(T0 + 9 * MINUTE, true)), "PV-CA-STEP");
    assert_eq!(world.code(commit(T0 + MINUTE - 1, false)), "PV-CA-TOO-EARLY");
    world.apply(commit(T0 + MINUTE, false)).unwrap();
    assert_ne!(world.cluster.signing().unwrap().0, old);
    assert_eq!(world.cluster.bundle(), "new\nold\n");
    assert_eq!(world.code(commit(T0 + 9 * MINUTE, true)), "PV-CA-STEP");
    assert_eq!(world.code(finish(T0 + 2 * MINUTE - 1, false)), "PV-CA-TOO-EARLY");
    assert_eq!(world.apply(finish(T0 + MINUTE, true)), Ok(ClusterReply::Ca { step: None }));
    assert_eq!(world.cluster.bundle(), "new\n");
    assert!(world.cluster.rotation().is_none());

    let id = world.cluster.signing().unwrap().0;
    let resealed = |old: &str| ClusterCommand::CaResealed { id, old: old.into(), new: "again".into() };
    assert_eq!(world.code(resealed("other")), "PV-CTL-CONFLICT");
    world.apply(resealed("sealed new")).unwrap();
    assert_eq!(world.cluster.signing().unwrap().1.sealed_key, "again");
}

#[test]
fn a_cluster_without_ca_changes_none() {
    let mut world = World::default();
    let command = match init() {
        ClusterCommand::Init { cluster, node_id, node, roles, address, version, .. } => {
            ClusterCommand::Init { cluster, node_id, node, roles, address, authority: None, version }
        }
        other => other,
    };
    world.apply(command).unwrap();
    let begin = ClusterCommand::CaBegin { authority: authority("x"), time_ns: T0, settle_ns: 0 };
    assert_eq!(world.code(begin), "PV-CA-NONE");
    assert_eq!(world.cluster.bundle(), "");
}

#[test]
fn administrators_tokens_come_and_go() {
    let mut world = World::started();
    let add = |n: &str, h: u64| ClusterCommand::AdminTokenAdded { name: n.into(), hash: hash(h), time_ns: T0 };
    let remove = |n: &str| ClusterCommand::AdminTokenRemoved { name: n.into() };
    world.apply(add("ann", 1)).unwrap();
    assert_eq!(world.code(add("ann", 2)), "PV-ADMIN-TOKEN");
    assert_eq!(world.code(add("", 2)), "PV-ADMIN-TOKEN");
    assert_eq!(world.code(remove("bob")), "PV-ADMIN-TOKEN");
    assert_eq!(world.cluster.admin_tokens()["ann"].hash, hash(1));
    world.apply(remove("ann")).unwrap();
    for n in 0..MAX_ADMIN_TOKENS {
        world.apply(add(&format!("a{n}"), 1)).unwrap();
    }
    assert_eq!(world.code(add("more", 1)), "PV-ADMIN-TOKEN");
}

#[test]
fn a_restored_copy_trusts_nobody_and_gives_no_id_again() {
    let mut world = World::started();
    world.apply(token(1, "dp-1")).unwrap();
    world.apply(used(1, 7, T0)).unwrap();
    world.apply(token(2, "dp-2")).unwrap();
    world.cluster = world.cluster.for_restore();
    assert!(world.cluster.members().is_empty() && world.cluster.authorities().is_empty());
    assert!(world.cluster.join_tokens().is_empty() && world.cluster.name().is_none());
    assert_eq!(world.code(init()), "PV-CLUSTER-NODE-ID");
    let command = match init() {
        ClusterCommand::Init { node, roles, address, authority, version, .. } => {
            ClusterCommand::Init { cluster: name("umbra"), node_id: 3, node, roles, address, authority, version }
        }
        other => other,
    };
    world.apply(command).unwrap();
    world.apply(token(1, "dp-1")).unwrap();
    assert_eq!(node_of(world.apply(used(1, 7, T0)).unwrap()), 4);
}
