//! What becomes of JSON: valid, the same but for protected values, and nothing hidden by escapes.

use bytes::Bytes;
use proptest::prelude::*;
use provost_data_guards::{Action, Guard, JsonInspection, Kind, Layout, Paths, Root, Rules, Words};
use provost_mcp::{JsonLimits, RawJson};
use provost_types::ContentPath;
use serde_json::{Value, json};

use crate::corpus::{
    rng::Rng,
    rows::{clean, positive},
};

const RESULT: Layout = Layout {
    skipped: &["requestState"],
    fixed: &["uri"],
    meta_skipped: &["progressToken", "io.modelcontextprotocol/"],
    json_texts: &["arguments"],
    root: Root::MemberAndTexts("structuredContent", &["text"]),
};

fn raw(text: &str) -> RawJson {
    RawJson::check(Bytes::from(text.to_owned()), &JsonLimits::RESPONSE).expect("JSON")
}

fn cards(action: Action) -> Guard {
    Guard::new(Rules::default().with(Kind::Card, action).with(Kind::Email, action))
}

fn paths(given: &[(&str, Action)]) -> Paths {
    Paths::new(given.iter().map(|(path, action)| (ContentPath::new(path).expect("a path"), *action)))
}

fn rewritten(inspection: &JsonInspection, before: &str) -> String {
    inspection.rewritten.as_ref().map_or(before, |r| r.as_str()).to_owned()
}

fn tally(inspection: &JsonInspection) -> Vec<(Kind, Action, u32)> {
    inspection.tally.iter().collect()
}

