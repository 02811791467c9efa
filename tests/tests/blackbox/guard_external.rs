//! A guard of an operator's own, asked by gRPC: a real server here, a real node there.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use provost_wire::guard::{
    Allow, Block, CheckRequest, CheckResponse, Direction, Mask, Part, Replace, Span,
    check_response::Verdict,
    guard_server::{Guard, GuardServer},
};
use serde_json::{Value, json};
use tonic::{Request, Response, Status, transport::server::TcpIncoming};

use crate::{
    guards::{CARD, MASKED, arguments, body, chat, echo, guard, phrase, record, said, spotting, start},
    harness::{Dev, call_tool, modern, post, post_raw, text, until},
    inference::models_dir,
    packages, wasm,
};

/// Judges by words in what it is shown, and remembers that.
#[derive(Clone, Default)]
struct Words {
    seen: Arc<Mutex<Vec<CheckRequest>>>,
    /// A word that it masks beside the others.
    masks: Arc<Mutex<Option<String>>>,
    /// The `authorization` of each question.
    shown: Arc<Mutex<Vec<Option<String>>>>,
    /// Lets a question go that is held.
    release: Arc<tokio::sync::Notify>,
}

impl Words {
    fn seen(&self) -> Vec<CheckRequest> {
        self.seen.lock().unwrap().clone()
    }

    fn verdict(&self, json: &str) -> Option<Verdict> {
        let masked = self.masks.lock().unwrap().clone().unwrap_or_else(|| "Lynx".to_owned());
        let span = |(at, word): (usize, &str)| Span { start: at as u32, end: (at + word.len()) as u32 };
        let spans: Vec<Span> = json.match_indices(masked.as_str()).map(span).collect();
        Some(match () {
            () if json.contains("silent") => return None,
            () if json.contains("birds") => Verdict::Block(Block { reason: "no animals\nthat fly".to_owned() }),
            () if json.contains("swap") => Verdict::Replace(Replace { json: json.replace("swap", "swop") }),
            () if json.contains("rename") => {
                Verdict::Replace(Replace { json: json.replace("\"name\":\"in.echo\"", "\"name\":\"other.echo\"") })
            }
            () if json.contains("odd") => Verdict::Mask(Mask { spans: vec![Span { start: 0, end: 1 }] }),
            () if !spans.is_empty() => Verdict::Mask(Mask { spans }),
            () => Verdict::Allow(Allow {}),
        })
    }
}

#[tonic::async_trait]
impl Guard for Words {
    async fn check(&self, request: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        let shown = request.metadata().get("authorization").map(|value| value.to_str().unwrap().to_owned());
        self.shown.lock().unwrap().push(shown.clone());
        let request = request.into_inner();
        if request.json.contains("who am I") {
            let reason = format!("you are {}", shown.unwrap_or_default());
            return Ok(Response::new(CheckResponse { verdict: Some(Verdict::Block(Block { reason })) }));
        }
        self.seen.lock().unwrap().push(request.clone());
        if request.json.contains("hang") {
            tokio::time::sleep(Duration::from_secs(3_600)).await;
        }
        if request.json.contains("hold here") {
            self.release.notified().await;
        }
        if request.json.contains("broken") {
            return Err(Status::internal(request.json));
        }
        Ok(Response::new(CheckResponse { verdict: self.verdict(&request.json) }))
    }
}

/// A server that ends with its runtime.
struct Server {
    words: Words,
    address: SocketAddr,
    runtime: tokio::runtime::Runtime,
}

impl Server {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let words = Words::default();
        let service = GuardServer::new(words.clone());
        let address = runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let incoming = TcpIncoming::from(listener);
            tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
            address
        });
        Self { words, address, runtime }
    }

    fn guard(&self, name: &str, more: &str) -> String {
        guard(name, &format!("{{ external: {{ url: 'http://{}', {more}", self.address))
    }
}

fn code(answer: &Value) -> &str {
    answer["error"]["data"]["code"].as_str().unwrap_or_default()
}

