//! The record as stored: one flat JSON object in canonical form (JCS, RFC 8785).
//!
//! Invariants: keys are declared in ascending order, so that serialising *is* canonicalising
//! (a test compares with a canonicaliser); numbers stay within the 53 bits that RFC 8785 can
//! carry, times are text; absent values are absent keys. Names follow OpenTelemetry's GenAI and
//! MCP conventions where they exist.
//! Left out: the index (it is the place in the log, not a claim inside it) and bodies (a keyed
//! commitment and the hash of the sealed bytes stand for them).

use std::borrow::Cow;

use provost_types::{AuditEvent, Body, CallId, CallStatus, Effect, Impact, KeptBody, KeyId, Phase};
use serde::{Deserialize, Serialize};

use crate::hash::Hash;

/// The longest leaf, in bytes: the limit of C2SP tlog-tiles entries.
pub const MAX_LEAF: usize = 65_535;
/// Longer texts are cut here (and end in `…`): bytes.
const MAX_TEXT: usize = 1_024;
/// Longer lists are cut here: items; each item is cut at [`MAX_ITEM`].
const MAX_ITEMS: usize = 64;
/// Longer list items are cut here: bytes.
const MAX_ITEM: usize = 256;
/// The largest integer that RFC 8785 carries exactly.
const MAX_SAFE_INTEGER: u64 = (1 << 53) - 1;
/// The version of this form.
const VERSION: u64 = 1;

/// A record could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The canonical form is longer than [`MAX_LEAF`].
    #[error("the record is {0} bytes; at most {MAX_LEAF} can be recorded")]
    TooLong(usize),
    /// Not a record of this version.
    #[error("not an audit record: {0}")]
    Json(#[from] serde_json::Error),
}

/// Where a record stands in its writer's chain within one log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// The node that wrote it.
    pub writer_id: &'a str,
    /// Grows by at least one each time the writer starts.
    pub epoch: u64,
    /// From 1, without gaps, per writer, log and epoch.
    pub seq: u64,
    /// Leaf hash of the writer's previous record in this log, through epochs; zero for its first.
    pub prev: Hash,
}

type Text<'a> = Option<Cow<'a, str>>;

/// A stored record. Fields are in the order of their keys: see the module's invariants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each key is described in docs/audit-format.md")]
pub struct Record<'a> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Text<'a>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub attempt: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authenticated_by: Text<'a>,
    #[serde(default, rename = "body.commit", skip_serializing_if = "Option::is_none")]
    pub body_commit: Option<Hash>,
    #[serde(default, rename = "body.key", skip_serializing_if = "Option::is_none")]
    pub body_key: Option<KeyId>,
    #[serde(default, rename = "body.len", skip_serializing_if = "is_zero")]
    pub body_len: u64,
    #[serde(default, rename = "body.omitted", skip_serializing_if = "Option::is_none")]
    pub body_omitted: Text<'a>,
    #[serde(default, rename = "body.sealed", skip_serializing_if = "Option::is_none")]
    pub body_sealed: Option<Hash>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bytes_in: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bytes_out: u64,
    pub call_id: CallId,
    #[serde(default, rename = "client.address", skip_serializing_if = "Option::is_none")]
    pub client_address: Text<'a>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cost_micro: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Effect>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub duration_us: u64,
    pub epoch: u64,
    #[serde(default, rename = "error.type", skip_serializing_if = "Option::is_none")]
    pub error_type: Text<'a>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Text<'a>,
    #[serde(default, rename = "event.detail", skip_serializing_if = "Option::is_none")]
    pub event_detail: Text<'a>,
    #[serde(default, rename = "event.objects", skip_serializing_if = "Vec::is_empty")]
    pub event_objects: Vec<Cow<'a, str>>,
    #[serde(default, rename = "gen_ai.operation.name", skip_serializing_if = "Option::is_none")]
    pub operation: Text<'a>,
    #[serde(default, rename = "gen_ai.prompt.name", skip_serializing_if = "Option::is_none")]
    pub prompt: Text<'a>,
    #[serde(default, rename = "gen_ai.request.model", skip_serializing_if = "Option::is_none")]
    pub model: Text<'a>,
    #[serde(default, rename = "gen_ai.tool.name", skip_serializing_if = "Option::is_none")]
    pub tool: Text<'a>,
    #[serde(default, rename = "gen_ai.usage.input_tokens", skip_serializing_if = "is_zero")]
    pub tokens_in: u64,
    #[serde(default, rename = "gen_ai.usage.output_tokens", skip_serializing_if = "is_zero")]
    pub tokens_out: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub guards: Vec<Cow<'a, str>>,
    #[serde(default, rename = "jsonrpc.request.id", skip_serializing_if = "Option::is_none")]
    pub request_id: Text<'a>,
    #[serde(default, rename = "mcp.method.name", skip_serializing_if = "Option::is_none")]
    pub method: Text<'a>,
    #[serde(default, rename = "mcp.protocol.version", skip_serializing_if = "Option::is_none")]
    pub protocol_version: Text<'a>,
    #[serde(default, rename = "mcp.resource.uri", skip_serializing_if = "Option::is_none")]
    pub resource: Text<'a>,
    #[serde(default, rename = "network.transport", skip_serializing_if = "Option::is_none")]
    pub transport: Text<'a>,
    pub phase: Phase,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plugin: Text<'a>,
    #[serde(default, rename = "plugin.digest", skip_serializing_if = "Option::is_none")]
    pub plugin_digest: Text<'a>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<Cow<'a, str>>,
    #[serde(default, rename = "policy.revision", skip_serializing_if = "is_zero")]
    pub revision: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Text<'a>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Text<'a>,
    #[serde(default, rename = "redaction.policy", skip_serializing_if = "Option::is_none")]
    pub redaction: Option<Hash>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_call_id: Option<CallId>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub rows: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<Cow<'a, str>>,
    pub seq: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<CallStatus>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Text<'a>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Text<'a>,
    #[serde(with = "decimal")]
    pub time_ns: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Text<'a>,
    pub v: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Text<'a>,
    pub writer_id: Cow<'a, str>,
    pub writer_prev: Hash,
}

