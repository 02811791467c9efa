//! MCP over QUIC: clients that do not keep to it.

use std::time::Duration;

use provost_data_serve::QuicLimits;
use provost_types::{CallStatus, Phase};
use quinn::{ConnectionError, VarInt};
use serde_json::json;

use crate::quic_client::{ALICE, End, PATIENCE, call, modern, pv, serve};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_taken_is_answered_and_the_connection_stays() {
    let node = serve(QuicLimits { opening: Duration::from_secs(2), ..QuicLimits::DEFAULT }).await;
    let client = node.connect().await;
    let long = format!("{{\"workflow\":\"{}\"}}", "x".repeat(20_000));
    let large = json!({ "jsonrpc": "2.0", "id": 1, "method": "x", "params": { "a": "y".repeat(70_000) } }).to_string();
    let good = call("echo");
    let table: [(&str, Vec<u8>, i64, &str); 10] = [
        ("no head", b"hello\n".to_vec(), -32600, "PV-QUIC-HEAD"),
        ("no endpoint of ours", br#"{"endpoint":"/v1"}"#.to_vec(), -32600, "PV-QUIC-HEAD"),
        ("a head twice", format!("{{\"workflow\":\"a\",\"workflow\":\"b\"}}\n{good}").into(), -32600, "PV-QUIC-HEAD"),
        ("a long head", format!("{long}\n{good}\n").into(), -32600, "PV-QUIC-TOO-LARGE"),
        ("a long message", format!("{ALICE}\n{large}\n").into(), -32600, "PV-QUIC-TOO-LARGE"),
        ("no JSON", format!("{ALICE}\nhello\n").into(), -32700, ""),
        ("half a message", format!("{ALICE}\n{}", &good[..good.len() / 2]).into(), -32700, ""),
        (
            "no UTF-8",
            [ALICE.as_bytes(), b"\n{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xFF\"}\n"].concat(),
            -32700,
            "",
        ),
        ("a batch", format!("{ALICE}\n[{good}]\n").into(), -32600, ""),
        ("a bad token", format!("{{\"authorization\":\"Bearer x\"}}\n{good}\n").into(), 4010, "PV-AUTH-UNKNOWN"),
    ];
    for (what, bytes, kind, code) in table {
        let mut stream = client.open(&[]).await;
        // The server may have stopped reading.
        let _ = stream.send.write_all(&bytes).await;
        let _ = stream.send.finish();
        let said = stream.rest().await;
        assert_eq!(said.len(), 1, "{what}: {said:?}");
        assert_eq!(said[0]["error"]["code"], kind, "{what}: {said:?}");
        assert!(code.is_empty() || pv(&said[0]) == code, "{what}: {said:?}");
        assert!(!said[0].to_string().contains("token-alice"), "{what}: {said:?}");
    }
    // A stream without a message ends without a line.
    for lines in [&[][..], &[ALICE][..]] {
        let mut stream = client.open(lines).await;
        stream.send.finish().unwrap();
        assert!(stream.rest().await.is_empty());
    }
    // One whose sender dawdles is told, and holds nobody up.
    let mut slow = client.open(&[ALICE]).await;
    slow.send.write_all(b"{\"jsonrpc\"").await.unwrap();
    assert!(client.modern("tools/list", json!({})).await["result"].is_object());
    let said = slow.rest().await;
    assert_eq!(pv(&said[0]), "PV-QUIC-SLOW-WRITER", "{said:?}");
    assert!(client.connection.close_reason().is_none());
    node.served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_are_bounded_and_others_wait_for_their_turn() {
    let node = serve(QuicLimits { max_streams: 4, ..QuicLimits::DEFAULT }).await;
    let client = node.connect().await;
    let mut open = Vec::new();
    for _ in 0..4 {
        open.push(client.open(&[ALICE, &call("wait")]).await);
    }
    let fifth = tokio::time::timeout(Duration::from_millis(300), client.connection.open_bi()).await;
    assert!(fifth.is_err(), "the client's own QUIC must hold it back");
    let mut first = open.remove(0);
    first.send.reset(VarInt::from_u32(1)).unwrap();
    assert_eq!(first.line().await, Err(End::Reset(1)));
    drop(first);
    let listed = tokio::time::timeout(PATIENCE, client.modern("tools/list", json!({}))).await.expect("its turn");
    assert!(listed["result"].is_object(), "{listed}");
    node.served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unidirectional_stream_ends_the_connection() {
    let node = serve(QuicLimits::DEFAULT).await;
    let client = node.connect().await;
    let mut uni = client.connection.open_uni().await.unwrap();
    uni.write_all(b"hello").await.unwrap();
    let closed = tokio::time::timeout(PATIENCE, client.connection.closed()).await.expect("closed");
    let ConnectionError::ApplicationClosed(close) = closed else { panic!("{closed:?}") };
    assert_eq!(close.error_code, VarInt::from_u32(3));
    node.served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_loses_its_stream_and_no_record() {
    let limits = QuicLimits { max_queued_bytes: 256 * 1024, ..QuicLimits::DEFAULT };
    let node = serve(limits).await;
    let client = node.connect().await;
    let mut stream = client.open(&[ALICE, &call("flood")]).await;
    // 200 events of 64 KiB were said, more than QUIC and the queue hold; the call ended as if they had been read.
    let outcome = node.served.wait_for(Phase::Outcome, "flood").await;
    assert_eq!(outcome.status, Some(CallStatus::Ok));
    let end = loop {
        match stream.line().await {
            Ok(_) => {}
            Err(end) => break end,
        }
    };
    assert_eq!(end, End::Reset(4));
    assert!(client.modern("tools/list", json!({})).await["result"].is_object(), "other streams go on");
    node.served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_on_the_port_is_ignored_and_a_full_node_refuses() {
    let node = serve(QuicLimits { max_connections: 1, ..QuicLimits::DEFAULT }).await;
    let noise = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    for seed in 0..200u32 {
        // Short and long headers, versions that nobody has, and no length that is right.
        let bytes: Vec<u8> =
            (0..(seed * 7) % 1_400).map(|i| (i.wrapping_mul(31) ^ seed.wrapping_mul(97)) as u8).collect();
        noise.send_to(&bytes, node.served.address).unwrap();
        let mut initial = vec![0xC0, 0, 0, 0, 1, 8];
        initial.extend_from_slice(&bytes);
        initial.resize(1_200, seed as u8);
        noise.send_to(&initial, node.served.address).unwrap();
    }
    let client = node.connect().await;
    assert!(client.modern("tools/list", json!({})).await["result"].is_object());
    let second = node.endpoint(b"mcp/1").connect(node.served.address, "localhost").unwrap().await;
    let Err(ConnectionError::ConnectionClosed(close)) = second else { panic!("{second:?}") };
    assert!(close.to_string().contains("refused"), "{close}");
    node.served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_clients_prove_their_address_and_are_served() {
    let node = serve(QuicLimits { retry_above: 0, ..QuicLimits::DEFAULT }).await;
    let client = node.connect().await;
    let listed = client.ask(&modern("tools/list", json!({}))).await;
    assert!(listed[0]["result"].is_object(), "{listed:?}");
    // The handshake took a Retry: one more flight than without.
    assert!(client.connection.stats().udp_tx.datagrams >= 2);
    node.served.stop().await;
}
