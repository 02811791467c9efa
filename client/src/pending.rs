//! Requests of ours that wait for their answers.

use std::collections::HashMap;

use parking_lot::Mutex;
use provost_mcp::{RawJson, RequestId, RpcError};
use tokio::sync::oneshot;

use crate::{ClientError, LinkError};

/// How a request ended.
pub(crate) type Answer = Result<RawJson, ClientError>;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Pending(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    next: u64,
    waiting: HashMap<String, oneshot::Sender<Answer>>,
    /// Why nothing can be answered any more.
    ended: Option<LinkError>,
}

impl Pending {
    /// A new id and where its answer will come.
    pub(crate) fn register(&self) -> Result<(RequestId, oneshot::Receiver<Answer>), LinkError> {
        let mut state = self.0.lock();
        if let Some(error) = &state.ended {
            return Err(error.clone());
        }
        if state.waiting.len() >= crate::MAX_IN_FLIGHT {
            return Err(LinkError::Busy(crate::MAX_IN_FLIGHT));
        }
        state.next += 1;
        let id = RequestId(RawJson::from(serde_json::Value::from(state.next)));
        let (sender, receiver) = oneshot::channel();
        state.waiting.insert(id.as_str().to_owned(), sender);
        Ok((id, receiver))
    }

    /// Hands an answer over; one that nobody waits for is dropped.
    pub(crate) fn answer(&self, id: &RequestId, outcome: Result<RawJson, RpcError>) {
        self.settle(id, outcome.map_err(ClientError::Rpc));
    }

    /// A request that gets no answer.
    pub(crate) fn fail(&self, id: &RequestId, error: LinkError) {
        self.settle(id, Err(error.into()));
    }

    fn settle(&self, id: &RequestId, answer: Answer) {
        let waiting = self.0.lock().waiting.remove(id.as_str());
        if let Some(waiting) = waiting {
            let _ = waiting.send(answer);
        }
    }

    /// Whether it waited still.
    pub(crate) fn forget(&self, id: &RequestId) -> bool {
        self.0.lock().waiting.remove(id.as_str()).is_some()
    }

    /// Fails everything, now and later.
    pub(crate) fn end(&self, error: &LinkError) {
        let mut state = self.0.lock();
        state.ended.get_or_insert_with(|| error.clone());
        let all: Vec<_> = state.waiting.drain().collect();
        drop(state);
        for (_, waiting) in all {
            let _ = waiting.send(Err(error.clone().into()));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn each_answer_finds_its_request_and_the_end_fails_the_rest() {
        let pending = Pending::default();
        let (first, first_answer) = pending.register().unwrap();
        let (second, second_answer) = pending.register().unwrap();
        assert_ne!(first, second);
        pending.answer(&second, Ok(RawJson::EMPTY_OBJECT));
        pending.answer(&second, Ok(RawJson::NULL));
        assert_eq!(second_answer.await.unwrap(), Ok(RawJson::EMPTY_OBJECT));
        let lost = LinkError::Lost("x".into());
        pending.end(&lost);
        assert_eq!(first_answer.await.unwrap(), Err(ClientError::Link(lost.clone())));
        assert_eq!(pending.register().unwrap_err(), lost);
        assert!(!pending.forget(&first));
    }

    #[test]
    fn requests_in_flight_have_a_bound() {
        let pending = Pending::default();
        let held: Vec<_> = (0..crate::MAX_IN_FLIGHT).map(|_| pending.register().unwrap()).collect();
        assert_eq!(pending.register().unwrap_err(), LinkError::Busy(crate::MAX_IN_FLIGHT));
        assert!(pending.forget(&held[0].0));
        assert!(pending.register().is_ok());
    }
}
