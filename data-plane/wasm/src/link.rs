//! What a component may import.

use wasmtime::component::{Component, HasSelf, Linker};

use crate::{
    PluginError,
    bindings::{
        ToolPluginPre,
        prompts::exports::provost::plugin::prompts::GuestIndices as PromptIndices,
        provost::plugin::{host, http, types},
        resources::exports::provost::plugin::resources::GuestIndices as ResourceIndices,
    },
    state::CallState,
};

/// What an installation grants beyond the interfaces that every plugin has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    /// Outbound HTTP. Where it may lead is for [`crate::PluginHost::send_http`] to say.
    pub http: bool,
}

/// The package of the contract, with the version that this node speaks.
const PACKAGE: &str = "provost:plugin/";
const VERSION: &str = "@0.1.0";

/// A component that is tied to the host, and where what it exports beside tools is found.
pub(crate) struct Tied {
    pub(crate) pre: ToolPluginPre<CallState>,
    /// `None`: it has no prompts.
    pub(crate) prompts: Option<PromptIndices>,
    /// `None`: it has no resources.
    pub(crate) resources: Option<ResourceIndices>,
}

impl Tied {
    fn new(pre: ToolPluginPre<CallState>) -> wasmtime::Result<Self> {
        let instance_pre = pre.instance_pre();
        let component = instance_pre.component();
        let ty = component.component_type();
        let has = |what: &str| ty.exports(component.engine()).any(|(name, _)| interface(name) == Some(what));
        let prompts = if has("prompts") { Some(PromptIndices::new(instance_pre)?) } else { None };
        let resources = if has("resources") { Some(ResourceIndices::new(instance_pre)?) } else { None };
        Ok(Self { pre, prompts, resources })
    }

    /// Whether it exports more than tools.
    pub(crate) fn has_more(&self) -> bool {
        self.prompts.is_some() || self.resources.is_some()
    }
}

/// The imports, bound to the host, for every set of grants.
pub(crate) struct Links {
    plain: Linker<CallState>,
    with_http: Linker<CallState>,
}

impl Links {
    pub(crate) fn new(engine: &wasmtime::Engine) -> wasmtime::Result<Self> {
        let mut plain = Linker::new(engine);
        types::add_to_linker::<_, HasSelf<_>>(&mut plain, |state: &mut CallState| state)?;
        host::add_to_linker::<_, HasSelf<_>>(&mut plain, |state: &mut CallState| state)?;
        let mut with_http = plain.clone();
        http::add_to_linker::<_, HasSelf<_>>(&mut with_http, |state: &mut CallState| state)?;
        Ok(Self { plain, with_http })
    }

    /// Ties a component to the host, if it asks for nothing that it may not have and has all that a plugin has.
    pub(crate) fn tie(&self, component: &Component, grants: Grants) -> Result<Tied, PluginError> {
        let linker = if grants.http { &self.with_http } else { &self.plain };
        let ty = component.component_type();
        let foreign = ty.imports(component.engine()).map(|(name, _)| name).filter(|name| !is_offered(name, grants));
        let foreign = foreign.collect::<Vec<_>>();
        if !foreign.is_empty() {
            return Err(PluginError::Imports(why_not(&foreign)));
        }
        // The names are right: what can still be wrong is the types, and what is not exported.
        let tied = linker.instantiate_pre(component).and_then(ToolPluginPre::new).and_then(Tied::new);
        tied.map_err(|cause| PluginError::Imports(format!("{cause:#}")))
    }
}

fn interface(name: &str) -> Option<&str> {
    name.strip_prefix(PACKAGE)?.strip_suffix(VERSION)
}

fn is_offered(name: &str, grants: Grants) -> bool {
    match interface(name) {
        Some("types" | "host") => true,
        Some("http") => grants.http,
        _ => false,
    }
}

fn why_not(foreign: &[&str]) -> String {
    let names = foreign.join(", ");
    if foreign.iter().all(|name| interface(name) == Some("http")) {
        return "it imports provost:plugin/http, and its installation grants no egress".to_owned();
    }
    if foreign.iter().any(|name| name.starts_with("wasi:")) {
        return format!("it imports {names}; there is no WASI: build it for wasm32-unknown-unknown");
    }
    format!("it imports {names}; there is only {PACKAGE}host{VERSION} and, where it is granted, {PACKAGE}http{VERSION}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_offered_depends_on_the_grants() {
        let with_http = Grants { http: true };
        let table = [
            ("provost:plugin/host@0.1.0", true, true),
            ("provost:plugin/types@0.1.0", true, true),
            ("provost:plugin/http@0.1.0", false, true),
            ("provost:plugin/host@0.2.0", false, false),
            ("provost:plugin/host", false, false),
            ("wasi:cli/environment@0.2.0", false, false),
        ];
        for (name, plain, http) in table {
            assert_eq!((is_offered(name, Grants::default()), is_offered(name, with_http)), (plain, http), "{name}");
        }
    }
}
