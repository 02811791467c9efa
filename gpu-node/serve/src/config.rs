//! Settings of a GPU node.

use std::collections::BTreeMap;
use std::path::PathBuf;

use provost_gpu_infer::DeviceChoice;
use provost_gpu_vram::Priority;
use provost_types::ModelInfo;

/// A model that is another one with an adapter over its weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdapterModel {
    /// The name of a chat model, declared or of the directory.
    pub base: String,
    /// The folder of the adapter, as PEFT writes it.
    pub path: PathBuf,
}

/// Settings of a GPU node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuConfig {
    /// Each sub-directory or `.gguf` file in it is a model. None: the node has no models but those that are declared.
    pub models_dir: Option<PathBuf>,
    /// Models that are adapters over others, by name; of one of the directory and these with the same name these are
    /// served, of a declared one and these the declared one.
    pub adapters: BTreeMap<String, AdapterModel>,
    /// Tasks of fine-tuning are looked for here, and carried out while the device is theirs alone. None: there are none.
    pub tuning_dir: Option<PathBuf>,
    /// Where imported models are. None: the node has no store.
    pub store_dir: Option<PathBuf>,
    /// What models compute on. Change it where a node has several devices, or has to leave one to others.
    pub device: DeviceChoice,
    /// Bytes of page-locked memory of the host in which weights of a CUDA device are kept, so that they come back without
    /// their files. Raise it to what the machine can spare where models take turns.
    pub host_copies_bytes: u64,
    /// Bytes that weights, KV caches and scratch may take together. Change it when the machine
    /// is shared, or when a model is refused as too large.
    pub capacity_bytes: u64,
    /// Threads that compute; 0 takes one per processor. Lower it to leave processors to others.
    pub threads: usize,
    /// Most bytes of the KV cache of one model; a request that needs more gets them if there are any.
    /// Raise it for many long answers at once, or to keep more beginnings of conversations.
    pub kv_cache_bytes: u64,
    /// Requests that may wait, of one tenant three quarters of them; more are told to try again.
    /// Raise it for bursts of short requests.
    pub queue_bound: usize,
    /// Answers generated at the same time; each slows the others, all together go faster.
    pub active_chats: usize,
    /// How much models matter, by name; those that are not named are normal. Change it where somebody's
    /// next step hangs on a model, or where nobody waits for it.
    pub priorities: BTreeMap<String, Priority>,
    /// Models stay for this many times as long as they took to load while others wait for their memory.
    /// Raise it where loading disturbs others.
    pub residency_loads: u64,
    /// Models that nobody uses may go sooner while loading leaves time to bring them back. Turn it off
    /// where every load counts.
    pub early_eviction: bool,
}

impl GpuConfig {
    /// Names that have a priority and are none of these models: not there yet, or misspelt.
    pub(crate) fn strangers<'a>(&'a self, models: &[ModelInfo]) -> Vec<&'a str> {
        let names = self.priorities.keys().map(String::as_str);
        names.filter(|name| !models.iter().any(|model| model.name == *name)).collect()
    }
}

impl Default for GpuConfig {
    fn default() -> Self {
        Self {
            models_dir: None,
            adapters: BTreeMap::new(),
            tuning_dir: None,
            store_dir: None,
            device: DeviceChoice::Auto,
            host_copies_bytes: 4 << 30,
            capacity_bytes: 4 << 30,
            threads: 0,
            kv_cache_bytes: 1 << 30,
            queue_bound: 128,
            active_chats: 16,
            priorities: BTreeMap::new(),
            residency_loads: 4,
            early_eviction: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use provost_types::ModelKind;

    use super::*;

    #[test]
    fn names_without_a_model_are_found() {
        let priorities = [("triage", Priority::Critical), ("triaje", Priority::Normal)];
        let priorities = priorities.map(|(name, priority)| (name.to_owned(), priority)).into();
        let config = GpuConfig { priorities, ..GpuConfig::default() };
        let model = ModelInfo {
            name: "triage".to_owned(),
            kind: ModelKind::Chat,
            architecture: "llama".to_owned(),
            context_tokens: 1,
            dimensions: 0,
            created: 0,
        };
        assert_eq!(config.strangers(&[model]), ["triaje"]);
    }
}
