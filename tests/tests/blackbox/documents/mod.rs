//! The commands of README, of the pages in `docs/` and of the examples, run as a reader would. [`page`] says how pages
//! are written.
//!
//! Each page has a test, a node and a folder of its own; `examples/` lies in the folder, as in a clone.

mod commands;
mod page;
mod shell;

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use serde_json::Value;

use self::{
    page::{Command, Piece, missing, read},
    shell::Shell,
};
use crate::harness::{Dev, Process, START_LIMIT, root, until};

/// Pages with commands that are run here, and a test for each.
macro_rules! pages {
    ($($test:ident: $page:literal,)+) => {
        const RUN: &[&str] = &[$($page),+];
        $(
            #[test]
            fn $test() {
                follow($page);
            }
        )+
    };
}

pages! {
    readme: "README.md",
    auditing: "docs/auditing.md",
    auditors_guide: "docs/auditors-guide.md",
    concepts: "docs/concepts.md",
    governance: "docs/governance.md",
    migration: "docs/migration.md",
    operations: "docs/operations.md",
    plugins: "docs/plugins.md",
    policy_cookbook: "docs/policy-cookbook.md",
    policy: "docs/policy.md",
    quick_start: "docs/quick-start.md",
    quotas: "docs/quotas.md",
    slo: "docs/slo.md",
    transports: "docs/transports.md",
    witness: "docs/witness.md",
    example_guards: "examples/guards/README.md",
    example_identity: "examples/identity/README.md",
    example_quickstart: "examples/quickstart/README.md",
}

/// Blocks of commands that are not run here: page, how many, why, and what does the same instead.
const NOT_RUN: &[(&str, usize, &str)] = &[
    ("README.md", 1, "builds the binary that these tests run"),
    ("README.md", 1, "needs Docker; `make test-cluster` plays it"),
    ("docs/auditing.md", 1, "compiles parts of the workspace"),
    ("docs/auditing.md", 1, "needs an audit node that serves its logs to the auditor; `audit_tiles.rs` does it"),
    ("docs/benchmarking.md", 2, "measures for minutes, on release builds"),
    ("docs/benchmarking.md", 1, "needs llama.cpp, and measures for half a minute, on release builds"),
    ("docs/benchmarking.md", 1, "installs other programs from PyPI and measures for minutes, on release builds"),
    ("docs/bridge.md", 1, "needs a node at a public address; `bridge_process.rs` runs the bridge"),
    ("docs/cluster.md", 4, "needs machines of their own; `tests/tests/cluster` does the same with processes"),
    ("docs/compose.md", 5, "needs Docker; `make test-cluster` plays it"),
    ("docs/compose.md", 1, "needs Docker and a CUDA device"),
    ("docs/gpu-cuda.md", 1, "downloads a toolchain and compiles the workspace with it"),
    ("docs/gpu-cuda.md", 1, "needs a CUDA device"),
    ("docs/gpu-memory.md", 3, "compiles parts of the workspace"),
    ("docs/lora.md", 1, "needs a model and takes minutes; `finetune.rs` trains a small one"),
    ("docs/lora.md", 1, "needs a node with a model and takes minutes; `finetune.rs` does it with a small one"),
    ("docs/lora.md", 1, "needs a node with a task; `finetune.rs` does it with a small one"),
    ("docs/models.md", 1, "needs a model; `models.rs` does it"),
    ("docs/models.md", 1, "needs a model; `chat.rs` does it with a small one"),
    ("docs/models.md", 1, "needs a model; `transcriptions.rs` does it with a small one"),
    ("docs/observability.md", 1, "shows four machines; `observability.rs` looks at one"),
    ("docs/packages.md", 1, "compiles parts of the workspace"),
    ("docs/packages.md", 2, "needs root and systemd; `make test-packages` does it in a booted Debian"),
    ("docs/packages.md", 1, "needs a signing key and a web server; `make test-packages` does it"),
    ("docs/packages.md", 3, "needs Kubernetes; `make test-helm` renders and checks the chart"),
    ("docs/performance.md", 5, "measures for minutes, on release builds"),
    ("docs/plugins-grpc.md", 1, "needs protoc"),
    ("docs/plugins.md", 1, "compiles for WebAssembly; `author.rs` does it where `PROVOST_TEST_GUESTS` is set"),
    ("docs/transports.md", 1, "needs a node at a public address; `cli_transports.rs` does it on loopback"),
    ("docs/witness.md", 4, "needs an auditor's machine; `audit_witness.rs` and `audit_tiles.rs` do it"),
    ("examples/plugins/grpc/README.md", 1, "compiles parts of the workspace; `grpc.rs` does it"),
    ("examples/plugins/grpc/README.md", 1, "needs the service above; `grpc.rs` does it"),
    ("examples/plugins/openapi/README.md", 1, "takes a port of its own; `openapi.rs` does it"),
    ("examples/plugins/openapi/README.md", 1, "needs the service above; `openapi.rs` does it"),
    (
        "examples/plugins/python-stats/README.md",
        1,
        "needs componentize-py; `author.rs` does it where `PROVOST_TEST_GUESTS` is set",
    ),
    ("examples/plugins/rag/README.md", 2, "needs a model of 90 MB; `rag.rs` does it where there is one"),
];

