//! Asks the voters of `provost dev` how they are.
//!
//! A voter's connection stays open between two looks: a new one for each cost a voter that does nothing else a good part of
//! its time. One that gave no answer in time, or an error, is not used again.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use parking_lot::Mutex;
use provost_wire::{AdminConnection, admin::StatusRequest, connect_admin};

use super::relay::{Answer, Probe};

/// The connections of the voters that answered the last time.
type Connections = Arc<Mutex<HashMap<SocketAddr, AdminConnection>>>;

/// What a voter says of itself.
pub(super) fn probe(token: &str) -> Probe {
    let token: Arc<str> = token.into();
    let connections = Connections::default();
    Arc::new(move |address| {
        let (token, connections) = (token.clone(), connections.clone());
        Box::pin(async move { ask(address, &token, &connections).await })
    })
}

async fn ask(address: SocketAddr, token: &str, connections: &Connections) -> Answer {
    // Taken out: whoever stops waiting for the answer drops the connection with it.
    let known = connections.lock().remove(&address);
    let mut connection = match known {
        Some(known) => known,
        None => match connect_admin(&address.to_string(), token).await {
            Ok(made) => made,
            Err(_) => return Answer::Silent,
        },
    };
    let Ok(status) = connection.status(StatusRequest {}).await else { return Answer::Silent };
    connections.lock().insert(address, connection);
    if status.get_ref().leader_id == 0 { Answer::Leaderless } else { Answer::Ready }
}
