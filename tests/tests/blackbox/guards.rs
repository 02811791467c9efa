//! Guards as callers, upstreams and auditors meet them: what a tool is given, what comes back, what is
//! streamed, and what the log keeps of it.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::{
    files::holding,
    harness::{Dev, Process, call_tool, modern, post, post_raw, text, until, upstream_yaml},
    inference::models_dir,
    ws_client::Socket,
};

pub(crate) const CARD: &str = "4111 1111 1111 1111";
pub(crate) const MASKED: &str = "**** **** **** 1111";

pub(crate) fn document(kind: &str, name: &str, spec: &str) -> String {
    format!("---\napiVersion: provost/v1\nkind: {kind}\nmetadata: {{ name: {name}, tenant: acme }}\nspec: {spec}\n")
}

pub(crate) fn guard(name: &str, spec: &str) -> String {
    document("Guard", name, spec)
}

/// A node with one agent `bot` who may use everything: `plugins` of the built-in echo, and a database in
/// the folder that is returned.
pub(crate) fn start(plugins: &[&str], more: &str, flags: &[&str]) -> (tempfile::TempDir, Dev) {
    let dir = tempfile::tempdir().unwrap();
    let database = dir.path().join("empty.db");
    // An empty file is a database without tables.
    std::fs::write(&database, "").unwrap();
    let mut yaml = yaml_of(plugins);
    let sql = json!({ "source": { "builtin": { "name": "sql", "config": { "url": format!("sqlite:{}", database.display()) } } } });
    yaml += &document("Plugin", "sql", &sql.to_string());
    (dir, Dev::start(Some(&(yaml + more)), flags))
}

/// A tenant with `bot`, who may do everything, and these plugins that echo.
pub(crate) fn yaml_of(plugins: &[&str]) -> String {
    let mut yaml = "apiVersion: provost/v1\nkind: Tenant\nmetadata: { name: acme }\nspec: {}\n".to_owned();
    yaml += &document("Principal", "bot", "{ type: agent }");
    yaml +=
        &document("Role", "all", "{ rules: [ { tools: ['*'], prompts: ['*'], resources: ['*'], models: ['*'] } ] }");
    yaml += &document("RoleBinding", "all", "{ role: all, principals: [bot] }");
    for plugin in plugins {
        yaml += &document("Plugin", plugin, "{ source: { builtin: { name: echo } } }");
    }
    yaml
}

pub(crate) fn echo(dev: &Dev, plugin: &str, text: &str) -> Value {
    call_tool(dev, &format!("{plugin}.echo"), json!({ "text": text }))
}

pub(crate) fn said(answer: &Value) -> &str {
    answer["result"]["content"][0]["text"].as_str().unwrap_or_default()
}

/// The last record of a tool in this phase.
pub(crate) fn record(dev: &Dev, tool: &str, phase: &str) -> Value {
    let output = dev.cli(&["audit", "query", "--json", "--tool", tool]);
    assert!(output.status.success(), "{}", text(&output));
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut records = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    records.rfind(|r| r["record"]["phase"] == phase).unwrap_or_else(|| panic!("no {phase} of {tool}"))
}

pub(crate) fn body(dev: &Dev, record: &Value) -> String {
    let index = record["index"].to_string();
    let output = dev.cli(&["audit", "show", &index, "--tenant", "acme", "--body"]);
    assert!(output.status.success(), "{}", text(&output));
    text(&output)
}

