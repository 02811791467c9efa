//! Applying a change of the packages.

use std::{collections::BTreeSet, sync::Arc};

use provost_types::{Kind, Name, PluginSource, ResourceKey, Resources, Revision, Spec, WasmSource};

use super::{
    KEPT_PACKAGES, MAX_PACKAGES, MAX_PACKAGES_BYTES, MAX_STORED_PACKAGE_BYTES, MAX_TENANT_PACKAGES,
    MAX_TENANT_PACKAGES_BYTES, MAX_UPLOAD_NS, MAX_UPLOADS, PACKAGE_PART_BYTES, PackageCommand, PackageFacts,
    PackageKey, PackageReply, Packages, StoredPackage,
};
use crate::{Authorship, Event, MAX_RECORDED_OBJECTS, Problem, Rejected, State, Unrecorded, outbox::named};

fn rejected<T>(problem: Problem) -> Result<T, Rejected> {
    Err(Rejected { problems: vec![problem] })
}

/// The packages that plugins name, and which plugins those are.
fn used_by(resources: &Resources) -> impl Iterator<Item = (PackageKey, &ResourceKey)> {
    let from = ResourceKey { kind: Kind::Plugin, tenant: None, name: Name::smallest() };
    let plugins = resources.range(from..).take_while(|(key, _)| key.kind == Kind::Plugin);
    plugins.filter_map(|(key, resource)| {
        let (Some(tenant), Spec::Plugin(spec)) = (&key.tenant, &resource.spec) else { return None };
        let PluginSource::Wasm(wasm) = &spec.source else { return None };
        match wasm.source()? {
            WasmSource::Package(digest) => Some((PackageKey { tenant: tenant.clone(), digest }, key)),
            WasmSource::File { .. } => None,
        }
    })
}

/// What is to be recorded of packages that made room for this one.
fn of_dropped(package: &StoredPackage, dropped: &[PackageKey], authorship: Authorship) -> Unrecorded {
    let (name, version) = (&package.facts.name, &package.facts.version);
    let message = format!("made room for {name} {version}: of those that no plugin runs {KEPT_PACKAGES} stay");
    Unrecorded {
        revision: package.revision,
        event: Event::PackagesDropped,
        time_ns: package.time_ns,
        author: package.by.clone(),
        message,
        authorship,
        objects: dropped.iter().take(MAX_RECORDED_OBJECTS).map(named).collect(),
    }
}

impl State {
    /// The plugin packages.
    pub fn packages(&self) -> &Arc<Packages> {
        &self.packages
    }

    /// The same with these packages.
    pub fn with_packages(mut self, packages: Packages) -> Self {
        self.packages = Arc::new(packages);
        self
    }

    /// Changes the packages. On `Err` nothing has changed.
    pub fn apply_package(&mut self, revision: Revision, command: PackageCommand) -> Result<PackageReply, Rejected> {
        match command {
            PackageCommand::Begin { key, facts, time_ns, by, authorship } => {
                let package = StoredPackage { facts, revision, time_ns, by, received: 0 };
                self.begin_package(key, package, authorship)
            }
            PackageCommand::Part { key, index, content } => self.take_part(revision, &key, index, content.len()),
            PackageCommand::Remove { key } => self.remove_package(&key),
        }
    }

    /// The packages that a plugin runs somewhere, and one such plugin of each. While a change is held some nodes run
    /// the state before it.
    fn used_packages(&self) -> Vec<(PackageKey, ResourceKey)> {
        let held = self.released();
        let held = held.iter().flat_map(|state| used_by(state.resources()));
        used_by(self.resources()).chain(held).map(|(package, plugin)| (package, plugin.clone())).collect()
    }

    fn begin_package(
        &mut self,
        key: PackageKey,
        package: StoredPackage,
        authorship: Option<Box<Authorship>>,
    ) -> Result<PackageReply, Rejected> {
        let tenant = ResourceKey { kind: Kind::Tenant, tenant: None, name: key.tenant.clone() };
        if !self.resources().contains_key(&tenant) {
            let text = format!("{tenant} does not exist");
            return rejected(
                Problem::of_transaction("PV-RES-REFERENCE", text).hint("`provost get tenants` lists them"),
            );
        }
        let bytes = package.facts.bytes;
        if bytes == 0 || bytes > MAX_STORED_PACKAGE_BYTES {
            let text = format!("a package of {bytes} bytes; it has 1 to {MAX_STORED_PACKAGE_BYTES}");
            return rejected(Problem::of_transaction("PV-PACKAGE-SIZE", text));
        }
        if let Some(known) = self.packages.all.get(&key) {
            return Ok(if known.is_whole() { PackageReply::Stored } else { PackageReply::Wants(known.received) });
        }
        let used: BTreeSet<PackageKey> = self.used_packages().into_iter().map(|(package, _)| package).collect();
        let mut next = (*self.packages).clone();
        next.forget_uploads(package.time_ns);
        let dropped = next.forget_versions(&key.tenant, &package.facts, &used);
        next.check_room(&key.tenant, bytes)?;
        if let Some(authorship) = authorship.filter(|_| !dropped.is_empty()) {
            if let Some(full) = self.check_outbox_room() {
                return rejected(full);
            }
            self.outbox.push_back(Arc::new(of_dropped(&package, &dropped, *authorship)));
        }
        next.all.insert(key, package);
        self.packages = Arc::new(next);
        Ok(PackageReply::Wants(0))
    }

