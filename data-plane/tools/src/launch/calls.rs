//! Which calls of the kernel a plugin's process may make.
//!
//! A list of those that it may not: what servers call is not known here, and what none of them needs is. They are ways to
//! look into other processes, to change the machine, to new namespaces, and to parts of the kernel that were doors
//! before. Filters stay for good, for all that the process starts, and over `exec`.
//!
//! Left out: what files, rights and namespaces bound already, and arguments in memory, which a filter cannot see.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter,
};

/// Calls that end with "not permitted".
const REFUSED: &[libc::c_long] = &[
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // Programs, probes and traps within the kernel.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_fanotify_init,
    // Namespaces and what is mounted.
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_by_handle_at,
    // Keys of others who are the same user.
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    // The machine.
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
];
/// Calls that this kernel seems not to have: who makes them knows another way. Rings of requests pass by every filter,
/// and what a filter must see of `clone3` is in memory.
const UNKNOWN: &[libc::c_long] =
    &[libc::SYS_clone3, libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];
/// Namespaces that `clone` must not make.
const NAMESPACES: [libc::c_int; 7] = [
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
];
/// Types into the terminal that it has: TIOCSTI and TIOCLINUX of `asm-generic/ioctls.h`.
const TYPES: [u64; 2] = [0x5412, 0x541c];

/// Closes the calls to this thread and all that it starts, for good; no rights come by `exec` any more.
pub(super) fn close() -> Result<(), String> {
    // Neither closes what it takes to close the other.
    programs()?.iter().try_for_each(apply)
}

/// Lets this thread and all that it starts open no socket, of whatever kind; pairs of sockets, which lead nowhere else,
/// there may be. Beside [`close`], which knows the second numbers of calls.
pub(super) fn close_sockets() -> Result<(), String> {
    let sockets = [(libc::SYS_socket, Vec::new())].into();
    apply(&program(sockets, libc::EPERM).map_err(no_filter)?)
}

fn apply(program: &BpfProgram) -> Result<(), String> {
    apply_filter(program).map_err(|cause| format!("no filter of system calls: {cause}"))
}

fn no_filter(cause: seccompiler::BackendError) -> String {
    format!("no filter of system calls for this machine: {cause}")
}

/// Those calls fail so, and all others pass.
fn program(
    calls: BTreeMap<i64, Vec<SeccompRule>>,
    errno: libc::c_int,
) -> Result<BpfProgram, seccompiler::BackendError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let action = SeccompAction::Errno(errno.unsigned_abs());
    BpfProgram::try_from(SeccompFilter::new(calls, SeccompAction::Allow, action, arch)?)
}

fn programs() -> Result<[BpfProgram; 2], String> {
    let mut refused: BTreeMap<i64, Vec<SeccompRule>> = REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    let namespaces = NAMESPACES.iter().map(|flag| {
        // The bits of a flag, in a word that has no sign.
        let flag = u64::from(flag.unsigned_abs());
        rule(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(flag), flag)
    });
    refused.insert(libc::SYS_clone, namespaces.collect::<Result<_, _>>().map_err(no_filter)?);
    let types = TYPES.iter().map(|request| rule(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, *request));
    refused.insert(libc::SYS_ioctl, types.collect::<Result<_, _>>().map_err(no_filter)?);
    let unknown = UNKNOWN.iter().map(|call| (*call, Vec::new())).collect();
    let refused = program(refused, libc::EPERM).map_err(no_filter)?;
    let unknown = program(unknown, libc::ENOSYS).map_err(no_filter)?;
    Ok([refused, without_second_numbers(unknown)])
}

fn rule(
    argument: u8,
    length: SeccompCmpArgLen,
    how: SeccompCmpOp,
    value: u64,
) -> Result<SeccompRule, seccompiler::BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(argument, length, how, value)?])
}

/// Some kernels for x86-64 know every call by a second number (x32), which lists of numbers miss: there is none.
#[cfg(target_arch = "x86_64")]
fn without_second_numbers(program: BpfProgram) -> BpfProgram {
    use seccompiler::sock_filter;

    /// BPF_LD | BPF_W | BPF_ABS: the number of the call is the first word of `struct seccomp_data`.
    const LOAD: u16 = 0x20;
    /// BPF_JMP | BPF_JGE | BPF_K
    const JUMP_IF_AT_LEAST: u16 = 0x35;
    /// BPF_RET | BPF_K
    const RETURN: u16 = 0x06;
    /// `__X32_SYSCALL_BIT`
    const SECOND: u32 = 0x4000_0000;
    let unknown = u32::from(SeccompAction::Errno(libc::ENOSYS.unsigned_abs()));
    let mut all = vec![
        sock_filter { code: LOAD, jt: 0, jf: 0, k: 0 },
        sock_filter { code: JUMP_IF_AT_LEAST, jt: 0, jf: 1, k: SECOND },
        sock_filter { code: RETURN, jt: 0, jf: 0, k: unknown },
    ];
    all.extend(program);
    all
}

#[cfg(not(target_arch = "x86_64"))]
fn without_second_numbers(program: BpfProgram) -> BpfProgram {
    program
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{io, process::Command, thread};

    use super::*;

    /// Makes a call with these two arguments, and zeros; how it failed.
    #[allow(unsafe_code, reason = "calls that nothing safe makes")]
    fn failure(call: libc::c_long, first: libc::c_long, second: libc::c_long) -> Option<i32> {
        // SAFETY: those below fail before they read or write anything: by their number or by their first arguments.
        let ended = unsafe { libc::syscall(call, first, second, 0, 0, 0) };
        (ended < 0).then(|| io::Error::last_os_error().raw_os_error()).flatten()
    }

    #[test]
    fn closed_calls_fail_on_this_thread_alone_and_the_rest_goes_on() {
        // A request that is none; a structure of no size; a pipe's end that is none.
        let calls = [(libc::SYS_ptrace, -1, -1), (libc::SYS_clone3, 0, 0), (libc::SYS_ioctl, -1, 0x5412)];
        let failures = move || calls.map(|(call, first, second)| failure(call, first, second));
        let closed = thread::spawn(move || {
            close().unwrap();
            let other = failure(libc::SYS_ioctl, -1, 0x5413);
            let status = Command::new("true").status().unwrap();
            let within = thread::spawn(failures).join().unwrap();
            (failures(), within, other, status.success())
        });
        let (here, within, other, runs) = closed.join().unwrap();
        let expect = [Some(libc::EPERM), Some(libc::ENOSYS), Some(libc::EPERM)];
        assert_eq!((here, within), (expect, expect), "threads inherit it");
        assert_eq!(other, Some(libc::EBADF), "one argument is looked at");
        assert!(runs, "no program starts");
        assert!(failures() != expect, "it left its thread");
    }

    #[test]
    fn namespaces_are_not_made() {
        let made = thread::spawn(|| {
            close().unwrap();
            let by_clone = failure(libc::SYS_clone, libc::c_long::from(libc::CLONE_NEWUSER | libc::SIGCHLD), 0);
            let by_unshare = failure(libc::SYS_unshare, libc::c_long::from(libc::CLONE_NEWUSER), 0);
            (by_clone, by_unshare)
        });
        assert_eq!(made.join().unwrap(), (Some(libc::EPERM), Some(libc::EPERM)));
    }
}