impl Record<'static> {
    /// Reads a stored leaf.
    pub fn decode(leaf: &[u8]) -> Result<Self, RecordError> {
        Ok(serde_json::from_slice(leaf)?)
    }
}

impl<'a> Record<'a> {
    /// The record of `event` at `place`. Over-long texts are cut, see the constants above.
    pub fn new(event: &'a AuditEvent, place: &Place<'a>) -> Self {
        let (who, what, why, impact) = (&event.who, &event.what, &event.why, &event.impact);
        let (subject, body) = (what.subject.as_ref(), event.body.as_ref());
        let target = Target::of(&what.method, what.target.as_deref());
        let Impact { bytes_in, bytes_out, rows, tokens_in, tokens_out, cost_micro, duration_us } = *impact;
        Self {
            agent: text(who.agent.as_deref()),
            attempt: u64::from(why.attempt),
            authenticated_by: text(Some(&who.authenticated_by)),
            body_commit: body.map(|b| Hash(b.commit)),
            body_key: body.map(|b| b.key),
            body_len: safe(body.map_or(0, |b| b.len)),
            body_omitted: body.and_then(omitted).map(Cow::Borrowed),
            body_sealed: body.and_then(sealed),
            bytes_in: safe(bytes_in),
            bytes_out: safe(bytes_out),
            call_id: event.call_id,
            client_address: text(who.client_address.as_deref()),
            cost_micro: safe(cost_micro),
            decision: event.decision,
            duration_us: safe(duration_us),
            epoch: safe(place.epoch),
            error_type: text(event.error.as_deref()),
            event: text(subject.map(|s| s.event.as_str())),
            event_detail: text(subject.map(|s| s.detail.as_str())),
            event_objects: subject.map(|s| items(&s.objects)).unwrap_or_default(),
            operation: text(operation(&what.method)),
            prompt: target.prompt,
            model: target.model,
            tool: target.tool,
            tokens_in: safe(tokens_in),
            tokens_out: safe(tokens_out),
            guards: items(&event.guards),
            request_id: text(what.request_id.as_deref()),
            method: text(Some(&what.method)),
            protocol_version: text(what.protocol_version.as_deref()),
            resource: target.resource,
            transport: text(Some(&what.transport)),
            phase: event.phase,
            plugin: text(what.plugin.as_deref()),
            plugin_digest: text(what.plugin_digest.as_deref()),
            policies: items(&event.policies),
            revision: safe(event.revision.0),
            principal: text(Some(&who.principal)),
            reason: text(event.reason.as_deref()),
            redaction: body.and_then(|b| b.redaction).map(Hash),
            root_call_id: why.root_call,
            rows: safe(rows),
            secrets: items(&what.secrets),
            seq: safe(place.seq),
            status: event.status,
            target: target.other,
            tenant: event.tenant.as_ref().map(|name| Cow::Borrowed(name.as_str())),
            time_ns: event.time_ns,
            traceparent: text(why.traceparent.as_deref()),
            v: VERSION,
            workflow: text(why.workflow.as_deref()),
            writer_id: Cow::Borrowed(place.writer_id),
            writer_prev: place.prev,
        }
    }

