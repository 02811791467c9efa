//! What an upstream asks of the client in the middle of a call.

use provost_data_pipeline::{ClientLink, Execution};
use provost_mcp::{RawJson, RawObject, RpcError};

/// Asks the client, if it can be asked, and makes the parameters of the next round.
pub(super) async fn ask(
    link: &dyn ClientLink,
    params: &RawJson,
    input_required: &RawJson,
) -> Option<Result<RawJson, Box<Execution>>> {
    let body = RawObject::parse(input_required).ok()?;
    let requests = body.get("inputRequests").unwrap_or(RawJson::EMPTY_OBJECT);
    let answering = link.ask(&requests)?;
    let responses = match answering.await {
        Ok(responses) => responses,
        Err(cause) => {
            let error = RpcError::with_code(
                RpcError::INTERNAL,
                "PV-CLIENT-INPUT",
                format!("{cause}, and the upstream cannot go on without"),
            );
            return Some(Err(Box::new(Execution::error(error))));
        }
    };
    let mut next = RawObject::parse(params).ok()?;
    next.set("inputResponses", responses);
    match body.get("requestState") {
        Some(state) => next.set("requestState", state),
        None => drop(next.remove("requestState")),
    }
    Some(Ok(next.finish()))
}
