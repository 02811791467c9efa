//! Where two planes meet: each adapter gives one plane's part the form that another asks for.

use std::sync::Arc;

use provost_control_api::{Admission, Secrets};
use provost_control_state::Problem;
use provost_data_policy::{PolicyEngine, PolicyProblem};
use provost_data_tools::SecretSource;
use provost_types::{Kind, Name, SecretRef, Snapshot};
use secrecy::SecretString;

/// Admission by the same compiler that nodes run: what is admitted can be run.
pub struct PolicyAdmission;

impl Admission for PolicyAdmission {
    fn check(&self, candidate: &Snapshot) -> Vec<Problem> {
        match PolicyEngine::compile(candidate) {
            Ok(_) => Vec::new(),
            Err(problems) => problems.into_iter().map(problem).collect(),
        }
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
}
