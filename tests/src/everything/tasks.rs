//! The tools that become tasks (extension `io.modelcontextprotocol/tasks`).

use std::time::Duration;

use rmcp::{
    ErrorData, RoleServer,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ClientCapabilities, CreateTaskResult, InputRequest,
    },
    service::RequestContext,
    task_manager::{TaskContext, TaskExit, TaskOptions},
};
use serde_json::{Value, json};

use super::{
    ask::{Asked, ask, elicitation, required},
    handler::Everything,
    result, value,
};

/// How long the jobs work that end in an error.
const JOB: Duration = Duration::from_millis(300);

/// Whether the tool belongs here.
pub(super) fn is_task_tool(name: &str) -> bool {
    name == "greet" || name == "slow_compute" || name == "protocol_error_job" || needs_task(name)
}

/// Tools that cannot be served without a task.
fn needs_task(name: &str) -> bool {
    matches!(name, "failing_job" | "confirm_delete" | "multi_input" | "test_tool_with_task")
}

fn done(text: String, is_error: bool) -> Result<CallToolResult, ErrorData> {
    result(json!({"content": [{"type": "text", "text": text}], "isError": is_error}))
}

/// Runs one call.
pub(super) async fn call(
    server: &Everything,
    name: &str,
    request: &CallToolRequestParams,
    cx: &RequestContext<RoleServer>,
) -> Result<CallToolResponse, ErrorData> {
    let can_task = cx.client_capabilities().is_some_and(|c| c.supports_tasks());
    if needs_task(name) && !can_task {
        let needed = ClientCapabilities::builder().enable_tasks().build();
        return Err(ErrorData::missing_required_client_capability(needed));
    }
    let mut work = Work::new(name, request);
    if name == "test_tool_with_task" {
        let question = elicitation("What is your name?", json!({"name": {"type": "string"}}));
        let asked = ask(cx, request.input_responses.as_ref(), vec![("user_name", question)]).await?;
        match asked {
            Asked::Required(requests) => return Ok(required(requests, None).into()),
            Asked::Answers(answers) => work.arguments = answers["user_name"]["content"].clone(),
        }
    }
    if !can_task || name == "greet" {
        return work.run(None).await.map(Into::into).map_err(|exit| match exit {
            TaskExit::Error(error) => error,
            TaskExit::Cancelled => ErrorData::internal_error("cancelled", None),
        });
    }
    let task = server.shared.tasks.spawn(TaskOptions::default(), move |context| {
        Box::pin(async move {
            tokio::select! {
                () = context.cancelled() => Err(TaskExit::Cancelled),
                done = work.run(Some(&context)) => done,
            }
        })
    });
    Ok(CreateTaskResult::new(task).into())
}

/// What one call does, with or without a task around it.
struct Work {
    name: String,
    arguments: Value,
}

impl Work {
    fn new(name: &str, request: &CallToolRequestParams) -> Self {
        Self { name: name.to_owned(), arguments: json!(request.arguments) }
    }

    async fn run(&self, task: Option<&TaskContext>) -> Result<CallToolResult, TaskExit> {
        let argument = |key: &str| self.arguments[key].as_str().unwrap_or_default().to_owned();
        let outcome = match self.name.as_str() {
            "greet" => done(format!("Hello, {}!", argument("name")), false),
            "slow_compute" => {
                let seconds = self.arguments["seconds"].as_f64().unwrap_or(1.0).clamp(0.0, 60.0);
                tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
                done(format!("{} took {seconds} s", argument("label")), false)
            }
            "failing_job" => {
                tokio::time::sleep(JOB).await;
                done("the job failed, as it should".to_owned(), true)
            }
            "protocol_error_job" => {
                tokio::time::sleep(JOB).await;
                Err(ErrorData::internal_error("the job broke, as it should", None))
            }
            "confirm_delete" => {
                let message = format!("Delete {}?", argument("filename"));
                let answer = input(task, "confirm", &message, "confirm", "boolean").await?;
                done(format!("confirmed: {}", answer["content"]["confirm"]), false)
            }
            "multi_input" => {
                let (a, b) = tokio::join!(
                    input(task, "input-a", "Provide A", "value", "string"),
                    input(task, "input-b", "Provide B", "value", "string"),
                );
                done(format!("{} {}", a?["content"]["value"], b?["content"]["value"]), false)
            }
            _ => done(format!("the task of {} is done", argument("name")), false),
        };
        outcome.map_err(TaskExit::Error)
    }
}

async fn input(
    task: Option<&TaskContext>,
    key: &str,
    message: &str,
    property: &str,
    kind: &str,
) -> Result<Value, TaskExit> {
    let Some(task) = task else {
        return Err(TaskExit::Error(ErrorData::internal_error("only a task can ask", None)));
    };
    let question: InputRequest =
        value(elicitation(message, json!({property: {"type": kind}}))).map_err(TaskExit::Error)?;
    task.request_input(key, question).await
}
