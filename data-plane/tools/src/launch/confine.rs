//! What stands around a process where the machine permits no namespaces, as in most containers: rules about the files
//! that it may open (Landlock), and no sockets where it is to have no network.
//!
//! Both are of a thread and what it starts. So the process is started by a thread that is confined and ends with that,
//! and the launcher, which has to tidy up and to see other processes, stays free.
//!
//! The rules say nothing of modes, owners and times of files, and the process sees others of its user, though it cannot
//! look into them, nor end them where the kernel can say so (Linux 6.12). So `files` and `processes` count as missing;
//! `network` does not: without a socket, and with no way to have another process open one, there is none.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Child, Command},
    thread,
};

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError, RulesetStatus, Scope,
};
use provost_types::IsolatedNetwork;

use super::{
    calls, mounts,
    named::Named,
    plan::{Plan, Space, Wall, Walls},
};

/// The least that the kernel must know (Linux 6.2): before, it let a file be cut off that could not be written to.
const LEAST: ABI = ABI::V3;
/// Folders that are closed but for what is named in them: everybody's temporary files, and devices.
const CLOSED: [&str; 2] = ["/tmp", "/dev"];
/// Devices that programs need.
const DEVICES: [&str; 6] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];
/// Most files and folders beside what is closed; what is over it is closed too.
const MOST_PATHS: usize = 16_384;

/// What a process may open.
pub(super) struct Confined {
    readable: Vec<PathBuf>,
    /// Also readable.
    writable: Vec<PathBuf>,
    has_sockets: bool,
}

impl Confined {
    /// What there can be where there are no namespaces, and what that changes about the walls. An error is about what
    /// the document names.
    pub(super) fn build(plan: &Plan, named: &Named, own: &Path, walls: &mut Walls) -> Result<Option<Self>, String> {
        // Without the filter there are calls that get by what is closed here.
        if plan.space != Space::None || !walls.stands(Wall::Calls) {
            return Ok(None);
        }
        let confined = Self::new(plan, &named.seen, own)?;
        let half = "it opens only what it may, but modes, owners and times of other files are open to it";
        let (confined, more) = match confined.attempt() {
            Ok(()) => (Some(confined), half.to_owned()),
            Err(cause) => (None, cause),
        };
        if confined.is_some() {
            walls.missing.remove(&Wall::Network);
        }
        for wall in [Wall::Network, Wall::Files] {
            if let Some(known) = walls.missing.get_mut(&wall) {
                known.push_str("; ");
                known.push_str(&more);
            }
        }
        Ok(confined)
    }

    /// By the plan, what the command names, and its own folder. An error is about what the document names.
    fn new(plan: &Plan, named: &[PathBuf], own: &Path) -> Result<Self, String> {
        let mut writable = mounts::existing("writable", &plan.isolation.writable)?;
        let mut seen = mounts::existing("readable", &plan.isolation.readable)?;
        seen.extend(named.iter().cloned());
        let has_sockets = plan.isolation.network == IsolatedNetwork::Host;
        let mut closed: Vec<PathBuf> = CLOSED.iter().map(PathBuf::from).chain(plan.hidden.iter().cloned()).collect();
        if !has_sockets {
            closed.push(mounts::SOCKETS.into());
        }
        let closed: Vec<PathBuf> = mounts::real(&closed).collect();
        let mut readable = Vec::new();
        all_but(Path::new("/"), &closed, &mut readable);
        for path in &seen {
            all_but(path, &closed, &mut readable);
        }
        writable.push(own.to_owned());
        writable.extend(DEVICES.iter().map(PathBuf::from));
        Ok(Self { readable, writable, has_sockets })
    }

    /// Whether the machine permits it: on a thread that ends with it.
    fn attempt(&self) -> Result<(), String> {
        apart(|| self.enter())?
    }

    /// Starts the process within.
    pub(super) fn start(&self, command: &mut Command) -> io::Result<Child> {
        let started = apart(|| {
            self.enter().map_err(io::Error::other)?;
            command.spawn()
        });
        started.map_err(io::Error::other)?
    }