#[test]
fn arguments_and_results_pass_as_it_says() {
    let server = Server::start();
    let guards = [
        server.guard("in", "timeoutMs: 20000 }, directions: [arguments], tools: ['in.*'] }"),
        server.guard("out", "timeoutMs: 20000 }, directions: [results], tools: ['out.*'] }"),
        server.guard("try", "timeoutMs: 20000 }, mode: report, directions: [arguments], tools: ['try.*'] }"),
        guard("cards", "{ directions: [arguments], rules: [ { kinds: [card], action: mask } ] }"),
    ];
    let (_dir, mut dev) = start(&["in", "out", "try", "free"], &guards.concat(), &[]);

    assert_eq!(
        said(&echo(&dev, "in", &format!("Lynx pays with {CARD}, Lynx"))),
        format!("**** pays with {MASKED}, ****")
    );
    let intent = record(&dev, "in.echo", "intent");
    assert_eq!(intent["record"]["guards"], json!(["card:mask=1", "external:mask=2"]), "{intent}");
    assert!(body(&dev, &intent).contains("**** pays") && !body(&dev, &intent).contains("Lynx"));
    let asked = server.words.seen().pop().unwrap();
    assert!(
        asked.json.contains(MASKED) && !asked.json.contains("4111"),
        "it sees what the built-in guards left: {asked:?}"
    );
    assert_eq!(
        (asked.guard.as_str(), asked.tenant.as_str(), asked.method.as_str(), asked.target.as_str()),
        ("in", "acme", "tools/call", "in.echo")
    );
    assert_eq!((asked.direction(), asked.part()), (Direction::Arguments, Part::Params));
    assert_eq!(asked.call_id, intent["record"]["call_id"].as_str().unwrap());
    assert!(asked.principal.len() == 32 && !asked.json.contains("bot"), "a name that stands for one: {asked:?}");

    assert_eq!(said(&echo(&dev, "in", "swap it")), "swop it");
    assert_eq!(said(&echo(&dev, "in", "nothing")), "nothing");
    let answer = echo(&dev, "in", "two birds");
    assert_eq!(code(&answer), "PV-GUARD-BLOCKED", "{answer}");
    assert!(
        answer["error"]["message"].as_str().unwrap().ends_with("in lets it not pass: no animalsthat fly"),
        "{answer}"
    );
    let denied = record(&dev, "in.echo", "denied");
    assert_eq!(denied["record"]["guards"], json!(["external:block=1"]), "{denied}");
    assert!(!body(&dev, &denied).contains("birds"), "what only it knows of is not kept");
    // What cannot be done is no permission.
    for odd in ["odd", "rename"] {
        assert_eq!(code(&echo(&dev, "in", odd)), "PV-GUARD-BLOCKED", "{odd}");
    }

    assert_eq!(said(&echo(&dev, "out", "a Lynx")), "a ****");
    let outcome = record(&dev, "out.echo", "outcome");
    let count = outcome["record"]["guards"].to_string();
    assert!(count.contains("external:mask="), "{outcome}");
    assert!(!body(&dev, &outcome).contains("Lynx"));
    assert!(body(&dev, &record(&dev, "out.echo", "intent")).contains("Lynx"), "this way it does not look");
    let answer = echo(&dev, "out", "birds");
    assert_eq!(code(&answer), "PV-GUARD-BLOCKED", "{answer}");
    assert!(answer["error"]["message"].as_str().unwrap().starts_with("the call ran"), "{answer}");
    let outcome = record(&dev, "out.echo", "outcome");
    assert_eq!(outcome["record"]["error.type"], "PV-GUARD-BLOCKED", "{outcome}");

    assert_eq!(said(&echo(&dev, "try", "two birds")), "two birds");
    assert_eq!(record(&dev, "try.echo", "intent")["record"]["guards"], json!(["external:report=1"]));
    let before = server.words.seen().len();
    assert_eq!(said(&echo(&dev, "free", "birds")), "birds");
    assert_eq!(server.words.seen().len(), before, "a call that it does not cover is not shown");
    assert!(dev.terminate().1, "{}", dev.stderr());
}

