//! Join tokens: each makes one member, in time.

use provost_control_state::{ClusterCommand, ClusterReply, JoinToken, MAX_JOIN_TOKEN_LIFE_NS, MAX_JOIN_TOKENS};

use crate::{MINUTE, SECOND, T0, World, hash, name, node_of, removed, roles, token, used};

#[test]
fn a_token_makes_one_member() {
    let mut world = World::started();
    world.apply(token(1, "dp-1")).unwrap();
    assert_eq!(world.code(used(2, 7, T0)), "PV-JOIN-TOKEN");
    let reply = world.apply(used(1, 7, T0 + SECOND)).unwrap();
    let joined = ClusterReply::Joined { node_id: 2, name: name("dp-1"), roles: roles(&["data-plane"]) };
    assert_eq!(reply, joined);
    // The answer was lost: the same node gets it again, another does not.
    assert_eq!(world.apply(used(1, 7, T0 + 2 * SECOND)).unwrap(), joined);
    assert_eq!(world.code(used(1, 8, T0 + 2 * SECOND)), "PV-JOIN-USED");
    assert_eq!(world.cluster.members().len(), 2);
    // Nor does the same node come back by it after it was removed.
    world.apply(removed(2)).unwrap();
    assert_eq!(world.code(used(1, 7, T0 + 3 * SECOND)), "PV-JOIN-USED");
}

#[test]
fn a_token_ends() {
    let mut world = World::started();
    world.apply(token(1, "dp-1")).unwrap();
    assert_eq!(world.code(used(1, 7, T0 + MINUTE)), "PV-JOIN-EXPIRED");
    assert!(world.apply(used(1, 7, T0 + MINUTE - 1)).is_ok());
}

#[test]
fn bad_tokens_are_not_taken() {
    let mut world = World::started();
    let change = |f: &dyn Fn(&mut String, &mut JoinToken)| match token(1, "dp-1") {
        ClusterCommand::TokenMade { mut hash, mut token, time_ns } => {
            f(&mut hash, &mut token);
            ClusterCommand::TokenMade { hash, token, time_ns }
        }
        other => other,
    };
    for (code, command) in [
        ("PV-JOIN-TOKEN", change(&|h, _| h.truncate(63))),
        ("PV-JOIN-TOKEN", change(&|h, _| *h = "G".repeat(64))),
        ("PV-JOIN-TOKEN", change(&|_, t| t.id.clear())),
        ("PV-JOIN-ROLE", change(&|_, t| t.roles.clear())),
        ("PV-JOIN-LIFE", change(&|_, t| t.expires_ns = T0)),
        ("PV-JOIN-LIFE", change(&|_, t| t.expires_ns = T0 - 1)),
        ("PV-JOIN-LIFE", change(&|_, t| t.expires_ns = T0 + MAX_JOIN_TOKEN_LIFE_NS + 1)),
        ("PV-JOIN-NAME", change(&|_, t| t.node = name("cp-1"))),
    ] {
        assert_eq!(world.code(command), code);
    }
    world.apply(change(&|_, t| t.expires_ns = T0 + MAX_JOIN_TOKEN_LIFE_NS)).unwrap();
    assert_eq!(world.code(token(1, "dp-2")), "PV-JOIN-TOKEN");
    let address = ClusterCommand::TokenUsed { hash: hash(1), key: hash(1), address: "a b".into(), now_ns: T0 };
    assert_eq!(world.code(address), "PV-JOIN-ADDRESS");
    let key = ClusterCommand::TokenUsed { hash: hash(1), key: "x".into(), address: String::new(), now_ns: T0 };
    assert_eq!(world.code(key), "PV-JOIN-TOKEN");
}

/// Two tokens for one name: the first to be used wins.
#[test]
fn names_are_unique_among_members() {
    let mut world = World::started();
    world.apply(token(1, "dp-1")).unwrap();
    world.apply(token(2, "dp-1")).unwrap();
    assert_eq!(node_of(world.apply(used(2, 7, T0)).unwrap()), 2);
    assert_eq!(world.code(used(1, 8, T0)), "PV-JOIN-NAME");
    world.apply(removed(2)).unwrap();
    assert_eq!(node_of(world.apply(used(1, 8, T0)).unwrap()), 3);
}

#[test]
fn there_is_room_when_tokens_have_ended() {
    let mut world = World::started();
    let most = MAX_JOIN_TOKENS as u64;
    for n in 0..most {
        world.apply(token(n, &format!("n{n}"))).unwrap();
    }
    assert_eq!(world.code(token(most, "more")), "PV-JOIN-TOO-MANY");
    let later = JoinToken {
        id: "late".into(),
        node: name("more"),
        roles: roles(&["gpu-node"]),
        expires_ns: T0 + 2 * MINUTE,
        used: None,
    };
    world.apply(ClusterCommand::TokenMade { hash: hash(most), token: later, time_ns: T0 + MINUTE }).unwrap();
    assert_eq!(world.cluster.join_tokens().len(), 1);
}
