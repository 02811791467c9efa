//! Verifies a directory: which logs are there, each in turn, and one conclusion.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use provost_audit_core::{Checkpoint, LogId, VerifierKey};

use crate::{
    layout::{KEY_FILE, LogLayout, list_foreign, list_logs},
    log_check::{Checked, LogCheck},
    notes::{Note, read_notes},
    options::VerifyOptions,
    pool::Pool,
    receipt,
    regular::{self, MAX_KEY_BYTES},
    report::{Exit, LogReport, Report, State},
    tenant_heads::TenantHeads,
    verdicts,
    witness::Witnesses,
};

/// The question was wrong: exit code 5.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    /// Nothing to verify.
    #[error("PV-AUDIT-USAGE: {0} holds no audit log; give the audit directory, or the folder of one log")]
    NoLog(PathBuf),
    /// The log that was named is not there.
    #[error("PV-AUDIT-USAGE: {path} holds no log of {log}; see that the name is right, or leave it out")]
    NoSuchLog {
        /// The directory.
        path: PathBuf,
        /// The log.
        log: LogId,
    },
    /// The anchor cannot be used.
    #[error(
        "PV-AUDIT-USAGE: {path} is not a checkpoint file: {why}; give a file with one or more checkpoints, such as a kept copy of AUDIT_DIR/checkpoint"
    )]
    Anchor {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The policy cannot be used.
    #[error("PV-AUDIT-USAGE: the witness policy {path}: {why}; see c2sp.org/tlog-policy and docs/witness.md")]
    Policy {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The key cannot be used.
    #[error("PV-AUDIT-USAGE: the trusted key: {0}")]
    Key(provost_audit_core::NoteError),
    /// A proof needs one log.
    #[error("PV-AUDIT-USAGE: a proof is of one log; say which (--tenant NAME, or the folder of one log)")]
    ProofOfWhich,
    /// The directory cannot be read.
    #[error("PV-AUDIT-USAGE: {path} cannot be read; check that it is there, and that you may read it")]
    Io {
        /// The path.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// Verifies the audit directory, or the folder of one log, at `path`.
pub fn verify(path: &Path, options: &VerifyOptions) -> Result<Report, UsageError> {
    let io = |source| UsageError::Io { path: path.to_owned(), source };
    if path.is_file() {
        return Err(UsageError::NoLog(path.to_owned()));
    }
    let key = options.trusted_key.as_deref().map(VerifierKey::parse);
    let trusted = key.transpose().map_err(UsageError::Key)?.map(|key| key.public_key);
    let witnesses = options.witness_policy.as_deref().map(Witnesses::read).transpose()?;
    let trusted = trusted.map_or_else(|| key_of_policy(path, witnesses.as_ref(), options), |key| Ok(Some(key)))?;
    let anchored = anchor_logs(options)?;
    let single = single_log(path);
    let mut logs = match &single {
        Some(log) => vec![log.clone()],
        None => list_logs(path).map_err(io)?,
    };
    let asked = |log: &LogId| options.log.as_ref().is_none_or(|wanted| wanted == log);
    let missing: Vec<_> = match &single {
        None => anchored.iter().filter(|(log, _)| asked(log) && !logs.contains(log)).collect(),
        Some(_) => Vec::new(),
    };
    if let Some(wanted) = &options.log {
        let some = !logs.is_empty();
        logs.retain(|log| log == wanted);
        if some && logs.is_empty() && missing.is_empty() {
            return Err(UsageError::NoSuchLog { path: path.to_owned(), log: wanted.clone() });
        }
    }
    let foreign = match (&options.log, &single) {
        (None, None) => list_foreign(path).map_err(io)?,
        _ => Vec::new(),
    };
    if logs.is_empty() && missing.is_empty() && foreign.is_empty() {
        return Err(UsageError::NoLog(path.to_owned()));
    }
    if options.proof.is_some() && logs.len() != 1 {
        return Err(UsageError::ProofOfWhich);
    }
    let pool = Pool::start();
    let check = |log: LogId, options: &VerifyOptions, cluster: &ClusterSays| {
        let (dir, top) = match &single {
            Some(_) => (path.to_owned(), None),
            None => (path.join(log.folder()), Some(path)),
        };
        let (witnesses, layout, pool) = (witnesses.as_ref(), LogLayout::new(dir), &pool);
        let (heads, anchored) = (&cluster.heads, cluster.anchored);
        LogCheck { log, layout, top, trusted, witnesses, options, pool, heads, anchored }.run()
    };
    let beside = path.join(LogId::CLUSTER.folder());
    let mut cluster = ClusterSays::default();
    // It goes first: the others are judged by it, also where it is not asked for itself.
    if single.is_none() && beside.is_dir() {
        let asked = logs.contains(&LogId::CLUSTER);
        let aside = VerifyOptions { proof: None, ..options.clone() };
        let checked = check(LogId::CLUSTER, if asked { options } else { &aside }, &cluster);
        cluster = ClusterSays::new(checked, LogLayout::new(beside));
    }
    let mut reports = Vec::new();
    let mut missing_logs: Vec<String> = missing.iter().map(|(_, origin)| origin.clone()).collect();
    for log in &logs {
        if let Some(report) = cluster.report.take_if(|_| *log == LogId::CLUSTER) {
            reports.push(report);
            continue;
        }
        let mut checked = check(log.clone(), options, &cluster);
        match &cluster.report {
            // Its keys follow each other by the cluster's records: those must hold as well.
            Some(_) if checked.follows_keys => reports.extend(cluster.report.take()),
            Some(report) if report.exit() == Exit::Tampered => {
                let text = "the cluster's log beside it does not hold: verify the whole directory";
                checked.report.notes.push(text.to_owned());
            }
            _ => {}
        }
        reports.push(checked.report);
    }
    if options.log.is_none() {
        for (log, origin) in cluster.heads.logs() {
            // Asked anew: of a log that is being written, one that began meanwhile is not missing.
            let here = log == LogId::CLUSTER || path.join(log.folder()).exists();
            if !here && !missing_logs.contains(origin) {
                missing_logs.push(origin.clone());
            }
        }
    }
    reports.extend(foreign.iter().map(|folder| verdicts::foreign(folder)));
    let receipts = options.receipts.iter().map(|r| receipt::check(path, single.as_ref(), r, &reports));
    let receipts: Vec<_> = receipts.collect();
    let whole = missing_logs.is_empty() && receipts.iter().all(|receipt| receipt.holds);
    let start = if whole { Exit::Proven } else { Exit::Tampered };
    let exit = reports.iter().fold(start, |exit, log| exit.worse(log.exit()));
    let verdict = sentence(exit, options.against.is_some() || witnesses.is_some()).to_owned();
    Ok(Report { path: path.to_owned(), exit, verdict, logs: reports, missing_logs, receipts })
}

/// What the cluster's log says of the others.
#[derive(Default)]
struct ClusterSays {
    heads: TenantHeads,
    /// Records of it that an anchor covers.
    anchored: Option<u64>,
    /// Its own report, until it is given out.
    report: Option<LogReport>,
}

impl ClusterSays {
    fn new(checked: Checked, layout: LogLayout) -> Self {
        let Checked { report, heads, .. } = checked;
        // A changed cluster log says nothing about others.
        let heads = match report.integrity.state {
            State::Failed => TenantHeads::default(),
            _ => heads.unwrap_or_else(|| TenantHeads::read(layout)),
        };
        let anchored = report.anchored.filter(|_| report.exit() != Exit::Tampered);
        Self { heads, anchored, report: Some(report) }
    }
}

/// The key that the policy trusts for the log (of the cluster) that is here. A policy that lists
/// other logs only would judge this one by a key from its own directory.
fn key_of_policy(
    path: &Path,
    witnesses: Option<&Witnesses>,
    options: &VerifyOptions,
) -> Result<Option<[u8; 32]>, UsageError> {
    let Some(witnesses) = witnesses.filter(|w| w.lists_logs()) else { return Ok(None) };
    let own = [path.join(LogId::CLUSTER.folder()).join(KEY_FILE), path.join(KEY_FILE)];
    let names = own.iter().filter_map(|file| key_text(file));
    let names: Vec<String> = names.filter_map(|text| VerifierKey::parse(&text).ok()).map(|key| key.name).collect();
    match names.iter().find_map(|name| witnesses.log_key(name)) {
        Some(key) => Ok(Some(key.public_key)),
        None => Err(UsageError::Policy {
            path: options.witness_policy.clone().unwrap_or_default(),
            why: format!("it lists logs, and none is `{}`", names.first().map_or("?", String::as_str)),
        }),
    }
}

fn sentence(exit: Exit, anchored: bool) -> &'static str {
    match (exit, anchored) {
        (Exit::Proven, _) => "PROVEN: every log holds and extends the anchor",
        (Exit::Tampered, _) => "TAMPERED: records were changed, forged or removed; see above",
        (Exit::Unanchored, true) => "CONSISTENT, NOT PROVEN: the anchor does not cover every log that is here",
        (Exit::Unanchored, false) => {
            "CONSISTENT, NOT PROVEN: the logs hold within themselves, but nothing from outside \
             says that they are whole; compare with a kept checkpoint (--against)"
        }
        (Exit::Stale, _) => "STALE: the newest checkpoint is older than asked for",
        (Exit::Incomplete, _) => "INCOMPLETE: parts of the input are missing; see above",
        (Exit::Usage, _) => "the question was wrong",
    }
}

/// What a key file says, if it can be read.
fn key_text(file: &Path) -> Option<String> {
    regular::read(file, MAX_KEY_BYTES).ok().and_then(|bytes| String::from_utf8(bytes).ok())
}

/// The log whose own folder this is.
fn single_log(path: &Path) -> Option<LogId> {
    let layout = LogLayout::new(path);
    if !layout.exists() {
        return None;
    }
    let key = key_text(&path.join(KEY_FILE));
    let name = key.and_then(|text| VerifierKey::parse(&text).ok()).map(|key| key.name);
    // Without its key the log cannot be judged; the check will say so.
    Some(name.and_then(|n| LogId::from_origin(&n)).unwrap_or(LogId::CLUSTER))
}

/// The logs that the anchor speaks of.
fn anchor_logs(options: &VerifyOptions) -> Result<Vec<(LogId, String)>, UsageError> {
    let Some(path) = &options.against else { return Ok(Vec::new()) };
    let wrong = |why: String| UsageError::Anchor { path: path.clone(), why };
    // One that is absent has no notes either.
    fs::metadata(path).map_err(|source| UsageError::Io { path: path.clone(), source })?;
    let notes = read_notes(path).map_err(|e| wrong(e.to_string()))?;
    let notes: Result<Vec<Note>, _> = notes.collect();
    let notes = notes.map_err(|e| wrong(e.to_string()))?;
    if notes.is_empty() {
        return Err(wrong("there is nothing in it".to_owned()));
    }
    let mut logs: Vec<(LogId, String)> = Vec::new();
    for note in notes {
        let checkpoint = Checkpoint::parse_unchecked(&note.text).map_err(|e| wrong(e.to_string()))?;
        let log = LogId::from_origin(&checkpoint.origin)
            .ok_or_else(|| wrong(format!("`{}` is no log of ours", checkpoint.origin)))?;
        if !logs.iter().any(|(known, _)| *known == log) {
            logs.push((log, checkpoint.origin));
        }
    }
    Ok(logs)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use provost_types::Name;

    use super::*;

    #[test]
    fn a_wrong_question_says_what_is_wrong_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let (file, absent) = (dir.path().join("file"), dir.path().join("absent"));
        fs::write(&file, "no checkpoint").unwrap();
        fs::create_dir_all(dir.path().join("tenants/acme/segments")).unwrap();
        let said = |path: &Path, options: VerifyOptions| verify(path, &options).unwrap_err().to_string();
        let acmee = Some(LogId(Some(Name::new("acmee").unwrap())));
        for (path, options, wanted) in [
            (file.as_path(), VerifyOptions::default(), "file holds no audit log"),
            (absent.as_path(), VerifyOptions::default(), "absent holds no audit log"),
            (dir.path(), VerifyOptions { log: acmee, ..VerifyOptions::default() }, "no log of tenant acmee"),
            (
                dir.path(),
                VerifyOptions { against: Some(absent.clone()), ..VerifyOptions::default() },
                "absent cannot be read",
            ),
            (
                dir.path(),
                VerifyOptions { against: Some(file.clone()), ..VerifyOptions::default() },
                "file is not a checkpoint file",
            ),
        ] {
            let said = said(path, options);
            assert!(said.starts_with("PV-AUDIT-USAGE: ") && said.contains(wanted), "{wanted}: {said}");
        }
    }
}
