//! What the process sees of the machine's files: everything read-only, some of it empty.
//!
//! Runs in a mount namespace of its own. A folder is hidden by an empty one over it; what must be seen all the same is
//! opened before and bound into it after.

use std::{
    ffi::{CStr, OsString},
    fs::{self, File, Permissions},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{
            ffi::OsStringExt,
            fs::{MetadataExt, PermissionsExt, symlink},
        },
    },
    path::{Path, PathBuf},
};

use provost_types::IsolatedNetwork;
use rustix::{
    fs::{Mode, OFlags, open},
    io::Errno,
    mount::{MountFlags, MountPropagationFlags, mount, mount_bind_recursive, mount_change, mount_remount},
};

use super::{plan::Plan, user::NOBODY};

/// The folder that is home, working directory and place for temporary files.
pub(super) const OWN: &str = "/tmp";
/// Folders of its own that it may write to, and how large they may grow.
const OWN_FOLDERS: [(&str, &CStr); 2] = [(OWN, c"mode=1777,size=256m"), ("/dev/shm", c"mode=1777,size=64m")];
/// What a folder that only hides holds: the way to what is bound into it.
const HIDING: &CStr = c"mode=0755,size=1m";
/// Where sockets of services lie, of container engines too.
pub(super) const SOCKETS: &str = "/run";
/// Parts of a path like `/root`.
const AT_THE_TOP: usize = 2;
/// The new process tree.
const PROC: &str = "/proc";
/// Devices, and nothing else of them for a process that stays root: its owner may open a disk without any right.
const DEVICES: &str = "/dev";
/// Those that programs need.
const PLAIN_DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
/// What else they expect among them.
const DEVICE_LINKS: [(&str, &str); 4] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];
/// Execution by others: of a folder, that they may pass.
const PASS: u32 = 0o001;

/// A folder, or a file, that is seen though what it lies in is hidden.
struct Kept {
    path: PathBuf,
    is_folder: bool,
    /// Keeps it open until it is bound.
    file: OwnedFd,
}

/// What became of it.
pub(super) struct Made {
    /// Whether it sees the files as it should.
    pub(super) files: Result<(), String>,
    /// Whether `/proc` shows it its own processes.
    pub(super) processes: Result<(), String>,
}

/// Makes the view, in which what the command names is. The error is about what the document names.
pub(super) fn make(plan: &Plan, named: &[PathBuf], as_nobody: bool) -> Result<Made, String> {
    let private = mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC);
    if let Err(cause) = on(Path::new("/"), private) {
        return Ok(Made { files: Err(cause.clone()), processes: Err(cause) });
    }
    let writable = existing("writable", &plan.isolation.writable)?;
    let mut seen = existing("readable", &plan.isolation.readable)?;
    seen.extend(named.iter().cloned());
    seen.extend(writable.iter().cloned());
    seen.sort();
    seen.dedup();
    let hidden = hidden(plan, &seen, as_nobody);
    let mut kept = Vec::new();
    for path in seen.into_iter().filter(|path| hidden.iter().any(|(folder, _)| path.starts_with(folder))) {
        // Not the whole of what is hidden: `/tmp` stays its own.
        if hidden.iter().any(|(folder, _)| *folder == path) {
            continue;
        }
        let file = held(&path)?;
        kept.push(Kept { is_folder: path.is_dir(), path, file });
    }
    // What is bound into a hidden folder may bring a folder of the node's along: it is hidden again.
    let is_again = |path: &PathBuf| hidden.iter().any(|(folder, _)| path.starts_with(folder) && path != folder);
    let again: Vec<PathBuf> = real(&plan.hidden).filter(is_again).collect();
    let (late, early): (Vec<&Kept>, Vec<&Kept>) =
        kept.iter().partition(|kept| again.iter().any(|folder| kept.path.starts_with(folder)));
    let files = hide(&hidden).and_then(|()| early.iter().try_for_each(|kept| bind(kept, &hidden)));
    let files = files.and_then(|()| {
        let brought: Vec<_> = again.iter().filter(|path| path.is_dir()).map(|path| (path.clone(), HIDING)).collect();
        hide(&brought)?;
        // Not the whole of it here either.
        let mut late = late.iter().filter(|kept| !again.contains(&kept.path));
        late.try_for_each(|kept| bind(kept, &hidden))
    });
    let files = files.and_then(|()| {
        // What lies in a hidden folder was bound already.
        let mut rest = writable.iter().filter(|path| !kept.iter().any(|kept| kept.path == **path));
        rest.try_for_each(|path| on(path, mount_bind_recursive(path, path)))
    });
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let processes = on(Path::new(PROC), mount("proc", PROC, "proc", flags, None::<&CStr>));
    let files = files.and_then(|()| seal(&writable));
    Ok(Made { files, processes })
}

