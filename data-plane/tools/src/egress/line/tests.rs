use std::{
    io,
    sync::atomic::{AtomicBool, AtomicUsize},
};

use provost_types::BoxFuture;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::oneshot,
    task::coop::{has_budget_remaining, poll_proceed},
};

use super::*;

/// Every name has this address.
struct Fixed(IpAddr);

impl Lookup for Fixed {
    fn lookup(&self, _: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        let found = vec![self.0];
        Box::pin(async move { Ok(found) })
    }
}

fn line_to(url: &str, address: &str) -> Option<Arc<Line>> {
    let rule = Arc::new(EgressRule::public());
    let lookup: Arc<dyn Lookup> = Arc::new(Fixed(address.parse().unwrap()));
    Line::new(&rule.check(url).unwrap(), &rule, &lookup)
}

async fn listening() -> (TcpListener, Arc<Line>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let line = line_to(&format!("http://localhost:{port}/mcp?key=k"), "127.0.0.1").unwrap();
    (listener, line)
}

/// Reads one request, which ends in `{}`.
async fn request(stream: &mut TcpStream) -> String {
    let mut read = Vec::new();
    while !read.ends_with(b"{}") {
        assert_ne!(stream.read_buf(&mut read).await.unwrap(), 0, "{}", String::from_utf8_lossy(&read));
    }
    String::from_utf8(read).unwrap()
}

async fn whole(mut body: LineBody) -> Result<Vec<u8>, LineFault> {
    let mut all = Vec::new();
    while let Some(chunk) = body.chunk().await? {
        all.extend_from_slice(&chunk);
    }
    Ok(all)
}

async fn post(line: &Arc<Line>) -> Result<Vec<u8>, LineFault> {
    let (_, _, body) = line.post(HeaderMap::new(), Bytes::from_static(b"{}")).await?;
    whole(body).await
}

#[tokio::test]
async fn one_connection_carries_one_request_after_the_other() {
    let (listener, line) = listening().await;
    let port = line.port;
    let served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut heads = Vec::new();
        for body in ["one", "", "three"] {
            heads.push(request(&mut stream).await);
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nx-of: us\r\n\r\n{body}", body.len());
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        (stream, heads)
    });
    let mut headers = HeaderMap::new();
    headers.insert("mcp-method", HeaderValue::from_static("tools/call"));
    for expect in ["one", "", "three"] {
        let (status, head, body) = line.post(headers.clone(), Bytes::from_static(b"{}")).await.unwrap();
        assert_eq!((status, head.get("x-of").map(HeaderValue::as_bytes)), (StatusCode::OK, Some(&b"us"[..])));
        assert_eq!(whole(body).await.unwrap(), expect.as_bytes());
        assert_eq!(line.idle.lock().wires.len(), 1, "{expect}");
    }
    let (_stream, heads) = served.await.unwrap();
    for head in heads {
        let head = head.to_ascii_lowercase();
        assert!(head.starts_with("post /mcp?key=k http/1.1\r\n"), "{head}");
        let host = format!("\r\nhost: localhost:{port}\r\n");
        for part in [host.as_str(), "\r\nmcp-method: tools/call\r\n", "\r\ncontent-length: 2\r\n"] {
            assert_eq!(head.matches(part).count(), 1, "{part}: {head}");
        }
    }
}

#[tokio::test]
async fn an_answer_comes_piece_by_piece_and_the_connection_is_used_again() {
    let (listener, line) = listening().await;
    let (heard, told) = oneshot::channel();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n").await.unwrap();
        // The second piece leaves only when the first was read.
        told.await.unwrap();
        stream.write_all(b"3\r\ntwo\r\n0\r\n\r\n").await.unwrap();
        request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nthree").await.unwrap();
    });
    let (_, _, mut body) = line.post(HeaderMap::new(), Bytes::from_static(b"{}")).await.unwrap();
    assert_eq!(body.length(), None);
    assert_eq!(body.chunk().await.unwrap().as_deref(), Some(&b"one"[..]));
    heard.send(()).unwrap();
    assert_eq!(whole(body).await.unwrap(), b"two");
    assert_eq!(post(&line).await.unwrap(), b"three");
}

