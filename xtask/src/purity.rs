//! What a pure crate's own source may not name: clocks, files, sockets, threads, the environment.
//!
//! Dependencies are the arrow rules' business; the standard library is always there, so its impure
//! corners are looked for by name. The scan is textual on purpose: no compiler, no build, one pass.
//! Lines from the first `#[cfg(test)]` of a file on are not looked at, nor are comments.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::arrows::PURE;
use crate::graph::Graph;

/// Paths of the standard library (and `time`) that read or change the world.
const IMPURE: [&str; 12] = [
    "SystemTime::now",
    "Instant::now",
    "now_utc(",
    "now_local(",
    "std::fs",
    "std::net",
    "std::env",
    "std::process",
    "std::thread",
    "std::io::stdin",
    "std::io::stdout",
    "RandomState",
];

/// One line of a pure crate that names something impure.
#[derive(Debug, PartialEq, Eq)]
pub struct SourceTouch {
    /// File, relative to the workspace root.
    pub file: PathBuf,
    /// Line number, from 1.
    pub line: usize,
    /// What it names.
    pub what: &'static str,
}

/// Every impure name in the sources of the pure crates.
pub fn impure_touches(graph: &Graph) -> Result<Vec<SourceTouch>> {
    let mut touches = Vec::new();
    for krate in PURE.iter().filter_map(|p| graph.members.get(*p)) {
        for file in rust_files(&graph.root.join(&krate.folder).join("src"))? {
            let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
            let relative = file.strip_prefix(&graph.root).unwrap_or(&file).to_owned();
            touches.extend(scan(&text).map(|(line, what)| SourceTouch { file: relative.clone(), line, what }));
        }
    }
    Ok(touches)
}

fn scan(text: &str) -> impl Iterator<Item = (usize, &'static str)> {
    text.lines()
        .take_while(|l| l.trim() != "#[cfg(test)]")
        .enumerate()
        .filter(|(_, l)| !l.trim_start().starts_with("//"))
        .filter_map(|(i, l)| IMPURE.iter().find(|w| l.contains(**w)).map(|w| (i + 1, *w)))
}

fn rust_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|e| e == "rs") && path.file_stem().is_none_or(|s| s != "tests") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::scan;

    #[test]
    fn finds_a_clock_and_skips_comments_and_tests() {
        let source =
            "// std::fs\nlet t = std::time::Instant::now();\nok();\n#[cfg(test)]\nmod tests { use std::fs; }\n";
        assert_eq!(scan(source).collect::<Vec<_>>(), [(2, "Instant::now")]);
    }
}
