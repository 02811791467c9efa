//! `provost why`: one decision explained.

use std::{net::IpAddr, process::ExitCode};

use clap::{Args, ValueEnum};
use provost_data_policy::{Explanation, Held, PolicyWord};
use provost_types::{Effect, PolicyMode};
use provost_wire::{admin::WhyRequest, admin_over, policy_over};
use serde_json::Value;

use super::{
    AdminArgs,
    admin::{dial, failed, tenant},
    arguments,
    audit::{parse_moment, time_text},
};
use crate::{
    failure::{Failure, Usage},
    simulate::Answer,
};

/// What somebody expects.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Expected {
    Allow,
    Deny,
}

#[derive(Args)]
pub struct WhyArgs {
    /// The decision that you expect: the exit code is 0 if it is that, else 1.
    #[arg(value_enum, ignore_case = true, value_name = "ALLOW|DENY")]
    expected: Expected,
    /// A recorded call, by the index of its intent or denial.
    #[arg(long, value_name = "INDEX", conflicts_with_all = ["principal", "tool", "prompt", "resource", "model"])]
    record: Option<u64>,
    /// Who calls.
    #[arg(long, required_unless_present = "record")]
    principal: Option<String>,
    /// The tool, `plugin.tool`, or an alias.
    #[arg(long, group = "object")]
    tool: Option<String>,
    /// Or the prompt, `plugin.prompt`.
    #[arg(long, group = "object")]
    prompt: Option<String>,
    /// Or the resource, by its upstream's URI; `provost:PLUGIN:URI` to say whose.
    #[arg(long, group = "object", value_name = "URI")]
    resource: Option<String>,
    /// Or the model.
    #[arg(long, group = "object")]
    model: Option<String>,
    /// An argument, `name=value`; a value that is JSON (`3`, `true`, `["a"]`) is taken as JSON.
    #[arg(long = "arg", value_name = "K=V")]
    args: Vec<String>,
    /// All arguments as one JSON object; without a value: print as JSON.
    #[arg(long, value_name = "JSON", num_args = 0..=1, default_missing_value = "")]
    json: Option<String>,
    /// When: RFC 3339, or how long ago (`2h`). Default: now.
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    at: Option<u64>,
    /// The way in.
    #[arg(long, default_value = "http", value_parser = ["http", "ws", "h3", "quic", "stdio"])]
    transport: String,
    /// The peer's address.
    #[arg(long, value_name = "IP")]
    address: Option<IpAddr>,
    #[command(flatten)]
    admin: AdminArgs,
}

