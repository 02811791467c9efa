//! `provost cluster backup`: take one, or verify one.

use std::{
    io::{self, Read},
    path::PathBuf,
    time::Duration,
};

use age::x25519;
use anyhow::Context;
use clap::Args;
use provost_control_api::{BackupError, BackupSummary, verify_backup};
use provost_wire::admin::BackupRequest;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{
    super::{
        AdminArgs,
        admin::{connect, failed},
    },
    files::{self, NewFile},
    tell,
};
use crate::failure::Failure;

/// Parts between the connection and the verifier.
const WAITING_PARTS: usize = 4;
/// A server that sends nothing for so long is given up.
const PART_LIMIT: Duration = Duration::from_secs(90);

#[derive(Args)]
pub struct BackupArgs {
    /// The file to write, or with `--verify` to read.
    file: PathBuf,
    /// Verify the file instead of taking a backup: every byte is checked, nothing is changed.
    #[arg(long)]
    verify: bool,
    /// Encrypt to this age recipient (`age1…`); may be given several times.
    #[arg(long, value_name = "RECIPIENT", value_parser = files::recipient, conflicts_with = "verify")]
    age_recipient: Vec<x25519::Recipient>,
    /// A file with the age identity that decrypts the backup.
    #[arg(long, value_name = "FILE", requires = "verify")]
    age_identity: Option<PathBuf>,
    /// Replace the file if there is one.
    #[arg(long, conflicts_with = "verify")]
    force: bool,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

pub async fn run(args: BackupArgs) -> anyhow::Result<()> {
    let summary = if args.verify {
        let (file, identity) = (args.file.clone(), args.age_identity.clone());
        let verify = move || {
            let source = files::open(&file, identity.as_deref())?;
            verify_backup(source).map_err(ours)
        };
        tokio::task::spawn_blocking(verify).await??
    } else {
        take(&args).await?
    };
    let done = if args.verify { "is whole" } else { "written" };
    let encrypted = if args.age_recipient.is_empty() { "" } else { ", encrypted" };
    tell(args.json, || format!("{} {done}{encrypted}: {}", args.file.display(), sentence(&summary)), value(&summary))
}

/// What arrives is verified while it is written; what was written is read back.
async fn take(args: &BackupArgs) -> anyhow::Result<BackupSummary> {
    let (mut client, _) = connect(&args.admin).await?;
    let mut file = NewFile::create(&args.file, &args.age_recipient, args.force)?;
    let mut parts = client.backup(BackupRequest {}).await.map_err(failed)?.into_inner();
    let (sender, receiver) = mpsc::channel(WAITING_PARTS);
    let verifier =
        tokio::task::spawn_blocking(move || verify_backup(Received { parts: receiver, part: Vec::new(), at: 0 }));
    loop {
        let part = tokio::time::timeout(PART_LIMIT, parts.message()).await.map_err(|_| {
            Failure::new("PV-BACKUP-IO", "the server stopped sending the backup", "try again; nothing was kept")
        })?;
        let Some(part) = part.map_err(failed)? else { break };
        // Nothing else runs here, so writing may block.
        file.write(&part.data).with_context(|| format!("PV-BACKUP-IO: {} cannot be written", args.file.display()))?;
        // An error means that the verifier has seen enough: it says what below.
        if sender.send(part.data).await.is_err() {
            break;
        }
    }
    drop(sender);
    let summary = verifier.await?.map_err(ours)?;
    tokio::task::spawn_blocking(move || file.finish())
        .await?
        .with_context(|| format!("PV-BACKUP-IO: {} cannot be written", args.file.display()))?;
    Ok(summary)
}

/// The parts as they arrive; ends when no more come.
struct Received {
    parts: mpsc::Receiver<Vec<u8>>,
    part: Vec<u8>,
    at: usize,
}

impl Read for Received {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.part.len() {
            let Some(part) = self.parts.blocking_recv() else { return Ok(0) };
            (self.part, self.at) = (part, 0);
        }
        let count = buffer.len().min(self.part.len() - self.at);
        buffer[..count].copy_from_slice(&self.part[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

/// A backup's error as one of the command line.
pub fn ours(error: BackupError) -> anyhow::Error {
    let hint = match &error {
        BackupError::Format(_) => "is this the right file, and of no later release?",
        BackupError::Damaged { .. } => "use another copy of it, or another backup",
        BackupError::Target(_) => "give an empty --data-dir and a new --cluster name",
        BackupError::Key(_) => "give the secrets.key of the cluster that the backup was taken from",
        _ => "see the cause above",
    };
    Failure::new(error.code(), error.to_string(), hint).into()
}

/// The summary for people.
pub fn sentence(summary: &BackupSummary) -> String {
    let BackupSummary { header, resources, history, bytes, hash } = summary;
    format!(
        "cluster {} at revision {}, {} ({}), by {} {}; {resources} resources, {history} past changes, {bytes} bytes, \
         BLAKE3 {hash}",
        header.cluster, header.revision, header.time, header.index, header.node, header.version
    )
}

/// The summary for programs.
pub fn value(summary: &BackupSummary) -> Value {
    let BackupSummary { header, resources, history, bytes, hash } = summary;
    json!({
        "cluster": header.cluster, "revision": header.revision.0, "index": header.index, "time": header.time,
        "node": header.node, "version": header.version,
        "resources": resources, "history": history, "bytes": bytes, "blake3": hash,
    })
}
