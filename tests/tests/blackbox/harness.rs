//! Starts and stops what the tests talk to.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// How long anything may take to come up on a busy machine.
pub const START_LIMIT: Duration = Duration::from_secs(120);

/// How long a node may take to stop: the drain and the flush are bounded by five seconds, and a busy machine needs
/// some for the rest.
pub const STOP_LIMIT: Duration = Duration::from_secs(10);

/// Asks again until a change has become active: nodes take it moments after it was made.
pub fn until<T>(probe: impl Fn() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(began.elapsed() < START_LIMIT, "the change does not become active");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A binary that this workspace builds, beside the test binary.
pub fn binary(name: &str) -> PathBuf {
    let mut dir = std::env::current_exe().unwrap();
    dir.pop();
    if dir.ends_with("deps") {
        dir.pop();
    }
    let path = dir.join(name);
    assert!(path.exists(), "{} is not built: run `cargo build --workspace`", path.display());
    path
}

/// The root of the checkout.
pub fn root() -> PathBuf {
    Path::new(&std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).parent().unwrap().to_owned()
}

/// A running `provost dev`.
pub struct Dev {
    pub child: Child,
    pub data: PathBuf,
    pub info: Value,
    _dir: Option<tempfile::TempDir>,
}

impl Dev {
    /// Starts with resources given as YAML (or the quickstart if none) and more flags.
    pub fn start(yaml: Option<&str>, flags: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let mut dev = Self::start_in(&data, yaml, flags);
        dev._dir = Some(dir);
        dev
    }

    /// Starts in a directory that outlives the process.
    pub fn start_in(data: &Path, yaml: Option<&str>, flags: &[&str]) -> Self {
        Self::start_env(data, yaml, flags, &[])
    }

    /// The same with variables in its environment.
    pub fn start_env(data: &Path, yaml: Option<&str>, flags: &[&str], env: &[(&str, &str)]) -> Self {
        let mut command = Command::new(binary("provost"));
        command.envs(env.iter().copied());
        command.args(["dev", "--http", "127.0.0.1:0", "--data-dir"]).arg(data).args(flags);
        if let Some(yaml) = yaml {
            let config = data.parent().unwrap().join("config");
            std::fs::create_dir_all(&config).unwrap();
            std::fs::write(config.join("test.yaml"), yaml).unwrap();
            command.arg("--config").arg(&config);
        }
        // Files, not pipes: a test that never reads must not stop the server.
        let parent = data.parent().unwrap();
        let out = std::fs::File::create(parent.join("stdout.log")).unwrap();
        let err = std::fs::File::create(parent.join("stderr.log")).unwrap();
        let _ = std::fs::remove_file(data.join("dev.json"));
        let mut child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn().unwrap();
        let began = Instant::now();
        let info = loop {
            if let Ok(text) = std::fs::read(data.join("dev.json"))
                && let Ok(info) = serde_json::from_slice::<Value>(&text)
            {
                break info;
            }
            if let Some(status) = child.try_wait().unwrap() {
                panic!("provost dev ended with {status}: {}", read(&parent.join("stderr.log")));
            }
            if began.elapsed() > START_LIMIT {
                let _ = child.kill();
                panic!("provost dev is not ready: {}", read(&parent.join("stderr.log")));
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        Self { child, data: data.to_owned(), info, _dir: None }
    }

    pub fn mcp(&self) -> &str {
        self.info["mcp"].as_str().unwrap()
    }

    /// `http://HOST:PORT`.
    pub fn base(&self) -> String {
        self.mcp().trim_end_matches("/mcp").to_owned()
    }

    pub fn token(&self) -> &str {
        self.info["token"].as_str().unwrap()
    }

    /// Runs a `provost` command against this server.
    pub fn cli(&self, args: &[&str]) -> Output {
        Command::new(binary("provost"))
            .args(args)
            .env("PROVOST_DATA_DIR", &self.data)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// The same with text on stdin.
    pub fn cli_stdin(&self, args: &[&str], input: &str) -> Output {
        use std::io::Write;
        let mut child = Command::new(binary("provost"))
            .args(args)
            .env("PROVOST_DATA_DIR", &self.data)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    pub fn kill_9(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, then waits; returns how long it took and whether it ended well.
    pub fn terminate(&mut self) -> (Duration, bool) {
        let began = Instant::now();
        signal(self.child.id(), Signal::TERM);
        let status = self.child.wait().unwrap();
        (began.elapsed(), status.success())
    }

    pub fn stderr(&self) -> String {
        read(&self.data.parent().unwrap().join("stderr.log"))
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- provost dev stderr ---\n{}", self.stderr());
        }
    }
}

/// Sends a signal; panics if there is no such process.
pub fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

/// The processes that a process started and that still run, by what `/proc` says.
pub fn children(parent: u32) -> Vec<u32> {
    let stat = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // `pid (name) state ppid …`; the name may hold spaces and parentheses.
    let parent_of = |pid: u32| stat(pid).rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse().ok());
    let names = std::fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().file_name());
    let pids = names.filter_map(|name| name.to_str()?.parse::<u32>().ok());
    pids.filter(|pid| parent_of(*pid) == Some(parent)).collect()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// A child process that is killed with its guard.
pub struct Process {
    child: Child,
    pub url: String,
}

impl Process {
    /// The everything-server of this workspace, speaking the given era over HTTP.
    pub fn everything(era: &str) -> Self {
        Self::everything_env(era, &[])
    }

    /// The same where one was before that is gone: a modern one at this `HOST:PORT`.
    pub fn everything_at(address: &str) -> Self {
        Self::everything_on("modern", address, &[])
    }

    /// The same with variables in its environment.
    pub fn everything_env(era: &str, env: &[(&str, &Path)]) -> Self {
        Self::everything_on(era, "127.0.0.1:0", env)
    }

    fn everything_on(era: &str, address: &str, env: &[(&str, &Path)]) -> Self {
        let mut child = Command::new(binary("everything-rmcp"))
            .envs(env.iter().copied())
            .args(["--http", address, "--era", era])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.split_whitespace().find(|w| w.starts_with("http://")).unwrap().to_owned();
        Self { child, url }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Tenant `acme` and an agent `bot` who may do what a rule of its only role says, as in `{ tools: ['*'] }`. More
/// documents follow it, each after a line `---`.
pub fn agent_yaml(rule: &str) -> String {
    format!(
        "apiVersion: provost/v1\nkind: Tenant\nmetadata: {{ name: acme }}\nspec: {{}}\n---\n\
         apiVersion: provost/v1\nkind: Principal\nmetadata: {{ name: bot, tenant: acme }}\nspec: {{ type: agent }}\n---\n\
         apiVersion: provost/v1\nkind: Role\nmetadata: {{ name: all, tenant: acme }}\nspec:\n  rules:\n  - {rule}\n---\n\
         apiVersion: provost/v1\nkind: RoleBinding\nmetadata: {{ name: all, tenant: acme }}\n\
         spec: {{ role: all, principals: [bot] }}\n"
    )
}

/// One tenant, one plugin named `up` at `url`, an agent `bot` who may use all of it.
pub fn upstream_yaml(url: &str) -> String {
    let agent = agent_yaml("{ tools: ['*'], prompts: ['*'], resources: ['*'], models: ['*'] }");
    format!(
        "{agent}---\napiVersion: provost/v1\nkind: Plugin\nmetadata: {{ name: up, tenant: acme }}\n\
         spec:\n  timeoutMs: 5000\n  source:\n    mcp-http: {{ url: '{url}' }}\n"
    )
}

/// A modern request body.
pub fn modern(method: &str, mut params: Value) -> Value {
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": { "name": "blackbox", "version": "1" },
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params })
}

/// Posts a modern request as a well-behaved client does; returns status and JSON body.
pub fn post(url: &str, token: &str, body: &Value) -> (u16, Value) {
    let mut headers = vec![
        ("authorization".to_owned(), format!("Bearer {token}")),
        ("mcp-protocol-version".to_owned(), "2026-07-28".to_owned()),
        ("mcp-method".to_owned(), body["method"].as_str().unwrap_or_default().to_owned()),
    ];
    let params = &body["params"];
    if let Some(name) = ["name", "uri", "taskId"].iter().find_map(|key| params[*key].as_str()) {
        headers.push(("mcp-name".to_owned(), name.to_owned()));
    }
    post_raw(url, &headers, body.to_string().into_bytes())
}

/// Posts bytes with headers; a stream's last message is the answer.
pub fn post_raw(url: &str, headers: &[(String, String)], body: Vec<u8>) -> (u16, Value) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut request = client
            .post(url)
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let response = request.body(body).timeout(START_LIMIT).send().await.unwrap();
        let status = response.status().as_u16();
        let text = response.text().await.unwrap_or_default();
        let value = serde_json::from_str(&text).unwrap_or_else(|_| {
            let last = text.lines().rev().find_map(|l| l.strip_prefix("data:"));
            last.and_then(|l| serde_json::from_str(l).ok()).unwrap_or(Value::String(text))
        });
        (status, value)
    })
}

/// Calls a tool and returns the JSON-RPC message.
pub fn call_tool(dev: &Dev, tool: &str, arguments: Value) -> Value {
    let body = modern("tools/call", json!({ "name": tool, "arguments": arguments }));
    post(dev.mcp(), dev.token(), &body).1
}

pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
