//! The node of a case: answers what the plugin asks for out of what the case declares.

use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use provost_data_wasm::{
    HttpError, HttpRequest, HttpResponse, KvError, LogLevel, NestedCall, NestedError, PluginHost, Progress,
};
use provost_mcp::RawJson;
use provost_package::Wants;
use provost_types::{BoxFuture, HostPattern};
use serde_json::{Value, json};
use url::Url;

use super::{
    cases::{Case, HttpFault, HttpStub, RequestStub, ResponseStub, ToolFault, ToolStub},
    compare::same,
};

/// Bytes that the store of a plugin may hold on a node, so that a case can fill it as well.
const MAX_KV_BYTES: usize = 16 << 20;
/// Bytes of what is kept of a body to show it.
const SHOWN: usize = 200;

/// One call's host.
pub(super) struct StubHost {
    wants: Option<Wants>,
    now_ms: Option<u64>,
    seen: Mutex<Seen>,
}

/// What is left of the stubs, and what was done.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) kv: BTreeMap<String, Vec<u8>>,
    http: Vec<HttpStub>,
    tools: Vec<ToolStub>,
    pub(super) log: Vec<String>,
    /// What was asked for and is not declared, or not wanted.
    pub(super) problems: Vec<String>,
}

impl StubHost {
    pub(super) fn new(case: &Case, wants: Option<Wants>) -> Self {
        let kv = case.kv.iter().map(|(key, value)| (key.clone(), value.clone().into_bytes())).collect();
        let (http, tools) = (case.http.clone(), case.tools.clone());
        let seen = Seen { kv, http, tools, log: Vec::new(), problems: Vec::new() };
        Self { wants, now_ms: case.now_ms, seen: Mutex::new(seen) }
    }

    /// What was done; stubs that nothing asked for are problems by now.
    pub(super) fn finish(&self) -> Seen {
        let mut seen = std::mem::take(&mut *self.seen.lock());
        let unsent = |stub: &HttpStub| format!("`http`: {} {} was not sent", stub.request.method, stub.request.url);
        seen.problems.extend(seen.http.iter().map(unsent));
        seen.problems.extend(seen.tools.iter().map(|stub| format!("`tools`: `{}` was not called", stub.name)));
        seen
    }

    /// Notes a problem; its text again, for the plugin.
    fn note(&self, problem: String) -> String {
        self.seen.lock().problems.push(problem.clone());
        problem
    }

    fn answer(&self, request: &HttpRequest) -> Result<HttpResponse, HttpError> {
        if let Some(why) = self.wants.as_ref().and_then(|wants| not_wanted(wants, request)) {
            return Err(HttpError::Denied(self.note(why)));
        }
        let mut seen = self.seen.lock();
        let found = seen.http.iter().position(|stub| is_meant(&stub.request, request));
        let stub = found.map(|at| seen.http.remove(at));
        drop(seen);
        let Some(stub) = stub else {
            let body = request.body.as_deref().map(|body| format!(" with the body {}", shown(body)));
            let text = format!("{} {}{} is not in `http`", request.method, request.url, body.unwrap_or_default());
            return Err(HttpError::Denied(self.note(text)));
        };
        match (stub.response, stub.error) {
            (Some(response), _) => response_of(response, request.max_response_bytes),
            (None, Some(HttpFault::Timeout)) => Err(HttpError::Timeout),
            (None, Some(HttpFault::Connect)) => Err(HttpError::Connect("as the case says".to_owned())),
            (None, Some(HttpFault::TooLarge)) => Err(HttpError::TooLarge),
            (None, Some(HttpFault::Denied) | None) => Err(HttpError::Denied("as the case says".to_owned())),
        }
    }

    fn nested(&self, call: NestedCall<'_>) -> Result<RawJson, NestedError> {
        let name = call.name;
        let may = |wants: &Wants| wants.tools.iter().any(|pattern| covers(pattern, name));
        if !self.wants.as_ref().is_none_or(may) {
            return Err(NestedError::Denied(self.note(format!("it calls `{name}`, which is not in `wants.tools`"))));
        }
        let arguments: Value = call.arguments.parse().unwrap_or_default();
        let is_meant = |stub: &ToolStub| {
            let wanted = stub.arguments.clone().map(Value::Object);
            stub.name == name && wanted.is_none_or(|wanted| same(&wanted, &arguments))
        };
        let mut seen = self.seen.lock();
        let found = seen.tools.iter().position(is_meant);
        let stub = found.map(|at| seen.tools.remove(at));
        drop(seen);
        let Some(stub) = stub else {
            let text = format!("`{name}` with {} is not in `tools`", shown(call.arguments.as_bytes()));
            return Err(NestedError::Denied(self.note(text)));
        };
        let why = "as the case says".to_owned();
        match (stub.result, stub.text, stub.error) {
            (Some(result), ..) => Ok(RawJson::from(Value::Object(result))),
            (None, Some(text), _) => Ok(RawJson::from(json!({ "content": [{ "type": "text", "text": text }] }))),
            (None, None, Some(ToolFault::InvalidParams)) => Err(NestedError::InvalidParams(why)),
            (None, None, Some(ToolFault::Cancelled)) => Err(NestedError::Cancelled),
            (None, None, Some(ToolFault::Failed)) => Err(NestedError::Failed(why)),
            (None, None, Some(ToolFault::Denied) | None) => Err(NestedError::Denied(why)),
        }
    }

