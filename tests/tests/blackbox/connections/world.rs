//! An authorization server with users and consent, and an upstream that takes what it gives: small, and strict.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use aws_lc_rs::digest::{SHA256, digest};
use axum::{body::Body, extract::State, response::Response};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as B64};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

pub type Fields = HashMap<String, String>;

/// A code that was given.
struct Code {
    challenge: String,
    redirect: String,
    user: String,
}

#[derive(Default)]
struct Shared {
    base: String,
    codes: Mutex<HashMap<String, Code>>,
    /// Good access tokens, and whose.
    access: Mutex<HashMap<String, String>>,
    /// Refresh tokens that are good once, and whose.
    refresh: Mutex<HashMap<String, String>>,
    used: Mutex<HashSet<String>>,
    /// A refresh token came twice.
    reused: AtomicBool,
    /// Forms of token requests.
    asked: Mutex<Vec<Fields>>,
    /// Forms of requests to take a token back.
    taken_back: Mutex<Vec<Fields>>,
    /// They are answered with 503.
    is_down: AtomicBool,
    /// Every token and code that was ever given.
    given: Mutex<Vec<String>>,
    /// Method and `authorization` of each request to the upstream.
    seen: Mutex<Vec<(String, String)>>,
    count: AtomicUsize,
    life_s: AtomicU64,
}

/// It, running.
pub struct World {
    shared: Arc<Shared>,
    _runtime: Runtime,
}

impl World {
    pub fn start(life_s: u64) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared { base, life_s: life_s.into(), ..Shared::default() });
        let router = axum::Router::new().fallback(serve).with_state(shared.clone());
        runtime.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { shared, _runtime: runtime }
    }

    pub fn url(&self) -> String {
        format!("{}/mcp", self.shared.base)
    }

    /// Token requests so far.
    pub fn asked(&self) -> Vec<Fields> {
        self.shared.asked.lock().unwrap().clone()
    }

    /// Calls that the upstream saw, with their `authorization`.
    pub fn calls(&self) -> Vec<String> {
        let seen = self.shared.seen.lock().unwrap();
        seen.iter().filter(|(method, _)| method == "tools/call").map(|(_, by)| by.clone()).collect()
    }

    /// Requests to take a token back so far.
    pub fn taken_back(&self) -> Vec<Fields> {
        self.shared.taken_back.lock().unwrap().clone()
    }

    /// From now on no token can be taken back.
    pub fn refuse_revocation(&self) {
        self.shared.is_down.store(true, Ordering::SeqCst);
    }

    pub fn given(&self) -> Vec<String> {
        self.shared.given.lock().unwrap().clone()
    }

    pub fn was_reused(&self) -> bool {
        self.shared.reused.load(Ordering::SeqCst)
    }

    /// Takes access tokens back; refresh tokens stay good.
    pub fn end_access(&self) {
        self.shared.access.lock().unwrap().clear();
    }

    /// Takes everything back that was given.
    pub fn revoke_all(&self) {
        self.end_access();
        self.shared.refresh.lock().unwrap().clear();
    }
}

fn reply(status: u16, body: &Value) -> Response {
    let response = Response::builder().status(status).header("content-type", "application/json");
    response.body(Body::from(body.to_string())).unwrap()
}

fn pairs(text: &[u8]) -> Fields {
    url::form_urlencoded::parse(text).into_owned().collect()
}

async fn serve(State(shared): State<Arc<Shared>>, request: axum::extract::Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let base = &shared.base;
    let query = pairs(parts.uri.query().unwrap_or_default().as_bytes());
    match parts.uri.path() {
        "/.well-known/oauth-protected-resource/mcp" => {
            reply(200, &json!({"resource": format!("{base}/mcp"), "authorization_servers": [format!("{base}/as")]}))
        }
        "/.well-known/oauth-authorization-server/as" => reply(
            200,
            &json!({
                "issuer": format!("{base}/as"),
                "authorization_endpoint": format!("{base}/authorize"),
                "token_endpoint": format!("{base}/token"),
                "revocation_endpoint": format!("{base}/revoke"),
                "code_challenge_methods_supported": ["S256"],
                "authorization_response_iss_parameter_supported": true,
            }),
        ),
        "/authorize" => shared.authorize(&query),
        "/token" => shared.token(pairs(&body)),
        "/revoke" => shared.revoke(pairs(&body)),
        "/mcp" => {
            let by = parts.headers.get("authorization").map_or("", |v| v.to_str().unwrap());
            shared.upstream(by, &serde_json::from_slice(&body).unwrap())
        }
        _ => reply(404, &json!({})),
    }
}

