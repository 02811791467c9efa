//! One part of a tenant's log, decided under both states; on a node that keeps the log.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::{Duration, Instant},
};

use provost_audit_core::LogId;
use provost_audit_store::{AuditNode, Found, Query, QueryError, query, query_from};
use provost_types::{Action, Decision, Effect, Name};
use provost_wire::admin::{ChangedCall, ChangedGroup, SeenObject, SimulatePage, SimulatePageRequest, Undecided};
use tonic::{Code, Status};

use super::{
    recorded::{Arguments, Recorded, Why, arguments},
    states::{JudgeCache, Judges},
};
use crate::audit_caller::failure_of;

/// A page ends after so long: whoever asks for it waits eight seconds.
const PAGE_TIME: Duration = Duration::from_secs(3);
/// Records of one page, wanted or not.
const MAX_RECORDS: u64 = 100_000;
/// Groups of one page.
const MAX_GROUPS: usize = 2_000;
/// Changed calls of one page that are named one by one.
const MAX_EACH: usize = 10_000;
/// Objects of one page that are named for visibility.
const MAX_SEEN: usize = 5_000;

/// Decides the calls of one page. Blocking: reads files and opens bodies; the caller records that it was
/// done before it answers.
pub fn page(node: &AuditNode, cache: &JudgeCache, asked: &SimulatePageRequest) -> Result<SimulatePage, Status> {
    let tenant =
        Name::new(&asked.tenant).map_err(|e| crate::audit_caller::invalid("PV-CLI-TENANT", e, "name a tenant"))?;
    let log = LogId(Some(tenant.clone()));
    if !node.dir().join(log.folder()).is_dir() {
        return Ok(SimulatePage { tenant: asked.tenant.clone(), ..SimulatePage::default() });
    }
    let judges = cache.get(&asked.states)?;
    let names = node.identities(&log).into_iter().map(|known| (known.pseudonym.to_string(), known.name));
    let mut walk = Walk {
        node,
        tenant,
        judges: &judges,
        names: names.collect(),
        asked,
        bodies: node.bodies(&log),
        page: SimulatePage { tenant: asked.tenant.clone(), ..SimulatePage::default() },
        groups: HashMap::new(),
        undecided: BTreeMap::new(),
        seen: HashSet::new(),
    };
    let unread = |cause: QueryError| failure_of(&cause.to_string(), "PV-AUDIT-READ").into_status(Code::DataLoss);
    walk.run(&log).map_err(unread)?;
    let mut page = walk.finish();
    if asked.from == 0 && page.looked_at == 0 {
        (page.first_ns, page.last_ns) = period(node, &log).map_err(unread)?;
    }
    Ok(page)
}

/// When the first and the last record of a log were made; 0: it has none.
fn period(node: &AuditNode, log: &LogId) -> Result<(u64, u64), QueryError> {
    let first = query_from(node.dir(), log, Query::default(), 0)?.next().transpose()?;
    let newest = Query { log: Some(log.clone()), limit: Some(1), ..Query::default() };
    let last = query(node.dir(), newest)?.next().transpose()?;
    let time = |found: Option<Found>| found.map_or(0, |found| found.record.time_ns);
    Ok((time(first), time(last)))
}

/// What makes a group.
type GroupKey = (Name, Action, String, Cause, Cause);
/// An effect's word and what made it so.
type Cause = (String, Vec<String>);

struct Walk<'a> {
    node: &'a AuditNode,
    tenant: Name,
    judges: &'a Judges,
    /// Whom pseudonyms stand for.
    names: HashMap<String, String>,
    asked: &'a SimulatePageRequest,
    bodies: provost_audit_store::Bodies<'a>,
    page: SimulatePage,
    groups: HashMap<GroupKey, u32>,
    /// By cause: how many, and one of them.
    undecided: BTreeMap<Why, (u64, u64)>,
    seen: HashSet<(Action, Option<String>, String)>,
}

