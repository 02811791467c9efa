//! The form of a file of cases.
//!
//! Invariants: what is not known is refused with its line, since a case with a wrong word in it would test less than
//! its author believes.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::super::yaml;
use crate::failure::Failure;

/// The largest file of cases, in bytes.
pub(in super::super) const MAX_CASES_BYTES: u64 = 4 << 20;
/// Most cases of one file.
const MAX_CASES: usize = 1_000;
/// Time for a call that does not say how long it may take, in milliseconds.
const DEADLINE_MS: u64 = 10_000;
/// The longest time that a case may give its call, in milliseconds.
const MAX_DEADLINE_MS: u64 = 600_000;

/// A file of cases.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in super::super) struct CaseFile {
    /// The configuration of cases that say none.
    #[serde(default)]
    pub(super) config: Option<Map<String, Value>>,
    /// The most memory of a call, in MiB, as an installation says it. 0: the default.
    #[serde(default)]
    pub(super) memory_mib: u32,
    /// How long a call may compute, in milliseconds, likewise. 0: the default.
    #[serde(default)]
    pub(super) compute_ms: u32,
    pub(super) cases: Vec<Case>,
}

/// One call and what is expected of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Case {
    pub(super) name: String,
    pub(super) tool: String,
    #[serde(default)]
    pub(super) arguments: Map<String, Value>,
    #[serde(default)]
    pub(super) config: Option<Map<String, Value>>,
    /// Who calls, as `TENANT/NAME`.
    #[serde(default)]
    pub(super) principal: Option<String>,
    #[serde(default = "deadline_ms")]
    pub(super) deadline_ms: u64,
    /// What time it is, in milliseconds since 1970-01-01 UTC. Default: the time.
    #[serde(default)]
    pub(super) now_ms: Option<u64>,
    /// Answers to what an earlier call asked for, by their keys.
    #[serde(default)]
    pub(super) answers: Option<Map<String, Value>>,
    /// What that earlier call wanted back.
    #[serde(default)]
    pub(super) state: Option<String>,
    /// What the store holds before the call.
    #[serde(default)]
    pub(super) kv: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) http: Vec<HttpStub>,
    #[serde(default)]
    pub(super) tools: Vec<ToolStub>,
    pub(super) expect: Expect,
}

fn deadline_ms() -> u64 {
    DEADLINE_MS
}

/// A request that the plugin sends, once, and what comes back.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct HttpStub {
    pub(super) request: RequestStub,
    #[serde(default)]
    pub(super) response: Option<ResponseStub>,
    #[serde(default)]
    pub(super) error: Option<HttpFault>,
}

/// Which request. What is not said may be anything.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RequestStub {
    #[serde(default = "get")]
    pub(super) method: String,
    pub(super) url: String,
    #[serde(default)]
    pub(super) headers: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) body: Option<String>,
    /// The body as JSON, however it is written.
    #[serde(default)]
    pub(super) json: Option<Value>,
    #[serde(default)]
    pub(super) credential: Option<String>,
}

fn get() -> String {
    "GET".to_owned()
}

/// A response.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ResponseStub {
    #[serde(default = "ok_status")]
    pub(super) status: u16,
    #[serde(default)]
    pub(super) headers: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) body: Option<String>,
    #[serde(default)]
    pub(super) json: Option<Value>,
}

fn ok_status() -> u16 {
    200
}

/// Why there is no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum HttpFault {
    Denied,
    Timeout,
    Connect,
    TooLarge,
}

/// Another tool that the plugin calls, once, and what it answers.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ToolStub {
    pub(super) name: String,
    /// Default: any.
    #[serde(default)]
    pub(super) arguments: Option<Map<String, Value>>,
    /// The whole result object.
    #[serde(default)]
    pub(super) result: Option<Map<String, Value>>,
    /// A result that is this text.
    #[serde(default)]
    pub(super) text: Option<String>,
    #[serde(default)]
    pub(super) error: Option<ToolFault>,
}

/// Why another tool gives no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum ToolFault {
    Denied,
    InvalidParams,
    Cancelled,
    Failed,
}

/// What a call has to come to.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Expect {
    /// All texts of the answer, a line each.
    #[serde(default)]
    pub(super) text: Option<String>,
    /// What stands somewhere in them.
    #[serde(default)]
    pub(super) contains: Vec<String>,
    /// The structured answer.
    #[serde(default)]
    pub(super) structured: Option<Value>,
    /// Whether the tool says that it failed. Default: it does not.
    #[serde(default)]
    pub(super) is_error: Option<bool>,
    /// The code of the error that there is in place of an answer.
    #[serde(default)]
    pub(super) error: Option<String>,
    /// The keys of what the tool asks the user for, in place of an answer.
    #[serde(default)]
    pub(super) asks: Option<BTreeSet<String>>,
    /// What it wants back with the answers.
    #[serde(default)]
    pub(super) state: Option<String>,
    /// What the store holds afterwards; nothing where it is null.
    #[serde(default)]
    pub(super) kv: BTreeMap<String, Option<String>>,
    /// What stands in some line of its log.
    #[serde(default)]
    pub(super) log: Vec<String>,
}

/// The cases of a file that stands at `place`.
pub(in super::super) fn parse(place: &str, text: &[u8]) -> Result<CaseFile, Failure> {
    let text = std::str::from_utf8(text).map_err(|_| "it is not text in UTF-8".to_owned());
    let file = text.and_then(yaml::parse::<CaseFile>).and_then(|file| check(&file).map(|()| file));
    file.map_err(|why| {
        Failure::new("PV-PLUGIN-CASES", format!("{place}: {why}"), "docs/plugins.md has the form of cases")
    })
}

