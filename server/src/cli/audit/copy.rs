//! `provost audit verify --url`: a copy of the logs that an audit node serves, to be verified here.
//!
//! The node is trusted with nothing: only names of a log's files are written, no file gets longer than was
//! announced, and what came is judged like any other copy.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use clap::Args;
use indicatif::ProgressBar;
use provost_audit_core::LogId;
use provost_audit_verify::SEGMENTS_DIR;
use provost_types::Name;
use provost_wire::tls;
use reqwest::Client;
use secrecy::{ExposeSecret, SecretString};

use super::place::log_id;
use crate::{
    failure::{Failure, causes},
    node::keys::make_private_dir,
    tiles::files::{PART_BYTES, REPLACED, is_ours},
};

const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// The longest silence of the node.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);
/// Bytes of a list: 600,000 files, of segments of 65,536 records each.
const MAX_LIST_BYTES: u64 = 32 * 1024 * 1024;
/// How often a log is begun anew because its files moved on.
const MAX_TRIES: usize = 5;
const HINT: &str = "is it the address of `audit.listen` of an audit node, and `--ca` the cluster's CA?";

/// Where the logs are served.
#[derive(Args)]
pub struct SourceArgs {
    /// Copy the logs from the audit node that serves them there (`audit.listen`), and verify the copy.
    #[arg(long, value_name = "URL", conflicts_with = "path")]
    url: Option<String>,
    /// Token of a reader of the logs (`provost audit reader-token`). Better given by the environment than here.
    #[arg(long, env = "PROVOST_AUDIT_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// PEM file of the cluster's CA, for --url: an audit node is known by its name in the cluster, whatever
    /// the address. Default: the system's authorities, for a node behind a proxy.
    #[arg(long, value_name = "FILE", env = "PROVOST_CA")]
    ca: Option<PathBuf>,
    /// Keep the copy that --url makes in this new folder. Otherwise it goes, unless it was tampered with.
    #[arg(long, value_name = "DIR", requires = "url")]
    keep: Option<PathBuf>,
}

/// A copy that was made.
pub struct Copied {
    /// Where it is.
    pub dir: PathBuf,
    kept: bool,
}

