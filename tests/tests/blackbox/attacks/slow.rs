//! Clients that hold connections by sending next to nothing.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use super::{address, socket, still_serves, verdict};
use crate::harness::Dev;

/// The bounds are half a minute each; a busy machine needs some more.
const CLOSED_WITHIN: Duration = Duration::from_secs(110);
const DRIP_EVERY: Duration = Duration::from_millis(500);

/// Sends a byte now and then until the server has closed; how long that took, and what it said.
fn drip(mut stream: TcpStream, first: &[u8], drops: &[u8]) -> (Option<Duration>, String) {
    let began = Instant::now();
    stream.set_read_timeout(Some(DRIP_EVERY)).unwrap();
    let _ = stream.write_all(first);
    let (mut said, mut buffer) = (Vec::new(), [0; 4096]);
    let mut drops = drops.iter().cycle();
    while began.elapsed() < CLOSED_WITHIN {
        match stream.read(&mut buffer) {
            Ok(0) => return (Some(began.elapsed()), String::from_utf8_lossy(&said).into_owned()),
            Ok(n) => said.extend_from_slice(&buffer[..n]),
            Err(cause) if matches!(cause.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(_) => return (Some(began.elapsed()), String::from_utf8_lossy(&said).into_owned()),
        }
        if let Some(drop) = drops.next() {
            // A closed socket says so at the next read.
            let _ = stream.write_all(&[*drop]);
        }
    }
    (None, String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn connections_that_trickle_are_closed_and_others_are_served() {
    let dev = Dev::start(None, &[]);
    let head = format!("POST /mcp HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\n", address(&dev), dev.token());
    let with_body = format!("{head}content-type: application/json\r\ncontent-length: 100000\r\n\r\n{{");
    let chunked = format!("{head}content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{{\r\n");
    let table: Vec<(&str, Vec<u8>, &[u8])> = vec![
        ("nothing at all", Vec::new(), b""),
        ("one letter of a method", b"P".to_vec(), b""),
        ("the first half of HTTP/2's preface", b"PRI * HTTP/2.0".to_vec(), b""),
        ("a header that does not end", head.clone().into_bytes(), b"x"),
        ("headers that do not end", head.into_bytes(), b"a: b\r\n"),
        ("a body that trickles", with_body.into_bytes(), b" "),
        ("chunks that trickle", chunked.into_bytes(), b"1\r\n \r\n"),
        ("the first byte of TLS", b"\x16".to_vec(), b""),
        ("a TLS record that does not end", b"\x16\x03\x01\x40\x00".to_vec(), b"\x01"),
    ];
    let slow: Vec<_> = table
        .into_iter()
        .map(|(case, first, drops)| {
            let stream = socket(&dev);
            let drops = drops.to_vec();
            (case, std::thread::spawn(move || drip(stream, &first, &drops)))
        })
        .collect();
    // More of them than there are workers, and calls go on meanwhile.
    let crowd: Vec<TcpStream> = (0..200)
        .map(|_| {
            let mut stream = socket(&dev);
            let _ = stream.write_all(b"POST /mcp HTTP/1.1\r\nhost:");
            stream
        })
        .collect();
    for _ in 0..20 {
        let began = Instant::now();
        still_serves(&dev);
        assert!(began.elapsed() < Duration::from_secs(20), "others wait: {:?}", began.elapsed());
    }
    for (case, thread) in slow {
        let (closed, said) = thread.join().unwrap();
        let status = said.get(9..12).unwrap_or("without a word");
        verdict("slow", case, &closed.map_or("OPEN".to_owned(), |after| format!("closed after {after:.0?} {status}")));
        assert!(closed.is_some(), "{case} is still open: {said}");
    }
    drop(crowd);
    still_serves(&dev);
}
