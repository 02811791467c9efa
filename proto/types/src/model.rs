//! Models that GPU nodes serve, as resources.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{FileDigest, Name};

/// A model that GPU nodes serve under this name, whatever a node's own directory of models has under it. Nodes that lack its
/// files say so (`provost model status`) and do not serve it. Who may use it is for roles to say; a tenant that is not among
/// `tenants` does not see it at all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ModelSpec {
    /// What the model is for; people only.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Where its files are: `blob` or `path`.
    pub source: ModelFiles,
    /// What its files must be, `safetensors` or `gguf`; others are refused. None: either.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<ModelFormat>,
    /// What most of its weights must be stored as, such as `f32`, `bf16` or `q4_0`; others are refused. None: anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dtype: Option<String>,
    /// The most tokens of a chat, prompt and answer together. 0: as many as the model is made for. More than that is
    /// refused.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub context_tokens: u32,
    /// How much it matters when memory is short: `background`, `normal` or `critical`.
    #[serde(default, skip_serializing_if = "ModelPriority::is_normal")]
    pub priority: ModelPriority,
    /// It is loaded at once and stays in memory, whoever else needs room.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pinned: bool,
    /// The tenants that see it. Empty: all.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub tenants: BTreeSet<Name>,
    /// What its tokens cost where no `Price` of the tenant names the model. None: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prices: Option<ModelPrices>,
}

/// Where the files of a model are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ModelFiles {
    /// In the node's store, by their digest, as `provost model import` printed it. They are checked against it before they
    /// are loaded.
    Blob(FileDigest),
    /// At this place on each node: the absolute path of a directory, or of a `.gguf` file. What is there is taken as it is.
    Path(String),
}

/// The form of a model's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ModelFormat {
    /// `config.json` with `.safetensors` files.
    Safetensors,
    /// One `.gguf` file.
    Gguf,
}

impl ModelFormat {
    /// As it is written in documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Safetensors => "safetensors",
            Self::Gguf => "gguf",
        }
    }
}

/// How much a model matters when memory is short.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ModelPriority {
    /// Nobody waits for it.
    Background,
    /// The rule.
    #[default]
    Normal,
    /// Somebody's next step hangs on it: it displaces models that nobody uses at once.
    Critical,
}

impl ModelPriority {
    fn is_normal(&self) -> bool {
        *self == Self::Normal
    }
}

/// What a model's tokens cost, in millionths of the tenant's currency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct ModelPrices {
    /// For a million tokens that it reads.
    pub per_million_input_tokens_micro: u64,
    /// For a million tokens that it makes.
    pub per_million_output_tokens_micro: u64,
}

impl ModelSpec {
    /// Whether a tenant sees it.
    pub fn is_seen_by(&self, tenant: &str) -> bool {
        self.tenants.is_empty() || self.tenants.contains(tenant)
    }
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_a_blob_or_a_path() {
        let digest = format!("sha256:{}", "0".repeat(64));
        let blob: ModelSpec = serde_json::from_str(&format!(r#"{{"source":{{"blob":"{digest}"}}}}"#)).unwrap();
        assert!(matches!(blob.source, ModelFiles::Blob(found) if found.to_string() == digest));
        assert_eq!(serde_json::to_string(&blob).unwrap(), format!(r#"{{"source":{{"blob":"{digest}"}}}}"#));
        let path: ModelSpec =
            serde_json::from_str(r#"{"source":{"path":"/m/a.gguf"},"format":"gguf","priority":"critical"}"#).unwrap();
        assert_eq!((path.source, path.format), (ModelFiles::Path("/m/a.gguf".to_owned()), Some(ModelFormat::Gguf)));
        for wrong in [
            r#"{"source":{"blob":"m"}}"#,
            r#"{"source":{"path":"/m","blob":"sha256:"}}"#,
            r#"{"source":{}}"#,
            r"{}",
            r#"{"source":{"path":"/m"},"priority":"high"}"#,
            r#"{"source":{"path":"/m"},"context":1}"#,
        ] {
            assert!(serde_json::from_str::<ModelSpec>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_model_without_tenants_is_every_tenants() {
        let model = |tenants: &str| {
            let text = format!(r#"{{"source":{{"path":"/m"}},"tenants":[{tenants}]}}"#);
            serde_json::from_str::<ModelSpec>(&text).unwrap()
        };
        assert!(model("").is_seen_by("acme"));
        assert!(model(r#""acme""#).is_seen_by("acme"));
        assert!(!model(r#""acme""#).is_seen_by("umbra"));
    }
}
