//! Names of tools and of their arguments: what MCP and models' interfaces take, each once.

use std::collections::HashSet;

/// Characters of a name. MCP allows 128 for a tool; with the plugin's name before it that is left room for, and
/// interfaces of models take no more than this of a name.
pub(super) const MAX_NAME_CHARS: usize = 64;

/// The tool's name for an operation: its id, or else method and path.
pub(super) fn of_operation(id: Option<&str>, method: &str, path: &str) -> String {
    let name = sanitised(id.unwrap_or_default());
    if name.is_empty() { sanitised(&format!("{method}_{path}")) } else { name }
}

/// Letters, digits, `_`, `-` and `.` stay; runs of others become one `_`, and none at the ends.
pub(crate) fn sanitised(text: &str) -> String {
    let mut name = String::new();
    for c in text.chars() {
        if name.len() >= MAX_NAME_CHARS {
            break;
        }
        match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '.' => name.push(c),
            _ if name.is_empty() || name.ends_with('_') => {}
            _ => name.push('_'),
        }
    }
    name.trim_end_matches('_').to_owned()
}

/// Names that are given already.
#[derive(Default)]
pub(crate) struct Names(HashSet<String>);

impl Names {
    /// Whether the name is given already.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.contains(name)
    }

    /// The name, or the same with the first number that makes it another.
    pub(crate) fn take(&mut self, wanted: &str) -> String {
        if self.0.insert(wanted.to_owned()) {
            return wanted.to_owned();
        }
        let mut number = 2_usize;
        loop {
            let suffix = format!("_{number}");
            let stem: String = wanted.chars().take(MAX_NAME_CHARS - suffix.len()).collect();
            let name = format!("{stem}{suffix}");
            if self.0.insert(name.clone()) {
                return name;
            }
            number += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_mcp_takes() {
        for (id, method, path, expect) in [
            (Some("listTickets"), "get", "/tickets", "listTickets"),
            (Some("tickets.list-all_2"), "get", "/tickets", "tickets.list-all_2"),
            (Some("list all  tickets!"), "get", "/tickets", "list_all_tickets"),
            (Some("__x__y__"), "get", "/x", "x_y"),
            (Some("tickets/{id}/close"), "post", "/x", "tickets_id_close"),
            (Some("\u{202e}\u{200b}"), "get", "/x", "get_x"),
            (Some(""), "delete", "/tickets/{id}", "delete_tickets_id"),
            (None, "get", "/", "get"),
            (None, "get", "/a/{b}/c.json", "get_a_b_c.json"),
        ] {
            assert_eq!(of_operation(id, method, path), expect, "{id:?}");
        }
        assert_eq!(of_operation(Some(&"x".repeat(500)), "get", "/").len(), MAX_NAME_CHARS);
    }

    #[test]
    fn a_name_is_given_once() {
        let mut names = Names::default();
        let long = "y".repeat(MAX_NAME_CHARS);
        let taken: Vec<String> = ["a", "a", "a_2", "a", long.as_str(), long.as_str()].map(|n| names.take(n)).into();
        assert_eq!(taken[..4], ["a", "a_2", "a_2_2", "a_3"]);
        assert_eq!((taken[5].len(), taken[5].ends_with("y_2")), (MAX_NAME_CHARS, true));
    }
}
