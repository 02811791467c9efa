//! The same scenarios, with the same expectations, over every transport and in both eras: the table says
//! what is asked and what must come of it, and knows no transport.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::future::BoxFuture;
use provost_client::{Client, ClientError, Connector, Endpoint, EraChoice, Handler, Identity, Options, Transport};
use provost_mcp::{Era, RawJson, RawObject, RpcError};
use serde_json::{Value, json};

use crate::harness::{Dev, Process, upstream_yaml};

/// Patience with one answer.
const LIMIT: Duration = Duration::from_secs(60);
/// The token under which progress is reported.
const PROGRESS: &str = "progress-1";
/// Rounds of questions in one call.
const MAX_ROUNDS: usize = 4;

/// What came of one request.
#[derive(Debug)]
struct Came {
    era: Era,
    outcome: Result<Value, RpcError>,
    /// Notifications on the way.
    told: Vec<(String, Value)>,
    /// What the server asked for, by method.
    asked: Vec<String>,
}

impl Came {
    fn text(&self) -> &str {
        let result = self.outcome.as_ref().ok();
        let text = result.and_then(|r| r["content"][0]["text"].as_str().or(r["contents"][0]["text"].as_str()));
        text.unwrap_or_default()
    }

    fn result(&self) -> &Value {
        self.outcome.as_ref().unwrap_or(&Value::Null)
    }

    fn error(&self) -> i64 {
        self.outcome.as_ref().err().map_or(0, |error| error.code)
    }

    fn count(&self, method: &str) -> usize {
        self.told.iter().filter(|(told, _)| told == method).count()
    }
}

/// Name, method, params, and whether what came is right.
type Scenario = (&'static str, &'static str, Value, fn(&Came) -> bool);

fn call(tool: &str) -> Value {
    call_with(tool, json!({}))
}

fn call_with(tool: &str, arguments: Value) -> Value {
    json!({ "name": tool, "arguments": arguments })
}

fn names(came: &Came, list: &str, name: &str) -> bool {
    came.result()[list].as_array().is_some_and(|all| all.iter().any(|one| one["name"] == name || one["uri"] == name))
}

