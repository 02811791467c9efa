//! Models on the CPU, by the OpenAI-compatible API and as MCP tools.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

use crate::{
    harness::{Dev, binary, call_tool, post_raw, root, until},
    observability::{metrics, sample},
};

pub fn models_dir() -> tempfile::TempDir {
    models_of(&["tiny-chat"])
}

/// A directory with these models of the fixtures.
pub fn models_of(names: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in names {
        let model = dir.path().join(name);
        std::fs::create_dir(&model).unwrap();
        for entry in std::fs::read_dir(fixtures().join(name)).unwrap() {
            let entry = entry.unwrap();
            if entry.path().is_file() {
                std::fs::copy(entry.path(), model.join(entry.file_name())).unwrap();
            }
        }
    }
    dir
}

/// Writes the embedding model `tiny-bert` into a directory of models: BERT's shape, one layer, vectors of 32 numbers, arbitrary
/// weights, and the vocabulary of bytes of `tiny-chat`.
pub fn write_bert(models: &Path) {
    const HIDDEN: usize = 32;
    const WIDE: usize = 64;
    const CONTEXT: usize = 256;
    let folder = models.join("tiny-bert");
    std::fs::create_dir(&folder).unwrap();
    let config = json!({ "model_type": "bert", "vocab_size": 256, "hidden_size": HIDDEN, "intermediate_size": WIDE,
        "num_hidden_layers": 1, "num_attention_heads": 4, "max_position_embeddings": CONTEXT, "type_vocab_size": 2,
        "hidden_act": "gelu" });
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    std::fs::copy(fixtures().join("tiny-chat/tokenizer.json"), folder.join("tokenizer.json")).unwrap();

    let mut shapes: Vec<(String, Vec<usize>)> = Vec::new();
    for (name, rows) in [("word", 256), ("position", CONTEXT), ("token_type", 2)] {
        shapes.push((format!("embeddings.{name}_embeddings.weight"), vec![rows, HIDDEN]));
    }
    for (name, inputs, outputs) in [
        ("attention.self.query", HIDDEN, HIDDEN),
        ("attention.self.key", HIDDEN, HIDDEN),
        ("attention.self.value", HIDDEN, HIDDEN),
        ("attention.output.dense", HIDDEN, HIDDEN),
        ("intermediate.dense", HIDDEN, WIDE),
        ("output.dense", WIDE, HIDDEN),
    ] {
        shapes.push((format!("encoder.layer.0.{name}.weight"), vec![outputs, inputs]));
        shapes.push((format!("encoder.layer.0.{name}.bias"), vec![outputs]));
    }
    for norm in ["embeddings", "encoder.layer.0.attention.output", "encoder.layer.0.output"] {
        shapes.push((format!("{norm}.LayerNorm.weight"), vec![HIDDEN]));
        shapes.push((format!("{norm}.LayerNorm.bias"), vec![HIDDEN]));
    }
    std::fs::write(folder.join("model.safetensors"), safetensors(&shapes)).unwrap();
}

/// Tensors of arbitrary numbers as a file of weights: <https://huggingface.co/docs/safetensors>.
fn safetensors(shapes: &[(String, Vec<usize>)]) -> Vec<u8> {
    let (mut header, mut weights) = (serde_json::Map::new(), Vec::<u8>::new());
    for (seed, (name, shape)) in shapes.iter().enumerate() {
        let begins = weights.len();
        for i in 0..shape.iter().product::<usize>() {
            let number = ((i * 7919 + seed * 104_729) % 1000) as f32 / 2000.0 - 0.25;
            weights.extend(number.to_le_bytes());
        }
        let place = json!({ "dtype": "F32", "shape": shape, "data_offsets": [begins, weights.len()] });
        header.insert(name.clone(), place);
    }
    // Weights begin at a multiple of eight bytes.
    let mut header = Value::from(header).to_string();
    let missing = header.len().next_multiple_of(8) - header.len();
    header.push_str(&" ".repeat(missing));
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.into_bytes());
    file.extend(weights);
    file
}

/// Where models and recordings of tests are.
pub fn fixtures() -> PathBuf {
    root().join("gpu-node/infer/tests/fixtures")
}

const YAML: &str = "apiVersion: provost/v1\nkind: Tenant\nmetadata: { name: acme }\nspec: {}\n---\n\
apiVersion: provost/v1\nkind: Principal\nmetadata: { name: bot, tenant: acme }\nspec: {}\n---\n\
apiVersion: provost/v1\nkind: Role\nmetadata: { name: ai, tenant: acme }\n\
spec: { rules: [ { tools: ['ai.*'], models: ['tiny-chat', 'tiny-bert', 'tiny-whisper'] } ] }\n---\n\
apiVersion: provost/v1\nkind: RoleBinding\nmetadata: { name: ai, tenant: acme }\n\
spec: { role: ai, principals: [bot] }\n---\n\
apiVersion: provost/v1\nkind: Plugin\nmetadata: { name: ai, tenant: acme }\n\
spec: { source: { builtin: { name: inference } } }\n";

