//! Calls that were running when the process ended: each gets an outcome `unknown`.

use std::{collections::BTreeMap, path::Path};

use provost_audit_core::{BLOCK_RECORDS, LogId, Record, SEGMENT_LEAVES};
use provost_audit_verify::{LogLayout, LogReader};
use provost_types::{AuditEvent, CallId, CallStatus, Impact, Phase, Revision, What, Who, Why};

use crate::error::AuditError;

/// The outcomes of `orphans`, read from the intents' own records.
pub(crate) fn orphan_outcomes(
    dir: &Path,
    orphans: Vec<(LogId, CallId, u64)>,
    now_ns: u64,
) -> Result<Vec<AuditEvent>, AuditError> {
    let mut by_log: BTreeMap<LogId, BTreeMap<u64, CallId>> = BTreeMap::new();
    for (log, call, index) in orphans {
        by_log.entry(log).or_default().insert(index, call);
    }
    let mut events = Vec::new();
    for (log, wanted) in by_log {
        let differs = |why: String| AuditError::Differs { log: log.clone(), why };
        let Some(first) = wanted.keys().next().copied() else { continue };
        let blocks: Vec<u64> = wanted.keys().map(|i| i - i % BLOCK_RECORDS).collect();
        let layout = LogLayout::new(dir.join(log.folder()));
        let mut reader = LogReader::from_segment(layout, first - first % SEGMENT_LEAVES)
            .with_filter(Box::new(move |h| blocks.binary_search(&h.first_index).is_ok()));
        let before = events.len();
        while let Some(chunk) = reader.next().map_err(|e| differs(e.to_string()))? {
            for (index, leaf) in chunk.iter() {
                let Some(call_id) = wanted.get(&index) else { continue };
                let record = Record::decode(leaf).map_err(|e| differs(e.to_string()))?;
                events.push(unknown_outcome(&log, *call_id, &record, now_ns));
            }
        }
        if events.len() - before != wanted.len() {
            return Err(differs("an intent without outcome cannot be read".to_owned()));
        }
    }
    Ok(events)
}

fn unknown_outcome(log: &LogId, call_id: CallId, intent: &Record<'_>, now_ns: u64) -> AuditEvent {
    let own = |text: &Option<std::borrow::Cow<'_, str>>| text.as_deref().map(str::to_owned);
    AuditEvent {
        phase: Phase::Outcome,
        call_id,
        tenant: log.0.clone(),
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
        body: None,
        impact: Impact::default(),
    }
}
