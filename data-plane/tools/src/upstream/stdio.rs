//! An upstream as a supervised child process.
//!
//! Invariants: the child has a process group of its own, which ends with it; its environment is
//! what the spec says and PATH, LANG and a home; its stderr goes to our log, and its last lines into
//! the error that tells of its end; what it says of its secrets is written over first; a message longer
//! than the bound ends it.
//! Left out: restarts with back-off (see `audience`), since a fresh process needs a handshake.
//! If this node is killed outright, a child without walls sees end of file on stdin and is expected to end; one within
//! walls is ended by its launcher.

use std::{
    collections::{BTreeMap, VecDeque},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use provost_mcp::{Envelope, RpcError, error_message, result_message};
use secrecy::{ExposeSecret, SecretString};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, Command},
    sync::mpsc,
};

use super::{http::parse, switchboard::Switchboard, walled::Walled};
use crate::{UpstreamError, launch::Note, redact::Redactor};

/// Messages waiting to be written; a child that does not read makes callers wait.
const WRITE_QUEUE: usize = 256;
/// Lines of stderr kept for error texts.
const KEPT_STDERR_LINES: usize = 12;
/// Longest stderr line that is kept or logged, in characters.
const MAX_STDERR_LINE: usize = 512;
/// Longest stderr line that is read, in bytes; of a longer one nothing is shown if it holds a secret, since
/// the cut may go through another.
const MAX_READ_STDERR_LINE: usize = 8 * 1024;
/// Between the polite and the hard end of a process.
const TERM_GRACE: Duration = Duration::from_secs(2);
/// How long the status, and then the last of stderr, may take once stdout has ended: on a busy machine a
/// process ends a while after its pipes.
const END_GRACE: Duration = Duration::from_secs(1);
/// How long a process that nobody uses any more may take to end by itself, its stdin closed.
const STOP_GRACE: Duration = Duration::from_millis(200);
/// What a child without walls inherits.
const INHERITED: [&str; 3] = ["PATH", "HOME", "LANG"];

/// What to start.
#[derive(Clone, Debug)]
pub(crate) struct StdioTarget {
    pub(crate) plugin: String,
    pub(crate) command: String,
    pub(crate) args: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) secret_env: BTreeMap<String, SecretString>,
    pub(crate) cwd: Option<String>,
    /// What is built around it; `None`: nothing.
    pub(crate) walled: Option<Walled>,
    /// Finds its secrets in what it says.
    pub(crate) redactor: Redactor,
    pub(crate) max_bytes: usize,
}

/// A running child.
pub(super) struct StdioProcess {
    switchboard: Arc<Switchboard>,
    writer: mpsc::Sender<Bytes>,
    /// Dropping it stops the supervisor, which ends the child.
    _stop: mpsc::Sender<()>,
}

/// What was heard on stderr.
#[derive(Default)]
struct Heard {
    /// The child's last lines.
    tail: VecDeque<String>,
    /// Why its launcher did not start it, or ended it.
    verdict: Option<UpstreamError>,
}

type Tail = Arc<Mutex<Heard>>;

impl StdioProcess {
    /// Starts the child.
    pub(super) fn spawn(target: &StdioTarget) -> Result<Arc<Self>, UpstreamError> {
        let launch = target.walled.as_ref().map(|walled| walled.launch(target)).transpose()?.flatten();
        let (mut command, told) = match launch {
            Some((command, nonce)) => (command, target.walled.clone().map(|walled| (walled, nonce))),
            None => (plain(target), None),
        };
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        if told.is_none() {
            // A launcher begins a session, and so a group, which the leader of a group cannot.
            command.process_group(0);
        }
        let failed = |cause: String| UpstreamError::NotRunning(format!("`{}`: {cause}", target.command));
        let mut child = command.spawn().map_err(|cause| failed(cause.to_string()))?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
            return Err(failed("it has no pipes".to_owned()));
        };
        let switchboard = Arc::new(Switchboard::new());
        let (writer, to_write) = mpsc::channel(WRITE_QUEUE);
        let (stop, stopped) = mpsc::channel(1);
        let tail = Tail::default();
        tokio::spawn(write_all(stdin, to_write));
        let ear = Ear { plugin: target.plugin.clone(), tail: tail.clone(), redactor: target.redactor.clone(), told };
        let stderr = tokio::spawn(ear.hear(stderr));
        let reader = Reader {
            plugin: target.plugin.clone(),
            switchboard: switchboard.clone(),
            writer: writer.downgrade(),
            redactor: target.redactor.clone(),
            max_bytes: target.max_bytes,
        };
        tokio::spawn(supervise(child, stdout, reader, stopped, LastWords { stderr, tail }));
        Ok(Arc::new(Self { switchboard, writer, _stop: stop }))
    }

    pub(super) fn switchboard(&self) -> &Arc<Switchboard> {
        &self.switchboard
    }

    /// Queues one message.
    pub(super) async fn send(&self, body: Bytes) -> Result<(), UpstreamError> {
        let gone = || {
            let cause = UpstreamError::Died("its process has ended".to_owned());
            self.switchboard.closed().unwrap_or(cause)
        };
        self.writer.send(body).await.map_err(|_| gone())
    }
}

