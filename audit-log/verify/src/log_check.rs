//! Verifies one log in one pass: its key, its checkpoints, its records, its end.
//!
//! Each byte of the records is read once. Blocks are checked by several threads and put together in
//! order, so that the first failure in the log is the one reported.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::Arc,
};

use provost_audit_core::{Frontier, Hash, LogId, SEGMENT_LEAVES, SegmentFooter, SegmentHeader, VerifierKey};

use crate::{
    anchor::{Checkpoints, Known, Refused, Unread},
    block_check::{Ask, BATCH},
    key_chain::KeyChain,
    layout::{KEY_FILE, LogLayout},
    marks::Marks,
    options::VerifyOptions,
    pass::{Pass, Stop},
    pool::{Batch, Pending, Pool},
    prove::prove_report,
    pruned,
    read::segment_footer,
    regular::{self, MAX_KEY_BYTES},
    report::{Failure, LogReport, ProofReport, State},
    segment_file::SegmentFile,
    tail::TailRun,
    tenant_heads::{self, TenantHeads},
    verdicts::{add_notes, authenticity, completeness, integrity, retention, unjudged, verdict, without_key},
    walk::{Part, ReadFault, Walk},
    witness::Witnesses,
};

/// A log and what it is compared with.
pub(crate) struct LogCheck<'a> {
    pub log: LogId,
    pub layout: LogLayout,
    /// The audit directory, when the log is one of several in it.
    pub top: Option<&'a Path>,
    pub trusted: Option<[u8; 32]>,
    pub witnesses: Option<&'a Witnesses>,
    pub options: &'a VerifyOptions,
    pub pool: &'a Pool,
    /// What the cluster's log notes, and its anchor.
    pub heads: &'a TenantHeads,
    pub anchored: Option<u64>,
}

/// What became of it.
pub(crate) struct Checked {
    pub report: LogReport,
    /// What the records note of other logs; `None`: they could not be read at all.
    pub heads: Option<TenantHeads>,
    /// Whether its checkpoints may be signed by keys that follow each other.
    pub follows_keys: bool,
}

impl From<LogReport> for Checked {
    fn from(report: LogReport) -> Self {
        Self { report, heads: None, follows_keys: false }
    }
}

/// A part that was read, or is being read.
enum Begun {
    Segment(Arc<SegmentFile>, SegmentHeader),
    Blocks(Pending),
    Footer(Arc<SegmentFile>, u64, SegmentFooter),
    Tail(TailRun, Ask),
}

