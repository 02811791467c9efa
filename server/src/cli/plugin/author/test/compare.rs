//! What a call came to, against what a case expects.

use std::collections::{BTreeMap, BTreeSet};

use provost_data_wasm::PluginError;
use serde_json::Value;

use super::{super::trial, cases::Expect};

/// How a call ended.
#[derive(Clone, Debug)]
pub(super) enum Ended {
    /// A result object.
    Answered { body: Value, is_error: bool },
    /// An object with `inputRequests`.
    Asked(Value),
    /// No result.
    Failed { code: String, message: String },
}

impl Ended {
    pub(super) fn failed(error: &PluginError) -> Self {
        Self::Failed { code: error.code().to_owned(), message: trial::message(error) }
    }

    /// In a few words, for whoever expected something else.
    fn told(&self) -> String {
        match self {
            Self::Answered { body, is_error: true } => format!("the tool says that it failed: {}", text_of(body)),
            Self::Answered { body, .. } => format!("an answer: {}", text_of(body)),
            Self::Asked(body) => format!("a question: {}", body["inputRequests"]),
            Self::Failed { code, message } => format!("{code}: {message}"),
        }
    }
}

/// All texts of a result, a line each.
fn text_of(body: &Value) -> String {
    let content = body["content"].as_array().map(Vec::as_slice).unwrap_or_default();
    content.iter().filter_map(|item| item["text"].as_str()).collect::<Vec<_>>().join("\n")
}

/// Whether two values are the same; 1 and 1.0 are.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => {
            // Two whole numbers are compared as such: as fractions, large ones would run together.
            a == b || (a.is_f64() || b.is_f64()) && a.as_f64() == b.as_f64()
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, value)| b.get(key).is_some_and(|other| same(value, other)))
        }
        _ => a == b,
    }
}

/// Everything that is not as it should be.
pub(super) fn problems(expect: &Expect, ended: &Ended, kv: &BTreeMap<String, Vec<u8>>, log: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    match ended {
        Ended::Failed { code, .. } if expect.error.as_ref() == Some(code) => {}
        _ if expect.error.is_some() => {
            let code = expect.error.as_deref().unwrap_or_default();
            found.push(format!("`error`: expected {code}, and there is {}", ended.told()));
        }
        Ended::Asked(body) if expect.asks.is_some() || expect.state.is_some() => asked(expect, body, &mut found),
        _ if expect.asks.is_some() || expect.state.is_some() => {
            found.push(format!("`asks`: expected a question, and there is {}", ended.told()));
        }
        Ended::Answered { body, is_error } => answered(expect, body, *is_error, &mut found),
        _ => found.push(format!("expected an answer, and there is {}", ended.told())),
    }
    for (key, wanted) in &expect.kv {
        let held = kv.get(key).map(|value| String::from_utf8_lossy(value));
        if held.as_deref() != wanted.as_deref() {
            found.push(format!(
                "`kv`: `{key}` is {}, not {}",
                or_nothing(held.as_deref()),
                or_nothing(wanted.as_deref())
            ));
        }
    }
    for part in expect.log.iter().filter(|part| !log.iter().any(|line| line.contains(part.as_str()))) {
        found.push(format!("`log`: `{part}` is in no line of the log"));
    }
    found
}

fn or_nothing(text: Option<&str>) -> String {
    text.map_or_else(|| "nothing".to_owned(), |text| format!("`{text}`"))
}

fn answered(expect: &Expect, body: &Value, is_error: bool, found: &mut Vec<String>) {
    let text = text_of(body);
    match (is_error, expect.is_error.unwrap_or(false)) {
        (true, false) => found.push(format!("the tool says that it failed: {text}")),
        (false, true) => found.push("`isError`: the tool says that it did not fail".to_owned()),
        _ => {}
    }
    if let Some(wanted) = expect.text.as_ref().filter(|wanted| wanted.as_str() != text) {
        found.push(format!("`text`: expected `{wanted}`, and it is `{text}`"));
    }
    for part in expect.contains.iter().filter(|part| !text.contains(part.as_str())) {
        found.push(format!("`contains`: `{part}` is not in `{text}`"));
    }
    let structured = body.get("structuredContent");
    let is_other = |wanted: &&Value| !structured.is_some_and(|is| same(wanted, is));
    if let Some(wanted) = expect.structured.as_ref().filter(is_other) {
        let is = structured.map_or_else(|| "missing".to_owned(), Value::to_string);
        found.push(format!("`structured`: expected {wanted}, and it is {is}"));
    }
}

