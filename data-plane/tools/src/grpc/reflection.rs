//! Descriptors by server reflection (`grpc.reflection.v1`, or `v1alpha` where that is all there is).
//!
//! Purpose: the files of a service's descriptors, and of all that they import. Servers give the imports with a file or
//! wait to be asked for them; both is read.
//! Invariants: questions, rounds, files and bytes are bounded; nothing of an answer says where anything is asked.

use std::{collections::BTreeSet, time::Instant};

use bytes::Bytes;
use http::HeaderValue;
use prost::{Message, Oneof};

use super::{
    descriptors::{Files, MAX_BYTES, MAX_FILES},
    frame::written,
    line::{Asked, Line, Take},
};
use crate::{UpstreamError, redact::Redactor, trace_headers::TraceHeaders};

/// In the order in which they are tried.
const PATHS: [&str; 2] = [
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];
/// Services that a server may list.
const MAX_SERVICES: usize = 256;
/// Questions of one call.
const MAX_QUESTIONS: usize = 256;
/// How often imports of imports are asked for.
const MAX_ROUNDS: usize = 32;

/// `ServerReflectionRequest`; both versions have the same form.
#[derive(Clone, PartialEq, Message)]
struct Request {
    #[prost(oneof = "Question", tags = "3, 4, 7")]
    question: Option<Question>,
}

#[derive(Clone, PartialEq, Oneof)]
enum Question {
    #[prost(string, tag = "3")]
    File(String),
    #[prost(string, tag = "4")]
    Symbol(String),
    #[prost(string, tag = "7")]
    Services(String),
}

/// `ServerReflectionResponse`.
#[derive(Clone, PartialEq, Message)]
struct Response {
    #[prost(oneof = "Told", tags = "4, 6, 7")]
    told: Option<Told>,
}

#[derive(Clone, PartialEq, Oneof)]
enum Told {
    #[prost(message, tag = "4")]
    Files(ToldFiles),
    #[prost(message, tag = "6")]
    Services(ToldServices),
    #[prost(message, tag = "7")]
    Refused(Refused),
}

#[derive(Clone, PartialEq, Message)]
struct ToldFiles {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    files: Vec<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
struct ToldServices {
    #[prost(message, repeated, tag = "1")]
    services: Vec<ToldService>,
}

#[derive(Clone, PartialEq, Message)]
struct ToldService {
    #[prost(string, tag = "1")]
    name: String,
}

/// What a service says of a question that it cannot answer; its text is of no use here.
#[derive(Clone, PartialEq, Message)]
struct Refused {
    #[prost(int32, tag = "1")]
    code: i32,
}

/// Who asks.
pub(super) struct Asker<'a> {
    pub(super) line: &'a Line,
    pub(super) token: Option<&'a HeaderValue>,
    pub(super) redactor: &'a Redactor,
    pub(super) deadline: Instant,
}

impl Asker<'_> {
    /// The files of these services. `wanted` chooses among those that the server lists; `named` are asked for as they are,
    /// without a list, if there are any.
    pub(super) async fn files(
        &self,
        named: &BTreeSet<String>,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<Files, UpstreamError> {
        let (path, services) = self.services().await?;
        let services: Vec<String> = match named.is_empty() {
            true => services.into_iter().filter(|name| wanted(name)).collect(),
            false => named.iter().cloned().collect(),
        };
        let mut files = Files::default();
        self.add(path, services.into_iter().map(Question::Symbol).collect(), &mut files).await?;
        let mut asked = BTreeSet::new();
        for _ in 0..MAX_ROUNDS {
            let missing: Vec<String> = files.missing().into_iter().filter(|name| !asked.contains(name)).collect();
            if missing.is_empty() {
                break;
            }
            asked.extend(missing.iter().cloned());
            self.add(path, missing.into_iter().map(Question::File).collect(), &mut files).await?;
        }
        Ok(files)
    }

    /// Which version the server speaks, and its services.
    async fn services(&self) -> Result<(&'static str, Vec<String>), UpstreamError> {
        for path in PATHS {
            let Some(told) = self.ask(path, vec![Question::Services(String::new())]).await? else { continue };
            let mut names = Vec::new();
            for response in told {
                if let Some(Told::Services(list)) = response.told {
                    names.extend(list.services.into_iter().map(|service| service.name));
                }
            }
            if names.len() > MAX_SERVICES {
                tracing::warn!(services = names.len(), taken = MAX_SERVICES, "a server lists too many gRPC services");
                names.truncate(MAX_SERVICES);
            }
            return Ok((path, names));
        }
        let cause = "it has no server reflection; give the plugin's `descriptor`";
        Err(UpstreamError::Garbage(cause.to_owned()))
    }

    /// Asks, and keeps the files that come.
    async fn add(
        &self,
        path: &'static str,
        mut questions: Vec<Question>,
        files: &mut Files,
    ) -> Result<(), UpstreamError> {
        while !questions.is_empty() {
            let rest = questions.split_off(questions.len().min(MAX_QUESTIONS));
            let told = self.ask(path, std::mem::replace(&mut questions, rest)).await?;
            for response in told.unwrap_or_default() {
                // What is refused is missing later, and the log says what that costs.
                if let Some(Told::Files(told)) = response.told {
                    for file in told.files.into_iter().take(MAX_FILES) {
                        files.add(file)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Asks; `None`: the server does not know this version.
    async fn ask(&self, path: &str, questions: Vec<Question>) -> Result<Option<Vec<Response>>, UpstreamError> {
        let take = Take::All(questions.len());
        let requests: Vec<Vec<u8>> =
            questions.into_iter().map(|question| Request { question: Some(question) }.encode_to_vec()).collect();
        let body = written(requests.iter().map(Vec::as_slice))?;
        let asked = Asked {
            path,
            body,
            token: self.token,
            deadline: self.deadline,
            take,
            max_bytes: MAX_BYTES,
            trace: TraceHeaders::default(),
        };
        let answer = match self.line.ask(asked).await {
            // So say servers whose router knows paths and not gRPC.
            Err(UpstreamError::Http { status: 404, .. }) => return Ok(None),
            answer => answer?,
        };
        if answer.status.is_unimplemented() {
            return Ok(None);
        }
        if !answer.status.is_ok() {
            let told = || UpstreamError::Garbage(format!("reflection ended: {}", answer.status.brief(self.redactor)));
            return Err(answer.status.failure(self.redactor).unwrap_or_else(told));
        }
        let read = |bytes: Bytes| Response::decode(bytes);
        let told: Result<Vec<Response>, _> = answer.messages.into_iter().map(read).collect();
        let told = told.map_err(|_| UpstreamError::Garbage("its reflection cannot be read".to_owned()))?;
        Ok(Some(told))
    }
}
