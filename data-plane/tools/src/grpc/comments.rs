//! What the authors of a descriptor wrote beside it, where it was kept (`--include_source_info`).

use std::{cell::RefCell, collections::HashMap};

use prost_reflect::FileDescriptor;

use crate::openapi::bounded;

/// Characters of one comment.
const MAX_CHARS: usize = 2_000;

/// Texts by place within a file.
type Places = HashMap<Vec<i32>, String>;

/// Comments of files, read at the first question.
#[derive(Default)]
pub(super) struct Comments(RefCell<HashMap<String, Places>>);

impl Comments {
    /// What stands before the declaration at this place, or after it.
    pub(super) fn of(&self, file: &FileDescriptor, path: &[i32]) -> Option<String> {
        let mut files = self.0.borrow_mut();
        let places = files.entry(file.name().to_owned()).or_insert_with(|| places(file));
        places.get(path).cloned()
    }
}

fn places(file: &FileDescriptor) -> Places {
    let info = file.file_descriptor_proto().source_code_info.as_ref();
    let said = |text: &Option<String>| text.as_deref().map(tidy).filter(|text| !text.is_empty());
    info.into_iter()
        .flat_map(|info| &info.location)
        .filter_map(|at| Some((at.path.clone(), said(&at.leading_comments).or_else(|| said(&at.trailing_comments))?)))
        .collect()
}

/// A comment without the space that its marks left.
fn tidy(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    bounded(lines.join("\n").trim(), MAX_CHARS)
}
