//! A node is made, and told what it works with before it serves.

use std::sync::{Arc, OnceLock, Weak};

use arc_swap::ArcSwap;
use provost_data_pipeline::Caller;
use tokio::sync::watch;

use super::{coming::Coming, compiled::Compiled, counts::Counts, plane::Node, ports::NodePorts, tasks::TaskHandles};
use crate::{
    SealKeys,
    bodies::BodyKeeper,
    connect::Tickets,
    definitions::DefinitionKeeper,
    guards::ExternalClients,
    observe::{Meters, Tracing},
    push::{StalenessLimits, StalenessReader},
    quota::Quotas,
};

impl Node {
    /// A node that runs `first` until told otherwise.
    pub fn new(ports: NodePorts, first: Compiled) -> Self {
        let NodePorts { audit, toolbox, inference, anonymous } = ports;
        toolbox.reconcile(&first.snapshot);
        first.tokens.warm();
        let anonymous = anonymous.map(|principal| {
            Arc::new(Caller { principal, authenticated_by: "anonymous".to_owned(), token: None, subject: None })
        });
        let switches = watch::Sender::new(first.switches.clone());
        let current = ArcSwap::from_pointee(first);
        let external_guards = Arc::new(ExternalClients::new(toolbox.clone()));
        Self {
            current,
            switches,
            audit,
            toolbox,
            inference,
            anonymous,
            counts: Counts::default(),
            guard_counts: Arc::default(),
            definitions: DefinitionKeeper::alone(),
            quotas: None,
            staleness: None,
            bodies: None,
            load: Arc::default(),
            external_guards,
            token_keys: OnceLock::new(),
            coming: Coming::default(),
            addresses: OnceLock::new(),
            tasks: TaskHandles::default(),
            tickets: OnceLock::new(),
            itself: OnceLock::new(),
            meters: Meters::default(),
            tracing: OnceLock::new(),
        }
    }

    /// Lets the guests of plugins call other tools, as far as documents and policy do; the first telling counts.
    pub fn lets_guests_call(self: &Arc<Self>) {
        let _ = self.itself.set(Arc::downgrade(self));
    }

    /// Tells of calls for their traces, and passes their traces on to upstreams; the first telling counts.
    pub fn traces_to(&self, tracing: Arc<Tracing>) {
        let _ = self.tracing.set(tracing);
    }

    /// What calls of guests are driven by.
    pub(super) fn itself(&self) -> Option<Weak<Node>> {
        self.itself.get().cloned()
    }

    /// Tells the addresses that agents know the node by (`https://mcp.example.com`); the first telling counts.
    /// Tokens for them are taken where a provider names no audience; without any, none is.
    pub fn known_as(&self, addresses: &[String]) {
        let bare = addresses.iter().map(|address| address.trim_end_matches('/').to_owned()).collect();
        let _ = self.addresses.set(bare);
    }

    /// Tells the keys under which clients and texts carry things for all nodes; the first telling counts. A node that is
    /// told none gives handles of tasks that are good at it alone, and masks what guards would tokenise.
    pub fn seals_with(&self, keys: &Arc<SealKeys>) {
        let _ = self.token_keys.set(keys.clone());
        self.tasks.keyed(keys);
        let _ = self.tickets.set(Tickets::new(keys));
    }

    /// The address that users are sent to.
    pub(super) fn first_address(&self) -> Option<&str> {
        self.addresses.get()?.first().map(String::as_str)
    }

    /// With keys to keep bodies under; a node without records calls and nothing of their bodies.
    #[must_use]
    pub fn with_bodies(mut self, bodies: BodyKeeper) -> Self {
        self.bodies = Some(bodies);
        self
    }

    /// With a keeper that reports tool definitions; a node without pins what it sees by itself.
    #[must_use]
    pub fn with_definitions(mut self, definitions: DefinitionKeeper) -> Self {
        self.definitions = definitions;
        self
    }

    /// With leases of quotas; a node without denies what a quota covers.
    #[must_use]
    pub fn with_quotas(mut self, quotas: Arc<Quotas>) -> Self {
        self.quotas = Some(quotas);
        self
    }

    /// For a node whose control plane is elsewhere: from some age of its state on, grants may have
    /// been taken away since, and calls that need one are denied.
    #[must_use]
    pub fn with_staleness(mut self, reader: StalenessReader, limits: StalenessLimits) -> Self {
        self.staleness = Some((reader, limits));
        self
    }
}
