//! Every changed call, as one JSON document that is written as it comes.

use std::io::Write;

use provost_wire::admin::{ChangedGroup, SimulatePage};
use serde_json::{Value, json};

use super::{outcome::Outcome, verb};
use crate::cli::audit::time_text;

/// Prints changed calls as they come: their number has no bound.
pub struct EachCall {
    out: std::io::BufWriter<std::io::Stdout>,
    any: bool,
}

impl EachCall {
    pub fn begin() -> std::io::Result<Self> {
        let mut out = std::io::BufWriter::new(std::io::stdout());
        out.write_all(b"{\"changes\":[")?;
        Ok(Self { out, any: false })
    }

    pub fn page(&mut self, page: &SimulatePage) -> std::io::Result<()> {
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

    pub fn end(mut self, found: &Outcome) -> std::io::Result<()> {
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