    fn take_part(
        &mut self,
        revision: Revision,
        key: &PackageKey,
        index: u32,
        bytes: usize,
    ) -> Result<PackageReply, Rejected> {
        let Some(known) = self.packages.all.get(key) else {
            let text = format!("no upload of {key} is on its way: it took too long, or made room for others");
            return rejected(Problem::of_transaction("PV-PACKAGE-UPLOAD", text).hint("install it again"));
        };
        // What came already comes again when an answer was lost.
        if known.is_whole() {
            return Ok(PackageReply::Stored);
        }
        if index < known.received {
            return Ok(PackageReply::Wants(known.received));
        }
        let from = u64::from(index) * PACKAGE_PART_BYTES as u64;
        let expected = known.facts.bytes.saturating_sub(from).min(PACKAGE_PART_BYTES as u64);
        if index > known.received || bytes as u64 != expected {
            let text = format!("part {index} of {key} has {bytes} bytes; part {} is next", known.received);
            return rejected(Problem::of_transaction("PV-PACKAGE-UPLOAD", text).hint("install it again"));
        }
        let Some(package) = Arc::make_mut(&mut self.packages).all.get_mut(key) else {
            return Ok(PackageReply::Wants(0));
        };
        package.received = index + 1;
        if !package.is_whole() {
            return Ok(PackageReply::Wants(package.received));
        }
        package.revision = revision;
        Ok(PackageReply::Stored)
    }

    fn remove_package(&mut self, key: &PackageKey) -> Result<PackageReply, Rejected> {
        if let Some((_, plugin)) = self.used_packages().into_iter().find(|(package, _)| package == key) {
            let text = format!("{key} is used by {plugin}");
            let hint = "install another version there, or delete the plugin";
            return rejected(Problem::of_transaction("PV-PACKAGE-IN-USE", text).hint(hint));
        }
        if !self.packages.has(key) {
            let hint = "`provost plugin packages` lists those that are";
            return rejected(Problem::of_transaction("PV-PACKAGE-MISSING", format!("{key} is not stored")).hint(hint));
        }
        Arc::make_mut(&mut self.packages).all.remove(key);
        Ok(PackageReply::Removed)
    }
}

impl Packages {
    /// Uploads that took too long, and the oldest if there are too many for another.
    fn forget_uploads(&mut self, now_ns: u64) {
        let is_late = |package: &StoredPackage| now_ns.saturating_sub(package.time_ns) > MAX_UPLOAD_NS;
        self.all.retain(|_, package| package.is_whole() || !is_late(package));
        let coming = self.all.iter().filter(|&(_, package)| !package.is_whole());
        let mut coming: Vec<_> = coming.map(|(key, package)| (package.revision, key.clone())).collect();
        coming.sort();
        let over = (coming.len() + 1).saturating_sub(MAX_UPLOADS);
        for (_, key) in coming.into_iter().take(over) {
            self.all.remove(&key);
        }
    }

    /// Forgets versions of a plugin that nobody runs, but the newest of them; which those are.
    fn forget_versions(&mut self, tenant: &Name, of: &PackageFacts, used: &BTreeSet<PackageKey>) -> Vec<PackageKey> {
        let unused = self.all.iter().filter(|&(key, package)| {
            package.is_whole() && key.tenant == *tenant && package.facts.name == of.name && !used.contains(key)
        });
        let mut unused: Vec<_> = unused.map(|(key, package)| (package.revision, key.clone())).collect();
        unused.sort();
        let over = unused.len().saturating_sub(KEPT_PACKAGES);
        let dropped: Vec<PackageKey> = unused.into_iter().take(over).map(|(_, key)| key).collect();
        for key in &dropped {
            self.all.remove(key);
        }
        dropped
    }

    fn check_room(&self, tenant: &Name, bytes: u64) -> Result<(), Rejected> {
        let hint = "`provost plugin packages` lists them; `provost plugin remove DIGEST` makes room";
        let of_tenant = self.all.keys().filter(|&key| key.tenant == *tenant).count();
        for (whose, taken, limit) in [
            (format!("tenant {tenant}"), of_tenant, MAX_TENANT_PACKAGES),
            ("the cluster".to_owned(), self.all.len(), MAX_PACKAGES),
        ] {
            if taken >= limit {
                let text = format!("{whose} has {taken} packages, and may have {limit}");
                return rejected(Problem::of_transaction("PV-PACKAGE-FULL", text).hint(hint));
            }
        }
        let sum = |own: &dyn Fn(&PackageKey) -> bool| -> u64 {
            self.all.iter().filter(|&(key, _)| own(key)).map(|(_, package)| package.facts.bytes).sum()
        };
        let (of_tenant, of_all) = (sum(&|key| key.tenant == *tenant), sum(&|_| true));
        for (whose, taken, limit) in [
            (format!("tenant {tenant}"), of_tenant, MAX_TENANT_PACKAGES_BYTES),
            ("the cluster".to_owned(), of_all, MAX_PACKAGES_BYTES),
        ] {
            if taken.saturating_add(bytes) > limit {
                let text = format!("the packages of {whose} have {taken} bytes, and {bytes} more are over {limit}");
                return rejected(Problem::of_transaction("PV-PACKAGE-FULL", text).hint(hint));
            }
        }
        Ok(())
    }
}
