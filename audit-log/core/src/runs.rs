//! Runs: two pieces of [`crate::keys`] or more with the values between them, as records of a busy log
//! repeat them (one tenant, one writer, one method).
//!
//! A record that holds a run is compared with it and not read there. Which runs are worth it is found out
//! by a vote among some of the records; a run grows when what follows it is the same as well.
//! Invariants: a run is made only of bytes that a record which was read to its end had, behind the piece
//! where it is looked for; so it is well formed there and its keys are in order. Runs are forgotten after
//! [`PERIOD`] records, for a log changes; the tables are bounded. Without runs reading is slower, never
//! different.

use provost_types::Phase;

use crate::{
    keys::{Field, Met},
    quick::phase,
};

/// The longest run.
const MAX_LEN: usize = 256;
/// Runs that are kept at a time.
const MAX_RUNS: usize = 64;
/// Runs that are looked for behind one piece.
const MAX_BEHIND: usize = 4;
/// Wins in the vote that make a run.
const WINS: u32 = 4;
/// Records until all is forgotten.
const PERIOD: u32 = 1 << 15;
/// Records of a period that vote: one of [`EVERY`] among the first [`VOTING`].
const VOTING: u32 = 256;
const EVERY: u32 = 3;

/// A value within a run that the verifier wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    Phase(Phase),
    Epoch(u64),
    Version(u64),
    /// A text, by where it begins and ends from the run's first byte on.
    Text(Field, usize, usize),
}

impl Kept {
    /// The value that stands at `from..to`; `None` for one that no two records have.
    fn of(field: Field, bytes: &[u8], from: usize, to: usize) -> Option<Self> {
        let value = bytes.get(from..to)?;
        let number = || std::str::from_utf8(value).ok()?.parse().ok();
        match field {
            Field::Phase => phase(value).map(Kept::Phase),
            Field::Epoch => number().map(Kept::Epoch),
            Field::Version => number().map(Kept::Version),
            Field::Status | Field::Tenant | Field::Event | Field::WriterId | Field::BodyKey => {
                Some(Kept::Text(field, from, to))
            }
            Field::CallId | Field::TimeNs | Field::Seq | Field::WriterPrev | Field::BodySealed | Field::Other => None,
        }
    }

    /// The same value in a run that begins `by` bytes earlier.
    fn later(self, by: usize) -> Self {
        match self {
            Kept::Text(field, from, to) => Kept::Text(field, from + by, to + by),
            other => other,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Run {
    bytes: Vec<u8>,
    pub kept: Vec<Kept>,
    /// The piece that it ends with.
    pub last: Met,
}

impl Run {
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }
}

/// Where a run is looked for, with what tells it from others without a look at its bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    /// 0 for none.
    len: usize,
    end: u64,
    run: u8,
}

/// The last bytes, in which runs behind the same piece mostly differ.
#[inline]
fn end(bytes: &[u8]) -> u64 {
    bytes.last_chunk().map_or(0, |end| u64::from_le_bytes(*end))
}

/// What stood at a place of a record: a piece, alone or at the end of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    /// The run's number.
    pub run: Option<u8>,
    /// The piece.
    pub piece: Met,
    /// Where piece or run begins.
    pub start: usize,
    /// Where the value behind it begins.
    pub value: usize,
}

/// What came most often behind a piece or run: bytes from its beginning to the end of the next one.
#[derive(Debug, Default)]
struct Candidate {
    bytes: Vec<u8>,
    wins: u32,
}

/// Two: what makes up more than a third of the records wins (Misra and Gries, "Finding repeated elements",
/// 1982).
type Vote = [Candidate; 2];

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    runs: Vec<Run>,
    /// By the piece before them; 0 is no piece that anything follows, and there a record begins.
    behind: Vec<[Place; MAX_BEHIND]>,
    /// By piece, and then by run.
    votes: (Vec<Vote>, Vec<Vote>),
    records: u32,
    steps: Vec<Step>,
}

