//! `adapter_config.json`, as PEFT writes it.
//!
//! Fields are looked at one by one: what would change the result and is not computed here is refused by its name, and so is a
//! field that is not known and says something. A later form of adapters is then an error, not a wrong answer.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::Target;
use crate::error::{FileContext, InferError};

/// Largest rank that is read.
pub(crate) const MAX_RANK: usize = 1024;

/// Fields that say how the adapter was trained or where it comes from, and nothing about how it is computed.
const WITHOUT_EFFECT: [&str; 14] = [
    "arrow_config",
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",
    "eva_config",
    "inference_mode",
    "layers_pattern",
    "loftq_config",
    "lora_dropout",
    "lora_ga_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
];
/// Ways to begin training that leave the base as it was.
const PLAIN_BEGINNINGS: [&str; 3] = ["gaussian", "eva", "orthogonal"];

/// What is computed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AdapterConfig {
    pub(crate) rank: usize,
    /// The factor of the product.
    pub(crate) scale: f64,
    pub(crate) targets: BTreeSet<Target>,
}

impl AdapterConfig {
    /// Parses and checks a configuration.
    pub(crate) fn parse(bytes: &[u8], at: &FileContext) -> Result<Self, InferError> {
        let fields: Map<String, Value> = serde_json::from_slice(bytes).map_err(|error| at.malformed(error))?;
        for (name, value) in &fields {
            check(name, value, at)?;
        }
        if fields.get("peft_type").is_none_or(|kind| kind != "LORA") {
            return Err(at.unsupported("`peft_type` is not `LORA`"));
        }
        let rank = fields.get("r").and_then(Value::as_u64).and_then(|rank| usize::try_from(rank).ok());
        let Some(rank) = rank.filter(|rank| (1..=MAX_RANK).contains(rank)) else {
            return Err(at.malformed(format!("`r` must be a whole number from 1 to {MAX_RANK}")));
        };
        let alpha = fields.get("lora_alpha").and_then(Value::as_f64).filter(|alpha| alpha.is_finite());
        let Some(alpha) = alpha else {
            return Err(at.malformed("`lora_alpha` must be a number"));
        };
        let divisor = match fields.get("use_rslora") {
            Some(Value::Bool(true)) => (rank as f64).sqrt(),
            _ => rank as f64,
        };
        Ok(Self { rank, scale: alpha / divisor, targets: targets(fields.get("target_modules"), at)? })
    }
}

/// Refuses a field that says what is not computed here.
fn check(name: &str, value: &Value, at: &FileContext) -> Result<(), InferError> {
    let is_plain = match name {
        "peft_type" | "r" | "lora_alpha" | "target_modules" => true,
        "use_rslora" => value.is_boolean() || value.is_null(),
        "bias" => value == "none" || value.is_null(),
        "task_type" => value == "CAUSAL_LM" || value.is_null(),
        "init_lora_weights" => {
            value.is_boolean() || value.is_null() || value.as_str().is_some_and(|how| PLAIN_BEGINNINGS.contains(&how))
        }
        name if WITHOUT_EFFECT.contains(&name) => true,
        // Such as `use_dora`, `rank_pattern`, `modules_to_save`, `layers_to_transform`, and what is not known.
        _ => says_nothing(value),
    };
    match is_plain {
        true => Ok(()),
        false => Err(at.unsupported(format!("`{name}` is {}, which is not supported", shown(value)))),
    }
}

fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Bool(true) | Value::Number(_) | Value::String(_) => false,
    }
}

fn targets(value: Option<&Value>, at: &FileContext) -> Result<BTreeSet<Target>, InferError> {
    let names = match value {
        Some(Value::String(all)) if all == "all-linear" => return Ok(Target::ALL.into()),
        Some(Value::Array(names)) if !names.is_empty() => names,
        Some(Value::String(pattern)) => {
            let cause = format!(
                "`target_modules` is the pattern {}; write a list of names",
                shown(&Value::from(pattern.as_str()))
            );
            return Err(at.unsupported(cause));
        }
        _ => return Err(at.malformed("`target_modules` must be a list of names")),
    };
    let target = |name: &Value| {
        name.as_str().and_then(Target::of_name).ok_or_else(|| {
            let (name, known) = (shown(name), Target::names());
            at.unsupported(format!("`target_modules` has {name}, which is not supported; supported: {known}"))
        })
    };
    names.iter().map(target).collect()
}

/// A value for a message, cut short.
fn shown(value: &Value) -> String {
    const MOST: usize = 60;
    let text = value.to_string();
    match text.char_indices().nth(MOST) {
        None => text,
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(change: Value) -> Result<AdapterConfig, String> {
        let mut config = json!({
            "peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj"],
            "bias": "none", "fan_in_fan_out": false, "inference_mode": true, "init_lora_weights": true,
            "lora_dropout": 0.1, "modules_to_save": null, "rank_pattern": {}, "task_type": "CAUSAL_LM",
            "use_dora": false, "use_rslora": false, "base_model_name_or_path": "somewhere",
        });
        for (name, value) in change.as_object().unwrap() {
            config[name] = value.clone();
        }
        let at = FileContext::new("m", "adapter_config.json");
        AdapterConfig::parse(config.to_string().as_bytes(), &at).map_err(|error| error.to_string())
    }

    #[test]
    fn the_factor_is_alpha_by_rank_or_by_its_root() {
        let plain = parse(json!({})).unwrap();
        assert_eq!((plain.rank, plain.scale), (4, 2.0));
        assert_eq!(plain.targets, BTreeSet::from([Target::Query, Target::Down]));
        assert_eq!(parse(json!({ "use_rslora": true })).unwrap().scale, 4.0);
        assert_eq!(parse(json!({ "target_modules": "all-linear" })).unwrap().targets.len(), 7);
    }

    #[test]
    fn what_is_not_computed_is_refused_by_name() {
        for (name, value) in [
            ("peft_type", json!("LOHA")),
            ("use_dora", json!(true)),
            ("bias", json!("all")),
            ("rank_pattern", json!({ "q_proj": 8 })),
            ("alpha_pattern", json!({ "q_proj": 8 })),
            ("modules_to_save", json!(["lm_head"])),
            ("layers_to_transform", json!([0])),
            ("fan_in_fan_out", json!(true)),
            ("lora_bias", json!(true)),
            ("init_lora_weights", json!("pissa")),
            ("task_type", json!("SEQ_CLS")),
            ("target_modules", json!(["q_proj", "lm_head"])),
            ("target_modules", json!(".*proj")),
            ("something_new", json!("on")),
        ] {
            let refused = parse(json!({ name: value })).unwrap_err();
            assert!(refused.starts_with("PV-MODEL-UNSUPPORTED"), "{refused}");
            assert!(refused.contains(&format!("`{name}`")), "{name}: {refused}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        for (name, value) in [
            ("r", json!(0)),
            ("r", json!(1025)),
            ("r", json!("8")),
            ("lora_alpha", json!(null)),
            ("target_modules", json!([])),
            ("target_modules", json!(null)),
        ] {
            let refused = parse(json!({ name: value })).unwrap_err();
            assert!(refused.starts_with("PV-MODEL-MALFORMED") && refused.contains(&format!("`{name}`")), "{refused}");
        }
    }
}
