//! Plugin packages in the state: bounded, whole or not there, kept while a plugin runs them, signed by whom the tenant
//! trusts when a plugin is changed to them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use provost_control_state::{
    Authorship, Draft, Event, KEPT_PACKAGES, MAX_STORED_PACKAGE_BYTES, MAX_TENANT_PACKAGES, MAX_TENANT_PACKAGES_BYTES,
    MAX_UPLOAD_NS, MAX_UPLOADS, PACKAGE_PART_BYTES, PackageCommand, PackageFacts, PackageKey, PackageReply, Packages,
    Rejected, State, StoredCommand, Transaction,
};
use provost_types::{
    CallId, FileDigest, Kind, Metadata, Name, PluginSource, PluginSpec, PublisherKey, PublisherSpec, ResourceKey,
    Revision, Spec, TenantSpec, WasmPlugin,
};

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn draft(tenant: Option<&str>, own: &str, spec: Spec) -> Draft {
    let metadata = Metadata { name: name(own), tenant: tenant.map(name), labels: BTreeMap::new() };
    Draft { metadata, spec }
}

fn key(n: u8) -> PackageKey {
    PackageKey { tenant: name("acme"), digest: FileDigest::from_bytes([n; 32]) }
}

fn signer(n: u8) -> PublisherKey {
    PublisherKey::from_bytes([n; 32])
}

fn facts(bytes: u64) -> PackageFacts {
    let (plugin, publisher) = (name("text"), name("maker"));
    PackageFacts { name: plugin, version: "1.0.0".into(), publisher, key: signer(1), bytes }
}

fn publisher(keys: &[PublisherKey]) -> Draft {
    let spec = PublisherSpec { description: String::new(), keys: keys.iter().copied().collect() };
    draft(Some("acme"), "maker", Spec::Publisher(spec))
}

fn plugin(own: &str, package: PackageKey, timeout_ms: u64) -> Draft {
    let wasm = WasmPlugin { package: Some(package.digest), ..WasmPlugin::default() };
    let spec = PluginSpec {
        description: String::new(),
        source: PluginSource::Wasm(Box::new(wasm)),
        timeout_ms,
        max_concurrency: 0,
        resilience: None,
        definitions: None,
        reloads: 0,
    };
    draft(Some("acme"), own, Spec::Plugin(spec))
}

fn authorship(key: &PackageKey) -> Authorship {
    let tenant = Some(key.tenant.clone());
    Authorship { call_id: CallId(7), authenticated_by: "api_key:ana".into(), client_address: None, tenant }
}

/// A state that counts its revisions.
#[derive(Clone)]
struct World {
    state: State,
    next: u64,
}

impl World {
    fn new() -> Self {
        let mut world = Self { state: State::default(), next: 1 };
        let tenant = |own| draft(None, own, Spec::Tenant(TenantSpec::default()));
        world.change(vec![tenant("acme"), tenant("umbra"), publisher(&[signer(1)])], Vec::new()).unwrap();
        world
    }

    fn change(&mut self, puts: Vec<Draft>, deletes: Vec<ResourceKey>) -> Result<(), Vec<String>> {
        let transaction = Transaction {
            event: Event::Apply,
            time_ns: 0,
            author: "test".into(),
            message: String::new(),
            expect_revision: None,
            expect: Vec::new(),
            puts,
            deletes,
            sealing_key: None,
            authorship: None,
        };
        self.next += 1;
        codes(self.state.apply(Revision(self.next), &transaction).map(drop))
    }

    fn apply(&mut self, command: PackageCommand) -> Result<PackageReply, Vec<String>> {
        let stored = StoredCommand::Package1 { command };
        assert_eq!(stored.version(), 5);
        let StoredCommand::Package1 { command } = StoredCommand::decode(&stored.encode().unwrap()).unwrap() else {
            panic!("another command");
        };
        self.next += 1;
        codes(self.state.apply_package(Revision(self.next), command))
    }

