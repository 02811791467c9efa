//! Requests to other servers, where the installation grants it.
//!
//! A plugin never sees a credential: it names one, and the host adds it on the way.

use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};

pub use crate::bindings::provost::plugin::http::Error;
use crate::{Failure, bindings::provost::plugin::http};

/// A request.
#[derive(Clone, Debug)]
pub struct Request(http::Request);

/// A response of any status.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status.
    pub status: u16,
    headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Request {
    /// A request of this method.
    pub fn new(method: &str, url: impl Into<String>) -> Self {
        Self(http::Request {
            method: method.to_owned(),
            url: url.into(),
            headers: Vec::new(),
            body: None,
            credential: None,
            timeout_ms: None,
        })
    }

    /// `GET`.
    pub fn get(url: impl Into<String>) -> Self {
        Self::new("GET", url)
    }

    /// `POST`.
    pub fn post(url: impl Into<String>) -> Self {
        Self::new("POST", url)
    }

    /// With a header.
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.0.headers.push((name.to_owned(), value.into()));
        self
    }

    /// With a body.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.0.body = Some(body.into());
        self
    }

    /// With a body of JSON.
    pub fn json(self, body: &impl Serialize) -> Result<Self, Failure> {
        let body = serde_json::to_vec(body).map_err(|why| Failure::Broken(why.to_string()))?;
        Ok(self.header("content-type", "application/json").body(body))
    }

    /// With the credential that the installation calls so.
    pub fn credential(mut self, alias: &str) -> Self {
        self.0.credential = Some(alias.to_owned());
        self
    }

    /// Gives up earlier than the call's own deadline.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.0.timeout_ms = Some(u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX));
        self
    }

    /// Sends it. A response of any status is one.
    pub fn send(self) -> Result<Response, Error> {
        http::send(&self.0).map(|response| Response {
            status: response.status,
            headers: response.headers,
            body: response.body,
        })
    }
}

impl Response {
    /// A header, the first of its name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(&self.body)
            .map_err(|why| Failure::Tool(format!("the response is not understood: {why}")))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Tool(match error {
            Error::Denied(why) => format!("the request is not allowed: {why}"),
            Error::Invalid(why) => return Self::Broken(format!("the request is none: {why}")),
            Error::Timeout => "no response in time".to_owned(),
            Error::Connect(why) => format!("no connection: {why}"),
            Error::TooLarge => "the response is too large".to_owned(),
        })
    }
}
