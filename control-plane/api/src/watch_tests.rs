use std::collections::BTreeMap;

use arc_swap::ArcSwap;
use futures::FutureExt;
use proptest::prelude::*;
use provost_control_state::{Draft, Event, MAX_HISTORY, Transaction};
use provost_types::{Metadata, RoleSpec, TenantSpec};

use super::*;

fn n(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn key(kind: Kind, tenant: Option<&str>, name: &str) -> ResourceKey {
    ResourceKey { kind, tenant: tenant.map(n), name: n(name) }
}

struct World {
    state: State,
    published: Arc<Published>,
    next: u64,
}

impl World {
    fn new() -> Self {
        let published = Published {
            state: ArcSwap::from_pointee(State::default()),
            snapshots: watch::Sender::new(Arc::default()),
            parts: crate::write_behind::PackageParts::none(),
        };
        Self { state: State::default(), published: Arc::new(published), next: 1 }
    }

    fn change(&mut self, puts: Vec<Draft>, deletes: Vec<ResourceKey>) -> Revision {
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
        self.state.apply(Revision(self.next), &transaction).unwrap();
        self.published.state.store(Arc::new(self.state.clone()));
        self.published.snapshots.send_replace(Arc::new(self.state.snapshot()));
        self.state.revision()
    }

    fn tenant(&mut self, name: &str) -> Revision {
        self.change(vec![tenant(name, "")], Vec::new())
    }

    fn watch(&self, caller: &Caller, filter: ResourceFilter, from: u64) -> Result<Watcher, ControlError> {
        Watcher::new(self.published.clone(), caller.clone(), filter, Revision(from))
    }
}

fn draft(key: ResourceKey, spec: Spec) -> Draft {
    Draft { metadata: Metadata { name: key.name, tenant: key.tenant, labels: BTreeMap::new() }, spec }
}

fn tenant(name: &str, display: &str) -> Draft {
    draft(key(Kind::Tenant, None, name), Spec::Tenant(TenantSpec { display_name: display.into() }))
}

fn role(owner: &str, name: &str) -> Draft {
    draft(key(Kind::Role, Some(owner), name), Spec::Role(RoleSpec::default()))
}

fn root() -> Caller {
    Caller::internal("root")
}

/// What can be had without waiting.
fn ready(watcher: &mut Watcher) -> Vec<Result<WatchEvent, ControlError>> {
    std::iter::from_fn(|| watcher.next().now_or_never().flatten()).collect()
}

fn lines(watcher: &mut Watcher) -> Vec<String> {
    let line = |event| match event {
        Ok(WatchEvent::Bookmark(revision)) => format!("{revision} bookmark"),
        Ok(WatchEvent::Change(change)) => {
            let puts = change.puts.iter().map(|r| format!("+{}", r.key()));
            let all: Vec<_> = puts.chain(change.deletes.iter().map(|k| format!("-{k}"))).collect();
            format!("{}{} {}", change.revision, if change.initial { " initial" } else { "" }, all.join(" "))
        }
        Err(error) => format!("{error}"),
    };
    ready(watcher).into_iter().map(line).collect()
}

#[tokio::test(start_paused = true)]
async fn from_zero_it_gives_what_is_there_and_then_what_changes() {
    let mut world = World::new();
    world.tenant("a");
    world.change(vec![role("a", "r")], Vec::new());
    let mut watcher = world.watch(&root(), ResourceFilter::default(), 0).unwrap();
    assert_eq!(lines(&mut watcher), ["3 initial +Tenant/a +Role/a/r", "3 bookmark"]);
    world.tenant("b");
    world.change(vec![role("b", "r")], vec![key(Kind::Role, Some("a"), "r")]);
    assert_eq!(lines(&mut watcher), ["4 +Tenant/b", "5 +Role/b/r -Role/a/r", "5 bookmark"]);
    // Quiet: a bookmark each second.
    assert!(lines(&mut watcher).is_empty());
    tokio::time::advance(Duration::from_millis(1_001)).await;
    assert_eq!(lines(&mut watcher), ["5 bookmark"]);
}

#[tokio::test(start_paused = true)]
async fn it_resumes_after_a_revision_without_gap_or_repeat() {
    let mut world = World::new();
    for name in ["a", "b", "c"] {
        world.tenant(name);
    }
    let mut watcher = world.watch(&root(), ResourceFilter::default(), 3).unwrap();
    assert_eq!(lines(&mut watcher), ["4 +Tenant/c", "4 bookmark"]);
    let mut watcher = world.watch(&root(), ResourceFilter::default(), 4).unwrap();
    assert_eq!(lines(&mut watcher), ["4 bookmark"]);
    let error = world.watch(&root(), ResourceFilter::default(), 5).map(drop).unwrap_err();
    assert_eq!(error.code(), "PV-CTL-FUTURE");
}

#[tokio::test(start_paused = true)]
async fn revisions_that_are_gone_are_refused_and_the_oldest_is_named() {
    let mut world = World::new();
    world.tenant("a");
    for i in 0..=MAX_HISTORY {
        world.change(vec![tenant("a", &i.to_string())], Vec::new());
    }
    let oldest = world.state.compacted().0;
    assert_eq!(oldest, 3);
    let error = world.watch(&root(), ResourceFilter::default(), oldest - 1).map(drop).unwrap_err();
    assert_eq!(error.code(), "PV-WATCH-COMPACTED");
    assert!(error.failure.hint.contains("from 3 on"), "{error}");
    let mut watcher = world.watch(&root(), ResourceFilter::default(), oldest).unwrap();
    let events = ready(&mut watcher);
    assert_eq!(events.len(), MAX_HISTORY + 1);
    assert!(world.watch(&root(), ResourceFilter::default(), 0).is_ok());
}

#[tokio::test(start_paused = true)]
async fn one_who_falls_behind_the_history_is_told_and_gets_no_gap() {
    let mut world = World::new();
    world.tenant("a");
    let mut watcher = world.watch(&root(), ResourceFilter::default(), 0).unwrap();
    ready(&mut watcher);
    // As far behind as one can be.
    for i in 0..MAX_HISTORY {
        world.change(vec![tenant("a", &i.to_string())], Vec::new());
    }
    let first = watcher.next().await.unwrap().unwrap();
    assert!(matches!(first, WatchEvent::Change(c) if c.revision == Revision(3)));
    // Revision 4 was not given when it went.
    for i in 0..2 {
        world.change(vec![tenant("a", &format!("more {i}"))], Vec::new());
    }
    let error = watcher.next().await.unwrap().unwrap_err();
    assert_eq!(error.code(), "PV-WATCH-SLOW");
    assert!(watcher.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn filters_hold_for_what_is_deleted_too() {
    let mut world = World::new();
    world.tenant("a");
    world.tenant("b");
    world.change(vec![role("a", "r"), role("b", "r")], Vec::new());
    let filter = |kind, tenant: Option<&str>, name: Option<&str>| ResourceFilter {
        kind,
        tenant: tenant.map(n),
        name: name.map(n),
    };
    let mut of_tenant = world.watch(&root(), filter(None, Some("a"), None), 0).unwrap();
    let mut of_kind = world.watch(&root(), filter(Some(Kind::Role), None, None), 0).unwrap();
    let mut of_name = world.watch(&root(), filter(Some(Kind::Role), Some("b"), Some("r")), 0).unwrap();
    for watcher in [&mut of_tenant, &mut of_kind, &mut of_name] {
        ready(watcher);
    }
    let gone = [key(Kind::Role, Some("a"), "r"), key(Kind::Tenant, None, "a")];
    let at = world.change(Vec::new(), gone.to_vec());
    assert_eq!(lines(&mut of_tenant), [format!("{at} -Tenant/a -Role/a/r"), format!("{at} bookmark")]);
    assert_eq!(lines(&mut of_kind), [format!("{at} -Role/a/r"), format!("{at} bookmark")]);
    assert_eq!(lines(&mut of_name), [format!("{at} bookmark")]);
}

fn tenants_admin(owner: &str) -> Caller {
    Caller {
        name: format!("{owner}/ann"),
        scope: Scope::Tenant(n(owner)),
        authenticated_by: "api_key:k".into(),
        address: None,
    }
}

fn ann(owner: &str, admin: bool) -> Vec<Draft> {
    let principal = provost_types::PrincipalSpec { admin, ..Default::default() };
    let api_key = ApiKeySpec { principal: n("ann"), hash: "0".repeat(64), expires: None };
    vec![
        draft(key(Kind::Principal, Some(owner), "ann"), Spec::Principal(principal)),
        draft(key(Kind::ApiKey, Some(owner), "k"), Spec::ApiKey(api_key)),
    ]
}

#[tokio::test(start_paused = true)]
async fn a_tenants_administrator_sees_only_the_tenant_and_only_while_it_may() {
    type Ending = fn(&mut World) -> Revision;
    let endings: [(&str, Ending); 3] = [
        ("no administrator any more", |w| w.change(vec![ann("a", false).remove(0)], Vec::new())),
        ("the key is revoked", |w| w.change(Vec::new(), vec![key(Kind::ApiKey, Some("a"), "k")])),
        ("the tenant is gone", |w| {
            let keys = [(Kind::ApiKey, "k"), (Kind::Principal, "ann")];
            let mut gone: Vec<_> = keys.iter().map(|(kind, name)| key(*kind, Some("a"), name)).collect();
            gone.push(key(Kind::Tenant, None, "a"));
            w.change(Vec::new(), gone)
        }),
    ];
    for (what, end) in endings {
        let mut world = World::new();
        world.tenant("a");
        world.tenant("b");
        world.change(ann("a", true), Vec::new());
        let mut watcher = world.watch(&tenants_admin("a"), ResourceFilter::default(), 0).unwrap();
        world.change(vec![role("b", "secret")], Vec::new());
        assert_eq!(lines(&mut watcher), ["4 initial +Tenant/a +Principal/a/ann +ApiKey/a/k", "5 bookmark"], "{what}");
        end(&mut world);
        world.change(vec![tenant("b", "later")], Vec::new());
        let error = watcher.next().await.unwrap().unwrap_err();
        assert_eq!(error.code(), "PV-ADMIN-BAD-TOKEN", "{what}");
        assert!(watcher.next().await.is_none(), "{what}");
    }
}

proptest! {
    /// Whatever is changed and whenever it is read: start state plus changes is the state.
    #[test]
    fn replaying_a_watch_gives_the_state(steps in prop::collection::vec((0..6_usize, any::<bool>(), any::<bool>()), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let _in = runtime.enter();
        let mut world = World::new();
        let mut watcher = None;
        let mut seen: BTreeMap<ResourceKey, Revision> = BTreeMap::new();
        let mut last = Revision(0);
        for (step, (which, remove, read)) in steps.into_iter().enumerate() {
            let name = format!("t{which}");
            let exists = world.state.resources().contains_key(&key(Kind::Tenant, None, &name));
            if remove && exists {
                world.change(Vec::new(), vec![key(Kind::Tenant, None, &name)]);
            } else {
                world.change(vec![tenant(&name, &step.to_string())], Vec::new());
            }
            let watcher = watcher.get_or_insert_with(|| world.watch(&root(), ResourceFilter::default(), 0).unwrap());
            if read {
                for event in ready(watcher) {
                    match event.unwrap() {
                        WatchEvent::Bookmark(revision) => prop_assert_eq!(revision, last),
                        WatchEvent::Change(change) => {
                            prop_assert!(change.revision > last);
                            last = change.revision;
                            seen.retain(|k, _| !change.deletes.contains(k));
                            seen.extend(change.puts.iter().map(|r| (r.key(), r.modified)));
                        }
                    }
                }
                let now = world.state.resources().iter().map(|(k, r)| (k.clone(), r.modified)).collect();
                prop_assert_eq!(&seen, &now);
            }
        }
    }
}
