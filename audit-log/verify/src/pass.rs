//! Puts the checked runs of one log together, in order, and stops at the first that is wrong.
//!
//! Invariant: the first failure in the order of the log is the one reported, whichever thread met
//! which first.

use std::{collections::VecDeque, path::Path, sync::Arc};

use provost_audit_core::{
    BLOCK_RECORDS, BlockHeader, Frontier, Hash, SegmentFooter, SegmentHeader, TailHeader, chain_start,
};

use crate::{
    anchor::Known,
    block_check::{Ask, Seen, check_run},
    bodies::{Bodies, BodyFault},
    completeness::{Completeness, Where},
    facts::BodyFact,
    layout::LogLayout,
    noted::{Noted, NotedRoots},
    report::Failure,
    segment_file::{BlockPlace, SegmentFile},
    tail::TailRun,
    tenant_heads::TenantHeads,
    walk::ReadFault,
};

/// Why the pass over the records ended before the end.
#[derive(Debug)]
pub(crate) enum Stop {
    Tampered(Box<Failure>),
    Missing(Box<Failure>),
}

/// Blocks whose starting chain is remembered: a tail begins at one of the last seventeen.
const REMEMBERED_STARTS: usize = 32;
/// The levels of a tree over one full run.
const RUN_LEVEL: u32 = BLOCK_RECORDS.trailing_zeros();

/// The pass over the records.
pub(crate) struct Pass {
    pub origin: String,
    pub chain: Hash,
    pub tree: Frontier,
    /// Records that were read, or taken by their roots.
    pub records: u64,
    pub completeness: Completeness,
    pub bodies: Bodies,
    /// What the cluster's log notes of this log.
    pub noted: NotedRoots,
    /// What this log notes of others, if it is the cluster's.
    pub heads: TenantHeads,
    /// The last checkpoint that holds.
    pub good: Option<Known>,
    pub anchored: Option<u64>,
    /// Segments beside which leaf hashes are missing.
    pub hashes_short: u64,
    /// Index and chain at the start of the latest blocks.
    starts: VecDeque<(u64, Hash)>,
    segment: Frontier,
    /// Checkpoints that are still to come, by size.
    known: VecDeque<Known>,
}

/// The place of a part that is about to be judged.
struct At<'a> {
    file: &'a Path,
    offset: u64,
}

impl Pass {
    /// From record `start` on, before which stand `chain` and `tree`. Checkpoints of smaller sizes
    /// are not compared: their records were taken by their roots.
    pub(crate) fn new(
        layout: LogLayout,
        origin: &str,
        begin: Option<(Hash, Frontier)>,
        known: &[Known],
        noted: &[Noted],
    ) -> Self {
        let partial = begin.is_some();
        let (chain, tree) = begin.unwrap_or_else(|| (chain_start(origin), Frontier::default()));
        let start = tree.size();
        Self {
            origin: origin.to_owned(),
            chain,
            starts: VecDeque::from([(start, chain)]),
            records: start,
            noted: NotedRoots::new(noted, start, tree.root()),
            heads: TenantHeads::default(),
            tree,
            segment: Frontier::default(),
            completeness: Completeness::new(partial),
            bodies: Bodies::new(layout, origin),
            known: known.iter().filter(|k| k.checkpoint.size > start).cloned().collect(),
            good: None,
            anchored: None,
            hashes_short: 0,
        }
    }

    pub(crate) fn segment_start(&self, file: &SegmentFile, header: &SegmentHeader) -> Result<(), Stop> {
        let at = At { file: &file.path, offset: 0 };
        let origin = Hash::of(self.origin.as_bytes());
        if header.origin != origin {
            let attack = "the segment belongs to another log: it was spliced in, or its header changed";
            return Err(self.tampered(attack, file.first, &at, Some((origin, header.origin))));
        }
        if header.chain_in != self.chain {
            let attack = "the segment does not continue the chain: records were removed, reordered, \
                          inserted or rewritten, or its header changed";
            return Err(self.tampered(attack, file.first, &at, Some((self.chain, header.chain_in))));
        }
        Ok(())
    }

