//! Recordings by OpenAI's API: what is asked is read here, what was said put into the form that was asked for.
//!
//! Shapes: OpenAI API reference, "Create transcription"; SubRip as players read it; WebVTT (W3C). Times of words are not served.

use std::fmt::Write as _;

use futures::future::{Either, select};
use provost_data_pipeline::{Call, ClientLink, Execution, Intended, Usage};
use provost_mcp::{RawJson, RawObject, RpcError};
use provost_types::{Sound, SpeechSegment, TranscribeRequest, Transcript};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{body::invalid, failed, used};
use crate::node::{limit, plane::Node};

/// A form with a recording, without it.
#[derive(Deserialize)]
struct SpeechBody {
    language: Option<String>,
    prompt: Option<String>,
    response_format: Option<Format>,
    temperature: Option<f32>,
    timestamp_granularities: Option<Vec<String>>,
}

/// What an answer looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Format {
    #[default]
    Json,
    Text,
    VerboseJson,
    Srt,
    Vtt,
}

impl Format {
    /// Whether it tells when something was said.
    fn has_times(self) -> bool {
        matches!(self, Self::VerboseJson | Self::Srt | Self::Vtt)
    }
}

impl SpeechBody {
    fn format(&self) -> Format {
        self.response_format.unwrap_or_default()
    }

    fn refuse_what_is_not_served(&self, is_guarded: bool) -> Result<(), RpcError> {
        let times = self.timestamp_granularities.as_deref().unwrap_or_default();
        if let Some(other) = times.iter().find(|of| *of != "segment") {
            return Err(invalid(format!(
                "timestamp_granularities `{other}` are not served; there are those of segments"
            )));
        }
        if !times.is_empty() && self.format() != Format::VerboseJson {
            return Err(invalid("`timestamp_granularities` need `response_format: verbose_json`"));
        }
        if is_guarded && self.format().has_times() {
            return Err(RpcError::with_code(
                RpcError::INVALID_PARAMS,
                "PV-SPEECH-GUARDED",
                "a guard looks at what was said, and in pieces it could not: use the response_format json or text here",
            ));
        }
        Ok(())
    }

    fn request(self, tenant: &str, model: &str, sound: Sound) -> TranscribeRequest {
        TranscribeRequest {
            timestamps: self.format().has_times(),
            tenant: tenant.to_owned(),
            model: model.to_owned(),
            sound,
            language: self.language.filter(|language| !language.is_empty()),
            prompt: self.prompt.unwrap_or_default(),
            temperature: self.temperature.unwrap_or(0.0),
        }
    }
}

pub(super) async fn transcribe(
    node: &Node,
    model: &str,
    call: &Call<Intended>,
    link: &dyn ClientLink,
) -> Result<Execution, RpcError> {
    let body: SpeechBody = call.params().parse().map_err(invalid)?;
    body.refuse_what_is_not_served(call.guard().is_some())?;
    let sound = call.request().sound.clone().ok_or_else(|| invalid("`file` is missing"))?;
    let (format, temperature) = (body.format(), body.temperature.unwrap_or(0.0));
    let fields = RawObject::parse(call.params()).unwrap_or_default();
    let (tokens_in, tokens_out) = limit::heard_at_most(&sound, &fields);
    let request = body.request(call.caller().principal.tenant.as_str(), model, sound);
    let transcript = match select(node.inference.transcribe(request), link.cancelled()).await {
        Either::Left((transcript, _)) => transcript.map_err(|error| failed(&error))?,
        // Part of it may have been computed, and nobody counted it.
        Either::Right(((), _)) => {
            let usage = Usage { tokens_in, tokens_out, ..Usage::default() };
            return Ok(Execution { usage, ..Execution::cancelled() });
        }
    };
    let mut execution = Execution::result(RawJson::from(shown(&transcript, format, temperature)), false);
    execution.usage = used(transcript.usage);
    Ok(execution)
}

/// The answer; of a format that is no JSON its member `text` is all of it.
fn shown(transcript: &Transcript, format: Format, temperature: f32) -> Value {
    match format {
        Format::Json => {
            let (read, made) = (transcript.usage.prompt, transcript.usage.completion);
            let total = read.saturating_add(made);
            let usage = json!({ "type": "tokens", "input_tokens": read, "output_tokens": made, "total_tokens": total });
            json!({ "text": transcript.text, "usage": usage })
        }
        Format::Text => json!({ "text": format!("{}\n", transcript.text) }),
        Format::Srt => json!({ "text": srt(&transcript.segments) }),
        Format::Vtt => json!({ "text": vtt(&transcript.segments) }),
        Format::VerboseJson => {
            let segments: Vec<Value> = transcript
                .segments
                .iter()
                .enumerate()
                .map(|(id, segment)| {
                    json!({
                        "id": id, "start": segment.from_s, "end": segment.to_s, "text": segment.text,
                        "temperature": temperature, "avg_logprob": segment.mean_logprob,
                        "no_speech_prob": segment.silence,
                    })
                })
                .collect();
            json!({
                "task": "transcribe", "language": transcript.language, "duration": transcript.seconds,
                "text": transcript.text, "segments": segments,
                "usage": { "type": "duration", "seconds": transcript.seconds.ceil() },
            })
        }
    }
}

