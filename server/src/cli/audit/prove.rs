//! `provost audit prove` and `check-proof`: proof files that are checked offline.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::Args;
use provost_audit_core::{Checkpoint, Hash, SignedNote, TlogConsistency, TlogProof, TreeHead, VerifierKey};
use provost_audit_verify::{Ed25519, LogLayout, prove_consistency, prove_inclusion};

use super::{
    place::{Place, log_id, only_tenant},
    receipt,
};
use crate::failure::Failure;

#[derive(Args)]
pub struct ProveArgs {
    /// The record's index in its log.
    #[arg(required_unless_present = "consistency")]
    index: Option<u64>,
    /// Prove instead that the signed log of NEW records extends that of OLD.
    #[arg(long, num_args = 1..=2, value_names = ["OLD", "NEW"], conflicts_with = "index")]
    consistency: Option<Vec<u64>>,
    /// Under the checkpoint of this size. Default: the latest, a cosigned one first.
    #[arg(long, conflicts_with = "consistency")]
    size: Option<u64>,
    /// The tenant whose log it is; `cluster` is the cluster's own. Default: the only tenant.
    #[arg(long)]
    tenant: Option<String>,
    #[command(flatten)]
    place: Place,
}

/// Prints the proof file.
pub fn run(args: &ProveArgs) -> anyhow::Result<ExitCode> {
    let dir = args.place.resolve()?;
    let log = match &args.tenant {
        Some(tenant) => log_id(tenant)?,
        None => only_tenant(&dir)?,
    };
    let layout = LogLayout::new(dir.join(log.folder()));
    let text = match (&args.consistency, args.index) {
        (Some(sizes), _) => {
            let old = sizes.first().copied().unwrap_or_default();
            prove_consistency(&layout, old, sizes.get(1).copied())?.to_text()
        }
        (None, index) => prove_inclusion(&layout, index.unwrap_or_default(), args.size)?.to_text(),
    };
    print!("{text}");
    Ok(ExitCode::SUCCESS)
}

#[derive(Args)]
pub struct CheckProofArgs {
    /// The proof file.
    file: PathBuf,
    /// The log's verifier key (C2SP vkey), got from elsewhere.
    #[arg(long, value_name = "VKEY")]
    key: String,
    /// The record's leaf hash, 64 hexadecimal digits.
    #[arg(long, value_name = "HASH")]
    leaf_hash: Option<String>,
    /// Or the caller's receipt, which has it (`-`: stdin).
    #[arg(long, value_name = "FILE", conflicts_with = "leaf_hash")]
    receipt: Option<PathBuf>,
    /// For a proof of consistency: the older checkpoint that you kept.
    #[arg(long, value_name = "CHECKPOINT")]
    against: Option<PathBuf>,
}

/// Checks it: exit code 0 when it holds, 1 when not.
pub fn run_check(args: &CheckProofArgs) -> anyhow::Result<ExitCode> {
    let read = |path: &PathBuf| {
        std::fs::read_to_string(path).with_context(|| format!("PV-CLI-FILE: {} cannot be read", path.display()))
    };
    let usage = |text: &str, hint: &str| Failure::new("PV-AUDIT-USAGE", text.to_owned(), hint);
    let text = read(&args.file)?;
    let key = VerifierKey::parse(&args.key).map_err(|e| usage(&e.to_string(), "give NAME+HASH+BASE64"))?;
    let checked = if let Ok(proof) = TlogConsistency::parse(&text) {
        let Some(kept) = &args.against else {
            return Err(usage("a proof of consistency begins at a checkpoint", "give it with --against").into());
        };
        proof.check(&kept_head(&read(kept)?, &key)?, &key, &Ed25519)
    } else {
        let proof = TlogProof::parse(&text).map_err(|e| usage(&e.to_string(), "give a .tlog-proof file"))?;
        let receipts = receipt::read_all(args.receipt.as_slice())?;
        let leaf = match (&args.leaf_hash, receipts.first()) {
            (Some(hash), _) => Hash::parse(hash.as_bytes()).map_err(|e| usage(&e.to_string(), "see `audit show`"))?,
            (None, Some(receipt)) if receipt.index != proof.index || receipt.log != key.name => {
                println!("does not hold: the receipt is of record {} of {}", receipt.index, receipt.log);
                return Ok(ExitCode::FAILURE);
            }
            (None, Some(receipt)) => receipt.leaf_hash,
            (None, None) => return Err(usage("what is proven?", "give --leaf-hash or --receipt").into()),
        };
        proof.check(&leaf, &key, &Ed25519)
    };
    match checked {
        Ok(head) => {
            println!("holds under the checkpoint of {} records of {}, root {}", head.size, head.origin, head.root);
            Ok(ExitCode::SUCCESS)
        }
        Err(why) => {
            println!("does not hold: {why}");
            Ok(ExitCode::FAILURE)
        }
    }
}

/// The head of the log's own checkpoint among those that the auditor kept; its signature is checked.
fn kept_head(file: &str, key: &VerifierKey) -> anyhow::Result<TreeHead> {
    for note in provost_audit_core::split_notes(file) {
        let signed = SignedNote::parse(note).and_then(|parsed| parsed.check(key, &Ed25519));
        match Checkpoint::parse_unchecked(note) {
            Ok(checkpoint) if checkpoint.origin == key.name && signed.is_ok() => return Ok(checkpoint.tree_head()),
            _ => {}
        }
    }
    let text = format!("the kept file has no checkpoint of {} with a valid signature", key.name);
    Err(Failure::new("PV-AUDIT-USAGE", text, "give the checkpoint that you kept").into())
}