#[test]
fn arguments_are_masked_blocked_or_counted_before_a_tool_and_the_log_see_them() {
    let guards = [
        guard("mask", "{ tools: ['mask.*'], directions: [arguments], rules: [ { kinds: [card], action: mask } ] }"),
        guard("block", "{ tools: ['block.*'], rules: [ { kinds: [personal-data], action: block } ] }"),
        guard("try", "{ tools: ['try.*'], mode: report, rules: [ { kinds: [card], action: block } ] }"),
    ];
    let (_dir, mut dev) = start(&["mask", "block", "try", "free"], &guards.concat(), &[]);

    // What the echo says is what it was given.
    assert_eq!(said(&echo(&dev, "mask", &format!("pay {CARD} now"))), format!("pay {MASKED} now"));
    let intent = record(&dev, "mask.echo", "intent");
    assert_eq!(intent["record"]["guards"], json!(["card:mask=1"]), "{intent}");
    assert!(body(&dev, &intent).contains(MASKED), "{}", body(&dev, &intent));

    // Escaped digits are the same digits: raw bytes, because a JSON library would write them plainly.
    let escaped: String = CARD.chars().map(|c| format!("\\u{:04x}", u32::from(c))).collect();
    let twice = escaped.replace('\\', "\\\\");
    for form in [escaped, twice] {
        let request = modern("tools/call", json!({ "name": "mask.echo", "arguments": { "text": "HERE" } }));
        let raw = request.to_string().replace("HERE", &format!("pay {form} now"));
        let (_, answer) = raw_call(&dev, "mask.echo", raw.into_bytes());
        assert_eq!(said(&answer), format!("pay {MASKED} now"), "{answer}");
    }

    let answer = echo(&dev, "block", &format!("pay {CARD}"));
    assert_eq!(answer["error"]["code"], 4031, "{answer}");
    assert_eq!(answer["error"]["data"]["code"], "PV-GUARD-BLOCKED", "{answer}");
    assert!(!answer.to_string().contains("4111"), "{answer}");
    let denied = record(&dev, "block.echo", "denied");
    assert_eq!(denied["record"]["guards"], json!(["card:block=1"]), "{denied}");
    assert_eq!(denied["record"]["error.type"], "PV-GUARD-BLOCKED");
    assert!(body(&dev, &denied).contains("****"), "the refused form is kept without the value");
    assert!(said(&echo(&dev, "block", "nothing of the kind")).contains("nothing"));

    // A name that the schema refuses, and what stands beside the arguments, are in no record either.
    let mut odd = modern("tools/call", json!({ "name": "block.echo", "arguments": { "text": "x", CARD: 1 } }));
    odd["id"] = json!(CARD);
    odd["params"]["_meta"]["io.provost/workflow"] = json!(CARD);
    let (_, answer) = raw_call(&dev, "block.echo", odd.to_string().into_bytes());
    assert!(answer.to_string().contains("PV-ARGS-SCHEMA"), "{answer}");
    let records = text(&dev.cli(&["audit", "query", "--json", "--tool", "block.echo"]));
    assert!(records.contains("PV-ARGS-SCHEMA") && !records.contains(CARD), "{records}");

    // Report mode counts, in both directions, and changes nothing.
    assert_eq!(said(&echo(&dev, "try", CARD)), CARD);
    for phase in ["intent", "outcome"] {
        assert_eq!(record(&dev, "try.echo", phase)["record"]["guards"], json!(["card:report=1"]), "{phase}");
    }
    assert_eq!(said(&echo(&dev, "free", CARD)), CARD);
    assert!(record(&dev, "free.echo", "intent")["record"].get("guards").is_none());

    let metrics = get(dev.info["metrics"].as_str().unwrap());
    for line in [
        "provost_guard_findings_total{kind=\"card\",action=\"block\"} 3\n",
        "provost_guard_findings_total{kind=\"card\",action=\"mask\"} 3\n",
        "provost_guard_findings_total{kind=\"card\",action=\"report\"} 2\n",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
    assert!(dev.terminate().1, "{}", dev.stderr());
    let audit = dev.data.join("audit");
    let verify = dev.cli(&["audit", "verify", audit.to_str().unwrap()]);
    assert_eq!(verify.status.code(), Some(2), "{}", text(&verify));
}

#[test]
fn results_are_guarded_in_text_and_structure_and_over_every_transport() {
    let guards = [
        guard(
            "rows",
            "{ directions: [results], tools: ['sql.*'], rules: [ { kinds: [card, email], action: mask } ], paths: [ { path: '$.rows[*]', action: report } ] }",
        ),
        guard(
            "rows-block",
            "{ directions: [results], tools: ['sql.*'], rules: [ { kinds: [private-key, iban], action: block } ] }",
        ),
    ];
    let (_dir, dev) = start(&[], &guards.concat(), &[]);
    // The values are made by the query, so that only its result holds them.
    let query = json!({ "sql": "SELECT '4111 1111 ' || '1111 1111' AS text, 4111111111111110 + 1 AS number, 'ana@' || 'example.com' AS mail" });
    let check = |answer: &Value| {
        let row = &answer["result"]["structuredContent"]["rows"][0];
        assert_eq!(row, &json!([MASKED, "************1111", "***@*******.***"]), "{answer}");
        // The same rows once more as text: JSON there as well, in which a number stays a number.
        let text: Value = serde_json::from_str(said(answer)).unwrap_or_else(|e| panic!("{e}: {answer}"));
        assert_eq!(text["rows"][0], json!([MASKED, 9_999_999_999_991_111_u64, "***@*******.***"]), "{answer}");
        assert!(!answer.to_string().contains("4111"), "{answer}");
    };
    check(&call_tool(&dev, "sql.query", query.clone()));
    let outcome = record(&dev, "sql.query", "outcome");
    assert_eq!(outcome["record"]["guards"], json!(["card:mask=4", "email:mask=2", "path:report=2"]), "{outcome}");
    let kept = body(&dev, &outcome);
    assert!(kept.contains("1111") && !kept.contains("4111") && !kept.contains("ana@"), "{kept}");

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut socket = Socket::open(&dev, "").await;
        check(&socket.modern("tools/call", json!({ "name": "sql.query", "arguments": query })).await);
    });

    let iban = json!({ "sql": "SELECT 'DE89 3704 0044 ' || '0532 0130 00' AS account" });
    let answer = call_tool(&dev, "sql.query", iban);
    assert_eq!(answer["error"]["data"]["code"], "PV-GUARD-BLOCKED", "{answer}");
    assert!(answer.get("result").is_none() && !answer.to_string().contains("3704"), "{answer}");
    let outcome = record(&dev, "sql.query", "outcome");
    assert_eq!(outcome["record"]["error.type"], "PV-GUARD-BLOCKED", "it ran, and says how it ended: {outcome}");
    assert_eq!(outcome["record"]["guards"], json!(["iban:block=2", "path:report=2"]), "{outcome}");
    assert_eq!(outcome["record"]["decision"], "allow");

    // An error quotes what it was given.
    let wrong = json!({ "sql": "SELECT * FROM \"ana@example.com\"" });
    let answer = call_tool(&dev, "sql.query", wrong).to_string();
    assert!(answer.contains("***@*******.***") && !answer.contains("ana@"), "{answer}");
}

