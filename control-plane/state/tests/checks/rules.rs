//! One resource at a time: what is refused, in one table, and what is taken.

use super::*;

#[test]
fn each_broken_rule_is_reported_with_its_field() {
    let builtin = |name: &str, config: Value| json!({"source": {"builtin": {"name": name, "config": config}}});
    let http = |http: Value| json!({"source": {"mcp-http": http}});
    let stdio = |stdio: Value| json!({"source": {"mcp-stdio": stdio}});
    let rag = |more: Value| {
        let mut rag = json!({"folder": "handbook", "model": "minilm"});
        rag.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"source": {"rag": rag}})
    };
    let cases: Vec<(Draft, &str, &str)> = vec![
        (draft("Principal", None, "x", json!({})), "PV-RES-FIELD", "metadata.tenant"),
        (draft("Tenant", Some("acme"), "x", json!({})), "PV-RES-FIELD", "metadata.tenant"),
        (draft("Principal", Some("nobody"), "x", json!({})), "PV-RES-REFERENCE", "metadata.tenant"),
        (
            acme("ApiKey", "x", json!({"principal": "nobody", "hash": "1".repeat(64)})),
            "PV-RES-REFERENCE",
            "spec.principal",
        ),
        (acme("ApiKey", "x", json!({"principal": "ann", "hash": "xyz"})), "PV-RES-FIELD", "spec.hash"),
        (acme("ApiKey", "x", json!({"principal": "ann", "hash": "A".repeat(64)})), "PV-RES-FIELD", "spec.hash"),
        (acme("ApiKey", "x", json!({"principal": "ann", "hash": "0".repeat(64)})), "PV-RES-FIELD", "spec.hash"),
        (
            acme("ApiKey", "x", json!({"principal": "ann", "hash": "1".repeat(64), "expires": "tomorrow"})),
            "PV-RES-FIELD",
            "spec.expires",
        ),
        (acme("RoleBinding", "x", json!({"role": "nope", "principals": ["ann"]})), "PV-RES-REFERENCE", "spec.role"),
        (
            acme("RoleBinding", "x", json!({"role": "reader", "principals": ["bob"]})),
            "PV-RES-REFERENCE",
            "spec.principals[0]",
        ),
        (
            acme("RoleBinding", "x", json!({"role": "reader", "principals": [], "expires": "2027-13-01T00:00:00Z"})),
            "PV-RES-FIELD",
            "spec.expires",
        ),
        (acme("Role", "x", json!({"rules": [{}, {"tools": ["a*b"]}]})), "PV-RES-FIELD", "spec.rules[1].tools"),
        (acme("Role", "x", json!({"rules": [{"models": [""]}]})), "PV-RES-FIELD", "spec.rules[0].models"),
        (acme("Policy", "x", json!({"cedar": "  "})), "PV-RES-FIELD", "spec.cedar"),
        (acme("Plugin", "a.b", builtin("echo", json!({}))), "PV-RES-FIELD", "metadata.name"),
        (acme("Plugin", "x", builtin("nope", json!({}))), "PV-RES-FIELD", "spec.source.builtin.name"),
        (acme("Plugin", "x", builtin("echo", json!({"a": "b"}))), "PV-RES-FIELD", "spec.source.builtin.config.a"),
        (acme("Plugin", "x", builtin("sql", json!({}))), "PV-RES-FIELD", "spec.source.builtin.config.url"),
        (acme("Plugin", "x", rag(json!({"model": "two words"}))), "PV-RES-FIELD", "spec.source.rag.model"),
        (acme("Plugin", "x", rag(json!({"chunk": {"words": 5}}))), "PV-RES-FIELD", "spec.source.rag.chunk.words"),
        (
            acme("Plugin", "x", rag(json!({"chunk": {"words": 20, "overlap": 11}}))),
            "PV-RES-FIELD",
            "spec.source.rag.chunk.overlap",
        ),
        (acme("Plugin", "x", rag(json!({"include": ["../*.md"]}))), "PV-RES-FIELD", "spec.source.rag.include"),
        (acme("Plugin", "x", rag(json!({"include": ["/etc/*"]}))), "PV-RES-FIELD", "spec.source.rag.include"),
        (acme("Plugin", "x", rag(json!({"maxResults": 51}))), "PV-RES-FIELD", "spec.source.rag.maxResults"),
        (
            acme("Plugin", "x", builtin("sql", json!({"url": "sqlite:a", "maxRows": "many"}))),
            "PV-RES-FIELD",
            "spec.source.builtin.config.maxRows",
        ),
        (
            acme("Plugin", "x", http(json!({"url": "https://e.com", "egress": {"allowPrivate": ["0.0.0.0/0"]}}))),
            "PV-RES-FIELD",
            "spec.source.mcp-http.egress.allowPrivate",
        ),
        (
            acme("Plugin", "x", http(json!({"url": "https://e.com", "egress": {"allowHosts": ["https://e.com"]}}))),
            "PV-RES-FIELD",
            "spec.source.mcp-http.egress.allowHosts",
        ),
        (
            acme("Plugin", "x", http(json!({"url": "https://e.com", "egress": {"allowHosts": ["*.e.com"]}}))),
            "PV-RES-FIELD",
            "spec.source.mcp-http.egress.allowHosts",
        ),
        (
            acme("Plugin", "x", http(json!({"url": "https://e.com", "secretQuery": {"k": {"secret": "gone"}}}))),
            "PV-RES-REFERENCE",
            "spec.source.mcp-http.secretQuery.k.secret",
        ),
        (
            acme(
                "Plugin",
                "x",
                http(json!({"url": "https://e.com", "auth": {"clientCredentials": {
                "tokenUrl": "https://e.com/t", "clientId": "c", "clientSecret": {"secret": "gone"}}}})),
            ),
            "PV-RES-REFERENCE",
            "spec.source.mcp-http.auth.clientCredentials.clientSecret.secret",
        ),
        (
            acme(
                "Plugin",
                "x",
                http(json!({"url": "https://e.com", "auth": {"tokenExchange": {
                "tokenUrl": "http://e.com/t", "clientId": "c", "clientSecret": {"secret": "token"}}}})),
            ),
            "PV-RES-FIELD",
            "spec.source.mcp-http.auth.tokenExchange.tokenUrl",
        ),
        (
            acme(
                "Plugin",
                "x",
                http(json!({"url": "https://e.com", "auth": {"clientCredentials": {
                "clientId": "c", "clientSecret": {"secret": "token"}}}})),
            ),
            "PV-RES-FIELD",
            "spec.source.mcp-http.auth.clientCredentials",
        ),
        (
            acme(
                "Plugin",
                "x",
                http(
                    json!({"url": "https://e.com", "auth": {"tokenExchange": {"tokenUrl": "https://e.com/t", "clientId": "c", "clientSecret": {"secret": "token"},
                "listsAs": "ann"}}}),
                ),
            ),
            "PV-RES-FIELD",
            "spec.source.mcp-http.auth.tokenExchange",
        ),
        (
            acme(
                "Plugin",
                "x",
                http(
                    json!({"url": "https://e.com", "auth": {"perUser": {"authorizeUrl": "https://e.com/a", "clientId": "c"}}}),
                ),
            ),
            "PV-RES-FIELD",
            "spec.source.mcp-http.auth.perUser",
        ),
        (
            acme(
                "Plugin",
                "x",
                http(
                    json!({"url": "https://e.com", "auth": {"perUser": {"tokenUrl": "https://e.com/t", "clientId": "c"}}}),
                ),
            ),
            "PV-RES-FIELD",
            "spec.source.mcp-http.auth.perUser",
        ),
        (
            acme(
                "Plugin",
                "x",
                http(json!({"url": "https://e.com", "auth": {"clientCredentials": {
                "issuer": "https://e.com", "clientId": "c"}}})),
            ),
            "PV-RES-FIELD",
            "spec.source.mcp-http.auth.clientCredentials",
        ),
        (
            acme(
                "Plugin",
                "x",
                http(json!({"url": "https://e.com", "headers": {"Authorization": "x"},
                "auth": {"clientCredentials": {"issuer": "https://e.com", "clientId": "c",
                    "clientSecret": {"secret": "token"}}}})),
            ),
            "PV-RES-FIELD",
            "spec.source.mcp-http.auth",
        ),
        (acme("Plugin", "x", http(json!({"url": "nonsense"}))), "PV-RES-FIELD", "spec.source.mcp-http.url"),
        (
            acme("Plugin", "x", http(json!({"url": "http://example.com/mcp"}))),
            "PV-RES-FIELD",
            "spec.source.mcp-http.url",
        ),
        (
            acme("Plugin", "x", http(json!({"url": "https://u:p@example.com/mcp"}))),
            "PV-RES-FIELD",
            "spec.source.mcp-http.url",
        ),
        (
            acme("Plugin", "x", http(json!({"url": "https://e.com", "headers": {"Host": "x"}}))),
            "PV-RES-FIELD",
            "spec.source.mcp-http.headers.Host",
        ),
        (
            acme("Plugin", "x", http(json!({"url": "https://e.com", "headers": {"X-A": "a\r\nb"}}))),
            "PV-RES-FIELD",
            "spec.source.mcp-http.headers.X-A",
        ),
        (
            acme("Plugin", "x", http(json!({"url": "https://e.com", "secretHeaders": {"X-A": {"secret": "nope"}}}))),
            "PV-RES-REFERENCE",
            "spec.source.mcp-http.secretHeaders.X-A.secret",
        ),
        (acme("Plugin", "x", stdio(json!({"command": " "}))), "PV-RES-FIELD", "spec.source.mcp-stdio.command"),
        (
            acme("Plugin", "x", stdio(json!({"command": "a", "env": {"A=B": "c"}}))),
            "PV-RES-FIELD",
            "spec.source.mcp-stdio.env.A=B",
        ),
        (
            acme("Plugin", "x", stdio(json!({"command": "a", "isolation": {"memoryMib": 1}}))),
            "PV-RES-FIELD",
            "spec.source.mcp-stdio.isolation.memoryMib",
        ),
        (
            acme("Plugin", "x", stdio(json!({"command": "a", "isolation": {"writable": ["/"]}}))),
            "PV-RES-FIELD",
            "spec.source.mcp-stdio.isolation.writable",
        ),
        (
            acme("Plugin", "x", stdio(json!({"command": "a", "isolation": {"readable": ["/a/../b"]}}))),
            "PV-RES-FIELD",
            "spec.source.mcp-stdio.isolation.readable",
        ),
        (acme("Quota", "x", json!({"limit": 1, "unit": "calls"})), "PV-RES-FIELD", "spec.window"),
        (acme("Quota", "x", json!({"limit": 1, "unit": "concurrent", "window": "day"})), "PV-RES-FIELD", "spec.window"),
        (acme("Quota", "x", json!({"limit": 0, "unit": "calls", "window": "day"})), "PV-RES-FIELD", "spec.limit"),
        (acme("Price", "x", json!({"currency": "eur", "tools": ["*"]})), "PV-RES-FIELD", "spec.currency"),
        (acme("Price", "x", json!({"currency": "EUR"})), "PV-RES-FIELD", "spec"),
        (acme("Price", "x", json!({"currency": "EUR", "tools": ["a*b"]})), "PV-RES-FIELD", "spec.tools"),
        (
            acme("Price", "x", json!({"currency": "EUR", "tools": ["*"], "perMillionInputTokensMicro": 1})),
            "PV-RES-FIELD",
            "spec.perMillionInputTokensMicro",
        ),
        (
            acme("Price", "x", json!({"currency": "EUR", "tools": ["*"], "perCallMicro": 2_000_000_000_000_u64})),
            "PV-RES-FIELD",
            "spec.perCallMicro",
        ),
        (
            acme("Plugin", "x", resilience(json!({"queue": {"timeoutMs": 0}}))),
            "PV-RES-FIELD",
            "spec.resilience.queue.timeoutMs",
        ),
        (
            acme("Plugin", "x", resilience(json!({"tools": [{"tools": ["a"]}]}))),
            "PV-RES-FIELD",
            "spec.resilience.tools[0]",
        ),
        (
            acme("Plugin", "x", resilience(json!({"tools": [{"tools": ["a*b"], "timeoutMs": 1}]}))),
            "PV-RES-FIELD",
            "spec.resilience.tools[0].tools",
        ),
        (
            acme("Plugin", "x", resilience(json!({"tools": [{"tools": ["a"], "timeoutMs": 3_600_001}]}))),
            "PV-RES-FIELD",
            "spec.resilience.tools[0].timeoutMs",
        ),
        (
            acme("Plugin", "x", resilience(json!({"breaker": {"consecutiveFailures": 0}}))),
            "PV-RES-FIELD",
            "spec.resilience.breaker.consecutiveFailures",
        ),
        (
            acme("Plugin", "x", resilience(json!({"breaker": {"openMs": 40_000}}))),
            "PV-RES-FIELD",
            "spec.resilience.breaker.openMs",
        ),
        (
            acme("Plugin", "x", resilience(json!({"retry": {"attempts": 11}}))),
            "PV-RES-FIELD",
            "spec.resilience.retry.attempts",
        ),
        (acme("Plugin", "x", resilience(json!({"retry": {"on": []}}))), "PV-RES-FIELD", "spec.resilience.retry.on"),
        (
            acme("Plugin", "x", resilience(json!({"cache": {"tools": ["a"]}}))),
            "PV-RES-FIELD",
            "spec.resilience.cache.ttlMs",
        ),
        (
            acme("Plugin", "x", resilience(json!({"cache": {"ttlMs": 5}}))),
            "PV-RES-FIELD",
            "spec.resilience.cache.ttlMs",
        ),
        (
            acme("Plugin", "x", resilience(json!({"hedge": {"tools": [], "afterMs": 5}}))),
            "PV-RES-FIELD",
            "spec.resilience.hedge.tools",
        ),
        (acme("Guard", "x", json!({})), "PV-RES-FIELD", "spec"),
        (
            acme("Guard", "x", json!({"directions": [], "rules": [{"kinds": ["card"], "action": "mask"}]})),
            "PV-RES-FIELD",
            "spec.directions",
        ),
        (
            acme("Guard", "x", json!({"rules": [{"kinds": [], "action": "mask"}]})),
            "PV-RES-FIELD",
            "spec.rules[0].kinds",
        ),
        (
            acme("Guard", "x", json!({"tools": ["a*b"], "rules": [{"kinds": ["card"], "action": "mask"}]})),
            "PV-RES-FIELD",
            "spec.tools",
        ),
        (
            acme("Guard", "x", json!({"principals": ["nobody"], "rules": [{"kinds": ["card"], "action": "mask"}]})),
            "PV-RES-REFERENCE",
            "spec.principals[0]",
        ),
        (model(json!({"source": {"path": "models/tiny"}})), "PV-RES-FIELD", "spec.source.path"),
        (model(json!({"source": {"path": "/models/../tiny"}})), "PV-RES-FIELD", "spec.source.path"),
        (model(json!({"source": {"path": "/m\0"}})), "PV-RES-FIELD", "spec.source.path"),
        (model(json!({"source": {"path": "/m"}, "dtype": "BF 16"})), "PV-RES-FIELD", "spec.dtype"),
        (model(json!({"source": {"path": "/m"}, "tenants": ["nobody"]})), "PV-RES-REFERENCE", "spec.tenants[0]"),
        (model(json!({"source": {"path": "/m"}, "description": "x".repeat(1025)})), "PV-RES-FIELD", "spec.description"),
        (
            model(json!({"source": {"path": "/m"}, "prices": {"perMillionInputTokensMicro": 1_000_000_000_001_u64}})),
            "PV-RES-FIELD",
            "spec.prices.perMillionInputTokensMicro",
        ),
        (acme("Model", "x", json!({"source": {"path": "/m"}})), "PV-RES-FIELD", "metadata.tenant"),
        (acme("ToolAlias", "x", json!({"targets": []})), "PV-RES-FIELD", "spec.targets"),
        (acme("ToolAlias", "x", json!({"targets": [{"tool": "plain"}]})), "PV-RES-FIELD", "spec.targets[0].tool"),
        (acme("ToolAlias", "x", json!({"targets": [{"tool": "a.*"}]})), "PV-RES-FIELD", "spec.targets[0].tool"),
        (acme("ToolAlias", "x", json!({"targets": [{"tool": "a.b", "weight": 0}]})), "PV-RES-FIELD", "spec.targets"),
        (
            acme("ToolAlias", "x", json!({"targets": [{"tool": "a.b"}, {"tool": "a.b"}]})),
            "PV-RES-FIELD",
            "spec.targets[1].tool",
        ),
        (
            acme("ToolAlias", "x", json!({"targets": [{"tool": "a.b"}], "deprecated": {"until": "soon"}})),
            "PV-RES-FIELD",
            "spec.deprecated.until",
        ),
        (
            acme(
                "ToolAlias",
                "x",
                json!({"targets": [{"tool": "a.b"}], "deprecated":
                {"since": "2027-01-01T00:00:00Z", "until": "2026-01-01T00:00:00Z"}}),
            ),
            "PV-RES-FIELD",
            "spec.deprecated.until",
        ),
        (acme("ToolPins", "nothing", json!({"tools": {}})), "PV-RES-REFERENCE", "metadata.name"),
        (guard_words(&["x"]), "PV-RES-FIELD", "spec.dictionaries[0].words"),
        (guard_words(&[" lynx"]), "PV-RES-FIELD", "spec.dictionaries[0].words"),
        (guard_words(&["--"]), "PV-RES-FIELD", "spec.dictionaries[0].words"),
        (guard_words(&["a\nb"]), "PV-RES-FIELD", "spec.dictionaries[0].words"),
        (guard_words(&[&"x".repeat(129)]), "PV-RES-FIELD", "spec.dictionaries[0].words"),
        (guard_words::<&str>(&[]), "PV-RES-FIELD", "spec.dictionaries[0].words"),
        (guard_words(&many_words(2_001)), "PV-RES-FIELD", "spec.dictionaries"),
        (acme("Principal", "x", json!({"certificates": ["spiffe://a/b"]})), "PV-RES-FIELD", "spec.certificates"),
        (acme("Principal", "x", json!({"certificates": ["dns:*.example.com"]})), "PV-RES-FIELD", "spec.certificates"),
        (acme("Principal", "x", json!({"certificates": ["dns:A.example.com"]})), "PV-RES-FIELD", "spec.certificates"),
        (acme("Principal", "x", json!({"certificates": ["uri:"]})), "PV-RES-FIELD", "spec.certificates"),
        (acme("Principal", "x", json!({"certificates": ["cn:x"]})), "PV-RES-FIELD", "spec.certificates"),
        (identity(json!({"issuer": "http://id.example.com"})), "PV-RES-FIELD", "spec.issuer"),
        (identity(json!({"issuer": "https://u:p@id.example.com"})), "PV-RES-FIELD", "spec.issuer"),
        (identity(json!({"issuer": "https://id.example.com/?a=b"})), "PV-RES-FIELD", "spec.issuer"),
        (identity(json!({"issuer": "id.example.com"})), "PV-RES-FIELD", "spec.issuer"),
        (identity(json!({"jwksUri": "ftp://id.example.com/keys"})), "PV-RES-FIELD", "spec.jwksUri"),
        (identity(json!({"algorithms": []})), "PV-RES-FIELD", "spec.algorithms"),
        (identity(json!({"leewaySeconds": 301})), "PV-RES-FIELD", "spec.leewaySeconds"),
        (identity(json!({"audiences": [""]})), "PV-RES-FIELD", "spec.audiences"),
        (identity(json!({"scopes": {"a b": ["reader"]}})), "PV-RES-FIELD", "spec.scopes"),
        (identity(json!({"scopes": {"a": ["nobody"]}})), "PV-RES-REFERENCE", "spec.scopes.a[0]"),
        (identity(json!({"claims": {"prefix": "Corp"}})), "PV-RES-FIELD", "spec.claims.prefix"),
        (identity(json!({"claims": {"prefix": "a__"}})), "PV-RES-FIELD", "spec.claims.prefix"),
        (identity(json!({"claims": {"prefix": "x".repeat(17)}})), "PV-RES-FIELD", "spec.claims.prefix"),
        (identity(json!({"claims": {"principal": ""}})), "PV-RES-FIELD", "spec.claims.principal"),
        (identity(json!({"claims": {"roles": {"claim": "g", "map": {}}}})), "PV-RES-FIELD", "spec.claims.roles.map"),
        (
            identity(json!({"claims": {"roles": {"claim": "g", "map": {"x": ["reader", "zed"]}}}})),
            "PV-RES-REFERENCE",
            "spec.claims.roles.map.x[1]",
        ),
    ];
    for (bad, code, field) in cases {
        let mut state = base();
        let rejected = state.apply(Revision(2), &transaction(vec![bad.clone()], vec![])).unwrap_err();
        let found: Vec<_> = rejected.problems.iter().map(|p| (&*p.code, p.field.as_str())).collect();
        assert_eq!(found, [(code, field)], "{bad:?}: {rejected}");
        assert_eq!(state, base());
    }
}