/// Words of commands that change the state: what comes next waits until the node runs it.
const CHANGES: &[&str] =
    &["apply", "delete", "rollback", "token create", "kill-switch", "secret set", "plugin ", "rotate-keys"];

/// Commands that have no end are ended after this many seconds.
const INTERRUPT_AFTER_S: u32 = 5;

/// A page that is being run.
struct Reader {
    name: String,
    dev: Dev,
    shell: Shell,
    work: tempfile::TempDir,
    /// Somebody's MCP server, where a page speaks of one on port 9000.
    upstream: Option<Process>,
    said: String,
    /// How many nodes there were.
    starts: usize,
    /// Nothing was asked of the node yet.
    fresh: bool,
}

impl Reader {
    fn open(name: &str) -> Self {
        let work = tempfile::tempdir().unwrap();
        let dir = work.path().join("clone");
        fs::create_dir_all(&dir).unwrap();
        std::os::unix::fs::symlink(root().join("examples"), dir.join("examples")).unwrap();
        let dev = Dev::start(None, &[]);
        let shell = Shell::start(&dir, &work.path().join("notes-0"), &dev.data);
        Self { name: name.to_owned(), dev, shell, work, upstream: None, said: String::new(), starts: 1, fresh: true }
    }

    fn take(&mut self, piece: &Piece) {
        match piece {
            Piece::File { name, text } => {
                let path = self.work.path().join("clone").join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, self.here(text)).unwrap();
            }
            Piece::Run(command) => self.run(command),
            Piece::Shown { line, text } => {
                let lacking = missing(text, &self.said);
                assert!(lacking.is_none(), "{}:{line}: {lacking:?} is not in:\n{}", self.name, self.said);
            }
            Piece::NotRun { .. } => {}
        }
    }

    /// The addresses of pages are those of a node that nobody else runs; `DATA` is its data directory.
    fn here(&mut self, text: &str) -> String {
        let mut text = text.replace("DATA/", &format!("{}/", self.dev.data.display()));
        if text.contains("127.0.0.1:9000") {
            let upstream = self.upstream.get_or_insert_with(|| Process::everything("modern"));
            text = text.replace("127.0.0.1:9000", &host(&upstream.url));
        }
        let of = |key: &str| host(self.dev.info[key].as_str().unwrap());
        for (address, key) in [("127.0.0.1:8420", "mcp"), ("127.0.0.1:8421", "admin"), ("127.0.0.1:8422", "metrics")] {
            text = text.replace(address, &of(key));
        }
        text
    }

    fn run(&mut self, command: &Command) {
        // A comment at the end would take what is added with it.
        let text = match command.text.contains('\n') {
            true => command.text.as_str(),
            false => command.text.split(" # ").next().unwrap_or_default().trim_end(),
        };
        let fresh = std::mem::take(&mut self.fresh);
        if let Some(flags) = text.strip_prefix("provost dev") {
            // The page's own first node runs already.
            if !fresh || !flags.trim().is_empty() {
                self.start_anew(flags);
            }
            return;
        }
        let mut text = self.here(text);
        if !command.expect.add.is_empty() {
            text = format!("{text} {}", command.expect.add);
        }
        if command.expect.interrupt {
            text = format!("timeout --signal=INT {INTERRUPT_AFTER_S} {text}");
        }
        let began = Instant::now();
        loop {
            let (exit, said) = self.shell.run(&text);
            self.said = said;
            match self.wrong(command, exit) {
                None => break,
                Some(_) if command.expect.eventually && began.elapsed() < START_LIMIT => {
                    std::thread::sleep(Duration::from_millis(200));
                }
                Some(why) => panic!("{}:{}: `{text}` {why}:\n{}", self.name, command.line, self.said),
            }
        }
        if CHANGES.iter().any(|change| text.contains(change)) {
            self.settle();
        }
    }

    /// What is not as the page says.
    fn wrong(&self, command: &Command, exit: i32) -> Option<String> {
        let expect = &command.expect;
        if expect.exit.is_some_and(|code| code != exit) {
            return Some(format!("ended with {exit}"));
        }
        let lacking = expect.has.iter().find(|text| !self.said.contains(*text));
        let strange = expect.lacks.iter().find(|text| self.said.contains(*text));
        lacking.map(|text| format!("does not say {text:?}")).or(strange.map(|text| format!("says {text:?}")))
    }

    /// `provost dev` with flags, in the place of the node before.
    fn start_anew(&mut self, flags: &str) {
        let flags: Vec<&str> = flags.split_whitespace().collect();
        let notes = self.work.path().join(format!("notes-{}", self.starts));
        self.starts += 1;
        self.dev = Dev::start(None, &flags);
        self.shell = Shell::start(&self.work.path().join("clone"), &notes, &self.dev.data);
    }

    /// Waits until the node runs what was changed, as a reader does by being slow.
    fn settle(&self) {
        let metrics = host(self.dev.info["metrics"].as_str().unwrap());
        let history = self.dev.cli(&["history", "--json", "--limit", "1"]);
        let newest =
            serde_json::from_slice::<Value>(&history.stdout).ok().and_then(|list| list[0]["revision"].as_u64());
        // A page may have stopped the node.
        let Some(newest) = newest else { return };
        until(|| active_revision(&metrics).is_none_or(|active| active >= newest).then_some(()));
    }
}

