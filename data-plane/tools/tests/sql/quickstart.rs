//! The quickstart's resources decide as its README says.

use std::sync::Arc;

use provost_data_policy::{AccessRequest, Facts, PolicyEngine};
use provost_data_tools::sql::{Dialect, analyse};
use provost_types::{Action, Metadata, Name, Resource, Revision, Snapshot, Spec};
use serde_json::{Value, json};

fn snapshot() -> Snapshot {
    let mut snapshot = Snapshot { revision: Revision(1), ..Snapshot::default() };
    for text in [
        include_str!("../../../../examples/quickstart/tenant.yaml"),
        include_str!("../../../../examples/quickstart/roles.yaml"),
        include_str!("../../../../examples/quickstart/policies.yaml"),
        include_str!("../../../../examples/quickstart/plugins.yaml"),
    ] {
        for document in text.split("\n---\n") {
            let value: Value = serde_saphyr::from_str(document).unwrap();
            assert_eq!(value["apiVersion"], json!("provost/v1"));
            let kind = value["kind"].as_str().unwrap();
            let spec: Spec = serde_json::from_value(json!({ kind: value["spec"] })).unwrap();
            let metadata: Metadata = serde_json::from_value(value["metadata"].clone()).unwrap();
            let at = Revision(1);
            let resource = Resource { metadata, spec, created: at, modified: at };
            let twice = snapshot.resources.insert(resource.key(), Arc::new(resource));
            assert!(twice.is_none(), "{document}");
        }
    }
    snapshot
}

#[test]
fn the_readme_is_true() {
    let engine = PolicyEngine::compile(&snapshot()).unwrap();
    let acme = Name::new("acme").unwrap();
    for (who, sql, expect) in [
        ("ana", "SELECT region, count(*) FROM customers GROUP BY region", "role:analyst"),
        ("ana", "SELECT c.name FROM customers AS c JOIN orders AS o ON o.customer_id = c.id", "role:analyst"),
        ("ana", "SELECT name, salary_cents FROM employees", "sql-guard/granted-tables"),
        ("ana", "SELECT name FROM customers UNION SELECT name FROM employees", "sql-guard/granted-tables"),
        ("ana", "DROP TABLE customers", "sql-guard/no-drop sql-guard/only-select"),
        ("ana", "SELECT 1; DROP TABLE customers", "sql-guard/no-drop sql-guard/one-statement sql-guard/only-select"),
        ("ana", "UPDATE orders SET status = 'paid'", "sql-guard/no-blind-writes sql-guard/only-select"),
        ("ana", "UPDATE orders SET status = 'paid' WHERE id = 1", "sql-guard/only-select"),
        ("sam", "SELECT name FROM customers WHERE id = 3", "role:support"),
        ("sam", "SELECT name FROM customers", "support-lookups/needs-where"),
    ] {
        let analysis = analyse(Dialect::Sqlite, sql).unwrap();
        let facts = Facts { sql: Some(&analysis.facts), transport: "http", ..Facts::default() };
        let principal = Name::new(who).unwrap();
        let request = AccessRequest {
            token: None,
            tenant: &acme,
            principal: &principal,
            action: Action::CallTool,
            plugin: Some("sql"),
            target: "sql.query",
            facts: &facts,
        };
        let decision = engine.decide(&request, 1_795_219_200_000_000_000);
        assert_eq!(decision.policies.join(" "), expect, "{who}: {sql}");
        assert_eq!(decision.is_allow(), expect.starts_with("role:"), "{who}: {sql}");
        assert_eq!(decision.observed, Vec::<String>::new());
    }
    let sees = |who: &str, tool: &str| {
        let plugin = tool.split_once('.').map(|(plugin, _)| plugin);
        engine.may_see(&acme, &Name::new(who).unwrap(), Action::CallTool, plugin, tool, 0)
    };
    for (who, tool, expect) in [
        ("ana", "sql.query", true),
        ("ana", "sql.schema", true),
        ("ana", "ai.embed", true),
        ("sam", "sql.query", true),
        ("sam", "sql.schema", false),
        ("sam", "ai.embed", false),
        ("sam", "echo.echo", true),
    ] {
        assert_eq!(sees(who, tool), expect, "{who} {tool}");
    }
}
