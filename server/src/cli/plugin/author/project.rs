//! `plugin.yaml`: what the author says of a plugin.

use std::path::{Component, Path, PathBuf};

use provost_package::{Manifest, Wants};
use provost_types::Name;
use semver::Version;
use serde::Deserialize;

use super::{files, yaml};
use crate::failure::Failure;

/// Its name in the project's folder.
pub(super) const FILE: &str = "plugin.yaml";
/// How packages' names end.
pub(super) const EXTENSION: &str = "pvp";
/// The largest `plugin.yaml`, in bytes.
const MAX_BYTES: u64 = 64 << 10;

/// What stands in `plugin.yaml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Said {
    pub(super) name: Name,
    pub(super) version: Version,
    pub(super) publisher: Name,
    #[serde(default)]
    pub(super) description: String,
    #[serde(default)]
    pub(super) wants: Wants,
    /// How its component is made, if it is not a file already.
    #[serde(default)]
    pub(super) build: Option<Builder>,
    /// Where its component is, if it is not built by us.
    #[serde(default)]
    pub(super) component: Option<PathBuf>,
    /// What people read.
    #[serde(default)]
    pub(super) docs: Option<PathBuf>,
    /// Its cases.
    #[serde(default)]
    pub(super) tests: Option<PathBuf>,
}

/// What can make a component.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Builder {
    /// The Rust project in the same folder.
    Cargo,
}

/// A folder with a `plugin.yaml`.
#[derive(Clone, Debug)]
pub(super) struct Project {
    pub(super) dir: PathBuf,
    pub(super) said: Said,
}

impl Project {
    /// Reads it.
    pub(super) fn read(dir: &Path) -> Result<Self, Failure> {
        let file = dir.join(FILE);
        if !file.is_file() {
            let text = format!("there is no {FILE} in {}", dir.display());
            return Err(wrong(text, "name a plugin's folder, or start one: provost plugin new NAME"));
        }
        let said = parse(&files::read_text(&file, MAX_BYTES)?);
        let said = said.map_err(|why| wrong(format!("{}: {why}", file.display()), "correct it; docs/plugins.md"))?;
        Ok(Self { dir: dir.to_owned(), said })
    }

    /// A file that `plugin.yaml` names.
    pub(super) fn path(&self, named: &Path) -> PathBuf {
        self.dir.join(named)
    }

    /// What the package will say of itself, without its parts.
    pub(super) fn manifest(&self) -> Manifest {
        let said = self.said.clone();
        let mut manifest = Manifest::new(said.name, said.version, said.publisher);
        manifest.description = said.description.trim().to_owned();
        manifest.wants = said.wants;
        manifest
    }

    /// `NAME-VERSION.pvp`, in the project's folder.
    pub(super) fn package_file(&self) -> PathBuf {
        self.dir.join(format!("{}-{}.{EXTENSION}", self.said.name, self.said.version))
    }
}

fn wrong(text: String, hint: &str) -> Failure {
    Failure::new("PV-PLUGIN-PROJECT", text, hint)
}

fn parse(text: &str) -> Result<Said, String> {
    let said: Said = yaml::parse(text)?;
    if said.build.is_some() == said.component.is_some() {
        return Err("say either `build: cargo` or `component: FILE`".to_owned());
    }
    let named = [("component", &said.component), ("docs", &said.docs), ("tests", &said.tests)];
    for (field, path) in named.into_iter().filter_map(|(field, path)| Some((field, path.as_ref()?))) {
        // What is packed is shown to others: only what lies in the project.
        let below = path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if !below || path.as_os_str().is_empty() {
            return Err(format!("`{field}`: {} is no file below the project's folder", path.display()));
        }
    }
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "name: hello\nversion: 0.1.0\npublisher: acme\n";

    #[test]
    fn what_is_said_is_read() {
        let text = format!(
            "{BASE}build: cargo\ndescription: >\n  Two\n  lines.\nwants:\n  hosts: ['*.example.com']\n  \
             credentials: [key]\n  tools: [crm.find]\ndocs: README.md\ntests: tests/cases.yaml\n"
        );
        let project = Project { dir: PathBuf::from("x"), said: parse(&text).unwrap() };
        assert_eq!(project.said.build, Some(Builder::Cargo));
        assert_eq!(project.package_file(), Path::new("x/hello-0.1.0.pvp"));
        let manifest = project.manifest();
        assert_eq!((manifest.title().as_str(), manifest.description.as_str()), ("hello 0.1.0", "Two lines."));
        assert!(manifest.wants.hosts.contains("*.example.com") && manifest.wants.tools.contains("crm.find"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (more, expect) in [
            ("", "either"),
            ("build: cargo\ncomponent: a.wasm\n", "either"),
            ("build: make\n", "line 4"),
            ("component: ../a.wasm\n", "`component`"),
            ("component: /a.wasm\n", "`component`"),
            ("component: ''\n", "`component`"),
            ("component: a.wasm\ndocs: a/../../b\n", "`docs`"),
            ("component: a.wasm\ncolour: red\n", "colour"),
            ("component: a.wasm\nwants: { host: [a] }\n", "host"),
        ] {
            let error = parse(&format!("{BASE}{more}")).unwrap_err();
            assert!(error.contains(expect), "{more}: {error}");
        }
        let error = parse("name: Hello\nversion: 0.1.0\npublisher: acme\nbuild: cargo\n").unwrap_err();
        assert!(error.contains("`Hello` is not a name"), "{error}");
        let error = parse("name: hello\nversion: one\npublisher: acme\nbuild: cargo\n").unwrap_err();
        assert!(error.contains("line 2"), "{error}");
    }
}
