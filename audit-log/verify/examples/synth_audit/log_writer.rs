//! Writes one log as a node would have left it: the same functions (`audit-core`) make the bytes, in
//! another order of work; no consensus, no fsync.
//!
//! Records are about 900 bytes and come in pairs, an intent and its outcome, eight calls running at a
//! time, as on a busy node.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::Path,
};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use provost_audit_core::{
    BLOCK_RECORDS, Checkpoint, Frontier, Hash, LogId, NoteSigner, Place, SEGMENT_LEAVES, SegmentFooter, SegmentHeader,
    TailHeader, VerifierKey, chain_next, chain_start, encode_block, encode_record, leaf_hash, push_tail_frame,
};
use provost_audit_verify::{CHECKPOINT_FILE, HISTORY_FILE, KEY_FILE, LogLayout};
use provost_types::{
    AuditEvent, Body, CallId, CallStatus, Effect, Impact, KeptBody, KeyId, Phase, Revision, What, Who, Why,
};

/// Calls that run at the same time.
const RUNNING: u64 = 8;
const START_NS: u64 = 1_763_000_000_000_000_000;
/// A node signs about once a second; at 20,000 records a second that is this often.
const RECORDS_PER_CHECKPOINT: u64 = 20_000;

/// A key that signs.
pub struct Key(pub Ed25519KeyPair);

impl NoteSigner for Key {
    fn public_key(&self) -> [u8; 32] {
        self.0.public_key().as_ref().try_into().expect("32 bytes")
    }
    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).as_ref().try_into().expect("64 bytes")
    }
}

/// One log, written from its first record on.
pub struct LogWriter<'a> {
    log: LogId,
    origin: String,
    layout: LogLayout,
    key: &'a Key,
    tree: Frontier,
    segment_tree: Frontier,
    chain: Hash,
    block_chain: Hash,
    prev: Hash,
    raw: Vec<u8>,
    tail: Vec<u8>,
    hashes: Vec<Hash>,
    times: (u64, u64),
    segment: Option<(BufWriter<File>, BufWriter<File>)>,
    history: String,
    last_note: String,
    leaf_bytes: u64,
}

impl<'a> LogWriter<'a> {
    /// Begins `log` in the audit directory `dir`.
    pub fn create(dir: &Path, log: LogId, key: &'a Key) -> Self {
        let origin = log.origin("provost");
        let layout = LogLayout::new(dir.join(log.folder()));
        fs::create_dir_all(layout.segments()).expect("the log's folder");
        let vkey = VerifierKey { name: origin.clone(), public_key: key.public_key() };
        fs::write(layout.dir.join(KEY_FILE), format!("{}\n", vkey.to_text())).expect("the key");
        let chain = chain_start(&origin);
        Self {
            log,
            origin,
            layout,
            key,
            tree: Frontier::default(),
            segment_tree: Frontier::default(),
            chain,
            block_chain: chain,
            prev: Hash::ZERO,
            raw: Vec::new(),
            tail: Vec::new(),
            hashes: Vec::new(),
            times: (u64::MAX, 0),
            segment: None,
            history: String::new(),
            last_note: String::new(),
            leaf_bytes: 0,
        }
    }

    /// Appends record `index`, which must be the next; the last one is signed.
    pub fn append(&mut self, index: u64, last: bool) {
        let event = event(&self.log, index);
        let place = Place { writer_id: "node-1", epoch: 1, seq: index + 1, prev: self.prev };
        let leaf = encode_record(&event, &place).expect("a record");
        let hash = leaf_hash(&leaf);
        self.prev = hash;
        self.leaf_bytes += leaf.len() as u64;
        self.chain = chain_next(&self.chain, &hash);
        self.tree.append(hash);
        self.segment_tree.append(hash);
        self.raw.extend_from_slice(&(leaf.len() as u32).to_le_bytes());
        self.raw.extend_from_slice(&leaf);
        push_tail_frame(&mut self.tail, &leaf, &hash);
        self.hashes.push(hash);
        self.times = (self.times.0.min(event.time_ns), self.times.1.max(event.time_ns));
        if last || self.tree.size().is_multiple_of(RECORDS_PER_CHECKPOINT) {
            self.sign(event.time_ns);
        }
        if self.hashes.len() as u64 == BLOCK_RECORDS {
            self.close_block();
        }
    }

    fn sign(&mut self, time_ns: u64) {
        let (size, root) = (self.tree.size(), self.tree.root());
        let checkpoint = Checkpoint { origin: self.origin.clone(), size, root, chain: self.chain, time_ns };
        self.last_note = checkpoint.sign(self.key);
        self.history.push_str(&self.last_note);
        self.history.push('\n');
    }

