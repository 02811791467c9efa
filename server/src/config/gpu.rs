//! `[gpu]`: what models compute on, the memory that they may take, and how much each of them matters.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use provost_gpu_serve::{AdapterModel, DeviceChoice, GpuConfig, ModelStore, Priority};
use serde::{Deserialize, Serialize, Serializer};

use crate::compute_threads::MAX_THREADS;

const MIB: u64 = 1 << 20;
/// The device, from the environment.
const DEVICE_VARIABLE: &str = "PROVOST_GPU_DEVICE";
/// What the host keeps of weights, from the environment.
const HOST_COPIES_VARIABLE: &str = "PROVOST_GPU_HOST_COPIES_MIB";
/// The memory, from the environment.
const MEMORY_VARIABLE: &str = "PROVOST_GPU_MEMORY_MIB";
/// How many threads compute, from the environment.
pub const THREADS_VARIABLE: &str = "PROVOST_GPU_THREADS";
/// What models matter, from the environment: `NAME=PRIORITY,…`.
const PRIORITY_VARIABLE: &str = "PROVOST_GPU_PRIORITY";
/// Where tasks of fine-tuning are looked for, from the environment.
const TUNING_VARIABLE: &str = "PROVOST_GPU_TUNING_DIR";
/// Whether models are copied from other GPU nodes, from the environment: `true` or `false`.
const FETCH_VARIABLE: &str = "PROVOST_GPU_FETCH_MODELS";
/// What copies leave free of the disk, from the environment.
const RESERVE_VARIABLE: &str = "PROVOST_GPU_DISK_RESERVE_MIB";
/// What copies leave free of the disk where nothing is said.
const DEFAULT_RESERVE_MIB: u64 = 4096;
/// Adapters, from the environment: `NAME=BASE:PATH,…`.
const ADAPTERS_VARIABLE: &str = "PROVOST_GPU_ADAPTERS";

/// `[gpu]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GpuFile {
    /// What models compute on: `cpu`, `cuda:NUMBER`, or `auto`: the first CUDA device that can be used, else the processor.
    /// Default `auto`. Change it where a machine has several devices, or where a device is for others.
    pub device: Option<String>,
    /// MiB of page-locked memory in which the machine keeps weights of a CUDA device, so that they come back without their files.
    /// Default 4096. Change it to what the machine can spare where models take turns.
    pub host_copies_mib: Option<u64>,
    /// MiB that models, their caches and what requests compute with may take together. Default 4096. Change it to what the
    /// machine can spare.
    pub memory_mib: Option<u64>,
    /// Threads that compute on the processor. Default: one for each processor that the process may use, with its affinity and
    /// the quota of its container. Lower it to leave processors to others, or where two of them share a core. Known before
    /// the rest of the file is: see `compute_threads`.
    pub threads: Option<usize>,
    /// How much models matter, by name. Default: all are normal.
    pub priority: BTreeMap<String, ModelPriority>,
    /// Models that are adapters (LoRA) over others, by name. Default: none.
    pub adapters: BTreeMap<String, AdapterSettings>,
    /// Where tasks of fine-tuning are looked for. Default: nowhere. Set it where the node may stop serving in order to train.
    pub tuning_dir: Option<PathBuf>,
    /// Whether a GPU node copies declared models that it lacks from other GPU nodes. Default true. Turn it off where a node
    /// is to have what is imported on it only.
    pub fetch_models: Option<bool>,
    /// MiB of the disk that such copies leave free. Default 4096. Raise it where something else writes much to the disk.
    pub disk_reserve_mib: Option<u64>,
}

/// A model that is another one with an adapter over its weights.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AdapterSettings {
    /// The name of a chat model, declared or of the models directory.
    pub base: String,
    /// The adapter's folder, with `adapter_config.json` and `adapter_model.safetensors`.
    pub adapter: PathBuf,
}

/// How much a model matters when memory is short.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
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

