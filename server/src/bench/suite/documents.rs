//! The resources of nodes under test, as people would write them. JSON is YAML.

use serde_json::{Value, json};

/// The tenant that is called in.
pub const TENANT: &str = "acme";
/// Who calls.
pub const PRINCIPAL: &str = "ana";
/// The plugin in front of the upstream.
pub const PLUGIN: &str = "up";
/// A change takes at most so many documents from one file.
const DOCUMENTS_EACH: usize = 1_000;

/// How large a state is, beyond what every node has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Further plugins of the first tenant, each with the upstream's tools.
    pub plugins: usize,
    /// Further tenants, each with a caller, a role and a plugin.
    pub tenants: usize,
    /// Written policies: a fifth of them the first tenant's, the others spread over the others.
    pub policies: usize,
}

fn document(kind: &str, name: &str, tenant: Option<&str>, spec: Value) -> Value {
    let metadata = match tenant {
        Some(tenant) => json!({ "name": name, "tenant": tenant }),
        None => json!({ "name": name }),
    };
    json!({ "apiVersion": "provost/v1", "kind": kind, "metadata": metadata, "spec": spec })
}

/// One file.
pub fn file(documents: &[Value]) -> String {
    documents.iter().map(Value::to_string).collect::<Vec<_>>().join("\n---\n") + "\n"
}

fn plugin(name: &str, tenant: &str, upstream: &str) -> Value {
    document("Plugin", name, Some(tenant), json!({ "source": { "mcp-http": { "url": upstream } } }))
}

/// What every node under test has: a policy, a quota and a guard decide about every call.
pub fn base(upstream: &str) -> Vec<Value> {
    let cedar = format!(
        "@id(\"not-everything\")\nforbid (principal, action == Provost::Action::\"CallTool\", resource in \
         Provost::Plugin::\"{PLUGIN}\")\nwhen {{ context.args.hasTag(\"scope\") && \
         context.args.getTag(\"scope\") == \"everything\" }};\n"
    );
    let of = Some(TENANT);
    let quota = json!({ "limit": 1_000_000_000, "unit": "calls", "window": "month", "per": "principal" });
    let guard = json!({ "rules": [{ "kinds": ["secrets", "personal-data"], "action": "mask" }] });
    vec![
        document("Tenant", TENANT, None, json!({})),
        document("Principal", PRINCIPAL, of, json!({ "type": "user" })),
        document("Role", "caller", of, json!({ "rules": [{ "tools": ["*"] }] })),
        document("RoleBinding", "caller", of, json!({ "role": "caller", "principals": [PRINCIPAL] })),
        document("Policy", "careful", of, json!({ "cedar": cedar })),
        document("Quota", "calls", of, quota),
        document("Guard", "masked", of, guard),
        plugin(PLUGIN, TENANT, upstream),
    ]
}

/// What lets the caller use every model.
pub fn for_models() -> String {
    let of = Some(TENANT);
    file(&[
        document("Role", "models", of, json!({ "rules": [{ "models": ["*"] }] })),
        document("RoleBinding", "models", of, json!({ "role": "models", "principals": [PRINCIPAL] })),
    ])
}

/// What makes a state large, in files that a change takes. `tools`: how many the upstream lists.
pub fn more(size: Size, upstream: &str, tools: usize) -> Vec<String> {
    let mut documents = Vec::new();
    for n in 1..=size.plugins {
        documents.push(plugin(&format!("{PLUGIN}{n}"), TENANT, upstream));
    }
    let own = size.policies / 5;
    for n in 0..own {
        let of = if size.plugins == 0 { PLUGIN.to_owned() } else { format!("{PLUGIN}{}", n % size.plugins + 1) };
        documents.push(policy(TENANT, &of, n, tools));
    }
    let left = size.policies - own;
    for tenant in 0..size.tenants {
        let name = format!("tenant-{tenant:04}");
        let of = Some(name.as_str());
        documents.push(document("Tenant", &name, None, json!({})));
        documents.push(document("Principal", "bob", of, json!({ "type": "user" })));
        documents.push(document("Role", "caller", of, json!({ "rules": [{ "tools": ["*"] }] })));
        documents.push(document("RoleBinding", "caller", of, json!({ "role": "caller", "principals": ["bob"] })));
        documents.push(plugin(PLUGIN, &name, upstream));
        for n in left * tenant / size.tenants..left * (tenant + 1) / size.tenants {
            documents.push(policy(&name, PLUGIN, n, tools));
        }
    }
    documents.chunks(DOCUMENTS_EACH).map(file).collect()
}

fn policy(tenant: &str, plugin: &str, n: usize, tools: usize) -> Value {
    let tool = format!("{plugin}.more_{:05}", n % tools.max(1));
    let cedar = format!(
        "forbid (principal, action == Provost::Action::\"CallTool\", resource == Provost::Tool::\"{tool}\")\nwhen {{ \
         context.args.hasTag(\"text\") && context.args.getTag(\"text\") == \"word {n}\" }};\n"
    );
    document("Policy", &format!("rule-{n}"), Some(tenant), json!({ "cedar": cedar }))
}

/// A change that every node takes and that no call notices: number `n` of a run.
pub fn small_change(n: u64) -> String {
    let labels = json!({ "displayName": format!("change {n}") });
    file(&[document("Tenant", TENANT, None, labels)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_state_has_what_was_asked_for_in_files_that_are_taken() {
        let size = Size { plugins: 9, tenants: 300, policies: 1_000 };
        let files = more(size, "http://127.0.0.1:1/mcp", 1_000);
        let documents: Vec<Value> = files
            .iter()
            .flat_map(|file| file.split("\n---\n").map(|text| serde_json::from_str(text).unwrap()).collect::<Vec<_>>())
            .collect();
        assert!(files.iter().all(|file| file.split("\n---\n").count() <= DOCUMENTS_EACH));
        let count = |kind: &str| documents.iter().filter(|d: &&Value| d["kind"] == kind).count();
        assert_eq!((count("Tenant"), count("Policy"), count("Plugin")), (300, 1_000, 9 + 300));
        let mut names: Vec<String> = documents.iter().map(|d| format!("{}{}", d["kind"], d["metadata"])).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), documents.len(), "two have one name");
    }

    #[test]
    fn nothing_more_is_nothing() {
        assert!(more(Size { plugins: 0, tenants: 0, policies: 0 }, "http://h/mcp", 0).is_empty());
    }
}