pub fn openai(dev: &Dev, path: &str, body: &Value) -> (u16, Value) {
    let headers = [("authorization".to_owned(), format!("Bearer {}", dev.token()))];
    post_raw(&format!("{}/v1/{path}", dev.base()), &headers, body.to_string().into_bytes())
}

/// Threads of a process that compute.
#[cfg(target_os = "linux")]
fn computing(pid: u32) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let name = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
    tasks.map(name).filter(|name| name.starts_with("gpu-compute")).count()
}

#[cfg(target_os = "linux")]
#[test]
fn as_many_threads_compute_as_were_asked_for_or_the_process_may_use() {
    const RAYON: &str = "RAYON_NUM_THREADS";
    let available = std::thread::available_parallelism().unwrap().get();
    // What runs this test may have set the variable: an empty one is none.
    let table: [(&[(&str, &str)], usize); 3] = [
        (&[(RAYON, ""), ("PROVOST_GPU_THREADS", "3")], 3),
        (&[(RAYON, "2"), ("PROVOST_GPU_THREADS", "3")], 2),
        (&[(RAYON, "")], available),
    ];
    for (env, expect) in table {
        let dir = tempfile::tempdir().unwrap();
        let dev = Dev::start_env(&dir.path().join("data"), Some(YAML), &[], env);
        let pid = dev.child.id();
        let began = std::time::Instant::now();
        while computing(pid) != expect {
            assert!(began.elapsed().as_secs() < 30, "{env:?}: {} threads, not {expect}", computing(pid));
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
}

#[test]
fn the_device_of_the_command_line_holds_and_one_that_cannot_be_used_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    for (device, code, says) in [("cuda:4096", 1, "PV-GPU-DEVICE"), ("gpu", 2, "PV-CLI-USAGE")] {
        let mut command = Command::new(binary("provost"));
        command.args(["dev", "--http", "127.0.0.1:0", "--device", device, "--data-dir"]).arg(dir.path().join("no"));
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(code) && said.contains(says), "{device}: {:?}: {said}", output.status);
    }
    let env = [("PROVOST_GPU_DEVICE", "cuda:4096")];
    drop(Dev::start_env(&dir.path().join("data"), Some(YAML), &["--device", "cpu"], &env));
}

