//! `provost kill-switch`: stops calls on every node at once, and lets them through again.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use provost_wire::{
    governance::{KillSwitch, Selector, SwitchOffRequest, SwitchOnRequest, SwitchedResponse, SwitchesRequest},
    governance_over,
};
use serde_json::{Value, json};

use super::{
    AdminArgs,
    admin::{dial, failed},
    table,
};
use crate::failure::{Failure, Usage};

#[derive(Subcommand)]
pub enum KillSwitchCommand {
    /// Stop the calls that fit everything that is named; those that run are cancelled.
    #[command(after_help = "Examples:\n  provost kill-switch on --plugin files --reason 'leaks data, INC-7'\n  \
                            provost kill-switch on --tenant acme --tool 'sql.*' --reason 'migration until 14:00'\n  \
                            provost kill-switch on --principal ana --reason 'token stolen'\n  \
                            provost kill-switch on --all --reason 'drill'\n\nCallers are told the reason. Lists \
                            stay as they are. Tenants named by PROVOST_TENANT count as --tenant.")]
    On(OnArgs),
    /// Let them through again.
    #[command(after_help = "Examples:\n  provost kill-switch off --plugin files --reason 'fixed in 2.1'\n  \
                            provost kill-switch off --all")]
    Off(OffArgs),
    /// Show what is stopped.
    #[command(after_help = "Example: provost kill-switch status --json")]
    Status(StatusArgs),
}

/// Which calls. `--tenant` is among the arguments of every command.
#[derive(Args)]
struct SelectorArgs {
    /// Calls that this plugin would serve.
    #[arg(long)]
    plugin: Option<String>,
    /// Calls of this tool, `plugin.tool`; `*` ends a prefix.
    #[arg(long)]
    tool: Option<String>,
    /// Calls by this principal.
    #[arg(long)]
    principal: Option<String>,
    /// Every call (on), every switch (off). Stands alone.
    #[arg(long)]
    all: bool,
}

#[derive(Args)]
pub struct OnArgs {
    #[command(flatten)]
    selector: SelectorArgs,
    /// Why. It is recorded, and callers are told.
    #[arg(long)]
    reason: String,
    /// Also for names that are not known.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    plain: StatusArgs,
}

#[derive(Args)]
pub struct OffArgs {
    #[command(flatten)]
    selector: SelectorArgs,
    /// Why; recorded.
    #[arg(long, default_value = "")]
    reason: String,
    #[command(flatten)]
    plain: StatusArgs,
}

