//! The state and the one function that changes it.

mod released;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use imbl::Vector;
use provost_types::{Kind, Name, Resource, ResourceKey, Resources, Revision, Snapshot};

use crate::{
    ChangeKind, Cluster, ClusterCommand, ClusterReply, HistoryEntry, KeyChange, Ledger, LedgerCommand, LedgerReply,
    MAX_HISTORY, MAX_MESSAGE_BYTES, MAX_TRANSACTION_CHANGES, PackageKey, Packages, Problem, Rejected, Release,
    Transaction, Unrecorded, connections, fields, guards, identity, kill_switches, packages, prices, references,
};

/// What a transaction does to each resource it names, in key order.
type Report = Vec<(ResourceKey, ChangeKind)>;

/// All resources with the history of how they came to be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    revision: Revision,
    resources: Resources,
    history: Vector<Arc<HistoryEntry>>,
    compacted: Revision,
    key_ring: BTreeMap<u64, String>,
    cluster: Arc<Cluster>,
    ledger: Arc<Ledger>,
    /// How far changes are released; `None`: there is no node group, and all are.
    release: Option<Arc<Release>>,
    /// Changes that the audit log does not have yet.
    pub(crate) outbox: Vector<Arc<Unrecorded>>,
    /// What is known of plugin packages.
    pub(crate) packages: Arc<Packages>,
}

/// What a transaction did.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// The state's revision now: the transaction's own if it changed anything.
    pub revision: Revision,
    /// What was done to each resource named by the transaction, in key order.
    pub changes: Vec<(ResourceKey, ChangeKind)>,
    /// The history entry; `None` if nothing changed.
    pub entry: Option<Arc<HistoryEntry>>,
    /// What is to be recorded of it, if it changed anything and its proposer leaves that to the outbox.
    pub unrecorded: Option<Arc<Unrecorded>>,
}

impl State {
    /// A state from its stored parts. `compacted` is the revision of the newest dropped entry.
    pub fn from_parts(
        revision: Revision,
        resources: impl IntoIterator<Item = Resource>,
        history: impl IntoIterator<Item = HistoryEntry>,
        compacted: Revision,
        key_ring: BTreeMap<u64, String>,
    ) -> Self {
        Self {
            revision,
            resources: resources.into_iter().map(|r| (r.key(), Arc::new(r))).collect(),
            history: history.into_iter().map(Arc::new).collect(),
            compacted,
            key_ring,
            cluster: Arc::default(),
            ledger: Arc::default(),
            release: None,
            outbox: Vector::new(),
            packages: Arc::default(),
        }
    }

    /// The same with the cluster's own facts and the ledger.
    pub fn with(self, cluster: Cluster, ledger: Ledger) -> Self {
        Self { cluster: Arc::new(cluster), ledger: Arc::new(ledger), ..self }
    }

    /// The same with changes that the audit log does not have yet, oldest first.
    pub fn with_outbox(self, outbox: impl IntoIterator<Item = Unrecorded>) -> Self {
        Self { outbox: outbox.into_iter().map(Arc::new).collect(), ..self }
    }

    /// Changes that the audit log does not have yet, oldest first.
    pub fn outbox(&self) -> &Vector<Arc<Unrecorded>> {
        &self.outbox
    }

    /// The cluster's own facts.
    pub fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    /// The quota ledger.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// Changes the cluster's own facts. On `Err` nothing has changed.
    pub fn apply_cluster(&mut self, revision: Revision, command: ClusterCommand) -> Result<ClusterReply, Rejected> {
        Arc::make_mut(&mut self.cluster).apply(revision, command)
    }

    /// Changes the ledger.
    pub fn apply_ledger(&mut self, revision: Revision, command: LedgerCommand) -> LedgerReply {
        Arc::make_mut(&mut self.ledger).apply(revision, &self.resources, command)
    }

    /// The revision of the last transaction that changed anything.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Every resource, in key order.
    pub fn resources(&self) -> &Resources {
        &self.resources
    }

    /// Past transactions, oldest first.
    pub fn history(&self) -> &Vector<Arc<HistoryEntry>> {
        &self.history
    }

    /// The newest revision whose entry was dropped: states from it on can be restored.
    pub fn compacted(&self) -> Revision {
        self.compacted
    }

    /// The wrapped data keys that seal secrets, by term.
    pub fn key_ring(&self) -> &BTreeMap<u64, String> {
        &self.key_ring
    }

