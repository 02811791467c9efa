//! As whom a process runs: user, user namespace, capabilities, bounds that the kernel keeps.

use std::{fs, io};

use provost_types::IsolationSpec;
use rustix::{
    process::{
        DumpableBehavior, Gid, Resource, Rlimit, Uid, getegid, geteuid, getrlimit, set_dumpable_behavior, setrlimit,
    },
    thread::{
        CapabilitiesSecureBits, CapabilitySet, CapabilitySets, UnshareFlags, capabilities,
        clear_ambient_capability_set, configure_capability_in_ambient_set, set_capabilities,
        set_capabilities_secure_bits, set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
    },
};

/// As whom plugins run where the node is root: a user that owns nothing.
pub(super) const NOBODY: u32 = 65_534;
/// What the inner stage needs for its work within a user namespace.
const NEEDED: [CapabilitySet; 3] = [CapabilitySet::SYS_ADMIN, CapabilitySet::SETPCAP, CapabilitySet::SYS_RESOURCE];
/// The launcher's own processes, which count among those of the user.
const OWN_PROCESSES: u64 = 2;
/// What one process may reserve, in bounds of what all may use: some reserve much, and the watch needs a moment.
const DATA_FACTOR: u64 = 4;
/// The least that one process may reserve.
const MIN_DATA: u64 = 2 << 30;

/// Leaves namespaces behind.
#[allow(unsafe_code, reason = "the safe form is deprecated")]
pub(super) fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: `FILES` alone makes descriptors of one thread unknown to another one. It is never among the flags, which
    // are constants of this folder; and the launcher has one thread.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(io::Error::from)
}

/// Leaves namespaces behind, that of users among them: this user, and nobody else, is mapped into the new one.
pub(super) fn unshare_with_users(flags: UnshareFlags) -> io::Result<()> {
    // Before it is mapped, everybody within is the user that stands for those who are not.
    let (user, group) = (geteuid(), getegid());
    unshare(flags | UnshareFlags::NEWUSER)?;
    map(user, group)
}

/// Maps one user into the user namespace that was just entered.
fn map(user: Uid, group: Gid) -> io::Result<()> {
    let (user, group) = (user.as_raw(), group.as_raw());
    if let Err(cause) = fs::write("/proc/self/setgroups", "deny")
        && cause.kind() != io::ErrorKind::NotFound
    {
        return Err(cause);
    }
    fs::write("/proc/self/uid_map", format!("{user} {user} 1"))?;
    fs::write("/proc/self/gid_map", format!("{group} {group} 1"))
}

/// Keeps what the inner stage needs over its `exec`.
pub(super) fn keep_rights() -> io::Result<()> {
    let sets = capabilities(None)?;
    set_capabilities(None, CapabilitySets { inheritable: sets.permitted, ..sets })?;
    for needed in NEEDED {
        configure_capability_in_ambient_set(needed, true)?;
    }
    Ok(())
}

/// From root to nobody, in a user namespace of its own where there may be one; whether there is.
pub(super) fn become_nobody() -> io::Result<bool> {
    let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    set_thread_groups(&[])?;
    set_thread_res_gid(group, group, group)?;
    set_thread_res_uid(user, user, user)?;
    // Who changed its user owns no file in its own /proc until it says so.
    set_dumpable_behavior(DumpableBehavior::Dumpable)?;
    match unshare(UnshareFlags::NEWUSER) {
        Ok(()) => map(user, group).map(|()| true),
        Err(_) => Ok(false),
    }
}

/// Gives up all rights for good, also those that a program's file would give.
pub(super) fn drop_rights() -> io::Result<()> {
    let bits = CapabilitiesSecureBits::NO_ROOT
        | CapabilitiesSecureBits::NO_ROOT_LOCKED
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED;
    // Without the right to it nothing is lost, unless it is root: then `exec` would give everything back.
    if let Err(cause) = set_capabilities_secure_bits(bits)
        && geteuid().is_root()
    {
        return Err(cause.into());
    }
    clear_ambient_capability_set()?;
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    set_no_new_privs(true).map_err(io::Error::from)
}

/// The bounds that the kernel keeps. `is_counted`: the user's processes are those within, and nobody else's.
pub(super) fn bound(isolation: &IsolationSpec, is_counted: bool) -> io::Result<()> {
    lower(Resource::Core, 0)?;
    lower(Resource::Nofile, isolation.open_files.into())?;
    let memory = u64::from(isolation.memory_mib) << 20;
    lower(Resource::Data, memory.saturating_mul(DATA_FACTOR).max(MIN_DATA))?;
    if is_counted {
        lower(Resource::Nproc, u64::from(isolation.processes) + OWN_PROCESSES)?;
    }
    Ok(())
}

/// Never raises a bound that is there.
fn lower(resource: Resource, most: u64) -> io::Result<()> {
    let most = getrlimit(resource).maximum.map_or(most, |now| now.min(most));
    setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) }).map_err(io::Error::from)
}
