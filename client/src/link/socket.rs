//! A link over a WebSocket: one task writes, one reads, so that neither waits for the other.

use std::time::Duration;

use bytes::Bytes;
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, interval_at, timeout},
};

use super::Incoming;
use crate::{
    Connector, LinkError, Outgoing,
    ws::{PING_EVERY, SILENCE, Socket, SocketReceiver, SocketSender},
};

/// After the writer has failed the reader gets so long to say why.
const READER_SAYS: Duration = Duration::from_millis(250);

/// Connects and starts both tasks.
pub(super) async fn start(
    connector: &Connector,
    outgoing: mpsc::Receiver<Outgoing>,
    incoming: mpsc::Sender<Incoming>,
) -> Result<Vec<JoinHandle<()>>, LinkError> {
    let (sender, receiver) = Socket::open(connector).await?.split();
    let writer = tokio::spawn(write(sender, outgoing, incoming.clone()));
    let reader = tokio::spawn(read(receiver, incoming));
    Ok(vec![writer, reader])
}

/// Sends until nobody wants to send any more. An error ends the link: what was taken may be lost.
async fn write(mut socket: SocketSender, mut outgoing: mpsc::Receiver<Outgoing>, incoming: mpsc::Sender<Incoming>) {
    let mut pings = interval_at(Instant::now() + PING_EVERY, PING_EVERY);
    let error = loop {
        let sent = tokio::select! {
            message = outgoing.recv() => match message {
                Some(message) => socket.send(Bytes::clone(message.body())).await,
                None => {
                    socket.close().await;
                    return;
                }
            },
            _ = pings.tick() => socket.ping().await,
        };
        if let Err(error) = sent {
            break error;
        }
    };
    // The server may have said why, and the reader knows it better; only the first end is heard.
    let _ = timeout(READER_SAYS, incoming.closed()).await;
    let _ = incoming.send(Incoming::Closed(error)).await;
}

async fn read(mut socket: SocketReceiver, incoming: mpsc::Sender<Incoming>) {
    let error = loop {
        match timeout(SILENCE, socket.next()).await {
            Ok(Ok(Some(message))) => {
                if incoming.send(Incoming::Message(message)).await.is_err() {
                    return;
                }
            }
            Ok(Ok(None)) => {}
            Ok(Err(error)) => break error,
            Err(_) => break LinkError::Lost(format!("nothing was heard for {} s", SILENCE.as_secs())),
        }
    };
    let _ = incoming.send(Incoming::Closed(error)).await;
}
