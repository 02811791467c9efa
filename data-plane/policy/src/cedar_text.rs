//! From the text of one `Policy` resource to checked Cedar policies with names.

use std::collections::HashSet;

use cedar_policy::{ParseErrors, Policy, PolicyId, PolicySet, ValidationMode, Validator};
use provost_types::{PolicyMode, PolicySpec, ResourceKey};

use crate::PolicyProblem;

/// Longest `cedar` text of one resource, in bytes.
const MAX_TEXT_BYTES: usize = 256 * 1024;

/// One policy of a tenant under the id `RESOURCE/ID` that answers and records name it by.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) policy: Policy,
    pub(crate) mode: PolicyMode,
}

/// Parses and validates a resource's text; returns every problem at once.
pub(crate) fn read(
    key: &ResourceKey,
    spec: &PolicySpec,
    validator: &Validator,
) -> Result<Vec<Rule>, Vec<PolicyProblem>> {
    let text = spec.cedar.as_str();
    if text.len() > MAX_TEXT_BYTES {
        let message = format!("the cedar text has {} bytes, at most {MAX_TEXT_BYTES}", text.len());
        let hint = Some("split it into several Policy resources".to_owned());
        return Err(vec![PolicyProblem::new(key.clone(), message, hint)]);
    }
    let set: PolicySet = text.parse().map_err(|errors: ParseErrors| from_parse_errors(key, text, &errors))?;
    let mut problems = refused_forms(key, &set);
    let verdict = validator.validate(&set, ValidationMode::Strict);
    problems.extend(verdict.validation_errors().map(|e| PolicyProblem::from_cedar(key.clone(), text, e)));
    // A warning says that a policy can never apply or is easily misread; for a rule that is meant
    // to protect something, that is an error. Beside errors it only repeats them.
    if verdict.validation_passed() {
        problems.extend(verdict.validation_warnings().map(|w| PolicyProblem::from_cedar(key.clone(), text, w)));
    }
    let rules = name_rules(key, spec.mode, &set, &mut problems);
    if problems.is_empty() {
        return Ok(rules);
    }
    problems.sort_by(|a, b| (a.line, a.column, &a.message).cmp(&(b.line, b.column, &b.message)));
    problems.dedup();
    Err(problems)
}

fn from_parse_errors(key: &ResourceKey, text: &str, errors: &ParseErrors) -> Vec<PolicyProblem> {
    errors.iter().map(|e| PolicyProblem::from_cedar(key.clone(), text, e)).collect()
}

fn refused_forms(key: &ResourceKey, set: &PolicySet) -> Vec<PolicyProblem> {
    let mut problems = Vec::new();
    if set.num_of_templates() > 0 {
        let message = "templates (`?principal`, `?resource`) are not supported".to_owned();
        let hint = Some("name the principal or role in the policy".to_owned());
        problems.push(PolicyProblem::new(key.clone(), message, hint));
    } else if set.is_empty() {
        let message = "the cedar text has no policy".to_owned();
        problems.push(PolicyProblem::new(key.clone(), message, None));
    }
    problems
}

/// Gives each policy the name `RESOURCE/ID`: `@id`, else Cedar's own `policy0`, `policy1`, ….
fn name_rules(key: &ResourceKey, mode: PolicyMode, set: &PolicySet, problems: &mut Vec<PolicyProblem>) -> Vec<Rule> {
    let mut seen = HashSet::new();
    let mut rules = Vec::new();
    for policy in set.policies() {
        let own = policy.id().to_string();
        let id = policy.annotation("id").filter(|id| !id.is_empty()).unwrap_or(&own);
        if !seen.insert(id.to_owned()) {
            let message = format!("two policies have the id `{id}`");
            let hint = Some("give each policy its own @id(\"…\")".to_owned());
            problems.push(PolicyProblem::new(key.clone(), message, hint));
        }
        let name = PolicyId::new(format!("{}/{id}", key.name));
        rules.push(Rule { policy: policy.new_id(name), mode });
    }
    rules
}
