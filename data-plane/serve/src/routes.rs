//! The table of paths.

use std::{error::Error, sync::Arc};

use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body;
use hyper::upgrade::OnUpgrade;
use provost_data_pipeline::{Plane, Route};
use provost_mcp::RpcError;
use provost_types::Name;

use crate::{
    Frontend, Peer, connect,
    frontend::Inbound,
    http::{BodyFault, Doorkeeper, Refused, ResponseBody, collect, empty, json, pass_over, says_too_long, text},
    mcp::asks_for_socket,
    mcp_error, openai,
};

/// What a path leads to.
enum Place {
    Mcp(Route),
    Chat,
    Completions,
    Embeddings,
    Transcriptions,
    Models(Option<String>),
    Metadata(String),
    Health,
    Ready,
    Landing,
    Connect,
    Connections,
    /// Of a tenant's plugin.
    ConnectCallback(Name, Name),
}

fn place(path: &str) -> Option<Place> {
    const METADATA: &str = "/.well-known/oauth-protected-resource";
    Some(match path {
        "/" => Place::Landing,
        "/healthz" => Place::Health,
        "/readyz" => Place::Ready,
        "/v1/chat/completions" => Place::Chat,
        "/v1/completions" => Place::Completions,
        "/v1/embeddings" => Place::Embeddings,
        "/v1/audio/transcriptions" => Place::Transcriptions,
        "/v1/models" => Place::Models(None),
        connect::START => Place::Connect,
        connect::OWN => Place::Connections,
        _ => {
            if let Some(route) = mcp_route(path) {
                Place::Mcp(route)
            } else if let Some(model) = path.strip_prefix("/v1/models/") {
                Place::Models(Some(model.to_owned()))
            } else if let Some(of) = path.strip_prefix(connect::CALLBACK) {
                let (tenant, plugin) = of.split_once('/')?;
                Place::ConnectCallback(Name::new(tenant).ok()?, Name::new(plugin).ok()?)
            } else {
                let rest = path.strip_prefix(METADATA)?;
                if !rest.is_empty() && mcp_route(rest).is_none() {
                    return None;
                }
                Place::Metadata(rest.to_owned())
            }
        }
    })
}

/// The route behind an endpoint: `/mcp` or `/mcp/PLUGIN`.
pub(crate) fn mcp_route(path: &str) -> Option<Route> {
    match path.strip_prefix("/mcp")? {
        "" => Some(Route::Merged),
        rest => Name::new(rest.strip_prefix('/')?).ok().map(Route::Plugin),
    }
}

