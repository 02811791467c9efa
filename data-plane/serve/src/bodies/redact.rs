//! What is taken out of bodies before anything is kept of them.
//!
//! Rules name members by name, wherever they stand, or by JSON pointer (RFC 6901) in which `*`
//! stands for any one member or item. A text that is itself a JSON object or array is looked into
//! as well, because tools answer so. Where nothing matches, the body stays the bytes it was.
//! No pattern can take longer than the body has parts: there are no regular expressions.

use std::borrow::Cow;

use provost_types::Name;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What stands in place of what was taken out.
const REDACTED: &str = "[redacted]";
/// Rules of one policy.
const MAX_RULES: usize = 256;
/// JSON inside of texts inside of JSON: how deep it is looked into.
const MAX_NESTED_TEXTS: u32 = 4;

/// One rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RedactionRule {
    /// Only calls of this tenant. Default: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<Name>,
    /// Only this tool, prompt, resource or model; `sql.*` is everything of a plugin. Default: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// Members with these names, at any depth; case does not matter.
    pub fields: Vec<String>,
    /// Places, from the body's root: `/arguments/card/number`, `/structuredContent/rows/*/ssn`.
    pub pointers: Vec<String>,
}

/// A rule cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedactionProblem {
    /// A pointer does not begin with `/`.
    #[error("rule {rule}: `{pointer}` is no JSON pointer: it begins with `/`, such as /arguments/password")]
    Pointer {
        /// Which rule, from 1.
        rule: usize,
        /// The pointer.
        pointer: String,
    },
    /// A rule takes nothing out.
    #[error("rule {0} takes nothing out: name `fields`, `pointers` or both")]
    Empty(usize),
    /// Too many rules.
    #[error("{0} rules; at most {MAX_RULES} can be used")]
    TooMany(usize),
}

/// The rules, checked.
#[derive(Clone, Debug, Default)]
pub struct RedactionPolicy {
    source: Vec<RedactionRule>,
    rules: Vec<Compiled>,
    hash: [u8; 32],
}

#[derive(Clone, Debug)]
struct Compiled {
    tenant: Option<Name>,
    tool: Option<String>,
    fields: Vec<String>,
    pointers: Vec<Vec<String>>,
}

/// A body to which a policy applied.
pub(super) struct Redacted<'a> {
    /// What is left of it.
    pub bytes: Cow<'a, [u8]>,
}

impl RedactionPolicy {
    /// Checks rules.
    pub fn new(rules: Vec<RedactionRule>) -> Result<Self, RedactionProblem> {
        if rules.len() > MAX_RULES {
            return Err(RedactionProblem::TooMany(rules.len()));
        }
        // Plain data with text keys always serialises; members stand in the order of the struct.
        let hash = provost_sealed::sha256(&serde_json::to_vec(&rules).unwrap_or_default());
        let compile = |(n, rule): (usize, &RedactionRule)| {
            if rule.fields.is_empty() && rule.pointers.is_empty() {
                return Err(RedactionProblem::Empty(n + 1));
            }
            let pointers = rule.pointers.iter().map(|pointer| match pointer.strip_prefix('/') {
                Some(rest) => Ok(rest.split('/').map(|s| s.replace("~1", "/").replace("~0", "~")).collect()),
                None => Err(RedactionProblem::Pointer { rule: n + 1, pointer: pointer.clone() }),
            });
            let pointers = pointers.collect::<Result<_, _>>()?;
            let fields = rule.fields.iter().map(|f| f.to_lowercase()).collect();
            Ok(Compiled { tenant: rule.tenant.clone(), tool: rule.tool.clone(), fields, pointers })
        };
        let compiled = rules.iter().enumerate().map(compile).collect::<Result<_, _>>()?;
        Ok(Self { source: rules, rules: compiled, hash })
    }

    /// The rules as they were given.
    pub fn rules(&self) -> &[RedactionRule] {
        &self.source
    }

    /// SHA-256 of the rules as JSON: what records name.
    pub fn hash(&self) -> [u8; 32] {
        self.hash
    }

    /// The body without what the rules take out; `None` where no rule is for this call.
    pub(super) fn apply<'a>(&self, tenant: &Name, target: Option<&str>, body: &'a [u8]) -> Option<Redacted<'a>> {
        let rules: Vec<&Compiled> = self.rules.iter().filter(|rule| rule.is_for(tenant, target)).collect();
        if rules.is_empty() {
            return None;
        }
        let Ok(mut value) = serde_json::from_slice::<Value>(body) else {
            // What cannot be looked into cannot be kept in part.
            return Some(Redacted { bytes: Cow::Owned(format!("\"{REDACTED}\"").into_bytes()) });
        };
        let mut changed = false;
        for rule in rules {
            changed |= rule.pointers.iter().fold(false, |any, path| take_at(&mut value, path) | any);
            changed |= !rule.fields.is_empty() && take_named(&mut value, &rule.fields, MAX_NESTED_TEXTS);
        }
        let bytes = if changed { Cow::Owned(value.to_string().into_bytes()) } else { Cow::Borrowed(body) };
        Some(Redacted { bytes })
    }
}

impl Compiled {
    fn is_for(&self, tenant: &Name, target: Option<&str>) -> bool {
        let tool = match (self.tool.as_deref(), target) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(rule), Some(target)) => match rule.strip_suffix('*') {
                Some(prefix) => target.starts_with(prefix),
                None => rule == target,
            },
        };
        tool && self.tenant.as_ref().is_none_or(|own| own == tenant)
    }
}

fn take(value: &mut Value) -> bool {
    *value = Value::from(REDACTED);
    true
}

