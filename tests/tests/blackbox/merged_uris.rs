//! Resources of several plugins on one route: policy knows each by its upstream's URI, in whatever form it is asked for.

use serde_json::{Value, json};

use crate::{
    harness::{Dev, Process, modern, post, text, upstream_yaml},
    ws_client::Socket,
};

const TEXT: &str = "test://static-text";
const WATCHED: &str = "test://watched-resource";
const TEMPLATE: &str = "test://template/{id}/data";
/// What no rule names.
const BINARY: &str = "test://static-binary";

/// Two plugins with the same resources; a rule that hides some of them, and one that denies when it is asked for.
fn start() -> (Process, Dev) {
    let upstream = Process::everything("legacy");
    let mut yaml = upstream_yaml(&upstream.url);
    yaml += &format!(
        "---\napiVersion: provost/v1\nkind: Plugin\nmetadata: {{ name: first, tenant: acme }}\n\
         spec: {{ source: {{ mcp-http: {{ url: '{}' }} }} }}\n",
        upstream.url
    );
    let cedar = format!(
        "@id(\"text\") forbid(principal, action, resource == Provost::Resource::\"{TEXT}\");\n\
         @id(\"template\") forbid(principal, action, resource == Provost::Resource::\"{TEMPLATE}\");\n\
         @id(\"watched\") forbid(principal, action, resource == Provost::Resource::\"{WATCHED}\")\n\
         when {{ context.time > datetime(\"2020-01-01T00:00:00Z\") }};"
    );
    yaml += &policy(&cedar);
    let dev = Dev::start(Some(&yaml), &[]);
    (upstream, dev)
}

fn policy(cedar: &str) -> String {
    let spec = json!({ "cedar": cedar });
    format!("---\napiVersion: provost/v1\nkind: Policy\nmetadata: {{ name: uris, tenant: acme }}\nspec: {spec}\n")
}

/// The forms that a URI is asked for by: of the plugin that has it on the merged route, and of each one.
fn forms(uri: &str) -> [String; 3] {
    [uri.to_owned(), format!("provost:first:{uri}"), format!("provost:up:{uri}")]
}

fn code(answer: &Value) -> &str {
    answer["error"]["data"]["code"].as_str().unwrap_or("none")
}

fn uris(dev: &Dev, method: &str, member: &str, key: &str) -> Vec<String> {
    let answer = post(dev.mcp(), dev.token(), &modern(method, json!({}))).1;
    let items = answer["result"][member].as_array().unwrap_or_else(|| panic!("{answer}")).clone();
    items.iter().map(|item| item[key].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_forbid_on_a_uri_holds_in_every_form_and_on_every_route() {
    let (_upstream, dev) = start();
    let read = |uri: &str| post(dev.mcp(), dev.token(), &modern("resources/read", json!({ "uri": uri }))).1;
    for uri in forms(BINARY) {
        assert!(read(&uri)["result"]["contents"].is_array(), "{uri}: {}", read(&uri));
    }
    for uri in forms(TEXT) {
        assert_eq!(code(&read(&uri)), "PV-RESOURCE-UNKNOWN", "{uri}");
    }
    for uri in forms(WATCHED) {
        assert_eq!(code(&read(&uri)), "PV-POLICY-DENIED", "{uri}");
    }
    for uri in forms(TEMPLATE) {
        let params =
            json!({ "ref": { "type": "ref/resource", "uri": uri }, "argument": { "name": "id", "value": "p" } });
        let answer = post(dev.mcp(), dev.token(), &modern("completion/complete", params)).1;
        assert_eq!(code(&answer), "PV-RESOURCE-UNKNOWN", "{uri}: {answer}");
    }
    let alone = modern("resources/read", json!({ "uri": TEXT }));
    assert_eq!(code(&post(&format!("{}/up", dev.mcp()), dev.token(), &alone).1), "PV-RESOURCE-UNKNOWN");

    // Lists show what may be read only, and of the second plugin in the form that leads to it.
    let listed = uris(&dev, "resources/list", "resources", "uri");
    assert!(listed.contains(&BINARY.to_owned()) && listed.contains(&format!("provost:up:{BINARY}")), "{listed:?}");
    assert!(!listed.iter().any(|uri| uri.ends_with(TEXT)), "{listed:?}");
    let templates = uris(&dev, "resources/templates/list", "resourceTemplates", "uriTemplate");
    assert!(templates.is_empty(), "{templates:?}");

    // The older era, where resources are subscribed to by a request.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut socket = Socket::legacy(&dev, "", json!({})).await;
        for (uris, expect) in [(forms(BINARY), "none"), (forms(TEXT), "PV-RESOURCE-UNKNOWN")] {
            for uri in uris {
                for method in ["resources/subscribe", "resources/read"] {
                    let answer = socket.request(method, json!({ "uri": uri })).await;
                    assert_eq!(code(&answer), expect, "{method} {uri}: {answer}");
                }
            }
        }
    });

    // Looked at later, it is the same call.
    for uri in forms(WATCHED) {
        let why = dev.cli(&["why", "DENY", "--principal", "bot", "--resource", &uri]);
        assert!(why.status.success() && text(&why).contains("uris/watched"), "{uri}: {}", text(&why));
    }
}

#[test]
fn a_rule_for_the_form_that_is_shown_is_refused() {
    let (_upstream, dev) = start();
    let shown = format!("forbid(principal, action, resource == Provost::Resource::\"provost:up:{TEXT}\");");
    let applied = dev.cli_stdin(&["apply", "-f", "-"], &policy(&shown));
    let said = text(&applied);
    assert!(!applied.status.success() && said.contains("PV-POLICY-INVALID") && said.contains("provost:up"), "{said}");
    // Of no plugin of the tenant: an upstream may have such a URI itself.
    let foreign = format!("forbid(principal, action, resource == Provost::Resource::\"provost:gone:{TEXT}\");");
    let applied = dev.cli_stdin(&["apply", "-f", "-"], &policy(&foreign));
    assert!(applied.status.success(), "{}", text(&applied));
}
