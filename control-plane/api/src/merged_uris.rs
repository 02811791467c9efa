//! Rules on resources that name them as the merged route shows them: `provost:PLUGIN:URI`.
//!
//! Policy knows a resource by its upstream's URI on every route and in every form. What is written for the shown form
//! holds for nothing, so a document that does so is refused where it is given. It is no rule of the replicated state:
//! what stands in it already stays. A URI that begins so and whose plugin the tenant does not have is an upstream's
//! own: that of another gateway.

use std::collections::BTreeSet;

use provost_control_state::{Draft, Problem};
use provost_types::{Kind, Name, Resources, Spec};

/// How the shown form begins.
const SCHEME: &str = "provost:";
/// What to do instead.
const HINT: &str = "write the URI as its upstream has it; a Cedar rule names the plugin with `resource in \
                    Provost::Plugin::\"PLUGIN\"`";

/// The problems of what is put into `resources`.
pub(crate) fn problems(puts: &[Draft], resources: &Resources) -> Vec<Problem> {
    let mut found = Vec::new();
    for draft in puts.iter().filter(|draft| mentions(&draft.spec)) {
        let put = puts.iter().map(Draft::key);
        let plugins = resources.keys().cloned().chain(put).filter(|key| key.kind == Kind::Plugin);
        let of_tenant = plugins.filter(|key| key.tenant == draft.metadata.tenant);
        let of_tenant: BTreeSet<Name> = of_tenant.map(|key| key.name).collect();
        found.extend(of_draft(draft, &of_tenant));
    }
    found
}

/// Whether a shown form may be in it at all.
fn mentions(spec: &Spec) -> bool {
    match spec {
        Spec::Policy(spec) => spec.cedar.contains(SCHEME),
        Spec::Role(spec) => spec.rules.iter().flat_map(|rule| &rule.resources).any(|uri| uri.starts_with(SCHEME)),
        _ => false,
    }
}

fn of_draft(draft: &Draft, plugins: &BTreeSet<Name>) -> Vec<Problem> {
    let key = draft.key();
    let mut found = Vec::new();
    match &draft.spec {
        Spec::Policy(spec) => {
            for (line, text) in spec.cedar.lines().enumerate() {
                let literals = text.match_indices('"').filter_map(|(at, _)| text.get(at + 1..));
                for uri in literals.filter_map(|rest| names_plugin(rest, plugins)) {
                    let message = format!(
                        "`{uri}` is how a resource is shown, and matches none (line {} of the Cedar text)",
                        line + 1
                    );
                    found.push(Problem::of_field(&key, "spec.cedar", "PV-POLICY-INVALID", message).hint(HINT));
                }
            }
        }
        Spec::Role(spec) => {
            for (n, rule) in spec.rules.iter().enumerate() {
                for uri in rule.resources.iter().filter_map(|pattern| names_plugin(pattern, plugins)) {
                    let message = format!("`{uri}` is how a resource is shown, and matches none");
                    let field = format!("spec.rules[{n}].resources");
                    found.push(Problem::of_field(&key, field, "PV-RES-FIELD", message).hint(HINT));
                }
            }
        }
        _ => {}
    }
    found
}

/// What a text begins with, if that is the shown form of a plugin's resources: `provost:PLUGIN:`, or a pattern of it.
fn names_plugin<'t>(text: &'t str, plugins: &BTreeSet<Name>) -> Option<&'t str> {
    let rest = text.strip_prefix(SCHEME)?;
    let named = &rest[..rest.find([':', '"']).unwrap_or(rest.len())];
    let is_one = match named.split_once('*') {
        Some((prefix, _)) => plugins.iter().any(|plugin| plugin.as_str().starts_with(prefix)),
        None => plugins.iter().any(|plugin| plugin.as_str() == named),
    };
    is_one.then(|| &text[..SCHEME.len() + named.len()])
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn draft(kind: &str, tenant: &str, name: &str, spec: Value) -> Draft {
        let metadata = serde_json::from_value(json!({ "name": name, "tenant": tenant })).unwrap();
        Draft { metadata, spec: serde_json::from_value(json!({ kind: spec })).unwrap() }
    }

    /// Field and code of each problem of a document beside a plugin `up` of its tenant and one `far` of another.
    fn refused(kind: &str, spec: Value) -> Vec<(String, String)> {
        let echo = json!({ "source": { "builtin": { "name": "echo" } } });
        let puts = [
            draft("Plugin", "acme", "up", echo.clone()),
            draft("Plugin", "beta", "far", echo),
            draft(kind, "acme", "x", spec),
        ];
        let found = problems(&puts, &Resources::new());
        found.into_iter().map(|problem| (problem.field, problem.code.into_owned())).collect()
    }

    #[test]
    fn what_names_a_shown_form_is_refused() {
        for (uri, is_refused) in [
            ("test://x", false),
            ("provost:up:test://x", true),
            ("provost:up:*", true),
            ("provost:u*", true),
            ("provost:*", true),
            // Of a plugin of others, or of none: an upstream may have such a URI.
            ("provost:far:test://x", false),
            ("provost:upper:test://x", false),
            ("x provost:up:test://x", false),
        ] {
            let expect = |field: &str, code: &str| match is_refused {
                true => vec![(field.to_owned(), code.to_owned())],
                false => Vec::new(),
            };
            let cedar = format!("// why\nforbid(principal, action, resource) when {{ resource.uri like \"{uri}\" }};");
            let found = refused("Policy", json!({ "cedar": cedar }));
            assert_eq!(found, expect("spec.cedar", "PV-POLICY-INVALID"), "{uri}");
            let found = refused("Role", json!({ "rules": [{}, { "resources": [uri] }] }));
            assert_eq!(found, expect("spec.rules[1].resources", "PV-RES-FIELD"), "{uri}");
        }
    }
}