/// Does this with no more than so many steps in each turn of its task.
async fn in_turns_of<F: Future>(steps: usize, work: F) -> F::Output {
    let mut work = pin!(work);
    poll_fn(|cx| {
        let mut taken = Vec::new();
        while has_budget_remaining()
            && let Poll::Ready(step) = poll_proceed(&mut quiet())
        {
            taken.push(step);
        }
        // What is dropped can be done again: the last first.
        for _ in 0..steps {
            drop(taken.pop());
        }
        work.as_mut().poll(cx)
    })
    .await
}

#[tokio::test]
async fn an_answer_is_taken_by_a_task_that_has_used_up_its_turn() {
    // Wherever the turn ends.
    for steps in 1..=8 {
        let (listener, line) = listening().await;
        let (heard, told) = oneshot::channel();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            request(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\none").await.unwrap();
            // The rest leaves only when its head was read: nothing else wakes who waits for it.
            told.await.unwrap();
            stream.write_all(b"two").await.unwrap();
        });
        let asked = in_turns_of(steps, line.post(HeaderMap::new(), Bytes::from_static(b"{}")));
        let answer = tokio::time::timeout(Duration::from_secs(10), asked).await;
        let (_, _, body) = answer.unwrap_or_else(|_| panic!("nobody came back in turns of {steps}")).unwrap();
        heard.send(()).unwrap();
        assert_eq!(in_turns_of(steps, whole(body)).await.unwrap(), b"onetwo");
    }
}

/// Counts how often a task wakes itself while it runs.
#[derive(Default)]
struct SelfWakes {
    task: AtomicWaker,
    is_running: AtomicBool,
    count: AtomicUsize,
}

impl Wake for SelfWakes {
    fn wake(self: Arc<Self>) {
        if self.is_running.load(Ordering::SeqCst) {
            self.count.fetch_add(1, Ordering::SeqCst);
        }
        self.task.wake();
    }
}

#[tokio::test]
async fn who_reads_an_answer_does_not_wake_itself() {
    let (listener, line) = listening().await;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        for _ in 0..2 {
            request(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\none").await.unwrap();
        }
        // Until the client has gone.
        let _ = stream.read(&mut [0]).await;
    });
    assert_eq!(post(&line).await.unwrap(), b"one");
    let wakes = Arc::new(SelfWakes::default());
    let waker = Waker::from(wakes.clone());
    let mut asked = pin!(post(&line));
    let answer = poll_fn(|cx| {
        wakes.task.register(cx.waker());
        wakes.is_running.store(true, Ordering::SeqCst);
        let polled = asked.as_mut().poll(&mut Context::from_waker(&waker));
        wakes.is_running.store(false, Ordering::SeqCst);
        polled
    });
    assert_eq!(answer.await.unwrap(), b"one");
    assert_eq!(wakes.count.load(Ordering::SeqCst), 0);
}

#[test]
fn a_bell_that_is_muted_says_what_it_missed() {
    let bell = Arc::new(Bell::default());
    let wakes = Arc::new(SelfWakes::default());
    wakes.is_running.store(true, Ordering::SeqCst);
    let waker = Waker::from(wakes.clone());
    let woken = || wakes.count.swap(0, Ordering::SeqCst);
    bell.task.register(&waker);
    assert_eq!(bell.muted(|| ()), ((), false));
    assert_eq!((bell.muted(|| Waker::from(bell.clone()).wake()), woken()), (((), true), 0));
    Waker::from(bell.clone()).wake();
    assert_eq!(woken(), 1);
}

#[tokio::test]
async fn who_drops_a_request_or_an_answer_closes_the_connection() {
    for head in ["", "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc"] {
        let (listener, line) = listening().await;
        let (asked, was_asked) = oneshot::channel();
        let served = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            request(&mut stream).await;
            stream.write_all(head.as_bytes()).await.unwrap();
            asked.send(()).unwrap();
            // A reset is an end, too: not all that was sent has been read.
            stream.read_u8().await.is_err()
        });
        let reading = async {
            let (_, _, mut body) = line.post(HeaderMap::new(), Bytes::from_static(b"{}")).await.unwrap();
            assert_eq!(body.chunk().await.unwrap().as_deref(), Some(&b"abc"[..]));
            body.chunk().await
        };
        tokio::select! {
            ended = reading => panic!("{ended:?}"),
            asked = was_asked => asked.unwrap(),
        }
        assert!(served.await.unwrap());
        assert!(line.idle.lock().wires.is_empty());
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_no_answer_and_nothing_is_asked_again() {
    for head in ["HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc", "HTTP/1.1 200", ""] {
        let (listener, line) = listening().await;
        let served = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            request(&mut stream).await;
            stream.write_all(head.as_bytes()).await.unwrap();
            listener
        });
        let broken = post(&line).await.unwrap_err();
        assert!(matches!(broken, LineFault::Broken(_)), "{head}: {broken:?}");
        // Nobody else waits to be accepted.
        let own = TcpStream::connect(("127.0.0.1", line.port)).await.unwrap();
        let (_, from) = served.await.unwrap().accept().await.unwrap();
        assert_eq!(from, own.local_addr().unwrap(), "{head}");
    }
}

