#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::*;
use crate::grpc::samples::files;

const SOURCE: &str = r#"
syntax = "proto3"; package shop.v1;
import "google/protobuf/empty.proto"; import "google/protobuf/struct.proto"; import "google/protobuf/wrappers.proto";
message Item { string id = 1; }
message Watch { string id = 1; int32 max_messages = 2; }
// The shop.
service Shop {
    // Reads one.
    rpc Get(Item) returns (Item) { option idempotency_level = NO_SIDE_EFFECTS; }
    rpc Put(Item) returns (google.protobuf.Empty) { option idempotency_level = IDEMPOTENT; option deprecated = true; }
    rpc Buy(Item) returns (google.protobuf.Struct);
    rpc Count(google.protobuf.StringValue) returns (google.protobuf.Int64Value);
    rpc Follow(Watch) returns (stream Item);
    rpc Upload(stream Item) returns (Item);
    rpc Talk(stream Item) returns (stream Item);
}
service Admin { rpc Drop(Item) returns (google.protobuf.Value); }
"#;

fn read(filter: &Filter) -> Catalogue {
    Catalogue::read(files(SOURCE), filter, 100)
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn names(catalogue: &Catalogue) -> Vec<&str> {
    catalogue.definitions.iter().map(|d| d.name.as_str()).collect()
}

fn tool(catalogue: &Catalogue, name: &str) -> Value {
    catalogue.definitions.named(name).unwrap().raw.parse().unwrap()
}

#[test]
fn each_method_that_takes_one_message_is_a_tool() {
    let catalogue = read(&Filter::default());
    assert_eq!(
        names(&catalogue),
        ["Admin_Drop", "Shop_Get", "Shop_Put", "Shop_Buy", "Shop_Count", "Shop_Follow"],
        "by service, in the order of the file"
    );
    let left_out: Vec<&str> = catalogue.left_out.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(left_out, ["Shop_Upload", "Shop_Talk"]);

    let get = tool(&catalogue, "Shop_Get");
    assert_eq!(get["description"], "Reads one.\n\ngRPC /shop.v1.Shop/Get");
    assert_eq!(get["annotations"]["readOnlyHint"], true);
    assert_eq!(get["outputSchema"], json!({"type": "object", "properties": {"id": {"type": "string"}}}));
    let put = tool(&catalogue, "Shop_Put");
    assert_eq!(put["description"], "Deprecated.\n\ngRPC /shop.v1.Shop/Put");
    assert_eq!(put["annotations"], json!({"readOnlyHint": false, "idempotentHint": true, "openWorldHint": true}));
    let buy = tool(&catalogue, "Shop_Buy");
    assert_eq!(buy["annotations"], json!({"readOnlyHint": false, "openWorldHint": true}));
    assert_eq!(buy["outputSchema"], json!({"type": "object"}));
    let count = tool(&catalogue, "Shop_Count");
    assert_eq!(count["inputSchema"]["properties"], json!({"value": {"type": "string"}}));
    assert_eq!(count["inputSchema"]["required"], json!(["value"]));
    assert_eq!(count["outputSchema"]["required"], json!(["value"]));
    assert!(tool(&catalogue, "Admin_Drop").get("outputSchema").is_none(), "anything has no schema");
}

#[test]
fn a_stream_of_answers_is_a_list_with_a_bound() {
    let catalogue = read(&Filter::default());
    let follow = tool(&catalogue, "Shop_Follow");
    let input = follow["inputSchema"]["properties"].as_object().unwrap();
    // The message has a field of this name itself.
    assert_eq!(input["maxMessages"]["minimum"], i32::MIN);
    assert_eq!(input["maxMessages_2"]["maximum"], 1_000);
    assert_eq!(catalogue.call("Shop_Follow").unwrap().messages.as_deref(), Some("maxMessages_2"));
    assert_eq!(follow["outputSchema"]["properties"]["items"]["type"], "array");
    assert!(follow["description"].as_str().unwrap().ends_with("gRPC, a stream of answers: /shop.v1.Shop/Follow"));
}

#[test]
fn who_owns_the_plugin_chooses() {
    for (filter, expect) in [
        (Filter { services: set(&["shop.v1.Admin"]), ..Filter::default() }, vec!["Admin_Drop"]),
        (Filter { include: set(&["Shop_G*", "shop.v1.Shop/Put"]), ..Filter::default() }, vec!["Shop_Get", "Shop_Put"]),
        (
            Filter { include: set(&["Shop_*"]), exclude: set(&["shop.v1.Shop/P*", "Shop_C*"]), ..Filter::default() },
            vec!["Shop_Get", "Shop_Buy", "Shop_Follow"],
        ),
    ] {
        assert_eq!(names(&read(&filter)), expect, "{filter:?}");
    }
    let hidden = read(&Filter { hide_output_schemas: true, ..Filter::default() });
    assert!(tool(&hidden, "Shop_Get").get("outputSchema").is_none());
    let lacking = read(&Filter { services: set(&["shop.v2.Shop"]), ..Filter::default() });
    assert_eq!((names(&lacking).len(), lacking.left_out[0].0.as_str()), (0, "shop.v2.Shop"));
    let few = Catalogue::read(files(SOURCE), &Filter::default(), 2);
    assert_eq!(names(&few).len(), 2);
}

#[test]
fn services_of_grpc_itself_are_no_tools_unless_they_are_named() {
    let all = Filter::default();
    for (service, expect) in [
        ("grpc.reflection.v1.ServerReflection", false),
        ("grpc.reflection.v1alpha.ServerReflection", false),
        ("grpc.health.v1.Health", false),
        ("grpc.channelz.v1.Channelz", false),
        ("grpcx.Other", true),
        ("shop.v1.Shop", true),
    ] {
        assert_eq!(all.takes_service(service), expect, "{service}");
    }
    let named = Filter { services: set(&["grpc.health.v1.Health"]), ..Filter::default() };
    assert!(named.takes_service("grpc.health.v1.Health") && !named.takes_service("shop.v1.Shop"));
}
