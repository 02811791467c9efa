//! Tasks of fine-tuning on a node: they get the device alone, survive its end, and nobody is lost for them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use provost_gpu_serve::{AdapterModel, GpuNode, TaskFolder, TaskState, TuneSettings, TuneTask, TuningState};
use provost_types::{InferenceErrorKind, Metadata, Name, Resource, Revision, Snapshot};

use crate::common::{Models, chat, collect, until};
use crate::start_with;

fn data(folder: &Path) -> PathBuf {
    let file = folder.join("chats.jsonl");
    let line = |asked: &str, answer: &str| {
        let messages =
            serde_json::json!([{ "role": "user", "content": asked }, { "role": "assistant", "content": answer }]);
        format!("{}\n", serde_json::json!({ "messages": messages }))
    };
    std::fs::write(&file, line("colour?", "blue") + &line("number?", "seven")).unwrap();
    file
}

fn task(model: &str, steps: u64) -> TuneTask {
    let settings = TuneSettings { steps, batch: 2, checkpoint_every: 5, ..TuneSettings::default() };
    TuneTask { model: model.to_owned(), settings }
}

fn start(models: &Models, tasks: &Path) -> Arc<GpuNode> {
    start_with(models, |config| config.tuning_dir = Some(tasks.to_owned()))
}