fn srt(segments: &[SpeechSegment]) -> String {
    let mut file = String::new();
    for (index, segment) in segments.iter().enumerate() {
        let (from, to) = (clock(segment.from_s, ','), clock(segment.to_s, ','));
        // Writing to a text cannot fail.
        let _ = write!(file, "{}\n{from} --> {to}\n{}\n\n", index + 1, line(&segment.text));
    }
    file
}

fn vtt(segments: &[SpeechSegment]) -> String {
    let mut file = "WEBVTT\n\n".to_owned();
    for segment in segments {
        let (from, to) = (clock(segment.from_s, '.'), clock(segment.to_s, '.'));
        // `<` and `&` begin something there.
        let text = line(&segment.text).replace('&', "&amp;").replace('<', "&lt;");
        let _ = write!(file, "{from} --> {to}\n{text}\n\n");
    }
    file
}

/// A text in one line, which is no line of times: what was said cannot end its own piece.
fn line(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").replace("-->", "->")
}

/// `HH:MM:SS,mmm`.
fn clock(seconds: f64, point: char) -> String {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float to an integer saturates")]
    let ms = (seconds.max(0.0) * 1_000.0).round() as u64;
    format!("{:02}:{:02}:{:02}{point}{:03}", ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60, ms % 1_000)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use provost_types::TokenUsage;

    use super::*;

    fn said(from_s: f64, to_s: f64, text: &str) -> SpeechSegment {
        SpeechSegment { from_s, to_s, text: text.to_owned(), mean_logprob: -0.5, silence: 0.25 }
    }

    fn transcript() -> Transcript {
        Transcript {
            text: "So it is. a --> <b>".to_owned(),
            language: Some("en".to_owned()),
            seconds: 61.5,
            segments: vec![said(0.0, 1.0004, " So it is."), said(59.9996, 3_661.25, " a -->\n\n<b>")],
            usage: TokenUsage { prompt: 7, completion: 5 },
        }
    }

    #[test]
    fn each_format_has_its_shape() {
        let shown = |format| shown(&transcript(), format, 0.5);
        assert_eq!(shown(Format::Json)["usage"]["total_tokens"], 12);
        assert_eq!(shown(Format::Text), json!({ "text": "So it is. a --> <b>\n" }));
        let srt = "1\n00:00:00,000 --> 00:00:01,000\nSo it is.\n\n2\n00:01:00,000 --> 01:01:01,250\na -> <b>\n\n";
        assert_eq!(shown(Format::Srt), json!({ "text": srt }));
        let vtt = "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\nSo it is.\n\n\
            00:01:00.000 --> 01:01:01.250\na -> &lt;b>\n\n";
        assert_eq!(shown(Format::Vtt), json!({ "text": vtt }));
        let verbose = shown(Format::VerboseJson);
        assert_eq!((&verbose["language"], &verbose["duration"]), (&json!("en"), &json!(61.5)));
        assert_eq!((&verbose["segments"][1]["id"], &verbose["segments"][0]["end"]), (&json!(1), &json!(1.0004)));
        assert_eq!(verbose["segments"][0]["avg_logprob"], -0.5);
    }

    #[test]
    fn what_is_not_served_is_refused_by_name() {
        let read = |body: Value| serde_json::from_value::<SpeechBody>(body).map_err(|cause| cause.to_string());
        let refused = |body: Value, is_guarded: bool| {
            let refused = read(body).unwrap().refuse_what_is_not_served(is_guarded);
            refused.map_err(|error| format!("{:?} {}", error.stable_code(), error.message))
        };
        assert_eq!(refused(json!({ "response_format": "text" }), true), Ok(()));
        assert_eq!(refused(json!({}), true), Ok(()));
        let times = json!({ "response_format": "verbose_json", "timestamp_granularities": ["segment"] });
        assert_eq!(refused(times, false), Ok(()));
        for format in ["verbose_json", "srt", "vtt"] {
            let body = json!({ "response_format": format });
            assert_eq!(refused(body.clone(), false), Ok(()));
            assert!(refused(body, true).unwrap_err().contains("PV-SPEECH-GUARDED"), "{format}");
        }
        let words = json!({ "response_format": "verbose_json", "timestamp_granularities": ["word"] });
        assert!(refused(words, false).unwrap_err().contains("`word`"));
        assert!(
            refused(json!({ "timestamp_granularities": ["segment"] }), false).unwrap_err().contains("verbose_json")
        );
        assert!(read(json!({ "response_format": "midi" })).is_err());
    }
}