impl LogCheck<'_> {
    pub(crate) fn run(self) -> Checked {
        let (origin, keys) = match self.identity() {
            Ok(found) => found,
            Err(unread) => return without_key(&self.log, &unread).into(),
        };
        let mut checkpoints = Checkpoints { witnesses: self.witnesses, ..Checkpoints::default() };
        let read = checkpoints.read_own(&self.layout.dir, self.top, &origin, &keys).and_then(|()| {
            let against = self.options.against.as_deref();
            against.map_or(Ok(()), |path| checkpoints.read_matching(path, &origin, &keys, true))
        });
        if let Err(unread) = read {
            return without_key(&self.log, &unread).into();
        }
        checkpoints.settle();
        let newest = checkpoints.known.last().map_or(0, |k| k.checkpoint.size);
        let begin = match self.skip_old(newest) {
            Ok(begin) => begin,
            Err(e) => return unjudged(&self.log, &e.to_string()).into(),
        };
        let pruned = match pruned::prefix(&self.layout, &origin) {
            Ok(found) => found,
            Err(fault) => return pruned::unreadable(&self.log, &origin, &fault).into(),
        };
        let kept = pruned.as_ref().map_or(0, |p| p.kept);
        let begin = begin.filter(|(_, tree)| tree.size() > kept);
        let begin = begin.or_else(|| pruned.as_ref().map(|p| (p.chain, p.tree.clone())));
        let start = begin.as_ref().map_or(0, |(_, tree)| tree.size());
        let noted = self.heads.of(&origin);
        let mut pass = Pass::new(self.layout.clone(), &origin, begin, &checkpoints.known, noted);
        let stop = self.read_all(&mut pass, start, &checkpoints.known).err();
        let proof = self.options.proof.map(|index| prove_report(&self.layout, index, pass.good.as_ref()));
        let judged = stop.is_none();
        let (noted, heads) = (std::mem::take(&mut pass.noted), std::mem::take(&mut pass.heads));
        let mut report = self.conclude(pass, stop, start, checkpoints.refused, checkpoints.notes, proof);
        match pruned {
            Some(prefix) if judged => prefix.judge(&self.layout, &mut report),
            Some(_) => report.retention = verdict(State::Incomplete, "not judged: the records do not hold"),
            None => {}
        }
        tenant_heads::judge(&mut report, &self.layout.dir, &noted, self.anchored);
        Checked { report, heads: Some(heads), follows_keys: keys.len() > 1 }
    }

    fn key_file(&self) -> PathBuf {
        self.layout.dir.join(KEY_FILE)
    }

    /// The log's origin, and the keys that may have signed it; otherwise why not.
    fn identity(&self) -> Result<(String, KeyChain), Unread> {
        let file = self.key_file();
        let other = |why: String| Unread { file: file.clone(), why, missing: false };
        let text = regular::read(&file, MAX_KEY_BYTES).map_err(|e| Unread::new(file.clone(), &e))?;
        let own = VerifierKey::parse(&String::from_utf8_lossy(&text)).map_err(|e| other(e.to_string()))?;
        if LogId::from_origin(&own.name) != Some(self.log.clone()) {
            return Err(other(format!("the key beside the log is of another log, {}", own.name)));
        }
        let keys = KeyChain::read(self.top, own.public_key, self.trusted)?;
        Ok((own.name, keys))
    }

    /// With `since`: whole segments before it, by the roots in their footers. A signed checkpoint
    /// must lie behind them, because only its root says that those roots are right. The cluster's log is
    /// always read: its records are what keys and tenants' logs are judged by.
    fn skip_old(&self, newest: u64) -> Result<Option<(Hash, Frontier)>, ReadFault> {
        let Some(since) = self.options.since_ns.filter(|_| self.log != LogId::CLUSTER) else { return Ok(None) };
        let mut start = 0;
        for first in self.layout.list_segments().unwrap_or_default() {
            if first >= newest {
                break;
            }
            let mut walk = Walk::new(self.layout.clone(), first);
            while let Some(part) = walk.next()? {
                let Part::Block(place) = part else { continue };
                if place.header.min_time_ns < since {
                    start = first;
                }
                break;
            }
        }
        if start == 0 {
            return Ok(None);
        }
        let mut tree = Frontier::default();
        let mut chain = Hash::ZERO;
        for first in (0..start).step_by(SEGMENT_LEAVES as usize) {
            let footer = segment_footer(&self.layout, first)?;
            tree.append_subtree(footer.root, SEGMENT_LEAVES.trailing_zeros());
            chain = footer.chain_out;
        }
        Ok(Some((chain, tree)))
    }

    fn read_all(&self, pass: &mut Pass, start: u64, known: &[Known]) -> Result<(), Stop> {
        let mut walk = Walk::new(self.layout.clone(), start);
        let mut marks = Marks::new(self.log.tenant(), known, pass.noted.sizes());
        let mut begun = VecDeque::new();
        let mut batch = Batch::new();
        let mut end = None;
        loop {
            while end.is_none() && begun.len() < self.pool.window() {
                let part = match walk.next() {
                    Ok(Some(Part::Block(place))) => {
                        let ask = marks.ask(place.header.first_index, u64::from(place.header.count));
                        batch.push((place, ask));
                        if batch.len() == BATCH {
                            begun.push_back(Begun::Blocks(self.pool.submit(std::mem::take(&mut batch))));
                        }
                        continue;
                    }
                    part => part,
                };
                if !batch.is_empty() {
                    begun.push_back(Begun::Blocks(self.pool.submit(std::mem::take(&mut batch))));
                }
                match part {
                    Ok(Some(part)) => begun.extend(begin(part, &mut marks)),
                    Ok(None) => end = Some(None),
                    Err(fault) => end = Some(Some(fault)),
                }
            }
            match begun.pop_front() {
                Some(Begun::Segment(file, header)) => pass.segment_start(&file, &header)?,
                Some(Begun::Blocks(pending)) => {
                    pending.wait().into_iter().try_for_each(|(place, checked)| pass.block(&place, checked))?;
                }
                Some(Begun::Footer(file, offset, footer)) => pass.segment_end(&file, offset, &footer)?,
                Some(Begun::Tail(run, ask)) => pass.tail(&run, &ask)?,
                None => break,
            }
        }
        match end.flatten() {
            Some(fault) => Err(pass.unreadable(&fault)),
            None => pass.behind(walk.end()).map_or(Ok(()), Err),
        }
    }

    fn conclude(
        &self,
        mut pass: Pass,
        stop: Option<Stop>,
        start: u64,
        refused: Option<Refused>,
        notes: Vec<String>,
        proof: Option<ProofReport>,
    ) -> LogReport {
        let records = pass.records;
        let signed = pass.good.as_ref().map_or(0, |k| k.checkpoint.size);
        let open_intents = if stop.is_none() { pass.completeness.finish() } else { 0 };
        let holds = if pass.anchored.is_some() { State::Proven } else { State::Consistent };
        let mut report = LogReport {
            origin: pass.origin.clone(),
            records,
            signed,
            beyond: records.saturating_sub(signed),
            anchored: pass.anchored,
            signed_at_ns: pass.good.as_ref().map(|k| k.checkpoint.time_ns),
            root: pass.tree.root(),
            chain: pass.chain,
            open_intents,
            integrity: integrity(holds, records, pass.anchored),
            authenticity: authenticity(holds, self.trusted.is_some(), self.options, &pass),
            completeness: completeness(holds, &pass.completeness, open_intents),
            retention: retention(holds, records, start, &pass.bodies),
            failure: None,
            back_dated: pass.completeness.back_dated.count,
            violations: pass.completeness.violations.listed,
            suspicions: pass.completeness.back_dated.listed,
            notes,
            proof,
        };
        if stop.is_none() {
            add_notes(&mut report, pass.hashes_short);
        }
        if let Some(refused) = refused {
            report.authenticity = verdict(State::Failed, format!("a checkpoint is refused: {}", refused.why));
            report.failure = Some(Failure {
                attack: "a checkpoint was forged, damaged or stripped of its signature".to_owned(),
                index: signed,
                file: refused.file.to_path_buf(),
                offset: refused.offset,
                expected: None,
                actual: None,
                last_good_checkpoint: signed,
            });
        }
        match stop {
            None => {}
            Some(Stop::Tampered(failure)) => {
                report.integrity = verdict(State::Failed, failure.attack.clone());
                report.completeness = verdict(State::Incomplete, "not judged: the records are not intact");
                report.failure = Some(*failure);
            }
            Some(Stop::Missing(failure)) => {
                report.integrity = verdict(State::Incomplete, format!("it holds up to record {records}"));
                report.completeness = verdict(State::Incomplete, failure.attack.clone());
                report.retention = verdict(State::Incomplete, failure.attack.clone());
                report.failure.get_or_insert(*failure);
            }
        }
        report
    }
}

/// What needs no thread; a block is begun with others.
fn begin(part: Part, marks: &mut Marks) -> Option<Begun> {
    match part {
        Part::Segment(file, header) => Some(Begun::Segment(file, header)),
        Part::Footer(file, offset, footer) => Some(Begun::Footer(file, offset, footer)),
        Part::Tail(run) => {
            let ask = marks.ask(run.first_index, run.leaves.len() as u64);
            Some(Begun::Tail(run, ask))
        }
        Part::Block(_) => None,
    }
}