fn asked(expect: &Expect, body: &Value, found: &mut Vec<String>) {
    let keys: BTreeSet<String> =
        body["inputRequests"].as_object().into_iter().flat_map(|all| all.keys().cloned()).collect();
    if let Some(wanted) = expect.asks.as_ref().filter(|wanted| **wanted != keys) {
        found.push(format!("`asks`: expected {wanted:?}, and it asks for {keys:?}"));
    }
    let state = body["requestState"].as_str();
    if expect.state.is_some() && expect.state.as_deref() != state {
        let wanted = or_nothing(expect.state.as_deref());
        found.push(format!("`state`: expected {wanted}, and it is {}", or_nothing(state)));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn expect(json: Value) -> Expect {
        serde_json::from_value(json).unwrap()
    }

    fn answer(is_error: bool) -> Ended {
        let content = json!([{ "type": "text", "text": "a b" }, { "type": "image" }, { "type": "text", "text": "c" }]);
        Ended::Answered { body: json!({ "content": content, "structuredContent": { "n": 1 } }), is_error }
    }

    #[test]
    fn an_answer_is_compared_in_all_that_is_said() {
        let failed = Ended::Failed { code: "PV-PLUGIN-TRAP".to_owned(), message: "x".to_owned() };
        let asks = json!({ "inputRequests": { "who": {} }, "requestState": "s" });
        let table = [
            (json!({ "text": "a b\nc" }), answer(false), vec![]),
            (json!({ "text": "a b" }), answer(false), vec!["`text`"]),
            (json!({ "contains": ["b", "x"], "structured": { "n": 2 } }), answer(false), vec!["`x`", "`structured`"]),
            (json!({ "structured": { "n": 1 } }), answer(false), vec![]),
            (json!({ "isError": true, "contains": ["a"] }), answer(true), vec![]),
            (json!({ "isError": true }), answer(false), vec!["`isError`"]),
            (json!({ "text": "a b\nc" }), answer(true), vec!["says that it failed"]),
            (json!({ "error": "PV-PLUGIN-TRAP" }), failed.clone(), vec![]),
            (json!({ "error": "PV-PLUGIN-TRAP" }), answer(false), vec!["`error`"]),
            (json!({ "error": "PV-PLUGIN-MEMORY" }), failed.clone(), vec!["PV-PLUGIN-TRAP: x"]),
            (json!({ "text": "a" }), failed.clone(), vec!["PV-PLUGIN-TRAP: x"]),
            (json!({ "asks": ["who"], "state": "s" }), Ended::Asked(asks.clone()), vec![]),
            (json!({ "asks": ["when"], "state": "t" }), Ended::Asked(asks.clone()), vec!["`asks`", "`state`"]),
            (json!({ "asks": ["who"] }), failed, vec!["`asks`"]),
            (json!({ "text": "a" }), Ended::Asked(asks), vec!["a question"]),
        ];
        for (expected, ended, wanted) in table {
            let found = problems(&expect(expected.clone()), &ended, &BTreeMap::new(), &[]);
            assert_eq!(found.len(), wanted.len(), "{expected}: {found:?}");
            assert!(found.iter().zip(&wanted).all(|(found, part)| found.contains(part)), "{expected}: {found:?}");
        }
    }

    #[test]
    fn numbers_are_equal_however_they_are_written() {
        let same = |a: Value, b: Value| super::same(&a, &b);
        assert!(same(json!({ "a": [1, 2.5], "b": null }), json!({ "b": null, "a": [1.0, 2.5] })));
        for (a, b) in [
            (json!(1), json!(1.5)),
            (json!(9_007_199_254_740_993_u64), json!(9_007_199_254_740_992_u64)),
            (json!([1]), json!([1, 2])),
            (json!({ "a": 1 }), json!({ "a": 1, "b": 2 })),
            (json!({ "a": 1 }), json!({ "b": 1 })),
            (json!("1"), json!(1)),
            (json!(null), json!(false)),
        ] {
            assert!(!same(a.clone(), b.clone()), "{a} {b}");
        }
    }

    #[test]
    fn the_store_and_the_log_are_looked_at_in_any_case() {
        let kv = BTreeMap::from([("a".to_owned(), b"1".to_vec())]);
        let log = ["info: it begins".to_owned()];
        let right = expect(json!({ "text": "a b\nc", "kv": { "a": "1", "b": null }, "log": ["begins"] }));
        assert_eq!(problems(&right, &answer(false), &kv, &log), Vec::<String>::new());
        let wrong = expect(json!({ "text": "a b\nc", "kv": { "a": null, "b": "2" }, "log": ["ends"] }));
        let found = problems(&wrong, &answer(false), &kv, &log);
        assert_eq!(found.len(), 3, "{found:?}");
    }
}
