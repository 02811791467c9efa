//! What can be said of a policy before the arguments of a call are known.
//!
//! A policy that does not mention `context` decides a listing as it decides a call. Of the others,
//! a `forbid` says nothing certain, and a `permit` is weakened: the conditions that mention
//! `context` are taken as true. So a weakened `permit` holds for every call that the policy itself
//! permits, and hiding an object because no weakened `permit` holds is sound.

use cedar_policy::{Effect, Policy};
use serde_json::{Value, json};

/// Which parts of `context` a policy reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ContextNeeds {
    pub(crate) arguments: bool,
    pub(crate) sql: bool,
    pub(crate) time: bool,
    pub(crate) caller: bool,
}

impl ContextNeeds {
    const ALL: Self = Self { arguments: true, sql: true, time: true, caller: true };

    pub(crate) fn any(self) -> bool {
        self.arguments || self.sql || self.time || self.caller
    }

    pub(crate) fn union(self, other: Self) -> Self {
        Self {
            arguments: self.arguments || other.arguments,
            sql: self.sql || other.sql,
            time: self.time || other.time,
            caller: self.caller || other.caller,
        }
    }

    fn of_attribute(name: &str) -> Self {
        let none = Self::default();
        match name {
            "args" | "ints" | "bools" | "lists" => Self { arguments: true, ..none },
            "sql" => Self { sql: true, ..none },
            "time" => Self { time: true, ..none },
            "transport" | "client_address" => Self { caller: true, ..none },
            _ => Self::ALL,
        }
    }

    /// What a policy reads. A form that is not recognised counts as reading everything.
    pub(crate) fn of_policy(policy: &Policy) -> Self {
        match policy.to_json() {
            Ok(json) => Self::of_expression(json.get("conditions").unwrap_or(&Value::Null)),
            Err(_) => Self::ALL,
        }
    }

    fn of_expression(json: &Value) -> Self {
        match json {
            Value::Array(items) => items.iter().map(Self::of_expression).fold(Self::default(), Self::union),
            Value::Object(map) => {
                if map.get("Var").is_some_and(|v| v == "context") {
                    return Self::ALL;
                }
                if let Some(name) = context_attribute(map) {
                    return Self::of_attribute(name);
                }
                map.values().map(Self::of_expression).fold(Self::default(), Self::union)
            }
            _ => Self::default(),
        }
    }
}

/// `context.NAME` or `context has NAME`.
fn context_attribute(map: &serde_json::Map<String, Value>) -> Option<&str> {
    let inner = map.get(".").or_else(|| map.get("has"))?;
    let is_context = inner.get("left")?.get("Var")? == "context";
    match inner.get("attr")? {
        Value::String(name) if is_context => Some(name),
        Value::Array(path) if is_context => path.first()?.as_str(),
        _ => None,
    }
}

/// How a policy takes part in listings.
pub(crate) enum ListingForm {
    /// As it is: it does not read `context`.
    Exact(Policy),
    /// Weakened: an error in it counts as a yes.
    Weakened(Policy),
    /// Not at all: it says nothing certain.
    Silent,
}

/// The form of `policy` for listings.
pub(crate) fn listing_form(policy: &Policy) -> ListingForm {
    if !ContextNeeds::of_policy(policy).any() {
        return ListingForm::Exact(policy.clone());
    }
    if policy.effect() == Effect::Forbid {
        return ListingForm::Silent;
    }
    ListingForm::Weakened(weaken(policy).unwrap_or_else(|| permit_in_scope(policy)))
}

fn weaken(policy: &Policy) -> Option<Policy> {
    let mut json = policy.to_json().ok()?;
    let conditions = json.get_mut("conditions")?.as_array_mut()?;
    let mut kept = Vec::new();
    for condition in conditions.drain(..) {
        let body = condition.get("body")?;
        let holds = condition.get("kind")? == "when";
        kept.extend(conjuncts(body, holds).into_iter().filter(|c| !reads_context(c)));
    }
    *conditions = kept.into_iter().map(|body| json!({"kind": "when", "body": body})).collect();
    Policy::from_json(Some(policy.id().clone()), json).ok()
}

