//! `provost plugin new`: a project out of the template in this binary.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use provost_types::Name;

use super::{files, kit};
use crate::failure::Failure;

/// What stands for the plugin's name in the template.
const NAME: &str = "plugin-name";
/// What stands for the publisher's name there.
const PUBLISHER: &str = "publisher-name";
/// Where the template finds the kit, and where a project does.
const KIT_PATHS: (&str, &str) = ("\"../kit\"", "\"vendor/provost-plugin\"");
/// The lock of an example with the same dependencies, and the package in it that stands for the project.
const LOCK: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/plugins/rust-text/Cargo.lock"));
const LOCKED: &str = "name = \"text\"\n";

macro_rules! template {
    ($($from:literal => $to:literal),* $(,)?) => {
        /// Files of the template, and what they are called in a project.
        const TEMPLATE: &[(&str, &str, &str)] = &[$(
            ($from, $to, include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../plugins/template/", $from))),
        )*];
    };
}

template! {
    "Cargo.toml" => "Cargo.toml",
    "README.md" => "README.md",
    "gitignore" => ".gitignore",
    "plugin.yaml" => "plugin.yaml",
    "src/lib.rs" => "src/lib.rs",
    "tests/cases.yaml" => "tests/cases.yaml",
}

#[derive(Args)]
pub struct NewArgs {
    /// The plugin's name: lower-case letters, digits, `-` and `_`; it begins with a letter.
    name: Name,
    /// The folder to make. Default: the plugin's name.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Who makes it: the name of a `Publisher`.
    #[arg(long, default_value = "example")]
    publisher: Name,
}

pub fn run(args: &NewArgs) -> anyhow::Result<ExitCode> {
    check_name(args.name.as_ref())?;
    let dir = args.dir.clone().unwrap_or_else(|| PathBuf::from(args.name.as_ref() as &str));
    check_empty(&dir)?;
    let files = project(args.name.as_ref(), args.publisher.as_ref());
    for (path, content) in &files {
        files::create(&dir.join(path), content.as_bytes())?;
    }
    println!("{}: a plugin with one tool, and the kit that it is built with ({} files)", dir.display(), files.len());
    println!("try:\n  provost plugin test {0}\n  provost plugin build {0}", dir.display());
    Ok(ExitCode::SUCCESS)
}

/// The files of a project: their paths and contents.
fn project(name: &str, publisher: &str) -> Vec<(PathBuf, String)> {
    let mut files = kit::files();
    for (path, _) in &mut files {
        *path = Path::new("vendor/provost-plugin").join(&*path);
    }
    files.extend(TEMPLATE.iter().map(|(_, path, content)| {
        let content = content.replace(NAME, name).replace(PUBLISHER, publisher).replace(KIT_PATHS.0, KIT_PATHS.1);
        (PathBuf::from(path), content)
    }));
    files.push((PathBuf::from("Cargo.lock"), lock(name)));
    files
}

/// Versions that were tried together. Packages of a lock are in order of their names.
fn lock(name: &str) -> String {
    const BETWEEN: &str = "\n[[package]]\n";
    let own = format!("name = \"{name}\"\n");
    let mut parts = LOCK.trim_end().split(BETWEEN);
    let head = parts.next().unwrap_or_default();
    let mut packages: Vec<String> =
        parts.map(|package| format!("{}\n", package.trim_end().replace(LOCKED, &own))).collect();
    packages.sort_by(|a, b| name_of(a).cmp(name_of(b)));
    let packages: String = packages.iter().map(|package| format!("{BETWEEN}{package}")).collect();
    format!("{}\n{packages}", head.trim_end())
}

fn name_of(package: &str) -> &str {
    package.lines().next().unwrap_or_default()
}

/// Names of crates have fewer letters than names of resources.
fn check_name(name: &str) -> Result<(), Failure> {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
    if name.bytes().all(fits) && name.starts_with(|c: char| c.is_ascii_lowercase()) {
        return Ok(());
    }
    let text = format!("`{name}` is no name for a Rust project");
    Err(Failure::new("PV-PLUGIN-NEW", text, "use lower-case letters, digits, `-` and `_`, beginning with a letter"))
}

/// A folder that is there already may only be an empty one.
fn check_empty(dir: &Path) -> Result<(), Failure> {
    let is_free = match fs::read_dir(dir) {
        Ok(mut entries) => entries.next().is_none(),
        Err(cause) => cause.kind() == std::io::ErrorKind::NotFound,
    };
    if is_free {
        return Ok(());
    }
    let text = format!("{} is there already, and is no empty folder", dir.display());
    Err(Failure::new("PV-PLUGIN-NEW", text, "name another one with --dir"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn content(files: &[(PathBuf, String)], path: &str) -> String {
        files.iter().find(|(own, _)| own == Path::new(path)).map(|(_, content)| content.clone()).unwrap()
    }

    #[test]
    fn the_template_is_whole_and_nothing_of_its_own_names_stays() {
        let folder = Path::new(&std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("../plugins/template");
        let there = kit::below(&folder);
        let known: BTreeSet<PathBuf> = TEMPLATE.iter().map(|(from, ..)| PathBuf::from(from)).collect();
        assert_eq!(there, known, "files of the template, and those that are in the binary");
        let files = project("weather", "acme");
        for (path, content) in files.iter().filter(|(path, _)| !path.starts_with("vendor")) {
            for own in [NAME, PUBLISHER, "plugin_name", KIT_PATHS.0] {
                assert!(!content.contains(own), "{own} in {}", path.display());
            }
        }
        assert!(content(&files, "Cargo.toml").contains("name = \"weather\""));
        assert!(content(&files, "Cargo.toml").contains(KIT_PATHS.1));
        assert!(content(&files, "plugin.yaml").contains("publisher: acme"));
        assert!(content(&files, "tests/cases.yaml").contains("tool: greet"));
    }

    #[test]
    fn the_lock_is_of_the_projects_own_name_and_in_order() {
        for name in ["aa", "hello", "zz"] {
            let lock = lock(name);
            let table: toml::Table = lock.parse().unwrap();
            let packages = table["package"].as_array().unwrap();
            let names: Vec<&str> = packages.iter().map(|package| package["name"].as_str().unwrap()).collect();
            assert!(names.is_sorted() && names.contains(&name) && !names.contains(&"text"), "{names:?}");
        }
        // What the example depends on is what the template does.
        let example = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/plugins/rust-text/Cargo.toml"));
        let names = |manifest: &str| -> BTreeSet<String> {
            let table: toml::Table = manifest.parse().unwrap();
            table["dependencies"].as_table().unwrap().keys().cloned().collect()
        };
        assert_eq!(names(&content(&project("a", "b"), "Cargo.toml")), names(example));
    }

    #[test]
    fn only_what_can_be_a_crate_in_an_empty_folder_is_started() {
        for good in ["a", "hello-2", "a_b"] {
            check_name(good).unwrap();
        }
        for bad in ["2a", "a.b"] {
            assert_eq!(check_name(bad).unwrap_err().code, "PV-PLUGIN-NEW", "{bad}");
        }
        let dir = tempfile::tempdir().unwrap();
        check_empty(dir.path()).unwrap();
        check_empty(&dir.path().join("new")).unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        assert!(check_empty(dir.path()).is_err() && check_empty(&dir.path().join("file")).is_err());
    }
}
