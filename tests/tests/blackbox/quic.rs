//! TLS, HTTP/3 and QUIC of the real binary: the same calls, denials and records as over HTTP.

use std::{sync::Arc, time::Duration};

use rustls::pki_types::ServerName;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::{client_async, tungstenite::client::IntoClientRequest};

use crate::{
    harness::{Dev, modern},
    quic_client::{Quic, lines, tls},
    websocket::{phases, records},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_over_quic_are_decided_and_recorded_as_over_http() {
    let dev = Dev::start(None, &[]);
    let quic = Quic::connect(&dev).await;
    let listed = quic.modern("tools/list", json!({})).await;
    assert!(listed["result"]["tools"].to_string().contains("\"sql.query\""), "{listed}");
    let counted = quic.call("sql.query", json!({ "sql": "SELECT count(*) AS n FROM customers" })).await;
    assert_eq!(counted["result"]["resultType"], "complete", "{counted}");
    assert!(counted["result"]["_meta"]["io.provost/audit"]["leafHash"].is_string(), "{counted}");
    let denied = quic.call("sql.query", json!({ "sql": "DROP TABLE customers" })).await;
    assert_eq!(denied["error"]["data"]["code"], "PV-POLICY-DENIED", "{denied}");
    let found = records(&dev, &["--tool", "sql.query"]);
    assert_eq!(phases(&found), (1, 1, 1), "{found:?}");
    for record in &found {
        assert_eq!(record["network.transport"], "quic", "{record}");
        assert_eq!(record["client.address"], "127.0.0.1", "{record}");
    }
    // Without a token, and with one that nobody has: answered on the stream, and recorded.
    for head in ["{}", r#"{"authorization":"Bearer pv_nobody"}"#] {
        let said = quic.ask(head, &modern("tools/list", json!({}))).await;
        assert_eq!(said[0]["error"]["code"], 4010, "{said:?}");
    }
    assert!(quic.connection.close_reason().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_tells_quic_from_http_and_a_restart_says_goodbye() {
    let yaml = "apiVersion: provost/v1\nkind: Tenant\nmetadata: { name: acme }\nspec: {}\n---\n\
         apiVersion: provost/v1\nkind: Principal\nmetadata: { name: bot, tenant: acme }\nspec: { type: agent }\n---\n\
         apiVersion: provost/v1\nkind: Role\nmetadata: { name: all, tenant: acme }\nspec: { rules: [ { tools: ['*'] } ] }\n---\n\
         apiVersion: provost/v1\nkind: RoleBinding\nmetadata: { name: all, tenant: acme }\nspec: { role: all, principals: [bot] }\n---\n\
         apiVersion: provost/v1\nkind: Plugin\nmetadata: { name: shy, tenant: acme }\nspec: { source: { builtin: { name: echo } } }\n---\n\
         apiVersion: provost/v1\nkind: Policy\nmetadata: { name: shy, tenant: acme }\nspec:\n  cedar: |\n    \
         @id(\"not-over-quic\")\n    \
         forbid (principal, action == Provost::Action::\"CallTool\", resource == Provost::Tool::\"shy.echo\")\n    \
         when { context.transport == \"quic\" };\n";
    let mut dev = Dev::start(Some(yaml), &[]);
    let quic = Quic::connect(&dev).await;
    let denied = quic.call("shy.echo", json!({ "text": "x" })).await;
    assert!(denied["error"]["message"].as_str().unwrap().contains("not-over-quic"), "{denied}");
    let (url, token) = (dev.mcp().to_owned(), dev.token().to_owned());
    let body = modern("tools/call", json!({ "name": "shy.echo", "arguments": { "text": "x" } }));
    let over_http = tokio::task::spawn_blocking(move || crate::harness::post(&url, &token, &body)).await.unwrap();
    assert!(over_http.1["result"].is_object(), "{over_http:?}");

    let (ended, well) = tokio::task::spawn_blocking(move || dev.terminate()).await.unwrap();
    assert!(well && ended < Duration::from_secs(20), "{ended:?}");
    let closed = tokio::time::timeout(Duration::from_secs(30), quic.connection.closed()).await.expect("closed");
    assert!(closed.to_string().contains("PV-QUIC-DRAINING"), "{closed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_port_takes_plain_http_https_and_wss() {
    let dev = Dev::start(None, &[]);
    let address = dev.info["quic"].as_str().unwrap().to_owned();
    let secure = async |alpn: &[u8]| {
        let stream = TcpStream::connect(&address).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        TlsConnector::from(Arc::new(tls(&dev, alpn))).connect(name, stream).await.unwrap()
    };
    let mut https = secure(b"http/1.1").await;
    https.write_all(b"GET /readyz HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut said = String::new();
    https.read_to_string(&mut said).await.unwrap();
    assert!(said.starts_with("HTTP/1.1 200") && said.contains("alt-svc: h3="), "{said}");
    assert_eq!(secure(b"h2").await.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));

    let mut request = format!("wss://{address}/mcp").into_client_request().unwrap();
    let headers = request.headers_mut();
    headers.insert("authorization", format!("Bearer {}", dev.token()).parse().unwrap());
    headers.insert("sec-websocket-protocol", "mcp".parse().unwrap());
    let (_, opened) = client_async(request, secure(b"http/1.1").await).await.unwrap();
    assert_eq!(opened.status(), 101);
    let base = dev.base();
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let plain = reqwest::Client::builder().no_proxy().build().unwrap().get(format!("{base}/readyz")).send().await;
    assert!(plain.unwrap().status().is_success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_mcp_is_answered_and_harms_nobody() {
    let dev = Dev::start(None, &[]);
    let quic = Quic::connect(&dev).await;
    let noise = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    for seed in 0..500u32 {
        let bytes: Vec<u8> = (0..(seed * 13) % 1_400).map(|i| (i ^ seed.wrapping_mul(97)) as u8).collect();
        let _ = noise.send_to(&bytes, dev.info["quic"].as_str().unwrap());
    }
    let head = quic.head();
    let cases: [(&[u8], i64); 4] = [
        (b"GET /mcp HTTP/1.1\n\n", -32600),
        (b"{\"endpoint\":\"/admin\"}\n{}\n", -32600),
        (b"\xFF\xFE\n", -32600),
        (b"[]\n", -32600),
    ];
    for (bytes, code) in cases {
        let (mut send, mut recv) = quic.send(bytes).await;
        let _ = send.finish();
        let said = lines(&mut recv).await;
        assert_eq!(said[0]["error"]["code"], code, "{said:?}");
    }
    for (message, code) in [("{", -32700), ("\u{0}", -32700), ("{\"jsonrpc\":\"1.0\"}", -32600)] {
        let (mut send, mut recv) = quic.send(format!("{head}\n{message}\n").as_bytes()).await;
        let _ = send.finish();
        let said = lines(&mut recv).await;
        assert_eq!(said[0]["error"]["code"], code, "{message:?}: {said:?}");
    }
    // A line that never ends is cut at its bound, and nothing of it is kept.
    let (mut send, mut recv) = quic.send(format!("{head}\n\"").as_bytes()).await;
    let flood = vec![b'x'; 64 * 1024];
    for _ in 0..80 {
        if send.write_all(&flood).await.is_err() {
            break;
        }
    }
    let said = lines(&mut recv).await;
    assert_eq!(said[0]["error"]["data"]["code"], "PV-QUIC-TOO-LARGE", "{said:?}");
    let listed = quic.modern("tools/list", json!({})).await;
    assert!(listed["result"]["tools"].is_array(), "{listed}");
}