    fn begin(&mut self, key: PackageKey, bytes: u64, time_ns: u64) -> Result<PackageReply, Vec<String>> {
        let authorship = Some(Box::new(authorship(&key)));
        self.apply(PackageCommand::Begin { key, facts: facts(bytes), time_ns, by: "ana".into(), authorship })
    }

    fn part(&mut self, key: &PackageKey, index: u32, bytes: usize) -> Result<PackageReply, Vec<String>> {
        // Not through JSON: there may be hundreds of them.
        let command = PackageCommand::Part { key: key.clone(), index, content: vec![0; bytes] };
        self.next += 1;
        codes(self.state.apply_package(Revision(self.next), command))
    }

    fn store(&mut self, key: &PackageKey, bytes: u64) -> Result<(), Vec<String>> {
        let mut reply = self.begin(key.clone(), bytes, 0)?;
        while let PackageReply::Wants(index) = reply {
            let left = bytes - u64::from(index) * PACKAGE_PART_BYTES as u64;
            reply = self.part(key, index, left.min(PACKAGE_PART_BYTES as u64) as usize)?;
        }
        Ok(())
    }

    fn remove(&mut self, key: &PackageKey) -> Result<PackageReply, Vec<String>> {
        self.apply(PackageCommand::Remove { key: key.clone() })
    }

    fn has(&self, n: u8) -> bool {
        self.state.packages().get(&key(n)).is_some()
    }
}

fn codes<T>(result: Result<T, Rejected>) -> Result<T, Vec<String>> {
    result.map_err(|rejected| rejected.problems.iter().map(|p| p.code.to_string()).collect())
}

fn refused<T>(code: &str) -> Result<T, Vec<String>> {
    Err(vec![code.to_owned()])
}

#[test]
fn a_package_is_there_when_its_last_part_has_come_and_not_before() {
    let mut world = World::new();
    let bytes = PACKAGE_PART_BYTES as u64 + 5;
    assert_eq!(world.part(&key(1), 0, 5), refused("PV-PACKAGE-UPLOAD"));
    assert_eq!(world.begin(key(1), bytes, 0), Ok(PackageReply::Wants(0)));
    assert_eq!(world.part(&key(1), 1, 5), refused("PV-PACKAGE-UPLOAD"), "not its turn");
    assert_eq!(world.part(&key(1), 0, 5), refused("PV-PACKAGE-UPLOAD"), "too short");
    assert_eq!(world.part(&key(1), 0, PACKAGE_PART_BYTES), Ok(PackageReply::Wants(1)));
    assert_eq!(world.part(&key(1), 0, PACKAGE_PART_BYTES), Ok(PackageReply::Wants(1)), "again");
    assert!(!world.has(1));
    assert_eq!(world.begin(key(1), bytes, 0), Ok(PackageReply::Wants(1)), "an upload goes on");
    assert_eq!(world.part(&key(1), 1, 5), Ok(PackageReply::Stored));
    assert!(world.has(1));
    assert_eq!(
        (world.begin(key(1), bytes, 0), world.part(&key(1), 7, 1)),
        (Ok(PackageReply::Stored), Ok(PackageReply::Stored))
    );
    assert_eq!(world.state.packages().parts().count(), 2);
    assert_eq!(world.begin(key(2), 0, 0), refused("PV-PACKAGE-SIZE"));
    assert_eq!(world.begin(key(2), MAX_STORED_PACKAGE_BYTES + 1, 0), refused("PV-PACKAGE-SIZE"));
    let nowhere = PackageKey { tenant: name("nobody"), ..key(2) };
    assert_eq!(world.begin(nowhere, 1, 0), refused("PV-RES-REFERENCE"));
}

