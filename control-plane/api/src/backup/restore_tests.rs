use std::collections::BTreeMap;

use provost_control_state::{
    ClockReading, ClusterCommand, Draft, Event, LeaseGrant, LeaseReport, LeaseWant, LedgerCommand, LedgerReply,
    Transaction,
};
use provost_types::{Metadata, QuotaPer, QuotaSpec, QuotaUnit, QuotaWindow, Revision, Spec, TenantSpec};

use super::*;

const LIMIT: u64 = 100;

fn n(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// A tenant with a daily quota, in a cluster of one node.
fn state() -> State {
    let draft = |name: &str, tenant: Option<&str>, spec| Draft {
        metadata: Metadata { name: n(name), tenant: tenant.map(n), labels: BTreeMap::new() },
        spec,
    };
    let quota = QuotaSpec {
        limit: LIMIT,
        unit: QuotaUnit::Calls,
        per: QuotaPer::Tenant,
        window: Some(QuotaWindow::Day),
        principals: Default::default(),
        tools: Default::default(),
    };
    let transaction = Transaction {
        event: Event::Apply,
        time_ns: 0,
        author: "test".into(),
        message: String::new(),
        expect_revision: None,
        expect: Vec::new(),
        puts: vec![
            draft("acme", None, Spec::Tenant(TenantSpec::default())),
            draft("daily", Some("acme"), Spec::Quota(quota)),
        ],
        deletes: Vec::new(),
        sealing_key: None,
        authorship: None,
    };
    let mut state = State::default();
    state.apply(Revision(1), &transaction).unwrap();
    let command = ClusterCommand::Init {
        cluster: n("first"),
        node_id: 4,
        node: n("cp-1"),
        roles: [n("control-plane")].into(),
        address: "cp-1:7443".into(),
        authority: None,
        version: Default::default(),
    };
    state.apply_cluster(Revision(2), command).unwrap();
    state
}

/// An exchange of the node `dp-1`.
fn exchange(state: &mut State, epoch: u64, reports: Vec<LeaseReport>, units: u64) -> LeaseGrant {
    let command = LedgerCommand::Exchange {
        node: "dp-1".into(),
        epoch,
        seq: 1,
        now_ns: 1_795_219_200_000_000_000,
        clock: ClockReading { source: 1, up_ns: epoch },
        reports,
        wants: vec![LeaseWant { account: "acme/daily".into(), units }],
    };
    match state.apply_ledger(Revision(3), command) {
        LedgerReply::Exchanged { mut grants } => grants.remove(0),
        other => panic!("{other:?}"),
    }
}

#[test]
fn units_that_old_nodes_held_count_as_used() {
    let mut old = state();
    // A node that has started many times, and holds some units.
    let held = exchange(&mut old, 7, Vec::new(), 30);
    assert!(held.units >= 30, "{held:?}");

    let mut new = for_restore(&old);
    // The new cluster's node of the same name begins anew, and cannot give back what it never had.
    let back = LeaseReport { lease: held.lease, settled: 0, returned: held.units, closed: true };
    let grant = exchange(&mut new, 1, vec![back], LIMIT);
    assert!(held.units + grant.units + grant.remaining <= LIMIT, "{held:?} {grant:?}");
    assert_ne!(grant.lease, held.lease);
    // Were it not a restore, the units would be back.
    let returned = exchange(&mut old.clone(), 7, Vec::new(), 0);
    assert_eq!(returned.lease, held.lease);
}

#[test]
fn members_do_not_go_over_and_their_ids_stay_used() {
    let old = state();
    let new = for_restore(&old);
    assert!(new.cluster().name().is_none() && new.cluster().members().is_empty());
    assert_eq!(new.cluster().last_node_id(), 4);
    assert_eq!((new.resources(), new.history()), (old.resources(), old.history()));
    assert_eq!((new.revision(), new.key_ring()), (old.revision(), old.key_ring()));
}
