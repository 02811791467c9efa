//! What is sent again when a node goes, and what never is.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use provost_client::{Client, ClientError, Connector, EraChoice, Identity, LinkError, NoHandler};
use provost_mcp::{Era, RawJson, RawObject};
use serde_json::json;

use crate::{LIMIT, line, say, server::Server};

/// What a node does with the calls of one connection.
#[derive(Clone, Copy, Debug)]
pub enum Node {
    /// It says of each that it goes.
    Refuses,
    /// It ends the connection as one that goes and has answered all that it took, without having taken this one.
    Leaves,
    /// It ends the connection as one that cannot say what it has begun.
    Fails,
    Answers,
    /// It answers, sees that the answer arrived, and leaves in that moment.
    AnswersAndLeaves,
}

/// What nodes do one after the other, and whether that ends in an answer.
pub const SCRIPTS: [(&[Node], bool); 6] = [
    (&[Node::Answers], true),
    (&[Node::Refuses, Node::Answers], true),
    (&[Node::Leaves, Node::Answers], true),
    (&[Node::Refuses, Node::Leaves, Node::Refuses, Node::Answers], true),
    (&[Node::Fails, Node::Answers], false),
    (&[Node::Refuses, Node::Fails, Node::Answers], false),
];

/// Calls once: it is answered or not, and begun once whatever happens.
pub async fn begun_once(
    (connector, begun): (Connector, Arc<AtomicUsize>),
    script: &[Node],
    is_answered: bool,
) -> Client {
    let identity = Identity { name: "test", version: "1", capabilities: RawJson::EMPTY_OBJECT };
    let era = EraChoice::Only(Era::Modern);
    let client = Client::connect(&connector, identity, Arc::new(NoHandler), era).await.unwrap();
    let said = client.request("tools/call", RawObject::new(), None, Some(LIMIT)).await;
    match is_answered {
        true => assert!(said.is_ok(), "{script:?}: {said:?}"),
        false => assert!(matches!(said, Err(ClientError::Link(LinkError::Lost(_)))), "{script:?}: {said:?}"),
    }
    assert_eq!(begun.load(Ordering::SeqCst), 1, "{script:?}: begun once");
    client
}

/// One connection for each of these, one after the other; counts the calls that were begun.
fn nodes(script: &'static [Node]) -> (Connector, Arc<AtomicUsize>) {
    let server = Server::new(b"mcp/1");
    let (connector, begun) = (server.quic(), Arc::<AtomicUsize>::default());
    let counted = begun.clone();
    tokio::spawn(async move {
        let mut kept = Vec::new();
        for node in script {
            let connection = server.accept().await;
            kept.push(connection.clone());
            while let Ok((mut send, mut receive)) = connection.accept_bi().await {
                line(&mut receive).await.unwrap();
                let asked = line(&mut receive).await.unwrap();
                let id = asked["id"].clone();
                let result = json!({ "supportedVersions": ["2026-07-28"], "capabilities": {} });
                let error = json!({ "code": -32603, "message": "", "data": { "code": "PV-QUIC-DRAINING" } });
                let is_call = asked["method"] != "server/discover";
                let answer = match node {
                    _ if !is_call => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
                    Node::Refuses => json!({ "jsonrpc": "2.0", "id": id, "error": error }),
                    Node::Leaves => {
                        connection.close(2_u32.into(), b"PV-QUIC-DRAINING: the node shuts down");
                        break;
                    }
                    Node::Fails => {
                        counted.fetch_add(1, Ordering::SeqCst);
                        connection.close(0_u32.into(), b"");
                        break;
                    }
                    Node::Answers | Node::AnswersAndLeaves => {
                        counted.fetch_add(1, Ordering::SeqCst);
                        // Too much to be read at once.
                        let text = "x".repeat(1_000_000);
                        json!({ "jsonrpc": "2.0", "id": id, "result": { "n": 1, "text": text } })
                    }
                };
                say(&mut send, answer).await;
                send.finish().unwrap();
                match node {
                    Node::AnswersAndLeaves if is_call => {
                        send.stopped().await.unwrap();
                        connection.close(2_u32.into(), b"PV-QUIC-DRAINING: the node shuts down");
                        break;
                    }
                    // The client comes back over another connection.
                    Node::Refuses if is_call => break,
                    _ => {}
                }
            }
        }
        std::future::pending::<()>().await;
    });
    (connector, begun)
}

#[tokio::test]
async fn what_a_node_that_goes_has_not_begun_is_sent_again_and_nothing_else_is() {
    for (script, is_answered) in SCRIPTS {
        let client = begun_once(nodes(script), script, is_answered).await;
        // Whatever became of that call: the next one finds a node.
        if !is_answered {
            let next = client.request("tools/call", RawObject::new(), None, Some(LIMIT)).await;
            assert!(next.is_ok(), "{script:?}: {next:?}");
        }
    }
}

/// The answer and the end of the connection come together: whichever is seen first, the answer counts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_came_before_the_end_of_its_connection_is_read() {
    let script: &[Node] = &[Node::AnswersAndLeaves, Node::Answers];
    for _ in 0..30 {
        begun_once(nodes(script), script, true).await;
    }
}