/// The program without walls.
fn plain(target: &StdioTarget) -> Command {
    let mut command = Command::new(&target.command);
    command
        .args(&target.args)
        .env_clear()
        .envs(INHERITED.iter().filter_map(|k| std::env::var_os(k).map(|v| (k, v))))
        .envs(&target.env)
        .envs(target.secret_env.iter().map(|(k, v)| (k, v.expose_secret())));
    if let Some(cwd) = &target.cwd {
        command.current_dir(cwd);
    }
    command
}

async fn write_all(mut stdin: ChildStdin, mut to_write: mpsc::Receiver<Bytes>) {
    while let Some(body) = to_write.recv().await {
        // JSON text of ours has no raw newline: messages come from `provost_mcp` or were scanned,
        // but a client's pretty-printed params may hold some between tokens.
        let line = one_line(body);
        let written = async {
            stdin.write_all(&line).await?;
            stdin.write_all(b"\n").await?;
            stdin.flush().await
        };
        if let Err(cause) = written.await {
            tracing::debug!(%cause, "an upstream process does not read");
            return;
        }
    }
}

/// The message without raw line ends. Inside of strings JSON has none, so every one is white space.
fn one_line(body: Bytes) -> Bytes {
    if memchr::memchr2(b'\n', b'\r', &body).is_none() {
        return body;
    }
    body.iter().map(|b| if matches!(b, b'\n' | b'\r') { b' ' } else { *b }).collect()
}

/// Reads the child's stderr.
struct Ear {
    plugin: String,
    tail: Tail,
    redactor: Redactor,
    /// Whose notes are among the lines, and what they begin with.
    told: Option<(Walled, String)>,
}

impl Ear {
    async fn hear(self, stderr: impl AsyncRead + Unpin) {
        let mut reader = BufReader::new(stderr);
        let mut line = BytesMut::new();
        while let Ok(Read::Line | Read::Rest) = read_line(&mut reader, &mut line, MAX_READ_STDERR_LINE, true).await {
            let line = line.split();
            // A launcher begins a line of its own.
            if (self.told.is_some() && line.is_empty()) || self.is_note(&line) {
                continue;
            }
            let text = shown_line(&line, &self.redactor);
            tracing::info!(plugin = self.plugin, line = text, "stderr of an upstream process");
            let mut heard = self.tail.lock();
            if heard.tail.len() == KEPT_STDERR_LINES {
                heard.tail.pop_front();
            }
            heard.tail.push_back(text);
        }
    }

    /// Whether the launcher said it; then it is noted.
    fn is_note(&self, line: &[u8]) -> bool {
        let Some((walled, nonce)) = &self.told else { return false };
        let Some(note) = Note::of_line(line, nonce) else { return false };
        let verdict = match note {
            Note::Walls(walls) => return walled.stand(&self.plugin, walls),
            Note::Refused(cause) => UpstreamError::Isolation(cause),
            Note::NotRun(cause) => UpstreamError::NotRunning(cause),
            Note::Ended(cause) => UpstreamError::Outgrown(cause),
        };
        self.tail.lock().verdict = Some(verdict);
        true
    }
}

/// A line of stderr as it may be seen.
fn shown_line(line: &[u8], redactor: &Redactor) -> String {
    let text = String::from_utf8_lossy(line);
    let shown = redactor.text(text.trim_end());
    if line.len() == MAX_READ_STDERR_LINE && shown != text.trim_end() {
        return "[a long line with a secret in it]".to_owned();
    }
    shown.chars().take(MAX_STDERR_LINE).collect()
}

/// What was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Read {
    /// A line.
    Line,
    /// What came after the last line: its end did not come.
    Rest,
    /// Nothing: the input has ended.
    End,
}

/// Reads one line without its end into `line`. A longer line is cut (`cut`) or an error.
async fn read_line(
    reader: &mut (impl AsyncBufReadExt + Unpin),
    line: &mut BytesMut,
    max_bytes: usize,
    cut: bool,
) -> std::io::Result<Read> {
    line.clear();
    loop {
        let available = reader.fill_buf().await?;
        if available.is_empty() {
            return Ok(if line.is_empty() { Read::End } else { Read::Rest });
        }
        let newline = memchr::memchr(b'\n', available);
        let taken = newline.unwrap_or(available.len());
        let room = max_bytes.saturating_sub(line.len());
        if taken > room && !cut {
            return Err(std::io::Error::other("too long"));
        }
        line.extend_from_slice(&available[..taken.min(room)]);
        reader.consume(newline.map_or(taken, |n| n + 1));
        if newline.is_some() {
            return Ok(Read::Line);
        }
    }
}

