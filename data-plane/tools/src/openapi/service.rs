//! A plugin whose tools are the operations of an HTTP service.
//!
//! Invariants: what the plugin gives (headers, query parameters, tokens) is put on after everything that comes from a
//! caller, and taken out of what comes back before that is read; a request follows no redirect; it ends with its
//! call's deadline, or when its caller gives up.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use provost_data_pipeline::{ClientLink, Execution};
use provost_mcp::RawJson;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};

use super::{
    answer::{Answer, Content, refusal},
    catalogue::{Catalogue, Filter},
    operation::{Call, Given},
    pages,
    request::{Prepared, arguments, prepare},
};
use crate::{
    Definitions, ExecuteRequest, Limits, UpstreamError,
    egress::{CheckedUrl, EgressClient},
    listed::{Listed, in_time, tool_of},
    oauth::{Authorizer, Behalf},
    redact::Redactor,
    trace_headers::TraceHeaders,
    upstream::{refuse_encoded, transport_error, whole_body},
};

/// Bytes of one answer, and of all pages of one list.
const MAX_ANSWER_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of a document that is fetched.
const MAX_DOCUMENT_BYTES: usize = 8 * 1024 * 1024;
/// How long a fetched document is used before it is asked for again.
const DOCUMENT_TTL: Duration = Duration::from_secs(300);
/// What is said of a tool whose definition is another one now.
const CHANGED: &str = "its document has just changed";
/// What is said beside a list that has more pages.
const MORE_PAGES: &str = "There are more pages of this list.";

/// How the service is reached.
pub(crate) struct Reach {
    pub(crate) client: EgressClient,
    /// What paths are added to.
    pub(crate) server: CheckedUrl,
    pub(crate) headers: HeaderMap,
    pub(crate) query: Vec<(String, SecretString)>,
    pub(crate) auth: Option<Arc<Authorizer>>,
    pub(crate) redactor: Redactor,
}

/// Where the document is.
pub(crate) enum Origin<'a> {
    Inline(&'a Map<String, Value>),
    Url(CheckedUrl),
}

/// The plugin.
pub(crate) struct OpenApi {
    plugin: String,
    reach: Reach,
    given: Given,
    /// The names of `reach.query`.
    query: Vec<String>,
    source: Listed<Catalogue, (CheckedUrl, Filter)>,
    limits: Limits,
}

/// A whole answer and what is written over in it.
struct Answered {
    answer: Answer,
    redactor: Redactor,
}

impl OpenApi {
    /// Reads the document, if it is there; connects to nothing yet.
    pub(crate) fn new(
        plugin: &str,
        reach: Reach,
        origin: Origin<'_>,
        filter: Filter,
        (is_server_named, hide_output_schemas): (bool, bool),
        limits: &Limits,
    ) -> Result<Self, UpstreamError> {
        let query: Vec<String> = reach.query.iter().map(|(name, _)| name.clone()).collect();
        let mut headers: std::collections::BTreeSet<String> =
            reach.headers.keys().map(|h| h.as_str().to_owned()).collect();
        if reach.auth.is_some() {
            headers.insert(header::AUTHORIZATION.as_str().to_owned());
        }
        let given = Given { headers, query: query.iter().cloned().collect(), is_server_named, hide_output_schemas };
        let source = match origin {
            Origin::Inline(document) => {
                let read = Catalogue::read(document, &filter, &given, limits.max_definitions);
                let catalogue = read.map_err(|cause| UpstreamError::Config(format!("the document: {cause}")))?;
                catalogue.log(plugin);
                Listed::Inline(catalogue)
            }
            Origin::Url(url) => Listed::asked((url, filter)),
        };
        let limits = Limits { max_answer_bytes: limits.max_answer_bytes.min(MAX_ANSWER_BYTES), ..limits.clone() };
        Ok(Self { plugin: plugin.to_owned(), reach, given, query, source, limits })
    }

    /// What gives the plugin's tokens, if it acts in its users' names.
    pub(crate) fn consents(&self) -> Option<&Authorizer> {
        self.reach.auth.as_deref().filter(|auth| auth.is_per_user())
    }