/// The same, complete and checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GpuSettings {
    /// What models compute on.
    #[serde(serialize_with = "as_text")]
    pub device: DeviceChoice,
    /// MiB of weights that the machine keeps for a CUDA device.
    pub host_copies_mib: u64,
    /// MiB that models may take.
    pub memory_mib: u64,
    /// Threads that compute on the processor; none: one for each that the process may use. They are set before a node
    /// starts, for all that computes in the process.
    pub threads: Option<usize>,
    /// Where tasks of fine-tuning are looked for.
    pub tuning_dir: Option<PathBuf>,
    /// How much models matter, by name.
    pub priority: BTreeMap<String, ModelPriority>,
    /// Models that are adapters, by name.
    pub adapters: BTreeMap<String, AdapterSettings>,
    /// Whether declared models are copied from other GPU nodes.
    pub fetch_models: bool,
    /// MiB of the disk that such copies leave free.
    pub disk_reserve_mib: u64,
}

impl Default for GpuSettings {
    fn default() -> Self {
        Self {
            device: DeviceChoice::default(),
            host_copies_mib: GpuConfig::default().host_copies_bytes / MIB,
            memory_mib: GpuConfig::default().capacity_bytes / MIB,
            threads: None,
            tuning_dir: None,
            priority: BTreeMap::new(),
            adapters: BTreeMap::new(),
            fetch_models: true,
            disk_reserve_mib: DEFAULT_RESERVE_MIB,
        }
    }
}

impl GpuSettings {
    /// What a node with the models of this directory, and of the store in its data directory, is told.
    pub fn node(&self, models_dir: Option<PathBuf>, data_dir: &Path) -> GpuConfig {
        let priorities = self.priority.iter().map(|(name, priority)| (name.clone(), (*priority).into())).collect();
        let adapters = self.adapters.iter().map(|(name, adapter)| (name.clone(), adapter.clone().into())).collect();
        let capacity_bytes = self.memory_mib.saturating_mul(MIB);
        let (device, host_copies_bytes) = (self.device, self.host_copies_mib.saturating_mul(MIB));
        let tuning_dir = self.tuning_dir.clone();
        let store_dir = Some(ModelStore::root_of(data_dir));
        GpuConfig {
            models_dir,
            store_dir,
            adapters,
            tuning_dir,
            device,
            host_copies_bytes,
            capacity_bytes,
            priorities,
            ..GpuConfig::default()
        }
    }
}

fn as_text<S: Serializer>(device: &DeviceChoice, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(device)
}

impl From<AdapterSettings> for AdapterModel {
    fn from(settings: AdapterSettings) -> Self {
        Self { base: settings.base, path: settings.adapter }
    }
}

impl From<ModelPriority> for Priority {
    fn from(priority: ModelPriority) -> Self {
        match priority {
            ModelPriority::Background => Self::Background,
            ModelPriority::Normal => Self::Normal,
            ModelPriority::Critical => Self::Critical,
        }
    }
}

