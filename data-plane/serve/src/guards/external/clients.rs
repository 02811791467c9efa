//! Connections to external guards.
//!
//! Invariants: one client for each address and rule, made when it is first needed; connections are kept and
//! shared by all calls.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use provost_data_tools::Toolbox;
use provost_types::GuardExternal;
use provost_wire::guard::{CheckRequest, CheckResponse, guard_client::GuardClient};

use super::{CHECKED_BYTES_MAX, channel::Channel};

/// Clients that are kept; at one more all are made again.
const CLIENTS_MAX: usize = 256;
/// Largest answer.
const ANSWER_BYTES_MAX: usize = 2 * CHECKED_BYTES_MAX;

/// See the module.
pub(crate) struct ExternalClients {
    toolbox: Arc<Toolbox>,
    clients: Mutex<HashMap<String, GuardClient<Channel>>>,
}

impl ExternalClients {
    pub(crate) fn new(toolbox: Arc<Toolbox>) -> Self {
        Self { toolbox, clients: Mutex::default() }
    }

    /// Asks once. The error is for the node's log and holds nothing of what was sent.
    pub(super) async fn check(&self, spec: &GuardExternal, request: CheckRequest) -> Result<CheckResponse, String> {
        let mut client = self.client(spec)?;
        let time = Duration::from_millis(spec.timeout_ms);
        match tokio::time::timeout(time, client.check(request)).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            // Its message may be anything; the code says enough.
            Ok(Err(status)) => Err(format!("status {:?}{}", status.code(), transport(&status))),
            Err(_) => Err(format!("no answer in {} ms", spec.timeout_ms)),
        }
    }

    fn client(&self, spec: &GuardExternal) -> Result<GuardClient<Channel>, String> {
        // The documents are the key: two that say the same reach the same.
        let key = serde_json::to_string(&(&spec.url, &spec.egress)).map_err(|cause| cause.to_string())?;
        let mut clients = self.clients.lock();
        if let Some(client) = clients.get(&key) {
            return Ok(client.clone());
        }
        let egress = self.toolbox.http2_client(spec.egress.as_ref()).map_err(|cause| cause.to_string())?;
        let url = egress.check(&spec.url).map_err(|cause| cause.to_string())?;
        let channel = Channel { client: egress, url };
        let client = GuardClient::new(channel)
            .max_decoding_message_size(ANSWER_BYTES_MAX)
            .max_encoding_message_size(ANSWER_BYTES_MAX);
        if clients.len() >= CLIENTS_MAX {
            clients.clear();
        }
        clients.insert(key, client.clone());
        Ok(client)
    }
}

/// Why nothing was sent, where that is ours to say.
fn transport(status: &tonic::Status) -> String {
    match std::error::Error::source(status) {
        Some(cause) => format!(": {cause}"),
        None => String::new(),
    }
}
