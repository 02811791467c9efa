//! The outer stage: enters the namespaces and waits for the inner one, from where nobody within sees it.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    os::{
        fd::{BorrowedFd, RawFd},
        unix::process::{CommandExt, ExitStatusExt},
    },
    process::{Child, Command, ExitStatus},
    time::{Duration, Instant},
};

use provost_types::IsolatedNetwork;
use rustix::{
    io::{FdFlags, fcntl_setfd},
    process::{geteuid, setsid},
    thread::UnshareFlags,
};

use super::{
    inner,
    life::{self, Life},
    plan::{ASKED, FAULT, LAUNCHER_NAME, Note, PLAN_VARIABLE, Plan, Space, Stage},
    user,
};

/// This very program, also where its file was replaced.
const SELF: &str = "/proc/self/exe";
/// Between two looks at whether the node is still there.
const LOOK: Duration = Duration::from_millis(500);
/// What a shell adds to the number of the signal that ended a process.
const BY_SIGNAL: i32 = 128;

/// Builds what the plan says, and ends when all of it has.
pub(super) fn run(mut plan: Plan, program: &OsStr, args: &[OsString]) -> u8 {
    keep_only_stdio();
    let entered = begin(&mut plan).and_then(|()| enter(&mut plan)).and_then(|()| {
        if plan.space == Space::None {
            return Ok(inner::run(&plan, program, args));
        }
        let wait = async {
            let mut life = Life::begin()?;
            let text = serde_json::to_string(&plan).map_err(io::Error::other)?;
            let mut command = Command::new(SELF);
            command.arg0(LAUNCHER_NAME);
            command.args([ASKED, Stage::Inner.as_str()]).arg(program).args(args).env(PLAN_VARIABLE, text);
            let inner = command.spawn()?;
            life::let_go()?;
            wait_for(inner, &mut life).await
        };
        life::runtime()?.block_on(wait)
    });
    entered.unwrap_or_else(|cause| {
        life::say(&plan, &Note::NotRun(format!("its launcher failed: {cause}")));
        FAULT
    })
}

/// A session of its own, which is a group of its own too: who has the node's terminal can write into what the operator
/// types there. And the working directory by its whole path: what is within has no other view of it.
fn begin(plan: &mut Plan) -> io::Result<()> {
    setsid()?;
    plan.cwd = plan.cwd.as_deref().map(whole).transpose()?;
    Ok(())
}

/// The whole path of a folder.
fn whole(folder: &str) -> io::Result<String> {
    let whole = std::path::absolute(folder)?.into_os_string().into_string();
    whole.map_err(|path| io::Error::other(format!("`cwd` is {}, which is not UTF-8", path.display())))
}

/// Says by its exit status whether there may be a user namespace: half-way in one there is no way back.
pub(super) fn probe(plan: &Plan) -> u8 {
    if as_user(plan).is_ok() { 0 } else { FAULT }
}

async fn wait_for(mut inner: Child, life: &mut Life) -> io::Result<u8> {
    loop {
        if let Some(status) = inner.try_wait()? {
            return Ok(code(status));
        }
        if life.is_abandoned(Instant::now()) {
            // The first process of a namespace takes all others with it.
            inner.kill()?;
        }
        life.wait(LOOK).await;
    }
}

fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| BY_SIGNAL + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(FAULT)
}

/// Enters the namespaces, or notes why there are none. An error leaves the process somewhere between.
fn enter(plan: &mut Plan) -> io::Result<()> {
    if geteuid().is_root() && user::unshare(flags(plan)).is_ok() {
        plan.space = Space::AsRoot;
        return Ok(());
    }
    let probe = Command::new(SELF).arg0(LAUNCHER_NAME).args([ASKED, Stage::Probe.as_str(), "-"]).status();
    match probe {
        Ok(status) if status.success() => {
            as_user(plan)?;
            plan.space = Space::AsUser;
        }
        Ok(_) => "the machine permits no user namespaces to the node".clone_into(&mut plan.no_space),
        Err(cause) => plan.no_space = format!("the launcher cannot start itself: {cause}"),
    }
    Ok(())
}

fn as_user(plan: &Plan) -> io::Result<()> {
    user::unshare_with_users(flags(plan))?;
    user::keep_rights()
}

fn flags(plan: &Plan) -> UnshareFlags {
    let flags = UnshareFlags::NEWPID | UnshareFlags::NEWNS | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS;
    match plan.isolation.network {
        IsolatedNetwork::None => flags | UnshareFlags::NEWNET,
        IsolatedNetwork::Host => flags,
    }
}

/// Lets no descriptor but the three go on to the plugin: whoever started the node may have left some open in it.
#[allow(unsafe_code, reason = "descriptors that this process was born with have no owner in it")]
fn keep_only_stdio() {
    let Ok(mut folder) = fs::read_dir("/proc/self/fd") else { return };
    let open: Vec<RawFd> =
        folder.by_ref().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for number in open.into_iter().filter(|number| *number > 2) {
        // SAFETY: it was open a moment ago, in a process of one thread that closes none meanwhile: `folder`, which is
        // among them, is still there. The borrow ends with the call. `tests/upstream/isolation.rs` leaves one open.
        let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
        // One that cannot be marked is not open.
        let _ = fcntl_setfd(borrowed, FdFlags::CLOEXEC);
    }
    drop(folder);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_working_directory_is_a_whole_path() {
        let here = std::env::current_dir().unwrap();
        assert_eq!(whole("a").unwrap(), here.join("a").to_str().unwrap());
        assert_eq!(whole("/a").unwrap(), "/a");
    }
}
