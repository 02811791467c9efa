//! What a node is made of, by who composes it.

use std::sync::Arc;

use provost_data_tools::Toolbox;
use provost_types::{AuditSink, Inference, PrincipalRef};

/// What the node is composed of.
pub struct NodePorts {
    /// Where records go.
    pub audit: Arc<dyn AuditSink>,
    /// Plugins.
    pub toolbox: Arc<Toolbox>,
    /// Models.
    pub inference: Arc<dyn Inference>,
    /// Whether, and as whom, calls without a token are served.
    pub anonymous: Option<PrincipalRef>,
}