/// Reads the environment over the file.
pub fn with_environment(
    file: &mut GpuFile,
    get: impl Fn(&str) -> Option<String>,
    say: &mut impl FnMut(&'static str, String),
) {
    if let Some(text) = get(MEMORY_VARIABLE) {
        match text.parse() {
            Ok(mib) => file.memory_mib = Some(mib),
            Err(_) => say("gpu.memory_mib", format!("{MEMORY_VARIABLE}=`{text}` is no number of MiB")),
        }
    }
    if let Some(text) = get(THREADS_VARIABLE) {
        match text.parse() {
            Ok(threads) => file.threads = Some(threads),
            Err(_) => say("gpu.threads", format!("{THREADS_VARIABLE}=`{text}` is no number of threads")),
        }
    }
    if let Some(text) = get(DEVICE_VARIABLE) {
        file.device = Some(text);
    }
    if let Some(text) = get(HOST_COPIES_VARIABLE) {
        match text.parse() {
            Ok(mib) => file.host_copies_mib = Some(mib),
            Err(_) => say("gpu.host_copies_mib", format!("{HOST_COPIES_VARIABLE}=`{text}` is no number of MiB")),
        }
    }
    if let Some(text) = get(TUNING_VARIABLE) {
        file.tuning_dir = Some(PathBuf::from(text)).filter(|path| !path.as_os_str().is_empty());
    }
    if let Some(text) = get(FETCH_VARIABLE) {
        match text.parse() {
            Ok(fetch) => file.fetch_models = Some(fetch),
            Err(_) => say("gpu.fetch_models", format!("{FETCH_VARIABLE}=`{text}`: write true or false")),
        }
    }
    if let Some(text) = get(RESERVE_VARIABLE) {
        match text.parse() {
            Ok(mib) => file.disk_reserve_mib = Some(mib),
            Err(_) => say("gpu.disk_reserve_mib", format!("{RESERVE_VARIABLE}=`{text}` is no number of MiB")),
        }
    }
    if let Some(text) = get(ADAPTERS_VARIABLE) {
        file.adapters.clear();
        for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            let read = entry.split_once('=').and_then(|(name, rest)| Some((name.trim(), rest.split_once(':')?)));
            match read {
                Some((name, (base, path))) => {
                    let adapter = AdapterSettings { base: base.trim().to_owned(), adapter: path.trim().into() };
                    file.adapters.insert(name.to_owned(), adapter);
                }
                None => say("gpu.adapters", format!("`{entry}` in {ADAPTERS_VARIABLE}: write NAME=BASE:FOLDER")),
            }
        }
    }
    if let Some(text) = get(PRIORITY_VARIABLE) {
        file.priority.clear();
        for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let read = pair.split_once('=').and_then(|(name, priority)| Some((name.trim(), of_text(priority.trim())?)));
            match read {
                Some((name, priority)) if !name.is_empty() => {
                    file.priority.insert(name.to_owned(), priority);
                }
                _ => {
                    let text = format!("`{pair}` in {PRIORITY_VARIABLE}: write NAME=background, normal or critical");
                    say("gpu.priority", text);
                }
            }
        }
    }
}

fn of_text(text: &str) -> Option<ModelPriority> {
    match text {
        "background" => Some(ModelPriority::Background),
        "normal" => Some(ModelPriority::Normal),
        "critical" => Some(ModelPriority::Critical),
        _ => None,
    }
}

