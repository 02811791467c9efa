//! The launcher: what stands between a node and the process of an isolated stdio plugin.
//!
//! Purpose: the node starts its own binary again (`provost __stdio-launch …`), which makes the walls and then the
//! process. So nothing runs between `fork` and `exec`, where next to nothing may, and the walls stand before the first
//! instruction of the plugin.
//!
//! - `plan`: what node and launcher say to each other.
//! - `outer`: enters the namespaces, ends what is within when the node is gone.
//! - `inner`: the first process within: makes the other walls, starts the plugin's process, watches over it.
//! - `life`: what both do while they wait.
//! - `mounts`: what is within sees of the files, `named`: what of them the command names. `user`: as whom it runs. `calls`: what it may
//!   ask of the kernel. `confine`: what it may open where there are no namespaces. `watch`: what it uses.
//!
//! Invariants: variables that the document names are given to the launcher under another name, so that none (such as
//! LD_PRELOAD) acts on it; a wall that is demanded stands, or the plugin's process does not start; what is within
//! cannot write what the node takes for words of its launcher; all of it ends with the node.
//! Left out: control groups (a node rarely has one that it may divide).

#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "there is no launcher elsewhere"))]
mod plan;

#[cfg(target_os = "linux")]
mod calls;
#[cfg(target_os = "linux")]
mod confine;
#[cfg(target_os = "linux")]
mod inner;
#[cfg(target_os = "linux")]
mod life;
#[cfg(target_os = "linux")]
mod mounts;
#[cfg(target_os = "linux")]
mod named;
#[cfg(target_os = "linux")]
mod outer;
#[cfg(target_os = "linux")]
mod user;
#[cfg(target_os = "linux")]
mod watch;

use std::process::ExitCode;

pub(crate) use plan::{ASKED, LAUNCHER_NAME, Note, PLAN_VARIABLE, Plan, Stage, TARGET_PREFIX, demanded};
pub use plan::{Wall, Walls};

/// Runs the launcher if that is what this process was started for. Must be the first thing in `main`: there must be one
/// thread. `None`: it was started for something else.
pub fn launch_if_asked() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    if args.next()? != *ASKED {
        return None;
    }
    let stage = args.next()?;
    let program = args.next()?;
    let code = run(&stage, &program, &args.collect::<Vec<_>>());
    Some(ExitCode::from(code))
}

#[cfg(target_os = "linux")]
fn run(stage: &std::ffi::OsStr, program: &std::ffi::OsStr, args: &[std::ffi::OsString]) -> u8 {
    let plan = std::env::var(PLAN_VARIABLE).ok().and_then(|text| serde_json::from_str::<Plan>(&text).ok());
    let Some(plan) = plan else { return plan::FAULT };
    match stage.to_str() {
        Some(stage) if stage == Stage::Outer.as_str() => outer::run(plan, program, args),
        Some(stage) if stage == Stage::Inner.as_str() => inner::run(&plan, program, args),
        Some(stage) if stage == Stage::Probe.as_str() => outer::probe(&plan),
        _ => plan::FAULT,
    }
}

#[cfg(not(target_os = "linux"))]
fn run(_: &std::ffi::OsStr, _: &std::ffi::OsStr, _: &[std::ffi::OsString]) -> u8 {
    plan::FAULT
}
