//! A shell that lives as long as a page: what one command sets, the next one has.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::harness::binary;

/// How long one command may take on a busy machine.
const COMMAND_LIMIT: Duration = Duration::from_secs(150);

pub struct Shell {
    bash: Child,
    stdin: ChildStdin,
    /// Where commands leave what they say.
    notes: PathBuf,
    count: usize,
}

impl Shell {
    /// Begins in `work`; `data` is the running node's.
    pub fn start(work: &Path, notes: &Path, data: &Path) -> Self {
        use std::os::unix::process::CommandExt;
        let programs = binary("provost").parent().unwrap().to_owned();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(std::iter::once(programs).chain(std::env::split_paths(&path))).unwrap();
        fs::create_dir_all(notes).unwrap();
        // A group of its own, so that what the page left running ends with the test.
        let mut bash = Command::new("bash")
            .args(["--noprofile", "--norc"])
            .current_dir(work)
            .env("PATH", path)
            .env("HOME", work)
            .env("PROVOST_DATA_DIR", data)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stdin = bash.stdin.take().unwrap();
        Self { bash, stdin, notes: notes.to_owned(), count: 0 }
    }

    /// Runs a command; gives its exit code and what it said, both ways. Panics if it does not end.
    pub fn run(&mut self, command: &str) -> (i32, String) {
        self.count += 1;
        let (said, ended) = (self.notes.join(format!("{}.said", self.count)), self.notes.join(self.count.to_string()));
        let script = format!(
            "{{ {command}\n}} >'{said}' 2>&1 </dev/null; echo $? >'{ended}.new'; mv '{ended}.new' '{ended}'\n",
            said = said.display(),
            ended = ended.display(),
        );
        self.stdin.write_all(script.as_bytes()).unwrap();
        self.stdin.flush().unwrap();
        let began = Instant::now();
        let output = || String::from_utf8_lossy(&fs::read(&said).unwrap_or_default()).into_owned();
        while !ended.exists() {
            assert!(began.elapsed() < COMMAND_LIMIT, "`{command}` does not end; it said:\n{}", output());
            std::thread::sleep(Duration::from_millis(10));
        }
        (fs::read_to_string(&ended).unwrap().trim().parse().unwrap(), output())
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        if let Some(group) = i32::try_from(self.bash.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.bash.wait();
    }
}