/// Checks the section.
pub fn check(file: &GpuFile, say: &mut impl FnMut(&'static str, String)) -> GpuSettings {
    let default = GpuSettings::default();
    let memory_mib = file.memory_mib.unwrap_or(default.memory_mib);
    if memory_mib == 0 {
        say("gpu.memory_mib", "is 0: write how many MiB models may take".to_owned());
    }
    if let Some(threads) = file.threads.filter(|threads| !(1..=MAX_THREADS).contains(threads)) {
        say("gpu.threads", format!("is {threads}: write a number from 1 to {MAX_THREADS}, or leave it out"));
    }
    let device = match file.device.as_deref().map_or(Ok(default.device), str::parse) {
        Ok(device) => device,
        Err(problem) => {
            say("gpu.device", problem);
            default.device
        }
    };
    for (name, adapter) in &file.adapters {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if name.is_empty() || name.starts_with('.') || !name.chars().all(is_plain) {
            say("gpu.adapters", format!("`{name}` is no name of a model: write letters, digits, `.`, `_` and `-`"));
        }
        if adapter.base.is_empty() || adapter.adapter.as_os_str().is_empty() {
            say("gpu.adapters", format!("`{name}` needs the name of its base and the folder of its adapter"));
        }
        if file.adapters.contains_key(&adapter.base) {
            let text = format!("`{name}` is over `{}`, which is an adapter itself: name a model", adapter.base);
            say("gpu.adapters", text);
        }
    }
    GpuSettings {
        device,
        host_copies_mib: file.host_copies_mib.unwrap_or(default.host_copies_mib),
        memory_mib,
        threads: file.threads,
        tuning_dir: file.tuning_dir.clone(),
        priority: file.priority.clone(),
        adapters: file.adapters.clone(),
        fetch_models: file.fetch_models.unwrap_or(default.fetch_models),
        disk_reserve_mib: file.disk_reserve_mib.unwrap_or(default.disk_reserve_mib),
    }
}

/// The threads that a configuration file names, read before the rest of it is: what is wrong with the file is said when it is
/// checked.
pub fn threads_of(path: &Path) -> Option<usize> {
    let file: toml::Table = toml::from_str(&std::fs::read_to_string(path).ok()?).ok()?;
    usize::try_from(file.get("gpu")?.get("threads")?.as_integer()?).ok()
}

/// What a node that has no file, such as `provost dev`, is told by its environment.
pub fn of_environment() -> Result<GpuSettings, super::check::ConfigProblem> {
    let (mut file, mut problem) = (GpuFile::default(), None);
    let mut say = |key, message| problem = Some(super::check::ConfigProblem { key, message });
    with_environment(&mut file, |name| std::env::var(name).ok(), &mut say);
    let settings = check(&file, &mut say);
    problem.map_or(Ok(settings), Err)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(text: &str, environment: &[(&str, &str)]) -> Result<GpuConfig, Vec<&'static str>> {
        let mut file: GpuFile = toml::from_str(text).unwrap();
        let mut problems = Vec::new();
        let mut say = |key, _: String| problems.push(key);
        let get = |name: &str| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        with_environment(&mut file, get, &mut say);
        let settings = check(&file, &mut say);
        if problems.is_empty() {
            Ok(GpuConfig { store_dir: None, ..settings.node(None, Path::new("data")) })
        } else {
            Err(problems)
        }
    }

    #[test]
    fn memory_and_priorities_come_from_file_and_environment() {
        assert_eq!(read("", &[]).unwrap(), GpuConfig::default());
        let file = "memory_mib = 2\n[priority]\ntriage = 'critical'\nnightly = 'background'\n";
        let config = read(file, &[]).unwrap();
        assert_eq!(config.capacity_bytes, 2 << 20);
        assert_eq!(config.priorities["triage"], Priority::Critical);
        assert_eq!(config.priorities["nightly"], Priority::Background);
        let over = [(MEMORY_VARIABLE, "3"), (PRIORITY_VARIABLE, "triage=normal, other = critical")];
        let config = read(file, &over).unwrap();
        assert_eq!(config.capacity_bytes, 3 << 20);
        assert_eq!(config.priorities.len(), 2);
        assert_eq!(config.priorities["other"], Priority::Critical);
    }

    #[test]
    fn copies_are_made_unless_they_are_turned_off_and_leave_some_disk() {
        let read = |text: &str, environment: &[(&str, &str)]| {
            let (mut file, mut problems) = (toml::from_str::<GpuFile>(text).unwrap(), Vec::new());
            let mut say = |key, _: String| problems.push(key);
            let get =
                |name: &str| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
            with_environment(&mut file, get, &mut say);
            let settings = check(&file, &mut say);
            (settings.fetch_models, settings.disk_reserve_mib, problems)
        };
        assert_eq!(read("", &[]), (true, DEFAULT_RESERVE_MIB, vec![]));
        assert_eq!(read("fetch_models = false\ndisk_reserve_mib = 7\n", &[]), (false, 7, vec![]));
        let over = [(FETCH_VARIABLE, "false"), (RESERVE_VARIABLE, "8")];
        assert_eq!(read("disk_reserve_mib = 7\n", &over), (false, 8, vec![]));
        let wrong = [(FETCH_VARIABLE, "maybe"), (RESERVE_VARIABLE, "much")];
        assert_eq!(read("", &wrong).2, ["gpu.fetch_models", "gpu.disk_reserve_mib"]);
    }

    #[test]
    fn threads_come_from_file_and_environment_and_the_file_is_asked_before_it_is_checked() {
        let read = |text: &str, environment: Option<&str>| {
            let (mut file, mut problems) = (toml::from_str::<GpuFile>(text).unwrap(), Vec::new());
            let mut say = |key, _: String| problems.push(key);
            let get = |name: &str| environment.filter(|_| name == THREADS_VARIABLE).map(str::to_owned);
            with_environment(&mut file, get, &mut say);
            let threads = check(&file, &mut say).threads;
            (threads, problems)
        };
        assert_eq!(read("", None), (None, vec![]));
        assert_eq!(read("threads = 3\n", None), (Some(3), vec![]));
        assert_eq!(read("threads = 3\n", Some("4")), (Some(4), vec![]));
        for wrong in ["0", "1025", "many", "-1"] {
            assert_eq!(read("", Some(wrong)).1, ["gpu.threads"], "{wrong}");
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("provost.toml");
        let table = [
            ("[gpu]\nthreads = 3\n[unknown]\n", Some(3)),
            ("[gpu]\nthreads = 'x'\n", None),
            ("", None),
            ("no TOML", None),
        ];
        for (text, expect) in table {
            std::fs::write(&path, text).unwrap();
            assert_eq!(threads_of(&path), expect, "{text}");
        }
        assert_eq!(threads_of(&dir.path().join("none")), None);
    }

    #[test]
    fn the_device_comes_from_file_and_environment() {
        let file = "device = 'cuda:1'\nhost_copies_mib = 2\n";
        let config = read(file, &[]).unwrap();
        assert_eq!((config.device, config.host_copies_bytes), (DeviceChoice::Cuda(1), 2 << 20));
        let config = read(file, &[(DEVICE_VARIABLE, "cpu"), (HOST_COPIES_VARIABLE, "0")]).unwrap();
        assert_eq!((config.device, config.host_copies_bytes), (DeviceChoice::Cpu, 0));
        assert_eq!(read("device = 'gpu'\n", &[]).unwrap_err(), ["gpu.device"]);
        assert_eq!(
            read(file, &[(DEVICE_VARIABLE, "cuda"), (HOST_COPIES_VARIABLE, "-1")]).unwrap_err(),
            ["gpu.host_copies_mib", "gpu.device"]
        );
        let printed = toml::to_string(&check(&GpuFile::default(), &mut |_, _| ())).unwrap();
        assert!(printed.starts_with("device = \"auto\"\n"), "{printed}");
    }

    #[test]
    fn adapters_come_from_file_and_environment() {
        let file = "[adapters.support]\nbase = 'small'\nadapter = '/srv/support'\n";
        let config = read(file, &[]).unwrap();
        let support = AdapterModel { base: "small".to_owned(), path: "/srv/support".into() };
        assert_eq!(config.adapters, BTreeMap::from([("support".to_owned(), support.clone())]));
        let tuning = read("tuning_dir = '/srv/tuning'", &[]).unwrap().tuning_dir;
        assert_eq!((tuning, config.tuning_dir), (Some("/srv/tuning".into()), None));
        let config = read(file, &[(ADAPTERS_VARIABLE, "one=small:/srv/support, two = small:x:y")]).unwrap();
        assert_eq!(config.adapters["one"], support);
        assert_eq!(config.adapters["two"].path, PathBuf::from("x:y"));
        assert_eq!(config.adapters.len(), 2);
        for wrong in ["one", "one=small", "=small:x", "a b=small:x", "one=:x", "one=small:", "a=b:x,b=c:x"] {
            assert_eq!(read("", &[(ADAPTERS_VARIABLE, wrong)]).unwrap_err(), ["gpu.adapters"], "{wrong}");
        }
        assert!(toml::from_str::<GpuFile>("[adapters.support]\nbase = 'small'\n").is_err());
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(read("memory_mib = 0\n", &[]).unwrap_err(), ["gpu.memory_mib"]);
        assert_eq!(read("", &[(MEMORY_VARIABLE, "much")]).unwrap_err(), ["gpu.memory_mib"]);
        let wrong = [(PRIORITY_VARIABLE, "triage=high,triage,=critical")];
        assert_eq!(read("", &wrong).unwrap_err(), ["gpu.priority"; 3]);
        assert!(toml::from_str::<GpuFile>("priority = { triage = 'high' }\n").is_err());
        assert!(toml::from_str::<GpuFile>("memory = 1\n").is_err());
    }
}