#[test]
fn an_upstream_sees_guarded_arguments_and_its_questions_prompts_and_resources_are_guarded_too() {
    let words = "{ dictionaries: [ { name: projects, words: [Bluebird, 'progress completed', 'tool execution'], action: mask } ] }";
    let secrets = "{ tools: [up.json_schema_2020_12_tool], paths: [ { path: '$..phone', action: mask }, { path: $.address.city, action: block } ] }";
    let cards = "{ rules: [ { kinds: [card, email], action: mask } ] }";
    let guards = [guard("words", words), guard("places", secrets), guard("cards", cards)].concat();
    let upstream = Process::everything("legacy");
    let dev = Dev::start(Some(&format!("{}{guards}", upstream_yaml(&upstream.url))), &[]);

    let prompt = modern(
        "prompts/get",
        json!({ "name": "up.test_prompt_with_arguments", "arguments": { "arg1": CARD, "arg2": "bluebird" } }),
    );
    let answer = post(dev.mcp(), dev.token(), &prompt).1.to_string();
    assert!(answer.contains(&format!("arg1='{MASKED}', arg2='********'")), "{answer}");

    // A URI is what policy decided about: it is not changed, so it does not pass. Nor is it in the record.
    let resource = modern("resources/read", json!({ "uri": "test://template/4111111111111111/data" }));
    let answer = post(dev.mcp(), dev.token(), &resource).1;
    assert_eq!(answer["error"]["data"]["code"], "PV-GUARD-BLOCKED", "{answer}");
    let all = text(&dev.cli(&["audit", "query", "--json"]));
    assert!(all.contains("test://template/************1111/data") && !all.contains("4111111111111111"), "{all}");

    let person = |address: Value| json!({ "name": "Ana", "phone": "none of yours", "email": "ana@example.com", "address": address });
    let answer = call_tool(&dev, "up.json_schema_2020_12_tool", person(json!({ "street": "Bluebird 1" })));
    let given: Value = serde_json::from_str(said(&answer)).unwrap_or_else(|e| panic!("{e}: {answer}"));
    assert_eq!(
        given,
        json!({ "name": "Ana", "phone": "[masked]", "email": "***@*******.***", "address": { "street": "******** 1" } })
    );
    let answer = call_tool(&dev, "up.json_schema_2020_12_tool", person(json!({ "city": "Bonn" })));
    assert_eq!(answer["error"]["data"]["code"], "PV-GUARD-BLOCKED", "{answer}");

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut socket = Socket::legacy(&dev, "", json!({ "elicitation": {} })).await;
        // Log messages on their way.
        let answer =
            socket.request("tools/call", json!({ "name": "up.test_tool_with_logging", "arguments": {} })).await;
        assert!(answer["result"].is_object(), "{answer}");
        let logs: Vec<String> = std::mem::take(&mut socket.others).iter().map(Value::to_string).collect();
        assert!(logs.iter().any(|l| l.contains("**** *********")), "{logs:?}");
        assert!(!logs.iter().any(|l| l.to_lowercase().contains("tool execution")), "{logs:?}");
        // A question, and its answer.
        let ask = json!({ "name": "up.test_elicitation", "arguments": { "message": "Who is ana@example.com?" } });
        let id = socket.begin("tools/call", ask).await;
        let question = socket.until(|m| m["method"] == "elicitation/create").await;
        assert_eq!(question["params"]["message"], "Who is ***@*******.***?", "{question}");
        let content = json!({ "username": "bluebird", "email": "bob@example.com" });
        let answer =
            json!({ "jsonrpc": "2.0", "id": question["id"], "result": { "action": "accept", "content": content } });
        socket.send(answer).await;
        let answer = socket.answer(id).await.to_string();
        assert!(answer.contains("********") && !answer.contains("bluebird") && !answer.contains("bob@"), "{answer}");
    });
    let outcome = record(&dev, "up.test_elicitation", "outcome");
    let guards = outcome["record"]["guards"].to_string();
    assert!(guards.contains("email:mask=") && guards.contains("word:mask="), "{outcome}");
    assert_eq!(holding(&dev.data.join("audit"), "bob@example.com"), Vec::<PathBuf>::new());
}