    /// Its tools as far as they are known without asking.
    pub(crate) fn at_hand(&self) -> Option<Definitions> {
        self.source.at_hand()
    }

    /// Its tools; a document that is elsewhere is fetched if it is too old.
    pub(crate) async fn tools(&self) -> Result<Definitions, UpstreamError> {
        match &self.source {
            Listed::Inline(catalogue) => Ok(catalogue.definitions.clone()),
            Listed::Asked { from: (url, filter), kept } => {
                kept.tools(&self.limits, DOCUMENT_TTL, || self.fetched(url, filter)).await
            }
        }
    }

    /// The document as it is now. It is asked for without credentials.
    async fn fetched(&self, url: &CheckedUrl, filter: &Filter) -> Result<Catalogue, UpstreamError> {
        let request = self.reach.client.request(http::Method::GET, url).header(header::ACCEPT, "application/json");
        let response = request.send().await.map_err(transport_error)?;
        let status = response.status();
        if !status.is_success() {
            let body = "the document cannot be fetched".to_owned();
            return Err(UpstreamError::Http { status: status.as_u16(), body });
        }
        refuse_encoded(response.headers())?;
        let body = whole_body(response, MAX_DOCUMENT_BYTES).await?;
        let document: Map<String, Value> = serde_json::from_slice(&body)
            .map_err(|cause| UpstreamError::Garbage(format!("the document is no JSON object: {cause}")))?;
        let read = Catalogue::read(&document, filter, &self.given, self.limits.max_definitions);
        let catalogue = read.map_err(|cause| UpstreamError::Garbage(format!("the document: {cause}")))?;
        catalogue.log(&self.plugin);
        Ok(catalogue)
    }

    /// Runs one operation.
    pub(crate) async fn execute(
        &self,
        request: &ExecuteRequest<'_>,
        link: &dyn ClientLink,
    ) -> Result<Execution, UpstreamError> {
        let tool = tool_of(request)?;
        in_time(request, link, Box::pin(self.called(tool, request))).await
    }

    async fn called(&self, tool: &str, request: &ExecuteRequest<'_>) -> Result<Execution, UpstreamError> {
        if matches!(self.source, Listed::Asked { .. }) {
            // The first call of a node that was asked for no list yet.
            self.tools().await?;
        }
        let call = self.source.call_of(tool, CHANGED)?;
        let mut prepared = prepare(&call, &arguments(&request.params)?, &self.reach.server, &self.query)?;
        TraceHeaders::of_params(&request.params).add_to(&mut prepared.headers);
        let Answered { answer, redactor } = self.asked(&call, &prepared, prepared.url.clone(), request).await?;
        let (status, headers) = (answer.status, answer.headers.clone());
        let content = match answer.read(&redactor, self.limits.max_answer_bytes)? {
            Ok(content) => content,
            Err(text) => return Ok(Execution::result(refusal(&text), true)),
        };
        let (content, has_more) = match content {
            Content::Json(first) if call.pages.is_some() && first.as_bytes().first() == Some(&b'[') => {
                match self.all_pages(&call, &prepared, first, headers, request).await? {
                    Ok((list, has_more)) => (Content::Json(list), has_more),
                    Err(text) => return Ok(Execution::result(refusal(&text), true)),
                }
            }
            content => (content, false),
        };
        let note = has_more.then_some(MORE_PAGES);
        Ok(Execution::result(content.into_result(tool, status, note), false))
    }

