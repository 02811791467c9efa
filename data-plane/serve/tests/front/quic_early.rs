//! 0-RTT: lists are served from it, and nothing else before the handshake is complete.

use provost_data_serve::QuicLimits;
use provost_types::{CallStatus, Phase};
use serde_json::json;

use crate::quic_client::{ALICE, Client, call, modern, serve};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_are_served_from_early_data_and_calls_once_the_handshake_is_complete() {
    let node = serve(QuicLimits::DEFAULT).await;
    // One endpoint keeps the tickets of its connections.
    let endpoint = node.endpoint(b"mcp/1");
    let first = Client::connect(&endpoint, &node).await;
    assert!(first.modern("tools/list", json!({})).await["result"].is_object());
    first.connection.close(0u32.into(), b"");

    for (message, is_call) in [(modern("tools/list", json!({})).to_string(), false), (call("echo"), true)] {
        let connecting = endpoint.connect(node.served.address, "localhost").unwrap();
        let (connection, accepted) = connecting.into_0rtt().map_err(|_| "no ticket").unwrap();
        let (mut send, mut recv) = connection.open_bi().await.unwrap();
        send.write_all(format!("{ALICE}\n{message}\n").as_bytes()).await.unwrap();
        send.finish().unwrap();
        assert!(accepted.await, "the node takes early data");
        let said = recv.read_to_end(1 << 20).await.unwrap();
        let said: serde_json::Value = serde_json::from_slice(&said).unwrap();
        assert!(said["result"].is_object(), "{said}");
        if is_call {
            let outcome = node.served.wait_for(Phase::Outcome, "echo").await;
            assert_eq!(outcome.status, Some(CallStatus::Ok));
            assert_eq!(node.served.world.plane.recorded(Phase::Intent, "echo").len(), 1);
        }
        // Tickets come with the handshake, and each is good once.
        connection.close(0u32.into(), b"");
    }
    node.served.stop().await;
}