pub async fn run(args: WhyArgs) -> anyhow::Result<ExitCode> {
    let (action, target) = match (&args.tool, &args.prompt, &args.resource, &args.model) {
        (Some(tool), ..) => ("call_tool", tool.clone()),
        (_, Some(prompt), ..) => ("get_prompt", prompt.clone()),
        (_, _, Some(uri), _) => ("read_resource", uri.clone()),
        (.., Some(model)) => ("use_model", model.clone()),
        _ if args.record.is_some() => ("", String::new()),
        _ => {
            let hint = "give --tool, --prompt, --resource or --model, or --record INDEX";
            return Err(Usage(Failure::new("PV-WHY-CALL", "what is called is not said", hint)).into());
        }
    };
    let arguments = given(&args)?;
    let (channel, token, context) = dial(&args.admin).await?;
    let tenant = tenant(&mut admin_over(channel.clone(), token.clone()), context.tenant.as_deref()).await?;
    let request = WhyRequest {
        tenant,
        record: args.record,
        principal: args.principal.clone().unwrap_or_default(),
        action: action.to_owned(),
        target,
        arguments,
        at_ns: args.at.unwrap_or_default(),
        transport: args.transport.clone(),
        address: args.address.map(|address| address.to_string()).unwrap_or_default(),
    };
    let told = policy_over(channel, token).why(request).await.map_err(failed)?.into_inner().explanation;
    let answer: Answer = serde_json::from_str(&told)?;
    if args.json.as_deref() == Some("") {
        println!("{}", serde_json::to_string_pretty(&serde_json::from_str::<Value>(&told)?)?);
    } else {
        print(&answer);
    }
    let expected = match args.expected {
        Expected::Allow => Effect::Allow,
        Expected::Deny => Effect::Deny,
    };
    let as_expected = answer.unknown.is_none() && answer.decision.effect == expected;
    Ok(if as_expected { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn given(args: &WhyArgs) -> anyhow::Result<String> {
    if let Some(given) = args.json.as_deref().filter(|text| !text.is_empty()) {
        return Ok(given.to_owned());
    }
    if args.args.is_empty() {
        return Ok(String::new());
    }
    Ok(Value::Object(arguments::of_pairs(&args.args)?).to_string())
}

fn word(effect: Effect) -> &'static str {
    match effect {
        Effect::Allow => "ALLOW",
        Effect::Deny => "DENY",
    }
}

fn print(answer: &Answer) {
    let Answer { tenant, revision, at_ns, explanation, decision, .. } = answer;
    println!("{}  {} (tenant {tenant})", word(decision.effect), explanation.asked);
    println!("as of {}, under revision {revision}", time_text(*at_ns));
    if let Some(then) = &answer.recorded {
        let by = if then.policies.is_empty() { "nothing".to_owned() } else { then.policies.join(", ") };
        let refused = then.error.as_deref().map(|code| format!(", refused with {code}")).unwrap_or_default();
        println!("recorded as {}: decided by {by} under revision {}{refused}", then.index, then.revision);
    }
    if let Some(unknown) = &answer.unknown {
        println!("NOT CERTAIN: the decision depends on what is not known any more ({unknown})");
    }
    println!("because {}", decision.reason);
    print_parts(explanation);
    if let Some(model) = &answer.model {
        println!("\nThe model behind the tool: {}  {}", word(model.decision.effect), model.asked);
        println!("because {}", model.decision.reason);
        print_parts(model);
    }
}

fn print_parts(told: &Explanation) {
    if !told.roles.is_empty() {
        println!("\nRoles that grant it");
        for role in &told.roles {
            let bindings: Vec<String> = role.bindings.iter().map(|held| binding(held, "until")).collect();
            println!("  {} ({}), by {}", role.role, role.grants.join(", "), bindings.join(", "));
        }
    }
    print_policies("Policies that apply", &told.policies);
    if !told.near_roles.is_empty() {
        println!("\nRoles that would grant it");
        for near in &told.near_roles {
            let ended: Vec<String> = near.ended.iter().map(|held| binding(held, "ended")).collect();
            match ended.as_slice() {
                [] => println!("  {}: not bound to the principal", near.role),
                some => println!("  {}: {}", near.role, some.join(", ")),
            }
        }
    }
    print_policies("Policies that would permit it", &told.near_policies);
}

fn binding(held: &Held, word: &str) -> String {
    match &held.expires {
        Some(time) => format!("RoleBinding {} {word} {time}", held.binding),
        None => format!("RoleBinding {}", held.binding),
    }
}

fn print_policies(heading: &str, policies: &[PolicyWord]) {
    if policies.is_empty() {
        return;
    }
    println!("\n{heading}");
    for policy in policies {
        let verb = match policy.effect {
            Effect::Allow => "permits",
            Effect::Deny => "forbids",
        };
        let line = policy.line.map(|line| format!(", line {line}")).unwrap_or_default();
        let mode = match policy.mode {
            PolicyMode::Enforce => "",
            PolicyMode::Observe => ", only observes",
        };
        println!("  {} {verb}{mode} (Policy {}{line})", policy.id, policy.id.split('/').next().unwrap_or_default());
        if let Some(error) = &policy.error {
            println!("    cannot be evaluated: {error}");
        }
        if let Some(missing) = &policy.missing {
            println!("    if only: {missing}");
        }
        for line in policy.text.trim().lines() {
            println!("    | {line}");
        }
    }
}
