//! Verifies one log in one pass.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
};

use provost_audit_core::{
    BlockHeader, Frontier, Hash, LogId, RecordView, SEGMENT_LEAVES, SegmentFooter, SegmentHeader, TailHeader,
    VerifierKey, chain_next, chain_start, leaf_hash, verify_inclusion,
};

use crate::{
    anchor::{Checkpoints, Known, Refused},
    completeness::Completeness,
    key_chain::KeyChain,
    layout::{KEY_FILE, LogLayout},
    leaf_hashes::LeafHashes,
    options::VerifyOptions,
    read::{Chunk, LogReader, ReadFault, segment_footer},
    report::{Failure, LogReport, ProofReport, State, Verdict},
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
}

/// Why the pass over the records ended before the end.
enum Stop {
    Tampered(Box<Failure>),
    Missing(String),
}

/// Blocks whose starting chain is remembered: a tail begins at one of the last seventeen.
const REMEMBERED_STARTS: usize = 32;

/// The pass over the records.
struct Pass {
    chain: Hash,
    /// Index and chain at the start of the latest blocks.
    starts: VecDeque<(u64, Hash)>,
    tree: Frontier,
    segment: Frontier,
    completeness: Completeness,
    known: std::vec::IntoIter<Known>,
    next: Option<Known>,
    /// Checkpoints at smaller sizes are not compared: their records were taken by their roots.
    start: u64,
    good: Option<Known>,
    anchored: Option<u64>,
    origin: String,
    last_file: PathBuf,
    last_offset: u64,
}

