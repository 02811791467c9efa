//! `provost audit show INDEX --body`: asks the node, which holds the key.

use std::{collections::HashMap, process::ExitCode, time::Duration};

use clap::Args;
use provost_audit_store::{SubjectPaths, stored_identities};
use provost_wire::admin::{NoteReadRequest, ShowBodyRequest};
use serde_json::{Value, json};

use super::{
    place::{Place, time_text},
    show::ShowArgs,
};
use crate::cli::{
    AdminArgs,
    admin::{connect, connect_audit, failed, tenant},
    context::default_data_dir,
};

/// The longest wait for a node to record that its files are read.
const NOTE_LIMIT: Duration = Duration::from_secs(2);

/// Which admin API to ask; `--tenant` and `--data-dir` are the command's own.
#[derive(Args, Clone)]
pub struct ReadArgs {
    /// Addresses of the admin API. Default: the running `provost dev`.
    #[arg(long, env = "PROVOST_ADMIN")]
    admin: Option<String>,
    /// The cluster's CA, PEM, for an admin API behind TLS.
    #[arg(long, value_name = "FILE", env = "PROVOST_ADMIN_CA")]
    admin_ca: Option<std::path::PathBuf>,
    /// Admin token. Better given by the environment than here.
    #[arg(long, env = "PROVOST_ADMIN_TOKEN", hide_env_values = true)]
    admin_token: Option<String>,
}

pub async fn run(args: &ShowArgs) -> anyhow::Result<ExitCode> {
    let api = AdminArgs {
        admin: args.admin.admin.clone(),
        admin_ca: args.admin.admin_ca.clone(),
        admin_token: args.admin.admin_token.clone(),
        data_dir: args.place.data_dir.clone(),
        tenant: args.tenant.clone(),
    };
    let tenant = match args.tenant.as_deref() {
        Some("cluster") => String::new(),
        given => tenant(&mut connect(&api).await?.0, given).await?,
    };
    let request = ShowBodyRequest { tenant, index: args.index };
    let shown = connect_audit(&api).await?.show_body(request).await.map_err(failed)?.into_inner();
    let mut body = json!({ "state": shown.state });
    match shown.state.as_str() {
        "opened" => body["content"] = content(&shown.body),
        "erased" => body["erased_at"] = Value::from(shown.detail.parse().map_or(shown.detail, time_text)),
        "omitted" => body["why"] = Value::from(shown.detail),
        _ => {}
    }
    let value = json!({
        "index": args.index,
        "leaf_hash": shown.leaf_hash,
        "record": serde_json::from_str::<Value>(&shown.record)?,
        "body": body,
    });
    println!("{}", serde_json::to_string_pretty(&value)?);
    Ok(ExitCode::SUCCESS)
}

/// Whom pseudonyms stand for.
#[derive(Default)]
pub struct Names(HashMap<String, String>);

impl Names {
    /// The name behind what a record calls a principal.
    pub fn of<'a>(&'a self, principal: &'a str) -> &'a str {
        self.0.get(principal).map_or(principal, String::as_str)
    }

    /// The pseudonym that stands for this name, if one does. With the names of several tenants the
    /// first: name the tenant.
    pub fn pseudonym(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(_, known)| *known == name).map(|(pseudonym, _)| pseudonym.as_str())
    }
}

/// Says to the node whose files are about to be read that they are, so that it is in the log, and
/// learns whom pseudonyms stand for. The files of a stopped node and copies are read without a
/// record: there is nobody to tell.
pub async fn note_read(command: &str, place: &Place, tenant: Option<&str>, filter: String) -> Names {
    if place.dir.is_some() {
        return Names::default();
    }
    let data_dir = place.data_dir.clone();
    let api = AdminArgs { admin: None, admin_ca: None, admin_token: None, data_dir: data_dir.clone(), tenant: None };
    let noting = async {
        let tenant = tenant.filter(|t| *t != "cluster").unwrap_or_default().to_owned();
        let request = NoteReadRequest { command: command.to_owned(), tenant, filter };
        connect_audit(&api).await?.note_read(request).await.map_err(failed)
    };
    match tokio::time::timeout(NOTE_LIMIT, noting).await {
        Ok(Ok(answer)) => {
            let known = answer.into_inner().identities;
            return Names(known.into_iter().map(|known| (known.pseudonym, known.name)).collect());
        }
        Ok(Err(cause)) => tracing::debug!(%cause, "the read is not recorded"),
        Err(_) => tracing::debug!("the read is not recorded: the node does not answer"),
    }
    // A stopped node: whoever may read its keys may resolve.
    let paths = SubjectPaths::below(&data_dir.unwrap_or_else(default_data_dir));
    let known = stored_identities(paths).unwrap_or_default();
    Names(known.into_iter().map(|known| (known.pseudonym.to_string(), known.name)).collect())
}

/// Bodies are JSON; other bytes are printed as text.
fn content(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|_| Value::from(String::from_utf8_lossy(bytes).into_owned()))
}
