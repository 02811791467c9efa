//! Where two planes meet: each adapter gives one plane's part the form that another asks for.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use provost_control_api::{Admission, ControlNode, Secrets};
use provost_control_state::Problem;
use provost_data_policy::{PolicyEngine, PolicyProblem};
use provost_data_serve::{
    connections::keep_request,
    definitions::{DefinitionPort, ReportFailed},
    quota::{LeasePort, LeaseUnavailable},
};
use provost_data_tools::{ConnectionPort, FetchFailed, Keep, KeepFailed, PackagePort, SecretSource};
use provost_types::{BoxFuture, FileDigest, Kind, Name, PrincipalRef, SealedSecret, SecretRef, Snapshot};
use provost_wire::{
    governance::ReportDefinitionsRequest,
    node::{LeaseRequest, LeaseResponse},
};
use secrecy::SecretString;

/// Admission by the same compiler that nodes run: what is admitted can be run. It starts from the
/// last candidate that was sound, so that a check costs what changed since.
#[derive(Default)]
pub struct PolicyAdmission(ArcSwapOption<PolicyEngine>);

impl Admission for PolicyAdmission {
    fn check(&self, candidate: &Snapshot) -> Vec<Problem> {
        let compiled = match &*self.0.load() {
            Some(engine) => engine.recompile(candidate),
            None => PolicyEngine::compile(candidate),
        };
        match compiled {
            Ok(engine) => {
                self.0.store(Some(Arc::new(engine)));
                Vec::new()
            }
            Err(problems) => problems.into_iter().map(problem).collect(),
        }
    }

    fn judges(&self, kind: Kind) -> bool {
        // Of a tenant decisions read the name alone.
        kind != Kind::Tenant && PolicyEngine::reads(kind)
    }
}

fn problem(problem: PolicyProblem) -> Problem {
    let field = match problem.key.kind {
        Kind::Policy => "spec.cedar",
        _ => "spec",
    };
    let message = match (problem.line, problem.column) {
        (Some(line), Some(column)) => {
            format!("{} (line {line}, column {column} of the Cedar text)", problem.message)
        }
        _ => problem.message,
    };
    let made = Problem::of_field(&problem.key, field, "PV-POLICY-INVALID", message);
    match problem.hint {
        Some(hint) => made.hint(hint),
        None => made,
    }
}

/// The ledger of a control plane in this process.
pub struct LocalLeases(pub ControlNode);

impl LeasePort for LocalLeases {
    fn exchange(&self, request: LeaseRequest) -> BoxFuture<'_, Result<LeaseResponse, LeaseUnavailable>> {
        Box::pin(async move { self.0.lease(request).await.map_err(|e| LeaseUnavailable(e.to_string())) })
    }
}

/// Reports to a control plane in this process.
pub struct LocalDefinitions(pub ControlNode);

impl DefinitionPort for LocalDefinitions {
    fn report(&self, request: ReportDefinitionsRequest) -> BoxFuture<'_, Result<(), ReportFailed>> {
        Box::pin(async move {
            let taken = self.0.report_definitions(request).await;
            taken.map(drop).map_err(|e| ReportFailed(e.to_string()))
        })
    }
}

/// Secrets of the control plane as plugins ask for them.
pub struct ControlSecrets(pub Arc<Secrets>);

impl SecretSource for ControlSecrets {
    fn secret(&self, tenant: &Name, name: &Name) -> Option<SecretString> {
        let reference = SecretRef { secret: name.clone(), prefix: String::new() };
        match self.0.unseal(tenant, &reference) {
            Ok(value) => Some(value),
            Err(cause) => {
                tracing::warn!(%tenant, secret = %name, %cause, "a secret cannot be opened");
                None
            }
        }
    }

    fn tokens(&self, tenant: &Name, connection: &Name, sealed: &SealedSecret) -> Option<SecretString> {
        let opened = self.0.open_connection(tenant, connection, sealed);
        match opened.map(|bytes| std::str::from_utf8(&bytes).map(|text| SecretString::from(text.to_owned()))) {
            Ok(Ok(text)) => Some(text),
            Ok(Err(_)) => None,
            Err(cause) => {
                tracing::warn!(%tenant, %connection, %cause, "what a user consented to cannot be opened");
                None
            }
        }
    }
}

/// Packages of a control plane in this process.
pub struct LocalPackages(pub ControlNode);

impl PackagePort for LocalPackages {
    fn fetch<'a>(&'a self, tenant: &'a Name, digest: FileDigest) -> BoxFuture<'a, Result<Bytes, FetchFailed>> {
        Box::pin(async move { self.0.package(tenant, digest).await.map_err(|e| FetchFailed(e.to_string())) })
    }
}

/// Connections kept by a control plane in this process.
pub struct LocalConnections {
    pub control: ControlNode,
    /// This node's name.
    pub node: String,
}

impl ConnectionPort for LocalConnections {
    fn keep<'a>(
        &'a self,
        principal: &'a PrincipalRef,
        plugin: &'a Name,
        keep: Keep,
    ) -> BoxFuture<'a, Result<bool, KeepFailed>> {
        let request = keep_request(&self.node, principal, plugin, keep);
        Box::pin(async move {
            let kept = self.control.keep_connection(request).await;
            kept.map(|kept| kept.taken).map_err(|e| KeepFailed(e.to_string()))
        })
    }
}