impl LogCheck<'_> {
    pub(crate) fn run(self) -> LogReport {
        let (origin, keys) = match self.identity() {
            Ok(found) => found,
            Err(why) => return without_key(&self.log, why),
        };
        let mut checkpoints = Checkpoints { witnesses: self.witnesses, ..Checkpoints::default() };
        let read = checkpoints.read_own(&self.layout.dir, self.top, &origin, &keys).and_then(|()| {
            match &self.options.against {
                Some(path) => checkpoints.read_matching(path, &origin, &keys, true),
                None => Ok(()),
            }
        });
        if let Err(e) = read {
            return without_key(&self.log, format!("the checkpoints cannot be read: {e}"));
        }
        checkpoints.settle();
        let newest = checkpoints.known.last().map(|k| k.checkpoint.clone());
        let mut pass = match self.begin(&origin, &checkpoints) {
            Ok(pass) => pass,
            Err(e) => return without_key(&self.log, e.to_string()),
        };
        let stop = self.read_all(&mut pass).err().or_else(|| pass.behind(newest.as_ref()));
        let proof = self.options.proof.map(|index| self.prove(index, &pass));
        self.conclude(pass, stop, checkpoints.refused, checkpoints.notes, proof)
    }

    /// The log's origin, and the keys that may have signed it.
    fn identity(&self) -> Result<(String, KeyChain), String> {
        let path = self.layout.dir.join(KEY_FILE);
        let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let own = VerifierKey::parse(&text).map_err(|e| format!("{}: {e}", path.display()))?;
        if LogId::from_origin(&own.name) != Some(self.log.clone()) {
            return Err(format!("the key beside the log is of another log, {}", own.name));
        }
        let keys = KeyChain::read(self.top, own.public_key, self.trusted);
        Ok((own.name, keys))
    }

    fn begin(&self, origin: &str, checkpoints: &Checkpoints<'_>) -> Result<Pass, ReadFault> {
        let newest = checkpoints.known.last().map_or(0, |k| k.checkpoint.size);
        let (start, chain, tree) = self.skip_old(newest)?.unwrap_or((0, chain_start(origin), Frontier::default()));
        let mut known = checkpoints.known.clone().into_iter();
        let next = known.find(|k| k.checkpoint.size > start);
        Ok(Pass {
            chain,
            starts: VecDeque::from([(start, chain)]),
            tree,
            segment: Frontier::default(),
            completeness: Completeness::new(self.log.tenant(), start > 0),
            known,
            next,
            start,
            good: None,
            anchored: None,
            origin: origin.to_owned(),
            last_file: self.layout.dir.clone(),
            last_offset: 0,
        })
    }

    /// With `since`: whole segments before it, by the roots in their footers. A signed checkpoint
    /// must lie behind them, because only its root says that those roots are right.
    fn skip_old(&self, newest: u64) -> Result<Option<(u64, Hash, Frontier)>, ReadFault> {
        let Some(since) = self.options.since_ns else { return Ok(None) };
        let mut start = 0;
        for first in self.layout.list_segments().unwrap_or_default() {
            if first >= newest {
                break;
            }
            let mut reader = LogReader::from_segment(self.layout.clone(), first);
            let begins = reader.next()?.and_then(|c| c.header.as_ref().map(|h| h.min_time_ns));
            if begins.is_some_and(|begins| begins < since) {
                start = first;
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
        Ok(Some((start, chain, tree)))
    }

    fn read_all(&self, pass: &mut Pass) -> Result<(), Stop> {
        let mut reader = LogReader::from_segment(self.layout.clone(), pass.start);
        loop {
            match reader.next() {
                Ok(Some(chunk)) => pass.chunk(chunk)?,
                Ok(None) => return Ok(()),
                Err(fault) => return Err(pass.unreadable(&fault)),
            }
        }
    }

    fn prove(&self, index: u64, pass: &Pass) -> ProofReport {
        let empty = Hash::ZERO;
        let mut report = ProofReport { index, leaf_hash: empty, size: 0, root: empty, path: Vec::new(), holds: false };
        let Some(good) = &pass.good else { return report };
        report.size = good.checkpoint.size;
        report.root = good.checkpoint.root;
        let proof = LeafHashes::open(self.layout.clone()).and_then(|hashes| {
            let path = hashes.inclusion(index, report.size)?;
            Ok((hashes.root(index..index + 1)?, path))
        });
        if let Ok((leaf, path)) = proof {
            report.leaf_hash = leaf;
            report.holds = verify_inclusion(&leaf, index, report.size, &path, &report.root).is_ok();
            report.path = path;
        }
        report
    }

    fn conclude(
        &self,
        mut pass: Pass,
        stop: Option<Stop>,
        refused: Option<Refused>,
        notes: Vec<String>,
        proof: Option<ProofReport>,
    ) -> LogReport {
        let records = pass.tree.size();
        let signed = pass.good.as_ref().map_or(0, |k| k.checkpoint.size);
        let anchored = pass.anchored;
        let open_intents = if stop.is_none() { pass.completeness.finish() } else { 0 };
        let holds = if anchored.is_some() { State::Proven } else { State::Consistent };
        let mut report = LogReport {
            origin: pass.origin.clone(),
            records,
            signed,
            beyond: records.saturating_sub(signed),
            anchored,
            signed_at_ns: pass.good.as_ref().map(|k| k.checkpoint.time_ns),
            root: pass.tree.root(),
            chain: pass.chain,
            open_intents,
            integrity: integrity(holds, records, anchored),
            authenticity: self.authenticity(holds, signed, &pass),
            completeness: completeness(holds, &pass.completeness, open_intents),
            retention: retention(holds, records, pass.start),
            failure: None,
            violations: pass.completeness.violations,
            notes,
            proof,
        };
        if report.beyond > 0 && stop.is_none() {
            let beyond = report.beyond;
            report.notes.push(format!("{beyond} records beyond the last signed checkpoint: chained but unsigned"));
        }
        if let Some(refused) = refused {
            report.authenticity = verdict(State::Failed, format!("a checkpoint is refused: {}", refused.why));
            report.failure = Some(Failure {
                attack: "a checkpoint was forged, damaged or stripped of its signature".to_owned(),
                index: signed,
                file: refused.file,
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
            Some(Stop::Missing(why)) => {
                report.integrity = verdict(State::Incomplete, format!("it holds up to record {records}"));
                report.completeness = verdict(State::Incomplete, why.clone());
                report.retention = verdict(State::Incomplete, why);
            }
        }
        report
    }

    fn authenticity(&self, holds: State, signed: u64, pass: &Pass) -> Verdict {
        let Some(good) = &pass.good else {
            return verdict(State::Consistent, "no checkpoint is signed yet");
        };
        let age = self.options.now_ns.map(|now| now.saturating_sub(good.checkpoint.time_ns));
        if let (Some(age), Some(max)) = (age, self.options.max_age_ns)
            && age > max
        {
            let hours = age / 3_600_000_000_000;
            return verdict(State::Stale, format!("the newest checkpoint is {hours} hours old"));
        }
        let whose = match (self.trusted.is_some(), holds) {
            (true, _) => "the trusted key",
            (false, State::Proven) => "the key that signed the anchor",
            (false, _) => "the key found in the directory itself",
        };
        verdict(holds, format!("{signed} records signed by {whose}"))
    }
}

fn verdict(state: State, text: impl Into<String>) -> Verdict {
    Verdict { state, text: text.into() }
}

fn integrity(holds: State, records: u64, anchored: Option<u64>) -> Verdict {
    let text = match anchored {
        Some(size) => format!("chain and tree of {records} records hold and extend the anchor of {size}"),
        None => format!("chain and tree of {records} records hold; no anchor from outside"),
    };
    verdict(holds, text)
}

fn completeness(holds: State, found: &Completeness, open: u64) -> Verdict {
    if found.count > 0 {
        return verdict(State::Failed, format!("{} records break a rule", found.count));
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

fn retention(holds: State, records: u64, start: u64) -> Verdict {
    let text = match start {
        0 => format!("all {records} records since the first are present"),
        n => format!("records before {n} were taken by their roots (--since); none is pruned"),
    };
    verdict(holds, text)
}

/// A log that cannot be judged at all.
fn without_key(log: &LogId, why: String) -> LogReport {
    let unknown = || verdict(State::Incomplete, why.clone());
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
        notes: Vec::new(),
        proof: None,
    }
}

impl Pass {
    fn chunk(&mut self, chunk: &Chunk) -> Result<(), Stop> {
        self.last_file.clone_from(&chunk.file);
        self.last_offset = chunk.offset(0);
        if let Some(segment) = &chunk.segment {
            self.segment_header(segment)?;
        }
        if let Some(header) = &chunk.header {
            self.block_start(header)?;
        }
        if let Some(tail) = &chunk.tail {
            self.tail_start(tail)?;
        }
        let (mut earliest, mut latest) = (u64::MAX, 0);
        for (n, (index, leaf)) in chunk.iter().enumerate() {
            self.last_offset = chunk.offset(n);
            let hash = leaf_hash(leaf);
            if let Some(stored) = chunk.hashes.get(n)
                && *stored != hash
            {
                let attack = "a record or its stored hash was changed after it was written (or, \
                              beyond the last checkpoint, a write was torn by a power cut: start \
                              the node once, then verify again)";
                return Err(self.tampered(attack, index, Some((*stored, hash))));
            }
            let view = RecordView::read(leaf)
                .map_err(|e| self.tampered(&format!("the record is not in its form: {e}"), index, None))?;
            earliest = earliest.min(view.time_ns);
            latest = latest.max(view.time_ns);
            self.chain = chain_next(&self.chain, &hash);
            self.tree.append(hash);
            if chunk.header.is_some() {
                self.segment.append(hash);
            }
            self.completeness.observe(index, &view, hash);
            self.compare_checkpoint()?;
        }
        if let Some(header) = &chunk.header {
            self.last_offset = chunk.offset(0);
            self.block_end(header, (earliest, latest))?;
        }
        if let Some(footer) = &chunk.footer {
            self.segment_end(footer)?;
        }
        Ok(())
    }

    fn segment_header(&mut self, header: &SegmentHeader) -> Result<(), Stop> {
        self.segment = Frontier::default();
        let index = self.tree.size();
        let origin = Hash::of(self.origin.as_bytes());
        if header.origin != origin {
            let attack = "the segment belongs to another log: it was spliced in, or its header changed";
            return Err(self.at_start(attack, index, Some((origin, header.origin))));
        }
        if header.chain_in != self.chain {
            let attack = "the segment does not continue the chain: records were removed, reordered, \
                          inserted or rewritten, or its header changed";
            return Err(self.at_start(attack, index, Some((self.chain, header.chain_in))));
        }
        Ok(())
    }

    fn block_start(&mut self, header: &BlockHeader) -> Result<(), Stop> {
        if header.chain_in == self.chain {
            if self.starts.len() == REMEMBERED_STARTS {
                self.starts.pop_front();
            }
            self.starts.push_back((header.first_index, self.chain));
            return Ok(());
        }
        let attack = "the block does not continue the chain: records were removed, reordered, \
                      inserted or rewritten, or its header changed";
        let index = header.first_index;
        Err(self.tampered(attack, index, Some((self.chain, header.chain_in))))
    }

    fn tail_start(&mut self, tail: &TailHeader) -> Result<(), Stop> {
        let index = tail.first_index;
        let known = self.starts.iter().find(|(start, _)| *start == index).map(|(_, chain)| *chain);
        let known = known.or((index == self.tree.size()).then_some(self.chain));
        match known {
            Some(chain) if chain != tail.chain_in => {
                let attack = "the tail does not continue the chain: it belongs to another log or to \
                              another history, or its header changed";
                Err(self.at_start(attack, index, Some((chain, tail.chain_in))))
            }
            _ => Ok(()),
        }
    }

    fn block_end(&mut self, header: &BlockHeader, times: (u64, u64)) -> Result<(), Stop> {
        let index = header.first_index;
        if header.chain_out != self.chain {
            let attack = "the block's chain does not end where its header says: records were \
                          rewritten together with their stored hashes, or the header changed";
            return Err(self.tampered(attack, index, Some((header.chain_out, self.chain))));
        }
        if (header.min_time_ns, header.max_time_ns) != times {
            let attack = "the block's time range is not its records': queries would pass over them";
            return Err(self.tampered(attack, index, None));
        }
        Ok(())
    }

    fn segment_end(&mut self, footer: &SegmentFooter) -> Result<(), Stop> {
        let (index, root) = (footer.first_index, self.segment.root());
        if footer.root != root {
            let attack = "the segment's footer names another root: it was changed";
            return Err(self.tampered(attack, index, Some((footer.root, root))));
        }
        if footer.chain_out != self.chain {
            let attack = "the segment's footer names another chain: it was changed";
            return Err(self.tampered(attack, index, Some((footer.chain_out, self.chain))));
        }
        Ok(())
    }

    /// After each record: does a checkpoint speak of exactly this size?
    fn compare_checkpoint(&mut self) -> Result<(), Stop> {
        let size = self.tree.size();
        let Some(next) = self.next.take_if(|k| k.checkpoint.size == size) else { return Ok(()) };
        self.next = self.known.next();
        let root = self.tree.root();
        let (expected, actual) = if next.checkpoint.root != root {
            (next.checkpoint.root, root)
        } else if next.checkpoint.chain != self.chain {
            (next.checkpoint.chain, self.chain)
        } else {
            if next.external {
                self.anchored = Some(size);
            }
            self.good = Some(next);
            return Ok(());
        };
        let good = self.good.as_ref().map_or(0, |k| k.checkpoint.size);
        let whose = if next.external { "the anchor" } else { "a signed checkpoint" };
        let attack = format!(
            "records {good} to {size} are not those that {whose} covers: the history was \
             rewritten, or the whole log replaced"
        );
        Err(self.tampered(&attack, good, Some((expected, actual))))
    }

    /// The records ended: did a checkpoint cover more?
    fn behind(&self, newest: Option<&provost_audit_core::Checkpoint>) -> Option<Stop> {
        let newest = newest.filter(|c| c.size > self.tree.size())?;
        let external =
            self.next.as_ref().is_some_and(|k| k.external) || self.known.as_slice().iter().any(|k| k.external);
        let whose = if external { "the anchor covers" } else { "a signed checkpoint covers" };
        let attack = format!(
            "{whose} {} records and {} are there: the end was cut off, or storage was rolled back",
            newest.size,
            self.tree.size()
        );
        Some(self.tampered(&attack, self.tree.size(), None))
    }

    fn unreadable(&self, fault: &ReadFault) -> Stop {
        if fault.missing {
            return Stop::Missing(format!("{}: {}", fault.file.display(), fault.what));
        }
        Stop::Tampered(Box::new(Failure {
            attack: format!("bytes on disk were changed: {}", fault.what),
            index: fault.index,
            file: fault.file.clone(),
            offset: fault.offset,
            expected: None,
            actual: None,
            last_good_checkpoint: self.good.as_ref().map_or(0, |k| k.checkpoint.size),
        }))
    }

    fn at_start(&mut self, attack: &str, index: u64, hashes: Option<(Hash, Hash)>) -> Stop {
        self.last_offset = 0;
        self.tampered(attack, index, hashes)
    }

    fn tampered(&self, attack: &str, index: u64, hashes: Option<(Hash, Hash)>) -> Stop {
        Stop::Tampered(Box::new(Failure {
            attack: attack.to_owned(),
            index,
            file: self.last_file.clone(),
            offset: self.last_offset,
            expected: hashes.map(|h| h.0),
            actual: hashes.map(|h| h.1),
            last_good_checkpoint: self.good.as_ref().map_or(0, |k| k.checkpoint.size),
        }))
    }
}
