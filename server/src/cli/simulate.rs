//! `provost simulate`: which recorded calls would be decided otherwise.

use std::{
    collections::{BTreeMap, HashMap},
    io::{IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::Args;
use indicatif::ProgressBar;
use provost_wire::{
    admin::{
        ChangeKind, ChangedGroup, Document, ResourceChange, SimulateBegin, SimulateEnd, SimulatePage, SimulatePart,
        SimulateRequest, simulate_part::Part,
    },
    policy_over,
};
use serde_json::{Value, json};

use super::{
    AdminArgs,
    admin::{dial, failed},
    audit::{now_ns, parse_moment, time_text},
    documents, table,
};

/// Groups that a table shows; more are counted.
const MAX_GROUPS: usize = 10_000;
/// Lists that a table shows; more are counted.
const MAX_SHOWN_LISTS: usize = 100;
/// Width to which a table cuts what may be long.
const MAX_CELL_CHARS: usize = 60;

#[derive(Args)]
pub struct SimulateArgs {
    /// Files or directories of YAML or JSON, as for `apply`; `-` reads standard input.
    #[arg(short = 'f', long = "file", required = true, value_name = "PATH")]
    files: Vec<PathBuf>,
    /// Calls from this time on: RFC 3339, or how long ago (`15m`, `24h`).
    #[arg(long, default_value = "24h", value_parser = parse_moment)]
    since: u64,
    /// Calls before this time, likewise. Default: now.
    #[arg(long, value_parser = parse_moment)]
    until: Option<u64>,
    /// Only calls of this principal.
    #[arg(long)]
    principal: Option<String>,
    /// Only calls of this tool, prompt, resource or model.
    #[arg(long)]
    tool: Option<String>,
    /// Look at no more calls than so many, the oldest first.
    #[arg(long)]
    limit: Option<u64>,
    /// Print as JSON, every changed call with both decisions.
    #[arg(long)]
    json: bool,
    /// Exit with 1 if a call would be decided otherwise.
    #[arg(long)]
    fail_on_change: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

pub async fn run(args: SimulateArgs) -> anyhow::Result<ExitCode> {
    let documents = documents::read(&args.files)?;
    let documents = documents.into_iter().map(|(path, text)| Document { path, text }).collect();
    let (channel, token, context) = dial(&args.admin).await?;
    let until_ns = args.until.unwrap_or_else(now_ns);
    let request = SimulateRequest {
        documents,
        since_ns: args.since,
        until_ns,
        tenant: context.tenant.unwrap_or_default(),
        principal: args.principal.clone().unwrap_or_default(),
        tool: args.tool.clone().unwrap_or_default(),
        limit: args.limit.unwrap_or_default(),
        each: args.json,
    };
    let mut parts = policy_over(channel, token).simulate(request).await.map_err(failed)?.into_inner();
    let progress = match std::io::stderr().is_terminal() {
        true => ProgressBar::new_spinner(),
        false => ProgressBar::hidden(),
    };
    let mut out = Outcome { period: (args.since, until_ns), ..Outcome::default() };
    let mut printer = args.json.then(EachCall::begin).transpose()?;
    while let Some(SimulatePart { part }) = parts.message().await.map_err(failed)? {
        match part {
            Some(Part::Begin(begin)) => out.begin = begin,
            Some(Part::Page(page)) => {
                if let Some(printer) = &mut printer {
                    printer.page(&page)?;
                }
                out.take(page);
                progress.set_message(format!("{} calls looked at", out.looked_at));
                progress.tick();
            }
            Some(Part::End(end)) => out.end = end,
            None => {}
        }
    }
    progress.finish_and_clear();
    match printer {
        Some(printer) => printer.end(&out)?,
        None => out.print(args.limit),
    }
    let failed = args.fail_on_change && out.changed > 0;
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What makes a row of the table.
type Row = (String, String, String, String, String);

/// All that was found.
#[derive(Default)]
struct Outcome {
    begin: SimulateBegin,
    end: SimulateEnd,
    period: (u64, u64),
    looked_at: u64,
    changed: u64,
    drifted: u64,
    opened: u64,
    /// How many, and one of them.
    groups: HashMap<Row, (u64, u64)>,
    beyond: u64,
    /// By tenant and cause: how many, and one of them.
    undecided: BTreeMap<(String, String), (u64, u64)>,
}

impl Outcome {
    fn take(&mut self, page: SimulatePage) {
        self.looked_at += page.looked_at;
        self.drifted += page.drifted;
        self.opened += page.opened;
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

    fn print(&self, limit: Option<u64>) {
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

/// Prints changed calls as they come: their number has no bound.
struct EachCall {
    out: std::io::BufWriter<std::io::Stdout>,
    any: bool,
}

impl EachCall {
    fn begin() -> std::io::Result<Self> {
        let mut out = std::io::BufWriter::new(std::io::stdout());
        out.write_all(b"{\"changes\":[")?;
        Ok(Self { out, any: false })
    }

    fn page(&mut self, page: &SimulatePage) -> std::io::Result<()> {
        for call in &page.each {
            let Some(group) = page.groups.get(call.group as usize) else { continue };
            let value = json!({
                "tenant": page.tenant,
                "index": call.index,
                "time": time_text(call.time_ns),
                "principal": group.principal,
                "action": group.action,
                "target": group.target,
                "before": decision(group, true),
                "after": decision(group, false),
            });
            let comma = if std::mem::replace(&mut self.any, true) { ",\n" } else { "\n" };
            write!(self.out, "{comma}{value}")?;
        }
        Ok(())
    }

    fn end(mut self, found: &Outcome) -> std::io::Result<()> {
        let undecided = found.undecided.iter().map(|((tenant, why), (count, example))| {
            json!({ "tenant": tenant, "why": why, "count": count, "example": example })
        });
        let visibility = found.end.visibility.iter().map(|change| {
            json!({
                "tenant": change.tenant, "principal": change.principal, "action": change.action,
                "target": change.target, "before": change.before, "after": !change.before,
            })
        });
        let resources = found.begin.changes.iter().map(|c| json!({ "resource": c.resource, "change": verb(c) }));
        let rest = json!({
            "revision": found.begin.revision,
            "resources": resources.collect::<Vec<_>>(),
            "tenants": found.begin.tenants,
            "since": time_text(found.period.0),
            "until": time_text(found.period.1),
            "lookedAt": found.looked_at,
            "changed": found.changed,
            "undecidable": undecided.collect::<Vec<_>>(),
            "drifted": found.drifted,
            "bodiesOpened": found.opened,
            "visibility": visibility.collect::<Vec<_>>(),
            "visibilityCut": found.end.visibility_cut,
        });
        let rest = rest.to_string();
        // One document: the members of the rest follow the list.
        writeln!(self.out, "\n],{}", rest.strip_prefix('{').unwrap_or(&rest))?;
        self.out.flush()
    }
}

fn decision(group: &ChangedGroup, before: bool) -> Value {
    match before {
        true => json!({ "effect": group.before, "by": group.before_by, "reason": group.before_reason }),
        false => json!({ "effect": group.after, "by": group.after_by, "reason": group.after_reason }),
    }
}

/// `allow by role:analyst`.
fn cell(effect: &str, by: &[String]) -> String {
    match by {
        [] => cut(&format!("{effect}: nothing permits")),
        some => cut(&format!("{effect} by {}", some.join(", "))),
    }
}

fn verb(change: &ResourceChange) -> &'static str {
    match change.kind() {
        ChangeKind::Created => "created",
        ChangeKind::Updated => "changed",
        ChangeKind::Deleted => "deleted",
        ChangeKind::Unchanged | ChangeKind::Unspecified => "unchanged",
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
