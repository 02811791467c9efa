//! What can be said of a policy before the arguments of a call are known.
//!
//! A policy that does not mention `context` decides a listing as it decides a call. Of the others,
//! a `forbid` says nothing certain, and a `permit` is weakened: the conditions that mention
//! `context` are taken as true. So a weakened `permit` holds for every call that the policy itself
//! permits, and hiding an object because no weakened `permit` holds is sound. In the same way it is
//! found which policies could apply to a caller and object at all.

use cedar_policy::Policy;
use serde_json::{Value, json};

use crate::Unknown;

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
    /// The arguments and nothing else.
    pub(crate) const ARGUMENTS: Self = Self { arguments: true, sql: false, time: false, caller: false };

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

    /// The parts of `context` that what is not known keeps hidden.
    pub(crate) fn hidden(unknown: Unknown) -> Self {
        let Unknown { arguments, address } = unknown;
        Self { arguments, sql: arguments, time: false, caller: address }
    }

    /// What is left of it without the parts of `other`.
    pub(crate) fn without(self, other: Self) -> Self {
        Self {
            arguments: self.arguments && !other.arguments,
            sql: self.sql && !other.sql,
            time: self.time && !other.time,
            caller: self.caller && !other.caller,
        }
    }

    /// Whether it reads a part that `other` names.
    pub(crate) fn reads_any_of(self, other: Self) -> bool {
        (self.arguments && other.arguments)
            || (self.sql && other.sql)
            || (self.time && other.time)
            || (self.caller && other.caller)
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

/// The form of a permit for listings: the conditions that mention `context` are taken as true.
pub(crate) fn listing_form(permit: &Policy) -> Policy {
    permit_when(permit, |conditions| conditions.into_iter().filter(|c| !reads_context(c)).collect())
}

/// A permit that holds, or cannot be evaluated, wherever `policy` could apply whatever the context: its
/// conditions up to the first that mentions `context`. Those behind it do not count, because evaluation
/// may fail before it reaches them, and a forbid that fails counts as satisfied.
pub(crate) fn prefix_form(policy: &Policy) -> Policy {
    permit_when(policy, |conditions| conditions.into_iter().take_while(|c| !reads_context(c)).collect())
}

/// A permit with the scope of `policy` and those of its conditions that `choose` takes.
fn permit_when(policy: &Policy, choose: impl FnOnce(Vec<Value>) -> Vec<Value>) -> Policy {
    rewrite(policy, choose).unwrap_or_else(|| permit_everything(policy))
}

/// The conditions of a policy as parts that must all hold, in the order in which they are evaluated.
pub(crate) fn conditions_of(policy: &Policy) -> Option<Vec<Value>> {
    let json = policy.to_json().ok()?;
    let mut parts = Vec::new();
    for condition in json.get("conditions")?.as_array()? {
        let body = condition.get("body")?;
        let holds = condition.get("kind")? == "when";
        parts.extend(conjuncts(body, holds));
    }
    Some(parts)
}

fn rewrite(policy: &Policy, choose: impl FnOnce(Vec<Value>) -> Vec<Value>) -> Option<Policy> {
    let kept = choose(conditions_of(policy)?);
    with_conditions(policy, kept)
}

/// A permit with the scope and id of `policy`, and these conditions.
pub(crate) fn with_conditions(policy: &Policy, conditions: Vec<Value>) -> Option<Policy> {
    let mut json = policy.to_json().ok()?;
    *json.get_mut("effect")? = Value::from("permit");
    *json.get_mut("conditions")? = conditions.into_iter().map(|body| json!({"kind": "when", "body": body})).collect();
    Policy::from_json(Some(policy.id().clone()), json).ok()
}

/// The weakest permit. Used if a policy cannot be rewritten, so that nothing that may be called is hidden
/// and no policy is passed over.
fn permit_everything(policy: &Policy) -> Policy {
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

    fn parse(text: &str) -> Policy {
        Policy::parse(None, text).unwrap()
    }

    fn conditions(policy: &Policy) -> String {
        let json = policy.to_json().unwrap();
        assert_eq!(json.get("effect").unwrap(), "permit");
        json.get("conditions").unwrap().to_string()
    }

    #[test]
    fn conditions_on_context_are_dropped_from_permits() {
        let head = "permit(principal, action, resource)";
        let listing = |text: &str| conditions(&listing_form(&parse(text)));
        assert_eq!(listing(&format!("{head} when {{ context has sql }};")), "[]");
        let kept = listing(&format!(
            "{head} when {{ principal.name == \"ana\" && context has sql && context.sql.has_where }}
             unless {{ resource.name == \"x\" || context.transport == \"ws\" }};"
        ));
        assert_eq!(kept.matches("\"ana\"").count(), 1, "{kept}");
        assert_eq!(kept.matches("\"x\"").count(), 1, "{kept}");
        assert!(kept.contains("\"!\"") && !kept.contains("context"), "{kept}");
        assert_eq!(
            listing(&format!("{head} when {{ principal.name == \"a\" || context has sql }};")),
            "[]",
            "a choice that context can make is dropped whole"
        );
    }

    #[test]
    fn conditions_behind_the_first_on_context_do_not_count_for_what_could_apply() {
        let form = |text: &str| conditions(&prefix_form(&parse(text)));
        let text = "forbid(principal, action, resource)
                    when { principal.name == \"a\" && context has sql && resource.name == \"b\" }
                    unless { principal.name == \"c\" };";
        let kept = form(text);
        assert!(kept.contains("\"a\"") && !kept.contains("\"b\"") && !kept.contains("\"c\""), "{kept}");
        assert_eq!(form("forbid(principal, action, resource) when { context has sql };"), "[]");
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