    /// Tool, prompt, resource or model, whichever was called.
    pub fn called(&self) -> Option<&str> {
        [&self.tool, &self.prompt, &self.resource, &self.model, &self.target].into_iter().find_map(Option::as_deref)
    }
}

/// Most leaves of calls are shorter, bytes: their place need not grow.
const USUAL_LEAF: usize = 1_024;

/// The leaf of `event` at `place`: the exact bytes to be stored and hashed.
pub fn encode_record(event: &AuditEvent, place: &Place<'_>) -> Result<Vec<u8>, RecordError> {
    let mut leaf = Vec::with_capacity(USUAL_LEAF);
    serde_json::to_writer(&mut leaf, &Record::new(event, place))?;
    if leaf.len() > MAX_LEAF { Err(RecordError::TooLong(leaf.len())) } else { Ok(leaf) }
}

/// Why nothing is stored for a body.
fn omitted(body: &Body) -> Option<&'static str> {
    match body.kept {
        KeptBody::Sealed(_) => None,
        KeptBody::TooLong => Some("too_long"),
        KeptBody::CommitmentOnly => Some("not_kept"),
    }
}

/// The hash of what is stored for a body.
fn sealed(body: &Body) -> Option<Hash> {
    match &body.kept {
        KeptBody::Sealed(sealed) => Some(Hash(sealed.sha256)),
        KeptBody::TooLong | KeptBody::CommitmentOnly => None,
    }
}

/// Under which key the target of a call is kept: OpenTelemetry has one for each kind.
#[derive(Default)]
struct Target<'a> {
    tool: Text<'a>,
    prompt: Text<'a>,
    resource: Text<'a>,
    model: Text<'a>,
    other: Text<'a>,
}

impl<'a> Target<'a> {
    fn of(method: &str, target: Option<&'a str>) -> Self {
        let target = text(target);
        let mut out = Self::default();
        match method {
            "tools/call" => out.tool = target,
            "prompts/get" => out.prompt = target,
            "resources/read" | "resources/subscribe" | "resources/unsubscribe" => {
                out.resource = target;
            }
            m if m.starts_with("inference/") => out.model = target,
            _ => out.other = target,
        }
        out
    }
}

/// `gen_ai.operation.name` of OpenTelemetry's GenAI conventions.
fn operation(method: &str) -> Option<&'static str> {
    match method {
        "tools/call" => Some("execute_tool"),
        "inference/chat" => Some("chat"),
        "inference/embed" => Some("embeddings"),
        "inference/transcribe" => Some("transcription"),
        _ => None,
    }
}

fn text(value: Option<&str>) -> Text<'_> {
    value.filter(|v| !v.is_empty()).map(|v| cut(v, MAX_TEXT))
}

/// A list that is cut says so with its last item.
fn items(values: &[String]) -> Vec<Cow<'_, str>> {
    let kept = if values.len() > MAX_ITEMS { MAX_ITEMS - 1 } else { values.len() };
    let cut_off = (kept < values.len()).then_some(Cow::Borrowed("…"));
    values.iter().take(kept).map(|v| cut(v, MAX_ITEM)).chain(cut_off).collect()
}

fn cut(value: &str, max: usize) -> Cow<'_, str> {
    if value.len() <= max {
        return Cow::Borrowed(value);
    }
    const MARK: char = '…';
    let mut end = max - MARK.len_utf8();
    while !value.is_char_boundary(end) {
        end -= 1;
    }
    let mut short = String::with_capacity(max);
    short.push_str(&value[..end]);
    short.push(MARK);
    Cow::Owned(short)
}