impl<P: Plane + 'static> Frontend<P> {
    /// Answers one HTTP request, of whatever connection it came in on.
    pub async fn respond<B>(self: &Arc<Self>, request: Request<B>, peer: Peer) -> Response<ResponseBody>
    where
        B: Body + Send + 'static,
        B::Data: Buf + Send,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let (mut parts, body) = request.into_parts();
        let upgrade = parts.extensions.remove::<OnUpgrade>();
        let path = parts.uri.path().to_owned();
        let Some(place) = place(&path) else {
            if path.starts_with("/v1/") {
                let message = format!("{path} is not served; docs/models.md says what is");
                return openai::error(StatusCode::NOT_FOUND, "PV-HTTP-NOT-FOUND", &message);
            }
            return text(StatusCode::NOT_FOUND, "PV-HTTP-NOT-FOUND: there is nothing here\n");
        };
        // Probes address nodes by whatever name; they reveal nothing and change nothing.
        match place {
            Place::Health => return text(StatusCode::OK, "ok\n"),
            Place::Ready => return self.ready(),
            _ => {}
        }
        match self.doorkeeper.check(&parts.headers, &parts.uri) {
            // Our own form, wherever agents reach us: whether it is ours is asked there.
            Err(Refused::Origin) if matches!(place, Place::Connect | Place::Connections) => {}
            Err(refused) => return refused_response(refused),
            Ok(()) => {}
        }
        let base_url = self.base_url(Doorkeeper::authority(&parts.headers, &parts.uri).unwrap_or_default(), &peer);
        let is_page = matches!(place, Place::Connect | Place::Connections | Place::ConnectCallback(..));
        // Pages are for people: no other page reads them.
        let origin = parts.headers.get(header::ORIGIN).filter(|_| !is_page).cloned();
        let mut response = if parts.method == Method::OPTIONS {
            preflight(&parts.headers)
        } else {
            let route = match &place {
                Place::Mcp(route) => route.clone(),
                _ => Route::Merged,
            };
            match self.inbound(parts.headers, base_url, path, route, peer) {
                Ok(inbound) => {
                    if parts.uri.query().is_some_and(carries_token) {
                        return self.refuse_token_in_url(&inbound);
                    }
                    // Whoever decides on the caller below decides at once.
                    self.plane.prepare(&self.plane.snapshot(), &inbound.credential).await;
                    let query = parts.uri.query().unwrap_or_default();
                    self.enter_place(place, (parts.method, query), inbound, body, upgrade).await
                }
                Err(cause) => {
                    tracing::error!(%cause, "no randomness for a call id");
                    empty(StatusCode::INTERNAL_SERVER_ERROR)
                }
            }
        };
        if let Some(origin) = origin {
            allow_origin(response.headers_mut(), origin);
        }
        response
    }

    async fn enter_place<B>(
        self: &Arc<Self>,
        place: Place,
        (method, query): (Method, &str),
        inbound: Inbound,
        body: B,
        upgrade: Option<OnUpgrade>,
    ) -> Response<ResponseBody>
    where
        B: Body + Send + 'static,
        B::Data: Buf + Send,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        match (place, method) {
            (Place::Mcp(_), Method::GET) if asks_for_socket(&inbound.headers) => self.mcp_socket(inbound, upgrade),
            (Place::Mcp(_), Method::GET) => self.mcp_get(inbound).await,
            (Place::Mcp(_), Method::DELETE) => self.mcp_delete(&inbound).await,
            (Place::Mcp(_), Method::POST) => match self.json_body(&inbound, body).await {
                Ok(body) => Box::pin(self.mcp_post(inbound, body)).await,
                Err(fault) => fault.mcp(),
            },
            (Place::Chat, Method::POST) => match self.json_body(&inbound, body).await {
                Ok(body) => Box::pin(self.chat(inbound, body)).await,
                Err(fault) => fault.openai(),
            },
            (Place::Completions, Method::POST) => match self.json_body(&inbound, body).await {
                Ok(body) => Box::pin(self.completions(inbound, body)).await,
                Err(fault) => fault.openai(),
            },
            (Place::Embeddings, Method::POST) => match self.json_body(&inbound, body).await {
                Ok(body) => Box::pin(self.embeddings(inbound, body)).await,
                Err(fault) => fault.openai(),
            },
            (Place::Transcriptions, Method::POST) => Box::pin(self.transcriptions(inbound, body)).await,
            (Place::Models(name), Method::GET) => Box::pin(self.models(inbound, name)).await,
            (Place::Metadata(path), Method::GET) => self.metadata(&inbound, &path),
            (Place::Landing, Method::GET | Method::HEAD) => landing(),
            (Place::Connect, Method::GET) => self.connect_page(&inbound, query),
            (Place::Connect, Method::POST) => match collect(body, connect::MAX_FORM_BYTES).await {
                Ok(form) => Box::pin(self.connect_start(&inbound, form)).await,
                Err(_) => text(StatusCode::BAD_REQUEST, "PV-HTTP-BODY-BROKEN: the form could not be read\n"),
            },
            (Place::Connections, Method::GET) => self.own_page(&inbound, query),
            (Place::Connections, Method::POST) => match collect(body, connect::MAX_FORM_BYTES).await {
                Ok(form) => Box::pin(self.own_form(&inbound, form)).await,
                Err(_) => text(StatusCode::BAD_REQUEST, "PV-HTTP-BODY-BROKEN: the form could not be read\n"),
            },
            (Place::ConnectCallback(tenant, plugin), Method::GET) => {
                Box::pin(self.connect_callback(&inbound, (&tenant, &plugin), query)).await
            }
            (place, _) => {
                let mut response = empty(StatusCode::METHOD_NOT_ALLOWED);
                let allow = match place {
                    Place::Mcp(_) => "GET, POST, DELETE",
                    Place::Chat | Place::Completions | Place::Embeddings | Place::Transcriptions => "POST",
                    Place::Connect | Place::Connections => "GET, POST",
                    _ => "GET",
                };
                response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
                response
            }
        }
    }

    /// Reads a JSON body under the bound.
    async fn json_body<B>(&self, inbound: &Inbound, body: B) -> Result<Bytes, Unreadable>
    where
        B: Body + Send + 'static,
        B::Data: Buf + Send,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let kind = inbound.headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
        let kind = kind.and_then(|k| k.split(';').next()).unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/json") {
            return Err(Unreadable::Kind);
        }
        // What was packed was not what is bounded, and nobody unpacks it here.
        let plain = |v: &HeaderValue| v.is_empty() || v.as_bytes().eq_ignore_ascii_case(b"identity");
        if !inbound.headers.get_all(header::CONTENT_ENCODING).iter().all(plain) {
            return Err(Unreadable::Encoded);
        }
        // Nothing of it is waited for.
        if says_too_long(&inbound.headers, self.config.max_body_bytes) {
            pass_over(&inbound.headers, body);
            return Err(Unreadable::TooLong(self.config.max_body_bytes));
        }
        collect(body, self.config.max_body_bytes).await.map_err(|fault| match fault {
            BodyFault::TooLong => Unreadable::TooLong(self.config.max_body_bytes),
            BodyFault::Broken => Unreadable::Broken,
        })
    }

    fn ready(&self) -> Response<ResponseBody> {
        if self.draining.is_cancelled() {
            return text(StatusCode::SERVICE_UNAVAILABLE, "shutting down\n");
        }
        match self.readiness.as_ref().map_or(Ok(()), |ready| ready()) {
            Ok(()) => text(StatusCode::OK, "ready\n"),
            Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, &format!("{why}\n")),
        }
    }

    /// RFC 9728.
    fn metadata(&self, inbound: &Inbound, path: &str) -> Response<ResponseBody> {
        let mut authorization = self.plane.authorization();
        authorization.servers.extend(self.config.authorization_servers.iter().cloned());
        let mut document = serde_json::json!({
            "resource": format!("{}{path}", inbound.base_url),
            "bearer_methods_supported": ["header"],
            "resource_name": self.config.server_name,
        });
        // What has no element is left out (section 3.2).
        let lists = [("authorization_servers", authorization.servers), ("scopes_supported", authorization.scopes)];
        for (member, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
            document[member] = list.into();
        }
        json(StatusCode::OK, document.to_string().into())
    }
}