    fn close_block(&mut self) {
        let next = self.tree.size();
        let first = next - BLOCK_RECORDS;
        let segment_first = first - first % SEGMENT_LEAVES;
        let create = |path| BufWriter::with_capacity(1 << 20, File::create(path).expect("a segment"));
        let (segment, leaves) = self.segment.get_or_insert_with(|| {
            let origin = Hash::of(self.origin.as_bytes());
            let header = SegmentHeader { first_index: first, origin, chain_in: self.block_chain };
            let mut segment = create(self.layout.segment(segment_first));
            segment.write_all(&header.encode()).expect("the header");
            (segment, create(self.layout.leaf_hashes(segment_first)))
        });
        let block = encode_block(first, &self.raw, self.times, (self.block_chain, self.chain)).expect("a block");
        segment.write_all(&block).expect("the block");
        for hash in self.hashes.drain(..) {
            leaves.write_all(&hash.0).expect("the leaf hashes");
        }
        if next.is_multiple_of(SEGMENT_LEAVES) {
            let footer =
                SegmentFooter { first_index: segment_first, root: self.segment_tree.root(), chain_out: self.chain };
            segment.write_all(&footer.encode()).expect("the footer");
            self.segment_tree = Frontier::default();
            self.segment = None;
        }
        self.raw.clear();
        self.tail.clear();
        self.times = (u64::MAX, 0);
        self.block_chain = self.chain;
    }

    /// Writes what is left; gives the newest checkpoint, and how many bytes the records have.
    pub fn finish(self) -> (String, u64) {
        let first_index = self.tree.size() - self.hashes.len() as u64;
        let mut tail = TailHeader { first_index, chain_in: self.block_chain }.encode();
        tail.extend_from_slice(&self.tail);
        let dir = &self.layout.dir;
        fs::write(self.layout.tail(first_index), tail).expect("the tail");
        fs::write(dir.join(CHECKPOINT_FILE), &self.last_note).expect("the checkpoint");
        fs::write(dir.join(HISTORY_FILE), &self.history).expect("the history");
        (self.last_note, self.leaf_bytes)
    }
}

/// Record `index` of a log: [`RUNNING`] intents, then their outcomes, and so on.
fn event(log: &LogId, index: u64) -> AuditEvent {
    let round = index / (2 * RUNNING);
    let within = index % (2 * RUNNING);
    let call = round * RUNNING + within % RUNNING;
    let outcome = within >= RUNNING;
    let digest = Hash::of(&index.to_le_bytes()).0;
    let call_id = u128::from_le_bytes(Hash::of(&call.to_be_bytes()).0[..16].try_into().expect("16 bytes"));
    AuditEvent {
        phase: if outcome { Phase::Outcome } else { Phase::Intent },
        call_id: CallId(call_id),
        tenant: log.0.clone(),
        time_ns: START_NS + index * 50_000,
        who: Who {
            principal: format!("analyst-{}", call % 500),
            agent: Some("desk \"4.2\"".to_owned()),
            client_address: Some(format!("10.4.{}.{}:51{:03}", call % 250, call % 199, call % 1000)),
            authenticated_by: format!("api_key:k{}", call % 40),
        },
        what: What {
            method: "tools/call".to_owned(),
            target: Some(["sql.query", "files.read", "mail.search"][(call % 3) as usize].to_owned()),
            plugin: Some("sql".to_owned()),
            request_id: Some(call.to_string()),
            transport: "http".to_owned(),
            ..What::default()
        },
        why: Why {
            workflow: Some(format!("report/{}", call / 100)),
            traceparent: Some(format!("00-{call_id:032x}-{:016x}-01", call ^ 0x5555)),
            attempt: 1,
            ..Why::default()
        },
        decision: Some(Effect::Allow),
        policies: vec!["analysts/read-reports".to_owned()],
        revision: Revision(1200 + call / 10_000),
        status: outcome.then_some(CallStatus::Ok),
        error: None,
        reason: None,
        guards: Vec::new(),
        body: Some(Body {
            commit: digest,
            key: KeyId([7; 16]),
            len: 200,
            redaction: None,
            kept: KeptBody::CommitmentOnly,
        }),
        impact: if outcome {
            Impact { bytes_out: 400 + call % 9000, duration_us: 900 + call % 700, ..Impact::default() }
        } else {
            Impact { bytes_in: 120 + call % 300, ..Impact::default() }
        },
    }
}