#[test]
fn uploads_that_do_not_end_make_room() {
    let mut world = World::new();
    for n in 0..=MAX_UPLOADS as u8 {
        world.begin(key(n), 5, 1).unwrap();
    }
    assert_eq!(world.part(&key(0), 0, 5), refused("PV-PACKAGE-UPLOAD"), "the oldest went");
    assert_eq!(world.part(&key(1), 0, 5), Ok(PackageReply::Stored));
    world.begin(key(9), 5, 2 + MAX_UPLOAD_NS).unwrap();
    assert_eq!(world.part(&key(2), 0, 5), refused("PV-PACKAGE-UPLOAD"), "it took too long");
    assert!(world.has(1), "what is whole stays");
}

#[test]
fn there_is_a_bound_and_what_is_over_it_says_so() {
    let mut world = World::new();
    let fits = MAX_TENANT_PACKAGES_BYTES / MAX_STORED_PACKAGE_BYTES;
    for n in 0..fits as u8 {
        world.store(&key(n), MAX_STORED_PACKAGE_BYTES).unwrap();
        world.change(vec![plugin(&format!("p{n}"), key(n), 0)], Vec::new()).unwrap();
    }
    assert_eq!(world.begin(key(99), 1, 0), refused("PV-PACKAGE-FULL"));
    let other = PackageKey { tenant: name("umbra"), ..key(99) };
    assert_eq!(world.begin(other, 1, 0), Ok(PackageReply::Wants(0)), "another tenant has room");
}

#[test]
fn packages_of_no_size_have_a_bound_too() {
    let mut world = World::new();
    assert_eq!(MAX_TENANT_PACKAGES, usize::from(u8::MAX) + 1);
    for n in 0..=u8::MAX {
        // Names of their own: none makes another go.
        let facts = PackageFacts { name: name(&format!("p{n}")), ..facts(1) };
        let by = "ana".into();
        let begun = world.apply(PackageCommand::Begin { key: key(n), facts, time_ns: 0, by, authorship: None });
        assert_eq!(begun, Ok(PackageReply::Wants(0)), "{n}");
        assert_eq!(world.part(&key(n), 0, 1), Ok(PackageReply::Stored), "{n}");
    }
    let mut digest = [0; 32];
    digest[0] = 1;
    let more = PackageKey { tenant: name("acme"), digest: FileDigest::from_bytes(digest) };
    assert_eq!(world.begin(more.clone(), 1, 0), refused("PV-PACKAGE-FULL"));
    assert_eq!(world.remove(&key(7)), Ok(PackageReply::Removed));
    assert_eq!(world.begin(more, 1, 0), Ok(PackageReply::Wants(0)));
}

#[test]
fn what_runs_stays_and_of_what_does_not_the_newest() {
    let mut world = World::new();
    world.store(&key(0), 5).unwrap();
    world.change(vec![plugin("text", key(0), 0)], Vec::new()).unwrap();
    let last = KEPT_PACKAGES as u8 + 2;
    for n in 1..=last {
        world.store(&key(n), 5).unwrap();
    }
    assert!(world.has(0), "it runs");
    assert!(!world.has(1) && world.has(2) && world.has(last), "{:?}", world.state.packages());
    assert_eq!(world.remove(&key(0)), refused("PV-PACKAGE-IN-USE"));
    assert_eq!(world.remove(&key(1)), refused("PV-PACKAGE-MISSING"));
    assert_eq!(world.remove(&key(2)), Ok(PackageReply::Removed));
    world.change(vec![plugin("text", key(last), 0)], Vec::new()).unwrap();
    assert_eq!(world.remove(&key(0)), Ok(PackageReply::Removed));
}