#[test]
fn without_an_answer_nothing_passes_unless_the_guard_says_so() {
    let server = Server::start();
    let guards = [
        server.guard("hard", "timeoutMs: 2000 }, directions: [arguments], tools: ['hard.*'] }"),
        server.guard("soft", "timeoutMs: 2000, onFailure: allow }, directions: [arguments], tools: ['soft.*'] }"),
        server.guard("late", "timeoutMs: 2000 }, directions: [results], tools: ['late.*'] }"),
        // A document may name any address; the rules of egress hold for it.
        guard("inner", "{ external: { url: 'https://10.1.2.3' }, tools: ['inner.*'] }"),
    ];
    let (_dir, mut dev) = start(&["hard", "soft", "late", "inner"], &guards.concat(), &[]);
    assert_eq!(said(&echo(&dev, "hard", "fine")), "fine");
    let large = "x".repeat(1 << 20);
    for said_to_it in ["hang", "silent", "broken zebra", large.as_str()] {
        let answer = echo(&dev, "hard", said_to_it);
        assert_eq!(code(&answer), "PV-GUARD-EXTERNAL", "{answer}");
        assert!(!answer.to_string().contains("zebra"), "what it says in an error reaches nobody: {answer}");
        let denied = record(&dev, "hard.echo", "denied");
        assert_eq!(denied["record"]["guards"], json!(["external:block=1"]), "{denied}");
        assert_eq!(said(&echo(&dev, "soft", said_to_it)), said_to_it);
        let intent = record(&dev, "soft.echo", "intent");
        assert_eq!(intent["record"]["guards"], json!(["external:report=1"]), "{intent}");
    }
    let answer = echo(&dev, "late", "silent");
    assert_eq!(code(&answer), "PV-GUARD-EXTERNAL", "{answer}");
    assert_eq!(record(&dev, "late.echo", "outcome")["record"]["error.type"], "PV-GUARD-EXTERNAL");
    assert_eq!(code(&echo(&dev, "inner", "fine")), "PV-GUARD-EXTERNAL");

    server.runtime.shutdown_background();
    assert_eq!(code(&echo(&dev, "hard", "fine")), "PV-GUARD-EXTERNAL");
    assert_eq!(said(&echo(&dev, "soft", "fine")), "fine");
    assert!(dev.terminate().1, "{}", dev.stderr());
    let log = dev.stderr();
    assert!(log.contains("PV-GUARD-EXTERNAL") && log.contains("private") && !log.contains("zebra"), "{log}");
}

#[test]
fn a_streamed_answer_leaves_as_it_was_checked() {
    let models = models_dir();
    let server = Server::start();
    let guards = server.guard("said", "timeoutMs: 20000 }, directions: [results], tools: ['tiny-chat'] }");
    let (_dir, dev) = start(&[], &guards, &["--models", models.path().to_str().unwrap()]);
    let ask = |seed: u64, stream: bool| {
        json!({ "model": "tiny-chat", "max_tokens": 48, "temperature": 1, "seed": seed, "stream": stream,
                "messages": [{ "role": "user", "content": "hello" }] })
    };
    // Long enough to stand nowhere but in what the model says.
    let found = (1..40).find_map(|seed| {
        let plain = chat(&dev, &ask(seed, true)).concat();
        // What is checked leaves in pieces of its own: any phrase will do.
        let word = phrase(&plain, &[]).filter(|word| word.len() >= 4)?;
        Some((seed, plain, word))
    });
    let (seed, plain, word) = found.expect("no phrase");
    let streamed = |words: &Words| words.seen().into_iter().filter(|r| r.part() == Part::Stream).count();
    assert!(streamed(&server.words) > 0, "pieces are checked before they leave");
    *server.words.masks.lock().unwrap() = Some(word.clone());
    let masked = plain.replace(&word, &"*".repeat(word.len()));
    assert_eq!(chat(&dev, &ask(seed, true)).concat(), masked);
    let headers = [("authorization".to_owned(), format!("Bearer {}", dev.token()))];
    let url = format!("{}/v1/chat/completions", dev.base());
    let (_, answer) = post_raw(&url, &headers, ask(seed, false).to_string().into_bytes());
    assert_eq!(answer["choices"][0]["message"]["content"], masked.as_str(), "{answer}");

    // Calls are checked whole.
    *server.words.masks.lock().unwrap() = Some("grey heron".to_owned());
    let called: Value = serde_json::from_str(&arguments(&dev, &spotting("grey heron", true))).unwrap();
    assert!(called["animal"].as_str().unwrap().starts_with("****"), "{called}");
    let was_asked = server.words.seen().iter().any(|r| r.part() == Part::Stream && r.json.contains("grey heron"));
    assert!(was_asked);
}