#[derive(Args)]
pub struct StatusArgs {
    /// Print as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

impl SelectorArgs {
    fn selector(&self, admin: &AdminArgs) -> Result<Selector, Usage> {
        let text = |given: &Option<String>| given.clone().unwrap_or_default();
        let selector = Selector {
            tenant: text(&admin.tenant),
            plugin: text(&self.plugin),
            tool: text(&self.tool),
            principal: text(&self.principal),
        };
        let names_something = selector != Selector::default();
        if names_something == self.all {
            let text = if self.all {
                "--all stands alone: with it everything is meant, and here something is named"
            } else {
                "what is meant is not clear: nothing is named"
            };
            let hint = "give --tenant, --plugin, --tool or --principal (PROVOST_TENANT counts too), or --all alone";
            return Err(Usage(Failure::new("PV-KILL-SELECTOR", text, hint)));
        }
        Ok(selector)
    }
}

pub async fn run(command: KillSwitchCommand) -> anyhow::Result<ExitCode> {
    let (plain, done, verb) = match &command {
        KillSwitchCommand::On(args) => {
            let selector = Some(args.selector.selector(&args.plain.admin)?);
            let (channel, token, _) = dial(&args.plain.admin).await?;
            let (everything, reason, force) = (args.selector.all, args.reason.clone(), args.force);
            let request = SwitchOnRequest { selector, everything, reason, force };
            (&args.plain, governance_over(channel, token).switch_on(request).await, "stopped")
        }
        KillSwitchCommand::Off(args) => {
            let selector = Some(args.selector.selector(&args.plain.admin)?);
            let (channel, token, _) = dial(&args.plain.admin).await?;
            let request = SwitchOffRequest { selector, all: args.selector.all, reason: args.reason.clone() };
            (&args.plain, governance_over(channel, token).switch_off(request).await, "let through again")
        }
        KillSwitchCommand::Status(args) => {
            let (channel, token, _) = dial(&args.admin).await?;
            (args, governance_over(channel, token).switches(SwitchesRequest {}).await, "")
        }
    };
    let done = done.map_err(failed)?.into_inner();
    if plain.json {
        println!("{}", serde_json::to_string_pretty(&json_of(&done))?);
    } else {
        print(&done, verb);
    }
    Ok(ExitCode::SUCCESS)
}

fn print(done: &SwitchedResponse, verb: &str) {
    for switch in &done.switched {
        let note = if done.changed { "" } else { " (it was before)" };
        println!("{verb}: {}{note}; revision {}", switch.scope, done.revision);
    }
    if done.switched.is_empty() && !verb.is_empty() {
        println!("there is no such switch; nothing was changed");
    }
    if done.active.is_empty() {
        println!("no switch is on");
        return;
    }
    let rows = done.active.iter().map(|s| [s.scope.clone(), s.since.clone(), s.by.clone(), s.reason.clone()]);
    let rows: Vec<Vec<String>> = rows.map(|row| row.to_vec()).collect();
    table::print(&["STOPPED", "SINCE", "BY", "REASON"], &rows);
}

fn json_of(done: &SwitchedResponse) -> Value {
    let list = |switches: &[KillSwitch]| switches.iter().map(switch_json).collect::<Vec<_>>();
    json!({
        "revision": done.revision,
        "changed": done.changed,
        "switched": list(&done.switched),
        "active": list(&done.active),
    })
}

fn switch_json(switch: &KillSwitch) -> Value {
    let Selector { tenant, plugin, tool, principal } = switch.selector.clone().unwrap_or_default();
    let mut value = json!({
        "name": switch.name, "scope": switch.scope, "reason": switch.reason,
        "by": switch.by, "since": switch.since, "by_cluster": switch.by_cluster,
    });
    for (member, name) in [("tenant", tenant), ("plugin", plugin), ("tool", tool), ("principal", principal)] {
        if !name.is_empty() {
            value[member] = name.into();
        }
    }
    value
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        command: KillSwitchCommand,
    }

    /// What the selector of a line is, or whether it is refused; `None`: the line itself is.
    fn selected(line: &str) -> Option<Result<String, String>> {
        let parsed = Line::try_parse_from(["kill-switch"].into_iter().chain(line.split(' '))).ok()?;
        let (selector, plain) = match &parsed.command {
            KillSwitchCommand::On(args) => (&args.selector, &args.plain),
            KillSwitchCommand::Off(args) => (&args.selector, &args.plain),
            KillSwitchCommand::Status(_) => return None,
        };
        let all = selector.all;
        let shown = |s: Selector| format!("{}/{}/{}/{} {all}", s.tenant, s.plugin, s.tool, s.principal);
        Some(selector.selector(&plain.admin).map(shown).map_err(|f| f.0.code))
    }

    #[test]
    fn a_switch_names_something_or_says_all() {
        let refused = || Some(Err("PV-KILL-SELECTOR".to_owned()));
        for (line, expect) in [
            ("on --plugin files --reason x", Some(Ok("/files// false".to_owned()))),
            ("on --tenant acme --tool sql.* --principal ana --reason x", Some(Ok("acme//sql.*/ana false".to_owned()))),
            ("on --all --reason x", Some(Ok("/// true".to_owned()))),
            ("off --all", Some(Ok("/// true".to_owned()))),
            ("on --reason x", refused()),
            ("off", refused()),
            ("off --all --plugin files", refused()),
            ("on --plugin files", None),
        ] {
            assert_eq!(selected(line), expect, "{line}");
        }
    }
}
