//! Confused deputies: whose credentials go where, and who gets to see them.

use serde_json::json;

use super::{
    apply, tenant, token_of,
    upstream::{Answers, Upstream},
    verdict,
};
use crate::{
    harness::{Dev, modern, post, text, until},
    websocket::records,
};

const OF_ACME: &str = "acme-Qx7Lk2Vb84f9z";
const OF_ACME_2: &str = "acme-new-Jd83hdk20sl";
const OF_BLUE: &str = "blue-Mn5Tr8Wp16c3y";

fn set(dev: &Dev, tenant: &str, name: &str, value: &str) {
    let done = dev.cli_stdin(&["secret", "set", name, "--tenant", tenant], value);
    assert!(done.status.success(), "{}", text(&done));
}

fn plugin(tenant: &str, name: &str, url: &str, secret: &str) -> String {
    format!(
        "apiVersion: provost/v1\nkind: Plugin\nmetadata: {{ name: {name}, tenant: {tenant} }}\nspec:\n  source:\n    mcp-http:\n      \
         url: '{url}'\n      secretHeaders: {{ x-key: {{ secret: {secret} }} }}\n      \
         secretQuery: {{ key: {{ secret: {secret} }} }}\n"
    )
}

#[test]
fn a_credential_serves_its_tenant_its_plugin_and_nobodys_eyes() {
    let yaml = format!("{}---\n{}", tenant("acme"), tenant("blue"));
    let dir = tempfile::tempdir().unwrap();
    let dev = Dev::start_env(&dir.path().join("data"), Some(&yaml), &[], &[("PROVOST_LOG", "debug")]);
    let (first, second, other) =
        (Upstream::start(Answers::Echo), Upstream::start(Answers::Echo), Upstream::start(Answers::Echo));
    set(&dev, "acme", "key", OF_ACME);
    set(&dev, "blue", "key", OF_BLUE);
    set(&dev, "acme", "only-acme", "only-acme-8dj3k9s0");
    let documents = [
        plugin("acme", "up", &first.url, "key"),
        plugin("blue", "up", &second.url, "key"),
        format!(
            "apiVersion: provost/v1\nkind: Plugin\nmetadata: {{ name: bare, tenant: acme }}\n\
             spec: {{ source: {{ mcp-http: {{ url: '{}' }} }} }}\n",
            other.url
        ),
    ];
    let (taken, said) = apply(&dev, &documents.join("---\n"));
    assert!(taken, "{said}");

    let (acme, blue) = (token_of(&dev, "acme", "bot"), token_of(&dev, "blue", "bot"));
    let call = |token: &str, tool: &str| {
        let body = modern("tools/call", json!({ "name": tool, "arguments": {} }));
        until(|| Some(post(dev.mcp(), token, &body).1).filter(|answer| answer["error"]["code"] != -32602)).to_string()
    };
    let answers = [call(&acme, "up.t"), call(&blue, "up.t"), call(&acme, "bare.t")];
    let all = [first.seen().concat(), second.seen().concat(), other.seen().concat()];
    let table = [
        ("acme's secret reaches acme's upstream (header, query)", all[0].matches(OF_ACME).count() >= 2),
        ("blue's secret reaches blue's upstream", all[1].contains(OF_BLUE)),
        ("acme's secret reaches no other tenant's upstream", !all[1].contains(OF_ACME)),
        ("blue's secret reaches no other tenant's upstream", !all[0].contains(OF_BLUE)),
        ("a plugin without secrets gets none", !all[2].contains(OF_ACME) && !all[2].contains("key=")),
        ("no caller's token is passed through", !all.concat().contains(&acme) && !all.concat().contains(&blue)),
        ("no caller's `authorization` at all", !all.concat().contains("authorization")),
        ("callers see that something was there", answers[0].contains("[redacted]")),
        ("callers see no value", !answers.concat().contains(OF_ACME) && !answers.concat().contains(OF_BLUE)),
    ];
    for (case, holds) in table {
        verdict("deputy", case, if holds { "holds" } else { "BROKEN" });
        assert!(holds, "{case}: {answers:?}\n{all:?}");
    }

    let (taken, said) = apply(&dev, &plugin("blue", "thief", &second.url, "only-acme"));
    verdict("deputy", "blue's document names acme's secret", said.lines().next().unwrap_or_default());
    assert!(!taken && said.contains("PV-RES-REFERENCE"), "{said}");

    // A new value is used without a restart, and is as invisible.
    set(&dev, "acme", "key", OF_ACME_2);
    until(|| {
        let answer = call(&acme, "up.t");
        assert!(!answer.contains(OF_ACME) && !answer.contains(OF_ACME_2), "{answer}");
        first.seen().concat().contains(OF_ACME_2).then_some(())
    });
    verdict("deputy", "a new value is used by the next call", "holds");

    let written = records(&dev, &["--tool", "up.t"]);
    let names = written.iter().any(|r| r["secrets"] == json!(["key"]));
    let everything = format!("{written:?} {}", dev.stderr());
    let hidden = [OF_ACME, OF_ACME_2, OF_BLUE].iter().all(|value| !everything.contains(value));
    verdict(
        "deputy",
        "the audit names the secret, and neither it nor the log has it",
        if hidden { "holds" } else { "BROKEN" },
    );
    assert!(names, "{written:?}");
    assert!(hidden, "{everything}");
}
