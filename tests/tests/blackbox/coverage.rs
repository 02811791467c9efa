//! Who may do what, for every method, over every transport: one table, and a record of every call in it.
//!
//! A method that [`Method`] gains does not compile here until it has its row.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use provost_client::{
    Client, ClientError, Connector, Endpoint, EraChoice, Identity, LinkError, NoHandler, Options, Transport,
};
use provost_mcp::{Era, Method, RawJson, RawObject, RpcError};
use serde_json::{Value, json};

use crate::{
    harness::{Dev, Process, START_LIMIT, text, until},
    simulate::token,
};

const TOOL: &str = "up.test_simple_text";
const PROMPT: &str = "up.test_prompt_with_arguments";
const RESOURCE: &str = "test://static-text";
const TEMPLATE: &str = "test://template/{id}/data";
/// A stream that nobody refused has no end: it is left after so long.
const LISTENING: Duration = Duration::from_secs(2);

/// Who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    /// A principal without any role.
    None,
    Granted,
    /// Granted, and a policy forbids everything to it.
    Forbidden,
    /// Granted, and a policy that reads `context` forbids everything to it.
    ForbiddenByContext,
    /// The grant has ended.
    Expired,
    /// Everything is granted, in another tenant.
    OtherTenant,
    /// No token.
    Anonymous,
}

const ROLES: [Role; 7] = [
    Role::None,
    Role::Granted,
    Role::Forbidden,
    Role::ForbiddenByContext,
    Role::Expired,
    Role::OtherTenant,
    Role::Anonymous,
];

impl Role {
    fn principal(self) -> (&'static str, &'static str) {
        match self {
            Self::None => ("acme", "nora"),
            Self::Granted => ("acme", "gwen"),
            Self::Forbidden => ("acme", "fred"),
            Self::ForbiddenByContext => ("acme", "fay"),
            Self::Expired => ("acme", "eddy"),
            Self::OtherTenant => ("rival", "rita"),
            Self::Anonymous => ("", ""),
        }
    }
}

/// What comes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Nobody refuses it.
    Allowed,
    /// A list, and what is listed is in it.
    Shown,
    /// A list, and it is not.
    Hidden,
    /// As if what is named did not exist.
    Invisible,
    /// Policy refuses it.
    Denied,
    /// Nobody is let in without a token.
    Refused,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Allowed => "allowed",
            Self::Shown => "shown",
            Self::Hidden => "hidden",
            Self::Invisible => "invisible",
            Self::Denied => "denied",
            Self::Refused => "refused",
        })
    }
}

/// How a method is asked, and what is expected of it.
struct Row {
    params: Value,
    /// For lists: the member of an answer and what must be in it, or must not.
    listed: Option<(&'static str, &'static str)>,
    /// Whether it names an object that policy decides on.
    is_object: bool,
    /// The method in the record; `None`: it leaves none.
    recorded: Option<&'static str>,
}

fn row(method: Method) -> Row {
    let plain = |params| Row { params, listed: None, is_object: false, recorded: Some(method.as_str()) };
    let list = |member, item| Row { listed: Some((member, item)), ..plain(json!({})) };
    let object = |params| Row { is_object: true, ..plain(params) };
    // A handle that names no plugin of the tenant: nobody has this task.
    let task = || plain(json!({ "taskId": "nothing.1", "inputResponses": {} }));
    match method {
        // The handshake is a discovery to the pipeline; it is done before a legacy client asks anything.
        Method::Initialize => Row { recorded: Some("server/discover"), ..plain(json!({})) },
        Method::Ping => Row { recorded: None, ..plain(json!({})) },
        Method::Discover => plain(json!({})),
        Method::ListTools => list("tools", TOOL),
        Method::ListPrompts => list("prompts", PROMPT),
        Method::ListResources => list("resources", RESOURCE),
        Method::ListResourceTemplates => list("resourceTemplates", TEMPLATE),
        Method::CallTool => object(json!({ "name": TOOL, "arguments": {} })),
        Method::GetPrompt => object(json!({ "name": PROMPT, "arguments": { "arg1": "a", "arg2": "b" } })),
        Method::ReadResource | Method::Subscribe | Method::Unsubscribe => object(json!({ "uri": RESOURCE })),
        Method::Complete => object(json!({
            "ref": { "type": "ref/prompt", "name": PROMPT }, "argument": { "name": "arg1", "value": "t" },
        })),
        Method::Listen => plain(json!({ "notifications": {} })),
        Method::SetLogLevel => plain(json!({ "level": "info" })),
        Method::GetTask | Method::UpdateTask | Method::CancelTask | Method::TaskResult => task(),
        Method::ListTasks => plain(json!({})),
    }
}