impl Shared {
    fn make(&self, kind: &str) -> String {
        let made = format!("{kind}-{}-Zt7Qm2Xc9Lw4", self.count.fetch_add(1, Ordering::SeqCst));
        self.given.lock().unwrap().push(made.clone());
        made
    }

    /// The user of `login` consents at once.
    fn authorize(&self, query: &Fields) -> Response {
        let is = |key: &str, value: &str| query.get(key).is_some_and(|given| given == value);
        assert!(is("response_type", "code") && is("client_id", "gateway"), "{query:?}");
        assert!(is("code_challenge_method", "S256") && is("resource", &format!("{}/mcp", self.base)), "{query:?}");
        let code = self.make("code");
        let made = Code {
            challenge: query["code_challenge"].clone(),
            redirect: query["redirect_uri"].clone(),
            user: query["login"].clone(),
        };
        self.codes.lock().unwrap().insert(code.clone(), made);
        let mut back = url::Url::parse(&query["redirect_uri"]).unwrap();
        let issuer = format!("{}/as", self.base);
        back.query_pairs_mut().extend_pairs([("code", &code), ("state", &query["state"]), ("iss", &issuer)]);
        Response::builder().status(302).header("location", back.as_str()).body(Body::empty()).unwrap()
    }

    fn token(&self, fields: Fields) -> Response {
        self.asked.lock().unwrap().push(fields.clone());
        let refused = || reply(400, &json!({"error": "invalid_grant"}));
        let of = |key: &str| fields.get(key).cloned().unwrap_or_default();
        let user = match of("grant_type").as_str() {
            "authorization_code" => {
                let Some(code) = self.codes.lock().unwrap().remove(&of("code")) else { return refused() };
                let challenge = B64.encode(digest(&SHA256, of("code_verifier").as_bytes()));
                if challenge != code.challenge || of("redirect_uri") != code.redirect {
                    return refused();
                }
                code.user
            }
            "refresh_token" => {
                if !self.used.lock().unwrap().insert(of("refresh_token")) {
                    self.reused.store(true, Ordering::SeqCst);
                }
                match self.refresh.lock().unwrap().remove(&of("refresh_token")) {
                    Some(user) => user,
                    None => return refused(),
                }
            }
            _ => return reply(400, &json!({"error": "unsupported_grant_type"})),
        };
        let (access, refresh) = (self.make("access"), self.make("refresh"));
        self.access.lock().unwrap().insert(access.clone(), user.clone());
        self.refresh.lock().unwrap().insert(refresh.clone(), user);
        let life = self.life_s.load(Ordering::SeqCst);
        let answer = json!({"access_token": access, "refresh_token": refresh, "token_type": "Bearer",
                            "expires_in": life, "scope": "mail:read"});
        reply(200, &answer)
    }

    fn revoke(&self, fields: Fields) -> Response {
        self.taken_back.lock().unwrap().push(fields.clone());
        if self.is_down.load(Ordering::SeqCst) {
            // What it says of the token must not be shown.
            return reply(503, &json!({"error": "server_error", "error_description": fields["token"]}));
        }
        self.access.lock().unwrap().remove(&fields["token"]);
        self.refresh.lock().unwrap().remove(&fields["token"]);
        reply(200, &json!({}))
    }

    fn upstream(&self, by: &str, message: &Value) -> Response {
        let method = message["method"].as_str().unwrap_or_default();
        self.seen.lock().unwrap().push((method.to_owned(), by.to_owned()));
        let result = match method {
            "server/discover" => json!({"resultType": "complete", "supportedVersions": ["2026-07-28"],
                "capabilities": {"tools": {}}, "ttlMs": 0, "cacheScope": "private"}),
            "tools/list" => json!({"resultType": "complete", "ttlMs": 60_000, "cacheScope": "private",
                "tools": [{"name": "t", "inputSchema": {"type": "object"}}]}),
            _ => {
                let token = by.strip_prefix("Bearer ").unwrap_or_default();
                let Some(user) = self.access.lock().unwrap().get(token).cloned() else {
                    return reply(401, &json!({}));
                };
                json!({"resultType": "complete", "content": [{"type": "text", "text": format!("for {user}, {by}")}]})
            }
        };
        reply(200, &json!({"jsonrpc": "2.0", "id": message["id"], "result": result}))
    }
}
