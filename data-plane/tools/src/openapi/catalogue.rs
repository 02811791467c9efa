//! All tools of a document.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_json::{Map, Value};

use super::{
    document::{Document, short},
    names::{self, Names},
    operation::{Call, Given, Operation, tool},
    schema::Work,
};
use crate::{Definition, DefinitionList, Definitions, listed::Tools};

/// Methods that become tools. `OPTIONS` and `TRACE` are about the connection.
const METHODS: [&str; 6] = ["get", "put", "post", "delete", "patch", "head"];
/// Before the name of a tag, in a pattern.
const TAG: &str = "tag:";
/// Operations without a tool that the log names one by one.
const MAX_NAMED: usize = 32;

/// Which operations become tools.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    /// Empty: all.
    pub(crate) include: BTreeSet<String>,
    pub(crate) exclude: BTreeSet<String>,
}

impl Filter {
    fn takes(&self, id: &str, name: &str, tags: &[&str]) -> bool {
        let any = |patterns: &BTreeSet<String>| {
            patterns.iter().any(|pattern| match pattern.strip_prefix(TAG) {
                Some(tag) => tags.iter().any(|t| fits(tag, t)),
                None => fits(pattern, id) || fits(pattern, name),
            })
        };
        (self.include.is_empty() || any(&self.include)) && !any(&self.exclude)
    }
}

/// Whether a pattern, which a `*` may end, is one of this text.
pub(crate) fn fits(pattern: &str, text: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => text.starts_with(prefix),
        None => pattern == text,
    }
}

/// The tools of a document, and what calls of them do.
#[derive(Debug, Default)]
pub(super) struct Catalogue {
    pub(super) definitions: Definitions,
    calls: BTreeMap<String, Arc<Call>>,
    /// Operations without a tool, and why.
    pub(super) left_out: Vec<(String, String)>,
}

impl Catalogue {
    /// Reads a document. `Err`: it is none.
    pub(super) fn read(
        document: &Map<String, Value>,
        filter: &Filter,
        given: &Given,
        max_tools: usize,
    ) -> Result<Self, String> {
        let document = Document::new(document)?;
        let (mut all, work) = (Names::default(), Work::default());
        let (mut definitions, mut calls, mut left_out) = (Vec::<Definition>::new(), BTreeMap::new(), Vec::new());
        for (path, item) in document.paths() {
            let item = match document.resolve(item) {
                Ok(item) => item,
                Err(cause) => {
                    left_out.push((short(path), cause));
                    continue;
                }
            };
            for method in METHODS {
                let Some(value) = item.get(method).filter(|value| value.is_object()) else { continue };
                let id = value.get("operationId").and_then(Value::as_str);
                // Before anything is left out, so that a name does not depend on what is.
                let name = all.take(&names::of_operation(id, method, path));
                let tags: Vec<&str> = value
                    .get("tags")
                    .and_then(Value::as_array)
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str)
                    .collect();
                if !filter.takes(id.unwrap_or_default(), &name, &tags) {
                    continue;
                }
                let operation = Operation { method, path, item, value };
                let made = match definitions.len() < max_tools {
                    true => tool(&document, &operation, &name, given, &work),
                    false => Err(format!("there are {max_tools} tools already")),
                };
                match made {
                    Ok((definition, call)) => {
                        definitions.push(definition);
                        calls.insert(name, Arc::new(call));
                    }
                    Err(cause) => left_out.push((name, cause)),
                }
            }
        }
        Ok(Self { definitions: Arc::new(DefinitionList::from(definitions)), calls, left_out })
    }

    /// What a call of a tool does.
    pub(super) fn call(&self, tool: &str) -> Option<&Arc<Call>> {
        self.calls.get(tool)
    }

    /// Says in the log which operations have no tool.
    pub(super) fn log(&self, plugin: &str) {
        for (name, cause) in self.left_out.iter().take(MAX_NAMED) {
            tracing::warn!(plugin, operation = name, cause, "an operation is no tool");
        }
        tracing::info!(
            plugin,
            tools = self.definitions.len(),
            left_out = self.left_out.len(),
            "a document of OpenAPI was read"
        );
    }
}

impl Tools for Catalogue {
    type Call = Call;

    fn definitions(&self) -> &Definitions {
        &self.definitions
    }

    fn call_of(&self, tool: &str) -> Option<&Arc<Call>> {
        self.call(tool)
    }
}

#[cfg(test)]
#[path = "catalogue_tests.rs"]
mod tests;
