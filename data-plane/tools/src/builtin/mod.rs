//! The built-ins: tools that are part of Provost.

mod echo;
mod inference;
mod time;
mod under_way;

use std::{collections::BTreeMap, sync::Arc};

use provost_data_pipeline::{ClientLink, Execution, Operation, Usage};
use provost_mcp::{RawJson, RawObject, RpcError};
use provost_types::Inference;
use serde_json::{Map, Value, json};

use crate::{Definition, Definitions, ExecuteRequest, UpstreamError, sql::SqlPlugin};
use under_way::UnderWay;

/// What a tool of a built-in gives: the tool result, and what it used.
struct Outcome {
    result: Value,
    usage: Usage,
}

impl Outcome {
    /// A structured result, with the same as text for clients that know no structure.
    fn structured(structured: Value) -> Self {
        let text = structured.to_string();
        let result = json!({
            "content": [{"type": "text", "text": text}],
            "structuredContent": structured,
        });
        Self { result, usage: Usage::default() }
    }

    /// A plain text.
    fn text(text: &str) -> Self {
        let result = json!({"content": [{"type": "text", "text": text}]});
        Self { result, usage: Usage::default() }
    }

    /// A failure for the model to read.
    fn failure(text: impl Into<String>) -> Self {
        let result = json!({"content": [{"type": "text", "text": text.into()}], "isError": true});
        Self { result, usage: Usage::default() }
    }
}

/// One built-in.
pub(crate) struct Builtin {
    which: Which,
    tools: Definitions,
}

enum Which {
    Echo,
    Time,
    Sql(Box<SqlPlugin>),
    Inference(Arc<dyn Inference>),
}

impl Builtin {
    /// Makes the built-in of this name with these settings.
    pub(crate) fn new(
        name: &str,
        config: &BTreeMap<String, String>,
        inference: &Arc<dyn Inference>,
    ) -> Result<Self, UpstreamError> {
        let which = match name {
            "echo" => Which::Echo,
            "time" => Which::Time,
            "inference" => Which::Inference(inference.clone()),
            "sql" => {
                let sql = SqlPlugin::open(config);
                Which::Sql(Box::new(sql.map_err(|cause| UpstreamError::Config(cause.to_string()))?))
            }
            other => {
                return Err(UpstreamError::Config(format!(
                    "there is no built-in `{other}`; there are echo, time, sql and inference"
                )));
            }
        };
        if !matches!(which, Which::Sql(_))
            && let Some(key) = config.keys().next()
        {
            return Err(UpstreamError::Config(format!("`{name}` has no setting `{key}`")));
        }
        let tools = match &which {
            Which::Echo => echo::tools(),
            Which::Time => time::tools(),
            Which::Sql(sql) => sql.tools(),
            Which::Inference(_) => inference::tools(),
        };
        let tools = tools.into_iter().map(|tool| Definition {
            name: tool["name"].as_str().unwrap_or_default().to_owned(),
            raw: RawJson::from(tool),
        });
        Ok(Self { tools: Arc::new(tools.collect()), which })
    }

    pub(crate) fn tools(&self) -> Definitions {
        self.tools.clone()
    }

    /// The `sql` built-in, for its facts.
    pub(crate) fn sql(&self) -> Option<&SqlPlugin> {
        match &self.which {
            Which::Sql(sql) => Some(sql),
            _ => None,
        }
    }

    pub(crate) async fn execute(
        &self,
        request: &ExecuteRequest<'_>,
        link: &dyn ClientLink,
    ) -> Result<Execution, UpstreamError> {
        let Operation::CallTool(tool) = &request.operation else {
            return Err(UpstreamError::Unsupported(request.operation.method().to_owned()));
        };
        if self.tools.named(tool).is_none() {
            let message = format!("there is no tool `{tool}`");
            return Err(UpstreamError::Rpc(RpcError::new(RpcError::INVALID_PARAMS, message)));
        }
        let arguments = arguments(&request.params)?;
        let deadline: tokio::time::Instant = request.deadline.into();
        let under_way = UnderWay::default();
        let call = self.call(request.principal.tenant.as_str(), tool, &arguments, &under_way);
        let done = tokio::select! {
            biased;
            () = link.cancelled() => None,
            done = tokio::time::timeout_at(deadline, call) => Some(done),
        };
        let broken_off = |execution: Execution| Execution { usage: under_way.usage(&request.params), ..execution };
        match done {
            None => Ok(broken_off(Execution::cancelled())),
            Some(Err(_)) if under_way.usage(&request.params) == Usage::default() => Err(UpstreamError::Deadline),
            Some(Err(_)) => Ok(broken_off(Execution::error(UpstreamError::Deadline.to_rpc("inference")))),
            Some(Ok(Outcome { result, usage })) => {
                let is_error = result["isError"] == true;
                let execution = Execution::result(RawJson::from(result), is_error);
                Ok(if is_error { broken_off(execution) } else { Execution { usage, ..execution } })
            }
        }
    }

    async fn call(&self, tenant: &str, tool: &str, arguments: &Map<String, Value>, under_way: &UnderWay) -> Outcome {
        match &self.which {
            Which::Echo => echo::call(arguments),
            Which::Time => time::call(tool, arguments),
            Which::Inference(inference) => inference::call(&**inference, tenant, tool, arguments, under_way).await,
            Which::Sql(sql) => match sql.call(tool, arguments).await {
                Ok(result) => {
                    let rows = result["structuredContent"]["rowCount"].as_u64().unwrap_or(0);
                    Outcome { result, usage: Usage { rows, ..Usage::default() } }
                }
                Err(cause) => Outcome { result: cause.to_tool_result(), usage: Usage::default() },
            },
        }
    }
}

fn arguments(params: &RawJson) -> Result<Map<String, Value>, UpstreamError> {
    let given = RawObject::parse(params)?.get("arguments");
    given.map_or(Ok(Map::new()), |raw| {
        raw.parse().map_err(|_| {
            let message = "`arguments` must be an object";
            UpstreamError::Rpc(RpcError::new(RpcError::INVALID_PARAMS, message))
        })
    })
}
