//! A `provost bridge` as a desktop client holds it, and a wire to cut between it and its node.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::harness::{Dev, binary, modern};

/// How long an answer may take on a busy machine.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(60);

pub struct Bridge {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    stderr: std::thread::JoinHandle<String>,
    next_id: u64,
    /// Messages that came while another was waited for.
    pub others: Vec<Value>,
}

impl Bridge {
    /// To a URL, with a token in the environment.
    pub fn to(url: &str, token: &str) -> Self {
        Self::start(&["--url", url], &[("PROVOST_TOKEN", token)])
    }

    pub fn start(args: &[&str], env: &[(&str, &str)]) -> Self {
        let mut child = Command::new(binary("provost"))
            .arg("bridge")
            .args(args)
            .envs(env.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in stdout.lines() {
                let Ok(line) = line else { return };
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut errors = child.stderr.take().unwrap();
        let stderr = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = errors.read_to_string(&mut text);
            text
        });
        let stdin = child.stdin.take();
        Self { child, stdin, lines, stderr, next_id: 0, others: Vec::new() }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn write(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(line.as_bytes()).unwrap();
        stdin.write_all(b"\n").unwrap();
        stdin.flush().unwrap();
    }

    pub fn send(&mut self, message: &Value) {
        self.write(&message.to_string());
    }

    /// Sends a request and returns its id.
    pub fn begin(&mut self, method: &str, params: Value) -> u64 {
        self.next_id += 1;
        self.send(&json!({ "jsonrpc": "2.0", "id": self.next_id, "method": method, "params": params }));
        self.next_id
    }

    pub fn begin_call(&mut self, tool: &str, arguments: Value) -> u64 {
        let mut request = modern("tools/call", json!({ "name": tool, "arguments": arguments }));
        self.begin("tools/call", request["params"].take())
    }

    pub fn next(&mut self) -> Value {
        let line = self.lines.recv_timeout(ANSWER_LIMIT).expect("nothing comes");
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("no message on stdout: {line:?}"))
    }

    /// The answer of this id; what comes before it is kept in `others`.
    pub fn answer(&mut self, id: impl Into<Value>) -> Value {
        let id = id.into();
        loop {
            let message = self.next();
            if message["id"] == id && message.get("method").is_none() {
                return message;
            }
            self.others.push(message);
        }
    }

    pub fn request(&mut self, method: &str, params: Value) -> Value {
        let id = self.begin(method, params);
        self.answer(id)
    }

    pub fn call(&mut self, tool: &str, arguments: Value) -> Value {
        let id = self.begin_call(tool, arguments);
        self.answer(id)
    }

    /// A legacy session, as a client opens it.
    pub fn initialize(&mut self) -> Value {
        let hello = json!({ "protocolVersion": "2025-11-25", "capabilities": {},
            "clientInfo": { "name": "blackbox", "version": "1" } });
        let answer = self.request("initialize", hello);
        self.send(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
        answer
    }

    /// Ends stdin; returns the lines that still came, how it ended and what it logged.
    pub fn end(mut self) -> (Vec<Value>, ExitStatus, String) {
        drop(self.stdin.take());
        let mut rest = Vec::new();
        loop {
            match self.lines.recv_timeout(ANSWER_LIMIT) {
                Ok(line) => rest.push(serde_json::from_str(&line).unwrap()),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    let _ = self.child.kill();
                    panic!("the bridge does not end");
                }
            }
        }
        let status = self.child.wait().unwrap();
        (rest, status, self.stderr.join().unwrap())
    }
}

/// A port that leads to a node, and that can be cut and led elsewhere.
pub struct Wire {
    pub address: SocketAddr,
    state: Arc<Mutex<WireState>>,
}

#[derive(Default)]
struct WireState {
    target: Option<SocketAddr>,
    open: Vec<TcpStream>,
}

impl Wire {
    pub fn to(dev: &Dev) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(WireState { target: Some(http_address(dev)), open: Vec::new() }));
        let shared = state.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let mut state = shared.lock().unwrap();
                let Some(target) = state.target else { continue };
                let Ok(server) = TcpStream::connect(target) else { continue };
                state.open.extend([client.try_clone().unwrap(), server.try_clone().unwrap()]);
                for (mut from, mut to) in [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)]
                {
                    std::thread::spawn(move || {
                        let _ = std::io::copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
            }
        });
        Self { address, state }
    }

    pub fn ws(&self, path: &str) -> String {
        format!("ws://{}/mcp{path}", self.address)
    }

    /// Cuts what is open; new connections end at once.
    pub fn cut(&self) {
        let mut state = self.state.lock().unwrap();
        state.target = None;
        for stream in state.open.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    pub fn lead_to(&self, dev: &Dev) {
        self.state.lock().unwrap().target = Some(http_address(dev));
    }
}

fn http_address(dev: &Dev) -> SocketAddr {
    dev.base().trim_start_matches("http://").parse().unwrap()
}

/// Waits for something that must become true.
pub fn wait_for(what: &str, mut is_true: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_true() {
        assert!(began.elapsed() < ANSWER_LIMIT, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(50));
    }
}
