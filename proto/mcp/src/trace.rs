//! W3C Trace Context (Recommendation of 23 November 2021), as HTTP has it in headers and MCP in `_meta` (SEP-414).

use std::fmt;

use crate::{RawObject, meta::key};

/// The longest `tracestate` that is passed on; the recommendation asks for at least so much.
pub const MAX_TRACESTATE_BYTES: usize = 512;

/// A `traceparent`: a trace, the span that what follows belongs to, and whether it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// Never 0.
    pub trace_id: u128,
    /// Never 0.
    pub span_id: u64,
    /// Whether whoever sends it keeps its spans.
    pub is_sampled: bool,
}

impl TraceParent {
    /// Reads one. `None`: it is not one, and counts as missing. Of a version after 00 the part that is known counts.
    ///
    /// ```
    /// use provost_mcp::TraceParent;
    /// let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    /// assert_eq!(TraceParent::parse(text).unwrap().to_string(), text);
    /// assert_eq!(TraceParent::parse("00-00000000000000000000000000000000-00f067aa0ba902b7-01"), None);
    /// ```
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let digits = |part: &str, count: usize| {
            part.len() == count && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        let is_whole = digits(version, 2) && digits(trace, 32) && digits(span, 16) && digits(flags, 2);
        if !is_whole || version == "ff" || (version == "00" && parts.next().is_some()) {
            return None;
        }
        let trace_id = u128::from_str_radix(trace, 16).ok()?;
        let span_id = u64::from_str_radix(span, 16).ok()?;
        let flags = u8::from_str_radix(flags, 16).ok()?;
        (trace_id != 0 && span_id != 0).then_some(Self { trace_id, span_id, is_sampled: flags & 1 == 1 })
    }

    /// The `traceparent` in a request's `_meta`, and the `tracestate` beside it, where they may be passed on in headers.
    pub fn of_meta(meta: &RawObject) -> Option<(Self, Option<String>)> {
        let parent = Self::parse(&meta.get_text(key::TRACEPARENT)?)?;
        Some((parent, meta.get_text(key::TRACESTATE).filter(|state| is_state(state))))
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, u8::from(self.is_sampled))
    }
}

/// Whether a text may be passed on as `tracestate`; who made it, is not looked at.
pub fn is_state(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_TRACESTATE_BYTES && text.bytes().all(|b| (0x20..0x7f).contains(&b))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::RawJson;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[test]
    fn what_is_no_trace_parent_counts_as_missing() {
        let parsed = TraceParent::parse(&format!("00-{TRACE}-00f067aa0ba902b7-03")).unwrap();
        assert_eq!(parsed.trace_id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!((parsed.span_id, parsed.is_sampled), (0x00f0_67aa_0ba9_02b7, true));
        assert!(!TraceParent::parse(&format!("00-{TRACE}-00f067aa0ba902b7-00")).unwrap().is_sampled);
        assert!(TraceParent::parse(&format!("cc-{TRACE}-00f067aa0ba902b7-01-more")).is_some());
        for bad in [
            String::new(),
            "00-a-b-01".to_owned(),
            format!("ff-{TRACE}-00f067aa0ba902b7-01"),
            format!("00-{TRACE}-00f067aa0ba902b7-01-more"),
            format!("00-{}-00f067aa0ba902b7-01", TRACE.to_uppercase()),
            format!("00-{TRACE}-0000000000000000-01"),
            format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            format!("00-+{}-00f067aa0ba902b7-01", "1".repeat(31)),
        ] {
            assert_eq!(TraceParent::parse(&bad), None, "{bad}");
        }
    }

    #[test]
    fn of_meta_only_what_headers_can_carry_is_passed_on() {
        let of = |state: &str| {
            let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
            let meta = RawJson::from(json!({ "traceparent": parent, "tracestate": state }));
            TraceParent::of_meta(&RawObject::parse(&meta).unwrap()).unwrap().1
        };
        assert_eq!(of("rojo=00f067aa0ba902b7").as_deref(), Some("rojo=00f067aa0ba902b7"));
        for bad in ["", "a=b\r\nx: y", "é=1", &"x".repeat(MAX_TRACESTATE_BYTES + 1)] {
            assert_eq!(of(bad), None, "{bad}");
        }
        let alone = RawJson::from(json!({ "tracestate": "a=b" }));
        assert!(TraceParent::of_meta(&RawObject::parse(&alone).unwrap()).is_none());
    }
}
