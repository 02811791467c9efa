//! The same call over every transport of a node, and what a session costs it.

use std::time::Duration;

use anyhow::Context;
use http::header;
use provost_client::Transport;
use secrecy::ExposeSecret;
use serde_json::json;

use super::{
    documents::PLUGIN,
    judge::Bar,
    load::{Side, all_of, interleaved, until_answered},
    report::{Figure, Row},
    stage::Stage,
};
use crate::bench::{Era, client::Target};

/// In the order of the report; the first is what the others are beside.
const TRANSPORTS: [(&str, Transport); 4] =
    [("http", Transport::Http), ("ws", Transport::WebSocket), ("h3", Transport::Http3), ("quic", Transport::Quic)];
/// Rounds of this row: it has many sides and no bar.
const MOST_ROUNDS: u32 = 3;
const MOST_SESSION_BYTES: f64 = 8_192.0;
/// Sessions that are opened: a node keeps the state of so many of one principal, less those before.
const SESSIONS: u32 = 960;
const SESSIONS_QUICK: u32 = 240;
/// Sessions before: what is made once is made by them.
const SESSIONS_BEFORE: u32 = 32;
/// From the last session to the reading of memory.
const SETTLE: Duration = Duration::from_secs(1);
const SESSION: &str = "mcp-session-id";
const LEGACY: &str = "2025-11-25";

/// Row `transports`.
pub async fn transports(stage: &mut Stage) -> anyhow::Result<Vec<Row>> {
    stage.start_one().await?;
    let one = stage.one()?;
    let tool = format!("{PLUGIN}.{}", stage.asked.tool);
    let mut sides = Vec::new();
    for (name, transport) in TRANSPORTS {
        let connector = one.connector(0, transport, "/mcp")?;
        let target = Target::new(connector, Era::Modern, &tool, &stage.asked.arguments)?;
        let target = target.expecting(stage.asked.expect.clone());
        until_answered(&target).await?;
        sides.push(Side { name: name.to_owned(), target, transport, era: Era::Modern, watched: one.watched(0) });
    }
    let effort = stage.effort;
    let rounds = effort.rounds.min(MOST_ROUNDS);
    let measured = interleaved(&effort.saturated(), &sides, rounds, "transports", &stage.bar).await;
    let all = all_of(&measured, TRANSPORTS.map(|(name, _)| name))?;
    let [http, ..] = all;
    let mut figures = Vec::new();
    for side in all {
        let name = &side.name;
        figures.push(Figure::new(&format!("{name}-rate"), name.clone(), "calls/s", side.each(|run| run.throughput)));
        figures.push(Figure::new(
            &format!("{name}-cpu"),
            format!("{name}, CPU time of the node"),
            "us/call",
            side.each_known(|run| run.cpu_us),
        ));
        if name != "http" {
            let beside = side.beside(http, |own, plain| own.throughput / plain.throughput);
            figures.push(Figure::new(&format!("{name}-ratio"), format!("{name} / http"), "x", beside));
        }
    }
    let note = "HTTP/3 and QUIC are always encrypted; HTTP/1.1 and WebSocket are plain here".to_owned();
    Ok(vec![Row::measured("transports", "", figures, vec![note])])
}

/// Row `sessions`: resident memory before and after sessions of the older era are opened over one connection.
pub async fn sessions(stage: &mut Stage) -> anyhow::Result<Vec<Row>> {
    stage.start_one().await?;
    stage.say("sessions");
    let one = stage.one()?;
    let watched = one.watched(0).context("PV-BENCH: the node's process cannot be read")?;
    let client = reqwest::Client::builder().no_proxy().build().context("PV-BENCH: no HTTP client can be made")?;
    let (url, token) = one.mcp(0)?;
    for _ in 0..SESSIONS_BEFORE {
        open_session(&client, &url, token.expose_secret()).await?;
    }
    tokio::time::sleep(SETTLE).await;
    let before = watched.read().context("PV-BENCH: the node is gone")?;
    let count = if stage.effort.quick { SESSIONS_QUICK } else { SESSIONS };
    for _ in 0..count {
        open_session(&client, &url, token.expose_secret()).await?;
    }
    tokio::time::sleep(SETTLE).await;
    let after = watched.read().context("PV-BENCH: the node is gone")?;
    let grown = after.rss_bytes.saturating_sub(before.rss_bytes);
    let figure =
        Figure::new("bytes", "resident memory for each live session", "bytes", vec![grown as f64 / f64::from(count)])
            .against(Bar::at_most(MOST_SESSION_BYTES), None);
    let note = format!("{count} sessions, opened once: memory that the node had in reserve does not count");
    Ok(vec![Row::measured("sessions", "", vec![figure], vec![note])])
}

async fn open_session(client: &reqwest::Client, url: &str, token: &str) -> anyhow::Result<()> {
    let hello = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": LEGACY, "capabilities": {},
        "clientInfo": { "name": "provost-bench", "version": env!("CARGO_PKG_VERSION") } } });
    let ready = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
    let post = |body: &serde_json::Value| {
        client
            .post(url)
            .bearer_auth(token)
            .header(header::ACCEPT, "application/json, text/event-stream")
            .header("mcp-protocol-version", LEGACY)
            .json(body)
    };
    let failed = "PV-BENCH-ERRORS: a session cannot be opened";
    let opened = post(&hello).send().await.and_then(reqwest::Response::error_for_status).context(failed)?;
    let session = opened.headers().get(SESSION).cloned().context("PV-BENCH-ERRORS: a session has no id")?;
    // Read to its end, so that the connection is used again.
    opened.bytes().await.context(failed)?;
    let told = post(&ready).header(SESSION, session).send().await;
    let told = told.and_then(reqwest::Response::error_for_status).context(failed)?;
    told.bytes().await.context(failed)?;
    Ok(())
}
