//! `cargo xtask attack-matrix`: what the attack suite tried, as a table, and what it did not.
//!
//! The list is `audit-log/store/tests/attacks/cases.txt`; a row is a small file that a test wrote below
//! the target folder. A case without a row fails, unless the list says what it waits for.

use std::{
    collections::BTreeMap,
    fmt::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// The list of cases, below the repository's root.
pub const CASES: &str = "audit-log/store/tests/attacks/cases.txt";
/// The folder of rows, below the target folder.
pub const ROWS: &str = "tmp/attack-matrix";

/// The table and what is wrong with it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Matrix {
    /// Ready to be printed.
    pub table: String,
    /// Cases without a row, and rows without a case.
    pub wrong: Vec<String>,
}

/// Reads list and rows and sets them side by side.
pub fn attack_matrix(root: &Path, target: &Path) -> Result<Matrix> {
    let path = root.join(CASES);
    let cases = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut rows = BTreeMap::new();
    for file in files(&target.join(ROWS))? {
        let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let columns: Vec<String> = text.trim_end().split('\t').map(str::to_owned).collect();
        if let Some(case) = columns.first() {
            rows.insert(case.clone(), columns);
        }
    }
    Ok(side_by_side(&cases, rows))
}

fn side_by_side(cases: &str, mut rows: BTreeMap<String, Vec<String>>) -> Matrix {
    let mut matrix = Matrix::default();
    let mut lines = vec![["case", "verdict", "exit", "place"].map(str::to_owned).to_vec()];
    let mut pending = Vec::new();
    for line in cases.lines() {
        if let Some(title) = line.strip_prefix("# ") {
            lines.push(vec![title.to_uppercase()]);
            continue;
        }
        let Some((case, home)) = line.split_once(" | ").filter(|_| !line.starts_with('#')) else { continue };
        match (rows.remove(case), home.strip_prefix("pending: ")) {
            (Some(row), _) => lines.push(row),
            (None, Some(why)) => pending.push(format!("  pending: {case} (waits for: {why})")),
            (None, None) => matrix.wrong.push(format!("no row: {case}; its test is in {home}")),
        }
    }
    for case in rows.keys() {
        matrix.wrong.push(format!("not in {CASES}: {case}"));
    }
    let width =
        |n: usize| lines.iter().filter(|l| l.len() > 1).filter_map(|l| l.get(n)).map(|t| t.chars().count()).max();
    let widths = [width(0), width(1), width(2)].map(Option::unwrap_or_default);
    for line in &lines {
        for (n, cell) in line.iter().enumerate() {
            let pad = widths.get(n).copied().unwrap_or_default();
            let _ =
                if line.len() > 1 { write!(matrix.table, "{cell:<pad$}  ") } else { write!(matrix.table, "-- {cell}") };
        }
        matrix.table.truncate(matrix.table.trim_end().len());
        matrix.table.push('\n');
    }
    for line in pending {
        matrix.table.push_str(&line);
        matrix.table.push('\n');
    }
    matrix
}

fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(dir)
        .with_context(|| format!("no rows in {}: run the tests of provost-audit-store first", dir.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        files.push(entry?.path());
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_and_strays_are_named() {
        let row =
            |case: &str| (case.to_owned(), vec![case.to_owned(), "INTEGRITY failed".into(), "1".into(), "-".into()]);
        let cases = "#: CASE | FILE\n# Tamper\nflip | a.rs\ndrop | a.rs\nwitness | pending: witnesses\n";
        let matrix = side_by_side(cases, BTreeMap::from([row("flip"), row("stray")]));
        assert_eq!(matrix.wrong, ["no row: drop; its test is in a.rs".to_owned(), format!("not in {CASES}: stray")]);
        assert!(matrix.table.contains("-- TAMPER\nflip  INTEGRITY failed  1"), "{}", matrix.table);
        assert!(matrix.table.contains("pending: witness (waits for: witnesses)"), "{}", matrix.table);
        assert_eq!(side_by_side("flip | a.rs\n", BTreeMap::from([row("flip")])).wrong, Vec::<String>::new());
    }
}
