//! `provost token` and `provost secret`.

use std::{io::Read, process::ExitCode, time::Duration};

use clap::{Args, Subcommand};
use provost_wire::admin::{SecretSetRequest, TokenCreateRequest};
use serde_json::json;

use super::{
    AdminArgs,
    admin::{connect, failed, tenant},
};
use crate::failure::Failure;

/// Largest secret value, bytes.
const MAX_SECRET_BYTES: u64 = 64 << 10;

#[derive(Subcommand)]
pub enum TokenCommand {
    /// Make a token for a principal; it is shown this once.
    #[command(after_help = "Example: provost token create --principal ana --ttl 8h")]
    Create(TokenCreateArgs),
}

#[derive(Args)]
pub struct TokenCreateArgs {
    /// The principal that callers with the token are.
    #[arg(long)]
    principal: String,
    /// How long it is good for: `90s`, `15m`, `8h`, `30d`. Default: until it is deleted.
    #[arg(long, value_parser = parse_duration)]
    ttl: Option<Duration>,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Subcommand)]
pub enum SecretCommand {
    /// Set a secret; its value is read from standard input.
    #[command(after_help = "Example: provost secret set github-token < token.txt")]
    Set(SecretSetArgs),
}

#[derive(Args)]
pub struct SecretSetArgs {
    /// The secret's name.
    name: String,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Reads `90s`, `15m`, `8h`, `30d`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("`{text}` is not a duration: write 90s, 15m, 8h or 30d");
    let unit = text.chars().last().ok_or_else(bad)?;
    let (number, factor) = match unit {
        's' => (&text[..text.len() - 1], 1),
        'm' => (&text[..text.len() - 1], 60),
        'h' => (&text[..text.len() - 1], 3_600),
        'd' => (&text[..text.len() - 1], 86_400),
        _ => (text, 1),
    };
    let number: u64 = number.parse().map_err(|_| bad())?;
    number.checked_mul(factor).filter(|s| *s > 0).map(Duration::from_secs).ok_or_else(bad)
}

pub async fn token(command: TokenCommand) -> anyhow::Result<ExitCode> {
    let TokenCommand::Create(args) = command;
    let (mut client, context) = connect(&args.admin).await?;
    let tenant = tenant(&mut client, context.tenant.as_deref()).await?;
    let request = TokenCreateRequest {
        tenant,
        principal: args.principal,
        ttl_seconds: args.ttl.map_or(0, |ttl| ttl.as_secs()),
        message: String::new(),
    };
    let made = client.token_create(request).await.map_err(failed)?.into_inner();
    if args.json {
        let value = json!({ "token": made.token, "key": made.key, "expires": made.expires });
        println!("{}", serde_json::to_string_pretty(&value)?);
        return Ok(ExitCode::SUCCESS);
    }
    println!("{}", made.token);
    let end = if made.expires.is_empty() { "no end".to_owned() } else { made.expires };
    eprintln!("shown this once; expires: {end}; revoke: provost delete ApiKey {}", made.key);
    Ok(ExitCode::SUCCESS)
}

pub async fn secret(command: SecretCommand) -> anyhow::Result<ExitCode> {
    let SecretCommand::Set(args) = command;
    let mut value = Vec::new();
    std::io::stdin().take(MAX_SECRET_BYTES + 1).read_to_end(&mut value)?;
    while value.last().is_some_and(|b| matches!(b, b'\n' | b'\r')) {
        value.pop();
    }
    if value.is_empty() || value.len() as u64 > MAX_SECRET_BYTES {
        return Err(Failure::new(
            "PV-CLI-SECRET",
            format!("a secret has 1 to {MAX_SECRET_BYTES} bytes, and {} came in", value.len()),
            "give the value on standard input: provost secret set NAME < FILE",
        )
        .into());
    }
    let (mut client, context) = connect(&args.admin).await?;
    let tenant = tenant(&mut client, context.tenant.as_deref()).await?;
    let name = args.name.clone();
    let request = SecretSetRequest { tenant, name: args.name, value, message: String::new() };
    let response = client.secret_set(request).await.map_err(failed)?.into_inner();
    println!("secret {name} set; revision {}", response.revision);
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        for (text, seconds) in [("90s", 90), ("15m", 900), ("8h", 28_800), ("30d", 2_592_000), ("7", 7)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)));
        }
        for bad in ["", "0s", "h", "-1s", "1w", "é"] {
            assert!(parse_duration(bad).is_err(), "{bad} was taken");
        }
    }
}