    /// Confines this thread for good.
    fn enter(&self) -> Result<(), String> {
        if !self.has_sockets {
            calls::close_sockets()?;
        }
        let told = |cause: RulesetError| format!("files cannot be confined: {cause}");
        let rules = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
        let rules = rules.handle_access(AccessFs::from_all(LEAST)).map_err(told)?;
        // The rest where it is known.
        let rules = rules.set_compatibility(CompatLevel::BestEffort).scope(Scope::Signal).map_err(told)?;
        let mut rules = rules.create().map_err(told)?;
        let readable = self.readable.iter().map(|path| (path, AccessFs::from_read(LEAST)));
        let writable = self.writable.iter().map(|path| (path, AccessFs::from_all(LEAST)));
        for (path, access) in readable.chain(writable) {
            // What cannot be opened, or is gone, stays closed.
            let Ok(file) = PathFd::new(path) else { continue };
            let access = if path.is_dir() { access } else { access & AccessFs::from_file(LEAST) };
            rules = rules.add_rule(PathBeneath::new(file, access)).map_err(told)?;
        }
        match rules.restrict_self().map_err(told)?.ruleset {
            RulesetStatus::NotEnforced => Err("files cannot be confined: the kernel has no Landlock".to_owned()),
            RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => Ok(()),
        }
    }
}

/// Does it on a thread of its own.
fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, String> {
    let ended = thread::scope(|scope| scope.spawn(work).join());
    ended.map_err(|_| "the thread that is confined failed".to_owned())
}

/// The folders and files that together are a path without what is closed. Links are not followed: what they lead to is
/// there by its own path, or closed.
fn all_but(path: &Path, closed: &[PathBuf], found: &mut Vec<PathBuf>) {
    if found.len() >= MOST_PATHS || closed.iter().any(|closed| closed == path) {
        return;
    }
    if !closed.iter().any(|closed| closed.starts_with(path)) {
        found.push(path.to_owned());
        return;
    }
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| !kind.is_symlink())) {
        all_but(&entry.path(), closed, found);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::UdpSocket;

    use provost_types::IsolationSpec;

    use super::*;

    fn plan(hidden: &Path, writable: &Path, network: IsolatedNetwork) -> Plan {
        let writable = [writable.to_str().unwrap().to_owned()].into();
        Plan {
            nonce: String::new(),
            isolation: IsolationSpec { network, writable, ..IsolationSpec::default() },
            cwd: None,
            hidden: vec![hidden.to_owned()],
            space: Default::default(),
            no_space: String::new(),
        }
    }

    #[test]
    fn what_is_closed_is_left_out_with_all_below_it() {
        let folder = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(folder.path()).unwrap();
        for path in ["a/data", "a/b", "c"] {
            fs::create_dir_all(root.join(path)).unwrap();
        }
        fs::write(root.join("a/file"), "").unwrap();
        std::os::unix::fs::symlink(root.join("a/data"), root.join("link")).unwrap();
        let found = |path: &Path, closed: &[PathBuf]| {
            let mut found = Vec::new();
            all_but(path, closed, &mut found);
            found.sort();
            found
        };
        let closed = [root.join("a/data")];
        assert_eq!(found(&root, &closed), [root.join("a/b"), root.join("a/file"), root.join("c")]);
        assert_eq!(found(&root.join("a/data"), &closed), Vec::<PathBuf>::new());
        assert_eq!(found(&root.join("a/data/x"), &closed), [root.join("a/data/x")], "what is named in it");
        assert_eq!(found(&root.join("c"), &closed), [root.join("c")]);
    }

    #[test]
    fn a_confined_process_opens_what_it_may_and_no_socket() {
        let folder = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(folder.path()).unwrap();
        for name in ["data", "open", "own", "beside"] {
            fs::create_dir(root.join(name)).unwrap();
            fs::write(root.join(name).join("file"), name).unwrap();
        }
        let of = |network| {
            let plan = plan(&root.join("data"), &root.join("open"), network);
            Confined::new(&plan, std::slice::from_ref(&root), &root.join("own")).unwrap()
        };
        let (closed, host) = (of(IsolatedNetwork::None), of(IsolatedNetwork::Host));
        if let Err(cause) = closed.attempt() {
            return eprintln!("SKIPPED: {cause}");
        }
        let script = "echo a > own/made && echo a > open/made && echo wrote; cat beside/file; cat data/file;
            echo a > beside/made; echo b >> beside/file; rm beside/file; echo a > /dev/null && echo ends";
        let mut command = Command::new("sh");
        command.args(["-c", script]).current_dir(&root).stdout(std::process::Stdio::piped());
        let started = closed.start(&mut command).unwrap();
        let said = String::from_utf8(started.wait_with_output().unwrap().stdout).unwrap();
        assert_eq!(said, "wrote\nbesideends\n");
        assert_eq!(fs::read_to_string(root.join("beside/file")).unwrap(), "beside");
        assert!(!root.join("beside/made").exists());
        // Of the thread alone, which has ended: this one is as free as before.
        fs::write(root.join("beside/made"), "").unwrap();
        let socket = |confined: &Confined| apart(|| confined.enter().map(|()| UdpSocket::bind("127.0.0.1:0").is_ok()));
        assert_eq!((socket(&closed), socket(&host)), (Ok(Ok(false)), Ok(Ok(true))));
    }
}
