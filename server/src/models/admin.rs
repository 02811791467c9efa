//! The service for administrators of the cluster.

use std::sync::Arc;

use provost_control_api::{Caller, Scope};
use provost_types::{AuditSink, CallStatus, Subject};
use provost_wire::{
    admin::Failure,
    models::{
        ModelOrderRequest, ModelRemoveRequest, ModelStatusRequest, ModelsOfNode, ModelsResponse, TuningsRequest,
        models_server::{Models, ModelsServer},
    },
};
use tonic::{Code, Request, Response, Status, service::Routes};

use super::{ModelNodes, Question, here};
use crate::{
    audit_admin::admin_event,
    audit_caller::{failure_of, taken, who},
};

struct ModelsService {
    nodes: Arc<dyn ModelNodes>,
    sink: Arc<dyn AuditSink>,
}

/// Adds the service to those of the admin listener.
pub fn routes(beside: Routes, nodes: Arc<dyn ModelNodes>, sink: Arc<dyn AuditSink>) -> Routes {
    beside.add_service(ModelsServer::new(ModelsService { nodes, sink }))
}

impl ModelsService {
    async fn ask(&self, question: Question) -> Result<Response<ModelsResponse>, Status> {
        let named = question.node().to_owned();
        let nodes: Vec<ModelsOfNode> = self.nodes.ask(question).await;
        if nodes.is_empty() {
            let text = match named.as_str() {
                "" => "no node serves models".to_owned(),
                name => format!("no node `{name}` serves models"),
            };
            let hint = "`provost cluster status` lists the nodes; models are run by those with the role data-plane or gpu-node";
            return Err(Failure::new("PV-MODEL-NODE", text, hint).into_status(Code::NotFound));
        }
        Ok(Response::new(ModelsResponse { nodes }))
    }

    /// Notes an order before it is passed on.
    async fn record(&self, caller: &Caller, event: String, object: String, detail: String) -> Result<(), Status> {
        let subject = Subject { event, objects: vec![object], detail };
        let event = admin_event(None, who(caller), subject, Some(CallStatus::Ok));
        self.sink.record(event).await.map(drop).map_err(|cause| {
            let hint = "no node has heard of the order; try again";
            Failure::new("PV-AUDIT-UNAVAILABLE", cause.to_string(), hint).into_status(Code::Unavailable)
        })
    }
}

#[tonic::async_trait]
impl Models for ModelsService {
    async fn status(&self, request: Request<ModelStatusRequest>) -> Result<Response<ModelsResponse>, Status> {
        let (caller, asked) = taken(request)?;
        of_cluster(&caller)?;
        self.ask(Question::Status(asked)).await
    }

    async fn order(&self, request: Request<ModelOrderRequest>) -> Result<Response<ModelsResponse>, Status> {
        let (caller, asked) = taken(request)?;
        of_cluster(&caller)?;
        if here::order_of(&asked).is_none() {
            let refused = failure_of(&here::unknown_order(&asked.order), "PV-MODEL-ORDER");
            return Err(refused.into_status(Code::InvalidArgument));
        }
        let nodes = nodes_of(&asked.node);
        let detail = if asked.drain { format!("{nodes}, drains") } else { nodes };
        self.record(&caller, format!("model.{}", asked.order), format!("Model/{}", asked.name), detail).await?;
        self.ask(Question::Order(asked)).await
    }

    async fn remove(&self, request: Request<ModelRemoveRequest>) -> Result<Response<ModelsResponse>, Status> {
        let (caller, asked) = taken(request)?;
        of_cluster(&caller)?;
        if !asked.dry_run {
            let what = if asked.model.is_empty() { "what nothing uses" } else { asked.model.as_str() };
            let object = format!("StoredModel/{what}");
            self.record(&caller, "model.remove".to_owned(), object, nodes_of(&asked.node)).await?;
        }
        self.ask(Question::Remove(asked)).await
    }

    async fn tunings(&self, request: Request<TuningsRequest>) -> Result<Response<ModelsResponse>, Status> {
        let (caller, asked) = taken(request)?;
        of_cluster(&caller)?;
        self.ask(Question::Tunings(asked)).await
    }

    async fn cancel_tuning(&self, request: Request<TuningsRequest>) -> Result<Response<ModelsResponse>, Status> {
        let (caller, asked) = taken(request)?;
        of_cluster(&caller)?;
        let object = format!("Tuning/{}", asked.name);
        self.record(&caller, "tuning.cancel".to_owned(), object, nodes_of(&asked.node)).await?;
        self.ask(Question::CancelTuning(asked)).await
    }
}

/// The nodes that an order is for, in words.
fn nodes_of(node: &str) -> String {
    if node.is_empty() { "all nodes".to_owned() } else { format!("node {node}") }
}