/// A body that was not read to its end.
#[derive(Clone, Copy)]
enum Unreadable {
    Kind,
    Encoded,
    TooLong(usize),
    Broken,
}

impl Unreadable {
    fn said(self) -> (StatusCode, &'static str, String) {
        match self {
            Self::Kind => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "PV-HTTP-CONTENT-TYPE",
                "Content-Type must be application/json".to_owned(),
            ),
            Self::Encoded => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "PV-HTTP-CONTENT-ENCODING",
                "the body is encoded; send it as it is, without Content-Encoding".to_owned(),
            ),
            Self::TooLong(max) => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "PV-HTTP-BODY-TOO-LARGE",
                format!("the body is longer than {max} bytes"),
            ),
            Self::Broken => {
                (StatusCode::BAD_REQUEST, "PV-HTTP-BODY-BROKEN", "the body could not be read to its end".to_owned())
            }
        }
    }

    fn mcp(self) -> Response<ResponseBody> {
        let (status, code, message) = self.said();
        self.said_beside(mcp_error(status, None, &RpcError::with_code(RpcError::INVALID_REQUEST, code, message)))
    }

    fn openai(self) -> Response<ResponseBody> {
        let (status, code, message) = self.said();
        self.said_beside(openai::error(status, code, &message))
    }

    /// RFC 9110, section 15.5.16: a refused encoding comes with those that are taken.
    fn said_beside(self, mut response: Response<ResponseBody>) -> Response<ResponseBody> {
        if matches!(self, Self::Encoded) {
            response.headers_mut().insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        response
    }
}

/// Whether a query has a token where RFC 6750, section 2.3, once put it.
fn carries_token(query: &str) -> bool {
    url::form_urlencoded::parse(query.as_bytes()).any(|(name, _)| name == "access_token")
}

fn refused_response(refused: Refused) -> Response<ResponseBody> {
    let (code, message) = match refused {
        Refused::Twice(name) => {
            let text = format!("the header `{name}` came twice; send it once");
            let error = RpcError::with_code(RpcError::HEADER_MISMATCH, "PV-HTTP-HEADER-TWICE", text);
            return mcp_error(StatusCode::BAD_REQUEST, None, &error);
        }
        Refused::Host => {
            ("PV-HTTP-HOST", "this node does not answer under the name in Host; add it to the allowed hosts")
        }
        Refused::Origin => ("PV-HTTP-ORIGIN", "pages of this origin may not call; add it to the allowed origins"),
    };
    mcp_error(StatusCode::FORBIDDEN, None, &RpcError::with_code(RpcError::INVALID_REQUEST, code, message))
}

/// CORS: the origin was checked against the list before.
fn allow_origin(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(header::VARY, HeaderValue::from_static("origin"));
    headers.insert(
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static("mcp-session-id, www-authenticate, retry-after"),
    );
}

fn preflight(asked: &HeaderMap) -> Response<ResponseBody> {
    let mut response = empty(StatusCode::NO_CONTENT);
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, DELETE"));
    if let Some(names) = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
    }
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    response
}

fn landing() -> Response<ResponseBody> {
    const PAGE: &str = include_str!("landing.html");
    let mut response = text(StatusCode::OK, PAGE);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
    );
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
