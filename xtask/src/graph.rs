//! The dependency graph as cargo reports it, reduced to what the arrow rules need.
//!
//! `cargo metadata` gives the edges with their kind (normal, build, dev). Its feature resolution is
//! the old one: it names optional dependencies that are never built. That is harmless for arrows (a
//! superset), but not for bans, so [`built_packages`] asks `cargo tree`, which resolves as a build does.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// One workspace member.
#[derive(Debug, Clone, Default)]
pub struct Crate {
    /// Folder relative to the workspace root, such as `data-plane/policy`.
    pub folder: String,
    /// Names of direct dependencies of any kind, third-party ones included.
    pub direct: BTreeSet<String>,
    /// Names of everything reachable over normal dependencies, each with the path that reaches it.
    pub reachable: BTreeMap<String, String>,
}

/// The workspace: member name to what it depends on.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    /// Absolute path of the workspace root.
    pub root: PathBuf,
    /// Members by package name.
    pub members: BTreeMap<String, Crate>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
    workspace_members: Vec<String>,
    workspace_root: PathBuf,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    manifest_path: PathBuf,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Edge>,
}

#[derive(Deserialize)]
struct Edge {
    pkg: String,
    dep_kinds: Vec<EdgeKind>,
}

#[derive(Deserialize)]
struct EdgeKind {
    kind: Option<String>,
}

impl Edge {
    fn is_normal(&self) -> bool {
        self.dep_kinds.iter().any(|k| k.kind.is_none())
    }
}

impl Graph {
    /// Reads the graph of the workspace that contains `dir`, for the host platform only.
    pub fn read(dir: &Path) -> Result<Self> {
        let host = host_triple()?;
        let out = run(dir, &["metadata", "--format-version", "1", "--filter-platform", &host])?;
        Self::from_metadata(&out)
    }

    /// Parses the JSON of `cargo metadata --format-version 1`.
    pub fn from_metadata(json: &str) -> Result<Self> {
        let meta: Metadata = serde_json::from_str(json).context("cargo metadata is not what we expect")?;
        let names: BTreeMap<&str, &str> = meta.packages.iter().map(|p| (p.id.as_str(), p.name.as_str())).collect();
        let edges: BTreeMap<&str, &Vec<Edge>> = meta.resolve.nodes.iter().map(|n| (n.id.as_str(), &n.deps)).collect();
        let mut members = BTreeMap::new();
        for package in meta.packages.iter().filter(|p| meta.workspace_members.contains(&p.id)) {
            let folder = package
                .manifest_path
                .parent()
                .and_then(|p| p.strip_prefix(&meta.workspace_root).ok())
                .with_context(|| format!("{} lies outside the workspace root", package.name))?;
            let direct = edges
                .get(package.id.as_str())
                .into_iter()
                .flat_map(|deps| deps.iter())
                .filter_map(|e| names.get(e.pkg.as_str()).map(|n| (*n).to_owned()))
                .collect();
            members.insert(
                package.name.clone(),
                Crate {
                    folder: folder.to_string_lossy().into_owned(),
                    direct,
                    reachable: reach(&package.id, &names, &edges),
                },
            );
        }
        Ok(Self { root: meta.workspace_root, members })
    }
}

/// Crates of traits whose engine is an optional dependency: cargo knows one feature set a workspace,
/// so whoever switches it on seems to do so for all. A user of the traits alone reaches nothing.
const SWITCHED_ON_BY_OTHERS: [&str; 1] = ["rand_core"];

/// Everything reachable from `start` over normal edges, with a printable path to each.
fn reach(start: &str, names: &BTreeMap<&str, &str>, edges: &BTreeMap<&str, &Vec<Edge>>) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut queue = vec![(start.to_owned(), String::new())];
    let mut seen = BTreeSet::new();
    while let Some((id, path)) = queue.pop() {
        if !seen.insert(id.clone()) {
            continue;
        }
        let name = names.get(id.as_str()).copied().unwrap_or(id.as_str());
        let path = if path.is_empty() { name.to_owned() } else { format!("{path} -> {name}") };
        if id != start {
            found.entry(name.to_owned()).or_insert_with(|| path.clone());
        }
        if SWITCHED_ON_BY_OTHERS.contains(&name) {
            continue;
        }
        let deps = edges.get(id.as_str()).into_iter().flat_map(|d| d.iter());
        queue.extend(deps.filter(|e| e.is_normal()).map(|e| (e.pkg.clone(), path.clone())));
    }
    found
}

/// Names of all packages that a build of the workspace and its tests compiles on this host.
pub fn built_packages(dir: &Path) -> Result<BTreeSet<String>> {
    let out = run(dir, &["tree", "--workspace", "--edges", "normal,build,dev", "--prefix", "none", "--format", "{p}"])?;
    Ok(out.lines().filter_map(|l| l.split_whitespace().next()).map(str::to_owned).collect())
}

fn host_triple() -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let out = Command::new(rustc).arg("-vV").output().context("cannot run rustc -vV")?;
    String::from_utf8(out.stdout)?
        .lines()
        .find_map(|l| l.strip_prefix("host: ").map(str::to_owned))
        .context("rustc -vV names no host")
}

fn run(dir: &Path, args: &[&str]) -> Result<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let out = Command::new(cargo).args(args).current_dir(dir).output().context("cannot run cargo")?;
    if !out.status.success() {
        bail!("cargo {} failed:\n{}", args.join(" "), String::from_utf8_lossy(&out.stderr));
    }
    Ok(String::from_utf8(out.stdout)?)
}
