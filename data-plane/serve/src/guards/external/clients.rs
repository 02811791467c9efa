//! Connections to external guards.
//!
//! Invariants: one client for each address, rule and certificate, made when it is first needed; connections are
//! kept and shared by all calls. Credentials are those of this moment, of the guard's own tenant, and in nothing that
//! a guard says back.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use provost_data_tools::Toolbox;
use provost_types::{GuardExternal, Name, SecretRef};
use provost_wire::guard::{CheckRequest, CheckResponse, check_response::Verdict, guard_client::GuardClient};
use secrecy::{ExposeSecret, SecretString};
use tonic::{
    Request,
    metadata::{Ascii, MetadataValue},
};

use super::{CHECKED_BYTES_MAX, channel::Channel};

/// Clients that are kept; at one more all are made again.
const CLIENTS_MAX: usize = 256;
/// Largest answer.
const ANSWER_BYTES_MAX: usize = 2 * CHECKED_BYTES_MAX;

/// See the module.
pub(crate) struct ExternalClients {
    toolbox: Arc<Toolbox>,
    clients: Mutex<HashMap<String, Made>>,
}

/// A client, and the certificate that it shows.
struct Made {
    certificate: Option<blake3::Hash>,
    client: GuardClient<Channel>,
}

/// What a node shows of itself.
#[derive(Default)]
struct Credentials {
    bearer: Option<SecretString>,
    certificate: Option<SecretString>,
}

impl ExternalClients {
    pub(crate) fn new(toolbox: Arc<Toolbox>) -> Self {
        Self { toolbox, clients: Mutex::default() }
    }

    /// Asks once. The error is for the node's log and holds nothing of what was sent.
    pub(super) async fn check(
        &self,
        tenant: &Name,
        spec: &GuardExternal,
        request: CheckRequest,
    ) -> Result<CheckResponse, String> {
        let shown = self.credentials(tenant, spec)?;
        let mut client = self.client(tenant, spec, shown.certificate.as_ref())?;
        let mut request = Request::new(request);
        if let Some(bearer) = &shown.bearer {
            let value = MetadataValue::<Ascii>::try_from(format!("Bearer {}", bearer.expose_secret()));
            let mut value = value.map_err(|_| "its token holds characters that no header may carry".to_owned())?;
            value.set_sensitive(true);
            request.metadata_mut().insert("authorization", value);
        }
        let time = Duration::from_millis(spec.timeout_ms);
        match tokio::time::timeout(time, client.check(request)).await {
            Ok(Ok(response)) => {
                let response = response.into_inner();
                match shown.bearer.is_some_and(|bearer| repeats(&response, bearer.expose_secret())) {
                    true => Err("its answer repeats the token that it was shown".to_owned()),
                    false => Ok(response),
                }
            }
            // Its message may be anything; the code says enough.
            Ok(Err(status)) => Err(format!("status {:?}{}", status.code(), transport(&status))),
            Err(_) => Err(format!("no answer in {} ms", spec.timeout_ms)),
        }
    }

    fn credentials(&self, tenant: &Name, spec: &GuardExternal) -> Result<Credentials, String> {
        let Some(auth) = &spec.auth else { return Ok(Credentials::default()) };
        let value = |reference: &SecretRef| self.toolbox.secret(tenant, reference).map_err(|cause| cause.to_string());
        Ok(Credentials {
            bearer: auth.bearer.as_ref().map(value).transpose()?,
            certificate: auth.certificate.as_ref().map(value).transpose()?,
        })
    }

    fn client(
        &self,
        tenant: &Name,
        spec: &GuardExternal,
        certificate: Option<&SecretString>,
    ) -> Result<GuardClient<Channel>, String> {
        // The documents are the key: two that say the same reach the same. A secret is of its tenant.
        let whose = spec.auth.as_ref().map(|auth| (tenant, &auth.certificate));
        let key = serde_json::to_string(&(&spec.url, &spec.egress, whose)).map_err(|cause| cause.to_string())?;
        let hash = certificate.map(|pem| blake3::hash(pem.expose_secret().as_bytes()));
        let mut clients = self.clients.lock();
        if let Some(made) = clients.get(&key)
            && made.certificate == hash
        {
            return Ok(made.client.clone());
        }
        let egress = self.toolbox.http2_client(spec.egress.as_ref(), certificate).map_err(|cause| cause.to_string())?;
        let url = egress.check(&spec.url).map_err(|cause| cause.to_string())?;
        let channel = Channel { client: egress, url };
        let client = GuardClient::new(channel)
            .max_decoding_message_size(ANSWER_BYTES_MAX)
            .max_encoding_message_size(ANSWER_BYTES_MAX);
        if clients.len() >= CLIENTS_MAX {
            clients.clear();
        }
        clients.insert(key, Made { certificate: hash, client: client.clone() });
        Ok(client)
    }
}

/// Whether an answer holds the token in what callers and the log would read.
fn repeats(response: &CheckResponse, token: &str) -> bool {
    match &response.verdict {
        Some(Verdict::Block(block)) => block.reason.contains(token),
        Some(Verdict::Replace(replace)) => replace.json.contains(token),
        Some(Verdict::Allow(_) | Verdict::Mask(_)) | None => false,
    }
}

/// Why nothing was sent, where that is ours to say.
fn transport(status: &tonic::Status) -> String {
    match std::error::Error::source(status) {
        Some(cause) => format!(": {cause}"),
        None => String::new(),
    }
}
