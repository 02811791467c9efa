//! All tools of a plugin's descriptors.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use prost_reflect::ServiceDescriptor;

use super::{
    comments::Comments,
    descriptors::Files,
    method::{Call, tool},
    schema::Work,
};
use crate::{
    Definition, DefinitionList, Definitions,
    listed::Tools,
    openapi::{Names, bounded, fits, sanitised},
};

/// Services of gRPC itself, which become tools only if they are named.
const OWN: [&str; 3] = ["grpc.reflection.", "grpc.health.", "grpc.channelz."];
/// Methods that are looked at; there are no more tools than that.
const MAX_METHODS: usize = 4_096;
/// What is left out that the log names one by one.
const MAX_NAMED: usize = 32;
/// Characters of a cause in the log.
const MAX_CAUSE_CHARS: usize = 200;

/// Which methods become tools, and what is said of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    /// Full names; empty: all but gRPC's own.
    pub(crate) services: BTreeSet<String>,
    /// Empty: all.
    pub(crate) include: BTreeSet<String>,
    pub(crate) exclude: BTreeSet<String>,
    pub(crate) hide_output_schemas: bool,
}

impl Filter {
    /// Whether a service's methods become tools.
    pub(super) fn takes_service(&self, full_name: &str) -> bool {
        match self.services.is_empty() {
            true => !OWN.iter().any(|own| full_name.starts_with(own)),
            false => self.services.contains(full_name),
        }
    }

    fn takes(&self, method: &str, name: &str) -> bool {
        let any = |patterns: &BTreeSet<String>| patterns.iter().any(|p| fits(p, method) || fits(p, name));
        (self.include.is_empty() || any(&self.include)) && !any(&self.exclude)
    }
}

/// The tools of descriptors, and what calls of them do.
#[derive(Debug, Default)]
pub(super) struct Catalogue {
    pub(super) definitions: Definitions,
    calls: BTreeMap<String, Arc<Call>>,
    /// Methods without a tool, services and files that are not there, and why.
    pub(super) left_out: Vec<(String, String)>,
}

impl Catalogue {
    /// Reads descriptors.
    pub(super) fn read(files: Files, filter: &Filter, max_tools: usize) -> Self {
        let (pool, mut left_out) = files.read();
        let (mut all, work, comments) = (Names::default(), Work::default(), Comments::default());
        let (mut definitions, mut calls) = (Vec::<Definition>::new(), BTreeMap::new());
        let mut seen = 0_usize;
        // The order of files says nothing.
        let mut services: Vec<ServiceDescriptor> =
            pool.services().filter(|service| filter.takes_service(service.full_name())).collect();
        services.sort_by(|a, b| a.full_name().cmp(b.full_name()));
        for lacking in filter.services.iter().filter(|name| pool.get_service_by_name(name).is_none()) {
            left_out.push((lacking.clone(), "there is no such service among the descriptors".to_owned()));
        }
        for service in services {
            if seen >= MAX_METHODS {
                left_out.push((service.full_name().to_owned(), "there are too many methods already".to_owned()));
                continue;
            }
            for method in service.methods().take(MAX_METHODS - seen) {
                seen += 1;
                // Before anything is left out, so that a name does not depend on what is.
                let name = all.take(&sanitised(&format!("{}_{}", service.name(), method.name())));
                if !filter.takes(&format!("{}/{}", service.full_name(), method.name()), &name) {
                    continue;
                }
                let made = match definitions.len() < max_tools {
                    true => tool(&method, &name, !filter.hide_output_schemas, &work, &comments),
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
        Self { definitions: Arc::new(DefinitionList::from(definitions)), calls, left_out }
    }

    /// What a call of a tool does.
    pub(super) fn call(&self, tool: &str) -> Option<&Arc<Call>> {
        self.calls.get(tool)
    }

    /// Says in the log what has no tool.
    pub(super) fn log(&self, plugin: &str) {
        for (name, cause) in self.left_out.iter().take(MAX_NAMED) {
            let cause = bounded(cause, MAX_CAUSE_CHARS);
            let (name, cause) = (name.escape_debug(), cause.escape_debug());
            tracing::warn!(plugin, %name, %cause, "a method is no tool");
        }
        tracing::info!(
            plugin,
            tools = self.definitions.len(),
            left_out = self.left_out.len(),
            "descriptors of gRPC were read"
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