#[tokio::test]
async fn a_connection_that_was_closed_while_idle_costs_no_request() {
    let (listener, line) = listening().await;
    let served = tokio::spawn(async move {
        for body in ["one", "two"] {
            let (mut stream, _) = listener.accept().await.unwrap();
            request(&mut stream).await;
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{body}");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    assert_eq!(post(&line).await.unwrap(), b"one");
    // Until its end has come.
    poll_fn(|cx| {
        // It may have come with the answer, and then nothing was kept.
        match line.idle.lock().wires.first_mut() {
            Some((wire, _)) => {
                wire.drive(cx);
                if wire.is_over() { Poll::Ready(()) } else { Poll::Pending }
            }
            None => Poll::Ready(()),
        }
    })
    .await;
    assert_eq!(post(&line).await.unwrap(), b"two");
    served.await.unwrap();
    assert!(line.idle.lock().wires.len() <= 1);
}

#[tokio::test]
async fn a_request_that_finds_its_connection_closed_is_given_back() {
    let (listener, line) = listening().await;
    let stream = TcpStream::connect(("127.0.0.1", line.port)).await.unwrap();
    drop(listener.accept().await.unwrap());
    // The end is there, and nobody has read it.
    stream.readable().await.unwrap();
    let mut wire = Wire::over(stream).await.unwrap();
    let Unanswered { unsent, .. } = wire.send(Request::new(Full::default())).await.err().unwrap();
    assert!(unsent.is_some() && wire.is_over());
}

#[tokio::test]
async fn what_came_unasked_is_nobodys_answer() {
    let (listener, line) = listening().await;
    let stream = TcpStream::connect(("127.0.0.1", line.port)).await.unwrap();
    let (mut other, _) = listener.accept().await.unwrap();
    other.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nstray").await.unwrap();
    stream.readable().await.unwrap();
    let mut wire = Wire::over(stream).await.unwrap();
    let Unanswered { unsent, .. } = wire.send(Request::new(Full::default())).await.err().unwrap();
    assert!(unsent.is_some() && wire.is_over());
    // With the answer to another request.
    let served = tokio::spawn(async move {
        for body in ["one", ""] {
            let (mut stream, _) = listener.accept().await.unwrap();
            request(&mut stream).await;
            let own = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            stream
                .write_all(format!("{own}HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nstray").as_bytes())
                .await
                .unwrap();
            // Until the client has gone: a second request would come here.
            assert!(matches!(stream.read(&mut [0]).await, Ok(0) | Err(_)));
        }
    });
    for body in ["one", ""] {
        assert_eq!(post(&line).await.unwrap(), body.as_bytes());
        assert!(line.idle.lock().wires.is_empty());
    }
    served.await.unwrap();
}

#[tokio::test]
async fn what_is_idle_for_too_long_is_closed_and_the_look_ends() {
    let (listener, line) = listening().await;
    let served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\none").await.unwrap();
        stream.read(&mut [0]).await
    });
    assert_eq!(post(&line).await.unwrap(), b"one");
    let now = Instant::now();
    assert!(line.look_over(now));
    assert!(!line.look_over(now + IDLE_TIMEOUT));
    assert!(line.take().is_none());
    assert_eq!(served.await.unwrap().unwrap(), 0);
}

#[tokio::test]
async fn only_addresses_that_are_let_through_are_connected_to() {
    let refused = post(&line_to("http://localhost:1/", "10.0.0.1").unwrap()).await.unwrap_err();
    assert!(matches!(refused, LineFault::Refused(_)), "{refused:?}");
    // Nobody listens.
    let (listener, line) = listening().await;
    drop(listener);
    let absent = post(&line).await.unwrap_err();
    assert!(matches!(absent, LineFault::Unreachable(_)), "{absent:?}");
    assert!(line_to("https://example.com/mcp", "1.1.1.1").is_none());
}
