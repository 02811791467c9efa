//! What a command names of the files: it is seen, whatever around it is hidden.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::Read,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

use super::{plan::Plan, user::NOBODY};

/// Folders of programs whose libraries lie beside them, in the folder above.
const OF_PROGRAMS: [&str; 3] = ["bin", "sbin", "shims"];
/// Others may read this file, or list this folder.
const READ: u32 = 0o004;
/// Others may run this file, or pass this folder.
const PASS: u32 = 0o001;

/// What the kernel reads of a script to find its interpreter.
const FIRST_LINE: u64 = 256;

/// See the module.
pub(super) struct Named {
    /// Files and folders without which the process is of no use.
    needed: Vec<PathBuf>,
    /// They, and the folders that they lie in: a script reads what lies beside it.
    pub(super) seen: Vec<PathBuf>,
}

impl Named {
    /// By the program, its arguments (also such as `--config=/etc/a.json`) and the working directory. What lies in a
    /// folder that nobody is to see is not seen for being named.
    pub(super) fn of(plan: &Plan, program: &Path, args: &[OsString]) -> Self {
        let mut needed: Vec<PathBuf> = vec![program.to_owned()];
        needed.extend(interpreter(program));
        needed.extend(args.iter().filter_map(|arg| path_in(arg)));
        needed.extend(plan.cwd.iter().map(PathBuf::from));
        let real: Vec<PathBuf> = needed.iter().filter_map(|path| fs::canonicalize(path).ok()).collect();
        needed.extend(real);
        let hidden: Vec<PathBuf> = plan.hidden.iter().filter_map(|path| fs::canonicalize(path).ok()).collect();
        needed.retain(|path| path.exists() && !hidden.iter().any(|folder| path.starts_with(folder)));
        needed.sort();
        needed.dedup();
        let mut seen = needed.clone();
        for path in needed.iter().filter(|path| path.is_file()) {
            let Some(folder) = path.parent() else { continue };
            seen.push(folder.to_owned());
            let is_of_programs = OF_PROGRAMS.iter().any(|name| folder.ends_with(name));
            seen.extend(folder.parent().filter(|_| is_of_programs).map(Path::to_owned));
        }
        Self { needed, seen }
    }

    /// The first that the user nobody could not read, as the files are seen now.
    pub(super) fn closed_to_nobody(&self) -> Option<&Path> {
        self.needed.iter().find(|path| !is_open(path)).map(PathBuf::as_path)
    }
}

/// The program that runs a script: commands of Python's environments are scripts.
fn interpreter(program: &Path) -> Option<PathBuf> {
    let mut start = Vec::new();
    if fs::metadata(program).ok()?.is_file() {
        File::open(program).ok()?.take(FIRST_LINE).read_to_end(&mut start).ok()?;
    }
    let line = start.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let word = line.split(u8::is_ascii_whitespace).find(|word| !word.is_empty())?;
    Some(PathBuf::from(OsStr::from_bytes(word))).filter(|path| path.is_absolute())
}

/// The path in an argument, if there is something at it.
fn path_in(arg: &OsStr) -> Option<PathBuf> {
    let bytes = arg.as_bytes();
    let value = bytes.iter().position(|byte| *byte == b'=').and_then(|at| bytes.get(at + 1..));
    let texts = [Some(bytes), value].into_iter().flatten();
    texts.map(|text| PathBuf::from(OsStr::from_bytes(text))).find(|path| path.is_absolute() && path.exists())
}

fn is_open(path: &Path) -> bool {
    let others = |path: &Path, want: u32| {
        let found = fs::metadata(path);
        found.is_ok_and(|found| found.uid() == NOBODY || found.gid() == NOBODY || found.mode() & want == want)
    };
    let want = if path.is_dir() { READ | PASS } else { READ };
    others(path, want) && path.ancestors().skip(1).all(|folder| others(folder, PASS))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{fs::Permissions, os::unix::fs::PermissionsExt};

    use super::*;

    fn plan(hidden: &[&Path]) -> Plan {
        Plan {
            nonce: String::new(),
            isolation: Default::default(),
            cwd: None,
            hidden: hidden.iter().map(|path| path.to_path_buf()).collect(),
            space: Default::default(),
            no_space: String::new(),
        }
    }

    #[test]
    fn what_a_command_names_is_seen_with_what_lies_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        let file = |name: &str| {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "").unwrap();
            path
        };
        let (program, script) = (file("python/bin/python3"), file("servers/one.py"));
        let (config, secret) = (file("conf/a.json"), file("data/key"));
        let mut with_config = OsString::from("--config=");
        with_config.push(&config);
        let args = [script.clone().into(), with_config, secret.clone().into(), "/no/such".into(), "relative".into()];
        let named = Named::of(&plan(&[&root.join("data")]), &program, &args);
        for path in [
            &script,
            &root.join("servers"),
            &config,
            &root.join("conf"),
            &program,
            &root.join("python/bin"),
            &root.join("python"),
        ] {
            assert!(named.seen.contains(path), "{}", path.display());
        }
        assert!(
            !named.seen.iter().any(|path| path.starts_with(root.join("data")) || *path == root),
            "{:?}",
            named.seen
        );
    }

    #[test]
    fn the_interpreter_of_a_script_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let (script, python) = (dir.path().join("server"), dir.path().join("venv/bin/python"));
        fs::create_dir_all(python.parent().unwrap()).unwrap();
        fs::write(&python, "").unwrap();
        for (line, is_seen) in [
            (format!("#!{}\nimport os\n", python.display()), true),
            (format!("#! {} -I", python.display()), true),
            (format!("# {}\n", python.display()), false),
            ("#!python\n".to_owned(), false),
        ] {
            fs::write(&script, &line).unwrap();
            let seen = Named::of(&plan(&[]), &script, &[]).seen;
            assert_eq!(seen.contains(&dir.path().join("venv")), is_seen, "{line}: {seen:?}");
        }
    }

    #[test]
    fn what_others_may_not_read_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        let script = root.join("a.py");
        fs::write(&script, "").unwrap();
        let closed = |folder: u32, file: u32| {
            fs::set_permissions(&root, Permissions::from_mode(folder)).unwrap();
            fs::set_permissions(&script, Permissions::from_mode(file)).unwrap();
            Named { needed: vec![script.clone()], seen: Vec::new() }.closed_to_nobody().is_some()
        };
        assert_eq!([closed(0o755, 0o644), closed(0o700, 0o644), closed(0o755, 0o600)], [false, true, true]);
    }
}