#[test]
fn a_streamed_answer_is_guarded_over_the_borders_of_its_pieces() {
    let models = models_dir();
    let (_dir, dev) = start(&[], "", &["--models", models.path().to_str().unwrap()]);
    let body = |stream: bool, seed: u64| {
        json!({ "model": "tiny-chat", "max_tokens": 48, "temperature": 1, "seed": seed, "stream": stream,
                "messages": [{ "role": "user", "content": "hello" }] })
    };
    // The model has learnt nothing; with one of these seeds it says something that a dictionary can hold and
    // that no piece holds by itself.
    let found = (1..40).find_map(|seed| {
        let pieces = chat(&dev, &body(true, seed));
        let whole = pieces.concat();
        phrase(&whole, &pieces).map(|phrase| (seed, whole, phrase))
    });
    let (seed, whole, phrase) = found.expect("no phrase over a border");
    let ask = |stream| body(stream, seed);
    let spec = |action: &str| {
        let words = json!([{ "name": "said", "words": [phrase], "action": action }]);
        guard("said", &json!({ "tools": ["tiny-chat"], "directions": ["results"], "dictionaries": words }).to_string())
    };
    let apply = |action: &str| {
        let file = dev.data.join("guard.yaml");
        std::fs::write(&file, spec(action)).unwrap();
        let applied = dev.cli(&["apply", "-f", file.to_str().unwrap()]);
        assert!(applied.status.success(), "{}", text(&applied));
    };
    apply("mask");
    let masked = until(|| {
        let pieces = chat(&dev, &ask(true)).concat();
        (pieces != whole).then_some(pieces)
    });
    assert_eq!(masked.len(), whole.len(), "{masked}");
    assert!(!masked.to_lowercase().contains(&phrase.to_lowercase()), "{phrase:?} is in {masked:?}");
    let headers = [("authorization".to_owned(), format!("Bearer {}", dev.token()))];
    let url = format!("{}/v1/chat/completions", dev.base());
    let (_, answer) = post_raw(&url, &headers, ask(false).to_string().into_bytes());
    assert_eq!(answer["choices"][0]["message"]["content"], masked.as_str(), "{answer}");

    // Tokens one by one would tell what is masked.
    let mut likely = ask(false);
    likely["logprobs"] = json!(true);
    let (status, answer) = post_raw(&url, &headers, likely.to_string().into_bytes());
    assert_eq!((status, &answer["error"]["code"]), (400, &json!("PV-OPENAI-BODY")), "{answer}");
    assert!(!answer.to_string().contains(&phrase), "{answer}");

    apply("block");
    let (_, answer) = until(|| {
        let (status, answer) = post_raw(&url, &headers, ask(false).to_string().into_bytes());
        (status == 403).then_some((status, answer))
    });
    assert_eq!(answer["error"]["code"], "PV-GUARD-BLOCKED", "{answer}");
    let pieces = chat(&dev, &ask(true)).concat();
    assert!(whole.starts_with(&pieces) && !pieces.contains(&phrase), "{pieces:?}");
}

