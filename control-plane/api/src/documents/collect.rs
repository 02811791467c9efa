//! Reads a typed value out of a tree and goes on after an error, to find the next one.

use provost_wire::admin::Problem;
use serde::de::DeserializeOwned;
use serde_path_to_error::Segment;

use super::{
    Origin,
    origin::join,
    tree::{Node, Value},
};

/// Problems reported of one part of one document.
const MAX_PROBLEMS: usize = 50;

/// One step from a node to a child.
enum Step {
    Field(String),
    Item(usize),
}

/// The value, or `None` with at least one new problem.
pub(crate) fn collect<T: DeserializeOwned>(
    origin: &Origin,
    root: &str,
    mut tree: Node,
    problems: &mut Vec<Problem>,
) -> Option<T> {
    let mut found = 0;
    loop {
        let error = match serde_path_to_error::deserialize::<_, T>(tree.to_json()) {
            Ok(value) if found == 0 => return Some(value),
            Ok(_) => return None,
            Err(error) => error,
        };
        let mut steps: Vec<Step> = error.path().iter().filter_map(step).collect();
        let message = error.inner().to_string();
        if let Some(name) = named(&message, "missing field ") {
            // A field that was taken out as wrong is missing as a consequence.
            if !was_removed(&tree, &steps, &name) {
                let field = display(&tree, root, &steps);
                let text = format!("has no `{name}`");
                let code = "PV-DOC-MISSING";
                problems.push(origin.field_problem(&join(&field, &name), code, text, ""));
            }
            return None;
        }
        let unknown = named(&message, "unknown field ");
        if let Some(name) = &unknown
            && !matches!(steps.last(), Some(Step::Field(last)) if last == name)
        {
            steps.push(Step::Field(name.clone()));
        }
        let mut field = display(&tree, root, &steps);
        // An alternative that does not exist: point at its name, which is a key here.
        if let Some(name) = named(&message, "unknown variant ") {
            let step = Step::Field(name.clone());
            if walk(&tree, &steps).and_then(|node| child(node, &step)).is_some() {
                field = join(&field, &name);
            }
        }
        let code = if unknown.is_some() { "PV-DOC-UNKNOWN" } else { "PV-DOC-VALUE" };
        problems.push(origin.field_problem(&field, code, in_words(message), ""));
        found += 1;
        if found >= MAX_PROBLEMS || !remove(&mut tree, &steps) {
            return None;
        }
    }
}

fn step(segment: &Segment) -> Option<Step> {
    match segment {
        Segment::Map { key } => Some(Step::Field(key.clone())),
        Segment::Enum { variant } => Some(Step::Field(variant.clone())),
        Segment::Seq { index } => Some(Step::Item(*index)),
        Segment::Unknown => None,
    }
}

/// serde names Rust's types; whoever writes a document need not know them.
fn in_words(message: String) -> String {
    match message.rsplit_once("expected ") {
        Some((found, "u64" | "u32" | "usize")) => format!("{found}expected a whole number, 0 or more"),
        Some((found, "i64" | "i32")) => format!("{found}expected a whole number"),
        _ => message,
    }
}

/// The name in serde's `prefix` + "`name`…".
fn named(message: &str, prefix: &str) -> Option<String> {
    let rest = message.strip_prefix(prefix)?.strip_prefix('`')?;
    Some(rest.split('`').next()?.to_owned())
}

/// The child that a step leads to, not counting what was removed, with its index in a list.
fn child<'a>(node: &'a Node, step: &Step) -> Option<(usize, &'a Node)> {
    match (&node.value, step) {
        (Value::Map(entries), Step::Field(name)) => {
            let at = entries.iter().position(|(key, n)| key.text == *name && !n.removed)?;
            Some((at, &entries[at].1))
        }
        (Value::Seq(items), Step::Item(index)) => items.iter().enumerate().filter(|(_, n)| !n.removed).nth(*index),
        _ => None,
    }
}

/// The node that the steps lead to.
fn walk<'a>(tree: &'a Node, steps: &[Step]) -> Option<&'a Node> {
    steps.iter().try_fold(tree, |node, step| child(node, step).map(|(_, n)| n))
}

/// The path as people count: with the indexes of the list as written.
fn display(tree: &Node, root: &str, steps: &[Step]) -> String {
    let mut path = root.to_owned();
    let mut node = Some(tree);
    for step in steps {
        let next = node.and_then(|n| child(n, step));
        path = match step {
            Step::Field(name) => join(&path, name),
            Step::Item(index) => format!("{path}[{}]", next.map_or(*index, |(at, _)| at)),
        };
        node = next.map(|(_, n)| n);
    }
    path
}

fn was_removed(tree: &Node, steps: &[Step], name: &str) -> bool {
    match walk(tree, steps).map(|n| &n.value) {
        Some(Value::Map(entries)) => entries.iter().any(|(key, n)| key.text == name && n.removed),
        _ => false,
    }
}

/// Takes out the deepest node that the steps reach; `false` if that is the root.
fn remove(tree: &mut Node, steps: &[Step]) -> bool {
    let Some((first, rest)) = steps.split_first() else { return false };
    let Some(at) = child(tree, first).map(|(at, _)| at) else { return false };
    let next = match &mut tree.value {
        Value::Map(entries) => entries.get_mut(at).map(|(_, n)| n),
        Value::Seq(items) => items.get_mut(at),
        _ => None,
    };
    let Some(next) = next else { return false };
    if !remove(next, rest) {
        next.removed = true;
    }
    true
}