    pub(crate) fn segment_end(&mut self, file: &SegmentFile, offset: u64, footer: &SegmentFooter) -> Result<(), Stop> {
        let at = At { file: &file.path, offset };
        let root = std::mem::take(&mut self.segment).root();
        if footer.root != root {
            let attack = "the segment's footer names another root: it was changed";
            return Err(self.tampered(attack, file.first, &at, Some((footer.root, root))));
        }
        if footer.chain_out != self.chain {
            let attack = "the segment's footer names another chain: it was changed";
            return Err(self.tampered(attack, file.first, &at, Some((footer.chain_out, self.chain))));
        }
        Ok(())
    }

    /// Takes a block, as far as it could be read.
    pub(crate) fn block(&mut self, place: &BlockPlace, checked: Result<Seen, ReadFault>) -> Result<(), Stop> {
        let header = &place.header;
        let at = At { file: &place.segment.path, offset: place.offset };
        if header.chain_in != self.chain {
            let attack = "the block does not continue the chain: records were removed, reordered, \
                          inserted or rewritten, or its header changed";
            return Err(self.tampered(attack, header.first_index, &at, Some((self.chain, header.chain_in))));
        }
        if self.starts.len() == REMEMBERED_STARTS {
            self.starts.pop_front();
        }
        self.starts.push_back((header.first_index, self.chain));
        let seen = checked.map_err(|fault| self.unreadable(&fault))?;
        let chain_holds = header.chain_out == seen.chain;
        let times = seen.facts.times;
        let file: Arc<Path> = Arc::from(at.file);
        let run = Where { file: &file, first: header.first_index, offsets: &[place.offset] };
        if let (Some(root), None) = (seen.root, &seen.fault) {
            self.segment.append_subtree(root, RUN_LEVEL);
        }
        self.run(seen, &run, Some(chain_holds))?;
        self.block_end(header, &at, times)
    }

    /// Takes records of the tail; they are checked here, for they name no chain before them.
    pub(crate) fn tail(&mut self, run: &TailRun, ask: &Ask) -> Result<(), Stop> {
        if let Some(header) = &run.header {
            self.tail_start(header, &At { file: &run.path, offset: 0 })?;
        }
        let first = (run.first_index, self.chain);
        let seen = check_run((&run.raw, &run.leaves), &run.hashes, first, ask);
        let file: Arc<Path> = Arc::from(run.path.as_path());
        self.run(seen, &Where { file: &file, first: run.first_index, offsets: &run.offsets }, None)
    }

    /// `chain_holds`: whether a block's chain ends where its header says, bad records and all.
    fn run(&mut self, mut seen: Seen, place: &Where<'_>, chain_holds: Option<bool>) -> Result<(), Stop> {
        let count = seen.root.map_or(seen.hashes.len() as u64, |_| BLOCK_RECORDS);
        let mut at = place.first;
        for (size, part, chain) in &seen.marks {
            self.bodies_until(&mut at, *size, &seen.facts.bodies)?;
            let root = self.tree.root_with(part).unwrap_or_default();
            self.compare_checkpoint(*size, root, *chain)?;
            self.noted.compare(*size, root);
        }
        let end = seen.fault.as_ref().map_or(place.first + count, |(index, _)| *index);
        self.bodies_until(&mut at, end, &seen.facts.bodies)?;
        if let Some((index, fault)) = seen.fault {
            self.records = index;
            let at = At { file: place.file, offset: place.offset(index) };
            return Err(self.tampered(&fault.attack(chain_holds), index, &at, fault.hashes()));
        }
        match seen.root {
            Some(root) => drop(self.tree.append_subtree(root, RUN_LEVEL)),
            None => seen.hashes.into_iter().for_each(|hash| self.tree.append(hash)),
        }
        self.chain = seen.chain;
        self.records = self.tree.size();
        self.hashes_short += u64::from(seen.hashes_short);
        self.bodies.note_erased(std::mem::take(&mut seen.facts.erased));
        std::mem::take(&mut seen.facts.noted).into_iter().for_each(|(origin, noted)| self.heads.add(origin, noted));
        self.completeness.merge(seen.facts, place);
        Ok(())
    }

