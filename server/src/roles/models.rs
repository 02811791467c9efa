//! Models of other nodes: control-plane nodes ask each node that runs models, over mutual TLS.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::future::join_all;
use provost_control_api::{ControlNode, identity::Registry};
use provost_types::BoxFuture;
use provost_wire::{
    models::{
        ModelOrderRequest, ModelRemoveRequest, ModelStatusRequest, ModelsOfNode, ModelsResponse, TuningsRequest,
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

/// A member is certified for these when it runs models: for others, or for the calls that it serves.
const RUN_MODELS: [Role; 2] = [Role::DataPlane, Role::GpuNode];

/// Every node of the cluster that runs models.
pub(super) struct OfCluster {
    control: ControlNode,
    identity: Arc<Identity>,
}

impl OfCluster {
    pub(super) fn new(control: ControlNode, identity: Arc<Identity>) -> Self {
        Self { control, identity }
    }

    async fn ask_one(&self, keeper: &Keeper, role: Role, question: Question) -> ModelsOfNode {
        let failed = |problem: String| ModelsOfNode { node: keeper.name.clone(), problem, ..ModelsOfNode::default() };
        let Some(channel) = Roster::channel(&self.identity, keeper, role) else {
            return failed(unreachable_because("its address cannot be used"));
        };
        let limit = match question {
            Question::Status(_) | Question::Tunings(_) => STATUS_LIMIT,
            Question::Order(_) | Question::Remove(_) | Question::CancelTuning(_) => ORDER_LIMIT,
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
        Question::Remove(asked) => client.remove(ModelRemoveRequest { node: String::new(), ..asked }).await,
        Question::Tunings(asked) => client.tunings(TuningsRequest { node: String::new(), ..asked }).await,
        Question::CancelTuning(asked) => client.cancel_tuning(TuningsRequest { node: String::new(), ..asked }).await,
    }
}

fn unreachable_because(why: &str) -> String {
    format!("PV-MODEL-NODE: it does not answer: {why}; is it running?")
}

impl ModelNodes for OfCluster {
    fn ask(&self, question: Question) -> BoxFuture<'_, Vec<ModelsOfNode>> {
        Box::pin(async move {
            let cluster = Registry::cluster(&self.control);
            // A member that has both roles is one node.
            let mut nodes: BTreeMap<u64, (Keeper, Role)> = BTreeMap::new();
            for role in RUN_MODELS {
                for (id, keeper) in Roster::of(&cluster, role).keepers {
                    nodes.entry(id).or_insert((keeper, role));
                }
            }
            nodes.retain(|_, (keeper, _)| question.node().is_empty() || keeper.name == question.node());
            let asked: Vec<_> =
                nodes.values().map(|(keeper, role)| self.ask_one(keeper, *role, question.clone())).collect();
            let mut answers = join_all(asked).await;
            answers.sort_by(|a, b| a.node.cmp(&b.node));
            answers
        })
    }
}

/// Answers control-plane nodes for the GPU node of this process.
pub(super) struct NodeModelsService {
    here: Here,
    callers: Callers,
}

impl NodeModelsService {
    pub(super) fn server(here: Here, callers: Callers) -> NodeModelsServer<Self> {
        NodeModelsServer::new(Self { here, callers })
    }

    async fn admitted<T>(&self, request: Request<T>) -> Result<(&Here, T), Status> {
        let admitted = self.callers.with_role(request.extensions(), Role::ControlPlane).await;
        admitted.map_err(|status| Status::new(status.code(), format!("PV-MODEL-NODE: {}", status.message())))?;
        Ok((&self.here, request.into_inner()))
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

    async fn remove(&self, request: Request<ModelRemoveRequest>) -> Result<Response<ModelsResponse>, Status> {
        let (here, asked) = self.admitted(request).await?;
        Ok(Response::new(ModelsResponse { nodes: vec![here.answer(Question::Remove(asked)).await] }))
    }

    async fn tunings(&self, request: Request<TuningsRequest>) -> Result<Response<ModelsResponse>, Status> {
        let (here, asked) = self.admitted(request).await?;
        Ok(Response::new(ModelsResponse { nodes: vec![here.answer(Question::Tunings(asked)).await] }))
    }

    async fn cancel_tuning(&self, request: Request<TuningsRequest>) -> Result<Response<ModelsResponse>, Status> {
        let (here, asked) = self.admitted(request).await?;
        Ok(Response::new(ModelsResponse { nodes: vec![here.answer(Question::CancelTuning(asked)).await] }))
    }
}
