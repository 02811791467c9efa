//! Reads what can be read of a record whose values are not of the kinds that their keys say.
//!
//! Such a record is not taken any more, and no honest writer makes one. One that is in a log all the same
//! (its bytes are forever) must not be the end of whoever reads that log: it is handed out with the values
//! that fit, beside its bytes, which hold everything.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::record::{Record, RecordError};

/// Keys without which there is no record.
const NEEDED: [&str; 8] = ["call_id", "epoch", "phase", "seq", "time_ns", "v", "writer_id", "writer_prev"];

impl Record<'static> {
    /// As [`Record::decode`]; where that refuses, without the values that are of another kind. True: some were
    /// left out. An error where even what every record has cannot be read.
    pub fn decode_what_fits(leaf: &[u8]) -> Result<(Self, bool), RecordError> {
        if let Ok(record) = Self::decode(leaf) {
            return Ok((record, false));
        }
        let all: Map<String, Value> = serde_json::from_slice(leaf)?;
        let (needed, others): (Map<_, _>, Map<_, _>) =
            all.into_iter().partition(|(key, _)| NEEDED.contains(&key.as_str()));
        let read = |fields: &Map<String, Value>| Record::deserialize(&Value::Object(fields.clone()));
        read(&needed)?;
        let mut fits = needed.clone();
        for (key, value) in others {
            // Each by itself beside what is needed: fields do not depend on each other, and a record with very
            // many keys costs no more than its length.
            let mut one = needed.clone();
            one.insert(key.clone(), value.clone());
            if read(&one).is_ok() {
                fits.insert(key, value);
            }
        }
        Ok((read(&fits)?, true))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn leaf(more: &str) -> Vec<u8> {
        let zeros = "0".repeat(64);
        let (id, end) = ("0".repeat(32), format!("\"v\":1,\"writer_id\":\"n\",\"writer_prev\":\"{zeros}\"}}"));
        format!("{{{more}\"call_id\":\"{id}\",\"epoch\":1,\"phase\":\"event\",\"seq\":2,\"time_ns\":\"3\",{end}")
            .into_bytes()
    }

    #[test]
    fn a_value_of_another_kind_is_left_out_and_nothing_else() {
        let good = r#""agent":"desk","bytes_in":7,"event":"apply","event.objects":["a"],"status":"ok","#;
        let (record, left_out) = Record::decode_what_fits(&leaf(good)).unwrap();
        assert!(!left_out && record.status.is_some());
        let bad = [
            (r#""status":"ok""#, r#""status":"x""#),
            (r#""bytes_in":7"#, r#""bytes_in":"7""#),
            (r#"["a"]"#, "7"),
            (r#""agent":"desk""#, r#""agent":["desk"]"#),
        ];
        for (from, to) in bad {
            let spoilt = leaf(&good.replace(from, to));
            assert!(Record::decode(&spoilt).is_err(), "{to}");
            let (record, left_out) = Record::decode_what_fits(&spoilt).unwrap();
            assert!(left_out, "{to}");
            let kept = [
                record.agent.is_some(),
                record.bytes_in == 7,
                !record.event_objects.is_empty(),
                record.status.is_some(),
            ];
            assert_eq!(kept.iter().filter(|kept| **kept).count(), 3, "{to}: {kept:?}");
            assert_eq!((record.seq, record.event.as_deref()), (2, Some("apply")), "{to}");
        }
        for damaged in [&b"[]"[..], b"{}", &leaf("")[..40]] {
            assert!(Record::decode_what_fits(damaged).is_err());
        }
    }
}
