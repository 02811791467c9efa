//! A client of 2025-11-25 hears on the connection that is its session that its user has been in the browser.

use serde_json::{Value, json};

use super::{Browser, begin, consent, documents, said, world::World};
use crate::{
    harness::{Dev, START_LIMIT},
    quic_client::{Quic, lines},
    ws_client::Socket,
};

const COMPLETE: &str = "notifications/elicitation/complete";

/// The address and the elicitation of a call that was refused for want of a consent.
fn elicited(refused: &Value) -> (String, String) {
    assert_eq!(refused["error"]["code"], -32042, "{refused}");
    let elicited = &refused["error"]["data"]["elicitations"][0];
    (elicited["url"].as_str().unwrap().to_owned(), elicited["elicitationId"].as_str().unwrap().to_owned())
}

fn go_through(dev: &Dev, url: &str) {
    let mut browser = Browser::default();
    let page = begin(dev, &mut browser, url, dev.token());
    let back = consent(&mut browser, &page, "ann-account");
    assert_eq!(browser.get(&back).status, 200);
}

fn tool() -> Value {
    json!({ "name": "up.t", "arguments": {} })
}

#[test]
fn it_is_told_over_a_websocket() {
    let world = World::start(3_600);
    let dev = Dev::start(Some(&documents(&world)), &[]);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (mut socket, refused) = runtime.block_on(async {
        let mut socket = Socket::legacy(&dev, "", json!({ "elicitation": { "url": {} } })).await;
        let refused = socket.request("tools/call", tool()).await;
        (socket, refused)
    });
    let (url, id) = elicited(&refused);
    go_through(&dev, &url);
    let (told, answer) = runtime.block_on(async {
        let told = socket.until(|message| message["method"] == COMPLETE).await;
        (told, socket.request("tools/call", tool()).await)
    });
    assert_eq!(told["params"]["elicitationId"], id.as_str(), "{told}");
    assert_eq!(said(&answer), "for ann-account, Bearer [redacted]");
}

#[test]
fn it_is_told_over_quic() {
    let world = World::start(3_600);
    let dev = Dev::start(Some(&documents(&world)), &[]);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let call = json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": tool() });
    let (quic, mut listening, refused) = runtime.block_on(async {
        let quic = Quic::connect(&dev).await;
        let initialize = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
            "protocolVersion": "2025-11-25", "capabilities": { "elicitation": { "url": {} } },
            "clientInfo": { "name": "a", "version": "1" } } });
        let opened = quic.ask(&quic.head(), &initialize).await;
        assert_eq!(opened[0]["result"]["protocolVersion"], "2025-11-25", "{opened:?}");
        let initialized = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        let listening = quic.send(format!("{}\n{initialized}\n", quic.head()).as_bytes()).await;
        let refused = quic.ask(&quic.head(), &call).await.pop().unwrap();
        (quic, listening, refused)
    });
    let (url, id) = elicited(&refused);
    go_through(&dev, &url);
    let heard = runtime.block_on(async {
        let mut heard = String::new();
        let reading = async {
            let mut piece = [0; 4096];
            while !heard.contains(COMPLETE) {
                let Some(length) = listening.1.read(&mut piece).await.unwrap() else { break };
                heard.push_str(&String::from_utf8_lossy(&piece[..length]));
            }
        };
        tokio::time::timeout(START_LIMIT, reading).await.expect("it is not told");
        heard
    });
    assert!(heard.contains(COMPLETE) && heard.contains(&id), "{heard}");
    let answer = runtime.block_on(async {
        let (mut send, mut receive) = quic.send(format!("{}\n{call}\n", quic.head()).as_bytes()).await;
        send.finish().unwrap();
        lines(&mut receive).await.pop().unwrap()
    });
    assert_eq!(said(&answer), "for ann-account, Bearer [redacted]");
}
