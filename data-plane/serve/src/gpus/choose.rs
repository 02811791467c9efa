//! Which node gets a request. A pure function of what nodes report: no clock, no chance.
//!
//! Rules, in this order:
//! 1. A node that has no place is not chosen.
//! 2. A node that holds the weights is chosen before one that must load them, unless waiting there takes more than
//!    [`SPILL`] times as long as loading and waiting elsewhere.
//! 3. Among those, what is expected to answer first: the wait until it begins, and the pace of the model there.
//! 4. Those that are nearly as fast as the fastest are alike, and each conversation keeps the same of them (the highest
//!    weight of conversation and name, as in rendezvous hashing): its beginning is in that node's cache, whichever
//!    data-plane node asks. Where nobody holds the weights it is each model that keeps its node: two conversations at once
//!    load it once.

use provost_types::{ChatRequest, EmbedRequest, ModelState, TranscribeRequest};

/// How many times as long as elsewhere one waits where the weights are.
const SPILL: u64 = 2;
/// Expected times that differ by less are alike; also those that differ by less than one part in [`ALIKE_PART`].
const ALIKE_MS: u64 = 50;
const ALIKE_PART: u64 = 8;
/// Bytes of a conversation by which it is known.
const KNOWN_BY_BYTES: usize = 4_096;
/// Tokens of an answer that are expected at most: few answers are as long as they may be.
const EXPECTED_TOKENS: u64 = 256;

/// A node that may serve the request, by its last report.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Candidate {
    pub(super) name: String,
    /// Where the weights are.
    pub(super) state: ModelState,
    /// How long they take to load.
    pub(super) load_ms: u64,
    /// Requests that wait there, and those that were sent since it reported and have not ended.
    pub(super) waiting: u64,
    /// Requests that may wait.
    pub(super) places: u64,
    /// Requests that run there, and that may.
    pub(super) running: u64,
    pub(super) slots: u64,
    /// The mean time in which a request runs.
    pub(super) service_ms: u64,
    /// Tokens that an answer of this model makes in a second; 0: not known.
    pub(super) tokens_per_s: u64,
}

/// What the choice needs of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Tokens that are to be made; 0 for embeddings and recordings.
    tokens: u64,
    /// The same for each request of one conversation.
    conversation: u64,
    /// The same for each request of one model.
    model: u64,
}

impl Wanted {
    /// Of a conversation: its tenant, its model and what it begins with, to the first message of the user.
    pub(super) fn of_chat(request: &ChatRequest) -> Self {
        let mut hash = Hash::new(&request.tenant).and(&request.model);
        if let Some(prompt) = &request.prompt {
            hash = hash.and(prompt);
        }
        for message in &request.messages {
            hash = hash.and(&message.role).and(&message.content);
            if message.role == "user" {
                break;
            }
        }
        let tokens = u64::from(request.max_tokens).min(EXPECTED_TOKENS);
        Self { tokens, conversation: hash.end(), model: Hash::new(&request.model).end() }
    }

    /// Of texts: no cache is shared, so they are spread by what they are.
    pub(super) fn of_embed(request: &EmbedRequest) -> Self {
        let hash = Hash::new(&request.tenant).and(&request.model);
        let hash = request.inputs.first().map_or(hash, |first| hash.and(first));
        Self { tokens: 0, conversation: hash.end(), model: Hash::new(&request.model).end() }
    }

    /// Of a recording: no cache is shared, so they are spread by what is in them.
    pub(super) fn of_sound(request: &TranscribeRequest) -> Self {
        let bytes = request.sound.bytes();
        // What stands at the beginning is much the same in all files of a form.
        let end = bytes.get(bytes.len().saturating_sub(KNOWN_BY_BYTES)..).unwrap_or_default();
        let hash = Hash::new(&request.tenant).and(&request.model).and_bytes(end);
        Self { tokens: 0, conversation: hash.end(), model: Hash::new(&request.model).end() }
    }
}

impl Candidate {
    fn has_place(&self) -> bool {
        let idle = self.slots.saturating_sub(self.running);
        self.waiting < self.places.saturating_add(idle)
    }

    /// Until the request begins, in milliseconds.
    fn start_ms(&self) -> u64 {
        let load = match self.state {
            ModelState::Resident => 0,
            // How much of it is done is not reported: half, in the mean.
            ModelState::Loading => self.load_ms / 2,
            ModelState::OnDisk => self.load_ms,
        };
        let slots = self.slots.max(1);
        let ahead = self.waiting.saturating_add(self.running).saturating_add(1).saturating_sub(slots);
        load.saturating_add(ahead.saturating_mul(self.service_ms) / slots)
    }

    /// Until the answer is complete: a node with many answers makes each more slowly.
    fn expected_ms(&self, wanted: Wanted) -> u64 {
        let alone = match (wanted.tokens, self.tokens_per_s) {
            (0, _) | (_, 0) => self.service_ms,
            (tokens, pace) => tokens.saturating_mul(1_000) / pace,
        };
        let shared = alone.saturating_mul(self.running.min(self.slots)) / self.slots.max(1);
        self.start_ms().saturating_add(alone).saturating_add(shared)
    }
}

/// The best of the nodes, as an index; `None`: none of them has a place.
pub(super) fn choose(nodes: &[Candidate], wanted: Wanted) -> Option<usize> {
    let open = || nodes.iter().enumerate().filter(|(_, node)| node.has_place());
    let soonest = |holds: bool| {
        let of = open().filter(move |(_, node)| (node.state == ModelState::Resident) == holds);
        of.map(|(_, node)| node.start_ms()).min()
    };
    let holders = match (soonest(true), soonest(false)) {
        (Some(here), Some(elsewhere)) => here <= elsewhere.saturating_mul(SPILL),
        (here, _) => here.is_some(),
    };
    let tier = || open().filter(move |(_, node)| (node.state == ModelState::Resident) == holders);
    let best = tier().map(|(_, node)| node.expected_ms(wanted)).min()?;
    let alike = best.saturating_add((best / ALIKE_PART).max(ALIKE_MS));
    let by = if holders { wanted.conversation } else { wanted.model };
    let kept = |name: &str| Hash(by).and(name).end();
    let of = tier().filter(|(_, node)| node.expected_ms(wanted) <= alike);
    // Names differ, so there is one greatest, whatever the order of the nodes.
    of.max_by(|(_, a), (_, b)| kept(&a.name).cmp(&kept(&b.name)).then_with(|| a.name.cmp(&b.name)))
        .map(|(index, _)| index)
}

/// FNV-1a with a finish that spreads it; nodes of every release must agree on it.
#[derive(Clone, Copy)]
struct Hash(u64);

impl Hash {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;

    fn new(text: &str) -> Self {
        Self(Self::OFFSET).and(text)
    }

    fn and(self, text: &str) -> Self {
        self.and_bytes(text.as_bytes())
    }

    fn and_bytes(self, bytes: &[u8]) -> Self {
        let known_by = bytes.iter().take(KNOWN_BY_BYTES);
        // No text holds this byte: where one ends and the next begins, counts.
        let bytes = known_by.copied().chain([0xff]);
        Self(bytes.fold(self.0, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(Self::PRIME)))
    }

    /// The finish of SplitMix64 (Steele, Lea and Flood, 2014).
    fn end(self) -> u64 {
        let mut hash = self.0;
        hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        hash ^ (hash >> 31)
    }
}

#[cfg(test)]
mod tests;