/// Steps that were told.
fn steps(task: &TaskFolder) -> Vec<u64> {
    let told = std::fs::read_to_string(task.progress()).unwrap_or_default();
    // The last line may be in the making.
    let whole = told.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    whole.map(|step| step["step"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn a_task_has_the_device_alone_and_models_come_back() {
    let (models, folder) = (Models::new(&["tiny-chat"]), tempfile::tempdir().unwrap());
    let tasks = folder.path().join("tasks");
    std::fs::create_dir(&tasks).unwrap();
    let node = start(&models, &tasks);
    collect(&node, chat("tiny-chat", "hi", 3)).await.unwrap();
    let task = task("tiny-chat", 40).put(&tasks, "first", &data(folder.path())).unwrap();
    let refused = loop {
        if let Err(refused) = collect(&node, chat("tiny-chat", "hi", 1)).await {
            break refused;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    };
    assert_eq!(refused.kind, InferenceErrorKind::Busy, "{refused}");
    assert!(refused.message.contains("exclusive") && refused.retry_after_ms.is_some(), "{refused}");
    until("the task has ended", || task.state().unwrap() != TaskState::Open).await;
    let TaskState::Complete(tuned) = task.state().unwrap() else { panic!("{:?}", task.state()) };
    assert_eq!((tuned.steps, tuned.resumed_from, tuned.is_complete), (40, 0, true));
    assert_eq!(steps(&task), (1..=40).collect::<Vec<_>>());
    until("the model is back", || node.counts().reloads == 1).await;
    collect(&node, chat("tiny-chat", "hi", 3)).await.unwrap();

    // What came of it is a model as any other.
    let adapter = AdapterModel { base: "tiny-chat".to_owned(), path: task.adapter() };
    let node = start_with(&models, |config| config.adapters = [("tuned".to_owned(), adapter)].into());
    collect(&node, chat("tuned", "colour?", 8)).await.unwrap();
}

#[tokio::test]
async fn a_task_goes_on_when_the_node_is_started_again() {
    const STEPS: u64 = 150;
    let (models, folder) = (Models::new(&["tiny-chat"]), tempfile::tempdir().unwrap());
    let tasks = folder.path().join("tasks");
    std::fs::create_dir(&tasks).unwrap();
    let task = task("tiny-chat", STEPS).put(&tasks, "long", &data(folder.path())).unwrap();
    let node = start(&models, &tasks);
    until("it has begun", || steps(&task).len() >= 7).await;
    drop(node);
    let node = start(&models, &tasks);
    until("the task has ended", || task.state().unwrap() != TaskState::Open).await;
    let TaskState::Complete(tuned) = task.state().unwrap() else { panic!("{:?}", task.state()) };
    assert!(tuned.resumed_from >= 5 && tuned.resumed_from < STEPS, "{tuned:?}");
    assert_eq!((tuned.steps, steps(&task).last()), (STEPS, Some(&STEPS)));
    drop(node);
}

#[tokio::test]
async fn tasks_are_listed_and_one_that_runs_is_cancelled() {
    let (models, folder) = (Models::new(&["tiny-chat"]), tempfile::tempdir().unwrap());
    let tasks = folder.path().join("tasks");
    std::fs::create_dir(&tasks).unwrap();
    let node = start(&models, &tasks);
    assert!(node.tunings().await.unwrap().is_empty());
    let long = task("tiny-chat", 1_000_000).put(&tasks, "long", &data(folder.path())).unwrap();
    until("it has begun", || steps(&long).len() >= 3).await;
    let next = task("tiny-chat", 2).put(&tasks, "next", &data(folder.path())).unwrap();
    let all = node.tunings().await.unwrap();
    let told: Vec<_> = all.iter().map(|task| (task.name.as_str(), task.state, task.model.as_str())).collect();
    assert_eq!(
        told,
        [("long", TuningState::Running, "tiny-chat"), ("next", TuningState::Waiting, "tiny-chat")],
        "{all:?}"
    );
    assert!(all[0].step >= 3 && all[0].steps == 1_000_000 && all[0].loss.is_some(), "{all:?}");
    let cancelled = node.cancel_tuning("long").await.unwrap();
    assert_eq!(cancelled.state, TuningState::Failed);
    assert!(cancelled.reason.starts_with("PV-TUNE-CANCELLED"), "{cancelled:?}");
    // It lets go of the device, and the next one has it.
    until("the next task has ended", || next.state().unwrap() != TaskState::Open).await;
    assert!(matches!(long.state().unwrap(), TaskState::Failed(why) if why.starts_with("PV-TUNE-CANCELLED")));
    for (name, code) in [("long", "PV-TUNE-ENDED"), ("other", "PV-TUNE-NOT-FOUND"), ("../tasks", "PV-TUNE-NOT-FOUND")] {
        let refused = node.cancel_tuning(name).await.unwrap_err().to_string();
        assert!(refused.starts_with(code), "{name}: {refused}");
    }
    let served = async {
        while collect(&node, chat("tiny-chat", "hi", 1)).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), served).await.unwrap();
}

#[tokio::test]
async fn a_task_that_cannot_be_carried_out_ends_with_the_reason() {
    let (models, folder) = (Models::new(&["tiny-chat"]), tempfile::tempdir().unwrap());
    let tasks = folder.path().join("tasks");
    std::fs::create_dir(&tasks).unwrap();
    let bad = folder.path().join("bad.jsonl");
    std::fs::write(&bad, "{}\n").unwrap();
    let stranger = task("nobody", 1).put(&tasks, "stranger", &data(folder.path())).unwrap();
    let unread = task("tiny-chat", 1).put(&tasks, "unread", &bad).unwrap();
    let node = start(&models, &tasks);
    // Nothing else is declared: no model is coming.
    node.declare(&Snapshot::default());
    for (task, says) in [(stranger, "no such model"), (unread, "PV-TUNE-DATA: 1 lines")] {
        until("the task has ended", || task.state().unwrap() != TaskState::Open).await;
        let TaskState::Failed(why) = task.state().unwrap() else { panic!("{:?}", task.state()) };
        assert!(why.contains(says), "{why}");
    }
    let served = async {
        while collect(&node, chat("tiny-chat", "hi", 1)).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), served).await.unwrap();
}

#[tokio::test]
async fn a_task_waits_for_a_model_that_is_declared_after_the_start() {
    let (models, folder) = (Models::new(&["tiny-chat"]), tempfile::tempdir().unwrap());
    let tasks = folder.path().join("tasks");
    std::fs::create_dir(&tasks).unwrap();
    let task = task("declared", 2).put(&tasks, "early", &data(folder.path())).unwrap();
    let node = start(&Models::new(&[]), &tasks);
    // The node looks at it at once; it is told of its models some time later.
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_eq!(task.state().unwrap(), TaskState::Open);
    let path = models.path().join("tiny-chat");
    let spec = serde_json::from_value(serde_json::json!({ "Model": { "source": { "path": path } } })).unwrap();
    let metadata = Metadata { name: Name::new("declared").unwrap(), tenant: None, labels: Default::default() };
    let model = Resource { metadata, spec, created: Revision(1), modified: Revision(1) };
    let mut state = Snapshot::default();
    state.resources.insert(model.key(), Arc::new(model));
    node.declare(&state);
    until("the task has ended", || task.state().unwrap() != TaskState::Open).await;
    let ended = task.state().unwrap();
    assert!(matches!(ended, TaskState::Complete(tuned) if tuned.is_complete), "{ended:?}");
}