fn table() -> Vec<Scenario> {
    let all: &[Scenario] = &[
        ("tools are listed", "tools/list", json!({}), |c| names(c, "tools", "test_simple_text")),
        ("prompts are listed", "prompts/list", json!({}), |c| names(c, "prompts", "test_simple_prompt")),
        ("resources are listed", "resources/list", json!({}), |c| names(c, "resources", "test://static-text")),
        ("templates are listed", "resources/templates/list", json!({}), |c| {
            c.result()["resourceTemplates"][0]["uriTemplate"] == "test://template/{id}/data"
        }),
        ("a tool answers a text", "tools/call", call("test_simple_text"), |c| c.text().contains("simple text")),
        ("an image", "tools/call", call("test_image_content"), |c| c.result()["content"][0]["type"] == "image"),
        ("a sound", "tools/call", call("test_audio_content"), |c| c.result()["content"][0]["type"] == "audio"),
        ("a resource", "tools/call", call("test_embedded_resource"), |c| {
            c.result()["content"][0]["resource"]["uri"] == "test://embedded-resource"
        }),
        ("three things at once", "tools/call", call("test_multiple_content_types"), |c| {
            c.result()["content"].as_array().is_some_and(|content| content.len() == 3)
        }),
        ("a tool fails as tools do", "tools/call", call("test_error_handling"), |c| c.result()["isError"] == true),
        ("a large answer", "tools/call", call_with("blob", json!({ "bytes": 300_000 })), |c| c.text().len() == 300_000),
        ("arguments that do not fit are for the model", "tools/call", call("greet"), |c| c.result()["isError"] == true),
        ("a tool that is not there", "tools/call", call("nothing"), |c| c.error() == -32602),
        ("a method that is not there", "tools/nothing", json!({}), |c| c.error() == -32601),
        ("progress comes on the way", "tools/call", call("test_tool_with_progress"), |c| {
            let steps: Vec<f64> = c.told.iter().filter_map(|(_, params)| params["progress"].as_f64()).collect();
            steps.len() >= 3 && steps.is_sorted() && c.told.iter().all(|(_, p)| p["progressToken"] == PROGRESS)
        }),
        ("log messages are a legacy client's", "tools/call", call("test_tool_with_logging"), |c| {
            c.count("notifications/message") == if c.era == Era::Legacy { 3 } else { 0 }
        }),
        ("the user is asked", "tools/call", call_with("test_elicitation", json!({ "message": "who?" })), |c| {
            c.asked == ["elicitation/create"] && c.text().contains("accept")
        }),
        ("the client's model is asked", "tools/call", call_with("test_sampling", json!({ "prompt": "hi" })), |c| {
            c.asked == ["sampling/createMessage"] && c.text().contains("sampled")
        }),
        ("a prompt", "prompts/get", json!({ "name": "test_simple_prompt" }), |c| {
            c.result()["messages"][0]["content"]["text"].as_str().is_some_and(|text| text.contains("simple prompt"))
        }),
        (
            "a prompt with arguments",
            "prompts/get",
            json!({ "name": "test_prompt_with_arguments", "arguments": { "arg1": "one", "arg2": "two" } }),
            |c| c.result()["messages"].to_string().contains("one"),
        ),
        ("a prompt that is not there", "prompts/get", json!({ "name": "nothing" }), |c| c.error() == -32602),
        ("a resource is read", "resources/read", json!({ "uri": "test://static-text" }), |c| {
            c.text().contains("static text resource")
        }),
        ("bytes are read", "resources/read", json!({ "uri": "test://static-binary" }), |c| {
            c.result()["contents"][0]["blob"].is_string()
        }),
        ("a template is filled in", "resources/read", json!({ "uri": "test://template/7/data" }), |c| {
            c.text().contains("Data for ID: 7")
        }),
        ("a resource that is not there", "resources/read", json!({ "uri": "test://absent" }), |c| {
            c.error() == if c.era == Era::Legacy { -32002 } else { -32602 }
        }),
    ];
    all.to_vec()
}

/// A client that notes what it is told, and answers what it is asked.
#[derive(Default)]
struct Notes {
    told: Mutex<Vec<(String, Value)>>,
    asked: Mutex<Vec<String>>,
}

fn answer(method: &str) -> Value {
    match method {
        "elicitation/create" => {
            json!({ "action": "accept", "content": { "username": "ada", "email": "ada@example.org" } })
        }
        "sampling/createMessage" => json!({ "role": "assistant", "model": "m", "stopReason": "endTurn",
            "content": { "type": "text", "text": "sampled" } }),
        _ => json!({ "roots": [] }),
    }
}

impl Handler for Notes {
    fn request(&self, method: String, _: Option<RawJson>) -> BoxFuture<'static, Result<RawJson, RpcError>> {
        let said = RawJson::from(answer(&method));
        self.asked.lock().unwrap().push(method);
        Box::pin(async move { Ok(said) })
    }

    fn notification(&self, method: &str, params: Option<&RawJson>) {
        let params = params.and_then(|p| p.parse().ok()).unwrap_or_default();
        self.told.lock().unwrap().push((method.to_owned(), params));
    }
}

struct Talk {
    client: Client,
    notes: Arc<Notes>,
}

