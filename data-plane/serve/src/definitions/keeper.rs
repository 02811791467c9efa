//! What this node has seen of each plugin, and the task that reports it.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use provost_data_tools::{Definitions, ListKind, Others, Toolbox, lint};
use provost_types::{DefinitionPolicy, Name};
use provost_wire::governance::{ReportDefinitionsRequest, SeenTool};
use tokio::sync::{mpsc, watch};

use super::{
    DefinitionPort, SeenTools, ToolChanges,
    pins::{PinIndex, PluginPins, Verdict},
};

/// Reports that wait to be sent; more are made again with the next look.
const MAX_WAITING: usize = 64;
/// Between two reports of one plugin that say the same.
const AGAIN: Duration = Duration::from_secs(10);
/// Between two reports of a plugin that is trusted and changes: each makes history.
const AGAIN_TRUSTED: Duration = Duration::from_secs(3_600);
/// One report may take so long.
const REPORT_LIMIT: Duration = Duration::from_secs(10);
/// Tools of one report, and those whose first definition is remembered without a pin.
const MAX_REPORTED: usize = 4_096;
/// Bytes of a definition that are reported; of a larger one the hash alone is.
const MAX_DEFINITION_BYTES: usize = 16 << 10;

type Key = (Name, Name);

/// One plugin, as this node sees it.
struct Looked {
    /// Which form of the plugin: what an earlier one showed says nothing of this one.
    digest: Arc<str>,
    seen: Arc<SeenTools>,
    /// The first definition of each tool that nobody has pinned yet.
    first: HashMap<String, String>,
    reported: Option<Instant>,
    /// The pins that know all of it: nothing is to be reported.
    settled: Option<Arc<PluginPins>>,
}

/// What the node has seen.
pub struct DefinitionKeeper {
    node: String,
    looked: Mutex<HashMap<Key, Looked>>,
    reports: mpsc::Sender<Report>,
    /// Which plugins' tools were hidden or shown again.
    changes: watch::Sender<ToolChanges>,
}

/// What is to be reported. It is made into a request beside the calls: to look at thousands of definitions takes
/// longer than a call may.
struct Report {
    node: String,
    key: Key,
    seen: Arc<SeenTools>,
    pins: Arc<PluginPins>,
    /// The tools of the tenant's other plugins, as far as they are at hand.
    others: Vec<(Name, Definitions)>,
}

impl DefinitionKeeper {
    /// Reports in the name of `node`. Must be called within a tokio runtime; ends with the value.
    pub fn start(port: Arc<dyn DefinitionPort>, node: impl Into<String>) -> Self {
        let (reports, waiting) = mpsc::channel(MAX_WAITING);
        tokio::spawn(send(port, waiting));
        Self { node: node.into(), looked: Mutex::default(), reports, changes: watch::Sender::default() }
    }

    /// A keeper that reports to nobody: what it sees first stays the pin, on this node and until its end.
    pub fn alone() -> Self {
        let (reports, _) = mpsc::channel(1);
        Self { node: String::new(), looked: Mutex::default(), reports, changes: watch::Sender::default() }
    }

    /// Forgets plugins that are gone.
    pub(crate) fn retain(&self, pins: &PinIndex) {
        self.looked.lock().retain(|key, _| pins.has(key));
        self.changes.send_if_modified(|changes| {
            changes.retain(|key| pins.has(key));
            false
        });
    }

    /// Tells whose tools are hidden or shown by these pins and were not by those before.
    pub(crate) fn repinned(&self, before: &PinIndex, after: &PinIndex) {
        let looked = self.looked.lock();
        let nothing = SeenTools::of(Definitions::default());
        let changed: Vec<Key> = after
            .repinned(before)
            .filter(|(key, before, after)| {
                let seen = looked.get(*key).map_or(&nothing, |entry| &*entry.seen);
                let hidden =
                    |pins: &Option<&Arc<PluginPins>>| pins.map(|p| (p.takes(), p.hidden(seen))).unwrap_or_default();
                hidden(before) != hidden(after)
            })
            .map(|(key, ..)| key.clone())
            .collect();
        drop(looked);
        self.tell(changed);
    }

    /// Counts, for each plugin, how often tools of it were hidden or shown again.
    pub(crate) fn changes(&self) -> watch::Receiver<ToolChanges> {
        self.changes.subscribe()
    }

    fn tell(&self, changed: Vec<Key>) {
        self.changes.send_if_modified(|changes| {
            changed.iter().for_each(|key| changes.count(key.clone()));
            !changed.is_empty()
        });
    }

