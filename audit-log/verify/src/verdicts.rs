//! The four verdicts on one log, from what the pass over it found.

use std::path::Path;

use provost_audit_core::{Hash, LogId};

use crate::{
    anchor::Unread,
    bodies::Bodies,
    completeness::Completeness,
    options::VerifyOptions,
    pass::Pass,
    report::{Failure, LogReport, State, Verdict},
};

const HOUR_NS: u64 = 3_600_000_000_000;

pub(crate) fn verdict(state: State, text: impl Into<String>) -> Verdict {
    Verdict { state, text: text.into() }
}

pub(crate) fn integrity(holds: State, records: u64, anchored: Option<u64>) -> Verdict {
    let text = match anchored {
        Some(size) => format!("chain and tree of {records} records hold and extend the anchor of {size}"),
        None => format!("chain and tree of {records} records hold; no anchor from outside"),
    };
    verdict(holds, text)
}

pub(crate) fn authenticity(holds: State, trusted: bool, options: &VerifyOptions, pass: &Pass) -> Verdict {
    let Some(good) = &pass.good else {
        return verdict(State::Consistent, "no checkpoint is signed yet");
    };
    let age = options.now_ns.map(|now| now.saturating_sub(good.checkpoint.time_ns));
    if let (Some(age), Some(max)) = (age, options.max_age_ns)
        && age > max
    {
        return verdict(State::Stale, format!("the newest checkpoint is {} hours old", age / HOUR_NS));
    }
    let whose = match (trusted, holds) {
        (true, _) => "the trusted key",
        (false, State::Proven) => "the key that signed the anchor",
        (false, _) => "the key found in the directory itself",
    };
    verdict(holds, format!("{} records signed by {whose}", good.checkpoint.size))
}

pub(crate) fn completeness(holds: State, found: &Completeness, open: u64) -> Verdict {
    let breaches = found.violations.count;
    if breaches > 0 {
        return verdict(State::Failed, format!("{breaches} records break a rule"));
    }
    let open = match open {
        0 => String::new(),
        n => format!("; {n} calls were running"),
    };
    let text = match holds {
        State::Proven => format!("no gap in any writer's chain, one outcome for each intent{open}"),
        _ => format!(
            "no gap in any writer's chain, one outcome for each intent{open}; without an anchor a \
             removed end does not show"
        ),
    };
    verdict(holds, text)
}

pub(crate) fn retention(holds: State, records: u64, start: u64, bodies: &Bodies) -> Verdict {
    let text = match start {
        0 => format!("all {records} records since the first are present"),
        n => format!("records before {n} were taken by their roots (--since); none is pruned"),
    };
    let text = match bodies.counts() {
        (0, _) => text,
        (kept, 0) => format!("{text}; {kept} sealed bodies"),
        (kept, erased) => format!("{text}; {kept} sealed bodies, {erased} of them erased: their keys were destroyed"),
    };
    if bodies.missing > 0 {
        return verdict(State::Incomplete, format!("{text}; {} bodies that records name are not here", bodies.missing));
    }
    verdict(holds, text)
}

/// A log whose keys or checkpoints are missing, or are none: nothing can be judged by them.
pub(crate) fn without_key(log: &LogId, unread: &Unread) -> LogReport {
    let Unread { file, why, missing } = unread;
    let mut report = unjudged(log, &format!("{}: {why}", file.display()));
    if !*missing {
        report.authenticity = verdict(State::Failed, format!("{} was changed: {why}", file.display()));
    }
    report.failure = Some(Failure {
        attack: if *missing { format!("input is missing: {why}") } else { format!("the key was changed: {why}") },
        index: 0,
        file: file.clone(),
        offset: 0,
        expected: None,
        actual: None,
        last_good_checkpoint: 0,
    });
    report
}

/// A folder beside the tenants' whose name is no tenant's: nothing in it is judged, and nobody may take it as proven.
pub(crate) fn foreign(folder: &Path) -> LogReport {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let why = format!("`{name}` is no name of a tenant: nothing in this folder was verified");
    let unread = Unread { file: folder.to_owned(), why, missing: true };
    LogReport { origin: format!("?/{name}"), ..without_key(&LogId::CLUSTER, &unread) }
}

/// A log that cannot be judged at all.
pub(crate) fn unjudged(log: &LogId, why: &str) -> LogReport {
    let unknown = || verdict(State::Incomplete, why);
    LogReport {
        origin: log.origin("?"),
        records: 0,
        signed: 0,
        beyond: 0,
        anchored: None,
        signed_at_ns: None,
        root: Hash::ZERO,
        chain: Hash::ZERO,
        open_intents: 0,
        integrity: unknown(),
        authenticity: unknown(),
        completeness: unknown(),
        retention: unknown(),
        failure: None,
        violations: Vec::new(),
        back_dated: 0,
        suspicions: Vec::new(),
        notes: Vec::new(),
        proof: None,
    }
}

/// Things worth knowing that change no verdict.
pub(crate) fn add_notes(report: &mut LogReport, hashes_short: u64) {
    if report.beyond > 0 {
        let beyond = report.beyond;
        report.notes.push(format!("{beyond} records beyond the last signed checkpoint: chained but unsigned"));
    }
    if hashes_short > 0 {
        report.notes.push(format!(
            "beside {hashes_short} blocks the stored leaf hashes are missing: the records were checked without \
             them, but proofs cannot be made from this copy"
        ));
    }
    if report.back_dated > 0 {
        let n = report.back_dated;
        report.notes.push(format!(
            "{n} records are dated more than 15 minutes before a checkpoint that precedes them: a writer's clock \
             was wrong, or it back-dated them; their order is proven, their time is what the writer says"
        ));
    }
}
