//! Models of other nodes: control-plane nodes ask each node that serves calls, over mutual TLS.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures::future::join_all;
use provost_control_api::{ControlNode, identity::Registry};
use provost_types::BoxFuture;
use provost_wire::{
    models::{
        ModelOrderRequest, ModelStatusRequest, ModelsOfNode, ModelsResponse,
        node_models_client::NodeModelsClient,
        node_models_server::{NodeModels, NodeModelsServer},
    },
    tls::{Identity, Role},
};
use tonic::{Code, Request, Response, Status, transport::Channel};

use super::audit::{
    Callers,
    roster::{Keeper, Roster},
};
use crate::models::{Here, ModelNodes, Question};

/// A node says so soon how its models stand.
const STATUS_LIMIT: Duration = Duration::from_secs(5);
/// An order waits for a place in memory: shorter than what the admin listener gives a call.
const ORDER_LIMIT: Duration = Duration::from_secs(50);

/// Every node of the cluster that serves calls.
pub(super) struct OfCluster {
    control: ControlNode,
    identity: Arc<Identity>,
}

impl OfCluster {
    pub(super) fn new(control: ControlNode, identity: Arc<Identity>) -> Self {
        Self { control, identity }
    }

    async fn ask_one(&self, keeper: &Keeper, question: Question) -> ModelsOfNode {
        let failed = |problem: String| ModelsOfNode { node: keeper.name.clone(), models: Vec::new(), problem };
        let Some(channel) = Roster::channel(&self.identity, keeper, Role::DataPlane) else {
            return failed(unreachable_because("its address cannot be used"));
        };
        let limit = match question {
            Question::Status(_) => STATUS_LIMIT,
            Question::Order(_) => ORDER_LIMIT,
        };
        match tokio::time::timeout(limit, ask(channel, question)).await {
            Ok(Ok(answer)) => match answer.into_inner().nodes.pop() {
                Some(answer) => ModelsOfNode { node: keeper.name.clone(), ..answer },
                None => failed(unreachable_because("it says nothing")),
            },
            Ok(Err(status)) if status.code() == Code::Unimplemented => {
                failed("PV-MODEL-NODE: it is of a release before this one; upgrade it".to_owned())
            }
            Ok(Err(status)) if status.message().starts_with("PV-") => failed(status.message().to_owned()),
            Ok(Err(status)) => failed(unreachable_because(status.message())),
            Err(_) => failed(format!("PV-MODEL-NODE: no answer in {limit:?}; look at `provost model status`")),
        }
    }
}

async fn ask(channel: Channel, question: Question) -> Result<Response<ModelsResponse>, Status> {
    let mut client = NodeModelsClient::new(channel);
    match question {
        Question::Status(asked) => client.status(ModelStatusRequest { node: String::new(), ..asked }).await,
        Question::Order(asked) => client.order(ModelOrderRequest { node: String::new(), ..asked }).await,
    }
}

fn unreachable_because(why: &str) -> String {
    format!("PV-MODEL-NODE: it does not answer: {why}; is it running?")
}

impl ModelNodes for OfCluster {
    fn ask(&self, question: Question) -> BoxFuture<'_, Vec<ModelsOfNode>> {
        Box::pin(async move {
            let roster = Roster::of(&Registry::cluster(&self.control), Role::DataPlane);
            let is_meant = |keeper: &&Keeper| question.node().is_empty() || keeper.name == question.node();
            let meant = roster.keepers.values().filter(is_meant);
            let asked: Vec<_> = meant.map(|keeper| self.ask_one(keeper, question.clone())).collect();
            let mut answers = join_all(asked).await;
            answers.sort_by(|a, b| a.node.cmp(&b.node));
            answers
        })
    }
}

/// Where the service finds the GPU node once it is there.
pub(super) type ModelSlot = Arc<OnceLock<Here>>;

/// Answers control-plane nodes for the GPU node of this process.
pub(super) struct NodeModelsService {
    slot: ModelSlot,
    callers: Callers,
}

impl NodeModelsService {
    pub(super) fn server(slot: ModelSlot, callers: Callers) -> NodeModelsServer<Self> {
        NodeModelsServer::new(Self { slot, callers })
    }

    async fn admitted<T>(&self, request: Request<T>) -> Result<(&Here, T), Status> {
        let admitted = self.callers.with_role(request.extensions(), Role::ControlPlane).await;
        admitted.map_err(|status| Status::new(status.code(), format!("PV-MODEL-NODE: {}", status.message())))?;
        let starting = || Status::unavailable("PV-MODEL-NODE: it is starting; ask again in a moment");
        Ok((self.slot.get().ok_or_else(starting)?, request.into_inner()))
    }
}

#[tonic::async_trait]
impl NodeModels for NodeModelsService {
    async fn status(&self, request: Request<ModelStatusRequest>) -> Result<Response<ModelsResponse>, Status> {
        let (here, asked) = self.admitted(request).await?;
        Ok(Response::new(ModelsResponse { nodes: vec![here.answer(Question::Status(asked)).await] }))
    }

    async fn order(&self, request: Request<ModelOrderRequest>) -> Result<Response<ModelsResponse>, Status> {
        let (here, asked) = self.admitted(request).await?;
        Ok(Response::new(ModelsResponse { nodes: vec![here.answer(Question::Order(asked)).await] }))
    }
}
