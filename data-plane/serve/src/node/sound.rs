//! Recordings in the arguments of the tool `transcribe`: guards and the log are shown what stands for the sound, its length and
//! its digest, and only the tool gets it.

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, engine::general_purpose::STANDARD};
use provost_data_pipeline::{Caller, GuardedParams, Operation, Request, Target};
use provost_mcp::{RawJson, RawObject};
use provost_types::{Name, Sound};
use serde_json::json;

use super::{aliases::AliasIndex, compiled::Compiled};

/// The tool of the `inference` built-in.
pub(super) const TOOL: &str = "transcribe";
/// Its argument with the recording, in base64.
const AUDIO: &str = "audio";
const ARGUMENTS: &str = "arguments";

/// A call without its recording.
pub(super) struct Silent {
    /// For guards: the argument is left out.
    pub(super) request: Request,
    /// The argument as it came.
    audio: RawJson,
}

impl Silent {
    /// `None`: the call has none.
    pub(super) fn of(compiled: &Compiled, caller: &Caller, target: &Target, request: &Request) -> Option<Self> {
        let (Operation::CallTool(_), Some(plugin)) = (&request.operation, &target.plugin) else { return None };
        if target.local != TOOL || !compiled.is_inference(&caller.principal.tenant, plugin) {
            return None;
        }
        let (params, audio) = parted(&request.params)?;
        Some(Self { request: Request { params, ..request.clone() }, audio })
    }

    /// The same of a call that was refused before it was known what it would have touched: by the name that was written.
    pub(super) fn of_unknown(compiled: &Compiled, caller: &Caller, request: &Request) -> Option<Self> {
        let Operation::CallTool(written) = &request.operation else { return None };
        if !may_mean_it(&compiled.aliases, &caller.principal.tenant, written) {
            return None;
        }
        let (params, audio) = parted(&request.params)?;
        Some(Self { request: Request { params, ..request.clone() }, audio })
    }

    /// What guards left of the call, with the recording for the tool and its digest for the log.
    pub(super) fn heard(self, mut guarded: GuardedParams) -> GuardedParams {
        let sent = guarded.sent.as_ref().unwrap_or(&guarded.params);
        guarded.sent = Some(with(sent, self.audio.clone()));
        guarded.params = with(&guarded.params, stands_for(&self.audio));
        guarded
    }
}

/// Whether a name may be one of the tool's: by its last part, or by that of anything that an alias of this name leads to.
fn may_mean_it(aliases: &AliasIndex, tenant: &Name, written: &str) -> bool {
    let is_it = |tool: &str| tool.rsplit('.').next() == Some(TOOL);
    is_it(written) || aliases.find(tenant, written).is_some_and(|alias| alias.tools().any(is_it))
}

/// The parameters without the recording, and that.
fn parted(params: &RawJson) -> Option<(RawJson, RawJson)> {
    let mut params = RawObject::parse(params).ok()?;
    let mut arguments = params.get_object(ARGUMENTS)?;
    let audio = arguments.remove(AUDIO)?;
    params.set(ARGUMENTS, arguments.finish());
    Some((params.finish(), audio))
}

/// The parameters with this in its place.
fn with(params: &RawJson, audio: RawJson) -> RawJson {
    let Ok(mut object) = RawObject::parse(params) else { return params.clone() };
    object.set_in(ARGUMENTS, AUDIO, audio);
    object.finish()
}

/// Length and SHA-256 of the file; of what is no base64, of that itself.
fn stands_for(audio: &RawJson) -> RawJson {
    let file = decoded(audio).unwrap_or_else(|| audio.as_bytes().to_vec());
    let digest: String = digest(&SHA256, &file).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    RawJson::from(json!({ "bytes": file.len(), "sha256": digest }))
}

fn decoded(audio: &RawJson) -> Option<Vec<u8>> {
    STANDARD.decode(audio.as_text()?.as_bytes()).ok()
}

/// The recording in the tool's arguments; an empty one if it has none.
pub(super) fn given(arguments: &RawObject) -> Sound {
    let file = arguments.get(AUDIO).and_then(|audio| decoded(&audio));
    file.map(Sound::new).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use provost_types::{Metadata, Resource, Revision, Snapshot, Spec};

    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn params(audio: &str) -> RawJson {
        RawJson::from(json!({ "name": "ai.transcribe", "arguments": { "model": "m", "audio": audio, "prompt": "p" } }))
    }

    #[test]
    fn the_log_is_shown_what_stands_for_the_sound_and_the_tool_gets_it() {
        let before = params(&STANDARD.encode(b"a sound"));
        let (silent, audio) = parted(&before).unwrap();
        assert_eq!(silent.parse::<serde_json::Value>().unwrap()["arguments"], json!({ "model": "m", "prompt": "p" }));
        let kept = with(&silent, stands_for(&audio)).parse::<serde_json::Value>().unwrap();
        let digest = digest(&SHA256, b"a sound");
        let digest: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(kept["arguments"]["audio"], json!({ "bytes": 7, "sha256": digest }));
        let sent = with(&silent, audio).parse::<serde_json::Value>().unwrap();
        assert_eq!(sent, before.parse::<serde_json::Value>().unwrap());
        let arguments = RawObject::parse(&before).unwrap().get_object("arguments").unwrap();
        assert_eq!(given(&arguments), Sound::new(b"a sound".to_vec()));
    }

    #[test]
    fn a_name_may_lead_to_the_tool_for_somebody() {
        let mut all = Snapshot::default();
        for (own, tools) in [("hear", ["old.echo", "ai.transcribe"]), ("say", ["old.echo", "ai.speak"])] {
            let targets = tools.map(|tool| json!({ "tool": tool }));
            let spec: Spec = serde_json::from_value(json!({ "ToolAlias": { "targets": targets } })).unwrap();
            let metadata = Metadata { name: name(own), tenant: Some(name("acme")), labels: BTreeMap::new() };
            let resource = Resource { metadata, spec, created: Revision(1), modified: Revision(1) };
            all.resources.insert(resource.key(), Arc::new(resource));
        }
        let aliases = AliasIndex::compile(&all);
        for (tenant, written, may) in [
            ("acme", "hear", true),
            ("acme", "say", false),
            ("acme", "gone.transcribe", true),
            ("acme", "transcribe", true),
            ("acme", "hear.more", false),
            ("other", "hear", false),
        ] {
            assert_eq!(may_mean_it(&aliases, &name(tenant), written), may, "{tenant} {written}");
        }
    }

    #[test]
    fn what_is_no_recording_is_not_kept_either() {
        let (silent, audio) = parted(&params("not base64!")).unwrap();
        let kept = with(&silent, stands_for(&audio));
        assert!(!kept.as_str().contains("not base64"), "{}", kept.as_str());
        assert!(parted(&RawJson::from(json!({ "name": "x", "arguments": {} }))).is_none());
        assert_eq!(given(&RawObject::new()), Sound::default());
    }
}
