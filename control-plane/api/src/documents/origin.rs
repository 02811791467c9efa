//! Where a resource and its fields were written.

use std::collections::BTreeMap;

use provost_types::ResourceKey;
use provost_wire::admin::Problem;

use super::tree::{Node, Value};

/// The place of a document and of each of its fields. Lines and columns count from 1.
#[derive(Default)]
pub(crate) struct Origin {
    /// The file.
    pub(crate) file: String,
    /// Line and column of the document.
    pub(crate) place: (u32, u32),
    fields: BTreeMap<String, (u32, u32)>,
}

impl Origin {
    pub(crate) fn of(file: &str, document: &Node) -> Self {
        let mut fields = BTreeMap::new();
        walk(document, String::new(), &mut fields);
        Self { file: file.to_owned(), place: document.place, fields }
    }

    /// The place of a field, or of the nearest one around it that was written.
    pub(crate) fn place_of(&self, field: &str) -> (u32, u32) {
        let mut path = field;
        loop {
            if let Some(place) = self.fields.get(path) {
                return *place;
            }
            match path.rfind(['.', '[']) {
                Some(at) => path = &path[..at],
                None => return self.place,
            }
        }
    }

    pub(crate) fn field_problem(
        &self,
        field: &str,
        code: &str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Problem {
        let mut problem = problem(&self.file, self.place_of(field), code, message, hint);
        problem.field = field.to_owned();
        problem
    }

    pub(crate) fn problem(
        &self,
        key: &ResourceKey,
        field: &str,
        code: &str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Problem {
        let mut problem = self.field_problem(field, code, message, hint);
        problem.resource = key.to_string();
        problem
    }
}

pub(crate) fn problem(
    file: &str,
    (line, column): (u32, u32),
    code: &str,
    message: impl Into<String>,
    hint: impl Into<String>,
) -> Problem {
    Problem {
        file: file.to_owned(),
        line,
        column,
        resource: String::new(),
        field: String::new(),
        code: code.to_owned(),
        message: message.into(),
        hint: hint.into(),
    }
}

/// Bytes of a path whose place is kept; what is deeper has the place of what is around it. Paths repeat
/// their beginning for every field below, so without a bound a small text could fill the memory.
const MAX_PATH: usize = 256;

/// A field's place is that of its key: where the eye looks for its name.
fn walk(node: &Node, path: String, fields: &mut BTreeMap<String, (u32, u32)>) {
    match &node.value {
        Value::Map(entries) => {
            for (key, child) in entries.iter().filter(|(key, _)| path.len() + key.text.len() < MAX_PATH) {
                let path = join(&path, &key.text);
                fields.insert(path.clone(), key.place);
                walk(child, path, fields);
            }
        }
        Value::Seq(items) => {
            for (i, child) in items.iter().enumerate() {
                let path = format!("{path}[{i}]");
                fields.insert(path.clone(), child.place);
                walk(child, path, fields);
            }
        }
        _ => {}
    }
}

pub(crate) fn join(path: &str, field: &str) -> String {
    if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") }
}
