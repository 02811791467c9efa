//! Canonical audit record, hash chains, RFC 6962 tree, signed checkpoint and the block format.
//!
//! Purpose: everything about the audit log that is a pure function of bytes, so that the
//! sequencer, the verifier and a test agree by construction.
//! Invariants: no files, clock, randomness, threads or keys; every decoder is bounded and
//! rejects what it does not know; a leaf's bytes are made once and never re-made to be checked.
//! Left out: where bytes live (`provost-audit-store`), what a report says
//! (`provost-audit-verify`), and key material (signing goes through [`NoteSigner`]).

mod block;
mod block_set;
mod body_file;
mod checkpoint;
mod cosignature;
mod event_view;
mod found;
mod hash;
mod index;
mod keys;
mod lanes;
mod lenient;
mod log_id;
mod marks;
mod note;
mod policy;
mod proof;
mod pruned;
mod quick;
mod record;
mod runs;
mod scan;
mod tile;
mod tlog_proof;
mod tree;
mod view;
mod witness;

pub use block::{
    BLOCK_HEADER_LEN, BLOCK_RECORDS, BlockError, BlockHeader, BodyDecoder, FRAME_PREFIX_LEN, Leaves, MAX_BLOCK_RAW,
    SEGMENT_BLOCKS, SEGMENT_FOOTER_LEN, SEGMENT_HEADER_LEN, SEGMENT_LEAVES, SegmentFooter, SegmentHeader,
    TAIL_HEADER_LEN, TAIL_PREFIX_LEN, TailHeader, decode_body, encode_block, push_tail_frame, without_checksum,
};
pub use block_set::BlockSet;
pub use body_file::{BODY_HEADER_LEN, BODY_PREFIX_LEN, BodyFileError, BodyHeader, BodyPrefix, MAX_STORED_BODY};
pub use checkpoint::{Checkpoint, CheckpointError, MAX_CHECKPOINT_BYTES, TreeHead};
pub use cosignature::CosignerKey;
pub use event_view::EventView;
pub use hash::{
    Hash, HashParseError, chain_next, chain_start, hash_runs, leaf_hash, leaf_hashes, leaf_hashes_of, node_hash,
};
pub use index::{
    BlockPlace, IndexBuilder, IndexError, IndexField, MAX_INDEX_BYTES, SegmentIndex, block_first, index_key,
    index_keys, status_word,
};
pub use log_id::{CLUSTER_DIR, LogId, TENANTS_DIR};
pub use note::{MAX_SIGNATURES, NoteError, NoteSigner, NoteVerifier, SignedNote, VerifierKey, split_notes};
pub use policy::{Cosigned, MAX_POLICY_BYTES, PolicyError, PolicyLog, PolicyWitness, WitnessPolicy};
pub use proof::{ProofError, consistency_proof, inclusion_proof, root_of, verify_consistency, verify_inclusion};
pub use pruned::{HOLD_EVENT, PRUNE_EVENT, PRUNED_LEN, PruneNote, PrunedSegment, RELEASE_EVENT};
pub use record::{MAX_LEAF, Place, Record, RecordError, encode_record};
pub use tile::{TILE_WIDTH, TileBuilder, TileKind, TileName, push_entry, tile_bytes};
pub use tlog_proof::{MAX_TLOG_PROOF_BYTES, TlogConsistency, TlogProof, TlogProofError};
pub use tree::Frontier;
pub use view::{RecordReader, RecordView, ViewError};
pub use witness::{AddCheckpoint, MAX_PROOF_HASHES, MAX_REQUEST_BYTES, Refusal};
