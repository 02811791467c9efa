//! `provost audit rotate-key`: makes the next checkpoint key beside the one in use. Whoever may write
//! there may sign anyway, so the file's permissions are the permission.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    thread::sleep,
    time::{Duration, Instant},
};

use clap::Args;
use provost_audit_core::{NoteSigner, VerifierKey};
use provost_audit_store::{CheckpointKey, next_key_file};
use provost_audit_verify::KEY_FILE;

use crate::{cli::context::default_data_dir, failure::Failure};

/// How long a running node is given to take the key over.
const TAKEN_LIMIT: Duration = Duration::from_secs(30);

#[derive(Args)]
pub struct RotateKeyArgs {
    /// The node's data. Default: that of the running `provost dev`.
    #[arg(long, env = "PROVOST_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Do not wait until a running node has taken it over.
    #[arg(long)]
    no_wait: bool,
}

/// Makes it, prints the vkey that auditors will need, and waits.
pub fn run(args: &RotateKeyArgs) -> anyhow::Result<ExitCode> {
    let data_dir = args.data_dir.clone().unwrap_or_else(default_data_dir);
    let key_file = data_dir.join("keys").join("audit-checkpoint.key");
    let name = name(&data_dir)?;
    let next = CheckpointKey::prepare_next(&key_file)?;
    println!("{}", VerifierKey { name, public_key: next.public_key() }.to_text());
    let began = Instant::now();
    while !args.no_wait && began.elapsed() < TAKEN_LIMIT {
        if !next_key_file(&key_file).exists() {
            eprintln!("the new key signs; give it to the auditors and to the witnesses' policies");
            return Ok(ExitCode::SUCCESS);
        }
        sleep(Duration::from_millis(200));
    }
    eprintln!(
        "no running node has taken it over yet: the leader of the audit group does, at its next start at the latest"
    );
    Ok(ExitCode::SUCCESS)
}

/// The cluster log's name, from the key in use.
fn name(data_dir: &Path) -> anyhow::Result<String> {
    let path = data_dir.join("audit").join(KEY_FILE);
    let key = std::fs::read_to_string(&path).ok().and_then(|text| VerifierKey::parse(&text).ok());
    key.map(|key| key.name).ok_or_else(|| {
        let text = format!("{} holds no audit log", data_dir.display());
        Failure::new("PV-CLI-AUDIT-DIR", text, "name the data directory of a node with the role audit-log").into()
    })
}