#[test]
fn a_completion_is_guarded_whole_and_is_not_streamed_past_a_guard() {
    let models = models_dir();
    let (_dir, dev) = start(&[], "", &["--models", models.path().to_str().unwrap()]);
    let headers = [("authorization".to_owned(), format!("Bearer {}", dev.token()))];
    let url = format!("{}/v1/completions", dev.base());
    let ask = |body: &Value| post_raw(&url, &headers, body.to_string().into_bytes());
    let body =
        |seed: u64| json!({ "model": "tiny-chat", "prompt": "once", "max_tokens": 48, "temperature": 1, "seed": seed });
    let found = (1..40).find_map(|seed| {
        let (status, answer) = ask(&body(seed));
        assert_eq!(status, 200, "{answer}");
        let whole = answer["choices"][0]["text"].as_str().unwrap().to_owned();
        phrase(&whole, &[]).map(|phrase| (seed, whole, phrase))
    });
    let (seed, whole, phrase) = found.expect("no phrase");
    let words = json!([{ "name": "said", "words": [phrase], "action": "mask" }]);
    let spec = json!({ "tools": ["tiny-chat"], "directions": ["results"], "dictionaries": words });
    let file = dev.data.join("guard.yaml");
    std::fs::write(&file, guard("said", &spec.to_string())).unwrap();
    let applied = dev.cli(&["apply", "-f", file.to_str().unwrap()]);
    assert!(applied.status.success(), "{}", text(&applied));
    let masked = until(|| {
        let (_, answer) = ask(&body(seed));
        let said = answer["choices"][0]["text"].as_str().unwrap_or_default().to_owned();
        (said != whole).then_some(said)
    });
    assert_eq!(masked.len(), whole.len(), "{masked}");
    assert!(!masked.to_lowercase().contains(&phrase.to_lowercase()), "{phrase:?} is in {masked:?}");
    for (member, value) in [("stream", json!(true)), ("logprobs", json!(2))] {
        let mut asked = body(seed);
        asked[member] = value;
        let (status, answer) = ask(&asked);
        assert_eq!((status, &answer["error"]["code"]), (400, &json!("PV-OPENAI-BODY")), "{member}: {answer}");
        assert!(!answer.to_string().contains(&phrase), "{answer}");
    }
}

/// What two or more pieces say together: one to three whole words, as a dictionary can hold them.
pub(crate) fn phrase(whole: &str, pieces: &[String]) -> Option<String> {
    let is_letter = |at: usize| whole[at..].chars().next().is_some_and(char::is_alphanumeric);
    let places: Vec<usize> = whole.char_indices().map(|(at, _)| at).collect();
    let places = places.as_slice();
    let edges = |begin: bool| {
        places.iter().enumerate().filter(move |(i, at)| {
            let before = i.checked_sub(1).is_some_and(|i| is_letter(places[i]));
            is_letter(**at) == begin && before != begin
        })
    };
    let begins: Vec<usize> = edges(true).map(|(_, at)| *at).collect();
    let ends: Vec<usize> = edges(false).map(|(_, at)| *at).chain([whole.len()]).collect();
    let phrases = begins.iter().flat_map(|b| ends.iter().filter(move |e| *e > b).take(3).map(move |e| &whole[*b..*e]));
    let plain = |c: char| c.is_ascii() && !c.is_control() && !matches!(c, '"' | '\\');
    let mut good = phrases.filter(|p| (2..=128).contains(&p.len()) && p.chars().all(plain));
    good.find(|p| !pieces.iter().any(|piece| piece.contains(*p))).map(str::to_owned)
}

#[test]
fn arguments_of_calls_are_guarded_whole_and_streamed() {
    let models = models_dir();
    let words = json!([{ "name": "said", "words": ["grey heron"], "action": "mask" }]);
    let spec = json!({ "tools": ["tiny-chat"], "directions": ["results"], "dictionaries": words });
    let said = guard("said", &spec.to_string());
    let (_dir, dev) = start(&[], &said, &["--models", models.path().to_str().unwrap()]);
    let headers = [("authorization".to_owned(), format!("Bearer {}", dev.token()))];
    let url = format!("{}/v1/chat/completions", dev.base());
    let (_, answer) = post_raw(&url, &headers, spotting("grey heron", false).to_string().into_bytes());
    let choice = &answer["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls", "{answer}");
    let whole = choice["message"]["tool_calls"][0]["function"]["arguments"].as_str().unwrap();
    let masked: Value = serde_json::from_str(whole).unwrap();
    assert!(masked["animal"].as_str().unwrap().starts_with("****"), "{masked}");
    assert_eq!(arguments(&dev, &spotting("grey heron", true)), whole);
    let outcome = record(&dev, "tiny-chat", "outcome");
    let kept = body(&dev, &outcome);
    assert!(kept.contains("****") && !kept.contains("grey heron"), "{kept}");
    // What no guard minds leaves as it is.
    let free = arguments(&dev, &spotting("white stork", true));
    assert_eq!(serde_json::from_str::<Value>(&free).unwrap(), json!({ "animal": "white stork" }));
}

