//! The inner stage: the first process within the namespaces. Makes the other walls, starts the plugin's process, waits
//! for all that it leaves behind, and ends it when it uses too much.
//!
//! Where there are no namespaces this stage is all of the launcher.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, DirBuilder},
    io,
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{DirBuilderExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use provost_types::IsolatedNetwork;
use rustix::process::{
    DumpableBehavior, Pid, Signal, WaitOptions, WaitStatus, geteuid, set_child_subreaper, set_dumpable_behavior,
    set_parent_process_death_signal,
};

use super::{
    calls,
    confine::Confined,
    life::{self, Life},
    mounts,
    named::Named,
    plan::{FAULT, Note, Plan, Space, TARGET_PREFIX, Wall, Walls},
    user,
    watch::{self, Verdict, Watch},
};

/// Between two looks at what is used.
const LOOK: Duration = Duration::from_millis(200);
/// Looks at whether all have ended, where no namespace ends them.
const LAST_LOOKS: u32 = 100;
/// Between these.
const LAST_LOOK: Duration = Duration::from_millis(20);
/// What a shell adds to the number of the signal that ended a process.
const BY_SIGNAL: i32 = 128;
/// Execution by anybody.
const EXECUTABLE: u32 = 0o111;
/// Bounds the user namespaces within this one.
const USER_NAMESPACES: &str = "/proc/sys/user/max_user_namespaces";

/// Where a process is about to live.
struct House {
    walls: Walls,
    /// Its home, working directory and place for temporary files.
    home: PathBuf,
    /// The same, if it has to be removed afterwards.
    left_over: Option<PathBuf>,
    /// What stands in place of namespaces.
    confined: Option<Confined>,
}

/// Starts the process within its walls; its exit status.
pub(super) fn run(plan: &Plan, program: &OsStr, args: &[OsString]) -> u8 {
    let environment: Vec<(OsString, OsString)> = std::env::vars_os().filter_map(of_target).collect();
    let path = environment.iter().find(|(name, _)| name == "PATH").map(|(_, value)| value.as_os_str());
    let Some(program) = found(program, path, plan.cwd.as_deref()) else {
        let text = format!("`{}` is no program on PATH", program.to_string_lossy());
        life::say(plan, &Note::NotRun(text));
        return FAULT;
    };
    let house = match prepare(plan, &Named::of(plan, &program, args)) {
        Ok(house) => house,
        Err(cause) => {
            life::say(plan, &Note::Refused(cause));
            return FAULT;
        }
    };
    life::say(plan, &Note::Walls(house.walls.clone()));
    let cwd = plan.cwd.as_ref().map_or_else(|| house.home.clone(), PathBuf::from);
    let mut command = Command::new(&program);
    command.args(args).env_clear().env("HOME", &house.home).env("TMPDIR", &house.home).envs(environment);
    command.current_dir(&cwd);
    let is_watched = house.walls.stands(Wall::Limits);
    let live = async {
        let mut life = Life::begin()?;
        let child = match &house.confined {
            Some(confined) => confined.start(&mut command)?,
            None => command.spawn()?,
        };
        life::let_go()?;
        let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
        Ok::<u8, io::Error>(watch_over(plan, pid, is_watched, &mut life).await)
    };
    let code = life::runtime().and_then(|runtime| runtime.block_on(live)).unwrap_or_else(|cause| {
        life::say(plan, &Note::NotRun(format!("`{}` in {}: {cause}", program.display(), cwd.display())));
        FAULT
    });
    if plan.space == Space::None {
        end_all();
    }
    if let Some(folder) = house.left_over {
        // Somebody else's tidying may have come first.
        let _ = fs::remove_dir_all(folder);
    }
    code
}

/// Builds the walls. An error is why the process must not start.
fn prepare(plan: &Plan, named: &Named) -> Result<House, String> {
    let isolation = &plan.isolation;
    let mut walls = Walls::default();
    let (as_root, mut is_counted) = (plan.space == Space::AsRoot, plan.space == Space::AsUser);
    let mut has_own_files = false;
    if plan.space == Space::None {
        walls = Walls::none(isolation, &plan.no_space);
        walls.missing.remove(&Wall::Limits);
        walls.missing.remove(&Wall::User);
        walls.missing.remove(&Wall::Calls);
        // What its parents leave behind becomes this one's.
        let _ = set_child_subreaper(Some(Pid::INIT));
    } else {
        let made = mounts::make(plan, &named.seen, as_root)?;
        // The folder that the node runs in is the old view: ways that begin there pass by what hides it.
        std::env::set_current_dir("/").map_err(|cause| format!("/: {cause}"))?;
        has_own_files = made.files.is_ok();
        if let Err(cause) = made.files {
            if isolation.network == IsolatedNetwork::None {
                walls.missing.insert(Wall::Network, format!("sockets of services may be seen: {cause}"));
            }
            walls.missing.insert(Wall::Files, cause);
        }
        if let Err(cause) = made.processes {
            walls.missing.insert(Wall::Limits, format!("its processes cannot be seen: {cause}"));
            walls.missing.insert(Wall::Processes, cause);
        }
    }
    if let Some(path) = named.closed_to_nobody().filter(|_| as_root) {
        let cause = format!("{} is closed to the user {}", path.display(), user::NOBODY);
        walls.missing.insert(Wall::User, cause);
    } else if as_root {
        match user::become_nobody() {
            Ok(has_namespace) => is_counted = has_namespace,
            Err(cause) => _ = walls.missing.insert(Wall::User, cause.to_string()),
        }
    } else if geteuid().is_root() {
        walls.missing.insert(Wall::User, "the node is root, and may not become another user".to_owned());
    }
    if is_counted {
        // None within: each would be a way to parts of the kernel that it needs not. Older kernels know no bound.
        let _ = fs::write(USER_NAMESPACES, "0");
    }
    if plan.space != Space::None
        && geteuid().is_root()
        && let Err(cause) = mounts::close_to_owner()
    {
        walls.missing.insert(Wall::Files, format!("what root owns is open to it: {cause}"));
    }
    if let Err(cause) = user::bound(isolation, is_counted) {
        walls.missing.insert(Wall::Limits, cause.to_string());
    }
    if let Err(cause) = user::drop_rights() {
        walls.missing.insert(Wall::User, cause.to_string());
    }
    // Who can look into this process knows what begins its notes.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|cause| cause.to_string())?;
    if plan.space != Space::None {
        // The outer stage ends by SIGKILL alone, and then nothing must be left. Not before: a change of user forgets it.
        set_parent_process_death_signal(Some(Signal::KILL)).map_err(|cause| cause.to_string())?;
    }
    // The last: what is above makes some of these calls.
    if let Err(cause) = calls::close() {
        walls.missing.insert(Wall::Calls, cause);
    }
    if has_own_files {
        let refusal = walls.refusal(isolation);
        let house = House { walls, home: mounts::OWN.into(), left_over: None, confined: None };
        return refusal.map_or(Ok(house), Err);
    }
    let home = std::env::temp_dir().join(format!("provost-stdio-{:016x}", rand::random::<u64>()));
    let made = DirBuilder::new().mode(0o700).create(&home);
    made.map_err(|cause| format!("{} cannot be made: {cause}", home.display()))?;
    let confined = Confined::build(plan, named, &home, &mut walls);
    match confined.and_then(|confined| walls.refusal(isolation).map_or(Ok(confined), Err)) {
        Ok(confined) => Ok(House { walls, left_over: Some(home.clone()), home, confined }),
        Err(cause) => {
            let _ = fs::remove_dir(&home);
            Err(cause)
        }
    }
}

/// A variable of the plugin's process among those of the launcher.
fn of_target((name, value): (OsString, OsString)) -> Option<(OsString, OsString)> {
    let own = name.as_bytes().strip_prefix(TARGET_PREFIX.as_bytes())?;
    Some((OsString::from_vec(own.to_vec()), value))
}

/// The program's file, as `execvp` would find it.
fn found(program: &OsStr, path: Option<&OsStr>, cwd: Option<&str>) -> Option<PathBuf> {
    if program.as_bytes().contains(&b'/') {
        let program = cwd.map_or_else(|| PathBuf::from(program), |cwd| Path::new(cwd).join(program));
        return std::path::absolute(program).ok();
    }
    let is_program =
        |file: &PathBuf| fs::metadata(file).is_ok_and(|m| m.is_file() && m.permissions().mode() & EXECUTABLE != 0);
    std::env::split_paths(path?).map(|folder| folder.join(program)).find(is_program)
}

/// Until the process has ended, uses too much, or the node is gone.
async fn watch_over(plan: &Plan, pid: i32, is_watched: bool, life: &mut Life) -> u8 {
    let mut watch = Watch::new(&plan.isolation, Instant::now());
    let mut looked = Instant::now();
    loop {
        if let Some(code) = reap(pid) {
            return code;
        }
        let now = Instant::now();
        if life.is_abandoned(now) {
            return FAULT;
        }
        if is_watched && now.saturating_duration_since(looked) >= LOOK {
            looked = now;
            match watch.look(now) {
                Verdict::Fine => {}
                Verdict::Pause(time) => {
                    watch::signal_all(Signal::STOP);
                    tokio::time::sleep(time).await;
                    watch::signal_all(Signal::CONT);
                }
                Verdict::End(cause) => {
                    life::say(plan, &Note::Ended(cause));
                    return FAULT;
                }
            }
        }
        life.wait(LOOK).await;
    }
}

/// Takes leave of all that have ended; the exit status of the process itself, if it is among them.
fn reap(pid: i32) -> Option<u8> {
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((ended, status))) if ended.as_raw_pid() == pid => return Some(code(status)),
            Ok(Some(_)) => {}
            Ok(None) => return None,
            // There is nobody left to wait for.
            Err(_) => return Some(FAULT),
        }
    }
}

