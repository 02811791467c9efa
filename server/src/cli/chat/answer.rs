//! An answer, put together from the chunks of its stream.

use provost_client::{LinkError, MAX_MESSAGE_BYTES};
use serde::Deserialize;
use serde_json::Value;

use super::refused::{ApiError, no_api};
use crate::{cli::endpoint::link_failure, failure::Failure};

/// Ends a stream of chunks.
const DONE: &[u8] = b"[DONE]";

/// See the module.
#[derive(Debug, Default)]
pub struct Answer {
    /// The model that made it.
    pub model: String,
    /// What it said.
    pub content: String,
    /// Why it ended: `stop`, `length`.
    pub finish_reason: Option<String>,
    /// The tokens that were used, as the API tells them.
    pub usage: Option<Value>,
    /// Whether it is complete.
    pub is_done: bool,
}

#[derive(Deserialize)]
struct Chunk {
    model: Option<String>,
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<Value>,
    error: Option<ApiError>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    delta: Delta,
    finish_reason: Option<String>,
}

#[derive(Default, Deserialize)]
struct Delta {
    content: Option<String>,
}

impl Answer {
    /// Takes one event; gives the text that it adds. Errors: the node says that it failed, the event is none
    /// of the API, the answer is longer than is taken.
    pub fn take(&mut self, event: &[u8]) -> Result<String, Failure> {
        if event == DONE {
            self.is_done = true;
            return Ok(String::new());
        }
        let chunk: Chunk = serde_json::from_slice(event).map_err(no_api)?;
        if let Some(error) = chunk.error {
            return Err(error.failure(None, None));
        }
        if let Some(model) = chunk.model {
            self.model = model;
        }
        self.usage = chunk.usage.or(self.usage.take());
        // One choice is asked for.
        let Some(choice) = chunk.choices.into_iter().next() else { return Ok(String::new()) };
        self.finish_reason = choice.finish_reason.or(self.finish_reason.take());
        let piece = choice.delta.content.unwrap_or_default();
        if self.content.len() + piece.len() > MAX_MESSAGE_BYTES {
            return Err(link_failure(&LinkError::TooLarge(MAX_MESSAGE_BYTES)));
        }
        self.content.push_str(&piece);
        Ok(piece)
    }
}

#[cfg(test)]
mod tests {
    use provost_mcp::SseParser;

    use super::*;

    const STREAM: &str = concat!(
        ": still here\n\n",
        "data: {\"model\":\"tiny\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n",
        "data: {\"model\":\"tiny\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"héllo\"},\"finish_reason\":null}],\"usage\":null}\n\n",
        "data: {\"model\":\"tiny\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" you\"}}]}\n\n",
        "data: {\"model\":\"tiny\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
        "data: {\"model\":\"tiny\",\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}\n\n",
        "data: [DONE]\n\n",
    );

    fn read(chunks: &[&[u8]]) -> Result<(Answer, String), Failure> {
        let (mut parser, mut answer, mut told) = (SseParser::new(1_000), Answer::default(), String::new());
        for chunk in chunks {
            assert_eq!(parser.feed(chunk), Ok(()));
            while let Ok(Some(event)) = parser.next_event() {
                told.push_str(&answer.take(&event)?);
            }
        }
        Ok((answer, told))
    }

    #[test]
    fn an_answer_is_whole_however_its_stream_is_cut() {
        let bytes = STREAM.as_bytes();
        for cut in 0..bytes.len() {
            let (answer, told) = read(&[&bytes[..cut], &bytes[cut..]]).unwrap_or_else(|error| panic!("{cut}: {error}"));
            assert_eq!((answer.model.as_str(), answer.content.as_str()), ("tiny", "héllo you"), "cut at {cut}");
            assert_eq!(told, answer.content, "what is told is what is kept");
            assert_eq!(answer.finish_reason.as_deref(), Some("stop"));
            assert_eq!(answer.usage.map(|usage| usage["completion_tokens"].clone()), Some(Value::from(2)));
            assert!(answer.is_done);
        }
    }

    #[test]
    fn a_stream_that_breaks_off_is_not_done() {
        let cut = STREAM.find("data: [DONE]").unwrap_or_default();
        let answer = read(&[&STREAM.as_bytes()[..cut]]).map(|(answer, _)| answer.is_done);
        assert!(answer.is_ok_and(|is_done| !is_done));
    }

    #[test]
    fn an_error_in_the_middle_keeps_its_code() {
        let mut answer = Answer::default();
        let lost =
            br#"{"error":{"message":"the node was lost","type":"server_error","param":null,"code":"PV-GPU-LOST"}}"#;
        let failure = answer.take(lost);
        assert!(failure.is_err_and(|f| f.code == "PV-GPU-LOST" && f.message == "the node was lost"));
        for event in ["nonsense", "{\"choices\":7}"] {
            assert!(answer.take(event.as_bytes()).is_err_and(|f| f.code == "PV-CLI-ANSWER"), "{event}");
        }
    }
}