#[test]
fn one_that_cannot_be_is_refused_with_its_place() {
    let (_dir, dev) = start(&["echo"], "", &[]);
    let file = dev.data.join("guard.yaml");
    let apply = |documents: &str| {
        std::fs::write(&file, documents).unwrap();
        dev.cli(&["apply", "-f", file.to_str().unwrap()])
    };
    for (spec, said) in [
        ("{ external: { url: 'http://dlp.example' } }", "spec.external.url"),
        ("{ external: { url: 'https://user:pass@dlp.example' } }", "spec.external.url"),
        ("{ external: { url: 'https://dlp.example', timeoutMs: 0 } }", "spec.external.timeoutMs"),
        ("{ external: { url: 'https://dlp.example', onFailure: maybe } }", "deny"),
        ("{ external: { url: 'https://dlp.example', egress: { allowPrivate: [8.8.8.0/24] } } }", "allowPrivate"),
    ] {
        let refused = apply(&guard("g", spec));
        assert_eq!(refused.status.code(), Some(1), "{spec} was taken");
        assert!(text(&refused).contains(said), "{spec}: {}", text(&refused));
    }
    let many: String =
        (0..5).map(|n| guard(&format!("g{n}"), "{ external: { url: 'https://dlp.example' } }")).collect();
    assert!(text(&apply(&many)).contains("external guards already"));
    assert!(apply(&guard("g", "{ external: { url: 'https://dlp.example' } }")).status.success());
    let shown = text(&dev.cli(&["get", "Guard"]));
    assert!(shown.contains("https://dlp.example"), "{shown}");
    let answer = until(|| {
        let call = modern("tools/call", json!({ "name": "echo.echo", "arguments": { "text": "x" } }));
        let answer = post(dev.mcp(), dev.token(), &call).1;
        (!answer["error"].is_null()).then_some(answer)
    });
    assert_eq!(code(&answer), "PV-GUARD-EXTERNAL", "{answer}");
}

/// A token that would be seen wherever it stood.
const TOKEN: &str = "dlp-7Zq4Xw9Rt2Lm";

#[test]
fn it_is_shown_the_token_of_its_document_and_nobody_else_is() {
    let server = Server::start();
    let (_dir, mut dev) = start(&["in", "free"], "", &[]);
    let set = |value: &str| {
        let set = dev.cli_stdin(&["secret", "set", "dlp", "--tenant", "acme"], value);
        assert!(set.status.success(), "{}", text(&set));
    };
    let file = dev.data.join("guard.yaml");
    let apply = |documents: &str| {
        std::fs::write(&file, documents).unwrap();
        dev.cli(&["apply", "-f", file.to_str().unwrap()])
    };
    let guard = server.guard(
        "in",
        "timeoutMs: 20000, auth: { bearer: { secret: dlp } } }, directions: [arguments], tools: ['in.*'] }",
    );
    let early = apply(&guard);
    assert!(!early.status.success() && text(&early).contains("spec.external.auth.bearer.secret"), "{}", text(&early));
    set(TOKEN);
    assert!(apply(&guard).status.success());
    let last = || server.words.shown.lock().unwrap().last().cloned().flatten();
    // A state that was applied reaches the calls a moment later.
    until(|| (said(&echo(&dev, "in", "a Lynx")) == "a ****").then_some(()));
    assert_eq!(last().as_deref(), Some(&*format!("Bearer {TOKEN}")));
    // An answer that repeats it is none.
    let answer = echo(&dev, "in", "who am I");
    assert_eq!(code(&answer), "PV-GUARD-EXTERNAL", "{answer}");
    let renewed = format!("{TOKEN}-2");
    set(&renewed);
    until(|| {
        echo(&dev, "in", "nothing");
        (last() == Some(format!("Bearer {renewed}"))).then_some(())
    });
    // It is in use.
    assert!(!dev.cli(&["delete", "Secret", "dlp", "--tenant", "acme"]).status.success());
    let outputs = [
        vec!["get", "Guard", "-o", "yaml"],
        vec!["get", "Guard", "-o", "json"],
        vec!["describe", "Guard", "in", "--tenant", "acme"],
        vec!["history", "Guard", "in", "--tenant", "acme"],
        vec!["audit", "query", "--json"],
    ];
    let mut all: String = outputs.iter().map(|args| text(&dev.cli(args))).collect();
    assert!(all.contains("bearer"), "{all}");
    all += &answer.to_string();
    assert!(dev.terminate().1, "{}", dev.stderr());
    all += &dev.stderr();
    assert!(!all.contains("7Zq4Xw9Rt2Lm"), "a token is shown");
}

