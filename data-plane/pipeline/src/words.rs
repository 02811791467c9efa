//! The caller's own words in the records of a call.

use provost_mcp::RawJson;

use crate::{RecordGuard, Request};

/// What a caller says of itself and of its request, beside the parameters: its own words, in each record of the call.
#[derive(Clone, Default)]
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
    let mut agent = [info.name.as_str(), "/", info.version.as_str()].concat();
    // Nearly all are shorter, whatever they are written in.
    if agent.len() > MAX_AGENT_CHARS
        && let Some((end, _)) = agent.char_indices().nth(MAX_AGENT_CHARS)
    {
        agent.truncate(end);
    }
    Some(agent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_its_name_and_version_up_to_a_number_of_characters() {
        let agent = |name: &str, version: &str| {
            let info = serde_json::json!({ "name": name, "version": version });
            agent_name(&RawJson::from(info))
        };
        assert_eq!(agent("ide", "1.2").as_deref(), Some("ide/1.2"));
        for (letter, version) in [("a", ""), ("é", "1"), ("😀", "9.9")] {
            let whole = format!("{}/{version}", letter.repeat(118));
            let expect: String = whole.chars().take(120).collect();
            assert_eq!(agent(&letter.repeat(118), version), Some(expect), "{letter}");
            let longer = agent(&letter.repeat(200), version);
            assert_eq!(longer, Some(letter.repeat(120)), "{letter}");
        }
        assert_eq!(agent_name(&RawJson::EMPTY_OBJECT), None);
    }
}