impl Talk {
    async fn open(dev: &Dev, transport: Transport, era: Era) -> Self {
        let url = match transport {
            Transport::Http => format!("{}/up", dev.mcp()),
            Transport::WebSocket => format!("{}/up", dev.info["ws"].as_str().unwrap()),
            Transport::Http3 => format!("{}/up", dev.info["h3"].as_str().unwrap()),
            Transport::Quic => format!("quic://{}/mcp/up", dev.info["quic"].as_str().unwrap()),
        };
        let endpoint = Endpoint::parse(&url, Some(transport)).unwrap();
        let ca = dev.info["ca"].as_str().map(Into::into);
        let options = Options { token: Some(dev.token().to_owned().into()), ca, ..Options::default() };
        let connector = Connector::new(endpoint, options).unwrap();
        let capabilities = RawJson::from(json!({ "elicitation": {}, "sampling": {}, "roots": {} }));
        let identity = Identity { name: "scenarios", version: "1", capabilities };
        let notes = Arc::new(Notes::default());
        let client = Client::connect(&connector, identity, notes.clone(), EraChoice::Only(era)).await.unwrap();
        Self { client, notes }
    }

    /// Asks, and asks again with answers as long as the server wants some.
    async fn ask(&self, era: Era, method: &str, params: &Value) -> Came {
        self.notes.told.lock().unwrap().clear();
        self.notes.asked.lock().unwrap().clear();
        let mut params = params.clone();
        let mut outcome = Err(RpcError::new(0, "the server asks without end"));
        for _ in 0..MAX_ROUNDS {
            let object = RawObject::parse(&RawJson::from(params.clone())).unwrap();
            outcome = match self.client.request(method, object, Some(PROGRESS), Some(LIMIT)).await {
                Ok(result) => Ok(result.parse::<Value>().unwrap()),
                Err(ClientError::Rpc(error)) => Err(error),
                Err(other) => panic!("{method}: {other}"),
            };
            let Ok(result) = &outcome else { break };
            if result["resultType"] != "input_required" {
                break;
            }
            let asked: BTreeMap<String, Value> = serde_json::from_value(result["inputRequests"].clone()).unwrap();
            let methods = asked.values().map(|request| request["method"].as_str().unwrap().to_owned());
            self.notes.asked.lock().unwrap().extend(methods);
            let said = |request: &Value| answer(request["method"].as_str().unwrap());
            let answers: BTreeMap<&String, Value> = asked.iter().map(|(key, request)| (key, said(request))).collect();
            params["inputResponses"] = json!(answers);
            if let Some(state) = result.get("requestState") {
                params["requestState"] = state.clone();
            }
        }
        let (told, asked) = (self.notes.told.lock().unwrap().clone(), self.notes.asked.lock().unwrap().clone());
        Came { era, outcome, told, asked }
    }
}

fn every_scenario(upstream_era: &str, transport: Transport) {
    let up = Process::everything(upstream_era);
    let dev = Dev::start(Some(&upstream_yaml(&up.url)), &[]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut wrong = Vec::new();
    let mut count = 0;
    for era in [Era::Modern, Era::Legacy] {
        let talk = runtime.block_on(Talk::open(&dev, transport, era));
        for (name, method, params, is_right) in table() {
            let came = runtime.block_on(talk.ask(era, method, &params));
            count += 1;
            if !is_right(&came) {
                wrong.push(format!("{name} ({era:?}): {came:?}"));
            }
        }
        let _runtime = runtime.enter();
        drop(talk);
    }
    println!("{count} scenarios over {transport} in front of a {upstream_era} upstream, {} wrong", wrong.len());
    assert!(wrong.is_empty(), "over {transport} in front of a {upstream_era} upstream:\n{}", wrong.join("\n"));
}

#[test]
fn scenarios_over_http() {
    every_scenario("modern", Transport::Http);
    every_scenario("legacy", Transport::Http);
}

#[test]
fn scenarios_over_websocket() {
    every_scenario("modern", Transport::WebSocket);
    every_scenario("legacy", Transport::WebSocket);
}

#[test]
fn scenarios_over_http3() {
    every_scenario("modern", Transport::Http3);
    every_scenario("legacy", Transport::Http3);
}

#[test]
fn scenarios_over_quic() {
    every_scenario("modern", Transport::Quic);
    every_scenario("legacy", Transport::Quic);
}