/// The weakest permit: everything. Used if a policy cannot be rewritten, so that nothing that may
/// be called is hidden.
fn permit_in_scope(policy: &Policy) -> Policy {
    let text = "permit(principal, action, resource);";
    Policy::parse(Some(policy.id().clone()), text).unwrap_or_else(|_| policy.clone())
}

fn reads_context(expression: &Value) -> bool {
    ContextNeeds::of_expression(expression).any()
}

/// Splits `expression` (or its negation) into parts that must all hold, in order.
fn conjuncts(expression: &Value, holds: bool) -> Vec<Value> {
    let operator = if holds { "&&" } else { "||" };
    if let Some(both) = expression.get(operator)
        && let (Some(left), Some(right)) = (both.get("left"), both.get("right"))
    {
        let mut parts = conjuncts(left, holds);
        parts.extend(conjuncts(right, holds));
        return parts;
    }
    if let Some(inner) = expression.get("!").and_then(|not| not.get("arg")) {
        return conjuncts(inner, !holds);
    }
    match holds {
        true => vec![expression.clone()],
        false => vec![json!({"!": {"arg": expression}})],
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn weakened(text: &str) -> String {
        let policy = Policy::parse(None, text).unwrap();
        match listing_form(&policy) {
            ListingForm::Exact(_) => "exact".to_owned(),
            ListingForm::Silent => "silent".to_owned(),
            ListingForm::Weakened(p) => {
                let json = p.to_json().unwrap();
                let kept = json.get("conditions").unwrap().as_array().unwrap();
                kept.iter()
                    .map(|c| {
                        format!(
                            "{}",
                            Policy::from_json(
                                None,
                                json!({
                                    "effect": "permit", "principal": {"op": "All"}, "action": {"op": "All"},
                                    "resource": {"op": "All"}, "conditions": [c]
                                })
                            )
                            .unwrap()
                        )
                    })
                    .collect::<Vec<_>>()
                    .join("\n")
            }
        }
    }

    #[test]
    fn conditions_on_context_are_dropped_from_permits() {
        let head = "permit(principal, action, resource)";
        assert_eq!(weakened(&format!("{head};")), "exact");
        assert_eq!(weakened(&format!("{head} when {{ principal.name == \"context\" }};")), "exact");
        assert_eq!(weakened("forbid(principal, action, resource) when { context has sql };"), "silent");
        assert_eq!(weakened(&format!("{head} when {{ context has sql }};")), "");
        let kept = weakened(&format!(
            "{head} when {{ principal.name == \"ana\" && context has sql && context.sql.has_where }}
             unless {{ resource.name == \"x\" || context.transport == \"ws\" }};"
        ));
        assert_eq!(kept.matches("\"ana\"").count(), 1, "{kept}");
        assert!(kept.contains("!(resource") || kept.contains("!((resource"), "{kept}");
        assert!(!kept.contains("context"), "{kept}");
        assert_eq!(
            weakened(&format!("{head} when {{ principal.name == \"a\" || context has sql }};")),
            "",
            "a choice that context can make is dropped whole"
        );
    }

    #[test]
    fn needs_are_found() {
        for (condition, expect) in [
            ("context.args.hasTag(\"a\")", ContextNeeds { arguments: true, ..Default::default() }),
            ("context has sql", ContextNeeds { sql: true, ..Default::default() }),
            ("context.time < datetime(\"2027-01-01\")", ContextNeeds { time: true, ..Default::default() }),
            ("[context] == []", ContextNeeds::ALL),
            (
                "if true then context.sql.has_where else context.ints.hasTag(\"x\")",
                ContextNeeds { sql: true, arguments: true, ..Default::default() },
            ),
        ] {
            let text = format!("permit(principal, action, resource) when {{ {condition} }};");
            let policy = Policy::parse(None, text).unwrap();
            assert_eq!(ContextNeeds::of_policy(&policy), expect, "{condition}");
        }
    }
}
