//! `provost finetune`: killed in the middle, gone on with, and its result served as a model of its own.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::{
    harness::{Dev, binary, text, until},
    inference::{models_dir, openai},
};

const YAML: &str = "apiVersion: provost/v1\nkind: Tenant\nmetadata: { name: acme }\nspec: {}\n---\n\
apiVersion: provost/v1\nkind: Principal\nmetadata: { name: bot, tenant: acme }\nspec: {}\n---\n\
apiVersion: provost/v1\nkind: Role\nmetadata: { name: ai, tenant: acme }\n\
spec: { rules: [ { tools: ['ai.*'], models: ['tiny-chat', 'tuned'] } ] }\n---\n\
apiVersion: provost/v1\nkind: RoleBinding\nmetadata: { name: ai, tenant: acme }\n\
spec: { role: ai, principals: [bot] }\n";

fn conversation(question: &str, answer: &str) -> String {
    let messages = json!([{ "role": "user", "content": question }, { "role": "assistant", "content": answer }]);
    format!("{}\n", json!({ "messages": messages }))
}

fn finetune(model: &Path, data: &Path, out: &Path, flags: &[&str]) -> Command {
    let mut command = Command::new(binary("provost"));
    command.arg("finetune").arg("--model").arg(model).arg("--data").arg(data).arg("--out").arg(out);
    command.args(["--checkpoint-every", "5", "--lr", "0.005", "--batch", "2"]).args(flags).stdin(Stdio::null());
    command
}

