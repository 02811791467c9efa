//! What is bound to one of several endpoints: tasks, and questions that wait for an answer.
//!
//! What a client carries back names the endpoint that gave it: `~N.` before a task's id, `provost-at-N-` before an
//! upstream's `requestState`. Only plugins with several endpoints mark, and they mark everything.

use provost_data_pipeline::Operation;
use provost_mcp::{RawJson, RawObject};

use crate::ExecuteRequest;

/// Before a state.
const STATE: &str = "provost-at-";

/// The endpoint that a request is for, and the request as that endpoint knows it.
pub(super) struct Bound<'a> {
    pub(super) endpoint: usize,
    /// It lives there and nowhere else.
    pub(super) is_only_there: bool,
    pub(super) request: ExecuteRequest<'a>,
}

/// What the request is bound to; `None`: nothing.
pub(super) fn unbind<'a>(request: &ExecuteRequest<'a>) -> Option<Bound<'a>> {
    if let Operation::Task { task, .. } = &request.operation {
        let (number, id) = task.strip_prefix('~')?.split_once('.')?;
        let (endpoint, id) = (number.parse().ok()?, id.to_owned());
        let mut request = request.clone();
        if let Operation::Task { task, .. } = &mut request.operation {
            *task = id;
        }
        return Some(Bound { endpoint, is_only_there: true, request });
    }
    // Looked for as text first: hardly any request has one.
    memchr::memmem::find(request.params.as_bytes(), STATE.as_bytes())?;
    let mut params = RawObject::parse(&request.params).ok()?;
    let marked = params.get_text("requestState")?;
    let (number, state) = marked.strip_prefix(STATE)?.split_once('-')?;
    let endpoint = number.parse().ok()?;
    params.set_text("requestState", state);
    let request = ExecuteRequest { params: params.finish(), ..request.clone() };
    Some(Bound { endpoint, is_only_there: false, request })
}

/// The plugin's name before handles of tasks of this endpoint.
pub(super) fn task_prefix(plugin: &str, endpoint: usize) -> String {
    format!("{plugin}.~{endpoint}")
}

/// An `input_required` result whose state names its endpoint.
pub(super) fn bind_state(endpoint: usize, body: RawJson) -> RawJson {
    let Ok(mut object) = RawObject::parse(&body) else { return body };
    let Some(state) = object.get_text("requestState") else { return body };
    object.set_text("requestState", &format!("{STATE}{endpoint}-{state}"));
    object.finish()
}