/// Takes out what stands at a path.
fn take_at(value: &mut Value, path: &[String]) -> bool {
    let Some((step, rest)) = path.split_first() else { return take(value) };
    match value {
        Value::Object(members) if step == "*" => members.values_mut().fold(false, |any, v| take_at(v, rest) | any),
        Value::Object(members) => members.get_mut(step).is_some_and(|v| take_at(v, rest)),
        Value::Array(items) if step == "*" => items.iter_mut().fold(false, |any, v| take_at(v, rest) | any),
        Value::Array(items) => {
            let item = step.parse::<usize>().ok().and_then(|n| items.get_mut(n));
            item.is_some_and(|v| take_at(v, rest))
        }
        _ => false,
    }
}

/// Takes out members by name.
fn take_named(value: &mut Value, names: &[String], texts: u32) -> bool {
    match value {
        Value::Object(members) => members.iter_mut().fold(false, |any, (name, member)| {
            let hit = names.contains(&name.to_lowercase());
            (if hit { take(member) } else { take_named(member, names, texts) }) | any
        }),
        Value::Array(items) => items.iter_mut().fold(false, |any, item| take_named(item, names, texts) | any),
        Value::String(text) if texts > 0 && text.trim_start().starts_with(['{', '[', '"']) => {
            let Ok(mut inner) = serde_json::from_str::<Value>(text) else { return false };
            let changed = take_named(&mut inner, names, texts - 1);
            if changed {
                *text = inner.to_string();
            }
            changed
        }
        _ => false,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn apply(rules: &str, tool: &str, body: &str) -> Option<String> {
        let rules: Vec<RedactionRule> = serde_json::from_str(rules).unwrap();
        let policy = RedactionPolicy::new(rules).unwrap();
        let done = policy.apply(&Name::new("acme").unwrap(), Some(tool), body.as_bytes())?;
        Some(String::from_utf8(done.bytes.into_owned()).unwrap())
    }

    #[test]
    fn rules_take_out_what_they_name_and_nothing_else() {
        let card = r#"{"arguments":{"card":{"number":"4111"},"rows":[{"ssn":1},{"ssn":2}]},"name":"pay"}"#;
        for (rules, tool, body, expect) in [
            (r#"[{"fields":["x"],"tenant":"other"}]"#, "pay", card, None),
            (r#"[{"fields":["x"],"tool":"sql.*"}]"#, "pay", card, None),
            (r#"[{"fields":["zip"]}]"#, "pay", r#"{ "a": 1.0 }"#, Some(r#"{ "a": 1.0 }"#)),
            (
                r#"[{"pointers":["/arguments/card/number","/arguments/rows/*/ssn"],"tool":"pay"}]"#,
                "pay",
                card,
                Some(
                    r#"{"arguments":{"card":{"number":"[redacted]"},"rows":[{"ssn":"[redacted]"},{"ssn":"[redacted]"}]},"name":"pay"}"#,
                ),
            ),
            (
                r#"[{"fields":["Number"]},{"fields":["ssn"],"tool":"pa*"}]"#,
                "pay",
                r#"{"number":{"deep":1},"content":[{"text":"{\"ssn\":7}"}]}"#,
                Some(r#"{"content":[{"text":"{\"ssn\":\"[redacted]\"}"}],"number":"[redacted]"}"#),
            ),
            (r#"[{"pointers":["/a~1b"]}]"#, "t", r#"{"a/b":1}"#, Some(r#"{"a/b":"[redacted]"}"#)),
            (r#"[{"fields":["x"]}]"#, "t", "not json", Some(r#""[redacted]""#)),
        ] {
            let got = apply(rules, tool, body);
            let same = |text: &str| serde_json::from_str::<Value>(text).ok();
            assert_eq!(got.as_deref().map(same), expect.map(same), "{rules} on {body}");
        }
        let whole = apply(r#"[{"fields":["zip"]}]"#, "pay", r#"{ "a": 1.0 }"#);
        assert_eq!(whole.as_deref(), Some(r#"{ "a": 1.0 }"#), "untouched bytes stay as they came");
    }

    #[test]
    fn rules_that_do_nothing_are_refused() {
        let rule = |pointers: &[&str]| RedactionRule {
            pointers: pointers.iter().map(ToString::to_string).collect(),
            ..RedactionRule::default()
        };
        assert_eq!(RedactionPolicy::new(vec![rule(&[])]).unwrap_err(), RedactionProblem::Empty(1));
        let bad = RedactionPolicy::new(vec![rule(&["/ok"]), rule(&["a/b"])]).unwrap_err();
        assert!(bad.to_string().starts_with("rule 2: `a/b`"), "{bad}");
        assert!(RedactionPolicy::new(vec![rule(&["/a"]); 257]).is_err());
    }

    proptest! {
        /// However deep and in whatever text it is wrapped, a named member's value is gone.
        #[test]
        fn a_named_member_never_survives(path in prop::collection::vec(0u8..3, 0..8)) {
            let mut body = serde_json::json!({ "token": "canary" });
            let mut texts = 0;
            for step in path {
                body = match step {
                    0 => serde_json::json!({ "in": body }),
                    1 => serde_json::json!([1, body]),
                    _ if texts < MAX_NESTED_TEXTS => {
                        texts += 1;
                        Value::from(body.to_string())
                    }
                    _ => body,
                };
            }
            let out = apply(r#"[{"fields":["token"]}]"#, "t", &body.to_string()).unwrap();
            prop_assert!(!out.contains("canary"), "{out}");
        }
    }
}
