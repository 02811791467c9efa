//! `transcribe`: what is said in a recording. The sound is an argument, in base64.

use base64::{Engine, engine::general_purpose::STANDARD};
use provost_data_pipeline::Usage;
use provost_types::{Inference, Sound, TranscribeRequest, Transcript};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::read;
use crate::builtin::{Outcome, UnderWay};

/// The tool, with what is said of a model's name and of all tools.
pub(super) fn definition(model: &Value, hints: &Value) -> Value {
    json!({
        "name": "transcribe",
        "title": "Write down a recording",
        "description": "Writes down what is said in a recording, with one of the cluster's own speech models.",
        "inputSchema": {
            "type": "object",
            "properties": {
                "model": model,
                "audio": {
                    "type": "string",
                    "minLength": 1,
                    "contentEncoding": "base64",
                    "description": "A WAV, FLAC, MP3 or Ogg Vorbis file, in base64.",
                },
                "language": {"type": "string", "description": "Such as `en`; without, the model finds out."},
                "prompt": {"type": "string", "description": "What was said before: names and spellings to follow."},
                "temperature": {"type": "number", "minimum": 0, "maximum": 1},
            },
            "required": ["model", "audio"],
            "additionalProperties": false,
        },
        "outputSchema": {
            "type": "object",
            "properties": {
                "text": {"type": "string"},
                "language": {"type": ["string", "null"], "description": "The language that was spoken, where the model knows several."},
                "seconds": {"type": "number"},
                "promptTokens": {"type": "integer"},
                "completionTokens": {"type": "integer"},
            },
            "required": ["text", "language", "seconds", "promptTokens", "completionTokens"],
        },
        "annotations": hints,
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TranscribeArguments {
    model: String,
    audio: String,
    #[serde(default)]
    language: Option<String>,
    #[serde(default)]
    prompt: String,
    #[serde(default)]
    temperature: f32,
}

pub(super) async fn transcribe(
    inference: &dyn Inference,
    tenant: &str,
    arguments: &Map<String, Value>,
    under_way: &UnderWay,
) -> Result<Outcome, String> {
    let TranscribeArguments { model, audio, language, prompt, temperature } = read(arguments)?;
    let file = STANDARD.decode(audio).map_err(|cause| format!("`audio` is no base64: {cause}"))?;
    let sound = Sound::new(file);
    under_way.hears_sound(sound.tokens_at_most(prompt.len()));
    let tenant = tenant.to_owned();
    let request = TranscribeRequest { tenant, model, sound, language, prompt, temperature, timestamps: false };
    let transcript = inference.transcribe(request).await.map_err(|cause| {
        under_way.was_refused();
        cause.to_string()
    })?;
    Ok(answered(&transcript))
}

fn answered(transcript: &Transcript) -> Outcome {
    let Transcript { text, language, seconds, usage, .. } = transcript;
    let result = json!({
        "content": [{"type": "text", "text": text}],
        "structuredContent": {
            "text": text,
            "language": language,
            "seconds": seconds,
            "promptTokens": usage.prompt,
            "completionTokens": usage.completion,
        },
    });
    Outcome { result, usage: Usage { tokens_in: usage.prompt, tokens_out: usage.completion, ..Usage::default() } }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use provost_mcp::RawJson;
    use provost_types::{
        BoxFuture, BoxStream, ChatEvent, ChatRequest, EmbedRequest, EmbedResponse, InferenceError, InferenceErrorKind,
        ModelInfo, TokenUsage,
    };

    use super::*;

    /// Says how many bytes it was given, or that it is busy.
    struct Counts {
        is_busy: bool,
    }

    impl Inference for Counts {
        fn models(&self) -> Vec<ModelInfo> {
            Vec::new()
        }

        fn embed(&self, _: EmbedRequest) -> BoxFuture<'_, Result<EmbedResponse, InferenceError>> {
            Box::pin(std::future::pending())
        }

        fn chat(
            &self,
            _: ChatRequest,
        ) -> BoxFuture<'_, Result<BoxStream<'static, Result<ChatEvent, InferenceError>>, InferenceError>> {
            Box::pin(std::future::pending())
        }

        fn transcribe(&self, request: TranscribeRequest) -> BoxFuture<'_, Result<Transcript, InferenceError>> {
            let (kind, message) = (InferenceErrorKind::Busy, "PV-TEST: busy".to_owned());
            let busy = InferenceError { kind, message, retry_after_ms: None };
            let transcript = Transcript {
                text: format!("{} bytes for {}", request.sound.bytes().len(), request.tenant),
                language: request.language,
                seconds: 1.5,
                segments: Vec::new(),
                usage: TokenUsage { prompt: 75, completion: 6 },
            };
            Box::pin(std::future::ready(if self.is_busy { Err(busy) } else { Ok(transcript) }))
        }
    }

    fn call(arguments: &Value, is_busy: bool, under_way: &UnderWay) -> Result<Outcome, String> {
        let arguments = arguments.as_object().unwrap();
        futures::executor::block_on(transcribe(&Counts { is_busy }, "acme", arguments, under_way))
    }

    #[test]
    fn a_recording_comes_as_base64_and_goes_back_as_text() {
        let definition = definition(&json!({ "type": "string" }), &json!({}));
        let fits = |schema: &str, value: &Value| {
            let validator = jsonschema::options().build(&definition[schema]).unwrap();
            assert!(validator.is_valid(value), "{schema}: {value}");
        };
        for language in [Some("en"), None] {
            let mut arguments = json!({ "model": "m", "audio": STANDARD.encode([0; 40]), "prompt": "names" });
            if let Some(language) = language {
                arguments["language"] = json!(language);
            }
            fits("inputSchema", &arguments);
            let outcome = call(&arguments, false, &UnderWay::default()).unwrap();
            let structured = &outcome.result["structuredContent"];
            fits("outputSchema", structured);
            assert_eq!(structured["text"], "40 bytes for acme");
            assert_eq!(outcome.result["content"][0]["text"], structured["text"]);
            assert_eq!(structured["language"], json!(language));
            assert_eq!((outcome.usage.tokens_in, outcome.usage.tokens_out), (75, 6));
        }
    }

    #[test]
    fn what_makes_no_sense_or_was_refused_costs_nothing() {
        let good = json!({ "model": "m", "audio": STANDARD.encode([0; 40]) });
        let mut strange = good.clone();
        strange["segments"] = json!(true);
        let odd = json!({ "model": "m", "audio": "no base64!" });
        for (arguments, is_busy, says) in
            [(&odd, false, "base64"), (&strange, false, "segments"), (&good, true, "PV-TEST")]
        {
            let under_way = UnderWay::default();
            let refused = call(arguments, is_busy, &under_way).err().unwrap();
            assert!(refused.contains(says), "{refused}");
            assert_eq!(under_way.usage(&RawJson::EMPTY_OBJECT), Usage::default());
        }
    }

    #[test]
    fn one_that_breaks_off_costs_what_it_may_and_not_its_bytes_in_base64() {
        let under_way = UnderWay::default();
        under_way.hears_sound((7, 9));
        let used = under_way.usage(&RawJson::from(json!({ "audio": "A".repeat(1_000) })));
        assert_eq!((used.tokens_in, used.tokens_out), (7, 9));
    }
}