/// For a process that stays root, though without rights: whoever is root may write to the kernel's settings (one names
/// a program that the kernel runs as root) and open devices for owning the files.
pub(super) fn close_to_owner() -> Result<(), String> {
    // The devices are mounts of their own.
    let sealed = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    let devices = Path::new(DEVICES);
    let paths = PLAIN_DEVICES.iter().map(|name| devices.join(name)).filter(|path| path.exists());
    let plain = paths.map(|path| held(&path).map(|file| (file, path))).collect::<Result<Vec<_>, String>>()?;
    hide(&[(devices.to_owned(), HIDING)])?;
    for (file, path) in &plain {
        put(file, path)?;
    }
    for (name, to) in DEVICE_LINKS {
        let link = devices.join(name);
        symlink(to, &link).map_err(|cause| format!("{}: {cause}", link.display()))?;
    }
    for (path, how) in OWN_FOLDERS.iter().filter(|(path, _)| Path::new(path).starts_with(devices)) {
        fs::create_dir(path).map_err(|cause| format!("{path}: {cause}"))?;
        hide(&[(PathBuf::from(path), *how)])?;
    }
    on(devices, mount_remount(devices, sealed, ""))?;
    on(Path::new(PROC), mount_remount(PROC, sealed | MountFlags::NOEXEC, ""))
}

/// Holds what lies at a path without opening it: a pipe would wait for its other end, and a socket cannot be opened.
fn held(path: &Path) -> Result<OwnedFd, String> {
    open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(|cause| format!("{} cannot be opened: {cause}", path.display()))
}

/// Those that there are, as they really are.
pub(super) fn real(paths: &[PathBuf]) -> impl Iterator<Item = PathBuf> {
    paths.iter().filter_map(|path| fs::canonicalize(path).ok())
}

/// Those that a field of the document names, as they really are.
pub(super) fn existing<'a>(field: &str, paths: impl IntoIterator<Item = &'a String>) -> Result<Vec<PathBuf>, String> {
    let real = |path: &String| fs::canonicalize(path).map_err(|cause| format!("`{field}` names {path}: {cause}"));
    paths.into_iter().map(real).collect()
}

/// The folders to hide, as they really are, and what with; none within another.
fn hidden(plan: &Plan, seen: &[PathBuf], as_nobody: bool) -> Vec<(PathBuf, &'static CStr)> {
    let mut wanted: Vec<(PathBuf, &CStr)> = OWN_FOLDERS.iter().map(|(path, how)| (PathBuf::from(path), *how)).collect();
    if plan.isolation.network == IsolatedNetwork::None {
        wanted.push((SOCKETS.into(), HIDING));
    }
    wanted.extend(plan.hidden.iter().map(|path| (path.clone(), HIDING)));
    if as_nobody {
        let closed = seen.iter().filter_map(|path| closed_above(path));
        // A script's own folder is seen with it, unless it lies at the top, as the home of root does.
        let closed = closed.filter(|path| !seen.contains(path) || path.components().count() <= AT_THE_TOP);
        wanted.extend(closed.map(|path| (path, HIDING)));
    }
    let mut hidden: Vec<(PathBuf, &CStr)> = Vec::new();
    let mut real: Vec<_> =
        wanted.into_iter().filter_map(|(path, how)| Some((fs::canonicalize(path).ok()?, how))).collect();
    // Parents come first.
    real.sort_by(|a, b| a.0.cmp(&b.0));
    for (path, how) in real {
        if path.is_dir() && path != Path::new("/") && !hidden.iter().any(|(above, _)| path.starts_with(above)) {
            hidden.push((path, how));
        }
    }
    hidden
}