impl Runs {
    /// The run behind `piece` that `rest` begins with, and its number.
    #[inline]
    pub(crate) fn follow(&self, piece: u8, rest: &[u8]) -> Option<(u8, &Run)> {
        for place in self.behind.get(usize::from(piece))? {
            if place.len == 0 {
                break;
            }
            if let Some(bytes) = rest.get(..place.len)
                && end(bytes) == place.end
                && let Some(run) = self.runs.get(usize::from(place.run))
                && run.bytes == bytes
            {
                return Some((place.run, run));
            }
        }
        None
    }

    /// Whether any run is known.
    #[cfg(test)]
    pub(crate) fn any(&self) -> bool {
        !self.runs.is_empty()
    }

    /// Begins a record; whether it votes, and each of its steps is to be told.
    #[inline]
    pub(crate) fn begin(&mut self) -> bool {
        self.records += 1;
        if self.records > PERIOD {
            *self = Self::default();
        }
        self.steps.clear();
        self.records <= VOTING && self.records.is_multiple_of(EVERY)
    }

    /// A step of a record that votes.
    pub(crate) fn step(&mut self, step: Step) {
        self.steps.push(step);
    }

    /// The record was read to its end, by pieces and runs alone.
    #[cold]
    pub(crate) fn vote(&mut self, leaf: &[u8]) {
        let steps = std::mem::take(&mut self.steps);
        let mut before = 0;
        for pair in steps.windows(2) {
            if let [step, next] = pair
                && let Some(bytes) = leaf.get(step.start..next.value)
                && bytes.len() <= MAX_LEN
                && self.wins(step, bytes)
            {
                self.learn(before, bytes, step, next);
            }
            before = pair.first().map_or(0, |step| step.piece.number);
        }
        self.steps = steps;
    }

    fn wins(&mut self, step: &Step, bytes: &[u8]) -> bool {
        let (votes, number) = match step.run {
            Some(run) => (&mut self.votes.1, run),
            None => (&mut self.votes.0, step.piece.number),
        };
        let number = usize::from(number);
        if votes.len() <= number {
            votes.resize_with(number + 1, Vote::default);
        }
        let Some(vote) = votes.get_mut(number) else { return false };
        if let Some(same) = vote.iter_mut().find(|candidate| candidate.wins > 0 && candidate.bytes == bytes) {
            same.wins += 1;
            return same.wins >= WINS;
        }
        match vote.iter_mut().find(|candidate| candidate.wins == 0) {
            Some(free) => {
                free.bytes.clear();
                free.bytes.extend_from_slice(bytes);
                free.wins = 1;
            }
            None => vote.iter_mut().for_each(|candidate| candidate.wins -= 1),
        }
        false
    }

    /// Remembers the run that `step`, its value and `next` make up, behind the piece `before`.
    fn learn(&mut self, before: u8, bytes: &[u8], step: &Step, next: &Step) {
        let within = |step: &Step| {
            let run = step.run.and_then(|run| self.runs.get(usize::from(run)));
            run.map(|run| run.kept.as_slice()).unwrap_or_default()
        };
        let by = next.start - step.start;
        let mut kept = within(step).to_vec();
        if step.piece.field != Field::Other {
            let Some(value) = Kept::of(step.piece.field, bytes, step.value - step.start, by) else { return };
            kept.push(value);
        }
        kept.extend(within(next).iter().map(|kept| kept.later(by)));
        let known = self.runs.iter().position(|run| run.bytes == bytes);
        let number = known.unwrap_or(self.runs.len());
        if number >= MAX_RUNS {
            return;
        }
        if known.is_none() {
            self.runs.push(Run { bytes: bytes.to_vec(), kept, last: next.piece });
        }
        let (before, run) = (usize::from(before), number as u8);
        if self.behind.len() <= before {
            self.behind.resize_with(before + 1, Default::default);
        }
        // The longer run is looked for first; it was made of the shorter ones.
        if let Some(places) = self.behind.get_mut(before)
            && !places.iter().any(|place| place.len > 0 && place.run == run)
        {
            places.rotate_right(1);
            places[0] = Place { len: bytes.len(), end: end(bytes), run };
        }
    }
}