/// Models are the cluster's, and so is the memory of its nodes.
fn of_cluster(caller: &Caller) -> Result<(), Status> {
    match &caller.scope {
        Scope::Cluster => Ok(()),
        Scope::Tenant(own) => {
            let text = format!("{} administers the tenant {own} only", caller.name);
            Err(Failure::new("PV-ADMIN-SCOPE", text, "ask a cluster administrator").into_status(Code::PermissionDenied))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Mutex;

    use provost_types::{AuditEvent, AuditReceipt, AuditUnavailable, BoxFuture, Name};

    use super::*;

    /// Notes what it is asked; answers as one node.
    #[derive(Default)]
    struct One(Mutex<Vec<String>>);

    impl ModelNodes for One {
        fn ask(&self, question: Question) -> BoxFuture<'_, Vec<ModelsOfNode>> {
            self.0.lock().unwrap().push(format!("{question:?}"));
            let is_meant = matches!(question.node(), "" | "one");
            let answer = ModelsOfNode { node: "one".to_owned(), ..ModelsOfNode::default() };
            Box::pin(std::future::ready(is_meant.then_some(answer).into_iter().collect()))
        }
    }

    /// A log that takes nothing.
    struct Closed;

    impl AuditSink for Closed {
        fn record(&self, _: AuditEvent) -> BoxFuture<'_, Result<AuditReceipt, AuditUnavailable>> {
            Box::pin(std::future::ready(Err(AuditUnavailable("PV-AUDIT-UNAVAILABLE: closed".to_owned()))))
        }
    }

    fn asked<T>(scope: Scope, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.extensions_mut().insert(Caller { scope, ..Caller::internal("x") });
        request
    }

    fn code(refused: &Status) -> String {
        Failure::of(refused).code
    }

    #[tokio::test]
    async fn only_administrators_of_the_cluster_are_answered_and_orders_are_recorded_first() {
        let nodes = Arc::new(One::default());
        let service = ModelsService { nodes: nodes.clone(), sink: Arc::new(Closed) };
        let tenant = || Scope::Tenant(Name::new("acme").unwrap());
        let order = |order: &str| ModelOrderRequest {
            name: "m".to_owned(),
            order: order.to_owned(),
            ..ModelOrderRequest::default()
        };
        let refused = service.status(asked(tenant(), ModelStatusRequest::default())).await.unwrap_err();
        assert_eq!(code(&refused), "PV-ADMIN-SCOPE");
        let refused = service.order(asked(tenant(), order("load"))).await.unwrap_err();
        assert_eq!(code(&refused), "PV-ADMIN-SCOPE");
        let refused = service.order(asked(Scope::Cluster, order("explode"))).await.unwrap_err();
        assert_eq!(code(&refused), "PV-MODEL-ORDER");
        let refused = service.order(asked(Scope::Cluster, order("load"))).await.unwrap_err();
        assert_eq!(code(&refused), "PV-AUDIT-UNAVAILABLE");
        let remove = |dry_run| ModelRemoveRequest { dry_run, ..ModelRemoveRequest::default() };
        let refused = service.remove(asked(tenant(), remove(true))).await.unwrap_err();
        assert_eq!(code(&refused), "PV-ADMIN-SCOPE");
        let refused = service.remove(asked(Scope::Cluster, remove(false))).await.unwrap_err();
        assert_eq!(code(&refused), "PV-AUDIT-UNAVAILABLE");
        let task = || TuningsRequest { name: "t".to_owned(), ..TuningsRequest::default() };
        let refused = [
            service.tunings(asked(tenant(), task())).await.unwrap_err(),
            service.cancel_tuning(asked(tenant(), task())).await.unwrap_err(),
        ];
        assert!(refused.iter().all(|status| code(status) == "PV-ADMIN-SCOPE"), "{refused:?}");
        let refused = service.cancel_tuning(asked(Scope::Cluster, task())).await.unwrap_err();
        assert_eq!(code(&refused), "PV-AUDIT-UNAVAILABLE");
        assert!(nodes.0.lock().unwrap().is_empty(), "no node has heard of any of it");
        service.remove(asked(Scope::Cluster, remove(true))).await.expect("what is only said needs no record");
        let all = service.status(asked(Scope::Cluster, ModelStatusRequest::default())).await.unwrap();
        assert_eq!(all.get_ref().nodes.len(), 1);
        let elsewhere = ModelStatusRequest { node: "two".to_owned(), ..ModelStatusRequest::default() };
        let refused = service.status(asked(Scope::Cluster, elsewhere)).await.unwrap_err();
        assert_eq!(code(&refused), "PV-MODEL-NODE");
    }
}
