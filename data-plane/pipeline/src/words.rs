//! The caller's own words in the records of a call.

use provost_mcp::RawJson;

use crate::{RecordGuard, Request};

/// What a caller says of itself and of its request, beside the parameters: its own words, in each record of the call.
#[derive(Clone)]
pub(crate) struct Words {
    /// What the client calls itself.
    pub(crate) agent: Option<String>,
    pub(crate) request_id: Option<String>,
    pub(crate) workflow: Option<String>,
}

impl Words {
    pub(crate) fn of(request: &Request) -> Self {
        let trace = &request.trace;
        Self {
            agent: request.client.info.as_ref().and_then(agent_name),
            request_id: trace.request_id.clone(),
            workflow: trace.workflow.clone(),
        }
    }

    /// The same without what guards protect.
    pub(crate) fn cleaned(self, records: &dyn RecordGuard) -> Self {
        let clean = |text: Option<String>| text.map(|text| records.clean(&text).unwrap_or(text));
        Self { agent: clean(self.agent), request_id: clean(self.request_id), workflow: clean(self.workflow) }
    }
}

/// `name/version` of a `clientInfo` object, cut to a bound: it is the client's own word.
fn agent_name(info: &RawJson) -> Option<String> {
    const MAX_AGENT_CHARS: usize = 120;
    #[derive(serde::Deserialize)]
    struct Info {
        name: String,
        #[serde(default)]
        version: String,
    }
    let info: Info = info.parse().ok()?;
    Some(format!("{}/{}", info.name, info.version).chars().take(MAX_AGENT_CHARS).collect())
}