    fn keep(&self, key: &str, value: Option<Vec<u8>>) -> Result<(), KvError> {
        let mut seen = self.seen.lock();
        let Some(value) = value else {
            seen.kv.remove(key);
            return Ok(());
        };
        let others = seen.kv.iter().filter(|(own, _)| *own != key).map(|(own, value)| own.len() + value.len());
        if others.sum::<usize>() + key.len() + value.len() > MAX_KV_BYTES {
            return Err(KvError::Full);
        }
        seen.kv.insert(key.to_owned(), value);
        Ok(())
    }
}

/// Why the manifest's wants do not cover a request.
fn not_wanted(wants: &Wants, request: &HttpRequest) -> Option<String> {
    let url = Url::parse(&request.url).ok();
    let host = url.as_ref().and_then(Url::host_str).unwrap_or_default();
    let mut patterns = wants.hosts.iter().filter_map(|pattern| pattern.parse::<HostPattern>().ok());
    if !patterns.any(|pattern| pattern.matches(host)) {
        return Some(format!("it sends a request to `{host}`, which is not in `wants.hosts`"));
    }
    let alias = request.credential.as_deref()?;
    let is_wanted = wants.credentials.contains(alias);
    (!is_wanted).then(|| format!("it asks for the credential `{alias}`, which is not in `wants.credentials`"))
}

/// Whether a pattern of `wants.tools` is for this tool: its name, or `crm.*` for all of a plugin.
fn covers(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix(".*") {
        Some(plugin) => name.strip_prefix(plugin).is_some_and(|rest| rest.len() > 1 && rest.starts_with('.')),
        None => pattern == name,
    }
}

fn is_meant(stub: &RequestStub, request: &HttpRequest) -> bool {
    let body = request.body.as_deref().unwrap_or_default();
    let has = |name: &str, value: &str| {
        request.headers.iter().any(|(own, said)| own.eq_ignore_ascii_case(name) && said == value)
    };
    stub.method == request.method
        && stub.url == request.url
        && stub.headers.iter().all(|(name, value)| has(name, value))
        && stub.body.as_ref().is_none_or(|wanted| wanted.as_bytes() == body)
        && stub
            .json
            .as_ref()
            .is_none_or(|wanted| serde_json::from_slice::<Value>(body).is_ok_and(|sent| same(&sent, wanted)))
        && stub.credential.as_ref().is_none_or(|alias| request.credential.as_ref() == Some(alias))
}

fn response_of(stub: ResponseStub, most: usize) -> Result<HttpResponse, HttpError> {
    let mut headers: Vec<(String, String)> = stub.headers.into_iter().collect();
    let body = match stub.json {
        Some(json) => {
            if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
                headers.push(("content-type".to_owned(), "application/json".to_owned()));
            }
            json.to_string()
        }
        None => stub.body.unwrap_or_default(),
    };
    if body.len() > most {
        return Err(HttpError::TooLarge);
    }
    Ok(HttpResponse { status: stub.status, headers, body: body.into_bytes() })
}

fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    if text.len() <= SHOWN {
        return text.into_owned();
    }
    let cut: String = text.chars().take(SHOWN).collect();
    format!("{cut}…")
}

impl PluginHost for StubHost {
    fn log(&self, level: LogLevel, message: &str) {
        let level = match level {
            LogLevel::Debug => "debug",
            LogLevel::Info => "info",
            LogLevel::Warn => "warn",
            LogLevel::Error => "error",
        };
        self.seen.lock().log.push(format!("{level}: {message}"));
    }

    fn progress(&self, _: Progress) {}

    fn is_cancelled(&self) -> bool {
        false
    }