fn code(status: WaitStatus) -> u8 {
    let code = status.exit_status().or_else(|| status.terminating_signal().map(|signal| BY_SIGNAL + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(FAULT)
}

/// Ends what no namespace ends.
fn end_all() {
    for _ in 0..LAST_LOOKS {
        if !watch::signal_all(Signal::KILL) {
            return;
        }
        while matches!(rustix::process::wait(WaitOptions::NOHANG), Ok(Some(_))) {}
        std::thread::sleep(LAST_LOOK);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_as_a_shell_finds_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, mode: u32| {
            let path = folder.path().join(name);
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        let (plain, program) = (file("plain", 0o644), file("program", 0o755));
        let path = std::env::join_paths([Path::new("/nonexistent"), folder.path()]).unwrap();
        let find = |name: &str| found(OsStr::new(name), Some(&path), None);
        assert_eq!(find("program"), Some(program.clone()));
        assert_eq!(find("plain"), None);
        assert_eq!(find(plain.to_str().unwrap()), Some(plain.clone()), "a path is what it is");
        assert_eq!(
            found(OsStr::new("./program"), None, folder.path().to_str()).unwrap().file_name(),
            program.file_name()
        );
    }

    #[test]
    fn variables_of_the_launcher_stay_with_it() {
        let pair = |name: &str| (OsString::from(name), OsString::from("v"));
        assert_eq!(of_target(pair("PROVOST_STDIO_ENV_LD_PRELOAD")), Some(pair("LD_PRELOAD")));
        assert_eq!(of_target(pair("PROVOST_STDIO_PLAN")), None);
    }
}
