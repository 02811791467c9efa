//! Which roles grant a name: exact names and prefixes of one tenant and action.
//!
//! A lookup costs one hash for the exact name and one for each distinct prefix length, however
//! many grants there are.

use std::collections::HashMap;

/// The place of a role in its tenant's table.
pub(crate) type RoleIndex = u32;

/// Patterns of all roles of a tenant for one action.
#[derive(Debug, Default)]
pub(crate) struct GrantIndex {
    exact: HashMap<Box<str>, Vec<RoleIndex>>,
    prefixes: HashMap<Box<str>, Vec<RoleIndex>>,
    /// The distinct lengths of `prefixes`, in bytes, ascending.
    lengths: Vec<usize>,
}

/// A pattern with a `*` that is not its last character.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadPattern;

impl GrantIndex {
    /// Adds what a role's rule names: a name, or a prefix that ends with `*`.
    pub(crate) fn add(&mut self, pattern: &str, role: RoleIndex) -> Result<(), BadPattern> {
        let (table, key) = match pattern.strip_suffix('*') {
            Some(prefix) => (&mut self.prefixes, prefix),
            None => (&mut self.exact, pattern),
        };
        if key.contains('*') || pattern.is_empty() {
            return Err(BadPattern);
        }
        let roles = table.entry(key.into()).or_default();
        // Roles are added one after the other, so a repeat can only be the last.
        if roles.last() != Some(&role) {
            roles.push(role);
        }
        if pattern.ends_with('*')
            && let Err(place) = self.lengths.binary_search(&key.len())
        {
            self.lengths.insert(place, key.len());
        }
        Ok(())
    }

    /// The roles that grant `target`; a role that grants it twice comes twice.
    pub(crate) fn roles<'a>(&'a self, target: &'a str) -> impl Iterator<Item = RoleIndex> + 'a {
        let exact = self.exact.get(target).into_iter();
        let prefixed = self
            .lengths
            .iter()
            .map_while(|length| (*length <= target.len()).then_some(*length))
            .filter_map(|length| target.get(..length))
            .filter_map(|prefix| self.prefixes.get(prefix));
        exact.chain(prefixed).flatten().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_prefixes_match() {
        let mut index = GrantIndex::default();
        for (role, pattern) in ["*", "sql.*", "sql.query", "s*", "é*", "time.now"].iter().enumerate() {
            assert_eq!(index.add(pattern, role as RoleIndex), Ok(()));
        }
        for (target, expect) in [
            ("sql.query", vec![0, 1, 2, 3]),
            ("sql.schema", vec![0, 1, 3]),
            ("sql", vec![0, 3]),
            ("time.now", vec![0, 5]),
            ("time.now2", vec![0]),
            ("ébc", vec![0, 4]),
            ("", vec![0]),
        ] {
            let mut found: Vec<_> = index.roles(target).collect();
            found.sort_unstable();
            assert_eq!(found, expect, "{target}");
        }
    }

    #[test]
    fn a_star_only_ends_a_pattern() {
        for pattern in ["a*b", "**", "*.x", ""] {
            assert_eq!(GrantIndex::default().add(pattern, 0), Err(BadPattern), "{pattern}");
        }
    }
}