impl Copied {
    /// Takes it away, unless it is to stay or is evidence.
    pub fn end(self, tampered: bool) {
        if !self.kept && tampered {
            eprintln!("the copy is kept as evidence in {}", self.dir.display());
        } else if !self.kept {
            // What stays of it in the folder of temporary files harms nobody.
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

impl SourceArgs {
    /// Where the logs are served, if they are not read from a folder.
    pub fn url(&self) -> Option<&str> {
        self.url.as_deref()
    }

    /// Copies the logs from where they are served, if that was asked for: all that the token may read, or the
    /// tenant's and the cluster's.
    pub async fn copy(&self, tenant: Option<&str>) -> anyhow::Result<Option<Copied>> {
        let Some(url) = &self.url else { return Ok(None) };
        let only = tenant.map(log_id).transpose()?;
        let source = self.source(url)?;
        let copied = self.folder()?;
        let done = source.copy(only.as_ref(), &copied.dir).await;
        source.bar.finish_and_clear();
        match done {
            Ok(()) => Ok(Some(copied)),
            Err(cause) => {
                // Made by this command, and no copy of anything.
                let _ = fs::remove_dir_all(&copied.dir);
                Err(cause)
            }
        }
    }

    fn folder(&self) -> anyhow::Result<Copied> {
        let dir = match &self.keep {
            Some(dir) if dir.exists() => {
                let text = format!("{} is there already", dir.display());
                return Err(Failure::new("PV-AUDIT-COPY", text, "name a new folder for --keep").into());
            }
            Some(dir) => dir.clone(),
            None => std::env::temp_dir().join(format!("provost-audit-{:016x}", rand::random::<u64>())),
        };
        make_private_dir(&dir).with_context(|| format!("PV-AUDIT-IO: {}", dir.display()))?;
        Ok(Copied { dir, kept: self.keep.is_some() })
    }

    fn source(&self, url: &str) -> anyhow::Result<Source> {
        let wrong = |why: String| Failure::new("PV-AUDIT-COPY", format!("{url}: {why}"), HINT);
        let parsed = url::Url::parse(url).map_err(|e| wrong(format!("it is no URL: {e}")))?;
        if !matches!(parsed.scheme(), "http" | "https") {
            return Err(wrong("it is neither http:// nor https://".to_owned()).into());
        }
        let builder = Client::builder()
            .connect_timeout(CONNECT_LIMIT)
            .read_timeout(SILENCE_LIMIT)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none());
        let builder = match &self.ca {
            Some(file) => {
                let wrong = |why: String| wrong(format!("{}: {why}", file.display()));
                let pem = fs::read_to_string(file).map_err(|e| wrong(e.to_string()))?;
                let config = tls::reader_config(&pem, tls::Role::AuditLog).map_err(|e| wrong(e.to_string()))?;
                builder.tls_backend_preconfigured(config)
            }
            None => builder.http1_only(),
        };
        let client = builder.build().map_err(|e| wrong(causes(&e)))?;
        let token = SecretString::from(self.token.clone().unwrap_or_default());
        Ok(Source { client, base: url.trim_end_matches('/').to_owned(), token, bar: ProgressBar::new_spinner() })
    }
}

/// An audit node that serves its logs.
struct Source {
    client: Client,
    base: String,
    token: SecretString,
    /// Shown on a terminal only.
    bar: ProgressBar,
}

impl Source {
    /// The cluster's log goes first: it names sizes of the others, which must not be ahead of what is copied of
    /// them; and which others there are is asked after that, for the same reason.
    async fn copy(&self, only: Option<&LogId>, into: &Path) -> anyhow::Result<()> {
        let cluster = self.logs().await?.contains(&LogId::CLUSTER);
        if cluster {
            self.copy_log(&LogId::CLUSTER, into).await?;
        }
        let mut tenants = self.logs().await?;
        tenants.retain(|log| *log != LogId::CLUSTER && only.is_none_or(|only| only == log));
        if let Some(wanted) = only.filter(|only| !(tenants.contains(only) || cluster && **only == LogId::CLUSTER)) {
            let hint = "name another, or get a token for it: `provost audit reader-token`";
            return Err(self.failure(&format!("no log of {wanted} is served for this token"), hint).into());
        }
        for log in &tenants {
            self.copy_log(log, into).await?;
        }
        Ok(())
    }

    fn failure(&self, why: &str, hint: &str) -> Failure {
        Failure::new("PV-AUDIT-COPY", format!("{}: {why}", self.base), hint)
    }

    /// The logs that are served.
    async fn logs(&self) -> anyhow::Result<Vec<LogId>> {
        let text = self.text("/logs").await?.ok_or_else(|| self.failure("it serves no audit logs", HINT))?;
        let log = |line: &str| match line.strip_prefix("tenants/") {
            Some(name) => Name::new(name).ok().map(|name| LogId(Some(name))),
            None => (line == "cluster").then_some(LogId::CLUSTER),
        };
        let logs: Option<Vec<LogId>> = text.lines().map(log).collect();
        Ok(logs.ok_or_else(|| self.failure("its list of logs is none", HINT))?)
    }

    async fn copy_log(&self, log: &LogId, into: &Path) -> anyhow::Result<()> {
        for _ in 0..MAX_TRIES {
            if self.try_log(log, into).await? {
                return Ok(());
            }
        }
        let why = format!("the log of {log} moved on each time while it was copied");
        Err(self.failure(&why, "try again, or copy the audit directory by other means").into())
    }

    /// One log into its folder. False: a file went meanwhile, begin anew.
    async fn try_log(&self, log: &LogId, into: &Path) -> anyhow::Result<bool> {
        let (folder, dir) = (log.folder(), into.join(log.folder()));
        let at = format!("/{}/files", folder.display());
        let io = || format!("PV-AUDIT-IO: {}", dir.display());
        if dir.exists() {
            fs::remove_dir_all(&dir).with_context(io)?;
        }
        fs::create_dir_all(dir.join(SEGMENTS_DIR)).with_context(io)?;
        for name in REPLACED {
            if let Some(bytes) = self.get(&format!("{at}/{name}"), PART_BYTES).await? {
                fs::write(dir.join(name), bytes).with_context(io)?;
            }
        }
        let Some(list) = self.text(&at).await? else { return Ok(false) };
        let files = listed(&list).ok_or_else(|| self.failure("its list of files is none", HINT))?;
        // The tail was just replaced by the next one.
        if !files.iter().any(|(_, name)| name.starts_with("tail-")) {
            return Ok(false);
        }
        for (size, name) in files {
            if !self.copy_file(&format!("{at}/{name}"), size, &dir.join(name)).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The first so many bytes of a file.
    async fn copy_file(&self, at: &str, size: u64, to: &Path) -> anyhow::Result<bool> {
        let io = || format!("PV-AUDIT-IO: {}", to.display());
        let mut file = File::create(to).with_context(io)?;
        let mut offset = 0;
        while offset < size {
            let part = self.get(&format!("{at}?offset={offset}"), PART_BYTES).await?;
            let Some(mut part) = part.filter(|part| !part.is_empty()) else { return Ok(false) };
            part.truncate(usize::try_from(size - offset).unwrap_or(usize::MAX));
            file.write_all(&part).with_context(io)?;
            offset += part.len() as u64;
            self.bar.set_message(format!("{at}: {} of {} MiB", offset >> 20, size >> 20));
            self.bar.tick();
        }
        Ok(true)
    }

    async fn text(&self, path: &str) -> anyhow::Result<Option<String>> {
        let bytes = self.get(path, MAX_LIST_BYTES).await?;
        let text = bytes.map(String::from_utf8).transpose();
        Ok(text.map_err(|_| self.failure("its answer is no text", HINT))?)
    }

    /// What stands there; `None`: nothing.
    async fn get(&self, path: &str, most: u64) -> anyhow::Result<Option<Vec<u8>>> {
        let failed = |why: String| self.failure(&format!("{path}: {why}"), HINT);
        let request = self.client.get(format!("{}{path}", self.base)).bearer_auth(self.token.expose_secret());
        let mut answer = request.send().await.map_err(|e| failed(causes(&e)))?;
        match answer.status().as_u16() {
            200 => {}
            404 => return Ok(None),
            401 => {
                let text = format!("{}: the token is not one of its readers'", self.base);
                let hint = "give one with `--token` or PROVOST_AUDIT_TOKEN; `provost audit reader-token` makes one";
                return Err(Failure::new("PV-AUDIT-READER", text, hint).into());
            }
            status => return Err(failed(format!("it answered {status}")).into()),
        }
        let mut bytes = Vec::new();
        while let Some(part) = answer.chunk().await.map_err(|e| failed(causes(&e)))? {
            bytes.extend_from_slice(&part);
            if bytes.len() as u64 > most {
                return Err(failed(format!("its answer is longer than {most} bytes")).into());
            }
        }
        Ok(Some(bytes))
    }
}

/// `SIZE NAME`, one a line; nothing if a name is not one of a log's files.
fn listed(text: &str) -> Option<Vec<(u64, &str)>> {
    text.lines().map(file).collect()
}

fn file(line: &str) -> Option<(u64, &str)> {
    let (size, name) = line.split_once(' ')?;
    Some((size.parse().ok().filter(|_| is_ours(name))?, name))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_files_of_a_log_and_nothing_else() {
        let segment = "segments/00000000000000065536.seg";
        let text = format!("12 checkpoints\n7 {segment}\n");
        assert_eq!(listed(&text).unwrap(), [(12, "checkpoints"), (7, segment)]);
        assert!(listed("").unwrap().is_empty());
        for wrong in ["checkpoints", "x checkpoints", "1  checkpoints", "1 /etc/passwd", "1 ../state", "-1 keys", "\n"]
        {
            assert!(listed(wrong).is_none(), "{wrong:?}");
        }
    }
}