    /// The bodies of the records `at..end`.
    fn bodies_until(&mut self, at: &mut u64, end: u64, facts: &[BodyFact]) -> Result<(), Stop> {
        let from = facts.partition_point(|fact| fact.index < *at);
        let to = facts.partition_point(|fact| fact.index < end);
        let taken = self.bodies.take(*at, end, facts.get(from..to).unwrap_or_default());
        *at = end;
        taken.map_err(|(index, fault)| {
            self.records = index;
            let BodyFault { file, offset, what, hashes, missing } = *fault;
            if missing {
                return self.unreadable(&ReadFault { file, offset, index, what, missing });
            }
            self.tampered(&what, index, &At { file: &file, offset }, hashes)
        })
    }

    fn tail_start(&self, tail: &TailHeader, at: &At<'_>) -> Result<(), Stop> {
        let index = tail.first_index;
        let known = self.starts.iter().find(|(start, _)| *start == index).map(|(_, chain)| *chain);
        let known = known.or((index == self.tree.size()).then_some(self.chain));
        match known {
            Some(chain) if chain != tail.chain_in => {
                let attack = "the tail does not continue the chain: it belongs to another log or to \
                              another history, or its header changed";
                Err(self.tampered(attack, index, at, Some((chain, tail.chain_in))))
            }
            _ => Ok(()),
        }
    }

    fn block_end(&self, header: &BlockHeader, at: &At<'_>, times: (u64, u64)) -> Result<(), Stop> {
        let index = header.first_index;
        if header.chain_out != self.chain {
            let attack = "the block's chain does not end where its header says: records were \
                          rewritten together with their stored hashes, or the header changed";
            return Err(self.tampered(attack, index, at, Some((header.chain_out, self.chain))));
        }
        if (header.min_time_ns, header.max_time_ns) != times {
            let attack = "the block's time range is not its records': queries would pass over them";
            return Err(self.tampered(attack, index, at, None));
        }
        Ok(())
    }

    /// A checkpoint speaks of exactly this size: does it name this root and this chain?
    fn compare_checkpoint(&mut self, size: u64, root: Hash, chain: Hash) -> Result<(), Stop> {
        let Some(next) = self.known.pop_front_if(|k| k.checkpoint.size == size) else { return Ok(()) };
        let (expected, actual, what) = if next.checkpoint.root != root {
            (next.checkpoint.root, root, "tree")
        } else if next.checkpoint.chain != chain {
            (next.checkpoint.chain, chain, "chain")
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
            "records {good} to {size} are not those that {whose} covers, by its {what}: the history \
             was rewritten, or the whole log replaced"
        );
        self.records = good;
        let at = At { file: &next.file, offset: next.offset };
        Err(self.tampered(&attack, good, &at, Some((expected, actual))))
    }

    /// The records ended at this place: did a checkpoint cover more?
    pub(crate) fn behind(&self, end: &(std::path::PathBuf, u64)) -> Option<Stop> {
        let newest = self.known.back()?;
        let external = self.known.iter().any(|k| k.external);
        let whose = if external { "the anchor covers" } else { "a signed checkpoint covers" };
        let attack = format!(
            "{whose} {} records and {} are there: the end was cut off, or storage was rolled back",
            newest.checkpoint.size, self.records
        );
        Some(self.tampered(&attack, self.records, &At { file: &end.0, offset: end.1 }, None))
    }

    pub(crate) fn unreadable(&self, fault: &ReadFault) -> Stop {
        let at = At { file: &fault.file, offset: fault.offset };
        let what = if fault.missing { "input is missing" } else { "bytes on disk were changed" };
        let failure = self.failure(&format!("{what}: {}", fault.what), fault.index, &at, None);
        if fault.missing { Stop::Missing(Box::new(failure)) } else { Stop::Tampered(Box::new(failure)) }
    }

    fn tampered(&self, attack: &str, index: u64, at: &At<'_>, hashes: Option<(Hash, Hash)>) -> Stop {
        Stop::Tampered(Box::new(self.failure(attack, index, at, hashes)))
    }

    fn failure(&self, attack: &str, index: u64, at: &At<'_>, hashes: Option<(Hash, Hash)>) -> Failure {
        Failure {
            attack: attack.to_owned(),
            index,
            file: at.file.to_owned(),
            offset: at.offset,
            expected: hashes.map(|h| h.0),
            actual: hashes.map(|h| h.1),
            last_good_checkpoint: self.good.as_ref().map_or(0, |k| k.checkpoint.size),
        }
    }
}
