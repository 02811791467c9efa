//! The models that the cluster declares, on a node that runs models and serves no calls.
//!
//! A data plane takes them from the state that it runs. Without one, the node takes that state by the same stream, for the
//! models only: it opens no secret, and has nothing to refuse. The last state is kept on its disk, so that a node that starts
//! while no control plane answers serves what it served.

use std::sync::Arc;

use anyhow::Context;
use provost_data_serve::push::{Activate, NackProblem, PushClient, PushConfig, Pushed};
use provost_gpu_serve::GpuNode;
use provost_types::BoxFuture;
use provost_wire::tls::Identity;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{data::ControlPlane, epoch, until};
use crate::{config::ServerConfig, models};

/// Declares what is pushed.
struct Declares(Arc<GpuNode>);

impl Activate for Declares {
    fn activate(&self, pushed: Arc<Pushed>) -> BoxFuture<'_, Result<(), Vec<NackProblem>>> {
        Box::pin(async move {
            models::declare(&self.0, pushed.snapshot.clone()).await;
            Ok(())
        })
    }
}

/// Follows the state of the cluster until the node stops.
pub(super) fn follow(
    config: &ServerConfig,
    identity: &Arc<Identity>,
    gpu: Arc<GpuNode>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let epoch = epoch::next(&config.data_dir.join("epoch")).context("PV-SERVER-EPOCH")?;
    let mut push = PushConfig::new(config.node.clone(), identity.name().cluster().as_str(), epoch);
    push.store = Some(config.data_dir.join("push"));
    let dial = Arc::new(ControlPlane { identity: identity.clone(), nodes: config.control_plane.clone() });
    let client = PushClient::start(push, dial)?;
    let activation = client.activation();
    until(async move { activation.drive(&Declares(gpu)).await }, tasks, stop);
    let stopped = stop.clone();
    tasks.spawn(async move {
        stopped.cancelled().await;
        client.stop().await;
    });
    Ok(())
}