/// The highest folder on the way that nobody may not pass: over it an empty one is put, with a way through.
fn closed_above(path: &Path) -> Option<PathBuf> {
    let mut ways: Vec<&Path> = path.ancestors().skip(1).collect();
    ways.reverse();
    let is_closed = |way: &&Path| {
        fs::metadata(way).is_ok_and(|found| found.mode() & PASS == 0 && found.uid() != NOBODY && found.gid() != NOBODY)
    };
    ways.into_iter().find(is_closed).map(Path::to_owned)
}

fn hide(hidden: &[(PathBuf, &'static CStr)]) -> Result<(), String> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    hidden.iter().try_for_each(|(path, how)| on(path, mount("tmpfs", path, "tmpfs", flags, *how)))
}

fn bind(kept: &Kept, hidden: &[(PathBuf, &'static CStr)]) -> Result<(), String> {
    if !kept.is_folder && kept.path.exists() {
        // With the folder that it lies in.
        return Ok(());
    }
    let within = |way: &&Path| hidden.iter().any(|(folder, _)| way.starts_with(folder) && *way != folder);
    let mut ways: Vec<&Path> = kept.path.ancestors().skip(usize::from(!kept.is_folder)).filter(within).collect();
    ways.reverse();
    for way in ways {
        // Only one that was made now is changed: others are real ones, bound before.
        if fs::create_dir(way).is_ok() {
            fs::set_permissions(way, Permissions::from_mode(0o755))
                .map_err(|cause| format!("{}: {cause}", way.display()))?;
        }
    }
    if kept.is_folder {
        return bind_to(&kept.file, &kept.path);
    }
    put(&kept.file, &kept.path)
}

/// Binds what is held to a file that is made for it.
fn put(file: &OwnedFd, path: &Path) -> Result<(), String> {
    File::create(path).map_err(|cause| format!("{}: {cause}", path.display()))?;
    bind_to(file, path)
}

fn bind_to(file: &OwnedFd, path: &Path) -> Result<(), String> {
    on(path, mount_bind_recursive(format!("/proc/self/fd/{}", file.as_raw_fd()), path))
}

/// Makes every mount read-only but for its own folders and those that it may write to.
fn seal(writable: &[PathBuf]) -> Result<(), String> {
    let table = fs::read("/proc/self/mountinfo").map_err(|cause| format!("the mounts are not known: {cause}"))?;
    for line in table.split(|byte| *byte == b'\n') {
        let mut fields = line.split(|byte| *byte == b' ').skip(4);
        let (Some(point), Some(options)) = (fields.next(), fields.next()) else { continue };
        let point = unescaped(point);
        let has = |option: &[u8]| options.split(|byte| *byte == b',').any(|o| o == option);
        let is_own = OWN_FOLDERS.iter().any(|(own, _)| point == Path::new(own)) || point == Path::new(PROC);
        if is_own || has(b"ro") || writable.iter().any(|path| point.starts_with(path)) {
            continue;
        }
        let mut flags = MountFlags::BIND | MountFlags::RDONLY;
        // Those that it has must be said again.
        for (option, flag) in [
            (&b"nosuid"[..], MountFlags::NOSUID),
            (&b"nodev"[..], MountFlags::NODEV),
            (&b"noexec"[..], MountFlags::NOEXEC),
        ] {
            if has(option) {
                flags |= flag;
            }
        }
        match mount_remount(&point, flags, "") {
            // Another mount lies over it: nobody comes there.
            Err(Errno::INVAL | Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => {}
            remounted => on(&point, remounted)?,
        }
    }
    Ok(())
}

/// A path of `mountinfo`, where spaces and the like are written as `\040`.
fn unescaped(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let digits =
            after.get(..3).filter(|digits| *first == b'\\' && digits.iter().all(|d| (b'0'..=b'7').contains(d)));
        match digits {
            Some(digits) => {
                bytes.push(digits.iter().fold(0u8, |sum, digit| sum.wrapping_mul(8).wrapping_add(digit - b'0')));
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

fn on(path: &Path, done: Result<(), Errno>) -> Result<(), String> {
    done.map_err(|cause| format!("{}: {cause}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_mount_table_are_read() {
        for (field, path) in
            [("/a", "/a"), (r"/a\040b", "/a b"), (r"/a\134", r"/a\"), (r"/a\04", r"/a\04"), (r"\", r"\")]
        {
            assert_eq!(unescaped(field.as_bytes()), Path::new(path), "{field}");
        }
    }
}
