//! A watch channel that wakes its receivers in the order in which they began to wait. Tokio's
//! wakes them in random order, and the seed does not reach that randomness.

use std::{
    future::poll_fn,
    sync::{Arc, Mutex, RwLock, RwLockReadGuard},
    task::{Poll, Waker},
};

use openraft_rt::watch::{RecvError, SendError, Watch, WatchReceiver, WatchSender};

struct Channel<T> {
    /// Before `state` when both are locked.
    value: RwLock<T>,
    state: Mutex<State>,
}

struct State {
    version: u64,
    senders: usize,
    receivers: usize,
    wakers: Vec<Waker>,
}

impl<T> Channel<T> {
    fn wake(state: &mut State) {
        for waker in state.wakers.drain(..) {
            waker.wake();
        }
    }
}

pub(crate) struct Sender<T>(Arc<Channel<T>>);

pub(crate) struct Receiver<T> {
    channel: Arc<Channel<T>>,
    seen: u64,
}

#[derive(Debug)]
pub(crate) struct OrderedWatch;

impl Watch for OrderedWatch {
    type Sender<T: Send + Sync> = Sender<T>;
    type Receiver<T: Send + Sync> = Receiver<T>;
    type Ref<'a, T: Send + 'a> = RwLockReadGuard<'a, T>;

    fn channel<T: Send + Sync>(init: T) -> (Sender<T>, Receiver<T>) {
        let state = State { version: 0, senders: 1, receivers: 1, wakers: Vec::new() };
        let channel = Arc::new(Channel { value: RwLock::new(init), state: Mutex::new(state) });
        (Sender(channel.clone()), Receiver { channel, seen: 0 })
    }
}

impl<T: Send + Sync> WatchSender<OrderedWatch, T> for Sender<T> {
    fn send(&self, value: T) -> Result<(), SendError<T>> {
        if self.0.state.lock().unwrap().receivers == 0 {
            return Err(SendError(value));
        }
        self.send_if_modified(|current| {
            *current = value;
            true
        });
        Ok(())
    }

    fn send_if_modified<F: FnOnce(&mut T) -> bool>(&self, modify: F) -> bool {
        let mut value = self.0.value.write().unwrap();
        let modified = modify(&mut value);
        if modified {
            let mut state = self.0.state.lock().unwrap();
            state.version += 1;
            drop(value);
            Channel::<T>::wake(&mut state);
        }
        modified
    }

    fn borrow_watched(&self) -> RwLockReadGuard<'_, T> {
        self.0.value.read().unwrap()
    }

    fn subscribe(&self) -> Receiver<T> {
        let mut state = self.0.state.lock().unwrap();
        state.receivers += 1;
        Receiver { channel: self.0.clone(), seen: state.version }
    }
}

impl<T: Send + Sync> WatchReceiver<OrderedWatch, T> for Receiver<T> {
    async fn changed(&mut self) -> Result<(), RecvError> {
        let Self { channel, seen } = self;
        poll_fn(|context| {
            let mut state = channel.state.lock().unwrap();
            if state.version != *seen {
                *seen = state.version;
                return Poll::Ready(Ok(()));
            }
            if state.senders == 0 {
                return Poll::Ready(Err(RecvError(())));
            }
            if !state.wakers.iter().any(|waker| waker.will_wake(context.waker())) {
                state.wakers.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await
    }

    fn borrow_watched(&self) -> RwLockReadGuard<'_, T> {
        self.channel.value.read().unwrap()
    }

    fn borrow_and_update(&mut self) -> RwLockReadGuard<'_, T> {
        let value = self.channel.value.read().unwrap();
        self.seen = self.channel.state.lock().unwrap().version;
        value
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.state.lock().unwrap().senders += 1;
        Self(self.0.clone())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock().unwrap();
        state.senders -= 1;
        if state.senders == 0 {
            Channel::<T>::wake(&mut state);
        }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        self.channel.state.lock().unwrap().receivers += 1;
        Self { channel: self.channel.clone(), seen: self.seen }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.channel.state.lock().unwrap().receivers -= 1;
    }
}