    /// What becomes of these tools of a plugin. `definitions`: the list as it was fetched just now; without it, what
    /// was seen last counts, and not what a cache holds: a server may empty that whenever it likes. Reports what the
    /// control plane does not know.
    pub(crate) fn judge<'t>(
        &self,
        (tenant, plugin, digest): (&Name, &Name, &Arc<str>),
        (pins, toolbox): (&Arc<PluginPins>, &Toolbox),
        definitions: Option<&Definitions>,
        tools: impl IntoIterator<Item = &'t str>,
    ) -> Vec<Verdict> {
        let mut looked = self.looked.lock();
        let fresh = |digest: &Arc<str>| Looked {
            digest: digest.clone(),
            seen: Arc::new(SeenTools::of(definitions.cloned().unwrap_or_default())),
            first: HashMap::new(),
            reported: None,
            settled: None,
        };
        let entry = looked.entry((tenant.clone(), plugin.clone())).or_insert_with(|| fresh(digest));
        if entry.digest != *digest {
            *entry = fresh(digest);
        } else if let Some(definitions) = definitions
            && !entry.seen.is(definitions)
        {
            let before = pins.hidden(&entry.seen);
            entry.seen = Arc::new(SeenTools::of(definitions.clone()));
            entry.settled = None;
            if before != pins.hidden(&entry.seen) {
                self.tell(vec![(tenant.clone(), plugin.clone())]);
            }
        }
        let verdicts: Vec<Verdict> = tools.into_iter().map(|tool| entry.verdict(pins, tool)).collect();
        entry.report_if_due(pins, &self.reports, |seen| Report {
            node: self.node.clone(),
            key: (tenant.clone(), plugin.clone()),
            seen: seen.clone(),
            pins: pins.clone(),
            others: others(toolbox, tenant, plugin),
        });
        verdicts
    }
}

impl Looked {
    /// Hands over what the control plane does not know. Most of the time it knows everything, and that costs a
    /// comparison of two pointers.
    fn report_if_due(
        &mut self,
        pins: &Arc<PluginPins>,
        reports: &mpsc::Sender<Report>,
        make: impl FnOnce(&Arc<SeenTools>) -> Report,
    ) {
        let again = if pins.policy() == DefinitionPolicy::Trust { AGAIN_TRUSTED } else { AGAIN };
        let is_settled = self.settled.as_ref().is_some_and(|settled| Arc::ptr_eq(settled, pins));
        if is_settled || self.reported.is_some_and(|at| at.elapsed() < again) {
            return;
        }
        let seen = &self.seen;
        let is_wanted = |name: &str| seen.hash(name).is_some_and(|hash| pins.wants(name, hash));
        if !seen.definitions().iter().any(|definition| is_wanted(&definition.name)) {
            self.settled = Some(pins.clone());
        } else {
            // One that finds no room is made again, like one that the control plane does not take.
            let _ = reports.try_send(make(seen));
            self.reported = Some(Instant::now());
        }
    }

    fn verdict(&mut self, pins: &PluginPins, tool: &str) -> Verdict {
        let hash = self.seen.hash(tool);
        match (pins.judge(tool, hash), hash) {
            (Verdict::First, Some(hash)) => match self.first.get(tool) {
                Some(first) if first == hash => Verdict::Served,
                Some(_) => Verdict::Quarantined("its definition changed since it was first seen here".to_owned()),
                None if self.first.len() >= MAX_REPORTED => {
                    Verdict::Quarantined("its plugin has shown more tools than are remembered".to_owned())
                }
                None => {
                    self.first.insert(tool.to_owned(), hash.to_owned());
                    Verdict::Served
                }
            },
            // The pin counts from now on; what was first seen here is kept, in case the pin goes.
            (verdict, _) => verdict,
        }
    }
}

fn others(toolbox: &Toolbox, tenant: &Name, plugin: &Name) -> Vec<(Name, Definitions)> {
    let foreign = toolbox.plugins(tenant).into_iter().filter(|other| other.name() != plugin);
    foreign.map(|other| (other.name().clone(), other.at_hand(ListKind::Tools))).collect()
}

impl Report {
    fn request(&self) -> ReportDefinitionsRequest {
        let Self { node, key: (tenant, plugin), seen, pins, others } = self;
        let others = Others::of(others);
        let wanted = seen.definitions().iter().filter_map(|definition| {
            let hash = seen.hash(&definition.name)?;
            pins.wants(&definition.name, hash).then(|| {
                let warnings = lint(definition, &others);
                if !warnings.is_empty() {
                    let (tool, warnings) = (&definition.name, warnings.join("; "));
                    tracing::warn!(%tenant, %plugin, tool, warnings, "a tool's definition looks suspicious");
                }
                let mut text = definition.canonical();
                if text.len() > MAX_DEFINITION_BYTES {
                    text.clear();
                }
                SeenTool { name: definition.name.clone(), hash: hash.to_owned(), definition: text, warnings }
            })
        });
        ReportDefinitionsRequest {
            node: node.clone(),
            tenant: tenant.to_string(),
            plugin: plugin.to_string(),
            tools: wanted.take(MAX_REPORTED).collect(),
        }
    }
}

/// A report that is not taken is dropped: the next look makes it again.
async fn send(port: Arc<dyn DefinitionPort>, mut waiting: mpsc::Receiver<Report>) {
    while let Some(report) = waiting.recv().await {
        let plugin = report.key.1.to_string();
        let Ok(request) = tokio::task::spawn_blocking(move || report.request()).await else { continue };
        let sent = tokio::time::timeout(REPORT_LIMIT, port.report(request)).await;
        if let Ok(Err(cause)) = sent {
            tracing::warn!(plugin, %cause, "the control plane did not take what was seen of a plugin's tools");
        }
    }
}