#[test]
fn it_is_shown_a_client_certificate() {
    let certified = |name: &str| rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let (own, client) = (certified("localhost"), certified("node"));
    let server = Server::start();
    // TLS in front of it, for those who show the one certificate.
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(client.cert.der().clone()).unwrap();
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![own.cert.der().clone()], key)
        .unwrap();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let behind = server.address;
    let port = server.runtime.block_on(async move {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(mut outside) = acceptor.accept(stream).await else { return };
                    let mut inside = tokio::net::TcpStream::connect(behind).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
                });
            }
        });
        port
    });
    let dir = tempfile::tempdir().unwrap();
    let pem = |label: &str, der: &[u8]| {
        let body = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, der);
        format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
    };
    let trusted = dir.path().join("ca.pem");
    std::fs::write(&trusted, pem("CERTIFICATE", own.cert.der())).unwrap();
    let secret = pem("CERTIFICATE", client.cert.der()) + &pem("PRIVATE KEY", &client.signing_key.serialize_der());

    let yaml = crate::guards::yaml_of(&["in"]);
    let data = dir.path().join("data");
    let dev = Dev::start_env(&data, Some(&yaml), &[], &[("SSL_CERT_FILE", trusted.to_str().unwrap())]);
    let set = |value: &str| {
        let set = dev.cli_stdin(&["secret", "set", "dlp-client", "--tenant", "acme"], value);
        assert!(set.status.success(), "{}", text(&set));
    };
    set("no certificate");
    let external = format!(
        "{{ external: {{ url: 'https://localhost:{port}', timeoutMs: 20000, \
         auth: {{ certificate: {{ secret: dlp-client }} }} }}, directions: [arguments], tools: ['in.*'] }}"
    );
    let file = dev.data.join("guard.yaml");
    std::fs::write(&file, guard("in", &external)).unwrap();
    let applied = dev.cli(&["apply", "-f", file.to_str().unwrap()]);
    assert!(applied.status.success(), "{}", text(&applied));
    until(|| (code(&echo(&dev, "in", "a Lynx")) == "PV-GUARD-EXTERNAL").then_some(()));
    assert!(server.words.seen().is_empty());
    set(&secret);
    until(|| (said(&echo(&dev, "in", "a Lynx")) == "a ****").then_some(()));
}

/// The whole example of the documentation is taken as it is.
#[test]
fn the_examples_are_taken() {
    let (_dir, dev) = start(&["echo"], "", &[]);
    let examples = crate::harness::root().join("examples").join("guards");
    let applied = dev.cli(&["apply", "-f", examples.to_str().unwrap()]);
    assert!(applied.status.success(), "{}", text(&applied));
}

/// Between what a call is decided on and its run lies whatever its guards take: the next version of its plugin may come.
#[test]
fn a_call_that_a_guard_held_runs_on_the_version_that_its_records_name() {
    let server = Server::start();
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let digest = wasm::put(&data, "text.wasm", &wasm::component());
    let plugin = |separator: &str| {
        format!(
            "---\napiVersion: provost/v1\nkind: Plugin\nmetadata: {{ name: text, tenant: acme }}\nspec: {{ source: {{ wasm: \
             {{ file: text.wasm, digest: '{digest}', config: {{ separator: '{separator}' }} }} }} }}\n"
        )
    };
    let held = server.guard("held", "timeoutMs: 20000 }, directions: [arguments], tools: ['text.*'] }");
    let dev = Dev::start_in(&data, Some(&(wasm::base() + &held + &plugin("_"))), &[]);
    let slug = |text: &str| {
        let answer = call_tool(&dev, "text.slug", json!({ "text": text }));
        answer["result"]["content"][0]["text"].as_str().unwrap_or_default().to_owned()
    };
    until(|| (slug("a b") == "a_b").then_some(()));
    let answer = std::thread::scope(|scope| {
        let call = scope.spawn(|| slug("hold here"));
        until(|| server.words.seen().iter().any(|asked| asked.json.contains("hold here")).then_some(()));
        let next = packages::put(dir.path(), "next.yaml", plugin("+").as_bytes());
        packages::well(&dev, &["apply", "-f", &next]);
        // Who comes now gets the next version.
        until(|| (slug("a b") == "a+b").then_some(()));
        server.words.release.notify_one();
        call.join().unwrap()
    });
    assert_eq!(answer, "hold_here");
    let query = text(&dev.cli(&["audit", "query", "--json", "--tool", "text.slug", "--limit", "1000"]));
    let records = query.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let ended: Vec<Value> = records.map(|line| line["record"].clone()).filter(|r| r["status"] == "ok").collect();
    let [first, .., before, last] = ended.as_slice() else { panic!("{query}") };
    assert_eq!(last["plugin.digest"], first["plugin.digest"], "{query}");
    assert_ne!(last["plugin.digest"], before["plugin.digest"], "{query}");
}
