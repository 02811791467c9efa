//! Reading descriptors without keeping calls waiting: large ones take a good part of a second, and up to seconds.

use tokio::runtime::{Handle, RuntimeFlavor};

use super::{
    catalogue::{Catalogue, Filter},
    descriptors::{Files, caught},
};

/// Characters of a descriptor in a document from which on it is large.
const LARGE_CHARS: usize = 32 << 10;

/// What files that a server gave describe; `None`: they cannot be used. On a thread that serves no calls.
pub(super) async fn of_files(files: Files, filter: &Filter, max_tools: usize) -> Option<Catalogue> {
    let filter = filter.clone();
    let read = move || caught(|| Catalogue::read(files, &filter, max_tools));
    tokio::task::spawn_blocking(read).await.ok().flatten()
}

/// Does what a descriptor of a document needs. Of a large one the tasks of this thread go on elsewhere meanwhile, where
/// the runtime has other threads.
pub(super) fn of_document<T>(descriptor: &str, work: impl FnOnce() -> T) -> T {
    let has_others = || Handle::try_current().is_ok_and(|now| now.runtime_flavor() == RuntimeFlavor::MultiThread);
    if descriptor.len() >= LARGE_CHARS && has_others() { tokio::task::block_in_place(work) } else { work() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn others_go_on_while_a_large_descriptor_is_read() {
        let large = "A".repeat(LARGE_CHARS);
        let (sender, receiver) = std::sync::mpsc::channel();
        let done = tokio::spawn(async move {
            // The only thread is this one: the other task runs while it waits, or never.
            tokio::spawn(async move { sender.send(7).unwrap() });
            of_document(&large, || receiver.recv_timeout(Duration::from_secs(60)))
        });
        assert_eq!(done.await.unwrap(), Ok(7));
    }

    #[tokio::test]
    async fn it_is_read_where_there_is_one_thread_only() {
        assert_eq!(of_document(&"A".repeat(LARGE_CHARS), || 7), 7);
    }

    #[test]
    fn it_is_read_without_a_runtime() {
        assert_eq!(of_document(&"A".repeat(LARGE_CHARS), || 7), 7);
        assert_eq!(of_document("A", || 7), 7);
    }
}