#[test]
fn a_training_that_was_killed_goes_on_and_its_result_is_served() {
    let (models, work) = (models_dir(), tempfile::tempdir().unwrap());
    let (model, data, out) =
        (models.path().join("tiny-chat"), work.path().join("chats.jsonl"), work.path().join("out"));
    fs::write(&data, conversation("hello", "good day") + &conversation("bye", "so long")).unwrap();

    let mut killed = finetune(&model, &data, &out, &["--json", "--steps", "100000"]);
    let mut killed = killed.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut last = 0;
    for line in BufReader::new(killed.stdout.take().unwrap()).lines() {
        // The last one may be cut off. The training may be ahead of who reads it.
        let Ok(step) = serde_json::from_str::<Value>(&line.unwrap()) else { break };
        assert!(step["loss"].as_f64().unwrap() > 0.0 && step["tokens_per_second"].as_f64().unwrap() > 0.0, "{step}");
        last = step["step"].as_u64().unwrap();
        if last == 12 {
            killed.kill().unwrap();
        }
    }
    assert!(!killed.wait().unwrap().success());
    assert!(!out.join("adapter_config.json").exists());

    let steps = last + 48;
    let output = finetune(&model, &data, &out, &["--json", "--steps", &steps.to_string()]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let lines = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let result = lines.last().unwrap();
    let resumed = result["resumed_from"].as_u64().unwrap();
    assert!(resumed >= 10 && resumed.is_multiple_of(5), "{result}");
    assert_eq!((&result["is_complete"], &result["steps"]), (&json!(true), &json!(steps)), "{result}");
    assert_eq!(lines[0]["step"], resumed + 1);

    let adapters = format!("tuned=tiny-chat:{}", out.display());
    let flags = ["--models", models.path().to_str().unwrap()];
    let dev = Dev::start_env(&work.path().join("dev"), Some(YAML), &flags, &[("PROVOST_GPU_ADAPTERS", &adapters)]);
    let ask = |model: &str| {
        let messages = json!([{ "role": "user", "content": "hello" }]);
        let body = json!({ "model": model, "max_tokens": 16, "temperature": 0, "messages": messages });
        let (status, answer) = openai(&dev, "chat/completions", &body);
        assert_eq!(status, 200, "{answer}");
        answer["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
    };
    let (base, tuned) = (ask("tiny-chat"), ask("tuned"));
    assert_ne!(base, tuned);
    assert_eq!(base, ask("tiny-chat"), "the base is what it was");
}

#[test]
fn a_node_carries_out_a_task_and_goes_on_with_it_after_its_own_death() {
    const STEPS: u64 = 150;
    let (models, work) = (models_dir(), tempfile::tempdir().unwrap());
    let (data, tasks) = (work.path().join("chats.jsonl"), work.path().join("tasks"));
    fs::write(&data, conversation("hello", "good day") + &conversation("bye", "so long")).unwrap();
    fs::create_dir(&tasks).unwrap();
    let start = || {
        let flags = ["--models", models.path().to_str().unwrap()];
        let env = [("PROVOST_GPU_TUNING_DIR", tasks.to_str().unwrap())];
        Dev::start_env(&work.path().join("dev"), Some(YAML), &flags, &env)
    };
    let follow = || {
        let mut command = Command::new(binary("provost"));
        command
            .args(["finetune", "--model", "tiny-chat", "--name", "first", "--data"])
            .arg(&data)
            .arg("--tasks")
            .arg(&tasks);
        command.args(["--json", "--batch", "2", "--checkpoint-every", "5", "--steps", &STEPS.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap()
    };
    let mut dev = start();
    let mut following = follow();
    for line in BufReader::new(following.stdout.take().unwrap()).lines() {
        let step: Value = serde_json::from_str(&line.unwrap()).unwrap();
        if step["step"] == 7 {
            dev.kill_9();
            break;
        }
    }
    following.kill().unwrap();
    following.wait().unwrap();
    let _dev = start();
    let output = follow().wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let lines = String::from_utf8(output.stdout).unwrap();
    let result: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    assert_eq!((&result["is_complete"], &result["steps"]), (&json!(true), &json!(STEPS)), "{result}");
    assert!(result["resumed_from"].as_u64().unwrap() >= 5, "{result}");
    assert!(tasks.join("first/adapter/adapter_config.json").is_file());
}

#[test]
fn tasks_of_nodes_are_looked_after_by_the_admin_api() {
    let (models, work) = (models_dir(), tempfile::tempdir().unwrap());
    let (data, tasks) = (work.path().join("chats.jsonl"), work.path().join("tasks"));
    fs::write(&data, conversation("hello", "good day")).unwrap();
    fs::create_dir(&tasks).unwrap();
    let flags = ["--models", models.path().to_str().unwrap()];
    let env = [("PROVOST_GPU_TUNING_DIR", tasks.to_str().unwrap())];
    let dev = Dev::start_env(&work.path().join("dev"), Some(YAML), &flags, &env);
    let said = |args: &[&str]| text(&dev.cli(args));
    assert!(said(&["finetune", "list"]).contains("no node has a task"));
    let mut command = Command::new(binary("provost"));
    command.args(["finetune", "--model", "tiny-chat", "--name", "endless", "--steps", "100000000", "--batch", "1"]);
    command.arg("--data").arg(&data).arg("--tasks").arg(&tasks).stdin(Stdio::null());
    let mut following = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let of_task = || {
        let output = dev.cli(&["finetune", "status", "endless", "--json"]);
        let all: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        all["nodes"][0]["tasks"][0].clone()
    };
    until(|| (of_task()["state"] == "running" && of_task()["step"].as_u64() > Some(0)).then_some(()));
    let listed = said(&["finetune", "list"]);
    assert!(listed.contains("endless") && listed.contains("tiny-chat") && listed.contains("of 100000000"), "{listed}");
    assert!(said(&["finetune", "cancel", "endless"]).contains("endless on dev: cancelled"));
    assert!(said(&["finetune", "status", "endless"]).contains("PV-TUNE-CANCELLED"));
    assert!(said(&["finetune", "cancel", "endless"]).contains("PV-TUNE-ENDED"));
    assert!(said(&["finetune", "cancel", "other"]).contains("PV-TUNE-NOT-FOUND"));
    assert!(said(&["finetune", "status", "other"]).contains("PV-TUNE-NOT-FOUND"));
    // Who follows it is told.
    let output = {
        assert!(!following.wait().unwrap().success());
        let mut text = String::new();
        std::io::Read::read_to_string(&mut following.stderr.take().unwrap(), &mut text).unwrap();
        text
    };
    assert!(output.contains("PV-TUNE-CANCELLED"), "{output}");
    let recorded = said(&["audit", "query", "--json", "--limit", "1000"]);
    assert!(recorded.contains("tuning.cancel") && recorded.contains("Tuning/endless"), "{recorded}");
}

#[test]
fn what_cannot_be_trained_is_refused_and_says_why() {
    let (models, work) = (models_dir(), tempfile::tempdir().unwrap());
    let (model, data, out) =
        (models.path().join("tiny-chat"), work.path().join("chats.jsonl"), work.path().join("out"));
    fs::write(&data, conversation("hello", "good day") + "{\"messages\": []}\n").unwrap();
    let output = finetune(&model, &data, &out, &[]).output().unwrap();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("PV-TUNE-DATA: 1 lines cannot be used") && said.contains("line 2: "), "{said}");
    assert!(!out.exists());
    let output = finetune(&model, &data, &out, &["--rank", "0"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains("PV-TUNE-SETTINGS"), "{}", text(&output));
    let output = finetune(&work.path().join("gone"), &data, &out, &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("PV-MODEL-UNREADABLE"), "{}", text(&output));
}
