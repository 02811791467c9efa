//! What an answer of an external guard makes of a text.
//!
//! Invariants: what comes out is JSON of the same type in which nothing of the protocol's own is another.
//! An answer that would need more is no permission: it blocks.

use bytes::Bytes;
use provost_data_guards::{Layout, mask_spans};
use provost_mcp::{JsonLimits, RawJson, RawObject};
use provost_wire::guard::check_response::Verdict;

use super::reason;

/// Most places that one answer masks.
const SPANS_MAX: usize = 4096;
/// What a caller reads of an answer that cannot be done.
const UNDOABLE: &str = "it asked for a change that cannot be made";

/// What a verdict comes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Judged {
    Pass,
    Changed(RawJson),
    Blocked(String),
    Unanswered,
}

/// What becomes of the text, and how many things that is about.
pub(super) fn judge(verdict: Verdict, json: &RawJson, layout: &Layout) -> (Judged, u32) {
    let undoable = || Judged::Blocked(UNDOABLE.to_owned());
    match verdict {
        Verdict::Allow(_) => (Judged::Pass, 0),
        Verdict::Block(block) => (Judged::Blocked(reason(&block.reason)), 1),
        Verdict::Mask(mask) if mask.spans.is_empty() => (Judged::Pass, 0),
        Verdict::Mask(mask) if mask.spans.len() > SPANS_MAX => (undoable(), 1),
        Verdict::Mask(mask) => {
            let spans: Vec<_> = mask.spans.iter().map(|s| s.start as usize..s.end as usize).collect();
            let count = u32::try_from(spans.len()).unwrap_or(u32::MAX);
            (mask_spans(json, layout, &spans).map_or_else(undoable, Judged::Changed), count)
        }
        Verdict::Replace(replace) => (replaced(replace.json, json, layout).map_or_else(undoable, Judged::Changed), 1),
    }
}

fn replaced(text: String, before: &RawJson, layout: &Layout) -> Option<RawJson> {
    let after = RawJson::check(Bytes::from(text), &JsonLimits::RESPONSE).ok()?;
    let kind = |json: &RawJson| json.as_bytes().trim_ascii_start().first().copied();
    let (was, is) = (kind(before)?, kind(&after)?);
    if was != is || !matches!(was, b'{' | b'[' | b'"') {
        return None;
    }
    if was == b'{' {
        let (was, is) = (RawObject::parse(before).ok()?, RawObject::parse(&after).ok()?);
        let own = layout.fixed.iter().chain(layout.skipped).chain(&["_meta"]);
        let same = |name: &&str| {
            let member = |object: &RawObject| object.get(name).map(|value| value.as_bytes().to_vec());
            member(&was) == member(&is)
        };
        if !own.copied().all(|name| same(&name)) {
            return None;
        }
    }
    Some(after)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use provost_data_guards::Root;
    use provost_wire::guard::{Allow, Block, Mask, Replace, Span};

    use super::*;

    const LAYOUT: Layout = Layout {
        skipped: &["requestState"],
        fixed: &["name"],
        meta_skipped: &["progressToken"],
        json_texts: &[],
        root: Root::Nowhere,
    };

    fn json(text: &str) -> RawJson {
        RawJson::check(Bytes::from(text.to_owned()), &JsonLimits::RESPONSE).unwrap()
    }

    fn masked(text: &str, parts: &[&str]) -> Option<String> {
        let span = |part: &&str| {
            let start = text.find(*part).unwrap();
            Span { start: start as u32, end: (start + part.len()) as u32 }
        };
        let mask = Mask { spans: parts.iter().map(span).collect() };
        match judge(Verdict::Mask(mask), &json(text), &LAYOUT).0 {
            Judged::Changed(after) => Some(after.as_str().to_owned()),
            Judged::Blocked(why) => {
                assert_eq!(why, UNDOABLE);
                None
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn places_are_written_over_and_what_cannot_be_blocks() {
        for (text, parts, after) in [
            (r#"{"a":"x Lynx y"}"#, vec!["Lynx"], Some(r#"{"a":"x **** y"}"#)),
            (
                r#"{"a":"Lynx é \n","b":[1234,true]}"#,
                vec!["é \\n", "Lynx", "1234"],
                Some(r#"{"a":"**** ***","b":["****",true]}"#),
            ),
            (r#"{"a":"\u00e9\u0041"}"#, vec!["\\u00e9"], Some(r#"{"a":"*\u0041"}"#)),
            (r#""a text""#, vec!["text"], Some(r#""a ****""#)),
            (r#"{"_meta":{"x":"Lynx"}}"#, vec!["Lynx"], Some(r#"{"_meta":{"x":"****"}}"#)),
            // Names, what names the call, the protocol's own, half an escape or number, and no value at all.
            (r#"{"name":"Lynx"}"#, vec!["Lynx"], None),
            (r#"{"a":{"Lynx":1}}"#, vec!["Lynx"], None),
            (r#"{"requestState":"Lynx"}"#, vec!["Lynx"], None),
            (r#"{"_meta":{"progressToken":"Lynx"}}"#, vec!["Lynx"], None),
            (r#"{"a":"\u00e9"}"#, vec!["u00e9"], None),
            (r#"{"a":1234}"#, vec!["23"], None),
            (r#"{"a":"x","b":"y"}"#, vec![r#"x","b":"y"#], None),
            (r#"{"a":[1]}"#, vec!["[1]"], None),
        ] {
            assert_eq!(masked(text, &parts).as_deref(), after, "{text} {parts:?}");
        }
        for spans in [vec![(3, 2)], vec![(0, 99)], vec![(6, 8), (7, 9)], vec![(6, 6)]] {
            let mask = Mask { spans: spans.into_iter().map(|(start, end)| Span { start, end }).collect() };
            let judged = judge(Verdict::Mask(mask), &json(r#"{"a":"Lynx"}"#), &LAYOUT).0;
            assert_eq!(judged, Judged::Blocked(UNDOABLE.to_owned()));
        }
    }

    #[test]
    fn a_replacement_is_of_the_same_type_and_names_the_same() {
        let before = json(r#"{"name":"a.b","arguments":{"x":1},"_meta":{"progressToken":7}}"#);
        for (text, taken) in [
            (r#"{"name":"a.b","arguments":{},"_meta":{"progressToken":7}}"#, true),
            (r#"{"name":"a.c","arguments":{},"_meta":{"progressToken":7}}"#, false),
            (r#"{"arguments":{},"_meta":{"progressToken":7}}"#, false),
            (r#"{"name":"a.b","arguments":{}}"#, false),
            (r#"{"name":"a.b","requestState":"x","arguments":{},"_meta":{"progressToken":7}}"#, false),
            (r#"{"name":"a.b","name":"a.b","_meta":{"progressToken":7}}"#, false),
            ("[]", false),
            ("{", false),
        ] {
            let judged = judge(Verdict::Replace(Replace { json: text.to_owned() }), &before, &LAYOUT).0;
            assert_eq!(matches!(judged, Judged::Changed(_)), taken, "{text}");
        }
    }

    #[test]
    fn a_reason_is_short_and_on_one_line() {
        let block = |reason: &str| judge(Verdict::Block(Block { reason: reason.to_owned() }), &json("{}"), &LAYOUT).0;
        assert_eq!(block(" no\nbirds\u{1b}[1m "), Judged::Blocked("nobirds[1m".to_owned()));
        let Judged::Blocked(long) = block(&"é".repeat(300)) else { panic!() };
        assert_eq!(long.len(), 200);
        assert_eq!(judge(Verdict::Allow(Allow {}), &json("{}"), &LAYOUT).0, Judged::Pass);
    }
}