#[test]
fn what_is_dropped_is_to_be_recorded_with_the_change_that_dropped_it() {
    let mut world = World::new();
    let last = KEPT_PACKAGES as u8 + 1;
    for n in 1..=last {
        world.store(&key(n), 5).unwrap();
    }
    assert!(world.state.outbox().is_empty(), "nothing had to go");
    // Repeated it drops nothing again.
    world.begin(key(last + 1), 5, 3).unwrap();
    let revision = Revision(world.next);
    world.begin(key(last + 1), 5, 3).unwrap();
    let waiting: Vec<_> = world.state.outbox().iter().cloned().collect();
    assert_eq!(waiting.len(), 1);
    assert_eq!((waiting[0].event, waiting[0].revision), (Event::PackagesDropped, revision));
    assert_eq!((&waiting[0].author[..], &waiting[0].authorship), ("ana", &authorship(&key(1))));
    assert_eq!(waiting[0].objects, [format!("Package/{}", key(1))]);

    // With a tenant go its packages, and those of no other.
    let foreign = PackageKey { tenant: name("umbra"), ..key(50) };
    world.store(&foreign, 5).unwrap();
    let tenant = ResourceKey { kind: Kind::Tenant, tenant: None, name: name("acme") };
    let publisher = ResourceKey { kind: Kind::Publisher, tenant: Some(name("acme")), name: name("maker") };
    let transaction = Transaction {
        event: Event::Delete,
        time_ns: 0,
        author: "root".into(),
        message: String::new(),
        expect_revision: None,
        expect: Vec::new(),
        puts: Vec::new(),
        deletes: vec![publisher, tenant.clone()],
        sealing_key: None,
        authorship: Some(authorship(&foreign)),
    };
    world.next += 1;
    world.state.apply(Revision(world.next), &transaction).unwrap();
    assert!(!world.has(2) && world.state.packages().get(&foreign).is_some());
    let recorded = world.state.outbox().last().cloned().unwrap();
    assert!(recorded.objects.contains(&tenant.to_string()), "{recorded:?}");
    let packages = recorded.objects.iter().filter(|object| object.starts_with("Package/acme/")).count();
    assert_eq!(packages, KEPT_PACKAGES, "{recorded:?}");
    assert!(!recorded.objects.iter().any(|object| object.contains("umbra")), "{recorded:?}");
}

#[test]
fn a_plugin_runs_what_is_stored_and_signed_by_whom_its_tenant_trusts() {
    let mut world = World::new();
    let missing = refused("PV-PACKAGE-MISSING");
    assert_eq!(world.change(vec![plugin("text", key(1), 0)], Vec::new()), missing);
    world.begin(key(1), 5, 0).unwrap();
    assert_eq!(world.change(vec![plugin("text", key(1), 0)], Vec::new()), missing, "it is not whole");
    world.part(&key(1), 0, 5).unwrap();
    world.change(vec![plugin("text", key(1), 0)], Vec::new()).unwrap();
    world.store(&key(2), 5).unwrap();
    // The key is trusted no more: the plugin can be changed, but not to another package.
    world.change(vec![publisher(&[signer(2)])], Vec::new()).unwrap();
    let untrusted = refused("PV-PACKAGE-PUBLISHER");
    assert_eq!(world.change(vec![plugin("text", key(1), 9)], Vec::new()), Ok(()));
    assert_eq!(world.change(vec![plugin("text", key(2), 9)], Vec::new()), untrusted);
    assert_eq!(world.change(vec![plugin("new", key(1), 0)], Vec::new()), untrusted);
    // Together with the key it is right.
    let both = vec![publisher(&[signer(1)]), plugin("text", key(2), 9)];
    assert_eq!(world.change(both, Vec::new()), Ok(()));
    let gone = ResourceKey { kind: Kind::Publisher, tenant: Some(name("acme")), name: name("maker") };
    assert_eq!(world.change(vec![plugin("new", key(1), 0)], vec![gone]), untrusted);
    // A rollback to what is not stored any more is refused, with the reason.
    let before = world.state.revision();
    world.change(vec![plugin("once", key(2), 0)], Vec::new()).unwrap();
    let once = ResourceKey { kind: Kind::Plugin, tenant: Some(name("acme")), name: name("once") };
    world.change(vec![plugin("text", key(1), 9)], vec![once]).unwrap();
    world.remove(&key(2)).unwrap();
    let (puts, deletes) = world.state.rollback(before).unwrap();
    assert_eq!(world.change(puts, deletes), missing);
}