    /// As many pages as were asked for in one list, and whether there are more. `Ok(Err(_))`: one was refused.
    async fn all_pages(
        &self,
        call: &Call,
        prepared: &Prepared,
        first: RawJson,
        mut headers: HeaderMap,
        request: &ExecuteRequest<'_>,
    ) -> Result<Result<(RawJson, bool), String>, UpstreamError> {
        let (mut all, mut asked) = (vec![first], prepared.url.clone());
        loop {
            let Some(next) = pages::next(&headers, asked.as_url(), self.reach.server.as_url()) else {
                return Ok(Ok((pages::joined(&all, self.limits.max_answer_bytes)?, false)));
            };
            if all.len() >= prepared.pages {
                return Ok(Ok((pages::joined(&all, self.limits.max_answer_bytes)?, true)));
            }
            // A service may say back what it was given in the query; it is given again, once.
            let kept = next.query_pairs().filter(|(key, _)| !self.query.iter().any(|given| given == key));
            let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(kept).finish();
            let checked = self.reach.client.check(next.as_str())?;
            asked = checked.with_query((!query.is_empty()).then_some(query.as_str()));
            let Answered { answer, redactor } = self.asked(call, prepared, asked.clone(), request).await?;
            headers = answer.headers.clone();
            match answer.read(&redactor, self.limits.max_answer_bytes)? {
                Ok(Content::Json(page)) => all.push(page),
                Ok(_) => return Err(UpstreamError::Garbage("a further page is no JSON".to_owned())),
                Err(text) => return Ok(Err(text)),
            }
        }
    }

    /// Sends the request, with another token if the first one is refused: the service did not look at it then.
    async fn asked(
        &self,
        call: &Call,
        prepared: &Prepared,
        url: CheckedUrl,
        request: &ExecuteRequest<'_>,
    ) -> Result<Answered, UpstreamError> {
        let Some(auth) = &self.reach.auth else { return self.sent(call, prepared, &url, None).await };
        let behalf = auth.behalf(request.principal, request.subject)?;
        let Some(token) = token(auth, behalf.as_ref()).await? else {
            return self.sent(call, prepared, &url, None).await;
        };
        let answered = self.sent(call, prepared, &url, Some(&token)).await?;
        if answered.answer.status != StatusCode::UNAUTHORIZED {
            return Ok(answered);
        }
        auth.refused(behalf.as_ref(), &token);
        let token = token_or(auth, behalf.as_ref(), token).await?;
        self.sent(call, prepared, &url, Some(&token)).await
    }

    async fn sent(
        &self,
        call: &Call,
        prepared: &Prepared,
        url: &CheckedUrl,
        token: Option<&HeaderValue>,
    ) -> Result<Answered, UpstreamError> {
        let mut url = url.clone();
        for (name, value) in &self.reach.query {
            url.add_query(name, value.expose_secret());
        }
        let mut headers = prepared.headers.clone();
        headers.entry(header::ACCEPT).or_insert(HeaderValue::from_static("application/json, */*;q=0.5"));
        // The plugin's own last: nothing of a caller's takes their place.
        for (name, value) in &self.reach.headers {
            headers.insert(name, value.clone());
        }
        let mut redactor = self.reach.redactor.clone();
        if let Some(token) = token {
            headers.insert(header::AUTHORIZATION, token.clone());
            if let Some((_, value)) = token.to_str().ok().and_then(|text| text.split_once(' ')) {
                redactor = redactor.and(value);
            }
        }
        let mut builder = self.reach.client.request(call.method.clone(), &url).headers(headers);
        if let Some(body) = &prepared.body {
            builder = builder.body(body.clone());
        }
        let response = builder.send().await.map_err(transport_error)?;
        let (status, headers) = (response.status(), response.headers().clone());
        refuse_encoded(&headers)?;
        let body = match whole_body(response, self.limits.max_answer_bytes).await {
            // What an error says need not be whole.
            Err(_) if !status.is_success() => Bytes::new(),
            body => body?,
        };
        Ok(Answered { answer: Answer { status, headers, body }, redactor })
    }
}

/// The `authorization` header of a request; `None`: it has none.
async fn token(auth: &Authorizer, behalf: Option<&Behalf<'_>>) -> Result<Option<HeaderValue>, UpstreamError> {
    match behalf {
        Some(behalf) => auth.header(behalf).await.map(Some),
        None => auth.own_header().await,
    }
}

async fn token_or(
    auth: &Authorizer,
    behalf: Option<&Behalf<'_>>,
    refused: HeaderValue,
) -> Result<HeaderValue, UpstreamError> {
    Ok(token(auth, behalf).await?.unwrap_or(refused))
}
