//! Data keys stay while something is sealed with them, and no longer.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use provost_control_state::{Draft, Event, MAX_HISTORY, SealingKey, State, StoredCommand, Transaction};
use provost_types::{Kind, Metadata, Name, ResourceKey, Revision, SealedSecret, SecretSpec, Spec, TenantSpec};

fn n(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn draft(tenant: Option<&str>, name: &str, spec: Spec) -> Draft {
    Draft { metadata: Metadata { name: n(name), tenant: tenant.map(n), labels: BTreeMap::new() }, spec }
}

fn secret(term: u64) -> Draft {
    let sealed = SealedSecret { version: 1, key_term: term, ciphertext: "AAAA".into() };
    draft(Some("acme"), "api", Spec::Secret(SecretSpec { sealed: Some(sealed), ..Default::default() }))
}

#[derive(Default)]
struct World {
    state: State,
    revision: u64,
    keeps: u32,
}

impl World {
    fn apply(&mut self, puts: Vec<Draft>, deletes: Vec<ResourceKey>, key: Option<u64>) -> Result<(), String> {
        self.revision += 1;
        let transaction = Transaction {
            event: Event::Apply,
            time_ns: 0,
            author: "test".into(),
            message: String::new(),
            expect_revision: None,
            expect: Vec::new(),
            puts,
            deletes,
            sealing_key: key.map(|term| SealingKey { term, wrapped: format!("key {term}"), keeps: self.keeps }),
            authorship: None,
        };
        let applied = self.state.apply(Revision(self.revision), &transaction);
        applied.map(drop).map_err(|e| e.problems[0].code.to_string())
    }

    fn ring(&self) -> Vec<u64> {
        self.state.key_ring().keys().copied().collect()
    }
}

#[test]
fn a_key_goes_when_no_secret_and_no_past_needs_it() {
    let mut world = World::default();
    world.apply(vec![draft(None, "acme", Spec::Tenant(TenantSpec::default()))], Vec::new(), Some(1)).unwrap();
    world.apply(Vec::new(), Vec::new(), Some(2)).unwrap();
    assert_eq!(world.ring(), [2], "nothing was ever sealed with 1");
    world.apply(vec![secret(2)], Vec::new(), None).unwrap();
    world.apply(vec![secret(3)], Vec::new(), Some(3)).unwrap();
    assert_eq!(world.ring(), [2, 3], "the history has a value under 2");
    let key = ResourceKey { kind: Kind::Secret, tenant: Some(n("acme")), name: n("api") };
    world.apply(Vec::new(), vec![key], None).unwrap();
    world.apply(Vec::new(), Vec::new(), Some(4)).unwrap();
    assert_eq!(world.ring(), [2, 3, 4], "a rollback can bring it back");
    for i in 0..MAX_HISTORY {
        let spec = Spec::Tenant(TenantSpec { display_name: i.to_string() });
        world.apply(vec![draft(None, "acme", spec)], Vec::new(), None).unwrap();
    }
    assert_eq!(world.ring(), [2, 3, 4]);
    world.apply(Vec::new(), Vec::new(), Some(5)).unwrap();
    assert_eq!(world.ring(), [5]);
}

#[test]
fn a_rotation_keeps_so_many_of_the_newest_keys_before_it() {
    let mut world = World { keeps: 2, ..World::default() };
    for term in 1..=5 {
        world.apply(Vec::new(), Vec::new(), Some(term)).unwrap();
    }
    assert_eq!(world.ring(), [3, 4, 5]);
    // One of an older build keeps none.
    world.keeps = 0;
    world.apply(Vec::new(), Vec::new(), Some(6)).unwrap();
    assert_eq!(world.ring(), [6]);
}

#[test]
fn what_keeps_keys_is_proposed_when_every_node_keeps_them() {
    let command = |keeps| {
        let key = SealingKey { term: 1, wrapped: String::new(), keeps };
        StoredCommand::V1(Transaction {
            event: Event::KeysRotate,
            time_ns: 0,
            author: String::new(),
            message: String::new(),
            expect_revision: None,
            expect: Vec::new(),
            puts: Vec::new(),
            deletes: Vec::new(),
            sealing_key: Some(key),
            authorship: None,
        })
    };
    assert_eq!((command(0).version(), command(1).version()), (1, SealingKey::KEEPS_VERSION));
    let old = String::from_utf8(command(0).encode().unwrap()).unwrap();
    assert!(!old.contains("keeps"), "{old}");
    assert_eq!(StoredCommand::decode(old.as_bytes()).unwrap(), command(0));
}

#[test]
fn a_value_under_a_key_that_is_gone_is_refused() {
    let mut world = World::default();
    world.apply(vec![draft(None, "acme", Spec::Tenant(TenantSpec::default()))], Vec::new(), Some(1)).unwrap();
    world.apply(Vec::new(), Vec::new(), Some(2)).unwrap();
    let before = world.state.clone();
    assert_eq!(world.apply(vec![secret(1)], Vec::new(), None), Err("PV-CTL-CONFLICT".to_owned()));
    assert_eq!(world.state, before);
    assert_eq!(world.apply(vec![secret(3)], Vec::new(), Some(3)), Ok(()));
}