fn expected(method: Method, row: &Row, role: Role) -> Verdict {
    let is_task = matches!(method, Method::GetTask | Method::UpdateTask | Method::CancelTask | Method::TaskResult);
    match role {
        Role::Anonymous => Verdict::Refused,
        _ if is_task => Verdict::Invisible,
        Role::Granted if row.listed.is_some() => Verdict::Shown,
        // What may be permitted for other arguments is shown.
        Role::ForbiddenByContext if row.listed.is_some() => Verdict::Shown,
        _ if row.listed.is_some() => Verdict::Hidden,
        Role::ForbiddenByContext if row.is_object => Verdict::Denied,
        Role::Granted => Verdict::Allowed,
        _ if row.is_object => Verdict::Invisible,
        _ => Verdict::Allowed,
    }
}

fn yaml(upstream: &str) -> String {
    let document = |kind: &str, tenant: &str, name: &str, spec: &str| {
        let tenant = if tenant.is_empty() { String::new() } else { format!(", tenant: {tenant}") };
        format!("---\napiVersion: provost/v1\nkind: {kind}\nmetadata: {{ name: {name}{tenant} }}\nspec: {spec}\n")
    };
    let everything = "{ rules: [ { tools: ['*'], prompts: ['*'], resources: ['*'], models: ['*'] } ] }";
    let mut yaml = String::new();
    for tenant in ["acme", "rival"] {
        yaml += &document("Tenant", "", tenant, "{}");
        yaml += &document("Role", tenant, "all", everything);
    }
    for role in ROLES.into_iter().filter(|role| *role != Role::Anonymous) {
        let (tenant, name) = role.principal();
        yaml += &document("Principal", tenant, name, "{}");
    }
    yaml += &document("RoleBinding", "acme", "all", "{ role: all, principals: [gwen, fred, fay] }");
    yaml += &document("RoleBinding", "acme", "old", "{ role: all, principals: [eddy], expires: 2020-01-01T00:00:00Z }");
    yaml += &document("RoleBinding", "rival", "all", "{ role: all, principals: [rita] }");
    let cedar = "@id(\"fred\") forbid(principal == Provost::Principal::\"fred\", action, resource);
                 @id(\"fay\") forbid(principal == Provost::Principal::\"fay\", action, resource)
                 when { context.time > datetime(\"2020-01-01T00:00:00Z\") };";
    yaml += &document("Policy", "acme", "limits", &json!({ "cedar": cedar }).to_string());
    let plugin = format!("{{ source: {{ mcp-http: {{ url: '{upstream}' }} }} }}");
    yaml + &document("Plugin", "acme", "up", &plugin)
}

fn connector(dev: &Dev, transport: Transport, token: &str) -> Connector {
    let member = match transport {
        Transport::Http => "mcp",
        Transport::WebSocket => "ws",
        Transport::Http3 => "h3",
        Transport::Quic => "quic",
    };
    let endpoint = Endpoint::parse(dev.info[member].as_str().unwrap(), Some(transport)).unwrap();
    let ca = endpoint.is_secure().then(|| dev.info["ca"].as_str().unwrap().into());
    let token = (!token.is_empty()).then(|| token.to_owned().into());
    Connector::new(endpoint, Options { token, ca, connect_timeout: START_LIMIT, ..Options::default() }).unwrap()
}

async fn connect(connector: &Connector, era: Era) -> Result<Client, ClientError> {
    // A modern client that asks for tasks says that it can.
    let capabilities = RawJson::from(json!({ "extensions": { "io.modelcontextprotocol/tasks": {} } }));
    let identity = Identity { name: "coverage", version: "1", capabilities };
    Client::connect(connector, identity, Arc::new(NoHandler), EraChoice::Only(era)).await
}

fn of_error(error: &ClientError) -> Option<Verdict> {
    let rpc = match error {
        ClientError::Rpc(rpc) | ClientError::Link(LinkError::Rejected(rpc)) => rpc,
        ClientError::Link(LinkError::Refused { status: 401, .. }) => return Some(Verdict::Refused),
        ClientError::Link(LinkError::Deadline(_)) => return Some(Verdict::Allowed),
        ClientError::Link(_) => return None,
    };
    if rpc.code == RpcError::UNAUTHENTICATED {
        return Some(Verdict::Refused);
    }
    let data: Value = rpc.data.as_ref().and_then(|data| data.parse().ok()).unwrap_or_default();
    match data["code"].as_str() {
        Some("PV-POLICY-DENIED") => Some(Verdict::Denied),
        Some("PV-TOOL-UNKNOWN" | "PV-PROMPT-UNKNOWN" | "PV-RESOURCE-UNKNOWN" | "PV-TASK-UNKNOWN") => {
            Some(Verdict::Invisible)
        }
        // An upstream that does not know the method was asked all the same.
        _ => Some(Verdict::Allowed),
    }
}

async fn ask(client: &Client, method: Method, row: &Row) -> Result<Verdict, ClientError> {
    let limit = if method == Method::Listen { LISTENING } else { START_LIMIT };
    let params = RawObject::parse(&RawJson::from(row.params.clone())).unwrap();
    let answer = match client.request(method.as_str(), params, None, Some(limit)).await {
        Ok(answer) => answer,
        Err(error) => return of_error(&error).ok_or(error),
    };
    let Some((member, item)) = row.listed else { return Ok(Verdict::Allowed) };
    let answer: Value = answer.parse().unwrap();
    let items = answer[member].as_array().unwrap();
    let names = ["name", "uri", "uriTemplate"];
    let found = items.iter().any(|listed| names.iter().any(|name| listed[name] == item));
    Ok(if found { Verdict::Shown } else { Verdict::Hidden })
}

/// One caller's calls of one era: over one connection, as clients make them.
async fn calls(connector: &Connector, era: Era, mut seen: impl FnMut(Method, Verdict)) {
    let methods = Method::ALL.into_iter().filter(|method| method.is_of(era));
    match connect(connector, era).await {
        Ok(client) => {
            for method in methods {
                let verdict = match method {
                    // The connection has its session.
                    Method::Initialize => Ok(Verdict::Allowed),
                    method => ask(&client, method, &row(method)).await,
                };
                seen(method, verdict.unwrap_or_else(|e| panic!("{} fails: {e}", method.as_str())));
            }
        }
        Err(error) => {
            let verdict = of_error(&error).unwrap_or_else(|| panic!("no connection: {error:?}"));
            methods.for_each(|method| seen(method, verdict));
        }
    }
}

type Case = (Method, Transport, Role);

#[test]
fn every_method_over_every_transport_for_every_role() {
    let upstream = Process::everything("modern");
    let dev = Dev::start(Some(&yaml(&upstream.url)), &[]);
    let tokens: BTreeMap<Role, String> = ROLES
        .into_iter()
        .map(|role| match role.principal() {
            ("", _) => (role, String::new()),
            ("acme", name) => (role, token(&dev, name)),
            (tenant, name) => (role, token_of(&dev, tenant, name)),
        })
        .collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut found: BTreeMap<String, (Case, Verdict)> = BTreeMap::new();
    for transport in Transport::ALL {
        for role in ROLES {
            let connector = connector(&dev, transport, &tokens[&role]);
            if role != Role::Anonymous {
                // The token was just made.
                until(|| runtime.block_on(connect(&connector, Era::Modern)).ok().map(drop));
            }
            for era in [Era::Modern, Era::Legacy] {
                runtime.block_on(calls(&connector, era, |method, verdict| {
                    let key = format!("{} {transport} {role:?}", method.as_str());
                    let (case, first) = *found.entry(key).or_insert(((method, transport, role), verdict));
                    assert_eq!(first, verdict, "both eras agree: {case:?}");
                }));
            }
        }
    }

    let mut wrong = Vec::new();
    println!("{:<26}{:<6}{}", "METHOD", "OVER", ROLES.map(|role| format!("{:<20}", format!("{role:?}"))).concat());
    for method in Method::ALL {
        let row = row(method);
        for transport in Transport::ALL {
            let mut line = format!("{:<26}{:<6}", method.as_str(), transport.as_str());
            for role in ROLES {
                let (_, verdict) = found[&format!("{} {transport} {role:?}", method.as_str())];
                line += &format!("{verdict:<20}");
                let expect = expected(method, &row, role);
                if verdict != expect {
                    wrong.push(format!("{} over {transport} as {role:?}: {verdict}, not {expect}", method.as_str()));
                }
            }
            println!("{line}");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    check_records(&dev, &found);
}

fn token_of(dev: &Dev, tenant: &str, name: &str) -> String {
    let output = dev.cli(&["token", "create", "--principal", name, "--tenant", tenant, "--json"]);
    assert!(output.status.success(), "{}", text(&output));
    let made: Value = serde_json::from_slice(&output.stdout).unwrap();
    made["token"].as_str().unwrap().to_owned()
}

/// Each call left what its end demands: an intent where it ran, a denial with its code where it did not.
fn check_records(dev: &Dev, found: &BTreeMap<String, (Case, Verdict)>) {
    let mut records: BTreeSet<[String; 6]> = BTreeSet::new();
    for log in ["acme", "rival", "cluster"] {
        let output = dev.cli(&["audit", "query", "--json", "--tenant", log, "--limit", "100000"]);
        assert!(output.status.success(), "{}", text(&output));
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let record = serde_json::from_str::<Value>(line).unwrap()["record"].take();
            let text = |key: &str| record[key].as_str().unwrap_or_default().to_owned();
            let keys = ["principal", "mcp.method.name", "network.transport", "phase", "error.type"];
            let [principal, method, transport, phase, error] = keys.map(text);
            records.insert([log.to_owned(), principal, method, transport, phase, error]);
        }
    }
    for ((method, transport, role), verdict) in found.values().map(|(case, verdict)| (*case, *verdict)) {
        let Some(recorded) = row(method).recorded else { continue };
        let (tenant, principal) = role.principal();
        let by = |phase: &str, is: &dyn Fn(&str) -> bool| {
            records.iter().any(|[log, who, called, over, at, error]| {
                (log.as_str(), who.as_str(), called.as_str()) == (tenant, principal, recorded)
                    && (over.as_str(), at.as_str()) == (transport.as_str(), phase)
                    && is(error)
            })
        };
        let is_there = match verdict {
            Verdict::Allowed | Verdict::Shown | Verdict::Hidden => by("intent", &|_| true),
            Verdict::Invisible => by("denied", &|error| error.ends_with("-UNKNOWN")),
            Verdict::Denied => by("denied", &|error| error == "PV-POLICY-DENIED"),
            // Nobody is known: it is in the cluster's own log, and a connection that is refused carries no method.
            Verdict::Refused => records.iter().any(|[log, _, _, over, at, error]| {
                log == "cluster" && over == transport.as_str() && at == "denied" && error == "PV-AUTH-MISSING"
            }),
        };
        assert!(is_there, "{} over {transport} as {role:?} was {verdict} and left no record of it", method.as_str());
    }
}
