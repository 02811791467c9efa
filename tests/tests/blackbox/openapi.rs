//! A service with an OpenAPI document of many operations, as agents, operators and auditors meet it.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
};

use serde_json::{Map, Value, json};

use crate::harness::{Dev, call_tool, modern, post, root, text, until, upstream_yaml};

const SECRET: &str = "k-5ecret-of-the-fleet";
/// What the fleet has; each has a list, one that makes, reads, changes, replaces and removes.
const THINGS: [&str; 20] = [
    "vehicles",
    "drivers",
    "depots",
    "routes",
    "stops",
    "trips",
    "loads",
    "parcels",
    "customers",
    "contracts",
    "invoices",
    "payments",
    "tickets",
    "comments",
    "alerts",
    "sensors",
    "readings",
    "repairs",
    "parts",
    "suppliers",
];

/// A document of 120 operations: a fleet, its customers and its bills.
fn fleet(base: &str) -> Value {
    let (mut paths, mut schemas) = (Map::new(), Map::new());
    for (n, thing) in THINGS.iter().enumerate() {
        let next = THINGS[(n + 1) % THINGS.len()];
        let named = |of: &str| json!({"$ref": format!("#/components/schemas/{of}")});
        schemas.insert((*thing).to_owned(), json!({
            "type": "object", "required": ["id", "label"],
            "properties": {
                "id": {"type": "string", "readOnly": true},
                "label": {"type": "string", "minLength": 1, "maxLength": 120, "description": "What people call it."},
                "weight": {"type": "number", "minimum": 0, "exclusiveMinimum": true, "nullable": true},
                "state": {"type": "string", "enum": ["planned", "active", "done"]},
                "related": {"type": "array", "maxItems": 20, "items": named(next)},
            },
        }));
        let id = json!({"name": "id", "in": "path", "required": true, "schema": {"type": "string"}});
        let answer = |code: &str, schema: Value| {
            json!({
                code: {"description": "It.", "content": {"application/json": {"schema": schema}}},
                "4XX": {"description": "Why not.", "content": {"application/problem+json": {}}},
            })
        };
        let body = json!({"required": true, "content": {"application/json": {"schema": named(thing)}}});
        let operation = |verb: &str, what: &str| {
            json!({
                "operationId": format!("{verb}_{thing}"), "tags": [thing], "summary": format!("{what} {thing}"),
            })
        };
        let with = |mut operation: Value, members: Value| {
            operation.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
            operation
        };
        let filters = json!([
            {"name": "state", "in": "query", "schema": {"type": "array", "items": {"type": "string"}}},
            {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 100}},
        ]);
        paths.insert(
            format!("/{thing}"),
            json!({
                "get": with(operation("list", "List"), json!({"parameters": filters,
                    "responses": answer("200", json!({"type": "array", "items": named(thing)}))})),
                "post": with(operation("create", "Create one of the"), json!({"requestBody": body,
                    "responses": answer("201", named(thing))})),
            }),
        );
        paths.insert(format!("/{thing}/{{id}}"), json!({
            "parameters": [id],
            "get": with(operation("get", "Read one of the"), json!({"responses": answer("200", named(thing))})),
            "put": with(operation("replace", "Replace one of the"), json!({"requestBody": body,
                "responses": answer("200", named(thing))})),
            "patch": with(operation("change", "Change one of the"), json!({
                "requestBody": {"content": {"application/merge-patch+json": {"schema": {"type": "object"}}}},
                "responses": answer("200", named(thing))})),
            "delete": with(operation("remove", "Remove one of the"), json!({"responses": {"204": {"description": "Gone."}}})),
        }));
    }
    json!({"openapi": "3.0.3", "info": {"title": "Fleet", "version": "2"}, "servers": [{"url": format!("{base}/api")}],
        "paths": paths, "components": {"schemas": schemas}})
}

/// An HTTP service of a thread; it keeps what it was asked.
struct Service {
    base: String,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Service {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let kept = seen.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let kept = kept.clone();
                std::thread::spawn(move || while serve(&stream, &kept).is_some() {});
            }
        });
        Self { base, seen }
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