impl Walk<'_> {
    fn run(&mut self, log: &LogId) -> Result<(), provost_audit_store::QueryError> {
        let asked = self.asked;
        let wanted = Query { since_ns: Some(asked.since_ns), until_ns: Some(asked.until_ns), ..Query::default() };
        let (began, mut records) = (Instant::now(), 0);
        for found in query_from(self.node.dir(), log, wanted, asked.from)? {
            let found = found?;
            let full = self.groups.len() >= MAX_GROUPS
                || self.page.each.len() >= MAX_EACH
                || self.seen.len() >= MAX_SEEN
                || (asked.limit > 0 && self.page.looked_at >= asked.limit);
            if full || records >= MAX_RECORDS || (records > 0 && began.elapsed() > PAGE_TIME) {
                self.page.next = Some(found.index);
                return Ok(());
            }
            records += 1;
            self.look_at(&found);
        }
        Ok(())
    }

    fn look_at(&mut self, found: &Found) {
        let (tenant, judges) = (&self.tenant, self.judges);
        let is_plugin = |name: &str| judges.before.has_plugin(tenant, name) || judges.after.has_plugin(tenant, name);
        let Some(read) = Recorded::read(&found.record, &self.names, is_plugin) else { return };
        let asked = self.asked;
        if !asked.tool.is_empty() && found.record.called() != Some(&asked.tool) {
            return;
        }
        let call = match read {
            Ok(call) => call,
            Err(why) => {
                // Whose it was is not known, or what: with a condition on the principal it is not meant.
                let who = found.record.principal.as_deref();
                let who = who.map(|who| self.names.get(who).map_or(who, String::as_str));
                let is_meant = why != "unknown_principal" && who == Some(asked.principal.as_str());
                if asked.principal.is_empty() || is_meant {
                    self.page.looked_at += 1;
                    self.leave(why, found.index);
                }
                return;
            }
        };
        if !asked.principal.is_empty() && call.principal.as_str() != asked.principal {
            return;
        }
        self.page.looked_at += 1;
        self.seen.insert((call.action, call.plugin.clone(), call.target.clone()));
        match self.decide(found, &call) {
            Ok([before, after]) => self.compare(found.index, &call, before, after),
            Err(why) => self.leave(why, found.index),
        }
    }

    /// First without the arguments: most decisions do not depend on them, and then no body is opened.
    fn decide(&mut self, found: &Found, call: &Recorded) -> Result<[Decision; 2], Why> {
        if let [Some(before), Some(after)] = call.decide(&self.tenant, self.judges, None) {
            return Ok([before, after]);
        }
        let opened = self.bodies.open(found);
        self.page.opened += u64::from(matches!(opened, Ok(provost_audit_store::BodyState::Opened(_))));
        let known = match arguments(&found.record, opened) {
            Arguments::Known(known) => known,
            Arguments::Unknown(why) => return Err(why),
        };
        match call.decide(&self.tenant, self.judges, Some(&known)) {
            [Some(before), Some(after)] => Ok([before, after]),
            _ => Err("no_address"),
        }
    }

    fn compare(&mut self, index: u64, call: &Recorded, before: Decision, after: Decision) {
        self.page.drifted += u64::from(call.decided.is_some_and(|decided| decided != before.effect));
        if before.effect == after.effect {
            return;
        }
        let was = (effect(before.effect), before.policies);
        let becomes = (effect(after.effect), after.policies);
        let key = (call.principal.clone(), call.action, call.target.clone(), was, becomes);
        let number = match self.groups.get(&key) {
            Some(number) => *number,
            None => {
                let number = self.page.groups.len() as u32;
                self.page.groups.push(ChangedGroup {
                    principal: call.principal.to_string(),
                    action: word(call.action),
                    target: call.target.clone(),
                    before: key.3.0.clone(),
                    after: key.4.0.clone(),
                    before_by: key.3.1.clone(),
                    after_by: key.4.1.clone(),
                    before_reason: before.reason,
                    after_reason: after.reason,
                    count: 0,
                    example: index,
                });
                self.groups.insert(key, number);
                number
            }
        };
        if let Some(group) = self.page.groups.get_mut(number as usize) {
            group.count += 1;
        }
        if self.asked.each {
            self.page.each.push(ChangedCall { index, time_ns: call.time_ns, group: number });
        }
    }

    fn leave(&mut self, why: Why, index: u64) {
        self.undecided.entry(why).or_insert((0, index)).0 += 1;
    }

    fn finish(self) -> SimulatePage {
        let undecided = self.undecided.into_iter();
        let undecided = undecided.map(|(why, (count, example))| Undecided { why: why.to_owned(), count, example });
        let seen = self.seen.into_iter().map(|(action, plugin, target)| SeenObject {
            action: word(action),
            plugin: plugin.unwrap_or_default(),
            target,
        });
        SimulatePage { undecided: undecided.collect(), seen: seen.collect(), ..self.page }
    }
}

/// An action as it is written in answers.
pub fn word(action: Action) -> String {
    match action {
        Action::CallTool => "call_tool",
        Action::GetPrompt => "get_prompt",
        Action::ReadResource => "read_resource",
        Action::UseModel => "use_model",
    }
    .to_owned()
}

/// An action by its word.
pub fn action(word: &str) -> Option<Action> {
    Some(match word {
        "call_tool" => Action::CallTool,
        "get_prompt" => Action::GetPrompt,
        "read_resource" => Action::ReadResource,
        "use_model" => Action::UseModel,
        _ => return None,
    })
}

/// An effect as it is written in answers.
pub fn effect(effect: Effect) -> String {
    match effect {
        Effect::Allow => "allow",
        Effect::Deny => "deny",
    }
    .to_owned()
}