    fn now_ms(&self) -> u64 {
        self.now_ms.unwrap_or_else(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
    }

    fn kv_get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, KvError>> {
        let value = self.seen.lock().kv.get(key).cloned();
        Box::pin(std::future::ready(Ok(value)))
    }

    fn kv_set<'a>(&'a self, key: &'a str, value: Option<Vec<u8>>) -> BoxFuture<'a, Result<(), KvError>> {
        Box::pin(std::future::ready(self.keep(key, value)))
    }

    fn call_tool<'a>(&'a self, call: NestedCall<'a>) -> BoxFuture<'a, Result<RawJson, NestedError>> {
        Box::pin(std::future::ready(self.nested(call)))
    }

    fn send_http(&self, request: HttpRequest) -> BoxFuture<'_, Result<HttpResponse, HttpError>> {
        Box::pin(std::future::ready(self.answer(&request)))
    }
}

#[cfg(test)]
mod tests {
    use super::{super::cases::parse, *};

    fn host(wants: Option<&str>) -> StubHost {
        let file = parse(
            "c",
            b"cases:\n  - name: a\n    tool: t\n    kv: { k: v }\n    http:\n      - request: { url: 'https://a.example/x', \
              method: POST, json: { n: 1 }, headers: { Accept: text/plain }, credential: key }\n        \
              response: { json: [1] }\n      - request: { url: 'https://a.example/x' }\n        error: timeout\n    \
              tools:\n      - { name: crm.find, arguments: { id: 1 }, text: found }\n      \
              - { name: crm.find, error: denied }\n    expect: { text: hi }\n",
        );
        let case = file.unwrap().cases.remove(0);
        StubHost::new(&case, wants.map(|json| serde_json::from_str(json).unwrap()))
    }

    fn request(method: &str, body: Option<&str>) -> HttpRequest {
        HttpRequest {
            method: method.to_owned(),
            url: "https://a.example/x".to_owned(),
            headers: vec![("accept".to_owned(), "text/plain".to_owned())],
            body: body.map(|text| text.as_bytes().to_vec()),
            credential: (method == "POST").then(|| "key".to_owned()),
            timeout: None,
            max_response_bytes: 1 << 10,
        }
    }

    fn nested(host: &StubHost, name: &str, arguments: &str) -> Result<String, NestedError> {
        let arguments = RawJson::from(serde_json::from_str::<Value>(arguments).unwrap());
        let call = NestedCall { name, arguments: &arguments, depth: 1 };
        host.nested(call).map(|result| result.as_str().to_owned())
    }

    #[test]
    fn each_stub_answers_once_and_what_is_left_is_a_problem() {
        let host = host(None);
        let answer = host.answer(&request("POST", Some("{ \"n\": 1 }"))).unwrap();
        assert_eq!((answer.status, answer.body.as_slice()), (200, b"[1]".as_slice()));
        assert_eq!(answer.headers, [("content-type".to_owned(), "application/json".to_owned())]);
        assert!(matches!(host.answer(&request("POST", Some("{ \"n\": 1 }"))), Err(HttpError::Denied(_))));
        assert!(nested(&host, "crm.find", "{\"id\":1}").unwrap().contains("found"));
        assert_eq!(host.keep("k", None), Ok(()));
        assert_eq!(host.keep("l", Some(vec![0; MAX_KV_BYTES])), Err(KvError::Full));
        let seen = host.finish();
        assert!(seen.kv.is_empty());
        assert_eq!(seen.problems.len(), 3, "{:?}", seen.problems);
        assert!(seen.problems[0].contains("POST https://a.example/x with the body { \"n\": 1 } is not in `http`"));
        assert!(seen.problems[1].contains("GET https://a.example/x was not sent"));
        assert!(seen.problems[2].contains("`crm.find` was not called"));
    }

    #[test]
    fn what_the_manifest_does_not_want_is_not_given() {
        let table = [
            (r#"{"hosts":["b.example"]}"#, "GET", Some("wants.hosts")),
            (r#"{"hosts":["a.example"]}"#, "POST", Some("wants.credentials")),
            (r#"{"hosts":["a.example"],"credentials":["key"]}"#, "POST", None),
        ];
        for (wants, method, expect) in table {
            let host = host(Some(wants));
            let _ = host.answer(&request(method, Some("{\"n\":1}")));
            let noted = host.seen.lock().problems.clone();
            assert_eq!(noted.is_empty(), expect.is_none(), "{noted:?}");
            assert!(expect.is_none_or(|part| noted[0].contains(part)), "{noted:?}");
        }
        for (pattern, called) in [("crm.find", true), ("crm.*", true), ("crm", false), ("cr.*", false)] {
            let wants = format!("{{\"tools\":[\"{pattern}\"]}}");
            assert_eq!(nested(&host(Some(&wants)), "crm.find", "{\"id\":1}").is_ok(), called, "{pattern}");
        }
        assert_eq!(nested(&host(None), "crm.find", "{}"), Err(NestedError::Denied("as the case says".to_owned())));
    }
}