#[test]
fn good_resources_are_taken() {
    let good = [
        acme("Plugin", "x", json!({"source": {"mcp-http": {"url": "http://127.0.0.1:3000/mcp"}}})),
        acme("Plugin", "x", json!({"source": {"mcp-http": {"url": "http://[::1]:3000/mcp"}}})),
        acme("Plugin", "x", json!({"source": {"mcp-stdio": {"command": "npx", "args": ["-y", "x"]}}})),
        acme(
            "Plugin",
            "y",
            json!({"source": {"mcp-stdio": {"command": "a", "isolation": {"network": "host", "writable": ["/srv/a b"]}}}}),
        ),
        acme(
            "Plugin",
            "x",
            json!({"source": {"builtin": {"name": "sql", "config": {"url": "sqlite:a.db", "maxRows": "10"}}}}),
        ),
        acme("Quota", "x", json!({"limit": 1, "unit": "concurrent"})),
        acme("Price", "x", json!({"currency": "EUR", "tools": ["sql.*"], "models": ["*"], "perCallMicro": 5})),
        guard_words(&many_words(2_000)),
        acme("Guard", "x", json!({"principals": ["ann"], "paths": [{"path": "$..ssn", "action": "block"}]})),
        identity(json!({"issuer": "http://127.0.0.1:8080/realms/a"})),
        identity(json!({"scopes": {"tools:read": ["reader"]}, "principals": "any", "leewaySeconds": 0,
            "claims": {"prefix": "corp-", "roles": {"claim": "realm.roles", "map": {"Staff": ["reader"]}}}})),
        acme("Role", "x", json!({"rules": [{"tools": ["*", "sql.*", "echo.say"]}]})),
        acme(
            "RoleBinding",
            "x",
            json!({"role": "reader", "principals": ["ann"], "expires": "2027-01-31T12:00:00+01:00"}),
        ),
    ];
    for draft in good {
        let mut state = base();
        let applied = state.apply(Revision(2), &transaction(vec![draft.clone()], vec![]));
        assert!(applied.is_ok(), "{draft:?}: {}", applied.unwrap_err());
    }
}
