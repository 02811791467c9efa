//! A gRPC service, as agents, operators and auditors meet it.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use provost_tests::tickets::DESCRIPTORS;
use serde_json::{Value, json};

use crate::{
    harness::{Dev, call_tool, root, text, until, upstream_yaml},
    openapi::{apply, tools},
};

const SECRET: &str = "k-5ecret-of-the-house";

/// The service of the example, killed with its guard.
struct Service {
    child: Child,
    url: String,
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Service {
    fn start() -> Self {
        let mut service = Command::new(env!("CARGO_BIN_EXE_grpc-tickets"));
        service.args(["--port", "0"]).env("TICKETS_KEY", SECRET);
        let mut child = service.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.split_whitespace().find(|word| word.starts_with("http://")).unwrap().to_owned();
        Self { child, url }
    }
}

#[test]
fn the_example_works_as_it_is_described_and_is_governed_like_any_other() {
    let service = Service::start();
    let dev = Dev::start(Some(&upstream_yaml("http://127.0.0.1:9/mcp")), &[]);
    let set = dev.cli_stdin(&["secret", "set", "tickets-key"], SECRET);
    assert!(set.status.success(), "{}", text(&set));
    let yaml = std::fs::read_to_string(root().join("examples/plugins/grpc/plugin.yaml")).unwrap();
    assert!(yaml.contains("http://127.0.0.1:8191"));
    apply(&dev, &yaml.replace("http://127.0.0.1:8191", &service.url));
    let listed = until(|| Some(tools(&dev, "tickets")).filter(|tools| !tools.is_empty()));
    let names: Vec<&str> = listed.iter().map(|t| t["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["Tickets_List", "Tickets_Get", "Tickets_Create", "Tickets_Watch"], "without remove and import");
    let get = listed.iter().find(|t| t["name"] == "Tickets_Get").unwrap();
    assert_eq!(get["annotations"]["readOnlyHint"], true, "{get}");
    assert!(get["description"].as_str().unwrap().ends_with("gRPC /tickets.v1.Tickets/Get"), "{get}");

    let call = |tool: &str, arguments: Value| call_tool(&dev, &format!("tickets.{tool}"), arguments)["result"].clone();
    // What does not fit the schema does not reach the service.
    for ticket in [json!({"title": 7}), json!({"priority": "URGENT"}), json!({"person": "Ann", "team": "house"})] {
        let refused = call("Tickets_Create", json!({ "ticket": ticket }));
        let said = refused["content"][0]["text"].as_str().unwrap_or_default();
        assert!(said.starts_with("PV-ARGS-SCHEMA"), "{ticket}: {refused}");
    }
    let ticket = json!({"title": "The printer is on fire", "priority": "HIGH", "team": "house"});
    let made = call("Tickets_Create", json!({ "ticket": ticket }))["structuredContent"].clone();
    assert_eq!((made["priority"].as_str(), made["team"].as_str()), (Some("HIGH"), Some("house")), "{made}");
    let found = call("Tickets_Get", json!({"id": made["id"]}));
    assert_eq!(found["structuredContent"], made);
    let high = call("Tickets_List", json!({"priorities": ["HIGH"]}));
    assert_eq!(high["structuredContent"]["tickets"], json!([made]));
    let watched = call("Tickets_Watch", json!({"maxMessages": 3}));
    assert_eq!(watched["structuredContent"]["items"].as_array().unwrap().len(), 3, "{watched}");
    let missing = call("Tickets_Get", json!({"id": "404"}));
    assert_eq!(missing["isError"], true, "{missing}");
    assert_eq!(missing["content"][0]["text"], "NOT_FOUND: [redacted] sees no ticket 404");

    let output = dev.cli(&["audit", "query", "--json", "--tool", "tickets.Tickets_Create"]);
    assert!(output.status.success() && !text(&output).contains(SECRET), "{}", text(&output));
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    let phases: Vec<String> = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["record"]["phase"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(phases.iter().filter(|phase| *phase == "denied").count(), 3, "{phases:?}");
    assert!(phases.contains(&"outcome".to_owned()), "{phases:?}");
    assert!(!dev.stderr().contains(SECRET));

    // The service goes: its tools stay listed, and calls of them say why they fail.
    drop(service);
    let gone = until(|| {
        let answer = call_tool(&dev, "tickets.Tickets_Get", json!({"id": "1"}));
        Some(answer["error"]["data"]["code"].as_str()?.to_owned()).filter(|code| code == "PV-UPSTREAM-UNREACHABLE")
    });
    assert_eq!(gone, "PV-UPSTREAM-UNREACHABLE");
    assert_eq!(tools(&dev, "tickets").len(), 4);
}

#[test]
fn a_source_that_cannot_work_is_refused_with_its_place() {
    let dev = Dev::start(Some(&upstream_yaml("http://127.0.0.1:9/mcp")), &[]);
    let at = "spec.source.grpc";
    let url = "https://grpc.example:443";
    for (source, place) in [
        (json!({}), format!("{at}.url")),
        (json!({"url": "grpc.example:443"}), format!("{at}.url")),
        (json!({"url": "http://grpc.example:80"}), format!("{at}.url")),
        (json!({"url": "https://grpc.example/tickets"}), format!("{at}.url")),
        (json!({"url": "https://ann:pw@grpc.example"}), format!("{at}.url")),
        (json!({"url": url, "descriptor": "no base64!"}), format!("{at}.descriptor")),
        (json!({"url": url, "descriptor": "A".repeat(4 << 20)}), format!("{at}.descriptor")),
        (json!({"url": url, "services": ["tickets/Tickets"]}), format!("{at}.services")),
        (json!({"url": url, "include": ["a*b"]}), format!("{at}.include")),
        (json!({"url": url, "headers": {"grpc-timeout": "1S"}}), format!("{at}.headers.grpc-timeout")),
        (json!({"url": url, "secretHeaders": {"te": {"secret": "s"}}}), format!("{at}.secretHeaders.te")),
        (
            json!({"url": url, "secretHeaders": {"x-key": {"secret": "none"}}}),
            format!("{at}.secretHeaders.x-key.secret"),
        ),
        (json!({"url": url, "egress": {"allowHosts": ["other.example"]}}), format!("{at}.egress.allowHosts")),
    ] {
        let plugin = json!({"apiVersion": "provost/v1", "kind": "Plugin", "metadata": {"name": "x", "tenant": "acme"},
            "spec": {"source": {"grpc": source}}});
        let file = dev.data.join("wrong.yaml");
        std::fs::write(&file, plugin.to_string()).unwrap();
        let output = dev.cli(&["apply", "-f", file.to_str().unwrap()]);
        let said: String = text(&output).chars().take(2_000).collect();
        assert_eq!(output.status.code(), Some(1), "{place}: {said}");
        assert!(said.contains(&place), "{place}: {said}");
    }
    let explained = dev.cli(&["explain", "Plugin.source.grpc"]);
    assert!(text(&explained).contains("spec.source.grpc.descriptor"), "{}", text(&explained));
}

#[test]
fn a_descriptor_can_be_part_of_the_resource() {
    let dev = Dev::start(Some(&upstream_yaml("http://127.0.0.1:9/mcp")), &[]);
    let plugin = json!({"apiVersion": "provost/v1", "kind": "Plugin", "metadata": {"name": "tickets", "tenant": "acme"},
        "spec": {"source": {"grpc": {"url": "http://127.0.0.1:9", "descriptor": BASE64_STANDARD.encode(DESCRIPTORS)}}}});
    apply(&dev, &plugin.to_string());
    // Nobody is behind it: its tools are known all the same.
    let listed = until(|| Some(tools(&dev, "tickets")).filter(|tools| !tools.is_empty()));
    assert_eq!(listed.len(), 5);
    let refused = call_tool(&dev, "tickets.Tickets_Get", json!({"id": "1"}));
    assert_eq!(refused["error"]["data"]["code"], "PV-UPSTREAM-UNREACHABLE", "{refused}");
}
