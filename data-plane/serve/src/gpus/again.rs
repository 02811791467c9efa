//! How often requests of one call were sent to a GPU node again, for the call's record.
//!
//! A model is asked behind a port that says nothing of nodes, by the API or deep within a tool. What is asked for a call is asked
//! within its future, so the count belongs to that.

use std::cell::Cell;

tokio::task_local! {
    static AGAIN: Cell<u32>;
}

/// Runs a call to its end, and says how often a request of it was sent again.
pub(crate) async fn counted<T>(call: impl Future<Output = T>) -> (T, u32) {
    let counting = async {
        let done = call.await;
        (done, AGAIN.with(Cell::get))
    };
    AGAIN.scope(Cell::new(0), counting).await
}

/// A request is sent again. Outside of a call, as for the making of an index, nobody counts.
pub(crate) fn note() {
    // The only failure is that nobody counts.
    let _ = AGAIN.try_with(|again| again.set(again.get().saturating_add(1)));
}