/// Saturates: a larger number cannot be written in RFC 8785 and none of these can honestly
/// reach nine peta-units.
fn safe(value: u64) -> u64 {
    value.min(MAX_SAFE_INTEGER)
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// A 64-bit number as decimal text: nanoseconds do not fit RFC 8785's 53 bits.
mod decimal {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(value: &u64, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(value)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<u64, D::Error> {
        std::borrow::Cow::<'de, str>::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;
    use provost_types::{Name, Revision, Subject, What, Who, Why};

    use super::*;
    use crate::view::RecordView;

    #[test]
    fn a_list_that_is_cut_says_so() {
        let list = |n: usize| (0..n).map(|i| i.to_string()).collect::<Vec<_>>();
        for (count, length, last) in [(0, 0, None), (64, 64, Some("63")), (65, 64, Some("…")), (900, 64, Some("…"))]
        {
            let values = list(count);
            let kept = items(&values);
            assert_eq!((kept.len(), kept.last().map(|v| &**v)), (length, last), "{count}");
        }
    }

    fn full(text: &str) -> AuditEvent {
        let own = || Some(text.to_owned());
        let subject = Subject { event: text.to_owned(), objects: vec![text.to_owned(); 2], detail: text.to_owned() };
        AuditEvent {
            phase: Phase::Outcome,
            call_id: CallId(7),
            tenant: Name::new("acme").ok(),
            time_ns: u64::MAX,
            who: Who {
                principal: text.to_owned(),
                agent: own(),
                client_address: own(),
                authenticated_by: text.to_owned(),
            },
            what: What {
                method: "resources/read".to_owned(),
                target: own(),
                plugin: own(),
                plugin_digest: own(),
                request_id: own(),
                protocol_version: own(),
                transport: text.to_owned(),
                secrets: vec![text.to_owned()],
                subject: Some(subject),
            },
            why: Why { workflow: own(), traceparent: own(), root_call: Some(CallId(u128::MAX)), attempt: 2 },
            decision: Some(Effect::Deny),
            policies: vec![text.to_owned()],
            revision: Revision(u64::MAX),
            status: Some(CallStatus::ToolError),
            error: own(),
            reason: own(),
            guards: vec![text.to_owned(); 2],
            body: Some(Body {
                commit: [9; 32],
                key: KeyId([8; 16]),
                len: 3,
                redaction: Some([7; 32]),
                kept: KeptBody::TooLong,
            }),
            impact: Impact {
                bytes_in: 1,
                bytes_out: u64::MAX,
                rows: 3,
                tokens_in: 4,
                tokens_out: 5,
                cost_micro: 6,
                duration_us: 7,
            },
        }
    }

    fn place() -> Place<'static> {
        Place { writer_id: "node-1", epoch: 3, seq: 8, prev: Hash([1; 32]) }
    }

    /// Canonical form by another road: sorted keys, no white space, RFC 8785's escapes.
    fn canonical(leaf: &[u8]) -> Vec<u8> {
        let fields: std::collections::BTreeMap<String, serde_json::Value> = serde_json::from_slice(leaf).unwrap();
        serde_json::to_vec(&fields).unwrap()
    }

    #[test]
    fn the_form_is_canonical_and_stable() {
        for method in ["tools/call", "prompts/get", "inference/chat", "completion/complete"] {
            let mut event = full("x");
            event.what.method = method.to_owned();
            let leaf = encode_record(&event, &place()).unwrap();
            assert_eq!(leaf, canonical(&leaf), "{method}");
            RecordView::read(&leaf).unwrap();
            assert_eq!(Record::decode(&leaf).unwrap().called(), Some("x"), "{method}");
        }
        // The first record ever written with these fields: its bytes must never change.
        let event = AuditEvent { what: What::default(), ..full("") };
        let leaf = encode_record(&event, &place()).unwrap();
        let text = String::from_utf8(leaf).unwrap();
        assert!(text.starts_with(r#"{"attempt":2,"body.commit":"0909"#), "{text}");
        assert!(text.contains(r#""bytes_out":9007199254740991,"#), "saturates: {text}");
        assert!(text.contains(r#""time_ns":"18446744073709551615""#), "{text}");
        assert!(text.ends_with(&format!(r#""v":1,"writer_id":"node-1","writer_prev":"{}"}}"#, "01".repeat(32))));
    }

    #[test]
    fn long_texts_are_cut_and_hostile_ones_refused() {
        let long = "é".repeat(40_000);
        let leaf = encode_record(&full(&long), &place()).unwrap();
        let record = Record::decode(&leaf).unwrap();
        let reason = record.reason.unwrap();
        assert!(reason.len() <= MAX_TEXT && reason.ends_with('…'));
        let mut event = full(&"\u{1}".repeat(2_000));
        event.policies = vec!["\u{1}".repeat(300); 100];
        assert!(matches!(encode_record(&event, &place()), Err(RecordError::TooLong(_))));
    }

    proptest! {
        #[test]
        fn any_text_makes_a_canonical_record(text in any::<String>()) {
            let leaf = encode_record(&full(&text), &place()).unwrap();
            prop_assert_eq!(&leaf, &canonical(&leaf));
            let record = Record::decode(&leaf).unwrap();
            prop_assert_eq!(&serde_json::to_vec(&record).unwrap(), &leaf);
            let view = RecordView::read(&leaf).unwrap();
            prop_assert_eq!((view.seq, view.epoch, view.time_ns), (8, 3, u64::MAX));
            prop_assert_eq!(view.tenant, Some(b"acme".as_slice()));
        }
    }
}