/// Reads the child's messages.
struct Reader {
    plugin: String,
    switchboard: Arc<Switchboard>,
    /// Weak: the writer must end when the last user of the process goes.
    writer: mpsc::WeakSender<Bytes>,
    redactor: Redactor,
    max_bytes: usize,
}

impl Reader {
    /// Until the end of the child's output; tells why it ended if not by itself.
    async fn run(&self, stdout: impl AsyncRead + Unpin) -> Option<UpstreamError> {
        let mut reader = BufReader::with_capacity(64 * 1024, stdout);
        let mut line = BytesMut::new();
        loop {
            let read = match read_line(&mut reader, &mut line, self.max_bytes, false).await {
                Ok(Read::End) => return None,
                Ok(read) => read,
                Err(_) => return Some(UpstreamError::TooLarge(self.max_bytes)),
            };
            let line = line.split().freeze();
            // Some servers log to stdout: what is no object is no message.
            if line.iter().find(|b| !b.is_ascii_whitespace()) != Some(&b'{') {
                if !line.is_empty() {
                    self.warn_of_noise();
                }
                continue;
            }
            let text = self.redactor.message(line);
            match parse(text.clone(), self.max_bytes) {
                Ok(message) => self.take(message).await,
                // A log in JSON: every message names its protocol.
                Err(_) if memchr::memmem::find(&text, b"\"jsonrpc\"").is_none() => self.warn_of_noise(),
                // It ended in the middle of a message: that is what to tell, and not how far it came.
                Err(_) if read == Read::Rest => return None,
                // Which call it was meant for cannot be known.
                Err(fault) => return Some(fault),
            }
        }
    }

    fn warn_of_noise(&self) {
        tracing::warn!(plugin = self.plugin, "an upstream process writes to stdout what is no message");
    }

    async fn take(&self, message: Envelope) {
        let answer = match &message {
            Envelope::Request { id, method, .. } if method == "ping" => {
                Some(result_message(id, &provost_mcp::RawJson::EMPTY_OBJECT))
            }
            _ => self.switchboard.deliver(message).map(|(id, error): (_, RpcError)| error_message(Some(&id), &error)),
        };
        if let (Some(answer), Some(writer)) = (answer, self.writer.upgrade()) {
            // The child ended: nobody is left to answer.
            let _ = writer.send(answer).await;
        }
    }
}

/// What the child said on stderr before it ended.
struct LastWords {
    stderr: tokio::task::JoinHandle<()>,
    tail: Tail,
}

impl LastWords {
    /// Its last lines, and the launcher's word if there is one.
    async fn text(self, grace: Duration) -> (String, Option<UpstreamError>) {
        // A grandchild may hold stderr open: then what is there must do.
        let _ = tokio::time::timeout(grace, self.stderr).await;
        let heard = self.tail.lock();
        (heard.tail.iter().cloned().collect::<Vec<_>>().join(" | "), heard.verdict.clone())
    }
}

/// Owns the child until its output ends, it breaks the protocol, or nobody uses it any more.
async fn supervise(
    mut child: Child,
    stdout: impl AsyncRead + Unpin,
    reader: Reader,
    mut stopped: mpsc::Receiver<()>,
    last_words: LastWords,
) {
    let group = child.id();
    let (fault, grace) = tokio::select! {
        fault = reader.run(stdout) => (fault, END_GRACE),
        _ = stopped.recv() => (None, STOP_GRACE),
    };
    let cause = match fault {
        Some(fault) => fault,
        // The reason that callers see needs the exit status and the last of stderr.
        None => {
            let status = match tokio::time::timeout(grace, child.wait()).await {
                Ok(Ok(status)) => status.to_string(),
                _ => "it closed its output".to_owned(),
            };
            let (tail, verdict) = last_words.text(grace).await;
            let said = if tail.is_empty() { String::new() } else { format!("; stderr: {tail}") };
            verdict.unwrap_or_else(|| UpstreamError::Died(format!("its process ended ({status}){said}")))
        }
    };
    tracing::warn!(plugin = reader.plugin, %cause, "an upstream process ended");
    reader.switchboard.close(cause);
    end_group(&mut child, group).await;
}

/// Ends the child and whatever it started.
async fn end_group(child: &mut Child, group: Option<u32>) {
    use rustix::process::{Pid, Signal, kill_process_group};
    let group = group.and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let signal = |signal| {
        if let Some(group) = group {
            // Failing means that nobody of the group is left.
            let _ = kill_process_group(group, signal);
        }
    };
    signal(Signal::TERM);
    if tokio::time::timeout(TERM_GRACE, child.wait()).await.is_err() {
        tracing::warn!("an upstream process does not end when asked; it is killed");
    }
    signal(Signal::KILL);
    let _ = child.wait().await;
}