#[test]
fn a_rollback_trusts_nobody_again() {
    let mut world = World::new();
    let before = world.state.revision();
    world.change(vec![publisher(&[signer(2)])], Vec::new()).unwrap();
    let (puts, deletes) = world.state.rollback(before).unwrap();
    assert!(puts.is_empty() && deletes.is_empty(), "{puts:?} {deletes:?}");
    // Of what was not there then only what belongs to what goes is gone.
    let publisher_of = |tenant| draft(Some(tenant), "late", publisher(&[signer(3)]).spec);
    let tenant = draft(None, "late", Spec::Tenant(TenantSpec::default()));
    world.change(vec![tenant, publisher_of("late"), publisher_of("acme")], Vec::new()).unwrap();
    let (puts, mut deletes) = world.state.rollback(before).unwrap();
    deletes.sort();
    let names: Vec<String> = deletes.iter().map(ToString::to_string).collect();
    assert_eq!((puts.len(), names), (0, vec!["Tenant/late".to_owned(), "Publisher/late/late".to_owned()]));
}

#[test]
fn a_tenant_takes_its_packages_with_it() {
    let mut world = World::new();
    let own = PackageKey { tenant: name("umbra"), ..key(1) };
    world.store(&own, 5).unwrap();
    world.store(&key(2), 5).unwrap();
    let tenant = ResourceKey { kind: Kind::Tenant, tenant: None, name: name("umbra") };
    world.change(Vec::new(), vec![tenant]).unwrap();
    assert!(world.state.packages().get(&own).is_none() && world.has(2));
}

/// One random step; whether it is taken or refused is the state's business.
fn step(world: &mut World, (what, n, index, time): (u8, u8, u32, u64)) {
    let key = key(n);
    match what {
        0 | 1 => drop(world.begin(key, u64::from(n) + 1, time * (MAX_UPLOAD_NS / 2))),
        2..=4 => drop(world.part(&key, index, usize::from(n) + 1)),
        5 => drop(world.remove(&key)),
        6 => drop(world.change(vec![plugin("a", key, 0)], Vec::new())),
        _ => drop(world.change(vec![publisher(&[signer(n % 2)])], Vec::new())),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_stored_state_then_the_rest_equals_replay_and_what_runs_is_there(
        steps in proptest::collection::vec((0..8_u8, 0..9_u8, 0..2_u32, 0..5_u64), 1..60),
        cut in 0..60_usize,
    ) {
        let (mut replayed, mut resumed) = (World::new(), World::new());
        for (i, taken) in steps.iter().enumerate() {
            if i == cut {
                let text = serde_json::to_vec(&**resumed.state.packages()).unwrap();
                let packages: Packages = serde_json::from_slice(&text).unwrap();
                resumed.state = resumed.state.clone().with_packages(packages);
            }
            let before = replayed.state.packages().clone();
            step(&mut replayed, *taken);
            step(&mut resumed, *taken);
            prop_assert_eq!(&replayed.state, &resumed.state);
            let now = replayed.state.packages();
            let whole = now.iter().count();
            let parts = now.parts().count();
            prop_assert!(whole <= KEPT_PACKAGES + 3 + MAX_UPLOADS && parts >= whole, "{before:?} {now:?}");
            for resource in replayed.state.resources().values() {
                if let Spec::Plugin(PluginSpec { source: PluginSource::Wasm(wasm), .. }) = &resource.spec {
                    let key = PackageKey { tenant: name("acme"), digest: wasm.package.unwrap() };
                    prop_assert!(now.get(&key).is_some(), "{key} runs and is gone");
                }
            }
        }
    }
}