/// `HOST:PORT` of an address.
fn host(address: &str) -> String {
    let address = address.split_once("://").map_or(address, |(_, rest)| rest);
    address.split('/').next().unwrap_or_default().to_owned()
}

/// The revision that calls run under; `None` where the process has no data plane or does not answer.
fn active_revision(metrics: &str) -> Option<u64> {
    let mut stream = TcpStream::connect(metrics).ok()?;
    stream.set_read_timeout(Some(START_LIMIT)).ok()?;
    stream
        .write_all(format!("GET /metrics HTTP/1.1\r\nHost: {metrics}\r\nConnection: close\r\n\r\n").as_bytes())
        .ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("provost_active_revision "))?;
    line.trim().parse().ok()
}

/// Runs a page from its beginning to its end.
fn follow(name: &str) {
    let pieces = read(&fs::read_to_string(root().join(name)).unwrap()).unwrap_or_else(|why| panic!("{name}: {why}"));
    let mut reader = Reader::open(name);
    for piece in &pieces {
        reader.take(piece);
    }
}

/// README, every page of `docs/` and those of the examples, by its path.
fn pages() -> Vec<String> {
    let of = |folder: &str| -> Vec<String> {
        let entries = fs::read_dir(root().join(folder)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.map(|name| format!("{folder}/{name}")).collect()
    };
    let mut pages = [of("docs"), of("docs/runbooks"), of("docs/errors"), of("docs/decisions")].concat();
    let examples = [of("examples"), of("examples/plugins")].concat();
    pages.extend(examples.into_iter().map(|folder| format!("{folder}/README.md")));
    pages.retain(|page| page.ends_with(".md") && root().join(page).is_file());
    pages.push("README.md".to_owned());
    pages.sort();
    pages
}

#[test]
fn every_command_of_every_page_is_run_or_listed_with_the_reason() {
    let (mut run, mut not_run, mut wrong) = (Vec::new(), Vec::<(String, usize, String)>::new(), Vec::new());
    for name in pages() {
        let pieces = match read(&fs::read_to_string(root().join(&name)).unwrap()) {
            Ok(pieces) => pieces,
            Err(why) => {
                wrong.push(format!("{name}: {why}"));
                continue;
            }
        };
        if pieces.iter().any(|piece| matches!(piece, Piece::Run(_))) {
            run.push(name.clone());
        }
        for piece in pieces {
            let Piece::NotRun { reason, .. } = piece else { continue };
            match not_run.iter_mut().find(|(page, _, why)| *page == name && *why == reason) {
                Some((_, count, _)) => *count += 1,
                None => not_run.push((name.clone(), 1, reason)),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let mut listed: Vec<&str> = RUN.to_vec();
    listed.sort_unstable();
    assert_eq!(listed, run, "RUN names each page with commands, and has a test for it");
    let mut listed: Vec<(String, usize, String)> =
        NOT_RUN.iter().map(|(page, count, why)| ((*page).to_owned(), *count, (*why).to_owned())).collect();
    listed.sort();
    not_run.sort();
    assert_eq!(listed, not_run, "NOT_RUN lists each block `console`");
}