#[test]
fn chat_answers_streams_and_is_governed() {
    let models = models_dir();
    let dev = Dev::start(Some(YAML), &["--models", models.path().to_str().unwrap()]);
    let ask = |model: &str| {
        json!({ "model": model, "max_tokens": 8, "temperature": 0, "seed": 1,
                "messages": [{ "role": "user", "content": "hello" }] })
    };
    let (status, answer) = openai(&dev, "chat/completions", &ask("tiny-chat"));
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["object"], "chat.completion");
    assert!(answer["usage"]["completion_tokens"].as_u64().unwrap() > 0, "{answer}");
    let whole = answer["choices"][0]["message"]["content"].as_str().unwrap().to_owned();

    let mut streamed = ask("tiny-chat");
    streamed["stream"] = json!(true);
    let (status, text) = openai_text(&dev, "chat/completions", &streamed);
    assert_eq!(status, 200, "{text}");
    let parts: String = text
        .lines()
        .filter_map(|l| l.strip_prefix("data: "))
        .filter(|l| *l != "[DONE]")
        .filter_map(|l| serde_json::from_str::<Value>(l).ok())
        .filter_map(|v| v["choices"][0]["delta"]["content"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(parts, whole, "the stream says something else than the whole answer");
    assert!(text.trim_end().ends_with("data: [DONE]"), "{text}");

    // Default deny: a model outside the grant.
    let (status, answer) = openai(&dev, "chat/completions", &ask("other"));
    assert!(status == 403 || status == 404, "{status} {answer}");
    assert!(answer["error"]["message"].is_string(), "{answer}");

    let by_tool = |model: &str| {
        json!({ "model": model, "maxTokens": 8, "temperature": 0, "seed": 1,
                "messages": [{ "role": "user", "content": "hello" }] })
    };
    let tool = call_tool(&dev, "ai.chat", by_tool("tiny-chat"));
    assert!(tool["result"]["content"][0]["text"].is_string(), "{tool}");
    // The tool is granted, the model is not.
    let other = call_tool(&dev, "ai.chat", by_tool("other"));
    assert_eq!(other["error"]["code"], 4031, "{other}");
    let audit = dev.cli(&["audit", "query", "--json"]);
    let audit = String::from_utf8_lossy(&audit.stdout).into_owned();
    assert!(audit.contains("inference/chat"), "{audit}");
}

/// The memory for models is that of the configuration; what happens in it is in the metrics.
#[test]
fn models_have_the_memory_that_is_configured() {
    let models = models_dir();
    let dir = tempfile::tempdir().unwrap();
    let env = [("PROVOST_GPU_MEMORY_MIB", "1"), ("PROVOST_GPU_PRIORITY", "tiny-chat=critical")];
    let flags = ["--models", models.path().to_str().unwrap()];
    let dev = Dev::start_env(&dir.path().join("data"), Some(YAML), &flags, &env);
    let ask = |tokens: u32| {
        let messages = json!([{ "role": "user", "content": "hello" }]);
        openai(&dev, "chat/completions", &json!({ "model": "tiny-chat", "max_tokens": tokens, "messages": messages }))
    };
    let (status, answer) = ask(8);
    assert_eq!(status, 200, "{answer}");
    let (status, answer) = ask(4000);
    assert_ne!(status, 200);
    assert!(answer.to_string().contains("PV-GPU-MEMORY"), "{answer}");
    let text = metrics(&dev);
    assert_eq!(sample(&text, "provost_device_memory_bytes{purpose=\"capacity\"}"), 1_048_576.0);
    assert!(sample(&text, "provost_device_memory_bytes{purpose=\"weights\"}") > 400_000.0, "{text}");
    assert_eq!(sample(&text, "provost_model_loads_total"), 1.0, "{text}");
    assert_eq!(sample(&text, "provost_model_wait_seconds_count"), 1.0, "{text}");
    assert_eq!(sample(&text, "provost_model_refused_total{reason=\"too_large\"}"), 1.0, "{text}");
}

/// Chat, stream, likelihoods, JSON schema, tools, completions, embeddings, recordings, and clear refusals, by the client that OpenAI
/// publishes.
#[test]
fn the_official_openai_client_is_served() {
    let models = models_of(&["tiny-chat", "tiny-whisper"]);
    write_bert(models.path());
    let dev = Dev::start(Some(YAML), &["--models", models.path().to_str().unwrap()]);
    let output = Command::new("bash")
        .arg(root().join("tests/clients/run.sh"))
        .arg("openai")
        .env("URL", format!("{}/v1", dev.base()))
        .env("TOKEN", dev.token())
        .env("SOUND", fixtures().join("glide.wav"))
        .output()
        .unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}");
}

/// All of one tenant, at a model that has to be loaded first; a third of the clients leave after the first words.
#[test]
fn sixty_four_streams_at_once_are_served_and_those_that_are_left_leak_nothing() {
    let models = models_dir();
    let dev = Dev::start(Some(YAML), &["--models", models.path().to_str().unwrap()]);
    let (url, token) = (format!("{}/v1/chat/completions", dev.base()), dev.token().to_owned());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ends = runtime.block_on(async {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let streams = (0..64_u32).map(|number| {
            let leaves = number % 3 == 0;
            let tokens = if leaves { 2_000 } else { 24 };
            let body = json!({ "model": "tiny-chat", "max_tokens": tokens, "stream": true, "seed": number,
                "messages": [{ "role": "user", "content": format!("question {number}") }] });
            let request = client.post(&url).bearer_auth(&token).json(&body);
            async move {
                let mut response = request.send().await.unwrap();
                let status = response.status().as_u16();
                let mut said = Vec::new();
                while let Some(piece) = response.chunk().await.unwrap() {
                    said.extend_from_slice(&piece);
                    if leaves {
                        break;
                    }
                }
                let said = String::from_utf8_lossy(&said).into_owned();
                (status, leaves || said.trim_end().ends_with("data: [DONE]"), said)
            }
        });
        futures::future::join_all(streams).await
    });
    for (status, came_to_its_end, said) in &ends {
        assert!(*status == 200 && *came_to_its_end, "{status}: {said}");
    }
    let none = |text: &str| {
        let sample = |name: &str| sample(text, name);
        let of = |purpose: &str| sample(&format!("provost_device_memory_bytes{{purpose=\"{purpose}\"}}"));
        let idle = sample("provost_model_running") == 0.0 && sample("provost_model_waiting") == 0.0;
        idle && of("reserved") == of("kv_cache")
    };
    until(|| none(&metrics(&dev)).then_some(()));
    assert_eq!(sample(&metrics(&dev), "provost_model_refused_total{reason=\"no_place\"}"), 0.0);
    let again = json!({ "model": "tiny-chat", "max_tokens": 3, "messages": [{ "role": "user", "content": "hello" }] });
    assert_eq!(openai(&dev, "chat/completions", &again).0, 200);
}

fn openai_text(dev: &Dev, path: &str, body: &Value) -> (u16, String) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let response =
            client.post(format!("{}/v1/{path}", dev.base())).bearer_auth(dev.token()).json(body).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    })
}
