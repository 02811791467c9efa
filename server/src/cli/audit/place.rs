//! Which directory, which log, which moment: what the audit commands' flags mean.

use std::{
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use clap::Args;
use provost_audit_core::LogId;
use provost_types::Name;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    cli::{
        context::{DevFile, default_data_dir},
        secrets::parse_duration,
    },
    failure::Failure,
};

#[derive(Args)]
pub struct Place {
    /// The audit directory. Default: that of the running `provost dev`.
    #[arg(long, env = "PROVOST_AUDIT_DIR")]
    pub dir: Option<PathBuf>,
    /// Where the running `provost dev` keeps its data.
    #[arg(long, env = "PROVOST_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
}

impl Place {
    /// The directory.
    pub fn resolve(&self) -> anyhow::Result<PathBuf> {
        if let Some(dir) = &self.dir {
            if !dir.is_dir() {
                return Err(Failure::new(
                    "PV-CLI-AUDIT-DIR",
                    format!("{} is no directory, so it holds no audit log", dir.display()),
                    "name the audit directory of a node, or a copy of one",
                )
                .into());
            }
            return Ok(dir.clone());
        }
        let data_dir = self.data_dir.clone().unwrap_or_else(default_data_dir);
        let audit = data_dir.join("audit");
        // A stopped node's log can be read as well: only the directory must be there.
        if audit.is_dir() { Ok(audit) } else { Ok(DevFile::read(&data_dir)?.audit_dir) }
    }
}

/// A moment in nanoseconds since the Unix epoch.
pub fn parse_moment(text: &str) -> Result<u64, String> {
    if let Ok(time) = OffsetDateTime::parse(text, &Rfc3339) {
        return u64::try_from(time.unix_timestamp_nanos()).map_err(|_| "before 1970".to_owned());
    }
    let ago =
        parse_duration(text).map_err(|_| format!("`{text}` is neither RFC 3339 nor a duration such as 15m or 24h"))?;
    let ago = u64::try_from(ago.as_nanos()).unwrap_or(u64::MAX);
    Ok(now_ns().saturating_sub(ago))
}

pub fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// A time for people, in UTC to the millisecond.
pub fn time_text(time_ns: u64) -> String {
    let milliseconds = i128::from(time_ns / 1_000_000);
    OffsetDateTime::from_unix_timestamp_nanos(milliseconds * 1_000_000)
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_else(|| time_ns.to_string())
}

/// The log that `--tenant` names.
pub fn log_id(tenant: &str) -> anyhow::Result<LogId> {
    if tenant == "cluster" {
        return Ok(LogId::CLUSTER);
    }
    let name = Name::new(tenant)
        .map_err(|cause| Failure::new("PV-CLI-TENANT", cause.to_string(), "name a tenant, or `cluster`"))?;
    Ok(LogId(Some(name)))
}

/// Says on stderr that the log that is asked for is not there: what is found in it is nothing.
pub fn tell_absent(dir: &Path, log: Option<&LogId>) {
    if let Some(log) = log.filter(|log| !dir.join(log.folder()).is_dir()) {
        eprintln!("there is no log of {log} in {}: see that the name is right", dir.display());
    }
}

/// The log of the only tenant there is.
pub fn only_tenant(dir: &Path) -> anyhow::Result<LogId> {
    let mut tenants: Vec<LogId> =
        provost_audit_verify::list_logs(dir)?.into_iter().filter(|log| *log != LogId::CLUSTER).collect();
    match (tenants.pop(), tenants.is_empty()) {
        (Some(only), true) => Ok(only),
        _ => Err(Failure::new(
            "PV-CLI-TENANT",
            "which tenant's log is meant is not clear",
            "give --tenant NAME, or --tenant cluster",
        )
        .into()),
    }
}
