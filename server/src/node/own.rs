//! The data plane of this process, as its control plane tells of it.

use std::{sync::Arc, time::Duration};

use provost_control_api::{ControlNode, SubscriberStatus, Subscribers, push::Part};
use provost_data_serve::node::Node;
use provost_types::Revision;
use provost_wire::tls::Role;

/// Of `provost dev`: it takes its configuration from no other process, and is the one node that serves.
pub struct OwnNode {
    /// The control plane.
    pub control: ControlNode,
    /// What serves calls.
    pub node: Arc<Node>,
}

impl Subscribers for OwnNode {
    fn subscribers(&self) -> Vec<SubscriberStatus> {
        Vec::new()
    }

    fn serving(&self) -> Vec<SubscriberStatus> {
        let plugins = self.node.plugins_standing();
        vec![SubscriberStatus {
            node: self.control.status().node,
            role: Role::DataPlane.as_str().to_owned(),
            revision: Revision(plugins.revision),
            lag: 0,
            silent: Duration::ZERO,
            problems: Vec::new(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            part: Part::All,
            refused: None,
            plugins: Some(plugins),
        }]
    }
}
