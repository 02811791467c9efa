//! Calls that were running when a writer's process ended: each gets an outcome `unknown`.
//!
//! A replica says which intents of a writer are open and what they hold; the writer's next process
//! makes the outcomes, because only it may write under its name.

use std::{collections::BTreeMap, path::Path};

use bytes::Bytes;
use provost_audit_core::{BLOCK_RECORDS, LogId, Record, SEGMENT_LEAVES};
use provost_audit_verify::{LogLayout, LogReader};
use provost_types::{AuditEvent, CallId, CallStatus, Impact, Phase, Revision, What, Who, Why};

use crate::error::AuditError;

/// Open intents that are read at once.
const MAX_CALLS: usize = 512;
/// Bytes of their records.
const MAX_BYTES: usize = 4 << 20;

/// An intent without outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenCall {
    /// Its log.
    pub log: LogId,
    /// Its index there.
    pub index: u64,
    /// Its record, as stored.
    pub intent: Bytes,
}

/// The records of the first of `orphans`, as many as fit into one answer.
pub(crate) fn read_open_calls(dir: &Path, mut orphans: Vec<(LogId, CallId, u64)>) -> Result<Vec<OpenCall>, AuditError> {
    orphans.truncate(MAX_CALLS);
    let mut by_log: BTreeMap<LogId, BTreeMap<u64, CallId>> = BTreeMap::new();
    for (log, call, index) in orphans {
        by_log.entry(log).or_default().insert(index, call);
    }
    let mut calls = Vec::new();
    let mut bytes = 0;
    for (log, wanted) in by_log {
        let differs = |why: String| AuditError::Differs { log: log.clone(), why };
        let Some(first) = wanted.keys().next().copied() else { continue };
        let blocks: Vec<u64> = wanted.keys().map(|i| i - i % BLOCK_RECORDS).collect();
        let layout = LogLayout::new(dir.join(log.folder()));
        let mut reader = LogReader::from_segment(layout, first - first % SEGMENT_LEAVES)
            .with_filter(Box::new(move |h| blocks.binary_search(&h.first_index).is_ok()));
        let mut found = 0;
        while let Some(chunk) = reader.next().map_err(|e| differs(e.to_string()))? {
            for (index, leaf) in chunk.iter().filter(|(index, _)| wanted.contains_key(index)) {
                bytes += leaf.len();
                found += 1;
                calls.push(OpenCall { log: log.clone(), index, intent: Bytes::copy_from_slice(leaf) });
                if bytes >= MAX_BYTES {
                    return Ok(calls);
                }
            }
        }
        if found != wanted.len() {
            return Err(differs("an intent without outcome cannot be read".to_owned()));
        }
    }
    Ok(calls)
}

/// The outcome of an open intent.
pub(crate) fn unknown_outcome(call: &OpenCall, now_ns: u64) -> Result<AuditEvent, AuditError> {
    let differs = |why: String| AuditError::Differs { log: call.log.clone(), why };
    let (intent, _) = Record::decode_what_fits(&call.intent).map_err(|e| differs(e.to_string()))?;
    let own = |text: &Option<std::borrow::Cow<'_, str>>| text.as_deref().map(str::to_owned);
    Ok(AuditEvent {
        phase: Phase::Outcome,
        call_id: intent.call_id,
        tenant: call.log.0.clone(),
        time_ns: now_ns,
        who: Who {
            principal: own(&intent.principal).unwrap_or_default(),
            agent: own(&intent.agent),
            client_address: own(&intent.client_address),
            authenticated_by: own(&intent.authenticated_by).unwrap_or_default(),
        },
        what: What {
            method: own(&intent.method).unwrap_or_default(),
            target: intent.called().map(str::to_owned),
            plugin: own(&intent.plugin),
            plugin_digest: own(&intent.plugin_digest),
            request_id: own(&intent.request_id),
            protocol_version: own(&intent.protocol_version),
            transport: own(&intent.transport).unwrap_or_default(),
            secrets: intent.secrets.iter().map(|s| s.clone().into_owned()).collect(),
            subject: None,
        },
        why: Why {
            workflow: own(&intent.workflow),
            traceparent: own(&intent.traceparent),
            root_call: intent.root_call_id,
            attempt: u32::try_from(intent.attempt).unwrap_or(u32::MAX),
        },
        decision: intent.decision,
        policies: intent.policies.iter().map(|p| p.clone().into_owned()).collect(),
        revision: Revision(intent.revision),
        status: Some(CallStatus::Unknown),
        error: None,
        reason: Some("the process ended between intent and outcome".to_owned()),
        guards: Vec::new(),
        body: None,
        impact: Impact::default(),
    })
}
