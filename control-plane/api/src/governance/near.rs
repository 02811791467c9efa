//! Names that somebody may have meant.

/// Names shown at most.
const MAX_SHOWN: usize = 3;

/// `did you mean …?`, or nothing if no name is near.
pub(super) fn hint<'a>(meant: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    let most = (meant.chars().count() / 3).max(2);
    let mut near: Vec<(usize, &str)> = names
        .into_iter()
        .map(|name| {
            let part = !meant.is_empty() && (name.contains(meant) || meant.contains(name));
            (if part { 1 } else { distance(meant, name) }, name)
        })
        .filter(|(distance, _)| *distance <= most)
        .collect();
    near.sort_unstable();
    near.dedup();
    let names: Vec<String> = near.into_iter().take(MAX_SHOWN).map(|(_, name)| format!("`{name}`")).collect();
    if names.is_empty() { String::new() } else { format!("did you mean {}?", names.join(" or ")) }
}

/// Letters to add, drop or change to make one of the other (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, right) in b.iter().enumerate() {
            let change = diagonal + usize::from(left != *right);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_found() {
        for (meant, expect) in [
            ("flies", "did you mean `files`?"),
            ("file", "did you mean `files` or `profiles`?"),
            ("files", "did you mean `files` or `profiles`?"),
            ("payments", ""),
        ] {
            assert_eq!(hint(meant, ["files", "profiles", "sql"]), expect, "{meant}");
        }
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!((distance("", "abc"), distance("abc", "")), (3, 3));
    }
}