#[test]
fn values_are_masked_where_they_stand_and_nothing_else_changes() {
    let cases = [
        // Spaces, order and unknown members stay.
        (r#"{ "b" : "x 4111 1111 1111 1111" , "a":1.50 }"#, r#"{ "b" : "x **** **** **** 1111" , "a":1.50 }"#),
        // A number becomes a string.
        (r#"[4111111111111111, -4111111111111111]"#, r#"["************1111", "-************1111"]"#),
        (r#"{"n":4111111111111111.0}"#, r#"{"n":"************1111.0"}"#),
        // A number in a text that holds JSON stays one.
        (r#"{"t":"{\"n\":4111111111111111}"}"#, r#"{"t":"{\"n\":9999999999991111}"}"#),
        (r#"{"t":"{\"n\":\"4111111111111111\"}"}"#, r#"{"t":"{\"n\":\"************1111\"}"}"#),
        // Escapes that hide: once, in part, more than once, the slash of PHP.
        (r#"["\u0034111111111111111"]"#, r#"["************1111"]"#),
        (r#"["4111\u0020111\u0031 1111 1111"]"#, r#"["**** **** **** 1111"]"#),
        (r#"["{\"n\":\"\\u0034111111111111111\"}"]"#, r#"["{\"n\":\"************1111\"}"]"#),
        (r#"["\\\\u0034111111111111111"]"#, r#"["************1111"]"#),
        (r#"["<a\/> 4111111111111111"]"#, r#"["<a\/> ************1111"]"#),
        (r#"["ana\u0040example.com \u00fc"]"#, r#"["***@*******.*** \u00fc"]"#),
        // What is the protocol's is not looked at.
        (r#"{"requestState":"4111111111111111"}"#, r#"{"requestState":"4111111111111111"}"#),
        (
            r#"{"_meta":{"progressToken":4111111111111111,"io.modelcontextprotocol/x":"4111111111111111","y":"4111111111111111"}}"#,
            r#"{"_meta":{"progressToken":4111111111111111,"io.modelcontextprotocol/x":"4111111111111111","y":"************1111"}}"#,
        ),
        (r#"{"a":{"requestState":"4111111111111111"}}"#, r#"{"a":{"requestState":"************1111"}}"#),
    ];
    for (before, after) in cases {
        let inspection = cards(Action::Mask).inspect_json(&raw(before), &RESULT);
        assert_eq!(rewritten(&inspection, before), after, "{before}");
        assert!(inspection.blocked.is_none(), "{before}");
        assert!(serde_json::from_str::<Value>(after).is_ok(), "{after}");
        // The same is counted, and nothing changed, in report mode.
        let reported = cards(Action::Report).inspect_json(&raw(before), &RESULT);
        assert!(reported.rewritten.is_none() && reported.blocked.is_none(), "{before}");
        let count = |i: &JsonInspection| i.tally.iter().map(|(_, _, n)| n).sum::<u32>();
        assert_eq!(count(&reported), count(&inspection), "{before}");
        // And a block keeps a form without the value for the record.
        let blocked = cards(Action::Block).inspect_json(&raw(before), &RESULT);
        assert_eq!(blocked.blocked.is_some(), before != after, "{before}");
        assert_eq!(rewritten(&blocked, before), after, "{before}");
    }
}

#[test]
fn names_and_fixed_values_are_not_changed_but_let_nothing_pass() {
    for before in [
        r#"{"4111111111111111":1}"#,
        r#"{"a":{"x \u0034111 1111 1111 1111":1}}"#,
        r#"{"_meta":{"4111111111111111":1}}"#,
        r#"{"uri":"x://4111111111111111"}"#,
    ] {
        let inspection = cards(Action::Mask).inspect_json(&raw(before), &RESULT);
        assert_eq!(inspection.blocked.map(|b| b.kind), Some(Kind::Card), "{before}");
        let recorded = rewritten(&inspection, before);
        assert!(!recorded.contains("4111") && !recorded.contains("u0034"), "{recorded}");
        let reported = cards(Action::Report).inspect_json(&raw(before), &RESULT);
        assert!(reported.blocked.is_none() && reported.rewritten.is_none(), "{before}");
        assert_eq!(tally(&reported), [(Kind::Card, Action::Report, 1)], "{before}");
    }
}

#[test]
fn places_are_protected_whatever_they_hold() {
    let guard = |given: &[(&str, Action)]| cards(Action::Mask).with(Vec::new(), paths(given));
    let mask = |path: &'static str| vec![(path, Action::Mask)];
    for (given, before, after) in [
        (mask("$.a"), r#"{"a":1,"b":{"a":2}}"#, r#"{"a":"[masked]","b":{"a":2}}"#),
        (
            mask("$..a"),
            r#"{"a":{"x":1},"b":[{"a":2}],"c":null}"#,
            r#"{"a":"[masked]","b":[{"a":"[masked]"}],"c":null}"#,
        ),
        (
            mask("$.r[*].a"),
            r#"{"r":[{"a":[1,{}]},{"b":1,"a":null},{"a":""}]}"#,
            r#"{"r":[{"a":"[masked]"},{"b":1,"a":null},{"a":""}]}"#,
        ),
        (mask("$[*]"), r#"[1, "4111111111111111", {}]"#, r#"["[masked]", "[masked]", "[masked]"]"#),
        (mask("$.a"), r#"{"\u0061":"x"}"#, r#"{"\u0061":"[masked]"}"#),
        // What is beside a place is looked at all the same.
        (
            mask("$.a"),
            r#"{"a":"4111111111111111","b":"4111111111111111"}"#,
            r#"{"a":"[masked]","b":"************1111"}"#,
        ),
        (vec![("$.a", Action::Report), ("$..b", Action::Mask)], r#"{"a":{"b":1}}"#, r#"{"a":{"b":"[masked]"}}"#),
    ] {
        let inspection = guard(&given).inspect_json(&raw(before), &Layout::PLAIN);
        assert_eq!(rewritten(&inspection, before), after, "{given:?}");
    }
    let blocked = guard(&[("$..pin", Action::Block)]).inspect_json(&raw(r#"{"x":[{"pin":7}]}"#), &Layout::PLAIN);
    assert_eq!(blocked.blocked.map(|b| b.kind), Some(Kind::Path));

    // In results: the structured content, and the same as text.
    let inner = json!({ "pin": "77", "n": [1.5, "4111111111111111"], "p": "a\nb" }).to_string();
    let result =
        json!({ "structuredContent": { "pin": "77" }, "content": [{ "type": "text", "text": inner }], "pin": "stays" });
    let inspection = guard(&[("$.pin", Action::Mask)]).inspect_json(&raw(&result.to_string()), &RESULT);
    let after: Value = inspection.rewritten.as_ref().expect("changed").parse().expect("JSON");
    assert_eq!((&after["structuredContent"]["pin"], &after["pin"]), (&json!("[masked]"), &json!("stays")));
    let text: Value = serde_json::from_str(after["content"][0]["text"].as_str().expect("text")).expect("JSON");
    assert_eq!(text, json!({ "pin": "[masked]", "n": [1.5, "************1111"], "p": "a\nb" }));
    assert_eq!(tally(&inspection), [(Kind::Card, Action::Mask, 1), (Kind::Path, Action::Mask, 2)]);
}

#[test]
fn a_text_that_has_no_one_reading_is_protected_whole_or_as_far_as_it_goes() {
    let guard = |action| cards(Action::Report).with(Vec::new(), paths(&[("$.pin", action), ("$.b", Action::Report)]));
    let inspect = |action, text: &str| {
        let json = json!({ "calls": [{ "arguments": text }], "text": text }).to_string();
        guard(action).inspect_json(&raw(&json), &RESULT)
    };
    let deep = format!("{{\"pin\":77,\"x\":{}{}}}", "[".repeat(130), "]".repeat(130));
    // What should be JSON is protected whole; what begins like it, at its places.
    for (text, shown, places) in [
        (r#"{"pin":"77","pin":"78"}"#, r#"{"pin":"[masked]","pin":"[masked]"}"#, 2),
        (r#"{"pin":"77""#, r#"{"pin":"[masked]""#, 1),
        (r#"{"n":1,"pin":"7"#, r#"{"n":1,"pin":"[masked]""#, 1),
        (r#"{"n":1,"pin":"#, r#"{"n":1,"pin":"#, 0),
        (r#"{"pin":"77",}"#, r#"{"pin":"[masked]",}"#, 1),
        ("pin 77", "pin 77", 0),
        ("[pin] 77", "[pin] 77", 0),
        (r#"{"pin":77}}"#, r#"{"pin":"[masked]"}}"#, 1),
        ("{\"n\":1}\n{\"pin\":77} and more", "{\"n\":1}\n{\"pin\":\"[masked]\"} and more", 1),
        ("\u{feff}{\"pin\":77}", "\u{feff}{\"pin\":\"[masked]\"}", 1),
        (deep.as_str(), "[masked]", 1),
    ] {
        let inspection = inspect(Action::Mask, text);
        let after: Value = inspection.rewritten.as_ref().expect("changed").parse().expect("JSON");
        assert_eq!(after, json!({ "calls": [{ "arguments": "[masked]" }], "text": shown }));
        assert_eq!(tally(&inspection), [(Kind::Path, Action::Mask, 1 + places)], "{text}");
        assert_eq!(inspect(Action::Block, text).blocked.map(|b| b.kind), Some(Kind::Path), "{text}");
        assert!(inspect(Action::Report, text).rewritten.is_none(), "{text}");
    }
    let only = |text: &str| {
        let json = json!({ "text": text }).to_string();
        guard(Action::Block).inspect_json(&raw(&json), &RESULT).blocked.is_some()
    };
    assert!(only(r#"{"pin":"77","pin":"78"}"#) && only(r#"{"pin":"7"#) && !only("[pin] 77"));
    // What can be read is protected at its places, and what is empty holds nothing.
    for (text, after) in [(r#"{"pin":"77","n":1}"#, r#"{"pin":"[masked]","n":1}"#), (" ", " "), ("", "")] {
        let inspection = inspect(Action::Mask, text);
        let before = json!({ "calls": [{ "arguments": text }], "text": text }).to_string();
        let said: Value = serde_json::from_str(&rewritten(&inspection, &before)).expect("JSON");
        assert_eq!(said["calls"][0]["arguments"], after);
    }
}

/// Each character of a text in a form that JSON allows for it.
fn escaped(text: &str, rng: &mut Rng) -> String {
    let form = |c: char| match rng.below(3) {
        0 if c.is_ascii() => format!("\\u{:04x}", u32::from(c)),
        1 if c.is_ascii() => format!("\\u{:04X}", u32::from(c)),
        _ => {
            let plain = Value::from(c.to_string()).to_string();
            plain[1..plain.len() - 1].to_owned()
        }
    };
    text.chars().map(form).collect()
}

#[test]
fn no_value_of_the_corpus_is_left_however_it_is_escaped() {
    let guard = Guard::new(Rules::all(Action::Mask));
    let mut rng = Rng(21);
    for kind in Kind::ALL {
        for _ in 0..60 {
            let row = positive(*kind, &mut rng);
            let (_, start, end) = row.label.expect("a value");
            let value = &row.text[start..end];
            let escaped = format!(r#"{{"v":["{}"]}}"#, escaped(&row.text, &mut rng));
            let inspection = guard.inspect_json(&raw(&escaped), &Layout::PLAIN);
            let after: Value = serde_json::from_str(&rewritten(&inspection, &escaped)).expect("JSON");
            let after = after["v"][0].as_str().expect("a text");
            assert!(!after.contains(value), "{kind}: {value} is left of {escaped}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// JSON with values and near misses at any depth stays JSON of the same shape.
    #[test]
    fn the_shape_stays(seed in any::<u64>(), depth in 0usize..4, indent in any::<bool>()) {
        let mut rng = Rng(seed | 1);
        let text = |rng: &mut Rng| match rng.below(2) {
            0 => clean(rng).text,
            _ => positive(Kind::ALL[rng.below(Kind::ALL.len())], rng).text,
        };
        let mut value = json!({ "plain": text(&mut rng), "n": [4_111_111_111_111_111_u64, 1.5, null, true] });
        for level in 0..depth {
            value = match level % 3 {
                0 => json!({ "in": value, "beside": text(&mut rng) }),
                1 => json!([text(&mut rng), value]),
                _ => json!({ "text": value.to_string() }),
            };
        }
        let before = if indent { serde_json::to_string_pretty(&value).expect("JSON") } else { value.to_string() };
        let guard = Guard::new(Rules::all(Action::Mask)).with(Vec::new(), paths(&[("$..beside", Action::Mask)]));
        let inspection = guard.inspect_json(&raw(&before), &RESULT);
        let after: Value = serde_json::from_str(&rewritten(&inspection, &before)).expect("JSON");
        same_shape(&value, &after);
        // Once guarded, there is nothing left but what stands for a number.
        let again = guard.inspect_json(&raw(&rewritten(&inspection, &before)), &RESULT);
        prop_assert!(again.blocked.is_none());
    }

    #[test]
    fn any_json_is_taken(text in "\\PC*", n in any::<f64>()) {
        let mut value = serde_json::Map::new();
        value.insert(text.clone(), json!([text, n, { "text": text }]));
        let value = Value::Object(value);
        let words = Words::new([("a", Action::Mask)]).expect("small");
        let guard = Guard::new(Rules::all(Action::Mask))
            .with(words.map(std::sync::Arc::new).into_iter().collect(), paths(&[("$..a", Action::Mask)]));
        let inspection = guard.inspect_json(&raw(&value.to_string()), &RESULT);
        prop_assert!(serde_json::from_str::<Value>(&rewritten(&inspection, &value.to_string())).is_ok());
    }
}

fn nested(text: &str) -> Option<Value> {
    serde_json::from_str(text).ok().filter(|v: &Value| v.is_object() || v.is_array())
}

fn same_shape(before: &Value, after: &Value) {
    match (before, after) {
        (Value::Object(a), Value::Object(b)) => {
            assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
            a.values().zip(b.values()).for_each(|(a, b)| same_shape(a, b));
        }
        (Value::Array(a), Value::Array(b)) => {
            assert_eq!(a.len(), b.len());
            a.iter().zip(b).for_each(|(a, b)| same_shape(a, b));
        }
        (Value::String(a), Value::String(b)) if b != "[masked]" => match (nested(a), nested(b)) {
            (Some(a), Some(b)) => same_shape(&a, &b),
            _ => assert_eq!(a.chars().count(), b.chars().count()),
        },
        (Value::Number(_), Value::String(b)) if b != "[masked]" => assert!(b.contains('*')),
        (Value::Number(_), Value::Number(_)) => {}
        (a, Value::String(b)) if b == "[masked]" => assert!(!a.is_null()),
        (a, b) => assert_eq!(a, b),
    }
}