    /// The state as nodes run on it; resources are shared, not copied.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { revision: self.revision, resources: self.resources.clone() }
    }

    /// Applies a transaction at `revision`, which must grow from call to call: the log index.
    /// On `Err` nothing has changed.
    pub fn apply(&mut self, revision: Revision, transaction: &Transaction) -> Result<Applied, Rejected> {
        let (candidate, applied) = self.plan(revision, transaction)?;
        if let Some(key) = &transaction.sealing_key {
            self.key_ring.insert(key.term, key.wrapped.clone());
        }
        if let Some(entry) = &applied.entry {
            let before = std::mem::replace(&mut self.revision, revision);
            self.resources = candidate;
            self.drop_packages(&applied.changes);
            if !entry.event.is_routine() {
                self.history.push_back(entry.clone());
            }
            if self.history.len() > MAX_HISTORY
                && let Some(dropped) = self.history.pop_front()
            {
                self.compacted = dropped.revision;
            }
            self.follow_release(before, entry);
            self.outbox.extend(applied.unrecorded.clone());
        }
        if let Some(key) = &transaction.sealing_key {
            // A new key is the occasion to let go of those that nothing needs any more.
            let mut used = self.used_key_terms();
            let before = self.key_ring.keys().rev().filter(|term| **term != key.term);
            used.extend(before.take(key.keeps as usize));
            self.key_ring.retain(|term, _| *term == key.term || used.contains(term));
        }
        Ok(applied)
    }

    /// What [`State::apply`] would do, without doing it: the resources after it, and the report.
    pub fn plan(&self, revision: Revision, transaction: &Transaction) -> Result<(Resources, Applied), Rejected> {
        let mut problems = self.check_shape(transaction);
        problems.extend(self.check_outbox(transaction));
        problems.extend(self.check_expectations(transaction));
        problems.extend(self.check_key_terms(transaction));
        let (candidate, report) = self.candidate(revision, transaction, &mut problems);
        for (key, kind) in &report {
            if matches!(kind, ChangeKind::Created | ChangeKind::Updated)
                && let Some(resource) = candidate.get(key)
            {
                fields::check(resource, &mut problems);
                references::check_targets(resource, &candidate, &mut problems);
            }
        }
        let deleted: BTreeSet<_> = report.iter().filter(|(_, k)| *k == ChangeKind::Deleted).map(|(k, _)| k).collect();
        references::check_unused(&deleted, &candidate, &mut problems);
        if report.iter().any(|(k, _)| k.kind == Kind::ApiKey) {
            fields::check_unique_hashes(&candidate, &mut problems);
        }
        fields::check_one_group(&candidate, &mut problems);
        if report.iter().any(|(k, _)| k.kind == Kind::Price) {
            prices::check_together(&candidate, &mut problems);
        }
        if report.iter().any(|(k, _)| k.kind == Kind::Guard) {
            guards::check_together(&candidate, &mut problems);
        }
        kill_switches::check_together(&report, &candidate, &mut problems);
        if report.iter().any(|(k, _)| k.kind == Kind::IdentityProvider) {
            identity::check_together(&candidate, &mut problems);
        }
        packages::check_plugins(&self.packages, &self.resources, &report, &candidate, &mut problems);
        if report.iter().any(|(k, _)| k.kind == Kind::Principal) {
            identity::check_unique_certificates(&candidate, &mut problems);
        }
        if !problems.is_empty() {
            return Err(Rejected { problems });
        }
        let entry = self.entry(revision, transaction, &candidate, &report);
        let now = if entry.is_some() { revision } else { self.revision };
        let dropped = self.packages_dropped(&report);
        let unrecorded = entry.as_ref().and_then(|_| Unrecorded::of(revision, transaction, &report, &dropped));
        let unrecorded = unrecorded.map(Arc::new);
        Ok((candidate, Applied { revision: now, changes: report, entry, unrecorded }))
    }

    /// The state as it would be after a transaction, whether or not that would be rejected: for
    /// checks outside this crate, so that their problems are reported together with those here.
    pub fn preview(&self, revision: Revision, transaction: &Transaction) -> Snapshot {
        let (resources, _) = self.candidate(revision, transaction, &mut Vec::new());
        Snapshot { revision, resources }
    }

    /// The packages that go with the tenants that a change deletes.
    fn packages_dropped(&self, changes: &[(ResourceKey, ChangeKind)]) -> Vec<PackageKey> {
        let gone = changes.iter().filter(|(key, kind)| key.kind == Kind::Tenant && *kind == ChangeKind::Deleted);
        let gone: BTreeSet<&Name> = gone.map(|(key, _)| &key.name).collect();
        if gone.is_empty() {
            return Vec::new();
        }
        self.packages.iter().map(|(key, _)| key).filter(|key| gone.contains(&key.tenant)).cloned().collect()
    }

    /// The packages of a tenant go with it: the next of its name must not find them.
    fn drop_packages(&mut self, changes: &[(ResourceKey, ChangeKind)]) {
        let gone = |(key, kind): &&(ResourceKey, ChangeKind)| key.kind == Kind::Tenant && *kind == ChangeKind::Deleted;
        if changes.iter().filter(gone).any(|(key, _)| self.packages.has_of(&key.name)) {
            let tenant = |name: &Name| ResourceKey { kind: Kind::Tenant, tenant: None, name: name.clone() };
            let resources = &self.resources;
            Arc::make_mut(&mut self.packages).keep_tenants(|name| resources.contains_key(&tenant(name)));
        }
    }

    fn check_shape(&self, transaction: &Transaction) -> Vec<Problem> {
        let mut problems = Vec::new();
        let changes = transaction.puts.len() + transaction.deletes.len();
        if changes > MAX_TRANSACTION_CHANGES {
            let text = format!("{changes} changes; one transaction takes {MAX_TRANSACTION_CHANGES}");
            problems.push(Problem::of_transaction("PV-CTL-TOO-LARGE", text).hint("apply in parts"));
        }
        if transaction.message.len() > MAX_MESSAGE_BYTES {
            let text = format!("the message is longer than {MAX_MESSAGE_BYTES} bytes");
            problems.push(Problem::of_transaction("PV-CTL-TOO-LARGE", text));
        }
        let mut seen = BTreeSet::new();
        let keys = transaction.puts.iter().map(|d| d.key()).chain(transaction.deletes.clone());
        for key in keys {
            if !seen.insert(key.clone()) {
                let text = "appears more than once in this transaction";
                problems.push(Problem::of_field(&key, "", "PV-RES-DUPLICATE", text));
            }
        }
        problems
    }

    fn check_expectations(&self, transaction: &Transaction) -> Vec<Problem> {
        let mut problems = Vec::new();
        if let Some(expected) = transaction.expect_revision
            && expected != self.revision
        {
            let text = format!("the state is at revision {}, not {expected}", self.revision);
            problems.push(Problem::of_transaction("PV-CTL-CONFLICT", text).hint("read again and retry"));
        }
        if let Some(key) = &transaction.sealing_key
            && self.key_ring.contains_key(&key.term)
        {
            let text = format!("the key ring has a key of term {} already", key.term);
            problems.push(Problem::of_transaction("PV-CTL-CONFLICT", text).hint("read again and retry"));
        }
        for expectation in &transaction.expect {
            let found = self.resources.get(&expectation.key).map(|r| r.modified);
            if found != expectation.modified {
                let say = |r: Option<Revision>| r.map_or("absent".to_owned(), |r| format!("at revision {r}"));
                let text = format!("is {}, not {}", say(found), say(expectation.modified));
                problems.push(
                    Problem::of_field(&expectation.key, "", "PV-CTL-CONFLICT", text)
                        .hint("somebody changed it meanwhile: read again and retry"),
                );
            }
        }
        problems
    }

    /// The resources after the transaction, and what it does to each it names.
    fn candidate(
        &self,
        revision: Revision,
        transaction: &Transaction,
        problems: &mut Vec<Problem>,
    ) -> (Resources, Report) {
        let mut resources = self.resources.clone();
        let mut report = BTreeMap::new();
        for draft in &transaction.puts {
            let key = draft.key();
            let old = self.resources.get(&key);
            let same = old.is_some_and(|o| o.metadata == draft.metadata && o.spec == draft.spec);
            let kind = match old {
                _ if same => ChangeKind::Unchanged,
                Some(_) => ChangeKind::Updated,
                None => ChangeKind::Created,
            };
            report.insert(key.clone(), kind);
            if !same {
                let new = Resource {
                    metadata: draft.metadata.clone(),
                    spec: draft.spec.clone(),
                    created: old.map_or(revision, |o| o.created),
                    modified: revision,
                };
                resources.insert(key, Arc::new(new));
            }
        }
        for key in &transaction.deletes {
            if resources.remove(key).is_some() {
                report.insert(key.clone(), ChangeKind::Deleted);
                // What was approved of a plugin goes with it: another of its name is another.
                let pins = ResourceKey { kind: Kind::ToolPins, ..key.clone() };
                if key.kind == Kind::Plugin && resources.remove(&pins).is_some() {
                    report.insert(pins, ChangeKind::Deleted);
                }
                for connection in connections::of_deleted(key, &resources) {
                    resources.remove(&connection);
                    report.insert(connection, ChangeKind::Deleted);
                }
            } else {
                problems.push(
                    Problem::of_field(key, "", "PV-RES-NOT-FOUND", "does not exist")
                        .hint(format!("`provost get {}` lists what does", key.kind)),
                );
            }
        }
        (resources, report.into_iter().collect())
    }

    fn entry(
        &self,
        revision: Revision,
        transaction: &Transaction,
        candidate: &Resources,
        report: &[(ResourceKey, ChangeKind)],
    ) -> Option<Arc<HistoryEntry>> {
        let changed = report.iter().filter(|(_, kind)| *kind != ChangeKind::Unchanged);
        let changes: Vec<KeyChange> = changed
            .map(|(key, _)| KeyChange {
                key: key.clone(),
                old: self.resources.get(key).map(connections::without_tokens),
                new: candidate.get(key).map(connections::without_tokens),
            })
            .collect();
        if changes.is_empty() {
            return None;
        }
        Some(Arc::new(HistoryEntry {
            revision,
            event: transaction.event,
            time_ns: transaction.time_ns,
            author: transaction.author.clone(),
            message: transaction.message.clone(),
            changes,
        }))
    }
}
