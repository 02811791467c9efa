//! `provost health`: whether a process answers, for container engines and scripts where nothing else is installed.

use std::{process::ExitCode, time::Duration};

use clap::Args;
use http::Uri;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::failure::{Failure, Usage};

/// Connecting, asking and the answer's first line take so long at most: less than engines wait.
const LIMIT: Duration = Duration::from_secs(4);
/// The first line of an answer is shorter.
const MAX_LINE_BYTES: u64 = 256;

#[derive(Args)]
pub struct HealthArgs {
    /// What to ask: `http://HOST:PORT/PATH`. `/readyz` at a data plane's address for agents or, of any node, where its
    /// metrics are.
    #[arg(long, env = "PROVOST_HEALTH_URL", default_value = "http://127.0.0.1:8420/readyz")]
    url: String,
}

/// Success where the answer's status is 200.
pub async fn run(args: HealthArgs) -> anyhow::Result<ExitCode> {
    let (host, path) = place(&args.url).ok_or_else(|| {
        let text = format!("`{}` is not an address that can be asked", args.url);
        Usage(Failure::new("PV-CLI-HEALTH", text, "write http://HOST:PORT/PATH"))
    })?;
    let said = match tokio::time::timeout(LIMIT, ask(&host, &path)).await {
        Ok(Ok(line)) if status(&line) == Some(200) => return Ok(ExitCode::SUCCESS),
        Ok(Ok(line)) => format!("answers `{}`", line.trim()),
        Ok(Err(cause)) => format!("does not answer: {cause}"),
        Err(_) => format!("does not answer within {} s", LIMIT.as_secs()),
    };
    let text = format!("{} {said}", args.url);
    Err(Failure::new("PV-CLI-HEALTH", text, "the node's log says why it is not ready").into())
}

/// `HOST:PORT` and the path.
fn place(url: &str) -> Option<(String, String)> {
    let url: Uri = url.parse().ok().filter(|url: &Uri| url.scheme_str() == Some("http"))?;
    let authority = url.authority()?;
    if authority.as_str().contains('@') {
        return None;
    }
    let host = format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80));
    Some((host, url.path_and_query().map_or("/", |path| path.as_str()).to_owned()))
}

/// The first line of the answer.
async fn ask(host: &str, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(host).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    let mut reader = stream.take(MAX_LINE_BYTES);
    while !answer.contains(&b'\n') && reader.read_buf(&mut answer).await? > 0 {}
    let line = answer.split(|byte| *byte == b'\n').next().unwrap_or_default();
    Ok(String::from_utf8_lossy(line).into_owned())
}

/// The status in `HTTP/1.1 200 OK`.
fn status(line: &str) -> Option<u16> {
    line.strip_prefix("HTTP/1.")?.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn only_http_addresses_are_asked() {
        let place = |url| super::place(url).map(|(host, path)| format!("{host} {path}"));
        for (url, expect) in [
            ("http://127.0.0.1:8420/readyz", Some("127.0.0.1:8420 /readyz")),
            ("http://localhost", Some("localhost:80 /")),
            ("http://[::1]:1/metrics?a=b", Some("[::1]:1 /metrics?a=b")),
            ("https://localhost/readyz", None),
            ("http://ana@localhost/", None),
            ("/readyz", None),
            ("", None),
        ] {
            assert_eq!(place(url).as_deref(), expect, "{url}");
        }
        for (line, expect) in
            [("HTTP/1.1 200 OK\r", Some(200)), ("HTTP/1.0 503", Some(503)), ("HTTP/2 200", None), ("200", None)]
        {
            assert_eq!(status(line), expect, "{line}");
        }
    }

    /// Answers one request with these bytes, in two parts.
    async fn server(answer: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/readyz", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 512];
            let read = stream.read(&mut request).await.unwrap();
            assert!(request[..read].starts_with(b"GET /readyz HTTP/1.1\r\n"));
            let (first, second) = answer.as_bytes().split_at(answer.len() / 2);
            stream.write_all(first).await.unwrap();
            stream.flush().await.unwrap();
            tokio::task::yield_now().await;
            stream.write_all(second).await.unwrap();
        });
        url
    }

    async fn health(url: String) -> Result<(), String> {
        run(HealthArgs { url }).await.map(drop).map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn ready_is_the_status_200_and_nothing_else() {
        health(server("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await).await.unwrap();
        let going = health(server("HTTP/1.1 503 Service Unavailable\r\n\r\n").await).await.unwrap_err();
        assert!(going.starts_with("PV-CLI-HEALTH") && going.contains("503"), "{going}");
        assert!(health(server("").await).await.is_err(), "nothing is no answer");
        assert!(health("http://127.0.0.1:1/readyz".to_owned()).await.unwrap_err().contains("does not answer"));
        assert!(health("readyz".to_owned()).await.unwrap_err().contains("http://HOST:PORT/PATH"));
    }
}