fn check(file: &CaseFile) -> Result<(), String> {
    if file.cases.is_empty() || file.cases.len() > MAX_CASES {
        return Err(format!("`cases` has {} entries; a file has 1 to {MAX_CASES}", file.cases.len()));
    }
    let mut names = BTreeSet::new();
    for case in &file.cases {
        if !names.insert(&case.name) {
            return Err(format!("the case `{}` is there twice", case.name));
        }
        check_case(case).map_err(|why| format!("the case `{}`: {why}", case.name))?;
    }
    Ok(())
}

fn check_case(case: &Case) -> Result<(), String> {
    if case.deadline_ms == 0 || case.deadline_ms > MAX_DEADLINE_MS {
        return Err(format!("`deadlineMs` is 1 to {MAX_DEADLINE_MS}"));
    }
    for stub in &case.http {
        let url = &stub.request.url;
        if stub.response.is_some() == stub.error.is_some() {
            return Err(format!("`http`: {url} needs either `response` or `error`"));
        }
        let twice = |text: &Option<String>, json: &Option<Value>| text.is_some() && json.is_some();
        let response = stub.response.as_ref();
        if twice(&stub.request.body, &stub.request.json) || response.is_some_and(|r| twice(&r.body, &r.json)) {
            return Err(format!("`http`: {url} has both `body` and `json`"));
        }
    }
    for stub in &case.tools {
        let answers = [stub.result.is_some(), stub.text.is_some(), stub.error.is_some()];
        if answers.into_iter().filter(|given| *given).count() != 1 {
            return Err(format!("`tools`: `{}` needs one of `result`, `text` and `error`", stub.name));
        }
    }
    check_expect(&case.expect)
}

fn check_expect(expect: &Expect) -> Result<(), String> {
    let answer = expect.text.is_some()
        || !expect.contains.is_empty()
        || expect.structured.is_some()
        || expect.is_error.is_some();
    let asks = expect.asks.is_some() || expect.state.is_some();
    match [answer, expect.error.is_some(), asks].into_iter().filter(|said| *said).count() {
        1 => Ok(()),
        0 => Err("`expect` says nothing of the answer: give `text`, `contains`, `structured`, `isError`, `error` or \
                  `asks`"
            .to_owned()),
        _ => Err("`expect`: an answer, an `error`, and `asks` with `state` exclude each other".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Result<CaseFile, String> {
        parse("c.yaml", text.as_bytes()).map_err(|failure| failure.message)
    }

    #[test]
    fn a_file_is_read_with_what_it_leaves_out() {
        let file = said(
            "config: { a: 1 }\ncases:\n  - name: one\n    tool: t\n    arguments: { n: 1.5, list: [x, null] }\n    \
             kv: { k: v }\n    http:\n      - request: { url: 'https://a.example/' }\n        \
             response: { json: { b: true } }\n      - request: { url: 'https://b.example/', method: POST }\n        \
             error: tooLarge\n    tools: [{ name: a.b, error: invalidParams }]\n    expect: { text: hi, kv: { k: null } }\n",
        )
        .unwrap();
        let case = &file.cases[0];
        assert_eq!(Value::Object(case.arguments.clone()), serde_json::json!({ "n": 1.5, "list": ["x", null] }));
        assert_eq!((case.deadline_ms, case.now_ms), (DEADLINE_MS, None));
        assert_eq!(case.http[0].request.method, "GET");
        assert_eq!(case.http[0].response.as_ref().unwrap().status, 200);
        assert_eq!(case.http[1].error, Some(HttpFault::TooLarge));
        assert_eq!(case.tools[0].error, Some(ToolFault::InvalidParams));
        assert_eq!(case.expect.kv["k"], None);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line_or_its_case() {
        let case = |more: &str| format!("cases:\n  - name: one\n    tool: t\n{more}");
        let expect = "    expect: { text: hi }\n";
        let twice = format!("{}  - name: one\n    tool: t\n{expect}", case(expect));
        for (text, parts) in [
            ("cases: []\n".to_owned(), vec!["0 entries"]),
            ("case: []\n".to_owned(), vec!["line 1", "case"]),
            ("cases: [\n".to_owned(), vec!["line"]),
            (case("    expects: { text: hi }\n"), vec!["line 4", "expects"]),
            (case("    arguments: [1]\n    expect: { text: hi }\n"), vec!["line 4"]),
            (case("    expect: { texts: hi }\n"), vec!["line 4", "texts"]),
            (case("    expect: {}\n"), vec!["`one`", "`expect`"]),
            (case("    expect: { text: hi, error: PV-X }\n"), vec!["`one`", "exclude"]),
            (case("    expect: { isError: maybe }\n"), vec!["line 4"]),
            (case(&format!("    deadlineMs: 0\n{expect}")), vec!["`one`", "deadlineMs"]),
            (case(&format!("    http: [{{ request: {{ url: u }} }}]\n{expect}")), vec!["`one`", "`http`: u"]),
            (case(&format!("    tools: [{{ name: a.b }}]\n{expect}")), vec!["`one`", "`a.b`"]),
            (twice, vec!["`one`", "twice"]),
        ] {
            let error = said(&text).unwrap_err();
            assert!(error.starts_with("c.yaml: "), "{error}");
            assert!(parts.iter().all(|part| error.contains(part)), "{text}: {error}");
        }
        assert!(parse("c.yaml", &[0xff]).unwrap_err().message.contains("UTF-8"));
    }
}