/// Has the model call a function with this word.
pub(crate) fn spotting(word: &str, stream: bool) -> Value {
    let parameters = json!({
        "type": "object", "properties": { "animal": { "enum": [word] } }, "required": ["animal"],
        "additionalProperties": false,
    });
    json!({ "model": "tiny-chat", "max_tokens": 200, "temperature": 1, "seed": 7, "stream": stream,
            "messages": [{ "role": "user", "content": "What do you see?" }],
            "tools": [{ "type": "function", "function": { "name": "spot", "parameters": parameters } }],
            "tool_choice": { "type": "function", "function": { "name": "spot" } } })
}

/// The arguments of the calls of a streamed answer.
pub(crate) fn arguments(dev: &Dev, body: &Value) -> String {
    let arguments = "/choices/0/delta/tool_calls/0/function/arguments";
    chunks(dev, body).iter().filter_map(|chunk| chunk.pointer(arguments)?.as_str()).collect()
}

/// The pieces of a streamed answer.
pub(crate) fn chat(dev: &Dev, body: &Value) -> Vec<String> {
    chunks(dev, body)
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().map(str::to_owned))
        .filter(|piece| !piece.is_empty())
        .collect()
}

fn chunks(dev: &Dev, body: &Value) -> Vec<Value> {
    let url = format!("{}/v1/chat/completions", dev.base());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let text = runtime.block_on(async {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        client.post(url).bearer_auth(dev.token()).json(body).send().await.unwrap().text().await.unwrap()
    });
    text.lines().filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok()).collect()
}

fn raw_call(dev: &Dev, tool: &str, body: Vec<u8>) -> (u16, Value) {
    let headers = [
        ("authorization", format!("Bearer {}", dev.token())),
        ("mcp-protocol-version", "2026-07-28".to_owned()),
        ("mcp-method", "tools/call".to_owned()),
        ("mcp-name", tool.to_owned()),
    ];
    post_raw(dev.mcp(), &headers.map(|(name, value)| (name.to_owned(), value)), body)
}

fn get(url: &str) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        client.get(url).send().await.unwrap().text().await.unwrap()
    })
}

#[test]
fn a_guard_that_is_wrong_is_refused_with_its_place() {
    let (_dir, dev) = start(&["echo"], "", &[]);
    let file = dev.data.join("guard.yaml");
    for (spec, said) in [
        ("{ rules: [ { kinds: [credit-card], action: mask } ] }", "openai-key"),
        ("{ rules: [ { kinds: [card], action: hide } ] }", "report"),
        ("{ rules: [ { kinds: [card], action: mask } ], mood: bad }", "spec.mood"),
        ("{ paths: [ { path: 'customer.ssn', action: mask } ] }", "$.customer.ssn"),
        ("{ principals: [nobody], rules: [ { kinds: [card], action: mask } ] }", "spec.principals[0]"),
        ("{}", "protects nothing"),
    ] {
        std::fs::write(&file, guard("g", spec)).unwrap();
        let refused = dev.cli(&["apply", "-f", file.to_str().unwrap()]);
        assert_eq!(refused.status.code(), Some(1), "{spec} was taken");
        assert!(text(&refused).contains(said), "{spec}: {}", text(&refused));
        assert!(text(&refused).contains("guard.yaml:"), "{spec}: {}", text(&refused));
    }
    std::fs::write(&file, guard("g", "{ rules: [ { kinds: [secrets], action: block } ] }")).unwrap();
    assert!(dev.cli(&["apply", "-f", file.to_str().unwrap()]).status.success());
    let shown = text(&dev.cli(&["get", "Guard", "g", "-o", "yaml"]));
    assert!(shown.contains("kinds") && shown.contains("secrets"), "{shown}");
    let diff = dev.cli(&["diff", "-f", file.to_str().unwrap()]);
    assert!(diff.status.success(), "{}", text(&diff));
    assert!(text(&dev.cli(&["explain", "Guard"])).contains("dictionaries"));
}