/// One request of a connection.
fn serve(stream: &TcpStream, seen: &Mutex<Vec<String>>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line == "\r\n" {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let request = format!("{head}\n{}", String::from_utf8_lossy(&body));
    let (status, kind, answer) = if request.starts_with("GET /api/vehicles/none ") {
        let problem = json!({"title": "No such vehicle", "detail": format!("{SECRET} sees none"), "status": 404});
        ("404 Not Found", "application/problem+json", problem)
    } else if request.starts_with("POST") {
        let mut made: Value = serde_json::from_slice(&body).ok()?;
        made["id"] = "v-1".into();
        ("201 Created", "application/json", made)
    } else {
        ("200 OK", "application/json", json!([{"id": "v-1", "label": "One", "key": SECRET}]))
    };
    seen.lock().unwrap().push(request);
    let answer = answer.to_string();
    let head = format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n", answer.len());
    (&*stream).write_all(format!("{head}{answer}").as_bytes()).ok()
}

/// A node with the fleet as the plugin `fleet`.
fn start(service: &Service) -> Dev {
    let dev = Dev::start(Some(&upstream_yaml("http://127.0.0.1:9/mcp")), &[]);
    let set = dev.cli_stdin(&["secret", "set", "fleet-key"], SECRET);
    assert!(set.status.success(), "{}", text(&set));
    let plugin = json!({"apiVersion": "provost/v1", "kind": "Plugin", "metadata": {"name": "fleet", "tenant": "acme"},
    "spec": {"source": {"openapi": {
        "document": fleet(&service.base), "exclude": ["replace_*"],
        "secretHeaders": {"x-api-key": {"secret": "fleet-key"}},
    }}}});
    apply(&dev, &plugin.to_string());
    dev
}

pub fn apply(dev: &Dev, document: &str) {
    let file = dev.data.join("plugin.yaml");
    std::fs::write(&file, document).unwrap();
    let applied = dev.cli(&["apply", "-f", file.to_str().unwrap()]);
    assert!(applied.status.success(), "{}", text(&applied));
}

/// All tools of a plugin, page by page.
pub fn tools(dev: &Dev, plugin: &str) -> Vec<Value> {
    let (url, mut all, mut cursor) = (format!("{}/{plugin}", dev.mcp()), Vec::new(), Value::Null);
    loop {
        let params = if cursor.is_null() { json!({}) } else { json!({ "cursor": cursor }) };
        let (_, answer) = post(&url, dev.token(), &modern("tools/list", params));
        all.extend(answer["result"]["tools"].as_array().cloned().unwrap_or_default());
        cursor = answer["result"]["nextCursor"].clone();
        if cursor.is_null() {
            return all;
        }
    }
}

#[test]
fn a_service_of_a_hundred_operations_is_governed_like_any_other() {
    let service = Service::start();
    let dev = start(&service);
    let listed = until(|| Some(tools(&dev, "fleet")).filter(|tools| !tools.is_empty()));
    assert_eq!(listed.len(), 100, "120 without those that replace");
    let create = listed.iter().find(|t| t["name"] == "create_vehicles").unwrap();
    assert_eq!(create["title"], "Create one of the vehicles");
    assert!(create["description"].as_str().unwrap().ends_with("POST /vehicles"), "{create}");
    let list = listed.iter().find(|t| t["name"] == "list_trips").unwrap();
    assert_eq!(list["annotations"]["readOnlyHint"], true, "{list}");
    assert_eq!(list["outputSchema"]["required"], json!(["items"]), "{list}");

    // What does not fit the schema does not reach the service.
    for arguments in [
        json!({}),
        json!({"body": {"label": ""}}),
        json!({"body": {"label": "Truck", "weight": 0}}),
        json!({"body": {"label": "Truck", "state": "lost"}}),
        json!({"body": {"label": "Truck", "related": [{"label": 7}]}}),
        json!({"body": {"label": "Truck"}, "x-api-key": "mine"}),
    ] {
        let refused = call_tool(&dev, "fleet.create_vehicles", arguments.clone());
        let said = refused["result"]["content"][0]["text"].as_str().unwrap_or_default();
        assert!(said.starts_with("PV-ARGS-SCHEMA"), "{arguments}: {refused}");
    }
    let refused = call_tool(&dev, "fleet.get_vehicles", json!({"id": "../../admin"}));
    assert_eq!(refused["error"]["data"]["code"], "PV-OPENAPI-ARGUMENT", "{refused}");
    assert_eq!(service.seen(), Vec::<String>::new());

    // What fits does, with the secret that its caller does not know.
    let truck = json!({"label": "Truck", "weight": null, "state": "planned", "related": [{"label": "Ann"}]});
    let made = call_tool(&dev, "fleet.create_vehicles", json!({ "body": truck }));
    assert_eq!(made["result"]["structuredContent"]["id"], "v-1", "{made}");
    let request = service.seen().pop().unwrap();
    assert!(request.starts_with("POST /api/vehicles HTTP/1.1"), "{request}");
    assert!(request.contains(&format!("x-api-key: {SECRET}")), "{request}");
    assert_eq!(serde_json::from_str::<Value>(request.rsplit('\n').next().unwrap()).unwrap(), truck);
    let listed = call_tool(&dev, "fleet.list_vehicles", json!({"state": ["planned", "a&b"], "limit": 5}));
    assert_eq!(listed["result"]["structuredContent"]["items"][0]["id"], "v-1", "{listed}");
    assert!(service.seen().pop().unwrap().starts_with("GET /api/vehicles?state=planned&state=a%26b&limit=5 "));
    let missing = call_tool(&dev, "fleet.get_vehicles", json!({"id": "none"}));
    assert_eq!(missing["result"]["isError"], true, "{missing}");
    let said = missing["result"]["content"][0]["text"].as_str().unwrap();
    assert!(said.starts_with("HTTP 404 Not Found. No such vehicle: [redacted] sees none"), "{said}");
    for answer in [&made, &listed, &missing] {
        assert!(!answer.to_string().contains(SECRET), "{answer}");
    }

    let records = |tool: &str| {
        let output = dev.cli(&["audit", "query", "--json", "--tool", tool]);
        assert!(output.status.success(), "{}", text(&output));
        assert!(!text(&output).contains(SECRET));
        let lines = String::from_utf8_lossy(&output.stdout).into_owned();
        let phases = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["record"].clone());
        phases
            .map(|r| format!("{} {}", r["phase"].as_str().unwrap(), r["status"].as_str().unwrap_or("-")))
            .collect::<Vec<_>>()
    };
    let created = records("fleet.create_vehicles");
    assert_eq!(created.iter().filter(|r| r.starts_with("denied")).count(), 6, "{created:?}");
    assert!(created.contains(&"outcome ok".to_owned()), "{created:?}");
    let got = records("fleet.get_vehicles");
    assert!(got.contains(&"outcome tool_error".to_owned()), "{got:?}");
    assert!(!dev.stderr().contains(SECRET));
}

