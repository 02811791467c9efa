//! What was found, as a table for people.

use std::collections::{BTreeMap, HashMap};

use provost_wire::admin::{ChangeKind, SimulateBegin, SimulateEnd, SimulatePage};

use super::verb;
use crate::{
    cli::{audit::time_text, table},
    failure::Failure,
};

/// Groups that a table shows; more are counted.
const MAX_GROUPS: usize = 10_000;
/// Lists that a table shows; more are counted.
const MAX_SHOWN_LISTS: usize = 100;
/// Width to which a table cuts what may be long.
const MAX_CELL_CHARS: usize = 60;

/// What makes a row of the table.
type Row = (String, String, String, String, String);

/// All that was found.
#[derive(Default)]
pub struct Outcome {
    pub begin: SimulateBegin,
    pub end: SimulateEnd,
    pub period: (u64, u64),
    pub looked_at: u64,
    pub changed: u64,
    pub drifted: u64,
    pub opened: u64,
    /// What period the logs have in which no call was found.
    logs: Option<(u64, u64)>,
    /// How many, and one of them.
    groups: HashMap<Row, (u64, u64)>,
    beyond: u64,
    /// By tenant and cause: how many, and one of them.
    pub undecided: BTreeMap<(String, String), (u64, u64)>,
}

impl Outcome {
    /// Nothing yet, of a period.
    pub fn of(period: (u64, u64)) -> Self {
        Self { period, ..Self::default() }
    }

    /// Adds a part.
    pub fn take(&mut self, page: SimulatePage) {
        self.looked_at += page.looked_at;
        self.drifted += page.drifted;
        self.opened += page.opened;
        if page.last_ns > 0 {
            let (first, last) = self.logs.unwrap_or((page.first_ns, page.last_ns));
            self.logs = Some((first.min(page.first_ns), last.max(page.last_ns)));
        }
        for group in page.groups {
            self.changed += group.count;
            let (before, after) = (cell(&group.before, &group.before_by), cell(&group.after, &group.after_by));
            let row = (page.tenant.clone(), group.principal, group.target, before, after);
            if self.groups.len() >= MAX_GROUPS && !self.groups.contains_key(&row) {
                self.beyond += group.count;
                continue;
            }
            self.groups.entry(row).or_insert((0, group.example)).0 += group.count;
        }
        for undecided in page.undecided {
            let key = (page.tenant.clone(), undecided.why);
            self.undecided.entry(key).or_insert((0, undecided.example)).0 += undecided.count;
        }
    }

    /// There was no call to look at: `No call would be decided otherwise` would say what nobody knows.
    pub fn nothing_looked_at(&self) -> Failure {
        let (since, until) = (time_text(self.period.0), time_text(self.period.1));
        let tenants = self.begin.tenants.join(", ");
        let has = match self.logs {
            Some((first, last)) => format!("the log has records from {} to {}", time_text(first), time_text(last)),
            None => "the log has no records".to_owned(),
        };
        let text = format!("no call of {tenants} was recorded from {since} to {until}; {has}");
        Failure::new("PV-CLI-PERIOD", text, "name a period with calls by --since and --until")
    }

    /// As a table for people.
    pub fn print(&self, limit: Option<u64>) {
        let touched = self.begin.changes.iter().filter(|c| c.kind() != ChangeKind::Unchanged);
        let touched: Vec<String> = touched.map(|c| format!("{} {}", verb(c), c.resource)).collect();
        match touched.as_slice() {
            [] => println!("The documents change nothing at revision {}.", self.begin.revision),
            some => println!("Against revision {}: {}", self.begin.revision, some.join(", ")),
        }
        let (since, until) = (time_text(self.period.0), time_text(self.period.1));
        let tenants = self.begin.tenants.join(", ");
        let calls = plural(self.looked_at, "recorded call");
        println!("Looked at {calls} of {tenants} from {since} to {until}.");
        if limit.is_some_and(|limit| limit == self.looked_at) {
            println!("That is the limit; later calls were not looked at.");
        }
        if self.changed == 0 {
            println!("No call would be decided otherwise.");
        } else {
            println!("{} would be decided otherwise:\n", plural(self.changed, "call"));
            let mut rows: Vec<_> = self.groups.iter().collect();
            rows.sort_by(|(a, (n, _)), (b, (m, _))| m.cmp(n).then_with(|| a.cmp(b)));
            let rows = rows.into_iter().map(|((tenant, principal, target, before, after), (count, example))| {
                let example = format!("{tenant}/{example}");
                vec![count.to_string(), principal.clone(), cut(target), before.clone(), after.clone(), example]
            });
            let rows: Vec<_> = rows.collect();
            table::print(&["CALLS", "PRINCIPAL", "WHAT", "NOW", "THEN", "RECORD"], &rows);
            if self.beyond > 0 {
                println!("… and {} in further groups; --json has all", plural(self.beyond, "call"));
            }
        }
        self.print_undecided();
        if self.drifted > 0 {
            println!("\n{} decided otherwise already by the present state than when recorded.", are(self.drifted));
        }
        self.print_lists();
    }

    fn print_undecided(&self) {
        let count: u64 = self.undecided.values().map(|(count, _)| count).sum();
        if count == 0 {
            return;
        }
        println!("\n{} not decidable: the decision depends on what is not known any more.", are(count));
        for ((tenant, why), (count, example)) in &self.undecided {
            println!("  {count:>6}  {} ({why}), such as record {example} of {tenant}", meaning(why));
        }
    }

    fn print_lists(&self) {
        let changes = &self.end.visibility;
        if changes.is_empty() {
            return;
        }
        println!("\nLists would change:");
        for change in changes.iter().take(MAX_SHOWN_LISTS) {
            let how = if change.before { "disappears for" } else { "appears for" };
            println!("  {} {how} {} of {}", cut(&change.target), change.principal, change.tenant);
        }
        if changes.len() > MAX_SHOWN_LISTS || self.end.visibility_cut {
            println!("  … and more; --json has up to 10,000");
        }
    }
}

/// `allow by role:analyst`.
fn cell(effect: &str, by: &[String]) -> String {
    match by {
        [] => cut(&format!("{effect}: nothing permits")),
        some => cut(&format!("{effect} by {}", some.join(", "))),
    }
}

/// What a cause means, for people.
fn meaning(why: &str) -> &'static str {
    match why {
        "erased" => "the arguments were erased",
        "not_kept" => "the arguments were not kept",
        "too_long" => "the arguments were too long to be kept",
        "altered" => "a guard or a redaction rule changed the arguments before they were kept",
        "no_body" => "no arguments were kept",
        "no_key" => "this node does not hold the key of the arguments",
        "no_address" => "the address was not kept",
        "token" => "their callers came with tokens, and what those gave is not in the log",
        "unknown_principal" => "whom the pseudonym stood for is not known",
        "no_plugin" => "whose tool or resource it was is not known",
        "cut" => "its name was too long for the record",
        _ => "what was kept cannot be read",
    }
}

fn plural(count: u64, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

fn are(count: u64) -> String {
    if count == 1 { "1 call is".to_owned() } else { format!("{count} calls are") }
}

fn cut(text: &str) -> String {
    if text.chars().count() <= MAX_CELL_CHARS {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(MAX_CELL_CHARS - 1).collect();
    short.push('…');
    short
}