#[test]
fn a_document_that_cannot_work_is_refused_with_its_place() {
    let dev = Dev::start(Some(&upstream_yaml("http://127.0.0.1:9/mcp")), &[]);
    let refused = |source: Value| {
        let plugin = json!({"apiVersion": "provost/v1", "kind": "Plugin", "metadata": {"name": "x", "tenant": "acme"},
            "spec": {"source": {"openapi": source}}});
        let file = dev.data.join("wrong.yaml");
        std::fs::write(&file, plugin.to_string()).unwrap();
        let output = dev.cli(&["apply", "-f", file.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        text(&output)
    };
    let good = |server: &str| json!({"openapi": "3.1.0", "paths": {}, "servers": [{"url": server}]});
    let mut deep = json!({});
    for _ in 0..57 {
        deep = json!({ "a": deep });
    }
    let big = json!({"openapi": "3.1.0", "paths": {}, "x": "y".repeat(4 << 20)});
    let at = "spec.source.openapi";
    for (source, place) in [
        (json!({}), at.to_owned()),
        (json!({"document": {"swagger": "2.0"}, "server": "https://a.example"}), format!("{at}.document.openapi")),
        (json!({"document": good("/v1")}), format!("{at}.server")),
        (json!({"document": good("https://{region}.example")}), format!("{at}.server")),
        (json!({"document": good("http://a.example")}), format!("{at}.document.servers[0].url")),
        (json!({"document": good("https://a.example"), "server": "https://b.example/?k=1"}), format!("{at}.server")),
        (json!({"documentUrl": "https://a.example/openapi.json"}), format!("{at}.server")),
        (json!({"document": good("https://a.example"), "documentUrl": "https://a.example/d"}), at.to_owned()),
        (json!({"document": good("https://a.example"), "include": ["a*b"]}), format!("{at}.include")),
        (
            json!({"document": good("https://a.example"), "secretHeaders": {"host": {"secret": "s"}}}),
            format!("{at}.secretHeaders.host"),
        ),
        (
            json!({"document": good("https://a.example"), "secretQuery": {"k": {"secret": "none"}}}),
            format!("{at}.secretQuery.k.secret"),
        ),
        (
            json!({"document": {"openapi": "3.1.0", "paths": deep}, "server": "https://a.example"}),
            format!("{at}.document"),
        ),
        (json!({"document": big, "server": "https://a.example"}), format!("{at}.document")),
    ] {
        let shown = source.to_string().chars().take(200).collect::<String>();
        let said = refused(source);
        assert!(said.contains(&place), "{shown}: {}", said.chars().take(2_000).collect::<String>());
    }
    let explained = dev.cli(&["explain", "Plugin.source.openapi"]);
    assert!(text(&explained).contains("spec.source.openapi.documentUrl"), "{}", text(&explained));
}

/// The service of the example, killed with its guard.
struct Example(Child);

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_example_works_as_it_is_described() {
    let dir = root().join("examples/plugins/openapi");
    let mut service = Command::new("python3");
    service.arg(dir.join("service.py")).args(["--port", "0"]).env("TICKETS_KEY", SECRET);
    let mut service = Example(service.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let mut line = String::new();
    BufReader::new(service.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let base = line.split_whitespace().find(|word| word.starts_with("http://")).unwrap().to_owned();

    let dev = Dev::start(Some(&upstream_yaml("http://127.0.0.1:9/mcp")), &[]);
    let set = dev.cli_stdin(&["secret", "set", "tickets-key"], SECRET);
    assert!(set.status.success(), "{}", text(&set));
    let yaml = std::fs::read_to_string(dir.join("plugin.yaml")).unwrap();
    assert!(yaml.contains("http://127.0.0.1:8190"));
    apply(&dev, &yaml.replace("http://127.0.0.1:8190", &base));
    let listed = until(|| Some(tools(&dev, "tickets")).filter(|tools| !tools.is_empty()));
    let names: Vec<&str> = listed.iter().map(|t| t["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["listTickets", "createTicket", "getTicket", "changeTicket", "addComment"]);

    let call = |tool: &str, arguments: Value| call_tool(&dev, &format!("tickets.{tool}"), arguments)["result"].clone();
    let ticket = json!({"title": "The printer is on fire", "priority": "high"});
    let id = call("createTicket", json!({ "body": ticket }))["structuredContent"]["id"].clone();
    let commented = call("addComment", json!({"id": id, "body": {"text": "It is out."}}));
    assert!(commented["structuredContent"]["comments"][0]["text"] == "It is out.", "{commented}");
    let changed = call("changeTicket", json!({"id": id, "body": {"state": "closed"}}));
    assert_eq!(changed["structuredContent"]["state"], "closed", "{changed}");
    let all = call("listTickets", json!({"pages": 20}));
    let titles: Vec<&str> =
        all["structuredContent"]["items"].as_array().unwrap().iter().map(|t| t["title"].as_str().unwrap()).collect();
    assert!(titles.len() > 5 && titles.contains(&"The printer is on fire"), "{titles:?}");
    let missing = call("getTicket", json!({"id": 404}));
    assert!(missing["content"][0]["text"].as_str().unwrap().contains("No such ticket"), "{missing}");
}
